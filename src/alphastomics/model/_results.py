"""Estimates as they are written into AnnData."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from numpy.typing import NDArray

from alphastomics import _keys
from alphastomics._anndata import gene_names
from alphastomics._compat import warn
from alphastomics._output import INTERVAL, METHOD, RADIUS, Output, Results, Store
from alphastomics._validate import short
from alphastomics.diffusion_model.module import MaskedDiffusionModule
from alphastomics.diffusion_model.transforms import ExpressionTransform
from alphastomics.metrics import generalized_procrustes, medoid, mirror_ambiguity
from alphastomics.model._bounds import ExpressionBounds
from alphastomics.model._inference import Array, Estimates
from alphastomics.model._intervals import LEVEL
from alphastomics.model._plausibility import warn_of_collapse
from alphastomics.model._reader import CellReader
from alphastomics.model._record import TrainingRecord
from alphastomics.model._requests import warn_wide_radius
from alphastomics.model._task import InferenceTask

Point = Literal["medoid", "consensus"] | None
POINTS: tuple[Point, ...] = ("medoid", "consensus", None)
CHUNK = 4096  # cells whose expression is written at a time
BOUNDS = (_keys.LOWER_SUFFIX, _keys.UPPER_SUFFIX)
INTERVAL_PARTS: list[tuple[Store, str]] = [
    *(("layers", suffix) for suffix in BOUNDS),
    ("var", _keys.RELIABILITY_SUFFIX),
]


def draws_key(key_added: str) -> str:
    """Key of all draws: ``key_added`` with the suffix ``"_draws"``, unless it ends with "draws"."""
    return key_added if key_added.endswith("draws") else key_added + _keys.DRAWS_SUFFIX


def check_point(point: object) -> None:
    """Raise unless ``point`` names a summary of draws, or is None."""
    if not (point is None or isinstance(point, str)) or point not in POINTS:
        raise ValueError(f"point must be 'medoid', 'consensus' or None, found {short(point)}.")


def draw_details(
    mode: str, seed: int, n_samples: int, n_rounds: int | None, n_steps: int, point: Point
) -> dict[str, Any]:
    """Provenance of draws."""
    details: dict[str, Any] = {METHOD: "sample", "mode": mode, "seed": seed}
    details |= {"n_samples": n_samples, "n_rounds": str(n_rounds), "n_steps": n_steps}
    return {**details, "point": str(point)}


def _superpose_draws(
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
            warn(
                f"section {section!r} looks like its own mirror image: draws put "
                f"{report['opposite_sides']:.0%} of the cells on opposite sides of one axis at "
                "equal distance from it. A mean or consensus puts such cells in the middle; a "
                "single draw does not."
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
    results
        Where to write.
    task
        What was estimated for the query.
    reference
        Cells that the query was placed into, if any.
    reader, record
        Reader of the model, with its parts, and record of its training, with the calibration.
    output
        Scale of expression.
    details
        Provenance of all results, with the method.
    """

    results: Results
    task: InferenceTask
    reference: AnnData | None
    reader: CellReader
    record: TrainingRecord
    output: Output
    details: dict[str, Any]

    @property
    def module(self) -> MaskedDiffusionModule:
        """Network of the model."""
        return self.reader.module

    @cached_property
    def quantile(self) -> float | None:
        """Ratio of the 90 % radius to the error scale; ``None`` if the model is not calibrated."""
        if not self.task.expression_known[: self.task.n_query].any():
            return None  # no cell has a true position
        pattern = "framed" if self.task.position_known.any() else "unframed"
        return self.record.calibration.get(pattern, {}).get(self.details[METHOD])

    @cached_property
    def bounds(self) -> ExpressionBounds | None:
        """Bounds of expression; ``None`` if means of it are not calibrated, and of draws."""
        if self.details[METHOD] != "predict":
            return None
        return ExpressionBounds.of_task(self.task, self.record.intervals, self.module)

    @cached_property
    def tissue_radius(self) -> float:
        """Distance from the center of a training section within which 90 % of its cells lie."""
        return self.module.tissue_radius(LEVEL)

    def reserve(self, key_added: str, layer_added: str, n_draws: int | None = None) -> None:
        """Raise if the results, or ``n_draws`` of them, would replace something of the user."""
        places: list[tuple[Store, str, str]] = []
        if self.task.fill_position:
            key = key_added if n_draws is None else draws_key(key_added)
            places.append(("obsm", key, "key_added"))
        if self.task.fill_expression:
            layers = [layer_added]
            if n_draws is not None:
                layers = [f"{layer_added}_{i}" for i in range(n_draws)]
            places += [("layers", layer, "layer_added") for layer in layers]
        keys = [key for _, key, _ in places]
        if len(set(keys)) < len(keys):
            raise ValueError(
                f"key_added and layer_added are both {key_added!r}: choose two names, since "
                f"adata.uns[{_keys.UNS!r}] records results by name."
            )
        for place in places:
            self.results.reserve(*place)
        if self.task.fill_position and self.quantile is not None:
            self.results.reserve("obs", places[0][1], "key_added", _keys.RADIUS_SUFFIX, RADIUS)
        if self.task.fill_expression and n_draws is None and self.bounds is not None:
            for store, suffix in INTERVAL_PARTS:
                self.results.reserve(store, layer_added, "layer_added", suffix, INTERVAL)

    def superpose(self, draws: Sequence[Estimates]) -> None:
        """Superpose draws without a frame, in place, and record which sections are ambiguous."""
        if len(draws) > 1 and self.task.fill_position and self.task.unframed_sections():
            self.details["mirror"] = _superpose_draws(
                draws, self.task, allow_reflection=self.module.allow_reflection
            )

    def warn_of_collapse(self, estimates: Estimates) -> None:
        """Warn if sections that are placed without any known position have hardly an extent."""
        if self.task.fill_position:
            radius = float(self.module.position_transform.scale)
            sections = self.task.unframed_sections()
            warn_of_collapse(estimates.position, sections, radius, self.record.steps)

    def write(self, estimates: Estimates, key_added: str, layer_added: str) -> None:
        """Write estimated positions and expression, where they were missing."""
        if self.task.fill_position:
            self._put_positions(key_added, self._with_known(estimates.position), estimates.scale)
        if estimates.expression is not None:
            self._put_expression(layer_added, estimates.expression, estimates.depth, self.bounds)
        self.results.write()

    def write_draws(
        self, draws: Sequence[Estimates], point: Point, key_added: str, layer_added: str
    ) -> None:
        """Write all draws, or their point estimate."""
        chosen = choose_draws(draws, self.task)
        if self.task.fill_position:
            positions = [self._with_known(draw.position) for draw in draws]
            if point is None:
                stacked = np.stack(positions, axis=1)  # (n_query, S, d)
                self._put_positions(draws_key(key_added), stacked, draws[0].scale)
            else:
                estimate = point_estimate(positions, chosen, point)
                self._put_positions(key_added, estimate, draws[0].scale)
        values = [draw.expression for draw in draws if draw.expression is not None]
        depths = [draw.depth for draw in draws]
        if values and point is None:
            for i, (value, depth) in enumerate(zip(values, depths, strict=True)):
                self._put_expression(f"{layer_added}_{i}", value, depth)
        elif values:
            value = point_estimate(values, chosen, point)
            self._put_expression(layer_added, value, point_estimate(depths, chosen, point))
        self.results.write()

    def _with_known(self, position: Array) -> Array:
        """Positions ``(n_query, d)``, known ones unchanged."""
        n, known = self.task.n_query, self.task.position_known[: self.task.n_query]
        return np.where(known[:, None], self.task.data.position[:n], position[:n])

    def _put_positions(self, key: str, position: Array, scale: Array) -> None:
        """Have positions written, and their 90 % radius, 0 where the position is known."""
        results, column, n = self.results, key + _keys.RADIUS_SUFFIX, self.task.n_query
        results.put("obsm", key, position)
        if self.quantile is not None:
            radius = self._widened(self.quantile * scale[:n], position)
            if self.task.novel is None:  # else a warning says so
                warn_wide_radius(radius[~self.task.position_known[:n]], self.tissue_radius)
            results.put("obs", column, np.where(self.task.position_known[:n], 0.0, radius))
        elif results.wrote_with(key, RADIUS):  # of other positions
            results.drop("obs", column)
        details = {"images": self._link_images(key), RADIUS: self.quantile is not None}
        standards = self.task.standards
        details["standardized_by_query"] = standards is not None and bool(standards.own.any())
        results.record(key, **details, **self.details)

    def _widened(self, radius: Array, position: Array) -> Array:
        """Radius ``(n,)`` of cells at ``(n, d)`` or ``(n, S, d)``, as by chance if they are novel.

        If estimate and truth are independent, their mean squared distance is the sum of those to
        the center of the section.
        """
        if self.task.novel is None:
            return radius
        square = np.square(position).sum(-1).reshape(len(position), -1).mean(1)
        by_chance = np.sqrt(square + self.tissue_radius**2)
        return np.where(self.task.novel, np.fmax(radius, by_chance), radius)

    def _link_images(self, key: str) -> bool:
        """Copy Visium images to positions in their frame, for squidpy; whether there are any.

        Images of an earlier call are removed; anything else of that name stays.
        """
        results, uns, task = self.results, self.results.adata.uns, self.task
        # squidpy looks for images under the key of the coordinates.
        linked = results.wrote(key) and bool(results.records[key].get("images"))
        if linked:
            results.drop("uns", key)
        images = uns.get(self.reader.setup.spatial_key)
        is_taken = key in uns and not linked
        if not isinstance(images, dict) or is_taken or task.unframed_sections():
            return False
        sections = task.data.section[: task.n_query]
        placed = set(sections[task.position_known[: task.n_query]])
        others = (
            {}
            if self.reference is None
            else self.reference.uns.get(self.reader.setup.spatial_key, {})
        )
        if placed != set(sections) and others.keys() != images.keys():
            return False  # the frame is that of another section
        results.put("uns", key, copy.deepcopy(images))
        return True

    def _put_expression(
        self,
        layer: str,
        logged: NDArray[np.float32],
        depth: NDArray[np.float64],
        bounds: ExpressionBounds | None = None,
    ) -> None:
        """Have expression ``(n_query, n_vars)`` written, NaN for genes the model does not know."""
        results, n_query = self.results, self.task.n_query
        transform = self.module.expression_transform
        suffixes = ["", *BOUNDS] if bounds else [""]
        column = self.reader.genes.get_indexer(
            gene_names(results.adata)
        )  # in the model, of each gene
        found = np.flatnonzero(column >= 0)
        layers = {suffix: np.full(results.adata.shape, np.nan, np.float32) for suffix in suffixes}
        for start in range(0, n_query, CHUNK):
            cells = np.arange(start, min(start + CHUNK, n_query))
            values = [logged[cells]]
            if bounds:
                values += bounds.around(cells, logged[cells], depth[cells])
            for suffix, value in zip(suffixes, values, strict=True):
                filled = known_and_estimated(
                    self.task, cells, value, depth[cells], transform, self.output
                )
                out = layers[suffix]
                out = out.astype(np.result_type(out, filled), copy=False)
                out[np.ix_(cells, found)] = filled[:, column[found]]
                layers[suffix] = out
        for suffix, out in layers.items():
            results.put("layers", layer + suffix, out)
        if bounds:
            reliability = np.full(results.adata.n_vars, np.nan)
            reliability[found] = bounds.reliability[column[found]]
            results.put("var", layer + _keys.RELIABILITY_SUFFIX, reliability)
        elif results.wrote_with(layer, INTERVAL):  # of other estimates
            for store, suffix in INTERVAL_PARTS:
                results.drop(store, layer + suffix)
        calibrated = {INTERVAL: True} if bounds else {}
        results.record(layer, output=self.output, **calibrated, **self.details)


