"""Description of a model as text and as HTML."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from alphastomics.config import ModelConfig
from alphastomics.diffusion_model.module import MaskedDiffusionModule
from alphastomics.model._data import SetupArgs
from alphastomics.model._record import TrainingRecord

NAMED = 6  # genes or sections in a table
CELL = "padding: 2px 12px 2px 0; text-align: left; vertical-align: top;"


class Summary(NamedTuple):
    """Parts of a description.

    Attributes
    ----------
    config, setup, genes, module
        Options, keys, genes and network of the model.
    record
        Of its training; ``None`` if it is not trained.
    """

    config: ModelConfig
    setup: SetupArgs
    genes: pd.Index
    module: MaskedDiffusionModule
    record: TrainingRecord | None

    @property
    def n_parameters(self) -> int:
        """Number of learned parameters."""
        return sum(p.numel() for p in self.module.parameters())

    def text(self) -> str:
        """Three lines of text."""
        config, trained = self.config, "not trained"
        if self.record is not None:
            sections = self.record.train_sections
            trained = (
                f"trained {self.record.steps} steps on {self.record.n_cells:,} cells of "
                f"{len(sections)} section{'s' * (len(sections) != 1)} ({', '.join(sections)})"
            )
            if self.record.val_sections:
                trained += f", validated on {', '.join(self.record.val_sections)}"
        return (
            f"AlphaSTomics ({config.training_mode}): {trained}\n"
            f"  data: {len(self.genes):,} genes ({self.setup.values}), "
            f"{self.module.position_dim}D positions in obsm[{self.setup.spatial_key!r}]\n"
            f"  network: {self.n_parameters:,} parameters, d_model={config.d_model}, "
            f"num_heads={config.num_heads}, num_layers={config.num_layers}, d_ff={config.d_ff}"
        )

    def rows(self) -> dict[str, str]:
        """Rows of the table, by their heading."""
        config, setup, record = self.config, self.setup, self.record
        rows = {"Training mode": config.training_mode, "Training": "not trained"}
        if record is not None:
            rows["Training"] = f"{record.steps:,} steps on {record.n_cells:,} cells"
            rows["Training sections"] = _listed(record.train_sections)
            if record.val_sections:
                rows["Validation sections"] = _listed(record.val_sections)
            calibrated = [
                what
                for what, is_there in (
                    ("90 % radius of positions", record.calibration),
                    ("90 % intervals of expression", record.intervals),
                )
                if is_there
            ]
            rows["Calibration"] = ", ".join(calibrated) or "not calibrated: model.calibrate()"
        rows["Genes"] = _listed(list(self.genes))
        rows["Expression"] = (
            f"{setup.values} in {'X' if setup.layer is None else f'layers[{setup.layer!r}]'}"
        )
        rows["Positions"] = f"{self.module.position_dim}D in obsm[{setup.spatial_key!r}]"
        keys = {"section": setup.section_key, "labels": setup.labels_key, "batch": setup.batch_key}
        rows["Columns of obs"] = ", ".join(f"{n}: {k!r}" for n, k in keys.items() if k) or "none"
        rows["Network"] = f"{self.n_parameters:,} parameters on {self.module.device}"
        default = ModelConfig()
        changed = [f"{n}={v!r}" for n, v in config if v != getattr(default, n)]
        rows["Options"] = ", ".join(changed) or "defaults"
        return rows

    def table(self) -> str:
        """HTML table of the rows."""
        lines = "".join(
            f'<tr><th style="{CELL}">{html.escape(name)}</th>'
            f'<td style="{CELL}">{html.escape(value)}</td></tr>'
            for name, value in self.rows().items()
        )
        return f"<div><strong>AlphaSTomics</strong><table>{lines}</table></div>"


def _listed(names: Sequence[str]) -> str:
    """Number of names and the first ones."""
    more = ", …" if len(names) > NAMED else ""
    return f"{len(names):,} ({', '.join(map(str, names[:NAMED]))}{more})"
