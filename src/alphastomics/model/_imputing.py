"""``impute`` of the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from alphastomics import _keys
from alphastomics.model._inference import InferenceMixin
from alphastomics.model._prediction import predict_missing
from alphastomics.model._request import Request, hide_gene_columns, join
from alphastomics.model._results import OUTPUTS, Output, fill_in
from alphastomics.model._sampling import N_STEPS, draw_missing
from alphastomics.model._validate import check_choice


class ImputingMixin(InferenceMixin):
    """Genes that a panel lacks, with a trained model."""

    def impute(
        self,
        adata: AnnData | None = None,
        *,
        genes: Sequence[str] | None = None,
        reference: AnnData | None = None,
        draw: bool = False,
        output: Output = "lognorm",
        key_added: str = _keys.EXPRESSION_IMPUTED,
        n_steps: int = N_STEPS,
        seed: int = 0,
        max_set: int | None = None,
        progress_bar: bool = True,
    ) -> None:
        """Fill in genes that a panel lacks, given the genes it has and positions if known.

        Parameters
        ----------
        adata, reference, output, max_set, progress_bar
            As in :meth:`predict`.
        genes
            Genes of the model to fill in; those that ``adata`` lacks when ``None``. Where ``adata``
            has one of them it is hidden first, so that nothing of it leaks.
        draw
            Whether to draw values instead of taking their mean.
        key_added
            Where to write.
        n_steps, seed
            Of the draw, as in :meth:`sample`.

        Returns
        -------
        None
            Writes ``.obsm[key_added]``, a DataFrame ``(n_cells, n_genes)`` with the genes as its
            columns.

        Raises
        ------
        ValueError
            If a gene was not in the training data, or nothing is to be filled in.

        Examples
        --------
        >>> model.impute(cells, genes=["gene_0", "gene_1"], progress_bar=False)
        >>> cells.obsm["expression_imputed"].columns.tolist()
        ['gene_0', 'gene_1']
        """
        self._require_trained()
        check_choice("output", output, OUTPUTS)
        adata = self._require_adata(adata)
        wanted = self._genes_to_impute(adata, genes)
        data = hide_gene_columns(self._read_cells(adata), wanted)
        n_query = len(data.names)
        cells = self._read_reference(reference)
        if cells is not None:
            data = join(data, cells)
        request = Request(
            data,
            n_query,
            position_known=data.has_position,
            expression_known=data.expression_known,
            fill_position=False,
            fill_expression=True,
        )
        self._require_mode(request)
        options: dict[str, Any] = {
            "max_set": self._max_set(max_set, request),
            "progress_bar": progress_bar,
        }
        if draw:
            how = self._draw_options(1, n_steps, seed)
            (filled,) = draw_missing(self.module, request, how, **options)
        else:
            filled = predict_missing(self.module, request, arrange=False, **options)
        assert filled.expression is not None
        values = fill_in(
            request,
            np.arange(n_query),
            filled.expression[:n_query],
            filled.depth[:n_query],
            self.module.expression_transform,
            output,
        )
        adata.obsm[key_added] = pd.DataFrame(
            values[:, wanted], index=adata.obs_names, columns=list(self.genes[wanted])
        )
        self._record(adata, key_added, method="impute", draw=draw, seed=seed, output=output)

    def _genes_to_impute(self, adata: AnnData, genes: Sequence[str] | None) -> NDArray[np.bool_]:
        """Which genes of the model are asked for, ``(G,)``."""
        if genes is None:
            wanted = ~self.genes.isin(adata.var_names)
            if not wanted.any():
                raise ValueError(
                    "adata has all genes of the model, so there is nothing to impute: name by "
                    "genes= those to hide and fill in."
                )
            return np.asarray(wanted)
        genes = [genes] if isinstance(genes, str) else list(genes)
        strange = [gene for gene in genes if gene not in self.genes]
        if strange or not genes:
            raise ValueError(
                f"genes names {strange}, which the training data did not have: the model can only "
                f"impute its {len(self.genes)} genes, such as {list(self.genes[:3])}."
                if strange
                else "genes is empty: name the genes to impute, or pass None for all missing ones."
            )
        return np.asarray(self.genes.isin(genes))
