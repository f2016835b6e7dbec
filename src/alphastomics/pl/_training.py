"""Losses of a training and the use of its experts."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from matplotlib.axes import Axes

from alphastomics.pl._cells import new_axes, write

if TYPE_CHECKING:
    from alphastomics.model import AlphaSTomics

LOSSES = {"train_loss": "training loss", "validation_loss": "validation loss"}


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
    from alphastomics.model import AlphaSTomics

    if not isinstance(model, AlphaSTomics):
        raise TypeError(f"model must be an AlphaSTomics, found {type(model).__name__}.")
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
