"""Reference matching: a mixture over the places of known cells with similar expression."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from alphastomics.nn.dynamic_buffers import DynamicBufferModule
from alphastomics.priors import SectionSample
from alphastomics.priors.transport import spread_out

SHARPNESS = 10.0  # initial factor of the cosine similarity
WIDTH = 0.3  # initial standard deviation of the mixture components, in RMS radii of a section
# Kernels whose sum smooths the mixture before its mode is looked for: width in RMS radii, height.
Scales = tuple[tuple[float, float], ...]
WIDE: Scales = ((0.8, 1.0),)
WIDE_AND_NARROW: Scales = ((1.0, 1.0), (0.2, 0.2))
MAX_CANDIDATES = 512
SHIFTS = 4
FIT_STEPS, FIT_NOISE = 500, 0.8
FIT_LR = [4e-3, 4e-2]  # of the weights, and of the two scales
MAX_STORED_SECTIONS, MAX_STORED_CELLS = 8, 2048
PANEL_SHARE = 0.25  # of the steps in which the cells to place lack genes
ROWS = 1024  # cells that are compared with all others at a time
NEIGHBORHOODS = (1, 100)  # stored cells that the novelty of a cell is compared with


class PositionMixture(NamedTuple):
    """Mixture over the places of known cells, for every cell.

    Attributes
    ----------
    log_weight
        Log of the weights, ``(B, N, K)``.
    place
        Positions of the ``K`` known cells, ``(B, K, d)``; 0 for those that are not valid.
    valid
        Whether a cell has a mixture, boolean ``(B, N)``.
    width
        Standard deviation of the components, a scalar.
    """

    log_weight: Tensor
    place: Tensor
    valid: Tensor
    width: Tensor

    def mean(self) -> Tensor:
        """Weighted mean place, ``(B, N, d)``."""
        return self.log_weight.exp() @ self.place

    def variance(self, about: Tensor | None = None) -> Tensor:
        """Variance of a coordinate, ``(B, N)``, about positions ``(B, N, d)`` or the mean."""
        d, mean = self.place.shape[-1], self.mean()
        square = self.log_weight.exp() @ self.place.square().sum(-1, keepdim=True)
        spread = (square.squeeze(-1) - mean.square().sum(-1)).clamp_min(0.0)
        if about is not None:
            spread = spread + (about - mean).square().sum(-1)
        return spread / d + self.width.square()

    def log_likelihood(self, position: Tensor) -> Tensor:
        """Log density of positions ``(B, N, d)``, ``(B, N)``, up to a constant (Bishop 1994)."""
        square = torch.cdist(position, self.place).square()  # (B, N, K)
        exponent = self.log_weight - square / (2 * self.width.square())
        return exponent.logsumexp(-1) - position.shape[-1] * self.width.log()

    def mode(self, scales: Scales = WIDE) -> Tensor:
        """Likeliest place after smoothing, by mean shift (Cheng 1995), ``(B, N, d)``.

        A mean of two distant places lies between them; this is one of the two, and the mean where
        the weights lie together. With several kernels it is the estimate of highest expected gain
        for a gain that is the sum of the kernels: the wide one rewards the region, a narrow one
        the neighborhood.
        """
        weight = self.log_weight.exp()
        every = -(-self.place.shape[1] // MAX_CANDIDATES)
        candidates = self.place[:, ::every]  # (B, C, d)
        gain = sum(h * _kernel(self.place, candidates, w) for w, h in scales)
        density = weight @ gain  # (B, N, C)
        best = density.argmax(-1, keepdim=True).expand(-1, -1, candidates.shape[-1])
        mode = candidates.gather(1, best)  # (B, N, d)
        widest = scales[0][0]
        for _ in range(SHIFTS):
            pull = sum(h * (widest / w) ** 2 * _kernel(mode, self.place, w) for w, h in scales)
            near = weight * pull
            mode = near @ self.place / near.sum(-1, keepdim=True).clamp_min(1e-12)
        return mode

    def spread_mode(self) -> Tensor:
        """Modes, moved apart where those of the valid cells fill too little of the known tissue.

        Where expression is uninformative, modes are near the center, see :func:`spread_out`.
        """
        mode = self.mode()
        used = self.log_weight.exp().sum(1) > 0  # (B, K), the known cells
        for each, valid, places, known in zip(mode, self.valid, self.place, used, strict=True):
            each[valid] = spread_out(each[valid], places[known])
        return mode

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Draw a place for every cell, ``(B, N, d)``: a component, then noise of its width."""
        uniform = torch.rand(self.log_weight.shape, generator=generator).to(self.log_weight)
        gumbel = -(-uniform.clamp(1e-7, 1 - 1e-7).log()).log()
        chosen = (self.log_weight + gumbel).argmax(-1, keepdim=True)  # Gumbel-max: exact draws
        place = self.place.gather(1, chosen.expand(-1, -1, self.place.shape[-1]))
        return place + self.width * torch.randn(place.shape, generator=generator).to(place)


