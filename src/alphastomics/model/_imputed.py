"""Imputed genes as they are written into AnnData."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from alphastomics import _keys
from alphastomics._output import INTERVAL, METHOD, Output, Results
from alphastomics.model._bounds import ExpressionBounds
from alphastomics.model._inference import Estimates
from alphastomics.model._reader import CellReader
from alphastomics.model._record import TrainingRecord
from alphastomics.model._results import BOUNDS, known_and_estimated
from alphastomics.model._task import InferenceTask


@dataclass
class ImputedWriter:
    """Writer of imputed genes, as tables of cells and genes in ``.obsm``.

    Attributes
    ----------
    results, key
        Where to write.
    task, imputed
        Cells, and numbers of the genes that were imputed.
    reader, record
        Reader of the model, with its parts, and record of its training, with the calibration.
    output
        Scale of expression.
    details
        Provenance; ``draw`` is whether values are random.
    """

    results: Results
    key: str
    task: InferenceTask
    imputed: NDArray[np.int64]
    reader: CellReader
    record: TrainingRecord
    output: Output
    details: dict[str, Any]

    def __post_init__(self) -> None:
        """Raise if bounds would replace something of the user."""
        for suffix in BOUNDS if self.bounds else ():
            self.results.reserve("obsm", self.key, "key_added", suffix, INTERVAL)

    @cached_property
    def bounds(self) -> ExpressionBounds | None:
        """Bounds of the estimates; ``None`` if these are not calibrated, and of draws."""
        if self.details["draw"]:
            return None
        return ExpressionBounds.of_task(self.task, self.record.intervals, self.reader.module)

    def write(self, estimates: Estimates) -> None:
        """Write the estimates of the genes, with their provenance."""
        assert estimates.expression is not None
        results, bounds, cells = self.results, self.bounds, np.arange(self.task.n_query)
        depth, transform = estimates.depth[cells], self.reader.module.expression_transform
        values = {"": estimates.expression[cells]}
        details = {METHOD: "impute", **self.details, "output": self.output}
        if bounds:
            values |= dict(zip(BOUNDS, bounds.around(cells, values[""], depth), strict=True))
            details |= {INTERVAL: True, _keys.RELIABILITY: bounds.reliability[self.imputed]}
        elif results.wrote_with(self.key, INTERVAL):  # of other estimates
            for suffix in BOUNDS:
                results.drop("obsm", self.key + suffix)
        genes = list(self.reader.genes[self.imputed])
        for suffix, logged in values.items():
            filled = known_and_estimated(self.task, cells, logged, depth, transform, self.output)
            table = pd.DataFrame(
                filled[:, self.imputed], index=results.adata.obs_names, columns=genes
            )
            results.put("obsm", self.key + suffix, table)
        results.record(self.key, **details)
        results.write()
