"""Reader of the cells of a call, with the genes, the keys and the dimension of a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from alphastomics import _keys
from alphastomics._hints import coordinate_hint
from alphastomics._output import OUTPUTS, Output, check_key
from alphastomics._validate import check_choice
from alphastomics.config import ModelConfig
from alphastomics.diffusion_model.module import MaskedDiffusionModule
from alphastomics.model._data import (
    Categories,
    CellTable,
    SetupArgs,
    read_query,
    read_training,
    require_seen_labels,
    without_genes,
)
from alphastomics.model._novelty import mark_novel
from alphastomics.model._platform import STANDARDIZE, Standardize, standardize_query
from alphastomics.model._requests import warn_of_positions
from alphastomics.model._task import MODES, InferenceTask, imputation_task, make_task

Mode = Literal["auto", "expr_to_pos", "pos_to_expr", "joint"]


@dataclass(frozen=True)
class CellReader:
    """Reader of training cells, queries and references, and of their tasks.

    Attributes
    ----------
    module, config
        Network and options of the model.
    setup, categories, genes
        Its keys, cell types, batches and genes.
    """

    module: MaskedDiffusionModule
    config: ModelConfig
    setup: SetupArgs
    categories: Categories
    genes: pd.Index

    def training(self, adata: AnnData) -> CellTable:
        """Read training cells, which must have the genes and the dimension of the model."""
        n_dims = self.module.position_dim
        return read_training(adata, self.setup, self.categories, self.genes, n_dims)

    def query(self, adata: AnnData, name: str = "adata") -> CellTable:
        """Read a query or reference, which must have the dimension of the model."""
        n_dims = self.module.position_dim
        return read_query(adata, self.setup, self.categories, self.genes, n_dims, name)

    def reference(self, reference: AnnData | None) -> CellTable | None:
        """Read the cells of a reference that have a position."""
        if reference is None:
            return None
        data = self.query(reference, "reference")
        if not data.has_position.any():
            hint = coordinate_hint(reference, self.setup.spatial_key, "reference")
            raise ValueError(
                f"reference has no coordinates in reference.obsm[{self.setup.spatial_key!r}]"
                f"{f' ({hint})' if hint else ''}: a reference is what the query is placed into; "
                "leave it out to place cells in the model's own frame."
            )
        return data.subset(np.flatnonzero(data.has_position))

    def task(
        self,
        adata: AnnData,
        mode: Mode,
        reference: AnnData | None = None,
        standardize: Standardize = "training",
        *,
        predicts: bool,
        embed: bool = False,
        leave_out_blank: bool = True,
    ) -> InferenceTask:
        """Read the cells of a call, and make its task, with warnings of what it says little of."""
        check_choice("mode", mode, MODES)
        check_choice("standardize", standardize, STANDARDIZE)
        task = make_task(
            self.query(adata),
            self.reference(reference),
            mode,
            training_mode=self.config.training_mode,
            spatial_key=self.setup.spatial_key,
            predicts=predicts,
            embed=embed,
            leave_out_blank=leave_out_blank,
            hint=coordinate_hint(adata, self.setup.spatial_key),
        )
        self.check_labels(adata, task)
        task = standardize_query(self.module, task, standardize)
        if embed:
            return task
        warn_of_positions(self.module, task)
        return mark_novel(self.module, task)

    def imputation_task(
        self,
        adata: AnnData,
        query: CellTable,
        reference: AnnData | None,
        imputed: NDArray[np.int64],
    ) -> InferenceTask:
        """Task of estimating genes of cells, as read and as a table, in which they are hidden."""
        hidden = np.isin(np.arange(len(self.genes)), imputed)
        task = imputation_task(without_genes(query, hidden), self.reference(reference))
        self.check_labels(adata, task)
        warn_of_positions(self.module, task)
        return task

    def check_labels(self, adata: AnnData, task: InferenceTask) -> None:
        """Raise if labels are an input, and one was not in the training data."""
        cells = task.reads_label[: task.n_query]
        require_seen_labels(adata, self.setup, self.categories, cells)

    def check_output(self, output: Output, **keys: object) -> None:
        """Raise if results cannot be stored under a key, or would replace what the model reads."""
        setup = self.setup
        read = {
            "key_added": {
                setup.spatial_key: "the true coordinates are",
                _keys.UNS: "the provenance of results is",
            },
            "layer_added": {} if setup.layer is None else {setup.layer: "the model reads"},
        }
        for argument, key in keys.items():
            check_key(argument, key, read[argument])
        check_choice("output", output, OUTPUTS)
