"""What is fitted to the training cells before the network learns."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alphastomics.model._data import TissueData
from alphastomics.nn.geometry import Geometry

if TYPE_CHECKING:
    from alphastomics.diffusion_model.module import MaskedDiffusionModule

MAX_CELLS = 6000  # of a section, those nearest to a random one
PENALTY_SHARE = 0.06  # ridge penalty per training cell; 1,000 for 17,000 cells


def fit_transforms(module: MaskedDiffusionModule, data: TissueData, sections: list[str]) -> None:
    """Take the statistics of the training cells."""
    training, known = np.isin(data.section, sections), data.expression_known
    groups = [training & known & (data.panel == i) for i in range(len(data.panels))]
    module.expression_transform.fit(
        [
            (data.expression[g], panel)
            for g, panel in zip(groups, data.panels, strict=True)
            if g.any()
        ]
    )
    assert data.position is not None
    located = [data.has_position & (data.section == section) for section in sections]
    module.position_transform.fit([data.position[cells] for cells in located if cells.any()])


@torch.no_grad()
def fit_neighborhood(
    module: MaskedDiffusionModule, data: TissueData, sections: list[str], seed: int
) -> None:
    """Fit the first guess of expression from the cells around; transforms must be fitted.

    Genes that some section with coordinates lacks get no guess.
    """
    rng = np.random.default_rng(seed)
    chosen = [_cells_to_fit(data, section, rng) for section in sections]
    chosen = [cells for cells in chosen if len(cells) > 1]
    if not chosen:
        return
    everywhere = torch.from_numpy(
        np.logical_and.reduce([data.panels[data.panel[cells]].all(0) for cells in chosen])
    )
    standardised = [_standardised(module, data, cells) for cells in chosen]
    neighborhood = module.neighborhood
    basis = _principal_directions(torch.cat(standardised), neighborhood.basis.shape[1])
    neighborhood.basis.copy_(basis)
    gram, product, n = torch.zeros(()).double(), torch.zeros(()).double(), 0
    for cells, values in zip(chosen, standardised, strict=True):
        features = _surroundings(module, data, cells, values)  # (n, H R)
        gram = gram + features.T @ features
        product = product + features.T @ (values - values.mean(0)).double()
        n += len(cells)
    neighborhood.fit(basis, gram, product * everywhere, PENALTY_SHARE * n)


def _cells_to_fit(data: TissueData, section: str, rng: np.random.Generator) -> NDArray[np.int64]:
    """Find cells of a section with position and expression, a dense patch of a large one."""
    cells = data.cells_of(section)
    cells = cells[data.has_position[cells] & data.expression_known[cells]]
    if len(cells) <= MAX_CELLS:
        return cells
    assert data.position is not None
    distance = np.square(data.position[cells] - data.position[rng.choice(cells)]).sum(1)
    return np.asarray(cells[np.argsort(distance, kind="stable")[:MAX_CELLS]])


def _standardised(
    module: MaskedDiffusionModule, data: TissueData, cells: NDArray[np.int64]
) -> Tensor:
    """Standardised expression ``(n, G)``, 0 where a gene was not measured."""
    values = torch.from_numpy(data.expression[cells].toarray().astype(np.float32))
    measured = torch.from_numpy(data.measured(cells))
    return module.expression_transform.cpu()(values, measured) * measured


def _principal_directions(values: Tensor, rank: int) -> Tensor:
    """Orthonormal directions of the largest variance, ``(G, rank)``."""
    centred = (values - values.mean(0)).double()
    _, vectors = torch.linalg.eigh(centred.T @ centred)
    return vectors[:, -rank:].float()


def _surroundings(
    module: MaskedDiffusionModule, data: TissueData, cells: NDArray[np.int64], values: Tensor
) -> Tensor:
    """Kernel means around cells, themselves left out, centred, ``(n, H R)``."""
    assert data.position is not None
    position = data.position[cells] - data.position[cells].mean(0)
    standard = module.position_transform(torch.from_numpy(position).float())[None]  # (1, n, d)
    certain = torch.ones(1, len(cells))
    geometry = Geometry(standard, torch.zeros_like(certain), certain)
    known = torch.from_numpy(data.measured(cells)).float()[None]
    mean, _ = module.neighborhood.means(values[None], known, geometry, without_self=True)
    features = mean[0].transpose(0, 1).flatten(1).double()  # (n, H R)
    return features - features.mean(0)
