"""New sections: random training cells, their labels, and the AnnData that holds them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from scipy import sparse
from torch import Tensor

from alphastomics import _keys
from alphastomics.diffusion_model.module import MaskedDiffusionModule
from alphastomics.model._data import Categories, SetupArgs, category_numbers, require_seen_labels

GENERATED = "generated"  # name of the section


def draw_donors(
    module: MaskedDiffusionModule, new: AnnData, setup: SetupArgs, categories: Categories, seed: int
) -> Tensor:
    """Numbers of random stored training cells, one per new cell, of its type if it has one.

    Raises
    ------
    ValueError
        If the model has no cell of a type with all genes.
    """
    require_seen_labels(new, setup, categories)
    label = category_numbers(new, setup.labels_key, categories.labels, "labels_key")
    missing = set(label) - set(module.donors.label.tolist()) - {0}
    if missing:
        names = [categories.labels[number - 1] for number in sorted(missing)]
        raise ValueError(
            f"labels contains {names}, of which the model has no cell with all genes: leave them "
            "out."
        )
    generator = torch.Generator().manual_seed(seed)
    return module.donors.bootstrap(torch.from_numpy(label), generator)


def unplaced_section(values: Tensor, new: AnnData, setup: SetupArgs) -> AnnData:
    """Cells with measured expression ``(n, G)`` and without positions."""
    cells = AnnData(sparse.csr_matrix(values.numpy()), obs=new.obs[[]], var=new.var)
    if setup.layer is not None:
        cells.layers[setup.layer] = cells.X
    return cells


@torch.no_grad()
def log_normalized(module: MaskedDiffusionModule, values: Tensor) -> Tensor:
    """Log-normalized expression ``(n, G)`` of cells that measure all genes."""
    values = values.to(module.device)
    return module.expression_transform.log(values, torch.ones_like(values, dtype=torch.bool)).cpu()


def generated_obs(
    new: AnnData, donor: Tensor, labels: Tensor, setup: SetupArgs, categories: Categories
) -> pd.DataFrame:
    """Columns of new cells: their section, and the type of their donor unless it was given.

    Parameters
    ----------
    new
        Cells, with their types if these were given.
    donor, labels
        Donor of each cell ``(n,)``, and number of the type of each donor, 0 without a type.
    setup, categories
        Keys and names of the types.
    """
    obs = new.obs.drop(columns=_keys.EXPRESSION_KNOWN)
    if setup.section_key is not None:
        obs[setup.section_key] = pd.Categorical([GENERATED] * len(obs))
    if setup.labels_key is not None and setup.labels_key not in obs:
        number = labels[donor.to(labels.device)].cpu().numpy() - 1
        obs[setup.labels_key] = pd.Categorical.from_codes(
            number, categories=pd.Index(categories.labels, dtype=object)
        )
    return obs


def uns_of_new(cells: AnnData, units: str) -> dict[str, Any]:
    """Unstructured annotation of new cells: provenance, and the unit of training if it is known."""
    uns = {_keys.UNS: cells.uns[_keys.UNS]}
    return {**uns, _keys.UNITS: units} if units else uns


def exchanged(
    module: MaskedDiffusionModule, positions: Any, donor: Tensor, seed: int
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Positions ``(n, d)`` exchanged between near cells until factors are as autocorrelated."""
    description = module.donors.description[donor].cpu().double().numpy()
    return module.autocorrelation.exchange(
        positions, description[:, : module.factors.n_factors], np.random.default_rng(seed)
    )
