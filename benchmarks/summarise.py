"""One row per held-out section from the CSVs of benchmarks/placement.py.

    python benchmarks/summarise.py

Writes benchmarks/results/summary.md.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from placement import cell

RESULTS = Path(__file__).parent / "results"
METRIC, CONTACTS = "distance_spearman", "contact_precision@1%"
PREFIX = "placement_"


def shown(scores: pd.DataFrame, method: str, metric: str) -> str:
    """Mean ± sd over seeds of one method; nothing if it was not run."""
    values = scores.loc[scores["method"] == method, metric]
    return cell(values.mean(), values.std(ddof=1)) if len(values) else ""


def best_baseline(scores: pd.DataFrame, metric: str) -> str:
    baselines = scores[scores["kind"] == "baseline"]
    return str(baselines.groupby("method")[metric].mean().idxmax())


def row(path: Path) -> dict[str, str]:
    scores = pd.read_csv(path)
    best, near = best_baseline(scores, METRIC), best_baseline(scores, CONTACTS)
    means = scores.groupby("method")[METRIC].mean()
    predict = scores[scores["method"] == "predict"]
    return {
        "held out": path.stem.removeprefix(PREFIX).replace("_", " "),
        "seeds": str(len(predict)),
        "predict": f"**{shown(scores, 'predict', METRIC)}**",
        "its mean": shown(scores, "predict, mean", METRIC),
        "best baseline": f"{shown(scores, best, METRIC)} {best}",
        "ratio": f"{means['predict'] / means[best]:.2f}",
        "contacts": shown(scores, "predict", CONTACTS),
        "best baseline's": f"{shown(scores, near, CONTACTS)} {near}",
        "one draw": shown(scores, "one draw", METRIC),
        "medoid's spread": shown(scores, "medoid of 8", "spread"),
        "in the radius": shown(scores, "predict", "coverage") if "coverage" in scores else "",
        "seconds": f"{predict['seconds'].mean():.0f}",
    }


def main() -> None:
    paths = [p for p in sorted(RESULTS.glob(f"{PREFIX}*.csv")) if "rotated" not in p.stem]
    table = pd.DataFrame([row(path) for path in paths])
    lines = ["| " + " | ".join(table.columns) + " |", "|---" * len(table.columns) + "|"]
    lines += ["| " + " | ".join(values) + " |" for values in table.to_numpy()]
    text = (
        f"`{METRIC}` (chance 0) of `predict`, of its conditional mean and of one draw, and "
        f"`{CONTACTS}` (chance 0.01) of `predict`, mean ± sd over seeds, each with the baseline "
        "that has the best mean; share of the cells within the calibrated 90 % radius; seconds of "
        "training on one core of a shared machine.\n\n" + "\n".join(lines) + "\n"
    )
    (RESULTS / "summary.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
