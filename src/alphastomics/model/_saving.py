"""``save`` and ``load`` of the model."""

from __future__ import annotations

import os
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Self

from anndata import AnnData

from alphastomics import __version__
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
        """
        self._require_trained()
        payload = {
            "init_arguments": self._init_arguments(),
            "registry": self.registry_,
            "training": self.training_record.to_json(),
            "history": history_to_json(self.history_),
            "versions": {
                "alphastomics": __version__,
                **{name: version(name) for name in ("anndata", "numpy", "scvi-tools", "torch")},
            },
        }
        write_model(dir_path, self.module.state_dict(), payload, overwrite=overwrite)

    @classmethod
    def load(cls, dir_path: str | os.PathLike[str], adata: AnnData | None = None) -> Self:
        """Load a model that :meth:`save` wrote. Nothing in the folder is run.

        Parameters
        ----------
        dir_path
            The folder.
        adata
            Sections to train further on; they must have all genes of the model, in any order.
            Placing other cells needs none.
        """
        state, payload = read_model(dir_path)
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
