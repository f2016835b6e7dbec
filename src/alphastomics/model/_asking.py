"""Turning what a call asks for into a request: the checks that all calls share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from anndata import AnnData

from alphastomics.diffusion_model.rounds import DrawSettings
from alphastomics.model._data import Categories, SetupArgs, read_query
from alphastomics.model._persistence import weights_fingerprint
from alphastomics.model._request import MODES, Request, make_request
from alphastomics.model._results import OUTPUTS, Output, record
from alphastomics.model._sampling import EXPRESSION_ROUNDS, POSITION_ROUNDS, DrawOptions
from alphastomics.model._sets import MIN_SET
from alphastomics.model._standardize import standardize_query
from alphastomics.model._tissue import TissueData
from alphastomics.model._training import TrainingRecord
from alphastomics.model._validate import check_at_least, check_choice

if TYPE_CHECKING:
    from alphastomics.diffusion_model.module import MaskedDiffusionModule

Mode = Literal["auto", "expr_to_pos", "pos_to_expr", "joint"]
Standardize = Literal["training", "query"]
STANDARDIZE: tuple[Standardize, ...] = ("training", "query")
MAX_SET = 2048
MAX_PLACED_SET = 8192


class AskingMixin:
    """Reads cells and checks what is asked of them."""

    module: MaskedDiffusionModule
    training_record: TrainingRecord

    if TYPE_CHECKING:

        @property
        def genes(self) -> pd.Index: ...
        def _setup(self) -> SetupArgs: ...
        def _categories(self) -> Categories: ...
        def _require_trained(self) -> None: ...
        def _require_adata(self, adata: AnnData | None) -> AnnData: ...
        def _init_arguments(self) -> dict[str, Any]: ...

    def _read_cells(self, adata: AnnData, name: str = "adata") -> TissueData:
        """Read a query or reference, which must have the dimension of the model."""
        data = read_query(adata, self._setup(), self._categories(), self.genes, name)
        if data.position is not None and data.position.shape[1] != self.module.position_dim:
            raise ValueError(
                f"{name}.obsm[{self._setup().spatial_key!r}] has {data.position.shape[1]} columns, "
                f"but the model is {self.module.position_dim}D: pass cells of its dimension, or "
                "delete those coordinates to have the cells placed."
            )
        return data

    def _read_reference(self, reference: AnnData | None) -> TissueData | None:
        """Read the cells of a reference that have a position."""
        if reference is None:
            return None
        data = self._read_cells(reference, "reference")
        if not data.has_position.any():
            raise ValueError(
                f"reference has no coordinates in reference.obsm[{self._setup().spatial_key!r}]: "
                "a reference is what the query is placed into; leave it out to place cells in the "
                "model's own frame."
            )
        return data.take(np.flatnonzero(data.has_position))

    def _request(
        self, data: TissueData, mode: str, reference: AnnData | None, *, predicts: bool
    ) -> Request:
        """Turn what is asked of cells into a pattern, if the model was trained for it."""
        request = make_request(
            data,
            self._read_reference(reference),
            mode,
            spatial_key=self._setup().spatial_key,
            predicts=predicts,
        )
        self._require_mode(request)
        return request

    def _require_mode(self, request: Request) -> None:
        """Raise if the model was trained for the other direction only."""
        self._require_direction(position=request.fill_position, expression=request.fill_expression)

    def _require_direction(self, *, position: bool, expression: bool) -> None:
        trained = self._init_arguments()["training_mode"]
        for asked, other, what in (
            (position, "pos_to_expr", "place cells"),
            (expression, "expr_to_pos", "predict expression"),
        ):
            if asked and trained == other:
                raise ValueError(
                    f"This model was trained with training_mode={trained!r} and cannot {what}: "
                    "train one with training_mode='joint'."
                )

    def _ask(
        self,
        adata: AnnData | None,
        mode: str,
        reference: AnnData | None,
        output: Output,
        key_added: str,
        layer_added: str,
        *,
        predicts: bool,
        standardize: Standardize = "training",
    ) -> tuple[AnnData, Request]:
        """Check the arguments of a call and read its cells."""
        self._require_trained()
        setup = self._setup()
        if key_added == setup.spatial_key:
            raise ValueError(
                f"key_added={key_added!r} is where the true coordinates are: choose another name."
            )
        if layer_added == setup.layer:
            raise ValueError(
                f"layer_added={layer_added!r} is what the model reads: choose another name."
            )
        check_choice("mode", mode, MODES)
        check_choice("output", output, OUTPUTS)
        check_choice("standardize", standardize, STANDARDIZE)
        adata = self._require_adata(adata)
        request = self._request(self._read_cells(adata), mode, reference, predicts=predicts)
        if standardize == "query":
            request = standardize_query(self.module, request)
        return adata, request

    def _max_set(self, max_set: int | None, request: Request) -> int:
        if max_set is None:
            return MAX_SET if request.fill_position else MAX_PLACED_SET
        check_at_least("max_set", max_set, MIN_SET)
        return max_set

    def _draw_options(
        self, n_samples: int, n_steps: int, seed: int, n_rounds: int | None = None
    ) -> DrawOptions:
        rounds = (POSITION_ROUNDS, EXPRESSION_ROUNDS) if n_rounds is None else (n_rounds, n_rounds)
        for name, value in (
            ("n_samples", n_samples),
            ("n_steps", n_steps),
            ("n_rounds", rounds[0]),
        ):
            check_at_least(name, value, 1)
        settings = DrawSettings(*rounds, n_steps, self._init_arguments()["schedule"])
        return DrawOptions(n_samples, settings, seed)

    def _radius_quantile(self, request: Request, method: str) -> float | None:
        """Ratio of the 90 % radius to the error scale; ``None`` when not calibrated."""
        if not request.expression_known[: request.n_query].any():
            return None  # a generated cell has no true position
        pattern = "framed" if request.position_known.any() else "unframed"
        return self.training_record.calibration.get(pattern, {}).get(method)

    def _record(self, adata: AnnData, key_added: str, **how: Any) -> None:
        record(adata, key_added, weights_fingerprint(self.module.state_dict()), **how)
