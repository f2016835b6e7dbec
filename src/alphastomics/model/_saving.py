"""``save`` and ``load`` of the model."""

from __future__ import annotations

import os
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from anndata import AnnData

from alphastomics import __version__
from alphastomics.model._checkpoints import read_checkpoint
from alphastomics.model._persistence import (
    history_from_json,
    history_to_json,
    read_model,
    write_model,
)
from alphastomics.model._tissue import TissueData
from alphastomics.model._training import TrainingRecord

if TYPE_CHECKING:
    import pandas as pd

    from alphastomics.diffusion_model.module import MaskedDiffusionModule


def versions() -> dict[str, str]:
    """Versions of the packages that make a model."""
    others = {name: version(name) for name in ("anndata", "numpy", "scvi-tools", "torch")}
    return {"alphastomics": __version__, **others}


class SavingMixin:
    """Saves a trained model and loads it."""

    module: MaskedDiffusionModule
    registry_: dict[str, Any]
    training_record: TrainingRecord
    history_: dict[str, pd.DataFrame] | None
    is_trained_: bool
    _adata: AnnData | None

    if TYPE_CHECKING:

        def _require_trained(self) -> None: ...
        def _init_arguments(self) -> dict[str, Any]: ...
        def _training_data(self, adata: AnnData) -> TissueData: ...

    def save(self, dir_path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Save the trained model in a folder: safetensors and JSON, nothing that can run code.

        Parameters
        ----------
        dir_path
            Folder to write; made when absent.
        overwrite
            Whether a model already there may be replaced.

        Examples
        --------
        >>> folder = getfixture("tmp_path") / "model"
        >>> model.save(folder)
        >>> al.AlphaSTomics.load(folder).is_trained
        True
        """
        self._require_trained()
        payload = self._payload(self.training_record, self.history_)
        write_model(dir_path, self.module.state_dict(), payload, overwrite=overwrite)

    def _payload(
        self, record: TrainingRecord, history: dict[str, pd.DataFrame] | None
    ) -> dict[str, Any]:
        """Gather what makes weights a model again."""
        return {
            "init_arguments": self._init_arguments(),
            "registry": self.registry_,
            "training": record.to_json(),
            "history": history_to_json(history),
            "versions": versions(),
        }

    @classmethod
    def load(cls, dir_path: str | os.PathLike[str], adata: AnnData | None = None) -> Self:
        """Load a model that :meth:`save` wrote, or a checkpoint. Nothing in it is run.

        Parameters
        ----------
        dir_path
            The folder, or a checkpoint (``.ckpt``) of the command ``train``.
        adata
            Sections to train further on; they must have all genes of the model, in any order.
            Placing other cells needs none.

        Returns
        -------
        AlphaSTomics
            The trained model.

        Examples
        --------
        >>> folder = getfixture("tmp_path") / "model"
        >>> model.save(folder)
        >>> again = al.AlphaSTomics.load(folder)
        >>> again.predict(cells, mode="expr_to_pos", progress_bar=False)
        """
        is_file = Path(dir_path).suffix == ".ckpt" or Path(dir_path).is_file()
        state, payload = (read_checkpoint if is_file else read_model)(dir_path)
        model = cls(registry=payload["registry"], **payload["init_arguments"])  # type: ignore[call-arg]
        if adata is not None:
            cls.setup_anndata(adata, **payload["registry"]["setup_args"])  # type: ignore[attr-defined]
            model._training_data(adata)
            model._adata = adata
        model.module.load_state_dict(state)
        model.training_record = TrainingRecord(**payload["training"])
        model.history_ = history_from_json(payload["history"])
        model.is_trained_ = True
        return model
