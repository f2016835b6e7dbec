"""From noise to tissue."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from anndata import AnnData
from matplotlib.animation import FuncAnimation, PillowWriter
from matplotlib.axes import Axes
from numpy.typing import NDArray

from alphastomics import _keys
from alphastomics.pl._cells import (
    Points,
    cells_of,
    color_bar,
    legend,
    point_size,
    scatter,
    write,
)
from alphastomics.pl._colors import colors_of

PANEL = 2.4  # inches
FRAMES_A_SECOND = 6
HELD_FRAMES = 6  # the draw stays for so many more
EXTENT = (0.5, 99.5)  # percentiles of the coordinates that are in sight


def trajectory(
    adata: AnnData,
    key: str = _keys.TRAJECTORY,
    *,
    color: str | None = None,
    n_frames: int = 6,
    section: str | None = None,
    section_key: str | None = _keys.SECTION,
    dims: tuple[int, int] = (0, 1),
    ax: NDArray[np.object_] | None = None,
    save: str | os.PathLike[str] | None = None,
    **kwargs: Any,
) -> NDArray[np.object_]:
    """Draw how noise becomes tissue, in frames or as an animation.

    Parameters
    ----------
    adata
        Cells with the steps that ``model.trajectory`` wrote.
    key
        Name in ``.obsm`` of the steps, ``(n_cells, n_steps + 1, n_dims)``.
    color
        Name in ``.obs`` of what colours the cells.
    n_frames
        How many steps to draw, from the first to the last.
    section, section_key, dims
        As in :func:`alphastomics.pl.displacement`.
    ax
        As many axes as frames; new ones by default.
    save
        File to write. A name that ends in ``.gif`` gets an animation of all steps instead of the
        frames.
    **kwargs
        More options of :meth:`matplotlib.axes.Axes.scatter`.

    Returns
    -------
    ndarray of Axes
        One a frame.

    Examples
    --------
    >>> import numpy as np
    >>> import alphastomics as al
    >>> cells = al.datasets.simulate_tissue(n_sections=1, n_cells=50)
    >>> steps = [np.roll(cells.obsm["spatial"], shift, axis=0) for shift in (2, 1, 0)]
    >>> cells.obsm["spatial_trajectory"] = np.stack(steps, axis=1)
    >>> [ax.get_title() for ax in al.pl.trajectory(cells, n_frames=2)]
    ['noise', 'draw']
    """
    steps = _steps(adata, key)
    chosen = cells_of(adata, section, section_key) & ~np.isnan(steps).any((1, 2))
    if not chosen.any():
        raise ValueError(
            f"no cell has a way in adata.obsm[{key!r}]: name another key, or another section."
        )
    shown = steps[chosen][:, :, list(dims)].swapaxes(0, 1)  # (S, n, 2)
    colors = None if color is None else colors_of(adata, color)
    if colors is not None:
        kwargs = {"values": colors.values[chosen], **kwargs}
    last = len(shown) - 1
    frames = np.unique(np.linspace(0, last, max(2, n_frames)).round().astype(int))
    own = ax is None
    if ax is None:
        size = (PANEL * len(frames) + 1.4 * (colors is not None), PANEL + 0.3)
        _, grid = plt.subplots(1, len(frames), figsize=size, squeeze=False, layout="constrained")
        ax = grid[0]
    axes = np.atleast_1d(np.asarray(ax, dtype=object)).ravel()
    if len(axes) != len(frames):
        raise ValueError(f"ax holds {len(axes)} axes, but there are {len(frames)} frames.")
    small = {"s": point_size(int(chosen.sum()), PANEL), **kwargs}
    for one, frame in zip(axes, frames, strict=True):
        drawn = scatter(one, shown[frame], **small)
        _frame(one, shown, "noise" if frame == 0 else "draw" if frame == last else f"step {frame}")
    if colors is not None and colors.legend:
        legend(axes[-1], colors.legend, outside=own)
    elif colors is not None:
        color_bar(axes[-1], drawn, str(color))
    if save is not None and Path(save).suffix.lower() == ".gif":
        _animate(shown, save, kwargs)
    else:
        write(axes[0], save)
    return axes


def _steps(adata: AnnData, key: str) -> Points:
    if key not in adata.obsm:
        raise KeyError(
            f"key {key!r} is not in adata.obsm, which holds {sorted(adata.obsm)}: run "
            "model.trajectory(adata) first, or correct the key."
        )
    steps = np.asarray(adata.obsm[key], dtype=np.float64)
    if steps.ndim != 3:
        raise ValueError(
            f"adata.obsm[{key!r}] has shape {steps.shape}, not (n_cells, n_steps + 1, n_dims): "
            "name what model.trajectory wrote."
        )
    return steps


def _frame(ax: Axes, shown: Points, title: str) -> None:
    """Show the same part of space in every frame."""
    low, high = np.percentile(shown, EXTENT, axis=(0, 1))
    margin = 0.08 * (high - low).max()
    ax.set_xlim(low[0] - margin, high[0] + margin)
    ax.set_ylim(low[1] - margin, high[1] + margin)
    ax.set_title(title)


def _animate(shown: Points, save: str | os.PathLike[str], options: dict[str, Any]) -> None:
    figure, ax = plt.subplots(figsize=(4, 4), layout="constrained")
    # Cells are drawn in one order throughout.
    values = options.get("values")
    order = slice(None) if values is None or values.ndim > 1 else np.argsort(values, kind="stable")
    shown = shown[:, order]
    drawn = scatter(ax, shown[0], **options)
    last = len(shown) - 1

    def draw(frame: int) -> None:
        drawn.set_offsets(shown[min(frame, last)])
        _frame(ax, shown, f"step {min(frame, last)} of {last}")

    moving = FuncAnimation(figure, draw, frames=len(shown) + HELD_FRAMES)
    moving.save(os.fspath(save), writer=PillowWriter(fps=FRAMES_A_SECOND), dpi=100)
    plt.close(figure)
