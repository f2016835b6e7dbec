"""What a trained network makes of cells, beside the answer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from alphastomics.model._asking import AskingMixin, Mode
from alphastomics.model._prediction import look
from alphastomics.model._request import Request


class LookingMixin(AskingMixin):
    """Looks into the network."""

    def get_latent_representation(
        self,
        adata: AnnData | None = None,
        *,
        mode: Mode | None = None,
        max_set: int | None = None,
    ) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Embed cells in the context of their section: the network's last tokens.

        Parameters
        ----------
        adata, max_set
            As in :meth:`predict`.
        mode
            What to hide first: ``"expr_to_pos"`` (the default of a model that places cells) embeds
            expression, ``"pos_to_expr"`` positions, ``"auto"`` everything that is there.

        Returns
        -------
        ndarray
            ``(n_cells, d_model)``, in the order of the cells.

        Examples
        --------
        >>> cells.obsm["X_tissue"] = model.get_latent_representation(cells)
        >>> cells.obsm["X_tissue"].shape
        (200, 32)
        """
        request = self._look_at(adata, mode)
        width = self._init_arguments()["d_model"]
        tokens = np.full((request.n, width), np.nan, np.float32)
        for one, seen in look(self.module, request, self._max_set(max_set, request)):
            tokens[one.asked] = seen.tokens[0].cpu().float().numpy()[one.fill]
        return tokens[: request.n_query]

    def get_expert_utilisation(
        self,
        adata: AnnData | None = None,
        *,
        mode: Mode | None = None,
        max_set: int | None = None,
    ) -> pd.DataFrame:
        """Count how often cells go through each expert; see :func:`alphastomics.pl.experts`.

        Parameters
        ----------
        adata, mode, max_set
            As in :meth:`get_latent_representation`.

        Returns
        -------
        DataFrame
            Share of the choices of a block that fall on each expert, ``(num_layers, num_experts)``;
            a row sums to 1, and ``1 / num_experts`` everywhere is an even use.

        Raises
        ------
        ValueError
            If the model has no experts.

        Examples
        --------
        >>> routed = al.AlphaSTomics(atlas, d_model=32, num_layers=2, num_experts=4)
        >>> routed.train(max_steps=2, progress_bar=False)
        >>> routed.get_expert_utilisation(cells).sum(axis=1).round(3).tolist()
        [1.0, 1.0]
        """
        init = self._init_arguments()
        if not init["num_experts"]:
            raise ValueError(
                "This model has no experts: they are an option, AlphaSTomics(adata, num_experts=8)."
            )
        request = self._look_at(adata, mode)
        total = np.zeros((init["num_layers"], init["num_experts"]))
        for one, seen in look(self.module, request, self._max_set(max_set, request)):
            shares = np.stack([routing.utilisation.cpu().numpy() for routing in seen.routing])
            total += len(one.cells) * shares
        blocks = pd.RangeIndex(1, init["num_layers"] + 1, name="block")
        experts = pd.RangeIndex(1, init["num_experts"] + 1, name="expert")
        return pd.DataFrame(total / total.sum(1, keepdims=True), index=blocks, columns=experts)

    def _look_at(self, adata: AnnData | None, mode: Mode | None) -> Request:
        """Ask for what the model places, or else expression, without a reference."""
        self._require_trained()
        adata = self._require_adata(adata)
        if mode is None:
            places = self._init_arguments()["training_mode"] != "pos_to_expr"
            mode = "expr_to_pos" if places else "pos_to_expr"
        return self._request(self._read_cells(adata), mode, None, predicts=True)
