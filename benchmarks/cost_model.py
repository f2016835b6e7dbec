"""Time and memory beside those of a model that trains and samples as LUNA does.

    python benchmarks/cost_model.py

LUNA (Yu et al. 2025) learns the distances between all cells of a section, a matrix of n x n, and
draws in 1,000 steps. Its costs are restated here with the blocks of this package, in the sizes of
its published configuration: 8 layers of width 256 with linear attention, each with a feed-forward
of 4 x 256 in its attention and one of 256 outside, in place of which stands one of 5 x 256. It is
not LUNA's code, and nothing is said of its quality. Each number is measured in a process of its
own.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time

import pandas as pd
import torch
from common import Peak, make_parser, start
from torch import Tensor, nn

import alphastomics as al
from alphastomics.config import Architecture
from alphastomics.nn.transformer import SetTransformer

WIDTH, STEPS = 256, 1000
SIZE = Architecture(WIDTH, num_heads=16, num_layers=8, d_ff=5 * WIDTH, attention="linear")
TIMED_STEPS = 5  # of the 1,000, which are alike


class Restated(nn.Module):
    """A denoiser of positions given expression, which sees all cells of a section."""

    def __init__(self, num_genes: int) -> None:
        super().__init__()
        self.expression = nn.Linear(num_genes, WIDTH)
        self.position = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, WIDTH))
        self.transformer = SetTransformer(SIZE)
        self.head = nn.Linear(WIDTH, 2)

    def forward(self, expression: Tensor, position: Tensor) -> Tensor:
        tokens, _ = self.transformer(self.expression(expression) + self.position(position))
        return self.head(tokens)


def restated_step(n_cells: int, num_genes: int) -> None:
    """One training step on all distances."""
    module = Restated(num_genes)
    optimizer = torch.optim.AdamW(module.parameters())
    expression, position = torch.randn(1, n_cells, num_genes), torch.randn(1, n_cells, 2)
    placed = module(expression, position + torch.randn_like(position))
    loss = (torch.cdist(placed, placed) - torch.cdist(position, position)).square().mean()
    loss.backward()
    optimizer.step()


@torch.inference_mode()
def restated_draw(n_cells: int, num_genes: int) -> None:
    """Take some of the 1,000 steps of a draw."""
    module = Restated(num_genes).eval()
    expression, position = torch.randn(1, n_cells, num_genes), torch.randn(1, n_cells, 2)
    for _ in range(TIMED_STEPS):
        position = position + 0.01 * (module(expression, position) - position)


def own_model(n_cells: int, num_genes: int, folder: str) -> tuple[al.AlphaSTomics, object]:
    """Load the trained model, and simulate cells without positions."""
    tissue = al.datasets.simulate_tissue(1, n_cells, num_genes, seed=1)
    al.AlphaSTomics.setup_anndata(tissue)
    return al.AlphaSTomics.load(folder, tissue), tissue


def measure(what: str, args: argparse.Namespace) -> dict[str, float]:
    """Time and memory of one thing; those of a training step are of the second one."""
    quiet = {"progress_bar": False}
    if what.startswith("restated"):
        act = restated_step if what == "restated step" else restated_draw
        n_cells = args.train_cells if what == "restated step" else args.placed_cells

        def run() -> None:
            act(n_cells, args.num_genes)

    elif what.startswith("own step"):
        model, _ = own_model(args.train_cells, args.num_genes, args.folder)
        options = {"activation_checkpointing": what.endswith("recomputed")}

        def run() -> None:
            model.train(
                max_steps=1,
                batch_size=1,
                set_size=args.train_cells,
                sets_per_section=1,
                **options,
                **quiet,
            )

    else:
        model, cells = own_model(args.placed_cells, args.num_genes, args.folder)
        place = model.sample if what == "own draw" else model.predict

        def run() -> None:
            place(cells, mode="expr_to_pos", **quiet)

    if "draw" not in what or what.startswith("own"):
        run()  # warm up
    peak, began = Peak(), time.perf_counter()
    peak.start()
    run()
    took = time.perf_counter() - began
    if what == "restated draw":
        took *= STEPS / TIMED_STEPS
    return {"seconds": took, "MB": peak.end()}


WHAT = (
    "restated step",
    "own step",
    "own step, recomputed",
    "restated draw",
    "own draw",
    "own predict",
)


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--train_cells", type=int, default=8000)
    parser.add_argument("--placed_cells", type=int, default=5000)
    parser.add_argument("--num_genes", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    args = start(parser)
    if args.one is not None:
        print(pd.Series(measure(args.one, args)).to_json(), flush=True)
        return

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        atlas = al.datasets.simulate_tissue(2, 2000, args.num_genes, seed=0)
        al.AlphaSTomics.setup_anndata(atlas)
        model = al.AlphaSTomics(atlas, training_mode="expr_to_pos")
        model.train(max_steps=20, progress_bar=False)
        model.save(f"{folder}/model")
        for repeat in range(args.repeats):
            for what in WHAT:
                command = [sys.executable, __file__, "--one", what, "--folder", f"{folder}/model"]
                for name in ("train_cells", "placed_cells", "num_genes", "threads"):
                    command += [f"--{name}", str(getattr(args, name))]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                values = pd.read_json(done.stdout.splitlines()[-1], typ="series").to_dict()
                rows.append({"repeat": repeat, "what": what, **values})
                print(rows[-1], flush=True)
    table = pd.DataFrame(rows)
    table.round(3).to_csv(args.out / "cost_model.csv", index=False)
    page = page_of(table.groupby("what")[["seconds", "MB"]].median(), args)
    (args.out / "cost_model.md").write_text(page)
    print(page)


def page_of(median: pd.DataFrame, args: argparse.Namespace) -> str:
    names = {
        "restated step": f"training step, {args.train_cells:,} cells: restated",
        "own step": "the same: alphastomics",
        "own step, recomputed": "the same: alphastomics, activation_checkpointing",
        "restated draw": f"placing {args.placed_cells:,} cells: restated, {STEPS:,} steps",
        "own draw": "the same: alphastomics, sample",
        "own predict": "the same: alphastomics, predict",
    }
    lines = ["| | seconds | times less | MB | times less |", "|---|---|---|---|---|"]
    for what, name in names.items():
        one, other = (
            median.loc[what],
            median.loc[f"restated {'step' if 'step' in what else 'draw'}"],
        )
        less = [f"{other[c] / one[c]:,.1f}" if what.startswith("own") else "" for c in median]
        lines.append(
            f"| {name} | {one['seconds']:,.2f} | {less[0]} | {one['MB']:,.0f} | {less[1]} |"
        )
    return (
        "# Cost, compared with a model that trains on all distances and draws in 1,000 steps\n\n"
        f"A restatement of LUNA's costs with this package's blocks, not LUNA itself (see "
        f"`benchmarks/cost_model.py`); {TIMED_STEPS} of its {STEPS:,} steps are timed. Median of "
        f"{args.repeats} runs; memory is the peak above what model and cells take. "
        f"{args.num_genes} genes, CPU, {args.threads} threads, torch {torch.__version__}.\n\n"
        + "\n".join(lines)
        + "\n"
    )


if __name__ == "__main__":
    main()
