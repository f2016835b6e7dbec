"""What is fitted to the training cells before the network learns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor
from tqdm.auto import trange

from alphastomics.diffusion_model.masks import PANEL_SHARE
from alphastomics.diffusion_model.transforms import Rows
from alphastomics.model._tissue import TissueData
from alphastomics.model._validate import MIN_CELLS
from alphastomics.nn.geometry import Geometry

if TYPE_CHECKING:
    from alphastomics.diffusion_model.module import MaskedDiffusionModule

MAX_CELLS = 6000  # of a section, those nearest to a random one
MAX_CELLS_IN_ALL = 24_000
POINTER_STEPS, POINTER_NOISE = 500, 0.8
POINTER_LR = [2e-3, 2e-2]  # of the weights, and of the two scales
POINTER_CELLS = 2048
FOLDS = 5
MAX_FITTED = 12  # sections that statistics are fitted to
PENALTY_SHARE = 0.06  # ridge penalty per training cell; 1,000 for 17,000 cells


def fit_transforms(module: MaskedDiffusionModule, data: TissueData, sections: list[str]) -> None:
    """Take the statistics of the training cells."""
    training, known = np.isin(data.section, sections), data.expression_known
    groups = [np.flatnonzero(training & known & (data.panel == i)) for i in range(len(data.panels))]
    module.expression_transform.fit(
        [
            (_SomeRows(data.expression, cells), panel)
            for cells, panel in zip(groups, data.panels, strict=True)
            if len(cells)
        ]
    )
    assert data.position is not None
    located = [data.has_position & (data.section == section) for section in sections]
    module.position_transform.fit([data.position[cells] for cells in located if cells.any()])


@dataclass(frozen=True)
class _SomeRows:
    """Some rows of expression, read when asked for."""

    expression: Rows
    cells: NDArray[np.int64]

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.cells), self.expression.shape[1]

    def __getitem__(self, rows: slice) -> sparse.csr_matrix:
        return self.expression[self.cells[rows]]


@torch.no_grad()
def fit_neighborhood(
    module: MaskedDiffusionModule, data: TissueData, sections: list[str], seed: int
) -> None:
    """Fit the first guess of expression from the cells around; transforms must be fitted.

    Genes that some section with coordinates lacks get no guess.
    """
    rng = np.random.default_rng(seed)
    chosen = _patches(data, sections, rng)
    if not chosen:
        return
    everywhere = torch.from_numpy(
        np.logical_and.reduce([data.panels[data.panel[cells]].all(0) for cells in chosen])
    )
    z = [standardised(module, data, cells) for cells in chosen]
    neighborhood = module.neighborhood
    basis = _principal_directions(torch.cat(z), neighborhood.basis.shape[1])
    neighborhood.basis.copy_(basis)
    gram, product, n = torch.zeros(()).double(), torch.zeros(()).double(), 0
    for cells, values in zip(chosen, z, strict=True):
        features = _surroundings(module, data, cells, values)  # (n, H R)
        gram = gram + features.T @ features
        product = product + features.T @ (values - values.mean(0)).double()
        n += len(cells)
    neighborhood.fit(basis, gram, product * everywhere, PENALTY_SHARE * n)


@torch.no_grad()
def fit_genes(
    module: MaskedDiffusionModule, data: TissueData, sections: list[str], seed: int
) -> None:
    """Fit the guess of unknown genes by known ones; transforms must be fitted.

    By the cells of which all genes were measured, with coordinates or without; by all cells if
    there are none such. How to mix in the surroundings is learned from sections with coordinates,
    each of their genes hidden in turn.
    """
    rng = np.random.default_rng(seed)
    used = np.isin(data.section, sections) & data.expression_known
    widest = data.panels[data.panel[used]].any(0)
    is_full = np.asarray(data.panels[:, widest].all(axis=1))
    full = used & is_full[data.panel]
    source = full if full.any() else used
    groups = [np.flatnonzero(source & (data.section == section)) for section in sections]
    groups, size = _at_most(MAX_FITTED, groups, rng)
    groups = [data.shuffle(cells, rng, size)[:size] for cells in groups]
    if not groups:
        return
    values = [standardised(module, data, cells) for cells in groups]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module.genes.fit(torch.cat([z - z.mean(0) for z in values]))
    n_features = len(module.genes.mix)
    gram, product, n = torch.zeros(n_features, n_features).double(), torch.zeros(n_features), 0
    for cells in _patches(data, sections, rng):
        x, y = (part.double() for part in _guessed_in_turn(module, data, cells, rng))
        gram, product, n = gram + x.T @ x, product + x.T @ y, n + len(y)
    if n:
        ridge = gram + 1e-3 * n * torch.eye(n_features)
        module.genes.mix.copy_(torch.linalg.solve(ridge, product))
        module.genes.alone.copy_(product[0] / gram[0, 0].clamp_min(1e-12))


def _guessed_in_turn(
    module: MaskedDiffusionModule,
    data: TissueData,
    cells: NDArray[np.int64],
    rng: np.random.Generator,
) -> tuple[Tensor, Tensor]:
    """Guess every measured gene by other genes, and smooth the guesses in space.

    Returns them, ``(n G, 1 + H)``, and the truth, ``(n G,)``, centred.
    """
    z, known = standardised(module, data, cells), torch.from_numpy(data.measured(cells))
    guess = torch.zeros_like(z)
    for fold in np.array_split(rng.permutation(z.shape[1]), FOLDS):
        seen = known.clone()
        seen[:, fold] = False
        guess[:, fold] = module.genes(z, seen)[:, fold]
    neighborhood = module.neighborhood
    every_width = torch.eye(len(neighborhood.width))
    where = geometry(module, data, cells)
    around = neighborhood.mixed(guess[None], known.any(1)[None], where, every_width)[0]
    features = torch.cat([guess[None], around])  # (1 + H, n, G)
    features, z = features - features.mean(1, keepdim=True), z - z.mean(0)
    return features[:, known].T, z[known]


def fit_pointer(
    module: MaskedDiffusionModule,
    data: TissueData,
    sections: list[str],
    position_mask_ratio: float,
    seed: int,
    *,
    progress_bar: bool,
) -> None:
    """Learn which cells sit near each other from what they express; transforms must be fitted.

    Every step, the positions of some cells of a section are hidden, and they are to be found among
    the others. A part of the time the former lack genes, as a query may, and all are seen with
    noise. Without a ``position_mask_ratio`` there is nothing to learn.
    """
    chosen = [placed_cells(data, section) for section in sections]
    chosen = [cells for cells in chosen if len(cells) >= 2 * MIN_CELLS]
    if not chosen or position_mask_ratio == 0:
        return
    rng = np.random.default_rng(seed)
    pointer = module.pointer.cpu().train().requires_grad_(True)
    weights = [*pointer.linear.parameters(), *pointer.network.parameters()]
    optimizer = torch.optim.AdamW(weights)
    scales = [pointer.log_sharpness, pointer.log_width]
    optimizer.add_param_group({"params": scales, "weight_decay": 0.0})
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, POINTER_LR, POINTER_STEPS)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        bar = {"desc": "Learning to compare cells", "disable": not progress_bar, "leave": False}
        for step in trange(POINTER_STEPS, **bar):
            section = chosen[step % len(chosen)]
            cells = data.shuffle(section, rng, POINTER_CELLS)[:POINTER_CELLS]
            loss = _pointing_loss(module, data, cells, position_mask_ratio, rng)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    pointer.eval().requires_grad_(False)


def _pointing_loss(
    module: MaskedDiffusionModule,
    data: TissueData,
    cells: NDArray[np.int64],
    hidden_share: float,
    rng: np.random.Generator,
) -> Tensor:
    """Negative log-likelihood of the places of the first of some cells, given those of the rest."""
    n = int(np.clip(round(hidden_share * len(cells)), 1, len(cells) - 1))
    values = standardised(module, data, cells)  # (N, G)
    values = values + POINTER_NOISE * float(rng.random()) * torch.randn_like(values)
    measured = torch.from_numpy(data.measured(cells))
    if rng.random() < PANEL_SHARE:
        hidden = torch.from_numpy(rng.random(values.shape[1]) < rng.uniform(0, 0.8))
        measured[:n] &= ~hidden
    place = geometry(module, data, cells).position[0]  # (N, d)
    features = module.pointer.features(values, measured)
    return module.pointer.negative_log_likelihood(features[:n], features[n:], place[:n], place[n:])


def _at_most(
    n: int, groups: list[NDArray[np.int64]], rng: np.random.Generator
) -> tuple[list[NDArray[np.int64]], int]:
    """Choose ``n`` groups of cells at random if there are more, and how many cells of each."""
    groups = [cells for cells in groups if len(cells) > 1]
    if len(groups) > n:
        groups = [groups[i] for i in np.sort(rng.permutation(len(groups))[:n])]
    return groups, min(MAX_CELLS, MAX_CELLS_IN_ALL // max(len(groups), 1))


def placed_cells(data: TissueData, section: str) -> NDArray[np.int64]:
    """Find the cells of a section of which position and expression are known."""
    cells = data.cells_of(section)
    return np.asarray(cells[data.has_position[cells] & data.expression_known[cells]])


def _patches(
    data: TissueData, sections: list[str], rng: np.random.Generator
) -> list[NDArray[np.int64]]:
    """Find cells of sections with position and expression, a dense patch of a large one."""
    assert data.position is not None
    placed, size = _at_most(MAX_FITTED, [placed_cells(data, s) for s in sections], rng)
    patches = []
    for cells in placed:
        if len(cells) > size:
            distance = np.square(data.position[cells] - data.position[rng.choice(cells)]).sum(1)
            cells = cells[np.argsort(distance, kind="stable")[:size]]
        patches.append(cells)
    return patches


def standardised(
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
    where = geometry(module, data, cells)
    known = torch.from_numpy(data.measured(cells)).float()[None]
    mean, _ = module.neighborhood.means(values[None], known, where, without_self=True)
    features = mean[0].transpose(0, 1).flatten(1).double()  # (n, H R)
    return features - features.mean(0)


def geometry(module: MaskedDiffusionModule, data: TissueData, cells: NDArray[np.int64]) -> Geometry:
    """Known positions as one set."""
    assert data.position is not None
    position = data.position[cells] - data.position[cells].mean(0)
    standard = module.position_transform(torch.from_numpy(position).float())[None]  # (1, n, d)
    certain = torch.ones(1, len(cells))
    return Geometry(standard, torch.zeros_like(certain), certain)
