"""``predict`` and ``sample`` of the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from alphastomics import _keys
from alphastomics.model._data import Categories, SetupArgs, TissueData, read_query
from alphastomics.model._persistence import weights_fingerprint
from alphastomics.model._prediction import (
    DrawOptions,
    Filled,
    draw_missing,
    embed,
    predict_missing,
)
from alphastomics.model._request import MODES, Request, make_request
from alphastomics.model._results import (
    OUTPUTS,
    POINTS,
    Output,
    Point,
    choose_draws,
    expression_matrix,
    point_estimate,
    record,
    superpose_draws,
    with_known_positions,
    write_radius,
)
from alphastomics.model._training import TrainingRecord
from alphastomics.model._validate import check_at_least, check_choice

if TYPE_CHECKING:
    from alphastomics.diffusion_model.module import MaskedDiffusionModule

Estimate = Literal["arrangement", "mean"]
ESTIMATES: tuple[Estimate, ...] = ("arrangement", "mean")
Mode = Literal["auto", "expr_to_pos", "pos_to_expr", "joint"]
MAX_SET = 2048
MAX_PLACED_SET = 8192
N_STEPS = 16


class InferenceMixin:
    """Fills in what is unknown of cells, with a trained model."""

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
        trained = self._init_arguments()["training_mode"]
        for asked, other, what in (
            (request.fill_position, "pos_to_expr", "place cells"),
            (request.fill_expression, "expr_to_pos", "predict expression"),
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
        adata = self._require_adata(adata)
        return adata, self._request(self._read_cells(adata), mode, reference, predicts=predicts)

    def predict(
        self,
        adata: AnnData | None = None,
        *,
        mode: Mode = "auto",
        reference: AnnData | None = None,
        estimate: Estimate = "arrangement",
        output: Output = "lognorm",
        key_added: str = _keys.PREDICTED,
        layer_added: str = _keys.EXPRESSION_PREDICTED,
        max_set: int | None = None,
        progress_bar: bool = True,
    ) -> None:
        """Fill in what is missing with its expected value, in one pass of the network.

        The conditional mean has the least squared error of all estimates, and shrinks where the
        data leave a value open; :meth:`sample` keeps the spread of the tissue instead. The cells
        of a section see each other. What is known is kept, bit for bit.

        Parameters
        ----------
        adata
            Cells to fill in; those of the training when ``None``. Genes are matched by name;
            missing ones are treated as unknown. Cells are one section unless the section key is
            in ``.obs``. A position is missing where its row of the coordinates is NaN or there are
            none; a cell's expression where ``.obs["expression_known"]`` is False.
        mode
            ``"auto"``: fill in what is missing, positions, expression or both; it is an error if
            nothing is. ``"expr_to_pos"``: hide all positions and place every cell.
            ``"pos_to_expr"``: hide all expression and predict it. ``"joint"``: hide both.
        reference
            Cells with known positions, all in one frame, such as the other half of the section or
            the two neighbouring slices: the query is filled in given them, in their frame and
            units. Coordinates of the query must be in the same frame.
        estimate
            How cells are placed where no position is known. ``"arrangement"``: so that their
            distances to each other rank as the true ones are expected to, turned and scaled onto
            the conditional mean. ``"mean"``: the conditional mean itself, which has the least
            squared error. Given known positions it is always the mean.
        output
            Expression is written ``"lognorm"``, log-normalised as the network reads it, values
            below zero set to zero; or as ``"counts"``, inverted and rounded, of cells of the
            median depth of training.
        key_added, layer_added
            Where to write positions and expression.
        max_set
            Sections with more cells than this are cut into parts that are filled in one by one, so
            that memory stays bounded; by default 2,048 where positions are asked for, else 8,192.
        progress_bar
            Whether to show a progress bar.

        Returns
        -------
        None
            Writes, where positions are asked for, ``.obsm[key_added]``, shape
            ``(n_cells, n_dims)``, in the units of training, and, if the model was calibrated,
            ``.obs[key_added + "_radius"]``, within which the true position lies with a probability
            of 90 %. Without any known position the frame is the model's own, centred on the origin.
            Where expression is asked for, ``.layers[layer_added]``, shape ``(n_cells, n_genes)``,
            NaN for genes the model does not know. In ``.uns["alphastomics"]``, how it was made.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        ValueError
            If nothing is missing or the mode hides everything, if the model was not trained for
            what is asked, if no gene is shared with the model, or coordinates are of another
            dimension.
        """
        adata, request = self._ask(
            adata, mode, reference, output, key_added, layer_added, predicts=True
        )
        check_choice("estimate", estimate, ESTIMATES)
        filled = predict_missing(
            self.module,
            request,
            arrange=estimate == "arrangement",
            allow_reflection=self._init_arguments()["allow_reflection"],
            max_set=self._max_set(max_set, request),
            progress_bar=progress_bar,
        )
        how = {"method": "predict", "mode": mode, "estimate": estimate, "level": 1.0}
        if request.fill_position:
            adata.obsm[key_added] = with_known_positions(filled.position, request)
            quantile = self._radius_quantile(request, "predict")
            write_radius(adata, request, filled.scale, quantile, key_added)
            self._record(adata, key_added, **how)
        if filled.expression is not None:
            self._write_expression(adata, request, filled.expression, layer_added, output)
            self._record(adata, layer_added, output=output, **how)

    def sample(
        self,
        adata: AnnData | None = None,
        *,
        mode: Mode = "auto",
        reference: AnnData | None = None,
        n_samples: int = 1,
        n_steps: int = N_STEPS,
        point: Point = "medoid",
        output: Output = "lognorm",
        key_added: str = _keys.SAMPLED,
        layer_added: str = _keys.EXPRESSION_SAMPLED,
        seed: int = 0,
        max_set: int | None = None,
        progress_bar: bool = True,
    ) -> None:
        """Fill in what is missing with draws from the learned tissue.

        Without any known position, several draws of a section are put into one frame by generalised
        Procrustes superposition; with one, the frame is given and nothing is superposed.

        Parameters
        ----------
        adata, mode, reference, output, layer_added, max_set, progress_bar
            As in :meth:`predict`.
        n_samples
            Number of draws.
        n_steps
            Steps of the sampler; each takes two passes of the network.
        point
            What to keep of several draws of positions: ``"medoid"``, the draw nearest to all
            others; ``"consensus"``, their mean; ``None``, all of them. Of expression the draw of
            the medoid is kept, or the mean.
        key_added
            Where to write.
        seed
            Same seed, same draws, whatever the order of the cells.

        Returns
        -------
        None
            As :meth:`predict`, or with ``point=None`` positions in
            ``.obsm[key_added + "_draws"]``, ``(n_cells, n_samples, n_dims)``, and the first draw of
            expression. In ``.uns["alphastomics"]`` how it was made, and for several draws without
            a known position whether they disagree by a mirror image, see
            :func:`alphastomics.metrics.mirror_ambiguity`.
        """
        check_at_least("n_samples", n_samples, 1)
        check_at_least("n_steps", n_steps, 1)
        if point not in POINTS:
            raise ValueError(f"point must be 'medoid', 'consensus' or None, found {point!r}.")
        adata, request = self._ask(
            adata, mode, reference, output, key_added, layer_added, predicts=False
        )
        options = self._draw_options(n_samples, n_steps, seed)
        filled = list(
            draw_missing(
                self.module,
                request,
                options,
                max_set=self._max_set(max_set, request),
                progress_bar=progress_bar,
            )
        )
        how: dict[str, Any] = {"method": "sample", "mode": mode, "seed": seed}
        how |= {"n_samples": n_samples, "n_steps": n_steps, "point": str(point)}
        if n_samples > 1 and request.fill_position and request.unframed_sections():
            how["mirror"] = superpose_draws(
                filled, request, allow_reflection=options.allow_reflection
            )
        chosen = choose_draws(filled, request)
        if request.fill_position:
            self._write_draws(adata, request, filled, chosen, key_added, point, how)
        if request.fill_expression:
            values = [one.expression for one in filled if one.expression is not None]
            named = {layer_added: point_estimate(values, chosen, point)}
            if point is None:
                named = {f"{layer_added}_{i}": value for i, value in enumerate(values)}
            for name, value in named.items():
                self._write_expression(adata, request, value, name, output)
                self._record(adata, name, output=output, **how)

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
        """
        self._require_trained()
        adata = self._require_adata(adata)
        trained = self._init_arguments()["training_mode"]
        if mode is None:
            mode = "pos_to_expr" if trained == "pos_to_expr" else "expr_to_pos"
        request = self._request(self._read_cells(adata), mode, None, predicts=True)
        return embed(self.module, request, self._max_set(max_set, request))

    def _write_draws(
        self,
        adata: AnnData,
        request: Request,
        filled: list[Filled],
        chosen: NDArray[np.int64],
        key_added: str,
        point: Point,
        how: dict[str, Any],
    ) -> None:
        """Write all drawn positions, or their point estimate."""
        positions = [with_known_positions(one.position, request) for one in filled]
        if point is None:
            key_added += _keys.DRAWS_SUFFIX
            adata.obsm[key_added] = np.stack(positions, axis=1)  # (n_query, S, d)
        else:
            adata.obsm[key_added] = point_estimate(positions, chosen, point)
        quantile = self._radius_quantile(request, "sample")
        write_radius(adata, request, filled[0].scale, quantile, key_added)
        self._record(adata, key_added, **how)

    def _write_expression(
        self,
        adata: AnnData,
        request: Request,
        standardised: NDArray[np.float32],
        layer_added: str,
        output: Output,
    ) -> None:
        adata.layers[layer_added] = expression_matrix(
            adata,
            request,
            standardised,
            self.module.expression_transform,
            self.genes,
            output,
        )

    def _radius_quantile(self, request: Request, method: str) -> float | None:
        """Ratio of the 90 % radius to the error scale; ``None`` when not calibrated."""
        if not request.expression_known[: request.n_query].any():
            return None  # a generated cell has no true position
        pattern = "framed" if request.position_known.any() else "unframed"
        return self.training_record.calibration.get(pattern, {}).get(method)

    def _draw_options(self, n_samples: int, n_steps: int, seed: int) -> DrawOptions:
        init = self._init_arguments()
        return DrawOptions(
            n_samples, n_steps, init["schedule"], init["frame"], init["allow_reflection"], seed
        )

    def _record(self, adata: AnnData, key_added: str, **how: Any) -> None:
        record(adata, key_added, weights_fingerprint(self.module.state_dict()), **how)

    def _max_set(self, max_set: int | None, request: Request) -> int:
        if max_set is None:
            return MAX_SET if request.fill_position else MAX_PLACED_SET
        check_at_least("max_set", max_set, 2)
        return max_set