def _kernel(a: Tensor, b: Tensor, width: float) -> Tensor:
    """Gaussian of the distances between two sets of points, ``(B, M, K)``."""
    return torch.exp(-torch.cdist(a, b).square() / (2 * width**2))


class ReferenceMatcher(nn.Module):
    """Nearest-neighbor regression of positions whose distance of expression is learned.

    The weights are those of a mixture density over the places of known cells, trained by its
    likelihood. A mean of known positions turns, shifts and scales with their frame, which a linear
    map of tokens would have to learn. Fitted before the network and constant afterwards.

    Parameters
    ----------
    num_genes
        Number of values ``G`` of a cell.
    d_model
        Dimension of the space in which expression is compared.
    dropout
        Dropout probability while it is fitted.
    """

    def __init__(self, num_genes: int, d_model: int, dropout: float = 0.2) -> None:
        super().__init__()
        self.linear = nn.Linear(2 * num_genes, d_model, bias=False)
        self.network = nn.Sequential(
            nn.Linear(2 * num_genes, 2 * d_model),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(2 * d_model, d_model),
        )
        self.log_sharpness = nn.Parameter(torch.tensor(math.log(SHARPNESS)))
        self.log_width = nn.Parameter(torch.tensor(math.log(WIDTH)))
        self.requires_grad_(False)

    def features(self, values: Tensor, known: Tensor) -> Tensor:
        """Directions ``(..., D)`` whose cosine is the similarity of cells.

        Parameters
        ----------
        values
            ``(..., G)``, standardized; ignored where not known.
        known
            Which of them are known, boolean ``(..., G)``.
        """
        x = torch.cat([torch.where(known, values, 0.0), known.to(values)], dim=-1)
        return normalize((self.linear(x) + self.network(x)).float(), dim=-1)

    def forward(self, cells: Tensor, keys: Tensor, place: Tensor, valid: Tensor) -> PositionMixture:
        """Match cells to known ones.

        Parameters
        ----------
        cells, keys
            Directions of the cells ``(B, N, D)`` and of the known ones ``(B, K, D)``.
        place
            Positions of the latter, ``(B, K, d)``.
        valid
            Which of them may be matched, boolean ``(B, K)``.
        """
        with torch.autocast(cells.device.type, enabled=False):
            logits = self.log_sharpness.exp() * cells @ keys.transpose(1, 2)  # (B, N, K)
            logits = logits.masked_fill(~valid[:, None], -1e9)
            place = torch.where(valid[..., None], place, 0.0).float()
            any_valid = valid.any(1, keepdim=True).expand(logits.shape[:2])
            return PositionMixture(logits.log_softmax(-1), place, any_valid, self.log_width.exp())

    def fit(
        self,
        draw_cells: Callable[[int], SectionSample],
        hidden_share: float,
        seed: int,
        *,
        n_steps: int = FIT_STEPS,
        on_step: Callable[[], object] | None = None,
    ) -> None:
        """Learn which cells lie near each other from their expression.

        In every step the positions of a share of the cells of a section are hidden and predicted
        from the others. Expression has noise, and in part of the steps hidden cells lack genes.

        Parameters
        ----------
        draw_cells
            Maps the number of a step to random cells of a section.
        hidden_share
            Share of those cells whose position is hidden.
        seed
            Random seed of noise, hidden values and dropout.
        n_steps
            Number of steps.
        on_step
            Called after every step.
        """
        self.train().requires_grad_(True)
        try:
            self._learn(draw_cells, hidden_share, seed, n_steps, on_step)
        finally:
            self.eval().requires_grad_(False)

    def _learn(
        self,
        draw_cells: Callable[[int], SectionSample],
        hidden_share: float,
        seed: int,
        n_steps: int,
        on_step: Callable[[], object] | None,
    ) -> None:
        weights = [*self.linear.parameters(), *self.network.parameters()]
        optimizer = torch.optim.AdamW(weights, fused=True)
        optimizer.add_param_group(
            {"params": [self.log_sharpness, self.log_width], "weight_decay": 0.0}
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, FIT_LR, n_steps)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            for step in range(n_steps):
                loss = self._loss(draw_cells(step), hidden_share)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
                if on_step is not None:
                    on_step()

    def _loss(self, cells: SectionSample, hidden_share: float) -> Tensor:
        """Negative log-likelihood of the positions of the first cells, given those of the rest."""
        N, G = cells.values.shape
        n = min(max(round(hidden_share * N), 1), N - 1)
        noise, panel, ratio = torch.rand(3).tolist()
        values = cells.values + FIT_NOISE * noise * torch.randn(N, G)
        known = cells.known.clone()
        if panel < PANEL_SHARE:
            known[:n] &= torch.rand(G) >= 0.8 * ratio
        features = self.features(values, known)[None]
        place, valid = cells.position[None], torch.ones(1, N - n, dtype=torch.bool)
        mixture = self(features[:, :n], features[:, n:], place[:, n:], valid)
        return -mixture.log_likelihood(place[:, :n]).mean()


