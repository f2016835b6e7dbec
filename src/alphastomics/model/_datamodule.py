"""Sets of cells for training, drawn afresh every epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import lightning.pytorch as L
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset, Sampler

from alphastomics._validate import MIN_CELLS
from alphastomics.diffusion_model.batch import SECTION, WINDOW, CellBatch
from alphastomics.diffusion_model.masking import (
    TASKS,
    WINDOW_SHARE,
    Pattern,
    draw_pattern,
    draw_task,
)
from alphastomics.model._data import CellTable

CONDITION_DROPOUT = 0.2  # share of the sets that are not told labels; the same for batches


def cell_batch(
    data: CellTable,
    cells: NDArray[np.int64],
    pattern: Pattern,
    *,
    scope: int = SECTION,
    n_dims: int = 2,
    section: int = -1,
    center: NDArray[np.float64] | None = None,
    n_support: int = 0,
) -> CellBatch:
    """One set, without a batch dimension: dense tensors, the support set last.

    Positions are relative to ``center`` ``(d,)``, by default that of the known cells.
    """
    values = torch.from_numpy(data.expression[cells].toarray().astype(np.float32))  # (N, G)
    located = data.has_position[cells]
    position = torch.zeros(len(cells), n_dims)
    if located.any():
        # Centered in double precision: slides can lie far from the origin of their coordinates.
        true = data.position[cells]
        if center is None:
            known = pattern.position_known
            center = true[known if known.any() else located].mean(0)
        position = torch.from_numpy(np.nan_to_num(true - center).astype(np.float32))  # (N, d)
    return CellBatch(
        values=values,
        measured=torch.from_numpy(data.measured(cells)),
        position=position,
        located=torch.from_numpy(located),
        position_known=torch.from_numpy(pattern.position_known),
        expression_known=torch.from_numpy(pattern.expression_known & data.expression_known[cells]),
        label=torch.from_numpy(data.label[cells]),
        batch=torch.from_numpy(data.batch[cells]),
        section=torch.tensor(section),
        scope=torch.tensor(scope),
        cell_mask=None,
        n_support=n_support,
    )


def collate(sets: list[CellBatch]) -> CellBatch:
    """Batch sets, padding the shorter ones; a support set only of a single one."""
    lengths = torch.tensor([len(s.values) for s in sets])
    longest = int(lengths.max())
    mask = None
    if int(lengths.min()) < longest:
        mask = torch.arange(longest) < lengths[:, None]  # (B, N)

    def pad(field: str) -> Tensor:
        return pad_sequence([getattr(s, field) for s in sets], batch_first=True)

    per_set = ("section", "scope", "cell_mask", "n_support")
    per_cell = [name for name in CellBatch._fields if name not in per_set]
    return CellBatch(
        **{name: pad(name) for name in per_cell},
        section=torch.stack([s.section for s in sets]),
        scope=torch.stack([s.scope for s in sets]),
        cell_mask=mask,
        n_support=sets[0].n_support,
    )


def _center(data: CellTable, cells: NDArray[np.int64]) -> NDArray[np.float64] | None:
    """Center of the located cells of a section, ``(d,)``; ``None`` if there are none."""
    located = cells[data.has_position[cells]]
    if not len(located):
        return None
    return np.asarray(data.position[located].mean(0))


@dataclass(frozen=True)
class SetOptions:
    """Options of the random sets of training.

    Attributes
    ----------
    training_mode, position_mask_ratio
        Distribution of the tasks, see :func:`~alphastomics.diffusion_model.masking.draw_task`.
    set_size
        Maximum number of cells per set.
    sets_per_section
        Number of sets per section and epoch.
    seed
        Item ``i`` of epoch ``e`` is drawn from the generator of ``(seed, e, i)``.
    """

    training_mode: str
    position_mask_ratio: float
    set_size: int
    sets_per_section: int
    seed: int


class SectionSets(Dataset[CellBatch]):
    """Random sets of cells, each of one section and with a task of its own.

    Parameters
    ----------
    data
        Cells of all sections.
    sections
        Names of the sections to draw from.
    options
        How to draw.
    numbered
        Whether the sections are those of training, with a number and a pose each.
    """

    def __init__(
        self, data: CellTable, sections: list[str], options: SetOptions, *, numbered: bool = True
    ) -> None:
        self.data = data
        self.numbered = numbered
        self.cells = [data.cells_of(section) for section in sections]
        self.centers = [_center(data, cells) for cells in self.cells]
        self.options = options
        self.n_dims = data.position.shape[1]
        self.epoch = 0

    def __len__(self) -> int:
        return self.options.sets_per_section * len(self.cells)

    def __getitem__(self, item: int) -> CellBatch:
        rng = np.random.default_rng([self.options.seed, self.epoch, item])
        cells = self.cells[item % len(self.cells)]
        has_position = bool(self.data.has_position[cells].any())
        task = draw_task(
            self.options.training_mode, self.options.position_mask_ratio, rng, located=has_position
        )
        scope = SECTION
        if has_position and TASKS[task].position == "none" and rng.random() < WINDOW_SHARE:
            cells, scope = self._window(cells, rng), WINDOW
        chosen = self._choose(cells, rng, located=has_position)
        located = self.data.has_position[chosen]
        position = np.nan_to_num(self.data.position[chosen])
        pattern = draw_pattern(task, position, located, self.options.position_mask_ratio, rng)
        number = item % len(self.cells)
        drawn = cell_batch(
            self.data,
            chosen,
            pattern,
            scope=scope,
            n_dims=self.n_dims,
            section=number if self.numbered else -1,
            center=self.centers[number],
        )
        shown = torch.from_numpy(rng.random(2) >= CONDITION_DROPOUT).long()
        return drawn._replace(label=drawn.label * shown[0], batch=drawn.batch * shown[1])

    def _window(self, cells: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        """Find the cells nearest to a random one: from a set's worth to the whole section."""
        cells = cells[self.data.has_position[cells]]
        # Mostly dense ones: what near cells express tells most.
        n = self.options.set_size * (len(cells) / self.options.set_size) ** rng.random() ** 3
        center = self.data.position[rng.choice(cells)]
        distance = np.square(self.data.position[cells] - center).sum(1)
        return np.asarray(cells[np.argsort(distance, kind="stable")[: max(round(n), MIN_CELLS)]])

    def _choose(
        self, cells: NDArray[np.int64], rng: np.random.Generator, *, located: bool
    ) -> NDArray[np.int64]:
        """Choose at random, some of them with a position."""
        size = self.options.set_size
        chosen = self.data.shuffle(cells, rng, size, located=located)
        if located and self.data.has_position[chosen[:size]].sum() < MIN_CELLS:
            first = chosen[self.data.has_position[chosen]][:MIN_CELLS]
            chosen = np.concatenate([first, chosen[~np.isin(chosen, first)]])
        return np.asarray(chosen[:size])


