"""``predict`` and ``sample`` of the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from anndata import AnnData

from alphastomics import __version__, _keys
from alphastomics.model._data import SetupArgs, TissueData, read_query
from alphastomics.model._persistence import weights_fingerprint
from alphastomics.model._prediction import (
    DrawOptions,
    draw_positions,
    predict_positions,
    summarise_draws,
)
from alphastomics.model._validate import check_at_least, check_choice

if TYPE_CHECKING:
    import pandas as pd

    from alphastomics.diffusion_model.module import MaskedDiffusionModule

Mode = Literal["auto", "expr_to_pos"]
MODES = ("auto", "expr_to_pos")
POINTS = ("medoid", "consensus", None)
MAX_SET = 2048


class PlacementMixin:
    """Places cells with a trained model."""

    module: MaskedDiffusionModule
    genes: pd.Index

    if TYPE_CHECKING:

        def _setup(self) -> SetupArgs: ...
        def _require_trained(self) -> None: ...
        def _require_adata(self, adata: AnnData | None) -> AnnData: ...
        def _init_arguments(self) -> dict[str, Any]: ...

    def _query(
        self, adata: AnnData | None, mode: Mode, key_added: str, max_set: int
    ) -> tuple[AnnData, TissueData]:
        """Check what is asked of a query and read it, its positions left out."""
        self._require_trained()
        if key_added == self._setup().spatial_key:
            raise ValueError(
                f"key_added={key_added!r} is where the true coordinates are: choose another name."
            )
        check_choice("mode", mode, MODES)
        check_at_least("max_set", max_set, 1)
        adata = self._require_adata(adata)
        data = read_query(adata, self._setup(), self.genes)
        known = int(data.has_position.sum())
        if mode == "auto" and known:
            where = f"adata.obsm[{self._setup().spatial_key!r}]"
            state = "nothing is missing" if known == len(data.names) else f"{known} cells have one"
            raise ValueError(
                f"mode='auto' places cells without a position, but in {where} {state}. Pass "
                "mode='expr_to_pos' to hide all positions and place every cell anew, or keep only "
                "the cells to place."
            )
        return adata, data.without_position()

    def predict(
        self,
        adata: AnnData | None = None,
        *,
        mode: Mode = "auto",
        key_added: str = _keys.PREDICTED,
        max_set: int = MAX_SET,
        progress_bar: bool = True,
    ) -> None:
        """Place cells at their expected position, in one pass of the network.

        The conditional mean has the least squared error of all estimates, and shrinks where the
        data leave a position open; :meth:`sample` keeps the spread of the tissue instead. The
        cells of a section see each other, and are placed in the frame the model has settled on.

        Parameters
        ----------
        adata
            Cells to place; those of the training when ``None``. Genes are matched by name;
            missing ones are treated as unknown. Cells are one section unless the section key is
            in ``.obs``.
        mode
            ``"auto"``: place cells without a position, it is an error if any has one.
            ``"expr_to_pos"``: hide all positions first.
        key_added
            Where to write.
        max_set
            Sections with more cells than this are dealt at random into parts of equal size that
            are placed one by one; time and memory then grow linearly with the cells.
        progress_bar
            Whether to show a progress bar.

        Returns
        -------
        None
            Writes ``.obsm[key_added]``, shape ``(n_cells, n_dims)``, in the units of training and
            centred on the origin, and ``.uns["alphastomics"][key_added]``, how it was made.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        ValueError
            If nothing is missing, or no gene is shared with the model.
        """
        adata, data = self._query(adata, mode, key_added, max_set)
        adata.obsm[key_added] = predict_positions(
            self.module, data, max_set=max_set, progress_bar=progress_bar
        )
        self._record(adata, key_added, method="predict", mode=mode, level=1.0)

    def sample(
        self,
        adata: AnnData | None = None,
        *,
        mode: Mode = "auto",
        n_samples: int = 1,
        n_steps: int = 16,
        point: Literal["medoid", "consensus"] | None = "medoid",
        key_added: str = _keys.SAMPLED,
        seed: int = 0,
        max_set: int = MAX_SET,
        progress_bar: bool = True,
    ) -> None:
        """Draw positions from the learned tissue.

        Several draws of a section are put into one frame by generalised Procrustes superposition.

        Parameters
        ----------
        adata, mode, max_set, progress_bar
            As in :meth:`predict`.
        n_samples
            Number of draws.
        n_steps
            Steps of the sampler; each takes two passes of the network.
        point
            What to keep of several draws: ``"medoid"``, the draw nearest to all others;
            ``"consensus"``, their mean; ``None``, all of them.
        key_added
            Where to write.
        seed
            Same seed, same draws, whatever the order of the cells.

        Returns
        -------
        None
            Writes ``.obsm[key_added]``, ``(n_cells, n_dims)``, or with ``point=None``
            ``.obsm[key_added + "_draws"]``, ``(n_cells, n_samples, n_dims)``, in the units of
            training and centred on the origin, and under the same name in
            ``.uns["alphastomics"]`` how they were made.
        """
        check_at_least("n_samples", n_samples, 1)
        check_at_least("n_steps", n_steps, 1)
        if point not in POINTS:
            raise ValueError(f"point must be 'medoid', 'consensus' or None, found {point!r}.")
        adata, data = self._query(adata, mode, key_added, max_set)
        init = self._init_arguments()
        options = DrawOptions(n_samples, n_steps, init["schedule"], init["allow_reflection"], seed)
        draws = draw_positions(
            self.module, data, options, max_set=max_set, progress_bar=progress_bar
        )
        if point is None:
            key_added += _keys.DRAWS_SUFFIX
            adata.obsm[key_added] = draws.transpose(1, 0, 2)
        else:
            adata.obsm[key_added] = summarise_draws(draws, data, point)
        self._record(
            adata,
            key_added,
            method="sample",
            mode=mode,
            seed=seed,
            n_samples=n_samples,
            n_steps=n_steps,
            point=str(point),
        )

    def _record(self, adata: AnnData, key_added: str, **how: Any) -> None:
        """Write how a result was made."""
        fingerprint = weights_fingerprint(self.module.state_dict())
        how["model"] = f"alphastomics {__version__}, weights {fingerprint}"
        adata.uns[_keys.UNS] = {**adata.uns.get(_keys.UNS, {}), key_added: how}
