"""The size and the options of the transformer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Attention = Literal["softmax", "linear"]
GateType = Literal["none", "headwise", "elementwise"]


@dataclass(frozen=True)
class Architecture:
    """Size and options of a stack of transformer blocks.

    Attributes
    ----------
    d_model, num_heads, num_layers, d_ff
        Width of a token; attention heads, a divisor of it; blocks; inner width of the feed-forward.
    dropout
        Dropout probability in training.
    attention
        ``"softmax"``, or ``"linear"``, whose cost is linear in the number of cells.
    gate_type
        Gate on the output of attention: ``"none"``, ``"headwise"`` (a number per head and cell),
        ``"elementwise"``.
    num_experts
        Number of experts in the place of each feed-forward; 0 for a dense one.
    moe_top_k
        Number of experts a token goes through.
    expert_width
        Inner width of an expert; ``None`` for ``d_ff / num_experts``.
    router_noise
        Standard deviation of noise on the router's logits in training.
    """

    d_model: int = 128
    num_heads: int = 4
    num_layers: int = 4
    d_ff: int = 256
    dropout: float = 0.1
    attention: Attention = "softmax"
    gate_type: GateType = "none"
    num_experts: int = 0
    moe_top_k: int = 2
    expert_width: int | None = None
    router_noise: float = 0.0

    def __post_init__(self) -> None:
        for name in ("d_model", "num_heads", "d_ff", "moe_top_k"):
            self._require(name, getattr(self, name) >= 1, "at least 1")
        for name in ("num_layers", "num_experts", "router_noise"):
            self._require(name, getattr(self, name) >= 0, "at least 0")
        self._require("dropout", 0 <= self.dropout < 1, "in [0, 1)")
        for name, choices in (
            ("attention", get_args(Attention)),
            ("gate_type", get_args(GateType)),
        ):
            self._require(name, getattr(self, name) in choices, f"one of {', '.join(choices)}")
        if self.d_model % self.num_heads:
            raise ValueError(
                f"d_model={self.d_model} is not divisible by num_heads={self.num_heads}: choose a "
                "d_model that is a multiple of num_heads."
            )
        if self.num_experts:
            self._check_experts()

    def _check_experts(self) -> None:
        if self.moe_top_k > self.num_experts:
            raise ValueError(
                f"moe_top_k={self.moe_top_k} is more than num_experts={self.num_experts}: a token "
                "cannot go through more experts than there are."
            )
        if self.expert_width is None and self.d_ff % self.num_experts:
            raise ValueError(
                f"d_ff={self.d_ff} is not divisible by num_experts={self.num_experts}: choose a "
                "multiple, or pass expert_width."
            )
        if self.expert_width is not None:
            self._require("expert_width", self.expert_width >= 1, "at least 1")

    def _require(self, name: str, holds: bool, what: str) -> None:
        if not holds:
            raise ValueError(f"{name} must be {what}, found {getattr(self, name)!r}.")

    @property
    def d_expert(self) -> int:
        """Inner width of an expert."""
        return self.expert_width or self.d_ff // max(self.num_experts, 1)
