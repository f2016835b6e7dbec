"""Agreement of predicted with true expression, gene by gene over cells.

``true`` and ``predicted`` are dense arrays ``(n_cells, n_genes)`` of the same cells and genes, as a
rule log-normalized. Every function returns one value per gene, ``(n_genes,)``; take the median over
genes. A gene is *constant* where its standard deviation is below 1e-10 of its largest absolute
value.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from alphastomics.metrics._arrays import Array, as_floats

CONSTANT = 1e-10
EXPLAINED = 1e-6
SSIM_MEAN, SSIM_CONTRAST = 0.01**2, 0.03**2


def expression_matrix(values: ArrayLike, name: str) -> Array:
    """Check dense expression ``(n_cells, n_genes)`` and return it as a float array."""
    array = as_floats(values, name)
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"{name} must have shape (n_cells, n_genes), found shape {array.shape}.")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds values that are not finite: drop those cells or genes.")
    return array


def expression_pair(true: ArrayLike, predicted: ArrayLike) -> tuple[Array, Array]:
    """Check expression of the same cells and genes and return it as float arrays."""
    X, Y = expression_matrix(true, "true"), expression_matrix(predicted, "predicted")
    if X.shape != Y.shape:
        raise ValueError(
            f"true and predicted must hold the same cells and genes, found {X.shape} and {Y.shape}."
        )
    return X, Y


def centered(X: Array) -> Array:
    """Subtract the mean of every gene; a constant gene is exactly 0."""
    C = X - X.mean(0)
    C[:, np.sqrt(np.square(C).mean(0)) <= CONSTANT * np.abs(X).max(0)] = 0
    return C


def z_scores(X: Array) -> Array:
    C = centered(X)
    sd = np.sqrt(np.square(C).mean(0))
    return np.asarray(C / np.where(sd > 0, sd, 1))


def pcc(true: ArrayLike, predicted: ArrayLike) -> Array:
    """Pearson correlation of true and predicted expression of every gene; chance is 0.

    Parameters
    ----------
    true, predicted
        Expression of the same cells and genes, shape ``(n_cells, n_genes)``.

    Returns
    -------
    ndarray
        Shape ``(n_genes,)``, between -1 and 1; 0, as by chance, where a gene is constant in either.

    References
    ----------
    Li et al. (2022), Nature Methods 19, 662.

    Examples
    --------
    >>> pcc([[1.0, 2.0], [2.0, 2.0], [3.0, 5.0]], [[5.0, 3.0], [7.0, 3.0], [9.0, 3.0]])
    array([1., 0.])
    """
    X, Y = expression_pair(true, predicted)
    return np.asarray((z_scores(X) * z_scores(Y)).mean(0))


def _residual(X: Array, covariate: Array) -> Array:
    """Subtract the regression on a centered covariate; what it explains but for rounding is 0."""
    C = centered(X)
    size = covariate @ covariate
    if size == 0:
        return C
    R = C - np.outer(covariate, covariate @ C / size)
    R[:, np.square(R).sum(0) <= EXPLAINED**2 * np.square(C).sum(0)] = 0
    return np.asarray(R)


def partial_pcc(true: ArrayLike, predicted: ArrayLike, covariate: ArrayLike) -> Array:
    r"""Pearson correlation after a covariate of the cells is regressed out of both; chance is 0.

    .. math:: r_{xy \cdot c} = \frac{r_{xy} - r_{xc} r_{yc}}{\sqrt{(1 - r_{xc}^2)(1 - r_{yc}^2)}}

    With the mean of a cell's visible genes as the covariate it measures what a prediction adds to
    how much a cell expresses at all. A gene that is constant, or that the covariate explains but
    for rounding (residual below 1e-6 of its standard deviation), gets 0.

    Parameters
    ----------
    true, predicted
        As in :func:`pcc`.
    covariate
        One number per cell, shape ``(n_cells,)``. A constant one gives :func:`pcc`.

    Returns
    -------
    ndarray
        Shape ``(n_genes,)``, between -1 and 1.

    Examples
    --------
    >>> depth = [0.0, 1.0, 2.0, 3.0]
    >>> partial_pcc([[1.0], [0], [3], [2]], [[0.0], [2], [4], [6]], depth)
    array([0.])
    """
    X, Y = expression_pair(true, predicted)
    c = as_floats(covariate, "covariate")
    if c.shape != (len(X),):
        raise ValueError(
            f"covariate must have one number per cell, shape ({len(X)},), found shape {c.shape}."
        )
    if not np.isfinite(c).all():
        raise ValueError("covariate holds values that are not finite: drop those cells first.")
    c = centered(c[:, None])[:, 0]
    return pcc(_residual(X, c), _residual(Y, c))


def expression_rmse(true: ArrayLike, predicted: ArrayLike) -> Array:
    r"""Root mean squared error of every gene, z-scored over cells in true and in predicted.

    .. math:: \sqrt{\textstyle\frac1n \sum_i (z_i - \hat z_i)^2} = \sqrt{2 (1 - r)}

    with the population standard deviation, so it orders predictions as :func:`pcc` does. Chance is
    :math:`\sqrt 2`. A constant gene has z-scores of 0: the error is 1 where one of the two is
    constant, 0 where both are.

    Parameters
    ----------
    true, predicted
        As in :func:`pcc`.

    Returns
    -------
    ndarray
        Shape ``(n_genes,)``, between 0 and 2.

    References
    ----------
    Li et al. (2022), Nature Methods 19, 662.

    Examples
    --------
    >>> expression_rmse([[1.0], [2.0], [3.0]], [[10.0], [20.0], [30.0]]).round(6)
    array([0.])
    """
    X, Y = expression_pair(true, predicted)
    return np.asarray(np.sqrt(np.square(z_scores(X) - z_scores(Y)).mean(0)))


def _by_maximum(X: Array) -> Array:
    top = X.max(0)
    return np.asarray(X / np.where(top > 0, top, 1))


def ssim(true: ArrayLike, predicted: ArrayLike) -> Array:
    r"""Global structural similarity of every gene, each divided by its own maximum first.

    .. math::

        \frac{2 \mu \hat\mu + C_1}{\mu^2 + \hat\mu^2 + C_1} \cdot
        \frac{2 \sigma \hat\sigma + C_2}{\sigma^2 + \hat\sigma^2 + C_2} \cdot
        \frac{\operatorname{cov} + C_3}{\sigma \hat\sigma + C_3}

    with :math:`C_1 = 0.01^2`, :math:`C_2 = 0.03^2`, :math:`C_3 = C_2 / 2`; means, standard
    deviations and covariance over all cells. A gene without a positive value is left unscaled.
    Chance (cells shuffled) is about 0 where the scaled standard deviation is well above 0.03, and
    more for sparse genes, so compare with a baseline.

    Parameters
    ----------
    true, predicted
        As in :func:`pcc`.

    Returns
    -------
    ndarray
        Shape ``(n_genes,)``, at most 1, which is perfect.

    References
    ----------
    Li et al. (2022), Nature Methods 19, 662; Wang et al. (2004), IEEE TIP 13, 600.

    Examples
    --------
    >>> ssim([[1.0], [2.0], [3.0]], [[1.0], [2.0], [3.0]]).round(6)
    array([1.])
    """
    X, Y = (_by_maximum(x) for x in expression_pair(true, predicted))
    mean, mean_hat = X.mean(0), Y.mean(0)
    sd, sd_hat = X.std(0), Y.std(0)
    covariance = ((X - mean) * (Y - mean_hat)).mean(0)
    half = SSIM_CONTRAST / 2
    luminance = (2 * mean * mean_hat + SSIM_MEAN) / (mean**2 + mean_hat**2 + SSIM_MEAN)
    contrast = (2 * sd * sd_hat + SSIM_CONTRAST) / (sd**2 + sd_hat**2 + SSIM_CONTRAST)
    return np.asarray(luminance * contrast * (covariance + half) / (sd * sd_hat + half))


def _shares(X: Array) -> Array:
    """Divide by the sum over cells; a gene without any expression is spread evenly."""
    total = X.sum(0)
    return np.where(total > 0, X / np.where(total > 0, total, 1), 1 / len(X))


def _relative_entropy(P: Array, M: Array) -> Array:
    return np.asarray((P * np.log(np.divide(P, M, out=np.ones_like(P), where=P > 0))).sum(0))


def jensen_shannon(true: ArrayLike, predicted: ArrayLike) -> Array:
    r"""Jensen-Shannon divergence of the distributions of every gene over cells, in nats.

    .. math:: \tfrac12 \mathrm{KL}(p \| m) + \tfrac12 \mathrm{KL}(\hat p \| m),
        \quad m = (p + \hat p) / 2, \quad p = x / \textstyle\sum_i x_i

    It is the divergence, not its square root. Chance depends on the gene (the sparser, the higher):
    compare with a baseline. A gene that is 0 in every cell is spread evenly over the cells.

    Parameters
    ----------
    true, predicted
        As in :func:`pcc`; ``true`` not negative, negative predictions count as 0.

    Returns
    -------
    ndarray
        Shape ``(n_genes,)``, between 0, perfect, and ln 2 = 0.693, disjoint.

    References
    ----------
    Li et al. (2022), Nature Methods 19, 662.

    Examples
    --------
    >>> jensen_shannon([[1.0, 1.0], [1.0, 0.0]], [[2.0, 0.0], [2.0, 1.0]]).round(3)
    array([0.   , 0.693])
    """
    X, Y = expression_pair(true, predicted)
    if (X < 0).any():
        raise ValueError("true must not be negative: pass counts or log-normalized expression.")
    P, Q = _shares(X), _shares(np.maximum(Y, 0))
    M = (P + Q) / 2
    return np.maximum((_relative_entropy(P, M) + _relative_entropy(Q, M)) / 2, 0)
