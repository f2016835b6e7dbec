"""Latent representations, the common frame and the use of experts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from anndata import AnnData

from alphastomics import _keys
from alphastomics.model._asking import AskingMixin, Mode
from alphastomics.model._prediction import SetReader, look
from alphastomics.model._request import Request
from alphastomics.model._sets import MAX_LANDMARKS


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

    def register(self, adata: AnnData | None = None, *, key_added: str = _keys.REGISTERED) -> None:
        """Bring sections with coordinates into the common frame of the model.

        Each section is turned, mirrored if that is allowed, and shifted so that its cells lie as
        near as can be to where their expression predicts them. Distances within a section stay.

        Parameters
        ----------
        adata
            Cells with coordinates and expression, of any number of sections; those of the training
            when ``None``.
        key_added
            Where to write.

        Returns
        -------
        None
            Writes ``.obsm[key_added]``, ``(n_cells, n_dims)``, in the units of training; NaN for
            cells without a position.

        Raises
        ------
        ValueError
            If the model has no common frame, or a section has no cell with both a position and
            expression.

        Examples
        --------
        >>> model.register(atlas)
        >>> atlas.obsm["spatial_registered"].shape
        (400, 2)
        """
        self._require_trained()
        if key_added == self._setup().spatial_key:
            raise ValueError(
                f"key_added={key_added!r} is where the true coordinates are: choose another name."
            )
        if not len(self.module.poses):
            raise ValueError(
                "This model has no common frame: it is learned with frame='learned' by a "
                "training_mode that places cells."
            )
        adata = self._require_adata(adata)
        data = self._read_cells(adata)
        positions = np.full((len(data.names), self.module.position_dim), np.nan)
        known = data.has_position & data.expression_known
        request = Request(data, len(data.names), known, data.expression_known, False, False)
        reader = SetReader(self.module, request)
        by_name = np.argsort(data.names, kind="stable")
        with torch.inference_mode():
            for section in pd.unique(data.section):
                cells = by_name[(data.section == section)[by_name]]
                landmarks = cells[known[cells]]
                if not len(landmarks):
                    raise ValueError(
                        f"section {section!r} has no cell with a position and expression, by which "
                        "it could be registered: drop it."
                    )
                landmarks = np.random.default_rng(0).permutation(landmarks)[:MAX_LANDMARKS]
                located = cells[data.has_position[cells]]
                assert data.position is not None
                frame = reader.register(landmarks)
                positions[located] = frame.to_common(self.module, data.position[located])
        adata.obsm[key_added] = positions
        self._record(adata, key_added, method="register")

    def _look_at(self, adata: AnnData | None, mode: Mode | None) -> Request:
        """Ask for what the model places, or else expression, without a reference."""
        self._require_trained()
        adata = self._require_adata(adata)
        if mode is None:
            places = self._init_arguments()["training_mode"] != "pos_to_expr"
            mode = "expr_to_pos" if places else "pos_to_expr"
        return self._request(self._read_cells(adata), mode, None, predicts=True)
