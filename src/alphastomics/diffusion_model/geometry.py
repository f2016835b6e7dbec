"""Centring and superposition of point sets, batched."""

from __future__ import annotations

import torch
from torch import Tensor


def centroid(points: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean of ``points`` ``(B, N, d)`` with ``weight`` ``(B, N)``, as ``(B, 1, d)``."""
    total = weight.sum(1, keepdim=True).clamp_min(1e-12)  # (B, 1)
    return torch.einsum("bn,bnd->bd", weight / total, points)[:, None]


def kabsch(
    moving: Tensor, fixed: Tensor, weight: Tensor, *, allow_reflection: bool = True
) -> Tensor:
    """Orthogonal matrices that best map ``moving`` onto ``fixed`` (Kabsch 1976).

    Minimises ``sum_n w_n || moving_n R - fixed_n ||^2`` over rotations about the origin, with
    mirror images when ``allow_reflection``. Centre the points first if shifts should be ignored.

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
    u, _, vh = torch.linalg.svd(covariance)
    if not allow_reflection:
        flip = torch.ones_like(covariance[:, 0])  # (B, d)
        flip[:, -1] = torch.sign(torch.linalg.det(u @ vh))
        u = u * flip[:, None, :]
    return u @ vh


def procrustes(moving: Tensor, fixed: Tensor, *, allow_reflection: bool = True) -> Tensor:
    """Turn, scale and shift ``moving`` onto ``fixed`` ``(B, N, d)`` (Umeyama 1991)."""
    weight = torch.ones_like(moving[..., 0])
    centre = centroid(fixed, weight)
    M, F = moving - centroid(moving, weight), fixed - centre
    turned = M @ kabsch(M, F, weight, allow_reflection=allow_reflection)
    scale = (turned * F).sum((1, 2)) / M.square().sum((1, 2)).clamp_min(1e-12)
    return scale[:, None, None] * turned + centre


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
