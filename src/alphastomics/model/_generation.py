"""One-line uses: predict expression at positions, generate sections."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from alphastomics import _keys
from alphastomics.model._asking import Mode
from alphastomics.model._data import _read_categories
from alphastomics.model._imputing import ImputingMixin
from alphastomics.model._results import OUTPUTS, Output
from alphastomics.model._sampling import N_STEPS
from alphastomics.model._validate import check_at_least, check_choice


class GenerationMixin(ImputingMixin):
    """New cells, with a trained model."""

    def predict_expression(
        self,
        positions: ArrayLike,
        *,
        labels: ArrayLike | None = None,
        reference: AnnData | None = None,
        draw: bool = False,
        output: Output = "lognorm",
        seed: int = 0,
        progress_bar: bool = True,
    ) -> AnnData:
        """Predict what cells at given positions express.

        Parameters
        ----------
        positions
            Coordinates in the units of training, shape ``(n_cells, n_dims)``; in the frame of the
            reference if there is one.
        labels
            Cell type of each cell, if known; the model must have been set up with ``labels_key``.
        reference
            Measured cells around them, such as the rest of the section or the slices before and
            behind.
        draw
            Whether to draw expression instead of taking its mean.
        output
            As in :meth:`predict`.
        seed
            Of the draw.
        progress_bar
            Whether to show a progress bar.

        Returns
        -------
        AnnData
            ``n_cells`` new cells with the genes of the model, expression in ``.X``, positions in
            ``.obsm`` under the spatial key.

        Examples
        --------
        >>> model.predict_expression([[0.0, 0.0], [50.0, 20.0]], progress_bar=False).shape
        (2, 60)
        """
        points = np.asarray(positions, dtype=np.float64)
        n_dims = self.module.position_dim
        if points.ndim != 2 or points.shape[1] != n_dims or not len(points):
            raise ValueError(
                f"positions must have shape (n_cells, {n_dims}), found shape {points.shape}."
            )
        if not np.isfinite(points).all():
            raise ValueError("positions holds values that are not finite: drop those cells.")
        cells = self._new_cells(len(points), labels)
        cells.obsm[self._setup().spatial_key] = points
        return self._fill_new(
            cells,
            "auto",
            draw=draw,
            reference=reference,
            output=output,
            seed=seed,
            progress_bar=progress_bar,
        )

    def generate(
        self,
        n_cells: int,
        *,
        labels: ArrayLike | None = None,
        output: Output = "lognorm",
        n_rounds: int | None = None,
        n_steps: int = N_STEPS,
        seed: int = 0,
        progress_bar: bool = True,
    ) -> AnnData:
        """Draw a new section: training cells at new positions.

        The chain rule ``p(e, x) = p(e) p(x | e)``: expression is that of random training cells
        (:class:`~alphastomics.priors.donors.DonorCells`), which are placed by a draw of the
        network. Nearby cells then exchange their places until expression is as autocorrelated as
        in training (:class:`~alphastomics.priors.autocorrelation.AutocorrelationPrior`).
        ``sample(mode="joint")`` draws expression by the network too; sections made so are less like
        real ones (see the notes on draws).

        Parameters
        ----------
        n_cells
            Number of cells.
        labels
            Cell type of each cell, if wanted; the model must have been set up with ``labels_key``.
        output
            ``"counts"``, counts of training cells as they were measured; ``"lognorm"``, those
            log-normalized.
        n_rounds, n_steps, seed
            As in :meth:`sample`.
        progress_bar
            Whether to show a progress bar.

        Returns
        -------
        AnnData
            Expression in ``.X``, positions in ``.obsm`` under the spatial key, in the units of
            training, centered on the origin.

        Examples
        --------
        >>> model.generate(100, progress_bar=False).obsm["spatial"].shape
        (100, 2)
        """
        check_at_least("n_cells", n_cells, 1)
        check_choice("output", output, OUTPUTS)
        new = self._new_cells(n_cells, labels)
        self._require_direction(position=True, expression=True)
        setup, key = self._setup(), _keys.SAMPLED
        label = _read_categories(new, setup.labels_key, self._categories().labels, "labels_key")
        donors = self.module.donors
        missing = set(label) - set(donors.label.tolist()) - {0}
        if missing:
            names = [self._categories().labels[number - 1] for number in sorted(missing)]
            raise ValueError(
                f"labels asks for {names}, of which the model has no cell with all genes: leave "
                "them out."
            )
        donor = donors.bootstrap(torch.from_numpy(label), torch.Generator().manual_seed(seed))
        values = self._measured(donor)
        cells = AnnData(sparse.csr_matrix(values), obs=new.obs[[]], var=new.var)
        if setup.layer is not None:
            cells.layers[setup.layer] = cells.X
        self.sample(
            cells,
            mode="expr_to_pos",
            key_added=key,
            seed=seed,
            n_rounds=n_rounds,
            n_steps=n_steps,
            progress_bar=progress_bar,
        )
        description = donors.description[donor].cpu().double().numpy()
        positions = self.module.autocorrelation.exchange(
            cells.obsm[key],
            description[:, : self.module.factors.n_factors],
            np.random.default_rng(seed),
        )
        if output == "lognorm":
            drawn = torch.from_numpy(values).to(self.module.device)
            everything = torch.ones_like(drawn, dtype=torch.bool)
            values = self.module.expression_transform.log(drawn, everything).cpu().numpy()
        generated = AnnData(
            values,
            obs=new.obs.drop(columns=_keys.EXPRESSION_KNOWN),
            var=new.var,
            obsm={setup.spatial_key: positions},
        )
        generated.uns[_keys.UNS] = cells.uns[_keys.UNS]
        return generated

    def _measured(self, donor: torch.Tensor) -> NDArray[np.float32]:
        """Expression of donors, in the values of training, ``(n, G)``.

        Genes that were not measured have the mean of training.
        """
        transform = self.module.expression_transform
        values, measured = self.module.donors.measurement(donor)
        mean = transform.inverse(torch.zeros_like(transform.mean))
        filled = transform.unlog(mean).cpu()
        return torch.where(measured, values, filled).numpy()

    def _new_cells(self, n_cells: int, labels: ArrayLike | None) -> AnnData:
        """Cells of which nothing is known but, maybe, their type."""
        self._require_trained()
        width = len(str(n_cells - 1))
        obs = pd.DataFrame(index=[f"cell_{i:0{width}d}" for i in range(n_cells)])
        obs[_keys.EXPRESSION_KNOWN] = False
        setup = self._setup()
        if labels is not None:
            if setup.labels_key is None:
                raise ValueError(
                    "labels were given, but the model was set up without labels_key: set up the "
                    "training data with setup_anndata(..., labels_key=...) and train again."
                )
            names = np.asarray(labels)
            if names.shape != (n_cells,):
                raise ValueError(
                    f"labels must have one entry a cell, shape ({n_cells},), found {names.shape}."
                )
            obs[setup.labels_key] = pd.Categorical(names)
        empty = sparse.csr_matrix((n_cells, len(self.genes)), dtype=np.float32)
        layers = {} if setup.layer is None else {setup.layer: empty}
        return AnnData(empty, obs=obs, var=pd.DataFrame(index=self.genes), layers=layers)

    def _fill_new(self, cells: AnnData, mode: Mode, *, draw: bool, **options: Any) -> AnnData:
        """Fill in new cells, and keep of them what a user wants to have."""
        key, layer = _keys.SAMPLED, _keys.EXPRESSION_SAMPLED
        if not draw:
            options.pop("seed")
        fill = self.sample if draw else self.predict
        fill(cells, mode=mode, key_added=key, layer_added=layer, **options)
        spatial_key = self._setup().spatial_key
        new = AnnData(
            cells.layers[layer],
            obs=cells.obs.drop(columns=_keys.EXPRESSION_KNOWN),
            var=cells.var,
            obsm={spatial_key: cells.obsm[key if key in cells.obsm else spatial_key]},
        )
        new.uns[_keys.UNS] = cells.uns[_keys.UNS]
        return new
