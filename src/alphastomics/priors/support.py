"""Support of the tissue: where cells of the training sections lie."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import KDTree
from torch import Tensor

from alphastomics.nn.dynamic_buffers import DynamicBufferModule

MAX_SECTIONS, MAX_CELLS = 8, 2048
QUANTILE = 0.95  # of the distances of cells to the nearest one of other sections


class Support(NamedTuple):
    """Region within ``reach`` of the nearest of some cells."""

    tree: KDTree
    reach: float

    def contains(self, position: Tensor) -> Tensor:
        """Mask of the positions ``(M, d)`` that lie in the tissue, boolean ``(M,)``."""
        distance = self.tree.query(position.cpu().double().numpy())[0]
        return torch.from_numpy(distance <= self.reach).to(position.device)


class TissueSupport(DynamicBufferModule):
    """Positions of training cells, at most 2,048 of each of at most 8 sections.

    Parameters
    ----------
    position_dim
        Dimension ``d`` of space.

    Attributes
    ----------
    place
        Positions relative to the center of the section in RMS radii, ``(P, d)``.
    section
        Number of the section of each cell, ``(P,)``.
    """

    sized: ClassVar[tuple[str, ...]] = ("place", "section")
    place: Tensor
    section: Tensor

    def __init__(self, position_dim: int) -> None:
        super().__init__()
        self.register_buffer("place", torch.zeros(0, position_dim))
        self.register_buffer("section", torch.zeros(0, dtype=torch.int64))

    def is_consistent(self) -> bool:
        """True if every place has the number of its section."""
        return len(self.place) == len(self.section) and bool((self.section >= 0).all())

    @torch.no_grad()
    def fit(self, sections: list[NDArray[np.float64]], seed: int) -> None:
        """Store random cells of random sections, given their positions, each ``(n_s, d)``."""
        rng = np.random.default_rng(seed)
        numbers = [i for i in rng.permutation(len(sections)) if len(sections[i])][:MAX_SECTIONS]
        places = [rng.permutation(sections[i])[:MAX_CELLS] for i in numbers]
        self.place = torch.from_numpy(np.concatenate(places)).to(self.place)
        section = np.repeat(numbers, [len(place) for place in places])
        self.section = torch.from_numpy(section).to(self.section.device)

    def region(self, registered: Tensor) -> Support | None:
        """Support of the tissue, given the stored cells in the common frame ``(P, d)``.

        It reaches as far around them as 95 % of the cells of a section lie from those of the other
        sections, or from each other if there is one section. ``None`` without two cells.
        """
        points, section = registered.cpu().double().numpy(), self.section.cpu().numpy()
        numbers = np.unique(section)
        if len(points) < 2:
            return None
        # Across sections: the outline of a new section differs as those of training do.
        if len(numbers) == 1:
            distance = KDTree(points).query(points, 2)[0][:, 1]
        else:
            distance = np.concatenate(
                [KDTree(points[section != i]).query(points[section == i])[0] for i in numbers]
            )
        return Support(KDTree(points), float(np.quantile(distance, QUANTILE)))
