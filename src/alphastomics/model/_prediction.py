"""Estimates of one set after the other: from a request to arrays."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alphastomics.diffusion_model.alignment import Pose, procrustes, superpose
from alphastomics.diffusion_model.batch import StandardizedCells
from alphastomics.diffusion_model.heads import require_finite
from alphastomics.diffusion_model.masking import Pattern
from alphastomics.diffusion_model.module import Encoding, MaskedDiffusionModule
from alphastomics.model._datamodule import cell_batch, collate
from alphastomics.model._devices import Devices
from alphastomics.model._filling import Filled, SetEstimate, fill
from alphastomics.model._request import Request
from alphastomics.model._sets import InferenceSet, inference_sets


class SectionFrame(NamedTuple):
    """Frame of the known cells of a section.

    Attributes
    ----------
    center
        Their center in measured units, ``(d,)``.
    pose
        From positions relative to it, in RMS radii, to the frame of the network.
    registered
        Whether that is the common frame.
    """

    center: NDArray[np.float64]
    pose: Pose
    registered: bool

    def to_common(
        self, module: MaskedDiffusionModule, position: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Positions ``(N, d)`` in measured units in the common frame, in the same units."""
        given = torch.from_numpy(position - self.center).to(self.pose.shift.dtype)
        standard = module.position_transform(given.to(self.pose.shift.device))
        common = module.position_transform.inverse(self.pose.apply(standard[None])[0])
        return np.asarray(common.cpu().double().numpy())

    def to_units(self, module: MaskedDiffusionModule, position: Tensor) -> NDArray[np.float64]:
        """Positions ``(N, d)`` of the network's frame in measured units."""
        given = module.position_transform.inverse(self.pose.invert(position[None])[0])
        return np.asarray(given.cpu().double().numpy() + self.center)


class SetReader:
    """Reads the sets of a request as tensors, each section in one frame.

    Parameters
    ----------
    module
        The network.
    request
        Cells, and what of them is known.
    """

    def __init__(self, module: MaskedDiffusionModule, request: Request) -> None:
        self.module, self.request = module, request
        self._frames: dict[str, SectionFrame] = {}

    def frame(self, cell_set: InferenceSet) -> SectionFrame:
        """Frame of the section of a set."""
        if cell_set.section not in self._frames:
            self._frames[cell_set.section] = self.register(cell_set.landmarks)
        return self._frames[cell_set.section]

    def register(self, landmarks: NDArray[np.int64]) -> SectionFrame:
        """Superpose known cells on the mean positions that their expression predicts."""
        module, request = self.module, self.request
        d, device = module.position_dim, module.device
        identity = Pose(torch.eye(d, device=device)[None], torch.zeros(1, 1, d, device=device))
        if not len(landmarks):
            is_common = module.frame == "registered" or bool(len(module.poses))
            return SectionFrame(np.zeros(d), identity, is_common)
        assert request.data.position is not None
        center = request.data.position[landmarks].mean(0)
        expressed = request.expression_known[landmarks]
        if not len(module.poses) or not expressed.any():
            return SectionFrame(center, identity, module.frame == "registered")
        landmarks = landmarks[expressed]
        cells = self._standardize(landmarks, center, scope=0, n_support=0)
        nowhere = cells._replace(position_known=torch.zeros_like(cells.position_known))
        predicted = module(nowhere).position
        weight = torch.ones_like(predicted[..., 0])
        pose = superpose(
            cells.position, predicted, weight, allow_reflection=module.allow_reflection
        )
        return SectionFrame(center, pose, True)

    def _standardize(
        self,
        cells: NDArray[np.int64],
        center: NDArray[np.float64],
        *,
        scope: int,
        n_support: int,
    ) -> StandardizedCells:
        """Standardized values of cells; what the mode hides is not in them."""
        module, request = self.module, self.request
        pattern = Pattern(request.position_known[cells], request.expression_known[cells])
        single = cell_batch(
            request.data,
            cells,
            pattern,
            scope=scope,
            n_dims=module.position_dim,
            center=center,
            n_support=n_support,
        )
        batch = collate([single]).to(module.device)
        gene_known = batch.measured & batch.expression_known[..., None]
        expression = module.expression_transform(batch.values, gene_known)
        if request.query_shift is not None and request.query_scale is not None:
            shift, scale = (torch.from_numpy(x) for x in (request.query_shift, request.query_scale))
            own = (expression - shift.to(expression)) / scale.to(expression)
            of_query = torch.from_numpy(cells < request.n_query).to(expression.device)
            expression = torch.where(of_query[:, None], own, expression)
        known = batch.position_known[..., None]
        position = module.position_transform(torch.where(known, batch.position, 0.0))
        return StandardizedCells(
            expression=expression,
            gene_known=gene_known,
            position=position,
            position_known=batch.position_known,
            scope=batch.scope,
            label=batch.label_condition(),
            batch=batch.batch,
            n_support=batch.n_support,
        )

    def read(self, cell_set: InferenceSet) -> StandardizedCells:
        """Cells of a set in the frame of their section, its support set last."""
        frame = self.frame(cell_set)
        cells = self._standardize(
            cell_set.with_support,
            frame.center,
            scope=cell_set.scope,
            n_support=len(cell_set.support),
        )
        position = torch.where(
            cells.position_known[..., None], frame.pose.apply(cells.position), 0.0
        )
        registered = torch.tensor([frame.registered], device=position.device)
        return cells._replace(position=position, registered=registered)

    def known_depth(self, cell_set: InferenceSet) -> Tensor:
        """Depth of the cells of a set by their known genes, 1 where none is, ``(N,)``."""
        transform, request, cells = self.module.expression_transform, self.request, cell_set.cells
        values = torch.from_numpy(request.data.expression[cells].toarray().astype(np.float32))
        known = request.data.measured(cells) & request.expression_known[cells, None]
        is_known = torch.from_numpy(known).to(self.module.device)
        own = transform.depth(values.to(self.module.device), is_known)
        return torch.where(is_known.any(-1), own, 1.0)


