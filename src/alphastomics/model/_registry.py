"""Registration of training cells, and what it records in a model."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd
import torch
from anndata import AnnData
from scvi import REGISTRY_KEYS
from scvi.data import AnnDataManager
from scvi.data.fields import LayerField, ObsmField

from alphastomics import _keys
from alphastomics._compat import quiet
from alphastomics._settings import logger
from alphastomics.config import ModelConfig
from alphastomics.diffusion_model.module import MaskedDiffusionModule
from alphastomics.model._data import (
    Categories,
    SetupArgs,
    described,
    read_categories,
    read_training,
    units_of,
)
from alphastomics.model._plausibility import warn_implausible
from alphastomics.model._saved import new_module


def register_cells(adata: AnnData, method_args: dict[str, Any]) -> AnnDataManager:
    """Check training cells and register them, with a line of the logger that says what was found.

    ``method_args`` are the arguments of ``setup_anndata``, as scvi-tools records them.
    """
    setup = SetupArgs(**method_args["setup_args"])
    setup.check()
    cells = read_training(adata, setup)
    warn_implausible(cells, setup)
    recorded = {
        _keys.CATEGORIES_REGISTRY: asdict(read_categories(adata, setup)),
        _keys.UNITS_REGISTRY: units_of(adata),
    }
    options = {"correct_data_format": False}
    manager = AnnDataManager(
        fields=[
            LayerField(REGISTRY_KEYS.X_KEY, setup.layer, is_count_data=False, **options),
            ObsmField(_keys.POSITION_REGISTRY, setup.spatial_key, **options),
        ],
        setup_method_args={**method_args, **recorded},
    )
    with quiet("scvi.data"):
        manager.register_fields(adata)
    logger.info(described(cells, setup))
    return manager


@dataclass(frozen=True)
class Registry:
    """Record of :func:`register_cells`, in the registry of a model of scvi-tools.

    Attributes
    ----------
    content
        The registry.
    """

    content: dict[str, Any]

    @property
    def genes(self) -> pd.Index:
        """Names of the genes, in the order of the model."""
        state = self.content["field_registries"][REGISTRY_KEYS.X_KEY]["state_registry"]
        return pd.Index(state["column_names"]).astype(str)

    @property
    def setup(self) -> SetupArgs:
        """Arguments of ``setup_anndata``."""
        return SetupArgs(**self.content["setup_args"])

    @property
    def categories(self) -> Categories:
        """Names of cell types and batches."""
        names = self.content[_keys.CATEGORIES_REGISTRY]
        return Categories(**{kind: tuple(values) for kind, values in names.items()})

    @property
    def units(self) -> str:
        """Unit of the coordinates, empty if it is not known."""
        return str(self.content.get(_keys.UNITS_REGISTRY, ""))

    def new_module(self, config: ModelConfig) -> MaskedDiffusionModule:
        """Network with its initial weights."""
        position = self.content["field_registries"][_keys.POSITION_REGISTRY]
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            return new_module(
                config,
                n_genes=len(self.genes),
                n_dims=int(position["summary_stats"][f"n_{_keys.POSITION_REGISTRY}"]),
                values=self.setup.values,
                n_labels=len(self.categories.labels),
                n_batches=len(self.categories.batches),
            )
