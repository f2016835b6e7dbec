"""Simulated tissue of known anatomy."""

from __future__ import annotations

from typing import NamedTuple

import anndata as ad
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse
from scipy.stats import special_ortho_group

from alphastomics import _keys
from alphastomics._validate import check_at_least, check_seed

Array = NDArray[np.float64]

LAYERS = ("L1", "L2/3", "L4", "L5", "L6")
SCATTERED = ("Astrocyte", "Interneuron", "Microglia")
LINING = "Ependymal"
CELL_TYPES = (*LAYERS, *SCATTERED, LINING)

EXTENT_UM = np.array([2400.0, 1500.0, 500.0])
CAVITY_CENTER, CAVITY_RADII = np.array([0.68, 0.3]), np.array([0.13, 0.14])
LINING_WIDTH = 0.35  # in radii of the cavity
SCATTERED_SHARE = 0.3
DISPERSION = 4.0  # negative-binomial size: variance = mean + mean^2 / DISPERSION
LIBRARY_SD = 0.35


class _Genes(NamedTuple):
    """Log expression: base + type effect + slope along each axis, per gene."""

    base: Array  # (G,)
    by_type: Array  # (n_types, G)
    slope: Array  # (3, G)


def _draw_genes(rng: np.random.Generator, n_genes: int) -> _Genes:
    base = rng.normal(0.3, 0.7, n_genes)
    marks = rng.random((len(CELL_TYPES), n_genes)) < 0.2
    by_type = marks * rng.normal(1.5, 0.5, marks.shape)
    graded = np.array([0.35, 0.15, 0.2])[:, None]  # share of genes graded along x, y, z
    slope = (rng.random((3, n_genes)) < graded) * rng.normal(0.0, 1.2, (3, n_genes))
    return _Genes(base, by_type, slope)


def _cavity_distance(unit: Array) -> Array:
    """Distance from the center of the cavity in its radii; the wall is at 1."""
    scaled = (unit[:, :2] - CAVITY_CENTER) / CAVITY_RADII
    return np.sqrt(np.square(scaled).sum(1))


def _draw_positions(rng: np.random.Generator, n_cells: int) -> Array:
    """Uniform positions ``(n, 3)`` in the unit anatomy: a bent sheet with a cavity."""
    accepted: list[Array] = []
    while sum(map(len, accepted)) < n_cells:
        unit = rng.random((2 * n_cells, 3))
        surface = 0.8 + 0.2 * np.sin(np.pi * (0.15 + 0.7 * unit[:, 0]))  # lower towards the sides
        inside = (unit[:, 1] < surface) & (_cavity_distance(unit) > 1)
        accepted.append(unit[inside])
    return np.concatenate(accepted)[:n_cells]


def _draw_types(rng: np.random.Generator, unit: Array) -> NDArray[np.int64]:
    """Layers by depth with fuzzy borders, types scattered everywhere, a lined cavity."""
    depth = 1 - unit[:, 1] + rng.normal(0, 0.02, len(unit))
    types = np.digitize(depth, [0.22, 0.42, 0.55, 0.78])
    scattered = rng.random(len(unit)) < SCATTERED_SHARE
    types[scattered] = len(LAYERS) + rng.integers(len(SCATTERED), size=int(scattered.sum()))
    types[_cavity_distance(unit) < 1 + LINING_WIDTH] = CELL_TYPES.index(LINING)
    return types


def _draw_counts(
    rng: np.random.Generator, genes: _Genes, unit: Array, types: NDArray[np.int64]
) -> NDArray[np.int64]:
    log_mean = genes.base + genes.by_type[types] + (unit - 0.5) @ genes.slope  # (n, G)
    library = rng.normal(0.0, LIBRARY_SD, (len(unit), 1))
    mean = np.exp(log_mean + library)
    return np.asarray(rng.negative_binomial(DISPERSION, DISPERSION / (DISPERSION + mean)))


def _mount(rng: np.random.Generator, unit: Array, n_dims: int) -> Array:
    """Positions on the slide in µm: random size, rotation, mirror image and shift."""
    position = (unit * EXTENT_UM)[:, :n_dims] * rng.uniform(0.85, 1.15)
    rotation = special_ortho_group.rvs(n_dims, random_state=rng)
    rotation[:, 0] *= rng.choice([-1.0, 1.0])
    return np.asarray(position @ rotation + rng.uniform(0, 10_000, n_dims))


def simulate_tissue(
    n_sections: int = 4,
    n_cells: int = 1000,
    n_genes: int = 60,
    *,
    n_dims: int = 2,
    seed: int | None = None,
) -> ad.AnnData:
    """Simulate sections of one tissue, each on a slide of its own.

    The anatomy is a bent sheet with five layers, three cell types scattered through all of them,
    and a lined cavity off the middle, so that it has no mirror symmetry. Genes mark cell types or
    are graded along an axis. Counts are negative binomial (size 4) with log-normal library sizes
    (sd 0.35). Every section has its own rotation, mirror image, size (0.85-1.15) and shift.

    Parameters
    ----------
    n_sections
        Number of sections. Section ``i`` is the same whatever the number.
    n_cells
        Cells per section.
    n_genes
        Number of genes.
    n_dims
        2 for slices, 3 for volumes.
    seed
        Same seed, same tissue; ``None`` for ``al.settings.seed``.

    Returns
    -------
    AnnData
        Counts in ``.X`` (CSR, float32), ``.obsm["spatial"]`` ``(n_sections * n_cells, n_dims)`` in
        µm, ``.obs["section"]`` and ``.obs["cell_type"]``, ``.uns["units"]``.

    Examples
    --------
    >>> import alphastomics as al
    >>> atlas = al.datasets.simulate_tissue(n_sections=2, n_cells=100, n_genes=20)
    >>> atlas.shape
    (200, 20)
    """
    check_at_least("n_sections", n_sections, 1)
    check_at_least("n_cells", n_cells, 3)
    check_at_least("n_genes", n_genes, 1)
    if n_dims not in (2, 3):
        raise ValueError(f"n_dims must be 2 or 3, found {n_dims}.")
    seed = check_seed(seed)
    genes = _draw_genes(np.random.default_rng([seed]), n_genes)
    counts, positions, types = [], [], []
    for section in range(n_sections):
        rng = np.random.default_rng([seed, 1 + section])
        unit = _draw_positions(rng, n_cells)
        types.append(_draw_types(rng, unit))
        counts.append(_draw_counts(rng, genes, unit, types[-1]))
        positions.append(_mount(rng, unit, n_dims))
    sections = [f"section_{i}" for i in range(n_sections)]
    obs = pd.DataFrame(
        {
            _keys.SECTION: pd.Categorical(np.repeat(sections, n_cells), categories=sections),
            _keys.CELL_TYPE: pd.Categorical(
                np.asarray(CELL_TYPES)[np.concatenate(types)], categories=list(CELL_TYPES)
            ),
        },
        index=[f"{name}_cell_{i}" for name in sections for i in range(n_cells)],
    )
    return ad.AnnData(
        sparse.csr_matrix(np.concatenate(counts).astype(np.float32)),
        obs=obs,
        var=pd.DataFrame(index=[f"gene_{i}" for i in range(n_genes)]),
        obsm={_keys.SPATIAL: np.concatenate(positions)},
        uns={_keys.UNITS: "µm"},
    )
