"""One row per held-out section from the CSVs of benchmarks/placement.py.

    python benchmarks/summarise.py

Writes benchmarks/results/summary.md, and its table into README.md and its translation, between the
comments that name it.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from placement import cell

RESULTS = Path(__file__).parent / "results"
METRIC, CONTACTS = "distance_spearman", "contact_precision@1%"
PREFIX = "placement_"
ROOT = Path(__file__).parents[1]
START, END = "<!-- benchmarks/results/summary.md -->", "<!-- end -->"
TRANSLATED = {
    "held out": "留出",
    "seeds": "种子数",
    "its mean": "条件均值",
    "best baseline": "最好的基准",
    "ratio": "比值",
    "contacts": "接触",
    "best baseline's": "基准的接触",
    "one draw": "一次抽样",
    "medoid's spread": "medoid 的离散度",
    "in the radius": "半径内",
    "seconds": "秒",
}


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


def replace_between(path: Path, text: str) -> None:
    """Put a text between the comments of a page."""
    page = path.read_text()
    before, _, rest = page.partition(START)
    _, _, after = rest.partition(END)
    path.write_text(f"{before}{START}\n{text}{END}{after}")


def main() -> None:
    paths = [p for p in sorted(RESULTS.glob(f"{PREFIX}*.csv")) if "rotated" not in p.stem]
    table = pd.DataFrame([row(path) for path in paths])
    lines = ["| " + " | ".join(table.columns) + " |", "|---" * len(table.columns) + "|"]
    lines += ["| " + " | ".join(values) + " |" for values in table.to_numpy()]
    text = (
        f"`{METRIC}` (chance 0) of `predict`, of its conditional mean and of one draw, and "
        f"`{CONTACTS}` (chance 0.01) of `predict`, mean ± sd over seeds, each beside the baseline "
        "that has the best mean; share of the cells in the calibrated 90 % radius; seconds of "
        "training on one core, other jobs beside.\n\n" + "\n".join(lines) + "\n"
    )
    (RESULTS / "summary.md").write_text(text)
    replace_between(ROOT / "README.md", text)
    names = [TRANSLATED.get(column, column) for column in table.columns]
    lines[0] = "| " + " | ".join(names) + " |"
    replace_between(ROOT / "docs" / "README.zh.md", "\n".join(lines) + "\n")
    print(text)


if __name__ == "__main__":
    main()
