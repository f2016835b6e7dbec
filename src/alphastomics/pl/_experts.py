"""Which experts cells go through."""

from __future__ import annotations

import os

import pandas as pd
from matplotlib.axes import Axes

from alphastomics.pl._cells import COLOR_MAP, color_bar, new_axes, write

MOST_WRITTEN = 16  # experts whose shares are written into the map


def experts(
    utilisation: pd.DataFrame,
    *,
    ax: Axes | None = None,
    save: str | os.PathLike[str] | None = None,
) -> Axes:
    """Draw how often each expert of each block is chosen.

    Parameters
    ----------
    utilisation
        What ``model.get_expert_utilisation`` gives: shares, a row a block and a column an expert.
    ax
        Where to draw; new axes by default.
    save
        File to write.

    Returns
    -------
    Axes
        A map of the shares in units of an even share, from 0 (never chosen) upwards.

    Examples
    --------
    >>> import pandas as pd
    >>> import alphastomics as al
    >>> shares = pd.DataFrame([[0.5, 0.3, 0.2, 0.0]], index=[1], columns=[1, 2, 3, 4])
    >>> al.pl.experts(shares).get_title()
    'least used: 0.00 of an even share'
    """
    n_blocks, n_experts = utilisation.shape
    relative = utilisation.to_numpy(dtype=float) * n_experts
    ax = new_axes(ax)
    top = max(2.0, float(relative.max()))
    drawn = ax.imshow(relative, vmin=0, vmax=top, cmap=COLOR_MAP, aspect="auto")
    if n_experts <= MOST_WRITTEN:
        for (row, column), value in zip(
            ((r, c) for r in range(n_blocks) for c in range(n_experts)), relative.flat, strict=True
        ):
            ink = "white" if value < 0.6 * top else "black"
            ax.text(column, row, f"{value:.2f}", ha="center", va="center", color=ink, fontsize=8)
    ax.set_xticks(range(n_experts), [str(name) for name in utilisation.columns])
    ax.set_yticks(range(n_blocks), [str(name) for name in utilisation.index])
    ax.set(xlabel="expert", ylabel="block")
    ax.set_title(f"least used: {relative.min():.2f} of an even share")
    color_bar(ax, drawn, "share of the choices, 1 = even")
    write(ax, save)
    return ax
