"""Importance of genes: what each does to the placement of cells."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alphastomics._threads import limited_threads
from alphastomics.diffusion_model.alignment import superpose
from alphastomics.diffusion_model.batch import StandardizedCells
from alphastomics.diffusion_model.module import MaskedDiffusionModule
from alphastomics.model._set_reader import SetReader
from alphastomics.model._sets import InferenceSet, inference_sets
from alphastomics.model._task import InferenceTask

SOFTENING = 1e-12  # added to squared distances, whose root has no slope at 0


class PlacedSet(NamedTuple):
    """Cells of a set and where they belong.

    Attributes
    ----------
    of_task
        The set.
    cells
        All that is known of them, without positions.
    target
        ``(N, d)``, in the frame of the network and in RMS radii.
    weight
        1 for cells whose error counts, 0 for others, ``(N,)``.
    """

    of_task: InferenceSet
    cells: StandardizedCells
    target: Tensor
    weight: Tensor

    def error(self, module: MaskedDiffusionModule, cells: StandardizedCells) -> Tensor:
        """Distances of predicted positions from the target, ``(N,)``; 0 for cells of weight 0."""
        placed = module(cells, by_genes=False).position[0]
        square = (placed - self.target).square().sum(-1)
        return self.weight * (square + SOFTENING).sqrt()


def placed_sets(reader: SetReader, max_cells: int) -> Iterator[PlacedSet]:
    """Sets of a task that places cells without any known position.

    The target is the truth, superposed on what the network predicts from all genes; in sections
    without a true position it is that prediction.
    """
    module, data = reader.module, reader.task.data
    for cell_set in inference_sets(reader.task, max_cells):
        cells = reader.read(cell_set)
        with torch.no_grad():
            predicted = module(cells).position
        located = data.has_position[cell_set.cells]
        if not located.any():
            weight = torch.ones_like(predicted[0, :, 0])
            yield PlacedSet(cell_set, cells, predicted[0], weight)
            continue
        position = data.position[cell_set.cells]
        centered = np.nan_to_num(position - position[located].mean(0)).astype(np.float32)
        true = module.position_transform(torch.from_numpy(centered).to(predicted))[None]
        weight = torch.from_numpy(located).to(predicted)
        pose = superpose(true, predicted, weight[None], allow_reflection=module.allow_reflection)
        yield PlacedSet(cell_set, cells, pose.apply(true)[0], weight)


@limited_threads()
def importance_by_gradients(
    module: MaskedDiffusionModule, task: InferenceTask, *, max_cells: int, n_passes: int
) -> NDArray[np.float64]:
    """Integrated gradients of the placement error (Sundararajan et al. 2017, eq. 3), ``(G,)``.

    The path runs from the mean of training, where genes are marked as measured
    but have no information, to the measured values; ``n_passes`` points of it are midpoints of
    equal parts. The sum over genes is the error at the beginning minus that at the end.

    Parameters
    ----------
    module, task
        Network, and cells to place.
    max_cells
        Most cells in a set.
    n_passes
        Points of the path.
    """
    total, n = torch.zeros(module.num_genes, dtype=torch.float64), 0.0
    for placed in placed_sets(SetReader(module, task), max_cells):
        cells = placed.cells
        values = torch.where(cells.gene_known, cells.expression, 0.0)  # (1, N, G)
        for point in range(n_passes):
            on_path = ((point + 0.5) / n_passes * values).requires_grad_()
            error = placed.error(module, cells._replace(expression=on_path))
            (slope,) = torch.autograd.grad(error.sum(), on_path)
            total -= (slope * values)[0].sum(0).cpu().double() / n_passes
        n += float(placed.weight.sum())
    return np.asarray(total / n)


@limited_threads()
@torch.no_grad()
def importance_by_hiding(
    module: MaskedDiffusionModule, task: InferenceTask, *, max_cells: int, n_passes: int, seed: int
) -> NDArray[np.float64]:
    """Increase of the placement error when a gene is hidden, ``(G,)``.

    The mean over random halves of the other genes that are hidden, too, each cell its own: the
    Banzhaf value (Wang & Jia 2023, arXiv:2205.15466). Genes that say the same then share what
    they say, where hiding one of them alone would cost nothing. Passes come in pairs, of a half
    and of the other half, so that what does not depend on single genes cancels.

    Parameters
    ----------
    module, task, max_cells
        As in :func:`importance_by_gradients`.
    n_passes
        Passes of the network, an even number.
    seed
        Of the halves.
    """
    generator = torch.Generator().manual_seed(seed)
    reader, n = SetReader(module, task), 0.0
    varies = module.expression_transform.std.isfinite()  # others say nothing, and are not hidden
    total = torch.zeros(module.num_genes, dtype=torch.float64)
    for placed in placed_sets(reader, max_cells):
        shape = (len(placed.of_task.cells), module.num_genes)
        for _ in range(n_passes // 2):
            half = (torch.rand(shape, generator=generator) < 0.5).to(module.device)
            without, within = (
                placed.error(module, reader.read(placed.of_task, ~(hidden & varies)))
                for hidden in (half, ~half)
            )
            sign = torch.where(half, 1.0, -1.0) * (placed.cells.gene_known[0] & varies)
            total += ((without - within) @ sign).cpu().double()
        n += float(placed.weight.sum()) * (n_passes // 2)
    return np.asarray(total / n)
