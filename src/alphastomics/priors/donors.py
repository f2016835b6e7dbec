"""Training cells as donors of measured expression to cells described by factors."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from alphastomics.nn.dynamic_buffers import DynamicBufferModule

CELLS_AT_A_TIME = 4096


class Measurement(NamedTuple):
    """Measured expression of donors ``(M, G)``, and which of their genes were measured."""

    values: Tensor
    measured: Tensor


def adjusted_counts(
    counts: Tensor, ratio: Tensor, generator: torch.Generator | None = None
) -> Tensor:
    """Draw counts whose expectation is ``ratio`` times that of others, on the CPU, ``(N, G)``.

    Binomial thinning (Steutel & van Harn 1979) where the ratio is below 1, Poisson addition where
    it is above.
    """
    thinned = torch.binomial(counts, ratio.clamp_max(1.0), generator=generator)
    return thinned + torch.poisson(counts * (ratio - 1).clamp_min(0.0), generator=generator)


class DonorCells(DynamicBufferModule):
    """Training cells that donate their measured expression to drawn ones.

    A hot deck (Andridge & Little 2010, Int. Stat. Rev. 78, 40): a drawn cell takes what was
    measured of the training cell whose description is nearest to its own (predictive mean matching,
    Little 1988, J. Bus. Econ. Stat. 6, 287), see :func:`adjusted_counts`. Zeros, depth and the
    correlation of genes beyond the factors are those of measured cells. :meth:`bootstrap` draws
    cells of which nothing is known.

    Parameters
    ----------
    num_genes
        Number of genes ``G``.
    size
        Number of values that describe a cell, see
        :class:`~alphastomics.priors.expression_factors.ExpressionFactors`.

    Attributes
    ----------
    value, gene, start
        Measured values of ``M`` cells in compressed rows, ``(Z,)``, ``(Z,)`` and ``(M + 1,)``.
    panels, panel
        Genes that are measured together, ``(P, G)``, and the panel of each cell, ``(M,)``.
    description, label
        Description ``(M, size)`` and number of the type of each cell, ``(M,)``.
    """

    sized: ClassVar[tuple[str, ...]] = (
        "value",
        "gene",
        "start",
        "panels",
        "panel",
        "description",
        "label",
    )
    value: Tensor
    gene: Tensor
    start: Tensor
    panels: Tensor
    panel: Tensor
    description: Tensor
    label: Tensor

    def __init__(self, num_genes: int, size: int) -> None:
        super().__init__()
        self.register_buffer("value", torch.zeros(0))
        self.register_buffer("gene", torch.zeros(0, dtype=torch.int32))
        self.register_buffer("start", torch.zeros(1, dtype=torch.int64))
        self.register_buffer("panels", torch.zeros(0, num_genes, dtype=torch.bool))
        self.register_buffer("panel", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("description", torch.zeros(0, size))
        self.register_buffer("label", torch.zeros(0, dtype=torch.int64))

    def __len__(self) -> int:
        return len(self.description)

    def is_consistent(self) -> bool:
        """True if the cells have as many descriptions, and name panels and genes that there are."""
        n_panels, num_genes = self.panels.shape
        sizes = {len(self.description), len(self.label), len(self.panel), len(self.start) - 1}
        return (
            len(sizes) == 1
            and len(self.value) == len(self.gene) == int(self.start[-1])
            and int(self.start[0]) == 0
            and bool((self.start.diff() >= 0).all())
            and bool(((self.gene >= 0) & (self.gene < num_genes)).all())
            and bool(((self.panel >= 0) & (self.panel < n_panels)).all())
            and bool((self.label >= 0).all())
        )

    @torch.no_grad()
    def fill(
        self,
        values: sparse.csr_matrix,
        panels: NDArray[np.bool_],
        panel: NDArray[np.int64],
        description: Tensor,
        label: NDArray[np.int64],
    ) -> None:
        """Store cells: measured values ``(M, G)``, and the attributes of the class."""
        self.value = torch.from_numpy(values.data.astype(np.float32))
        self.gene = torch.from_numpy(values.indices.astype(np.int32))
        self.start = torch.from_numpy(values.indptr.astype(np.int64))
        self.panels, self.panel = torch.from_numpy(panels), torch.from_numpy(panel)
        self.description, self.label = description, torch.from_numpy(label)

    def measurement(self, donor: Tensor) -> Measurement:
        """Look up what was measured of donors ``(N,)``, on the CPU: ``(N, G)``."""
        parts = (self.value, self.gene, self.start)
        value, gene, start = (part.cpu().numpy() for part in parts)
        shape = len(start) - 1, self.panels.shape[1]
        rows = sparse.csr_matrix((value, gene, start), shape)[donor.cpu().numpy()]
        measured = self.panels[self.panel[donor]].cpu()
        return Measurement(torch.from_numpy(rows.toarray()), measured)

    def nearest(self, description: Tensor, weight: Tensor) -> Tensor:
        """Find the donor of least weighted distance to each description ``(N, size)``, ``(N,)``.

        ``weight`` ``(size,)`` multiplies the difference in each value.
        """
        # Weighted by the expression that a unit makes: weak factors are mostly noise.
        donors = self.description * weight  # (M, size)
        return torch.cat(
            [
                torch.cdist(part * weight, donors).argmin(1)
                for part in torch.split(description, CELLS_AT_A_TIME)
            ]
        )

    def bootstrap(self, label: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw donors with replacement (Efron 1979), ``(N,)``.

        Parameters
        ----------
        label
            Number of the type of each cell to draw, ``(N,)``; 0 for any.
        generator
            Source of randomness, on the CPU.

        Raises
        ------
        ValueError
            If no stored cell has one of the types.
        """
        stored = self.label.cpu()
        chosen = torch.empty(len(label), dtype=torch.int64)
        for kind in torch.unique(label):
            members = torch.arange(len(stored)) if kind == 0 else (stored == kind).nonzero()[:, 0]
            if not len(members):
                raise ValueError(f"no training cell of type number {int(kind)} was stored.")
            drawn = label == kind
            random = torch.randint(len(members), (int(drawn.sum()),), generator=generator)
            chosen[drawn] = members[random]
        return chosen.to(self.label.device)
