"""Superposition of point sets, and the poses of training sections in the common frame."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from alphastomics.nn.dynamic_buffers import DynamicBufferModule

POSE_DECAY = 0.9  # of the statistics of poses, a step: the frame moves while it is learned


def centroid(points: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean of ``points`` ``(B, N, d)`` with ``weight`` ``(B, N)``, as ``(B, 1, d)``."""
    total = weight.sum(1, keepdim=True).clamp_min(1e-12)  # (B, 1)
    return torch.einsum("bn,bnd->bd", weight / total, points)[:, None]


def kabsch(
    moving: Tensor, fixed: Tensor, weight: Tensor, *, allow_reflection: bool = True
) -> Tensor:
    """Orthogonal matrices that best map ``moving`` onto ``fixed`` (Kabsch 1976).

    Minimizes ``sum_n w_n || moving_n R - fixed_n ||^2`` over rotations about the origin, with
    mirror images when ``allow_reflection``. Center the points first if shifts should be ignored.

    Parameters
    ----------
    moving, fixed
        Points, shape ``(B, N, d)``.
    weight
        Non-negative weights, shape ``(B, N)``; zero for padding.
    allow_reflection
        Whether the determinant may be -1.

    Returns
    -------
    Tensor
        ``(B, d, d)``; apply as ``moving @ R``.
    """
    covariance = torch.einsum("bn,bni,bnj->bij", weight, moving, fixed)  # (B, d, d)
    return nearest_orthogonal(covariance, allow_reflection=allow_reflection)


def nearest_orthogonal(covariance: Tensor, *, allow_reflection: bool) -> Tensor:
    """Orthogonal matrices nearest to ``covariance`` ``(B, d, d)`` (Kabsch 1976)."""
    u, _, vh = torch.linalg.svd(covariance)
    if not allow_reflection:
        flip = torch.ones_like(covariance[:, 0])  # (B, d)
        flip[:, -1] = torch.sign(torch.linalg.det(u @ vh))
        u = u * flip[:, None, :]
    return u @ vh


class Pose(NamedTuple):
    """Rotation ``(B, d, d)``, possibly with a mirror image, and then a shift ``(B, 1, d)``."""

    rotation: Tensor
    shift: Tensor

    def apply(self, points: Tensor) -> Tensor:
        """Move points ``(B, N, d)``."""
        return points @ self.rotation + self.shift

    def invert(self, points: Tensor) -> Tensor:
        """Move points ``(B, N, d)`` back."""
        return (points - self.shift) @ self.rotation.transpose(1, 2)


@torch.no_grad()
def superpose(moving: Tensor, fixed: Tensor, weight: Tensor, *, allow_reflection: bool) -> Pose:
    """Pose that best maps ``moving`` onto ``fixed`` ``(B, N, d)``; see :func:`kabsch`."""
    with torch.autocast(moving.device.type, enabled=False):
        moving, fixed, weight = moving.float(), fixed.float(), weight.float()
        from_, to = centroid(moving, weight), centroid(fixed, weight)
        rotation = kabsch(moving - from_, fixed - to, weight, allow_reflection=allow_reflection)
        return Pose(rotation, to - from_ @ rotation)


class SectionPoses(DynamicBufferModule):
    """Poses of the training sections in the frame of the mean head; empty without such a frame.

    A moving average of the statistics that superpose each section on its predicted positions:
    weight, sums and products of true and predicted coordinates.
    """

    sized: ClassVar[tuple[str, ...]] = ("statistics",)
    statistics: Tensor

    def __init__(self, position_dim: int) -> None:
        super().__init__()
        self.position_dim = position_dim
        self.register_buffer("statistics", torch.zeros(0, 1 + position_dim * (2 + position_dim)))

    def __len__(self) -> int:
        return len(self.statistics)

    def start(self, n_sections: int) -> None:
        """Forget all poses; ``n_sections`` are to come."""
        self.statistics = self.statistics.new_zeros(n_sections, self.statistics.shape[1])

    @torch.no_grad()
    def measure(self, section: Tensor, true: Tensor, predicted: Tensor, weight: Tensor) -> Tensor:
        """Statistics of sets of cells, summed by section, ``(S, F)``.

        Parameters
        ----------
        section
            Number of the section of each set, -1 for sets that do not count, ``(B,)``.
        true, predicted
            Positions relative to the center of the section and in the common frame, ``(B, N, d)``.
        weight
            ``(B, N)``.
        """
        true, predicted = true.float(), predicted.float()
        weight = weight.float() * (section >= 0)[:, None]
        product = torch.einsum("bn,bni,bnj->bij", weight, true, predicted).flatten(1)
        sums = [torch.einsum("bn,bni->bi", weight, points) for points in (true, predicted)]
        each = torch.cat([weight.sum(1, keepdim=True), *sums, product], dim=1)  # (B, F)
        return torch.zeros_like(self.statistics).index_add_(0, section.clamp_min(0), each)

    @torch.no_grad()
    def update(self, measured: Tensor) -> None:
        """Take new statistics ``(S, F)`` into the average."""
        seen = measured[:, :1] > 0
        self.statistics.mul_(torch.where(seen, POSE_DECAY, 1.0)).add_(measured)

    def pose(self, section: Tensor, *, allow_reflection: bool) -> Pose:
        """Poses of sections ``(B,)``; the identity for those without statistics."""
        d = self.position_dim
        found = self.statistics[section.clamp_min(0)]  # (B, F)
        weight, sums, product = torch.split(found, [1, 2 * d, d * d], dim=1)
        n = weight.clamp_min(1e-12)[..., None]
        true, predicted = (part[:, None] / n for part in sums.chunk(2, dim=1))  # (B, 1, d)
        covariance = product.view(-1, d, d) / n - true.transpose(1, 2) @ predicted
        rotation = nearest_orthogonal(covariance, allow_reflection=allow_reflection)
        return Pose(rotation, predicted - true @ rotation)


def procrustes(moving: Tensor, fixed: Tensor, *, allow_reflection: bool = True) -> Tensor:
    """Turn, scale and shift ``moving`` onto ``fixed`` ``(B, N, d)`` (Umeyama 1991)."""
    weight = torch.ones_like(moving[..., 0])
    center = centroid(fixed, weight)
    M, F = moving - centroid(moving, weight), fixed - center
    turned = M @ kabsch(M, F, weight, allow_reflection=allow_reflection)
    scale = (turned * F).sum((1, 2)) / M.square().sum((1, 2)).clamp_min(1e-12)
    return scale[:, None, None] * turned + center


def random_orthogonal(
    shape: tuple[int, int], generator: torch.Generator | None = None, *, reflect: bool = True
) -> Tensor:
    """Uniform random rotations ``(B, d, d)`` for ``shape`` ``(B, d)``, half of them mirrored.

    The QR decomposition of a Gaussian matrix, signs fixed (Mezzadri 2007, Notices AMS 54, 592).
    """
    B, d = shape
    q, r = torch.linalg.qr(torch.randn(B, d, d, generator=generator))
    q = q * torch.diagonal(r, dim1=1, dim2=2).sign()[:, None, :]
    if not reflect:
        q[..., 0] *= torch.linalg.det(q).sign()[:, None]
    return q