class StoredReference(DynamicBufferModule):
    """Features and positions of training cells, at most 2,048 of each of at most 8 sections.

    Empty until it is filled.

    Parameters
    ----------
    position_dim
        Dimension of space.
    d_model
        Dimension of the features of the reference matching.
    """

    sized: ClassVar[tuple[str, ...]] = ("features", "place", "valid")
    features: Tensor
    place: Tensor
    valid: Tensor

    def __init__(self, position_dim: int, d_model: int) -> None:
        super().__init__()
        self.register_buffer("features", torch.zeros(0, 0, d_model))  # (S, M, D)
        self.register_buffer("place", torch.zeros(0, 0, position_dim))  # (S, M, d)
        self.register_buffer("valid", torch.zeros(0, 0, dtype=torch.bool))  # (S, M)

    def __len__(self) -> int:
        return len(self.features)

    def is_consistent(self) -> bool:
        """True if every stored cell has features and a place."""
        return self.features.shape[:2] == self.place.shape[:2] == self.valid.shape

    @torch.no_grad()
    def fill(self, matcher: ReferenceMatcher, sections: list[SectionSample]) -> None:
        """Store cells of sections; the matcher must be fitted."""
        pad = nn.utils.rnn.pad_sequence
        self.features = pad(
            [matcher.features(s.values, s.known) for s in sections], batch_first=True
        )
        self.place = pad([s.position for s in sections], batch_first=True)
        ones = [torch.ones(len(s.values), dtype=torch.bool) for s in sections]
        self.valid = pad(ones, batch_first=True)

    @torch.no_grad()
    def novelty(self, cells: Tensor) -> float | None:
        """Dissimilarity of cells to stored ones, relative to that of another section of training.

        Each section is left out in turn: the mean dissimilarity of the cells to the most similar
        cell of the other sections, over that of stored cells of the section left out. These are
        those most similar to the cells, so that composition does not matter (local outlier factor,
        Breunig et al. 2000): the nearest, or the 100 nearest, whichever gives less, as the nearest
        are typical cells, and the 100 nearest may be of other types.

        Parameters
        ----------
        cells
            Features ``(N, D)``.

        Returns
        -------
        float or None
            About 1 for a new section of the tissue. ``None`` unless two sections are stored, which
            say how much sections differ.
        """
        sections = [f[valid] for f, valid in zip(self.features, self.valid, strict=True)]
        if len(sections) < 2:
            return None
        found, expected = 0.0, torch.zeros(len(NEIGHBORHOODS))
        for i, section in enumerate(sections):
            others = torch.cat(sections[:i] + sections[i + 1 :])
            found += float(1 - most_similar(cells, others, 1).values.mean())
            across = 1 - most_similar(section, others, 1).values[:, 0]  # (M,)
            near = most_similar(cells, section, NEIGHBORHOODS[-1]).indices  # (N, 100)
            expected += torch.stack([across[near[:, :k]].mean().cpu() for k in NEIGHBORHOODS])
        return float((found / expected.clamp_min(1e-6)).min())

    def places(self, matcher: ReferenceMatcher, cells: Tensor) -> list[Tensor]:
        """Likeliest places of cells with features ``(N, D)`` in each section, ``(N, d)``."""
        return [
            matcher(cells[None], features[None], place[None], valid[None]).mode()[0]
            for features, place, valid in zip(self.features, self.place, self.valid, strict=True)
        ]


class _Nearest(NamedTuple):
    """Most similar other cells, best first: similarities and numbers, ``(N, k)``."""

    values: Tensor
    indices: Tensor


def most_similar(cells: Tensor, others: Tensor, k: int) -> _Nearest:
    """The ``k`` most similar of other cells ``(M, D)``, or all, for each cell ``(N, D)``."""
    found = [(rows @ others.T).topk(min(k, len(others))) for rows in torch.split(cells, ROWS)]
    return _Nearest(torch.cat([f.values for f in found]), torch.cat([f.indices for f in found]))
