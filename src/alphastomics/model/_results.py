"""Estimates as they are written into AnnData."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from numpy.typing import NDArray

from alphastomics import _keys
from alphastomics.diffusion_model.transforms import ExpressionTransform
from alphastomics.metrics import generalized_procrustes, medoid, mirror_ambiguity
from alphastomics.model._inference import Array, Estimates
from alphastomics.model._task import InferenceTask

Output = Literal["lognorm", "counts"]
OUTPUTS: tuple[Output, ...] = ("lognorm", "counts")
Point = Literal["medoid", "consensus"] | None
POINTS: tuple[Point, ...] = ("medoid", "consensus", None)
CHUNK = 4096  # cells whose expression is written at a time


def superpose_draws(
    draws: Sequence[Estimates], task: InferenceTask, *, allow_reflection: bool
) -> pd.DataFrame:
    """Superpose the draws of every section without a known position, in place.

    Returns
    -------
    DataFrame
        A row for each such section: whether the draws disagree by a mirror image.
    """
    mirrors = {}
    for section, cells in task.unframed_sections():
        positions = generalized_procrustes(
            np.stack([draw.position[cells] for draw in draws]), allow_reflection=allow_reflection
        )
        for draw, position in zip(draws, positions, strict=True):
            draw.position[cells] = position
        report = mirror_ambiguity(positions)
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


def choose_draws(draws: Sequence[Estimates], task: InferenceTask) -> NDArray[np.int64]:
    """Medoid of the draws of the section of each query cell, ``(n_query,)``.

    By positions where they are estimated, else by expression.
    """
    chosen = np.zeros(task.n_query, dtype=np.int64)
    sections = task.data.section[: task.n_query]
    to_fill = task.to_fill[: task.n_query]
    for section in pd.unique(sections):
        cells = np.flatnonzero((sections == section) & to_fill)
        if len(cells) and len(draws) > 1:
            values = [draw.position if task.fill_position else draw.expression for draw in draws]
            stacked = np.stack([np.asarray(v, dtype=np.float64)[cells] for v in values])
            chosen[sections == section] = medoid(stacked)
    return chosen


def point_estimate(
    values: Sequence[NDArray[Any]], chosen: NDArray[np.int64], point: Point
) -> NDArray[Any]:
    """Value of each query cell, from draws ``(n, F)``: their mean, or the chosen ones."""
    n_query = len(chosen)
    if point == "consensus":
        return np.asarray(np.mean([v[:n_query] for v in values], axis=0))
    out = np.array(values[0][:n_query])
    for draw in np.unique(chosen[chosen > 0]):
        out[chosen == draw] = values[draw][:n_query][chosen == draw]
    return out


@dataclass
class ResultWriter:
    """Writes estimates of a task into an AnnData, each with its provenance.

    Attributes
    ----------
    adata, task
        Query and what was estimated for it.
    reference
        Cells that the query was placed into, if any.
    transform, genes
        Of the model.
    spatial_key, output
        Key of measured coordinates, and scale of expression.
    quantile
        Ratio of the 90 % radius to the error scale; ``None`` if the model is not calibrated.
    details
        Provenance of all results.
    """

    adata: AnnData
    task: InferenceTask
    reference: AnnData | None
    transform: ExpressionTransform
    genes: pd.Index
    spatial_key: str
    output: Output
    quantile: float | None
    details: dict[str, Any]

    def write(self, estimates: Estimates, key_added: str, layer_added: str) -> None:
        """Write estimated positions and expression, where they were missing."""
        if self.task.fill_position:
            self._write_positions(key_added, self._with_known(estimates.position), estimates.scale)
        if estimates.expression is not None:
            self._write_expression(layer_added, estimates.expression, estimates.depth)

    def write_draws(
        self, draws: Sequence[Estimates], point: Point, key_added: str, layer_added: str
    ) -> None:
        """Write all draws, or their point estimate."""
        chosen = choose_draws(draws, self.task)
        if self.task.fill_position:
            positions = [self._with_known(draw.position) for draw in draws]
            if point is None:
                stacked = np.stack(positions, axis=1)  # (n_query, S, d)
                self._write_positions(key_added + _keys.DRAWS_SUFFIX, stacked, draws[0].scale)
            else:
                estimate = point_estimate(positions, chosen, point)
                self._write_positions(key_added, estimate, draws[0].scale)
        values = [draw.expression for draw in draws if draw.expression is not None]
        depths = [draw.depth for draw in draws]
        if not values:
            return
        if point is None:
            for i, (value, depth) in enumerate(zip(values, depths, strict=True)):
                self._write_expression(f"{layer_added}_{i}", value, depth)
            return
        value = point_estimate(values, chosen, point)
        self._write_expression(layer_added, value, point_estimate(depths, chosen, point))

    def record(self, key_added: str, **details: Any) -> None:
        """Write the provenance of a result."""
        record(self.adata, key_added, **details, **self.details)

    def _with_known(self, position: Array) -> Array:
        """Positions ``(n_query, d)``, known ones unchanged."""
        n, known = self.task.n_query, self.task.position_known[: self.task.n_query]
        return np.where(known[:, None], self.task.data.position[:n], position[:n])

    def _write_positions(self, key: str, position: Array, scale: Array) -> None:
        self.adata.obsm[key] = position
        self._write_radius(key + _keys.RADIUS_SUFFIX, scale)
        self.record(key, images=self._link_images(key))

    def _write_radius(self, column: str, scale: Array) -> None:
        """Write the 90 % radius of every cell, 0 where the position is known."""
        if self.quantile is None:
            if column in self.adata.obs:  # of an earlier call: not of these positions
                del self.adata.obs[column]
            return
        n = self.task.n_query
        radius = self.quantile * scale[:n]
        self.adata.obs[column] = np.where(self.task.position_known[:n], 0.0, radius)

    def _link_images(self, key: str) -> bool:
        """Link Visium images to positions in their frame, for squidpy; whether there are any.

        Images of an earlier call are removed; anything else of that name stays.
        """
        uns, task = self.adata.uns, self.task
        # squidpy looks for images under the key of the coordinates.
        if uns.get(_keys.UNS, {}).get(key, {}).get("images"):
            uns.pop(key, None)
        images = uns.get(self.spatial_key)
        if not isinstance(images, dict) or key in uns or task.unframed_sections():
            return False
        sections = task.data.section[: task.n_query]
        placed = set(sections[task.position_known[: task.n_query]])
        others = {} if self.reference is None else self.reference.uns.get(self.spatial_key, {})
        if placed != set(sections) and others.keys() != images.keys():
            return False  # the frame is that of another section
        uns[key] = images
        return True

    def _write_expression(
        self, layer: str, logged: NDArray[np.float32], depth: NDArray[np.float64]
    ) -> None:
        """Write expression ``(n_query, n_vars)``, NaN for genes that the model does not know."""
        adata, n_query = self.adata, self.task.n_query
        column = self.genes.get_indexer(adata.var_names)  # of each of adata's genes in the model
        found = np.flatnonzero(column >= 0)
        out = np.full(adata.shape, np.nan, np.float32)
        for start in range(0, n_query, CHUNK):
            cells = np.arange(start, min(start + CHUNK, n_query))
            filled = known_and_estimated(
                self.task, cells, logged[cells], depth[cells], self.transform, self.output
            )
            out[np.ix_(cells, found)] = filled[:, column[found]]
        adata.layers[layer] = out
        self.record(layer, output=self.output)


@torch.inference_mode()
def known_and_estimated(
    task: InferenceTask,
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
    values = torch.from_numpy(task.data.expression[cells].toarray().astype(np.float32))
    known = task.data.measured(cells) & task.expression_known[cells, None]
    values, is_known = values.to(device), torch.from_numpy(known).to(device)
    estimate = torch.from_numpy(logged).to(device)
    if output == "counts":
        drawn = torch.from_numpy(depth).to(values)
        depths = torch.where(is_known.any(-1), transform.depth(values, is_known), drawn)
        estimate = transform.unlog(estimate, depths)
    else:
        values = transform.log(values, is_known)
    return torch.where(is_known, values, estimate).cpu().numpy()


def record(adata: AnnData, key_added: str, **details: Any) -> None:
    """Write the provenance of a result."""
    adata.uns[_keys.UNS] = {**adata.uns.get(_keys.UNS, {}), key_added: details}
