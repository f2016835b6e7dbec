"""Losses of a training and the use of its experts."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pandas as pd
from matplotlib.axes import Axes

from alphastomics.pl._cells import COLOR_MAP, color_bar, new_axes, write

if TYPE_CHECKING:
    from alphastomics.model import AlphaSTomics

LOSSES = {"train_loss": "training loss", "validation_loss": "validation loss"}
MOST_WRITTEN = 16  # experts whose shares are written into the map


def history(
    model: AlphaSTomics, *, ax: Axes | None = None, save: str | os.PathLike[str] | None = None
) -> Axes:
    """Draw the losses of every epoch.

    Parameters
    ----------
    model
        A trained model.
    ax, save
        As in :func:`displacement`.

    Returns
    -------
    Axes
        The training loss sums what is minimized; the validation loss is the mean squared error of
        placing cells (of expression, for ``"pos_to_expr"``) in standardized units.

    Examples
    --------
    >>> import alphastomics as al
    >>> atlas = al.datasets.simulate_tissue(n_sections=2, n_cells=50)
    >>> al.AlphaSTomics.setup_anndata(atlas)
    >>> model = al.AlphaSTomics(atlas, training_mode="pos_to_expr", d_model=16, num_layers=1)
    >>> model.train(max_steps=2, progress_bar=False)
    >>> al.pl.history(model).get_xlabel()
    'epoch'
    """
    table = model.history
    if not table:
        raise ValueError("model has no history: call model.train() first.")
    ax = new_axes(ax, height=3.5)
    for i, name in enumerate(name for name in LOSSES if name in table):
        axes = ax if i == 0 else ax.twinx()
        frame = table[name]
        axes.plot(frame.index, frame[name].astype(float), marker=".", color=f"C{i}")
        axes.set_ylabel(LOSSES[name], color=f"C{i}")
    ax.set_xlabel("epoch")
    write(ax, save)
    return ax


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
    ax, save
        As in :func:`displacement`.

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
        for row, column in ((r, c) for r in range(n_blocks) for c in range(n_experts)):
            value = relative[row, column]
            ink = "white" if value < 0.6 * top else "black"
            ax.text(column, row, f"{value:.2f}", ha="center", va="center", color=ink, fontsize=8)
    ax.set_xticks(range(n_experts), [str(name) for name in utilisation.columns])
    ax.set_yticks(range(n_blocks), [str(name) for name in utilisation.index])
    ax.set(xlabel="expert", ylabel="block")
    ax.set_title(f"least used: {relative.min():.2f} of an even share")
    color_bar(ax, drawn, "share of the choices, 1 = even")
    write(ax, save)
    return ax
