"""Trains and places with as many processes as asked for; run by test_devices.py.

python several_processes.py N_PROCESSES FOLDER [fails]
"""

import os
import sys
from pathlib import Path

import lightning.pytorch as pl
import torch

import alphastomics as al


class Gradients(pl.Callback):
    """Keeps the gradients of every step; one process fails in the third, if asked to."""

    def __init__(self, failing):
        self.kept, self.failing = [], failing

    def on_before_optimizer_step(self, trainer, plan, optimizer):
        if trainer.global_rank == self.failing and len(self.kept) == 2:
            raise RuntimeError("this process is out of luck")
        gradients = {n: p.grad for n, p in plan.module.named_parameters() if p.grad is not None}
        self.kept.append({name: gradient.clone() for name, gradient in gradients.items()})


def main(n_processes, folder, how):
    tissue = al.datasets.simulate_tissue(n_sections=4, n_cells=300, n_genes=40)
    test = (tissue.obs["section"] == "section_3").to_numpy()
    atlas, cells = tissue[~test].copy(), tissue[test].copy()
    al.AlphaSTomics.setup_anndata(atlas)
    model = al.AlphaSTomics(atlas, d_model=16, num_heads=2, num_layers=1, d_ff=16)
    gradients = Gradients(n_processes - 1 if how == "fails" else None)
    several = {"accelerator": "cpu", "devices": n_processes}
    shared = several if n_processes > 1 else {"accumulate_grad_batches": 2}
    model.train(
        max_steps=6,
        batch_size=2,
        set_size=64,
        sets_per_section=4,
        val_sections=["section_2"],
        progress_bar=False,
        callbacks=[gradients],
        checkpoint_dir=folder / "checkpoints",
        **shared,
    )
    learned = {"gradients": gradients.kept, "weights": model.module.state_dict()}
    into = folder / f"{os.environ.get('LOCAL_RANK', '0')}.pt"
    distributed = several if n_processes > 1 else None
    quiet = {"max_cells_per_set": 64, "progress_bar": False, "distributed": distributed}
    model.predict(cells, mode="expr_to_pos", **quiet)
    model.sample(cells, mode="joint", n_samples=2, n_rounds=2, n_steps=3, **quiet)
    quiet["max_cells_per_set"] = 300  # a single set, and nothing to do for the second process
    model.predict(cells, mode="expr_to_pos", key_added="together", **quiet)
    torch.save(
        {
            **learned,
            "together": torch.from_numpy(cells.obsm["together"]),
            "predicted": torch.from_numpy(cells.obsm["spatial_predicted"]),
            "sampled": torch.from_numpy(cells.obsm["spatial_sampled"]),
            "expression": torch.from_numpy(cells.layers["expression_sampled"]),
        },
        into,
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:] or [""])
