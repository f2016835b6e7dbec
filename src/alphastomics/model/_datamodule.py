"""Sets of cells for training, drawn afresh every epoch."""

from __future__ import annotations

from functools import partial

import lightning.pytorch as pl
import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset

from alphastomics.diffusion_model.losses import CellSets
from alphastomics.model._data import TissueData
from alphastomics.model._validate import MIN_CELLS


def cell_set(data: TissueData, cells: NDArray[np.int64]) -> CellSets:
    """One set, without a batch dimension: the cells' values as dense tensors."""
    values = torch.from_numpy(data.expression[cells].toarray().astype(np.float32))  # (N, G)
    has_position = torch.from_numpy(data.has_position[cells])
    position = torch.zeros(len(cells), 0)
    if data.position is not None:
        # Centre in double precision: slides can lie far from the origin of their coordinates.
        known = data.position[cells]
        centred = known - np.nanmean(known, axis=0)
        position = torch.from_numpy(np.nan_to_num(centred).astype(np.float32))  # (N, d)
    visible = torch.from_numpy(data.visible).expand_as(values)
    return CellSets(values, visible, position, has_position, None)


def collate(sets: list[CellSets]) -> CellSets:
    """Batch sets, padding the shorter ones."""
    lengths = torch.tensor([len(s.values) for s in sets])
    longest = int(lengths.max())
    mask = None
    if int(lengths.min()) < longest:
        mask = torch.arange(longest) < lengths[:, None]  # (B, N)
    pad = partial(pad_sequence, batch_first=True)
    return CellSets(
        pad([one.values for one in sets]),
        pad([one.visible for one in sets]),
        pad([one.position for one in sets]),
        pad([one.has_position for one in sets]),
        mask,
    )


class SectionSets(Dataset[CellSets]):
    """Random sets of cells, each of one section.

    Parameters
    ----------
    data
        Cells of all sections.
    sections
        Names of the sections to draw from.
    set_size
        Most cells in a set.
    sets_per_section
        Number of sets an epoch draws from each section.
    seed
        Item ``i`` of epoch ``e`` is drawn from the generator of ``(seed, e, i)``.
    """

    def __init__(
        self, data: TissueData, sections: list[str], set_size: int, sets_per_section: int, seed: int
    ) -> None:
        self.data = data
        self.cells = [data.cells_of(section) for section in sections]
        self.set_size = set_size
        self.sets_per_section = sets_per_section
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return self.sets_per_section * len(self.cells)

    def __getitem__(self, item: int) -> CellSets:
        rng = np.random.default_rng([self.seed, self.epoch, item])
        cells = self.cells[item % len(self.cells)]
        chosen = rng.permutation(cells)
        located = chosen[self.data.has_position[chosen]][:MIN_CELLS]
        if self.data.has_position[chosen[: self.set_size]].sum() < MIN_CELLS:
            chosen = np.concatenate([located, chosen[~np.isin(chosen, located)]])
        return cell_set(self.data, chosen[: self.set_size])


class SetDataModule(pl.LightningDataModule):
    """Training and validation sets.

    Parameters
    ----------
    train, validation
        Sets to train on, and fixed sets to validate on or ``None``.
    batch_size
        Sets in a batch; the last batch of an epoch may be shorter.
    first_epoch
        Number of epochs already trained, so that going on draws new sets.
    """

    def __init__(
        self, train: SectionSets, validation: SectionSets | None, batch_size: int, first_epoch: int
    ) -> None:
        super().__init__()
        self.train = train
        self.validation = validation
        self.batch_size = batch_size
        self.first_epoch = first_epoch

    def train_dataloader(self) -> DataLoader[CellSets]:
        """Draw the sets of the coming epoch."""
        assert self.trainer is not None
        self.train.epoch = self.first_epoch + self.trainer.current_epoch
        order = np.random.default_rng([self.train.seed, self.train.epoch]).permutation(
            len(self.train)
        )
        return DataLoader(self.train, self.batch_size, sampler=order.tolist(), collate_fn=collate)

    def val_dataloader(self) -> DataLoader[CellSets] | list[object]:
        """Give the same sets every time; nothing without validation sections."""
        if self.validation is None:
            return []
        return DataLoader(self.validation, self.batch_size, collate_fn=collate)
