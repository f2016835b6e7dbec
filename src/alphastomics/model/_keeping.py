"""What of the training cells is kept with the model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from alphastomics.model._fitting import geometry, placed_cells, standardised
from alphastomics.model._tissue import TissueData
from alphastomics.model._validate import MIN_CELLS
from alphastomics.nn.atlas import MAX_CELLS as MAX_PLACED
from alphastomics.nn.atlas import MAX_SECTIONS
from alphastomics.nn.bootstrap import MAX_CELLS

if TYPE_CHECKING:
    from alphastomics.diffusion_model.module import MaskedDiffusionModule


@torch.no_grad()
def keep_cells(
    module: MaskedDiffusionModule, data: TissueData, sections: list[str], seed: int
) -> None:
    """Keep some cells with positions, to draw new ones like them; genes must be fitted."""
    rng = np.random.default_rng(seed)
    groups = [placed_cells(data, section) for section in sections]
    groups = [data.shuffle(cells, rng, MAX_CELLS)[:MAX_CELLS] for cells in groups if len(cells)]
    if not groups:
        return
    cells = rng.permutation(np.concatenate(groups))[:MAX_CELLS]
    values = torch.from_numpy(data.expression[cells].toarray().astype(np.float32))
    known = torch.from_numpy(data.measured(cells))
    transform, bootstrap = module.expression_transform.cpu(), module.bootstrap
    z = transform(values, known)
    depth = torch.ones(len(cells))
    if transform.values == "counts":
        depth = transform.size_factor(values, known)[:, 0]
    factors = module.genes.factors(z, known)
    bootstrap.fill(factors, depth, torch.from_numpy(data.label[cells]))
    decoded = factors @ module.genes.loading.T
    n = known.sum(0).clamp_min(1)
    bootstrap.noise.copy_((((z - decoded) * known).square().sum(0) / n).sqrt())
    mean = transform.unlogged(transform.inverse(decoded)).mean(0)
    seen = ((values / depth[:, None]) * known).sum(0) / n
    bootstrap.scale.copy_(seen / mean.clamp_min(1e-6))


@torch.no_grad()
def keep_places(
    module: MaskedDiffusionModule, data: TissueData, sections: list[str], seed: int
) -> None:
    """Keep some cells of some sections with the model; the pointer must be fitted."""
    rng = np.random.default_rng(seed)
    chosen = [placed_cells(data, section) for section in rng.permutation(sections)]
    chosen = [cells for cells in chosen if len(cells) >= MIN_CELLS][:MAX_SECTIONS]
    features, place = [], []
    for section in chosen:
        cells = data.shuffle(section, rng, MAX_PLACED)[:MAX_PLACED]
        measured = torch.from_numpy(data.measured(cells))
        features.append(module.pointer.cpu().features(standardised(module, data, cells), measured))
        place.append(geometry(module, data, cells).position[0])
    if chosen:
        module.atlas.fill(features, place)
