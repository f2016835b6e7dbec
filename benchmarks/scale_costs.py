"""What 10 and 100 million cells would cost on 1, 8 and 64 GPUs: computed, not measured.

    python benchmarks/scale_costs.py

Counts the operations of the network for a cell, measures what the host does for a set (reading its
rows from a file, making tensors of them) and assumes the rate that a GPU reaches. Run
`python benchmarks/scaling.py --device cuda` to measure it.
"""

from __future__ import annotations

import tempfile
import time

import anndata as ad
import pandas as pd
import torch
from common import make_parser, start
from scaling import one_section
from torch.utils.flop_counter import FlopCounterMode

import alphastomics as al
from alphastomics.config import N_STEPS, POSITION_ROUNDS, TrainConfig
from alphastomics.diffusion_model.complexity import account
from alphastomics.diffusion_model.losses import DRAWS_PER_CELL
from alphastomics.diffusion_model.module import MaskedDiffusionModule
from alphastomics.model._set_reader import SetReader
from alphastomics.model._sets import inference_sets
from alphastomics.model._task import MAX_SET

BYTES_PER_CELL = 200  # in each process: name, section, position and result, expression on disk
NONZERO_PER_CELL = 150  # of 500 genes, in the simulated tissue
SET_SIZE = TrainConfig().set_size
TRAINING = 3  # forward passes' worth of operations of a forward and a backward pass


def matmul_rate(n: int = 4096) -> float:
    """Operations per second of one large matrix product."""
    a = torch.randn(n, n)
    a @ a
    began = time.perf_counter()
    for _ in range(3):
        a @ a
    return 3 * 2 * n**3 / (time.perf_counter() - began)


def host_seconds(num_genes: int) -> tuple[float, float]:
    """Time to make the tensors of a set, of cells in memory and of cells in a file."""
    cells = one_section(20 * MAX_SET, num_genes, 0)
    cells.obsm["spatial"] = cells.obsm.pop("true")
    al.AlphaSTomics.setup_anndata(cells, section_key=None)
    model = al.AlphaSTomics(cells)
    taken = []
    with tempfile.TemporaryDirectory() as folder:
        cells.write_h5ad(f"{folder}/cells.h5ad")
        for query in (cells, ad.read_h5ad(f"{folder}/cells.h5ad", backed="r")):
            task = model._reader.task(query, "expr_to_pos", predicts=True)
            sets = list(inference_sets(task, MAX_SET))
            reader = SetReader(model.module, task)
            reader.read(sets[0])
            began = time.perf_counter()
            for one in sets[1:]:
                reader.read(one)
            taken.append((time.perf_counter() - began) / (len(sets) - 1))
    return taken[0], taken[1]


def head_flops(module: MaskedDiffusionModule, n: int = 64) -> tuple[float, float]:
    """Operations a cell of the position head: of a step of training, and of one of a draw."""
    head = module.position_head
    tokens, noisy = torch.zeros(n, module.architecture.d_model), torch.zeros(n, head.size)
    sigma = torch.ones(1)
    counts = []
    with torch.no_grad():
        condition = head.condition(tokens)
        for denoise in (head, head.guided):
            with FlopCounterMode(display=False) as counter:
                denoise(noisy, sigma, condition)
            counts.append(counter.get_total_flops() / n)
    return counts[0], counts[1]


def duration(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--num_genes", type=int, default=500)
    parser.add_argument("--peak_tflops", type=float, default=67.0, help="of a GPU, fp32")
    parser.add_argument("--share", type=float, default=0.1, help="of the peak that is reached")
    args = start(parser)

    module = MaskedDiffusionModule(args.num_genes)
    per_cell = account(module, MAX_SET).flops / MAX_SET
    head, step = head_flops(module)
    trained = account(module, SET_SIZE).flops / SET_SIZE
    measured = pd.read_csv(args.out / "scaling.csv").iloc[-1]
    rate, on_cpu = matmul_rate(), measured["cells/s"] * per_cell
    on_gpu = args.share * args.peak_tflops * 1e12
    in_memory, in_file = host_seconds(args.num_genes)
    host = in_file / MAX_SET
    work = {
        "predict": per_cell,
        f"a draw (rounds: {POSITION_ROUNDS}, steps: {N_STEPS})": POSITION_ROUNDS * per_cell
        + N_STEPS * step,
        "training, once through all cells": TRAINING * (trained + DRAWS_PER_CELL * head),
    }
    lines = ["| cells | | 1 GPU | 8 GPUs | 64 GPUs |", "|---|---|---|---|---|"]
    for cells in (10**7, 10**8):
        for name, flops in work.items():
            times = [duration(cells * (flops / on_gpu + host) / n) for n in (1, 8, 64)]
            lines.append(f"| {cells:,} | {name} | {' | '.join(times)} |")
        memory = cells * BYTES_PER_CELL / 1e9
        disk = cells * NONZERO_PER_CELL * 8 / 1e9
        lines.append(
            f"| {cells:,} | memory of each process; file | {memory:.0f} GB; {disk:.0f} GB | | |"
        )
    page = (
        "# Cost of 10 and 100 million cells, computed\n\nNothing here was measured on a GPU. "
        "Assumptions:\n\n"
        f"- the default network, {args.num_genes} genes, sets of {MAX_SET:,} cells: "
        f"{per_cell / 1e6:.1f} MFLOP per cell and pass (counted), {step / 1e6:.2f} per step of the "
        f"position head; training in sets of {SET_SIZE}: {trained / 1e6:.1f} MFLOP and "
        f"{DRAWS_PER_CELL} noise levels of the head a cell, forward and backward;\n"
        f"- a GPU of {args.peak_tflops:g} TFLOP/s in full precision of which {args.share:.0%} are "
        f"reached: on this machine `predict` of {measured['cells']:,.0f} cells ran "
        f"{measured['cells/s']:,.0f} cells/s, {on_cpu / rate:.0%} of the rate of large matrix "
        f"products ({rate / 1e9:.0f} GFLOP/s), all else included;\n"
        f"- the host makes the tensors of a set of cells in a file in {1000 * in_file:.0f} ms (in "
        f"memory {1000 * in_memory:.0f} ms; measured here, one set of random rows after the "
        "other), and the GPU waits for it;\n"
        "- time falls with the number of GPUs: sets wait for each other only at the end;\n"
        f"- {BYTES_PER_CELL} bytes per cell in each process, the expression read from a file on "
        f"disk of {NONZERO_PER_CELL} nonzero values per cell, 8 bytes each.\n\n"
        + "\n".join(lines)
        + "\n"
    )
    (args.out / "scale_costs.md").write_text(page)
    print(page)


if __name__ == "__main__":
    main()
