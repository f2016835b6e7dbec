"""Imputed genes as they are written into AnnData."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from alphastomics import _keys
from alphastomics._output import INTERVAL, METHOD, Output, Results
from alphastomics.diffusion_model.transforms import ExpressionTransform
from alphastomics.model._bounds import ExpressionBounds
from alphastomics.model._inference import Estimates
from alphastomics.model._results import BOUNDS, known_and_estimated
from alphastomics.model._task import InferenceTask


class ImputedWriter:
    """Writer of imputed genes, as tables of cells and genes in ``.obsm``.

    Parameters
    ----------
    results, key
        Where to write.
    bounds
        Of the estimates, if the model is calibrated.
    """

    def __init__(self, results: Results, key: str, bounds: ExpressionBounds | None) -> None:
        self.results, self.key, self.bounds = results, key, bounds
        for suffix in BOUNDS if bounds else ():
            results.reserve("obsm", key, "key_added", suffix, INTERVAL)

    def write(
        self,
        task: InferenceTask,
        estimates: Estimates,
        imputed: NDArray[np.int64],
        genes: pd.Index,
        transform: ExpressionTransform,
        output: Output,
        details: dict[str, Any],
    ) -> None:
        """Write the estimates of the ``imputed`` genes of a model, with their provenance."""
        assert estimates.expression is not None
        results, bounds, cells = self.results, self.bounds, np.arange(task.n_query)
        depth = estimates.depth[cells]
        values = {"": estimates.expression[cells]}
        details = {METHOD: "impute", **details, "output": output}
        if bounds:
            values |= dict(zip(BOUNDS, bounds.around(cells, values[""], depth), strict=True))
            details |= {INTERVAL: True, _keys.RELIABILITY: bounds.reliability[imputed]}
        elif results.wrote_with(self.key, INTERVAL):  # of other estimates
            for suffix in BOUNDS:
                results.drop("obsm", self.key + suffix)
        for suffix, logged in values.items():
            filled = known_and_estimated(task, cells, logged, depth, transform, output)
            table = pd.DataFrame(
                filled[:, imputed], index=results.adata.obs_names, columns=list(genes[imputed])
            )
            results.put("obsm", self.key + suffix, table)
        results.record(self.key, **details)
        results.write()