class _Share(Sampler[list[int]]):
    """The batches of one process in the rest of an epoch, which counts as a whole one."""

    def __init__(self, batches: list[list[int]], n_done: int) -> None:
        self.batches, self.n_done = batches, n_done

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches[self.n_done :])

    def __len__(self) -> int:
        return len(self.batches)


class SetDataModule(L.LightningDataModule):
    """Training and validation sets.

    Parameters
    ----------
    train, validation
        Sets to train on, and fixed sets to validate on or ``None``.
    batch_size
        Sets in a batch; the last batch of an epoch may be shorter.
    first_epoch
        Number of epochs already trained, so that going on draws new sets.
    batches_done
        Returns the number of batches of the coming epochs that were done before an interruption.
    num_workers
        Processes that prepare sets; the sets do not depend on it.
    """

    def __init__(
        self,
        train: SectionSets,
        validation: SectionSets | None,
        batch_size: int,
        *,
        first_epoch: int = 0,
        batches_done: Callable[[], int] = int,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        self.train = train
        self.validation = validation
        self.batch_size = batch_size
        self.first_epoch = first_epoch
        self.batches_done = batches_done
        self.num_workers = num_workers

    @property
    def world_size(self) -> int:
        """Count the processes that train together."""
        return 1 if self.trainer is None else self.trainer.world_size

    @property
    def batches_per_epoch(self) -> int:
        """Count the batches of a whole epoch, of all processes, of which each has as many."""
        batches = -(-len(self.train) // self.batch_size)
        return -(-batches // self.world_size) * self.world_size

    @property
    def epochs_begun(self) -> int:
        """Count the epochs that were at least begun."""
        return self.first_epoch + -(-self.batches_done() // self.batches_per_epoch)

    def train_dataloader(self) -> DataLoader[CellBatch]:
        """Draw the sets of the coming epoch, after an interruption those of its rest.

        Several processes take the batches in turn; where these do not come out even, the first ones
        are seen again.
        """
        epochs, done = divmod(self.batches_done(), self.batches_per_epoch)
        self.train.epoch = self.first_epoch + epochs
        rng = np.random.default_rng([self.train.options.seed, self.train.epoch])
        order, size = rng.permutation(len(self.train)).tolist(), self.batch_size
        batches = [order[start : start + size] for start in range(0, len(order), size)]
        rank = 0 if self.trainer is None else self.trainer.global_rank
        numbers = range(rank, self.batches_per_epoch, self.world_size)
        return DataLoader(
            self.train,
            batch_sampler=_Share(
                [batches[i % len(batches)] for i in numbers], done // self.world_size
            ),
            collate_fn=collate,
            num_workers=self.num_workers,
        )

    def val_dataloader(self) -> DataLoader[CellBatch] | list[object]:
        """Give the same sets every time; nothing without validation sections."""
        if self.validation is None:
            return []
        return DataLoader(self.validation, self.batch_size, collate_fn=collate)
