"""Losses over a training."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

if TYPE_CHECKING:
    from alphastomics.model import AlphaSTomics

LOSSES = {"train_loss": "training loss", "validation_loss": "validation loss"}


def history(
    model: AlphaSTomics,
    *,
    ax: Axes | None = None,
    save: str | os.PathLike[str] | None = None,
) -> Axes:
    """Draw the losses of every epoch.

    Parameters
    ----------
    model
        A trained model.
    ax
        Where to draw; new axes by default.
    save
        File to write.

    Returns
    -------
    Axes
        The training loss sums what is minimised; the validation loss is the mean squared error of
        placing cells (of expression, for ``"pos_to_expr"``) in standardised units.

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
    if ax is None:
        _, ax = plt.subplots(figsize=(5, 3.5), layout="constrained")
    shown = [name for name in LOSSES if name in table]
    for i, name in enumerate(shown):
        axes = ax if i == 0 else ax.twinx()
        frame = table[name]
        axes.plot(frame.index, frame[name].astype(float), marker=".", color=f"C{i}")
        axes.set_ylabel(LOSSES[name], color=f"C{i}")
    ax.set_xlabel("epoch")
    if save is not None:
        ax.get_figure(root=True).savefig(save, dpi=150)  # type: ignore[union-attr]
    return ax
