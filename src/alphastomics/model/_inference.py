"""``predict`` and ``sample`` of the model."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray

from alphastomics import _keys
from alphastomics.model._asking import Mode, Standardize
from alphastomics.model._devices import Devices, check_devices
from alphastomics.model._filling import Filled
from alphastomics.model._looking import LookingMixin
from alphastomics.model._prediction import predict_missing
from alphastomics.model._request import Request
from alphastomics.model._results import (
    POINTS,
    Output,
    Point,
    choose_draws,
    expression_matrix,
    point_estimate,
    superpose_draws,
    with_known_positions,
    write_images,
    write_radius,
)
from alphastomics.model._sampling import N_STEPS, draw_missing
from alphastomics.model._validate import check_choice

Estimate = Literal["arrangement", "mean"]
ESTIMATES: tuple[Estimate, ...] = ("arrangement", "mean")


class InferenceMixin(LookingMixin):
    """Fills in what is unknown of cells, with a trained model."""

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
        standardize: Standardize = "training",
        max_set: int | None = None,
        distributed: Devices | None = None,
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
            How cells are placed. ``"mean"``: the conditional mean, which has the least squared
            error. ``"arrangement"``: where no position is known, so that their distances to each
            other rank as the true ones are expected to, turned and scaled onto the mean; among
            known cells, the likeliest place instead of the mean of several.
        output
            Expression is written ``"lognorm"``, log-normalised as the network reads it, values
            below zero set to zero; or as ``"counts"``, inverted and rounded, of cells of the
            median depth of training.
        key_added, layer_added
            Where to write positions and expression.
        standardize
            ``"training"``: genes of the query are standardised with the statistics of training.
            ``"query"``: with their own, for cells of another platform or animal that are of the
            same composition; only where nothing but positions is asked for.
        max_set
            Sections with more cells than this are cut into parts that are filled in one by one, so
            that memory stays bounded; by default 2,048 where positions are asked for, else 8,192.
            If memory does not suffice, all is done again in parts of half the size.
        distributed
            Options of :class:`lightning.pytorch.Trainer`, such as ``{"devices": 8}`` or
            ``{"devices": 8, "num_nodes": 2}``, to share the parts between several devices; by
            default all is done where the model is. Every process has the result, which is that
            of one process. The script is run once a device: let one of them write files. Parts
            meet in ``default_root_dir``, which all nodes must see.
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
            NaN for genes the model does not know. In ``.uns["alphastomics"]``, how it was made; in
            ``.uns[key_added]`` the images of Visium, if positions are in their frame.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        ValueError
            If nothing is missing or the mode hides everything, if the model was not trained for
            what is asked, if no gene is shared with the model, or coordinates are of another
            dimension.

        Examples
        --------
        >>> model.predict(cells, mode="expr_to_pos", progress_bar=False)
        >>> cells.obsm["spatial_predicted"].shape
        (200, 2)
        """
        adata, request = self._ask(
            adata,
            mode,
            reference,
            output,
            key_added,
            layer_added,
            predicts=True,
            standardize=standardize,
        )
        check_choice("estimate", estimate, ESTIMATES)
        filled = predict_missing(
            self.module,
            request,
            arrange=estimate == "arrangement",
            max_set=self._max_set(max_set, request),
            progress_bar=progress_bar,
            devices=check_devices(distributed),
        )
        how = {"method": "predict", "mode": mode, "estimate": estimate}
        if request.fill_position:
            adata.obsm[key_added] = with_known_positions(filled.position, request)
            quantile = self._radius_quantile(request, "predict")
            write_radius(adata, request, filled.scale, quantile, key_added)
            spatial_key = self._setup().spatial_key
            images = write_images(adata, reference, request, spatial_key, key_added)
            self._record(adata, key_added, images=images, **how)
        if filled.expression is not None:
            self._write_expression(
                adata, request, filled.expression, filled.depth, layer_added, output
            )
            self._record(adata, layer_added, output=output, **how)

    def sample(
        self,
        adata: AnnData | None = None,
        *,
        mode: Mode = "auto",
        reference: AnnData | None = None,
        n_samples: int = 1,
        n_rounds: int | None = None,
        n_steps: int = N_STEPS,
        point: Point = "medoid",
        output: Output = "lognorm",
        key_added: str = _keys.SAMPLED,
        layer_added: str = _keys.EXPRESSION_SAMPLED,
        seed: int = 0,
        standardize: Standardize = "training",
        max_set: int | None = None,
        distributed: Devices | None = None,
        progress_bar: bool = True,
    ) -> None:
        """Fill in what is missing with draws from the learned tissue.

        Without any known position, several draws of a section are put into one frame by generalised
        Procrustes superposition; with one, the frame is given and nothing is superposed.

        Parameters
        ----------
        adata, mode, reference, output, layer_added, standardize, max_set, distributed, progress_bar
            As in :meth:`predict`.
        n_samples
            Number of draws.
        n_rounds
            Rounds of a draw, one pass of the transformer each. In a round a random share of the
            cells is drawn, which are known in the next one. With one round the cells of a section
            are independent of each other given what is known; at most one round a cell. By default
            1 for positions and 4 for expression.
        n_steps
            Steps of the diffusion heads, which take no pass of the transformer.
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

        Examples
        --------
        >>> model.sample(cells, mode="expr_to_pos", n_samples=2, point=None, progress_bar=False)
        >>> cells.obsm["spatial_sampled_draws"].shape
        (200, 2, 2)
        """
        options = self._draw_options(n_samples, n_steps, seed, n_rounds)
        if point not in POINTS:
            raise ValueError(f"point must be 'medoid', 'consensus' or None, found {point!r}.")
        adata, request = self._ask(
            adata,
            mode,
            reference,
            output,
            key_added,
            layer_added,
            predicts=False,
            standardize=standardize,
        )
        filled = draw_missing(
            self.module,
            request,
            options,
            max_set=self._max_set(max_set, request),
            progress_bar=progress_bar,
            devices=check_devices(distributed),
        )
        how: dict[str, Any] = {"method": "sample", "mode": mode, "seed": seed}
        how |= {"n_samples": n_samples, "n_rounds": str(n_rounds), "n_steps": n_steps}
        how["point"] = str(point)
        if n_samples > 1 and request.fill_position and request.unframed_sections():
            how["mirror"] = superpose_draws(
                filled, request, allow_reflection=self.module.allow_reflection
            )
        chosen = choose_draws(filled, request)
        if request.fill_position:
            self._write_draws(adata, reference, request, filled, chosen, key_added, point, how)
        if request.fill_expression:
            values = [draw.expression for draw in filled if draw.expression is not None]
            depths = [draw.depth[:, None] for draw in filled]
            named = {
                layer_added: (
                    point_estimate(values, chosen, point),
                    point_estimate(depths, chosen, point),
                )
            }
            if point is None:
                named = {
                    f"{layer_added}_{i}": drawn
                    for i, drawn in enumerate(zip(values, depths, strict=True))
                }
            for name, (value, depth) in named.items():
                self._write_expression(adata, request, value, depth[:, 0], name, output)
                self._record(adata, name, output=output, **how)

    def _write_draws(
        self,
        adata: AnnData,
        reference: AnnData | None,
        request: Request,
        filled: list[Filled],
        chosen: NDArray[np.int64],
        key_added: str,
        point: Point,
        how: dict[str, Any],
    ) -> None:
        """Write all drawn positions, or their point estimate."""
        positions = [with_known_positions(draw.position, request) for draw in filled]
        if point is None:
            key_added += _keys.DRAWS_SUFFIX
            adata.obsm[key_added] = np.stack(positions, axis=1)  # (n_query, S, d)
        else:
            adata.obsm[key_added] = point_estimate(positions, chosen, point)
        quantile = self._radius_quantile(request, "sample")
        write_radius(adata, request, filled[0].scale, quantile, key_added)
        images = write_images(adata, reference, request, self._setup().spatial_key, key_added)
        self._record(adata, key_added, images=images, **how)

    def _write_expression(
        self,
        adata: AnnData,
        request: Request,
        logged: NDArray[np.float32],
        depth: NDArray[np.float64],
        layer_added: str,
        output: Output,
    ) -> None:
        adata.layers[layer_added] = expression_matrix(
            adata,
            request,
            logged,
            depth,
            self.module.expression_transform,
            self.genes,
            output,
        )
