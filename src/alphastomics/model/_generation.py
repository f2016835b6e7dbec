"""New cells, and the AnnData of a section that is made of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from torch import Tensor

from alphastomics import _keys
from alphastomics._output import RADIUS, Output
from alphastomics._settings import logger
from alphastomics._validate import check_memory, short
from alphastomics.diffusion_model.module import MaskedDiffusionModule
from alphastomics.diffusion_model.rounds import DrawSettings
from alphastomics.model._data import Categories, SetupArgs, category_numbers, require_seen_labels
from alphastomics.model._distributed import Devices
from alphastomics.model._draws import draw_missing
from alphastomics.model._inference import Execution
from alphastomics.model._reader import CellReader
from alphastomics.model._results import BOUNDS

GENERATED = "generated"  # name of the section
BYTES_OF_NAME = 128  # of a cell in an index


def new_cells(
    n_cells: int, genes: pd.Index, setup: SetupArgs, labels: ArrayLike | None, what: str
) -> AnnData:
    """Cells of which nothing is known but their type, if ``labels`` ``(n_cells,)`` are given.

    Raises
    ------
    ValueError
        If their expression, ``what`` in the message, is larger than the memory of this machine.
    """
    check_memory(n_cells * (BYTES_OF_NAME + 2 * 4 * len(genes)), what, "make fewer at a time")
    width = len(str(n_cells - 1))
    obs = pd.DataFrame(index=[f"cell_{i:0{width}d}" for i in range(n_cells)])
    obs[_keys.EXPRESSION_KNOWN] = False
    if labels is not None:
        if setup.labels_key is None:
            raise ValueError(
                "labels were given, but the model was set up without labels_key: set up the "
                "training data with setup_anndata(..., labels_key=...) and train again."
            )
        obs[setup.labels_key] = pd.Categorical(_label_array(labels, n_cells))
    empty = sparse.csr_matrix((n_cells, len(genes)), dtype=np.float32)
    layers = {} if setup.layer is None else {setup.layer: empty}
    return AnnData(empty, obs=obs, var=pd.DataFrame(index=genes), layers=layers)


def _label_array(labels: ArrayLike, n_cells: int) -> NDArray[np.object_]:
    """Labels of new cells ``(n_cells,)``."""
    names = np.empty(0, dtype=object)
    nested = isinstance(labels, np.ndarray) and labels.ndim != 1
    if isinstance(labels, Iterable) and not isinstance(labels, str | AnnData) and not nested:
        names = np.fromiter(labels, dtype=object)
    if len(names) != n_cells or not all(map(pd.api.types.is_scalar, names)):
        raise ValueError(
            f"labels must have one entry per cell, the types of {n_cells} cells, found "
            f"{short(labels)} ({type(labels).__name__})."
        )
    return names


def with_expression(cells: AnnData, layer: str, spatial_key: str, units: str) -> AnnData:
    """New cells with estimates of a layer as their expression, and bounds if there are any."""
    bounds = [layer + suffix for suffix in BOUNDS if layer + suffix in cells.layers]
    return AnnData(
        cells.layers[layer],
        obs=cells.obs.drop(columns=_keys.EXPRESSION_KNOWN),
        var=cells.var,
        obsm={spatial_key: cells.obsm[spatial_key]},
        layers={name: cells.layers[name] for name in bounds},
        uns=_uns_of_new(cells.uns[_keys.UNS], units),
    )


def generate_section(
    reader: CellReader,
    new: AnnData,
    settings: DrawSettings,
    *,
    output: Output,
    seed: int,
    details: dict[str, Any],
    units: str,
    device: AbstractContextManager[Devices | None],
    progress_bar: bool | None,
) -> AnnData:
    """Random training cells at positions that the network draws.

    Parameters
    ----------
    reader
        Of the model.
    new
        Cells, with their types if these are fixed.
    settings, seed
        Of the draw.
    output
        Scale of expression.
    details, units
        Provenance, and unit of positions.
    device
        Context in which the network is on the device of the call.
    progress_bar
        As in ``AlphaSTomics.generate``.
    """
    module, setup, donors = reader.module, reader.setup, reader.module.donors
    donor = _draw_donors(module, new, setup, reader.categories, seed)
    values = module.measured_expression(donor)
    cells = _unplaced_section(values, new, setup)
    with device as shared:
        # Measured cells without counts have a place, too.
        task = reader.task(cells, "expr_to_pos", predicts=False, leave_out_blank=False)
        execution = Execution(task.set_size(), progress_bar, shared)
        (draw,) = draw_missing(module, task, settings, execution, seed=seed)
        positions = _exchanged(module, draw.position, donor, seed)
    if output == "lognorm":
        values = _log_normalized(module, values)
    logger.info(
        f"generate: {new.n_obs:,} cells with {new.n_vars:,} genes ({output}), drawn from "
        f"{len(donors.label):,} training cells, with positions in obsm[{setup.spatial_key!r}]"
    )
    return AnnData(
        values.numpy(),
        obs=_generated_obs(new, donor, donors.label, setup, reader.categories),
        var=new.var,
        obsm={setup.spatial_key: positions},
        uns=_uns_of_new({_keys.SAMPLED: {"images": False, RADIUS: False, **details}}, units),
    )


def _draw_donors(
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


def _unplaced_section(values: Tensor, new: AnnData, setup: SetupArgs) -> AnnData:
    """Cells with measured expression ``(n, G)`` and without positions."""
    cells = AnnData(sparse.csr_matrix(values.numpy()), obs=new.obs[[]], var=new.var)
    if setup.layer is not None:
        cells.layers[setup.layer] = cells.X
    return cells


@torch.no_grad()
def _log_normalized(module: MaskedDiffusionModule, values: Tensor) -> Tensor:
    """Log-normalized expression ``(n, G)`` of cells that measure all genes."""
    values = values.to(module.device)
    return module.expression_transform.log(values, torch.ones_like(values, dtype=torch.bool)).cpu()


def _generated_obs(
    new: AnnData, donor: Tensor, labels: Tensor, setup: SetupArgs, categories: Categories
) -> pd.DataFrame:
    """Columns of new cells: their section, and the type of their donor unless it was given.

    ``donor`` ``(n,)`` is the donor of each cell, ``labels`` the number of the type of each donor.
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


def _exchanged(
    module: MaskedDiffusionModule, positions: NDArray[np.float64], donor: Tensor, seed: int
) -> NDArray[np.float64]:
    """Positions ``(n, d)`` exchanged between near cells until factors are as autocorrelated."""
    description = module.donors.description[donor].cpu().double().numpy()
    return module.autocorrelation.exchange(
        positions, description[:, : module.factors.n_factors], np.random.default_rng(seed)
    )


def _uns_of_new(records: Mapping[str, Any], units: str) -> dict[str, Any]:
    """Unstructured annotation of new cells: provenance, and the unit of training if it is known."""
    uns = {_keys.UNS: dict(records)}
    return {**uns, _keys.UNITS: units} if units else uns