@torch.inference_mode()
def known_and_estimated(
    task: InferenceTask,
    cells: NDArray[np.int64],
    logged: NDArray[np.float32],
    depth: NDArray[np.float64],
    transform: ExpressionTransform,
    output: Output,
) -> NDArray[np.floating]:
    """Known and estimated expression of some cells, ``(len(cells), G)``, in the output's units.

    ``logged`` ``(len(cells), G)`` are log-normalized estimates, ``depth`` ``(len(cells),)`` the
    depth of cells without known genes. Known values that need no logarithm are those of the input:
    in 64 bits, if 32 do not hold them.
    """
    device = transform.mean.device
    given = task.data.expression[cells].toarray()
    known = task.data.measured(cells) & task.expression_known[cells, None]
    exact = np.where(known, given, 0).astype(np.float64)
    with np.errstate(over="ignore"):
        single = exact.astype(np.float32)
    values = torch.from_numpy(single).to(device)
    is_known = torch.from_numpy(known).to(device)
    estimate = torch.from_numpy(logged).to(device)
    if output == "counts":
        drawn = torch.from_numpy(depth).to(values)
        depths = torch.where(is_known.any(-1), transform.depth(values, is_known), drawn)
        estimate = transform.unlog(estimate, depths)
    elif transform.values != "lognorm":
        values = transform.log(values, is_known)
        return torch.where(is_known, values, estimate).cpu().numpy()
    dtype = np.float32 if (single == exact).all() else np.float64
    return np.where(known, exact, estimate.cpu().numpy()).astype(dtype)
