"""Losses of a training."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from alphastomics.pl._canvas import Figure, check_points, finish, new_axes
from alphastomics.pl._colors import Palette, line_colors

if TYPE_CHECKING:
    from alphastomics.model import AlphaSTomics

TOTAL, ARRANGEMENT, VALIDATION = "train_loss", "train_loss_arrangement", "validation_loss"
# In the order of the legend.
NAMES = {
    TOTAL: "total",
    ARRANGEMENT: "arrangement of cells",
    "train_loss_position": "position, squared error",
    "train_loss_position_diffusion": "position, denoising",
    "train_loss_scale": "scale of the error of position",
    "train_loss_expression": "expression, squared error",
    "train_loss_expression_diffusion": "expression, denoising",
    "train_loss_routing": "routing of experts",
    VALIDATION: "validation, squared error",
}
SPANS, LONGEST_SPAN = 5, 20  # averages are over a fifth of all epochs, and 20 at most


def history(
    model: AlphaSTomics,
    *,
    palette: Palette = None,
    size: float | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool = False,
    save: str | os.PathLike[str] | None = None,
) -> Axes | Figure:
    """Plot the training loss of every epoch, its components and the validation loss.

    Parameters
    ----------
    model
        A trained model.
    palette
        Colors of the components.
    size
        Area of the points of single epochs, in points squared.
    ax, show, return_fig, save
        As in :func:`displacement`.

    Returns
    -------
    Axes or Figure
        Points are epochs, lines their moving average over a fifth of all epochs (20 at most). The
        components, with their weights, add up to the total, but for the scale of the error, which
        affects no other component; those that are zero throughout are left out. The validation
        loss is the mean squared error of placing cells (of expression, for ``"pos_to_expr"``) in
        units of the variance, as that of training.

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
    from alphastomics.diffusion_model.losses import ARRANGEMENT_WEIGHT
    from alphastomics.model import AlphaSTomics

    if not isinstance(model, AlphaSTomics):
        raise TypeError(f"model must be an AlphaSTomics, found {type(model).__name__}.")
    table = model.history
    if not table:
        raise ValueError("model has no history: call model.train() first.")
    check_points(size, {})
    losses = {name: table[name][name].astype(float).dropna() for name in NAMES if name in table}
    losses = {name: loss for name, loss in losses.items() if loss.abs().max() > 0}
    if ARRANGEMENT in losses:
        losses[ARRANGEMENT] = losses[ARRANGEMENT] * ARRANGEMENT_WEIGHT
    components = [name for name in losses if name not in (TOTAL, VALIDATION)]
    colors = dict(zip(components, line_colors(palette, components), strict=True))
    ax = new_axes(ax, height=3.5, width=7.5)
    for name, loss in losses.items():
        _draw_loss(ax, name, loss, colors.get(name, "black"), size)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    ax.set(xlabel="epoch", ylabel="loss")
    ax.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    return finish(ax, show=show, return_fig=return_fig, save=save)


def _draw_loss(ax: Axes, name: str, loss: pd.Series, color: str, size: float | None) -> None:
    """Draw a loss by epoch: points, and their average as a line."""
    span = min(LONGEST_SPAN, max(1, len(loss) // SPANS))
    is_main = name in (TOTAL, VALIDATION)
    ax.plot(
        loss.index,
        loss.rolling(span, center=True, min_periods=1).mean(),
        color=color,
        linewidth=2.0 if is_main else 1.2,
        linestyle="--" if name == VALIDATION else "-",
        label=NAMES[name],
    )
    ax.scatter(
        loss.index, loss, s=8 if size is None else size, color=color, alpha=0.4, linewidths=0
    )
