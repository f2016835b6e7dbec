"""Sets of a task as tensors, each section in the frame of its known cells."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from alphastomics.diffusion_model.alignment import Pose, superpose
from alphastomics.diffusion_model.batch import StandardizedCells
from alphastomics.diffusion_model.masking import Pattern
from alphastomics.diffusion_model.module import MaskedDiffusionModule
from alphastomics.model._data import CellTable
from alphastomics.model._datamodule import cell_batch, collate
from alphastomics.model._sets import MAX_LANDMARKS, InferenceSet
from alphastomics.model._task import InferenceTask


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
        centered = torch.from_numpy(position - self.center).to(self.pose.shift.dtype)
        standard = module.position_transform(centered.to(self.pose.shift.device))
        common = module.position_transform.inverse(self.pose.apply(standard[None])[0])
        return np.asarray(common.cpu().double().numpy())

    def to_units(self, module: MaskedDiffusionModule, position: Tensor) -> NDArray[np.float64]:
        """Positions ``(N, d)`` of the network's frame in measured units."""
        given = module.position_transform.inverse(self.pose.invert(position[None])[0])
        return np.asarray(given.cpu().double().numpy() + self.center)


class SetReader:
    """Reader of the sets of a task as tensors, each section in one frame.

    Parameters
    ----------
    module
        The network.
    task
        Cells with their known values.
    """

    def __init__(self, module: MaskedDiffusionModule, task: InferenceTask) -> None:
        self.module, self.task = module, task
        self._frames: dict[str, SectionFrame] = {}

    def frame(self, cell_set: InferenceSet) -> SectionFrame:
        """Frame of the section of a set."""
        if cell_set.section not in self._frames:
            self._frames[cell_set.section] = self.register(cell_set.landmarks)
        return self._frames[cell_set.section]

    def register(self, landmarks: NDArray[np.int64]) -> SectionFrame:
        """Superpose known cells on the mean positions that their expression predicts."""
        module, task = self.module, self.task
        d, device = module.position_dim, module.device
        # Without landmarks the model's own frame is the frame of the section.
        identity = Pose(torch.eye(d, device=device)[None], torch.zeros(1, 1, d, device=device))
        if not len(landmarks):
            is_common = module.frame == "registered" or module.poses.is_fitted
            return SectionFrame(np.zeros(d), identity, is_common)
        center = task.data.position[landmarks].mean(0)
        expressed = task.expression_known[landmarks]
        if not module.poses.is_fitted or not expressed.any():
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
        visible: Tensor | None = None,
    ) -> StandardizedCells:
        """Standardized values of cells; hidden values are not among them."""
        module, task = self.module, self.task
        pattern = Pattern(task.position_known[cells], task.expression_known[cells])
        single = cell_batch(
            task.data,
            cells,
            pattern,
            scope=scope,
            n_dims=module.position_dim,
            center=center,
            n_support=n_support,
        )
        batch = collate([single]).to(module.device)
        gene_known = batch.measured & batch.expression_known[..., None]
        if visible is not None:
            gene_known &= visible
        expression = module.expression_transform(batch.values, gene_known)
        if task.standards is not None:
            shift, scale, section, _ = task.standards
            of_query = cells < task.n_query
            own = section[cells[of_query]]
            row = torch.from_numpy(of_query).to(expression.device)
            expression = expression.clone()
            expression[:, row] -= torch.from_numpy(shift[own]).to(expression)
            expression[:, row] /= torch.from_numpy(scale[own]).to(expression)
        known = batch.position_known[..., None]
        position = module.position_transform(torch.where(known, batch.position, 0.0))
        return StandardizedCells(
            expression=expression,
            gene_known=gene_known,
            position=position,
            position_known=batch.position_known,
            scope=batch.scope,
            label=batch.label_condition() * task.fill_expression,  # never an input to placement
            batch=batch.batch,
            n_support=batch.n_support,
        )

    def read(self, cell_set: InferenceSet, visible: Tensor | None = None) -> StandardizedCells:
        """Cells of a set in the frame of their section, its support set last.

        All known genes of a cell, or those of them that are ``visible``, boolean ``(N, G)``.
        """
        frame = self.frame(cell_set)
        cells = self._standardize(
            cell_set.with_support,
            frame.center,
            scope=cell_set.scope,
            n_support=len(cell_set.support),
            visible=visible,
        )
        position = torch.where(
            cells.position_known[..., None], frame.pose.apply(cells.position), 0.0
        )
        registered = torch.tensor([frame.registered], device=position.device)
        return cells._replace(position=position, registered=registered)

    def known_depth(self, cell_set: InferenceSet) -> Tensor:
        """Depth of the cells of a set by their known genes, 1 without any, ``(N,)``."""
        transform, task, cells = self.module.expression_transform, self.task, cell_set.cells
        values = torch.from_numpy(task.data.expression[cells].toarray().astype(np.float32))
        known = task.data.measured(cells) & task.expression_known[cells, None]
        is_known = torch.from_numpy(known).to(self.module.device)
        depth = transform.depth(values.to(self.module.device), is_known)
        return torch.where(is_known.any(-1), depth, 1.0)


@torch.inference_mode()
def registered_positions(module: MaskedDiffusionModule, data: CellTable) -> NDArray[np.float64]:
    """Positions of sections in the common frame, ``(n, d)``, NaN where missing.

    Raises
    ------
    ValueError
        If a section has no cell with a position and expression.
    """
    positions = np.full_like(data.position, np.nan)
    known = data.has_position & data.expression_known
    reader = SetReader(
        module,
        InferenceTask(
            data,
            len(data.names),
            position_known=known,
            expression_known=data.expression_known,
            fill_position=False,
            fill_expression=False,
        ),
    )
    by_name = np.argsort(data.names, kind="stable")
    for section in pd.unique(data.section):
        cells = by_name[(data.section == section)[by_name]]
        landmarks = cells[known[cells]]
        if not len(landmarks):
            raise ValueError(
                f"section {section!r} has no cell with a position and expression, by which "
                "it could be registered: drop it."
            )
        landmarks = np.random.default_rng(0).permutation(landmarks)[:MAX_LANDMARKS]
        located = cells[data.has_position[cells]]
        positions[located] = reader.register(landmarks).to_common(module, data.position[located])
    return positions