@torch.inference_mode()
def predict_missing(
    module: MaskedDiffusionModule,
    request: Request,
    *,
    arrange: bool,
    max_set: int,
    progress_bar: bool,
    devices: Devices | None = None,
) -> Filled:
    """Conditional means; where no position is known and ``arrange``, arrangements."""
    reader = SetReader(module, request)

    def estimate(cell_set: InferenceSet, draw: int) -> SetEstimate:
        cells = reader.read(cell_set)
        encoding = module(cells)
        require_finite(encoding.position, "head of mean positions")
        require_finite(encoding.arrangement, "arrangement head")
        require_finite(encoding.expression, "head of mean expression")
        position, scale = _positions(module, cells, encoding, arrange=arrange)
        unit = module.position_transform
        return SetEstimate(
            position=reader.frame(cell_set).to_units(module, position),
            scale=unit.inverse(scale).cpu().double().numpy(),
            logged=module.expression_transform.inverse(encoding.expression[0]),
            depth=reader.known_depth(cell_set) if request.fill_expression else None,
        )

    (filled,) = fill(
        module,
        request,
        lambda sets: estimate,
        max_set=max_set,
        what="Predicting",
        progress_bar=progress_bar,
        devices=devices,
    )
    return filled


def _positions(
    module: MaskedDiffusionModule, cells: StandardizedCells, encoding: Encoding, *, arrange: bool
) -> tuple[Tensor, Tensor]:
    """Estimated positions ``(N, d)`` and error scales ``(N,)`` of one set.

    Among known cells it is the mode or the mean of the mixture of matching, which was measured to
    be better than the network; else the arrangement, superposed on the mean, or the mean.
    """
    position, scale = encoding.position[0], encoding.log_scale[0].exp()
    mixture = module.match(cells)
    if mixture is not None:
        place = mixture.mode() if arrange else mixture.mean()
        position = torch.where(mixture.valid[0, :, None], place[0], position)
        scale = torch.where(mixture.valid[0], mixture.variance()[0].sqrt(), scale)
    elif arrange and not bool(cells.position_known.any()):
        arrangement = module.refined_arrangement(cells, encoding.arrangement)
        position = procrustes(
            arrangement, encoding.position, allow_reflection=module.allow_reflection
        )[0]
    return position, scale


@torch.inference_mode()
def look(
    module: MaskedDiffusionModule, request: Request, max_set: int
) -> Iterator[tuple[InferenceSet, Encoding]]:
    """Give every set with what the network makes of it in one pass."""
    reader = SetReader(module, request)
    for cell_set in inference_sets(request, max_set):
        yield cell_set, module(reader.read(cell_set))
