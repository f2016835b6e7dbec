"""Writing estimates into AnnData."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from numpy.typing import NDArray

from alphastomics import __version__, _keys
from alphastomics.diffusion_model.transforms import ExpressionTransform
from alphastomics.metrics import generalised_procrustes, medoid, mirror_ambiguity
from alphastomics.model._filling import Array, Filled
from alphastomics.model._request import Request

Output = Literal["lognorm", "counts"]
OUTPUTS: tuple[Output, ...] = ("lognorm", "counts")
Point = Literal["medoid", "consensus"] | None
POINTS: tuple[Point, ...] = ("medoid", "consensus", None)
CHUNK = 4096


def superpose_draws(
    filled: Sequence[Filled], request: Request, *, allow_reflection: bool
) -> pd.DataFrame:
    """Put the draws of every section without a frame into one, in place.

    Returns
    -------
    DataFrame
        A row for each such section: whether the draws disagree by a mirror image.
    """
    mirrors = {}
    for section, cells in request.unframed_sections():
        draws = generalised_procrustes(
            np.stack([one.position[cells] for one in filled]), allow_reflection=allow_reflection
        )
        for one, draw in zip(filled, draws, strict=True):
            one.position[cells] = draw
        report = mirror_ambiguity(draws)
        mirrors[section] = report
        if report["ambiguous"]:
            warnings.warn(
                f"section {section!r} looks like its own mirror image: draws put "
                f"{report['opposite_sides']:.0%} of the cells on opposite sides of one axis at "
                "equal distance from it. A mean or consensus puts such cells in the middle; a "
                "single draw does not.",
                UserWarning,
                stacklevel=4,
            )
    return pd.DataFrame.from_dict(mirrors, orient="index")


def choose_draws(filled: Sequence[Filled], request: Request) -> NDArray[np.int64]:
    """Find the medoid of the draws of each query cell's section, ``(n_query,)``.

    By positions where they were asked for, else by expression.
    """
    chosen = np.zeros(request.n_query, dtype=np.int64)
    sections = request.data.section[: request.n_query]
    to_fill = request.to_fill[: request.n_query]
    for section in pd.unique(sections):
        cells = np.flatnonzero((sections == section) & to_fill)
        if len(cells) and len(filled) > 1:
            values = [
                one.position[cells] if request.fill_position else _some(one.expression, cells)
                for one in filled
            ]
            chosen[sections == section] = medoid(np.stack(values))
    return chosen


def _some(expression: NDArray[np.float32] | None, cells: NDArray[np.int64]) -> Array:
    assert expression is not None
    return np.asarray(expression[cells], dtype=np.float64)


def point_estimate(
    values: Sequence[NDArray[Any]], chosen: NDArray[np.int64], point: Point
) -> NDArray[Any]:
    """One value per query cell of draws, each ``(n, F)``: their mean, or the chosen ones."""
    n_query = len(chosen)
    if point == "consensus":
        return np.asarray(np.mean([v[:n_query] for v in values], axis=0))
    out = np.array(values[0][:n_query])
    for draw in np.unique(chosen[chosen > 0]):
        out[chosen == draw] = values[draw][:n_query][chosen == draw]
    return out


def with_known_positions(position: Array, request: Request) -> Array:
    """Positions ``(n_query, d)`` with the known ones as they came."""
    position = position[: request.n_query].copy()
    known = request.position_known[: request.n_query]
    if known.any():
        assert request.data.position is not None
        position[known] = request.data.position[: request.n_query][known]
    return position


def write_radius(
    adata: AnnData, request: Request, scale: Array, quantile: float | None, key_added: str
) -> None:
    """Write the 90 % radius of every cell, 0 where the position is known; nothing uncalibrated."""
    column = key_added + _keys.RADIUS_SUFFIX
    if quantile is None:
        if column in adata.obs:  # of an earlier call: it would not belong to these positions
            del adata.obs[column]
        return
    radius = quantile * scale[: request.n_query]
    adata.obs[column] = np.where(request.position_known[: request.n_query], 0.0, radius)


def write_images(
    adata: AnnData, reference: AnnData | None, request: Request, spatial_key: str, key_added: str
) -> bool:
    """Let squidpy find the images behind positions that are in their frame (Visium).

    Those of an earlier call go; anything else that has that name stays. Tells whether there are.
    """
    if adata.uns.get(_keys.UNS, {}).get(key_added, {}).get("images"):
        adata.uns.pop(key_added, None)
    images = adata.uns.get(spatial_key)
    if not isinstance(images, dict) or key_added in adata.uns or request.unframed_sections():
        return False
    query = np.arange(request.n) < request.n_query
    sections = request.data.section[query]
    placed = set(sections[request.position_known[query]])
    others = {} if reference is None else reference.uns.get(spatial_key, {})
    if placed != set(sections) and others.keys() != images.keys():
        return False  # the frame is that of another section
    adata.uns[key_added] = images
    return True


def expression_matrix(
    adata: AnnData,
    request: Request,
    logged: NDArray[np.float32],
    depth: NDArray[np.float64],
    transform: ExpressionTransform,
    genes: pd.Index,
    output: Output,
) -> NDArray[np.float32]:
    """Expression of the query's cells and genes, known values kept, ``(n_query, n_vars)``.

    NaN for genes that the model does not know.
    """
    column = genes.get_indexer(adata.var_names)  # of each of adata's genes in the model
    found = np.flatnonzero(column >= 0)
    out = np.full(adata.shape, np.nan, np.float32)
    for start in range(0, request.n_query, CHUNK):
        cells = np.arange(start, min(start + CHUNK, request.n_query))
        filled = fill_in(request, cells, logged[cells], depth[cells], transform, output)
        out[np.ix_(cells, found)] = filled[:, column[found]]
    return out


@torch.inference_mode()
def fill_in(
    request: Request,
    cells: NDArray[np.int64],
    logged: NDArray[np.float32],
    depth: NDArray[np.float64],
    transform: ExpressionTransform,
    output: Output,
) -> NDArray[np.float32]:
    """Known and estimated expression of some cells, ``(len(cells), G)``, in the output's units.

    ``logged`` ``(len(cells), G)`` are log-normalized estimates, ``depth`` ``(len(cells),)`` the
    depth of cells without known genes.
    """
    device = transform.mean.device
    values = torch.from_numpy(request.data.expression[cells].toarray().astype(np.float32))
    known = request.data.measured(cells) & request.expression_known[cells, None]
    values, is_known = values.to(device), torch.from_numpy(known).to(device)
    estimate = torch.from_numpy(logged).to(device)
    if output == "counts":
        drawn = torch.from_numpy(depth).to(values)
        own = torch.where(is_known.any(-1), transform.depth(values, is_known), drawn)
        estimate = transform.unlog(estimate, own)
    else:
        values = transform.log(values, is_known)
    return torch.where(is_known, values, estimate).cpu().numpy()


def record(adata: AnnData, key_added: str, fingerprint: str, **how: Any) -> None:
    """Write how a result was made."""
    how["model"] = f"alphastomics {__version__}, weights {fingerprint}"
    adata.uns[_keys.UNS] = {**adata.uns.get(_keys.UNS, {}), key_added: how}
