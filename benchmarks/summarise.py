"""One row per held-out section from the CSVs of benchmarks/placement.py.

    python benchmarks/summarise.py

Writes benchmarks/results/summary.md.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

RESULTS = Path(__file__).parent / "results"
METRIC = "distance_spearman"
PREFIX = "placement_"


def cell(values: pd.Series) -> str:
    return f"{values.mean():.3f} ± {values.std(ddof=1):.3f}"


def row(path: Path) -> dict[str, str]:
    scores = pd.read_csv(path)
    means = scores.groupby(["kind", "method"])[METRIC].mean()
    best = means["floor"].idxmax()
    by_method = dict(iter(scores.groupby("method")))
    predict = by_method["predict"][METRIC]
    return {
        "held out": path.stem.removeprefix(PREFIX).replace("_", " "),
        "predict": f"**{cell(predict)}**",
        "best floor": f"{cell(by_method[best][METRIC])} {best}",
        "ratio": f"{predict.mean() / means['floor'].max():.2f}",
        "one draw": cell(by_method["one draw"][METRIC]),
        "medoid of 8": cell(by_method["medoid of 8"][METRIC]),
        "consensus of 8": cell(by_method["consensus of 8"][METRIC]),
        "spread of one draw": cell(by_method["one draw"]["spread"]),
        "seconds a seed": f"{by_method['predict']['seconds'].mean():.0f}",
    }


def main() -> None:
    table = pd.DataFrame([row(path) for path in sorted(RESULTS.glob(f"{PREFIX}*.csv"))])
    lines = ["| " + " | ".join(table.columns) + " |", "|---" * len(table.columns) + "|"]
    lines += ["| " + " | ".join(values) + " |" for values in table.to_numpy()]
    text = (
        f"`{METRIC}` (chance 0), mean ± sd over three seeds; best floor by its mean.\n\n"
        + "\n".join(lines)
        + "\n"
    )
    (RESULTS / "summary.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
