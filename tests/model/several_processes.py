"""Trains and places with several processes, and then fails in one; run by test_devices.py.

python several_processes.py N_PROCESSES FOLDER
"""

import os
import sys
from pathlib import Path

import lightning.pytorch as pl
import torch

import alphastomics as al


class Gradients(pl.Callback):
    """Keeps the gradients of every step; one process may fail in the third."""

    def __init__(self, failing=None):
        self.kept, self.failing = [], failing

    def on_before_optimizer_step(self, trainer, plan, optimizer):
        if trainer.global_rank == self.failing and len(self.kept) == 2:
            raise RuntimeError("this process is out of luck")
        gradients = {n: p.grad for n, p in plan.module.named_parameters() if p.grad is not None}
        self.kept.append({name: gradient.clone() for name, gradient in gradients.items()})


def train(atlas, n_processes, gradients, **options):
    """A model, and what Lightning needs to know to share work."""
    model = al.AlphaSTomics(atlas, d_model=16, num_heads=2, num_layers=1, d_ff=16)
    several = {"accelerator": "cpu", "devices": n_processes} if n_processes > 1 else None
    model.train(
        max_steps=6,
        batch_size=2,
        set_size=64,
        sets_per_section=4,
        progress_bar=False,
        callbacks=[gradients],
        **(several or {"accumulate_grad_batches": 2}),
        **options,
    )
    return model, several


def learn_and_place(n_processes, folder):
    """Write what the process of each rank got; the training data are returned."""
    tissue = al.datasets.simulate_tissue(n_sections=4, n_cells=300, n_genes=40)
    test = (tissue.obs["section"] == "section_3").to_numpy()
    atlas, cells = tissue[~test].copy(), tissue[test].copy()
    al.AlphaSTomics.setup_anndata(atlas)
    gradients = Gradients()
    model, distributed = train(
        atlas,
        n_processes,
        gradients,
        val_sections=["section_2"],
        checkpoint_dir=folder / "checkpoints",
    )
    learned = {"gradients": gradients.kept, "weights": model.module.state_dict()}
    into = folder / f"{os.environ.get('LOCAL_RANK', '0')}.pt"
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
    return atlas


if __name__ == "__main__":
    n_processes, folder = int(sys.argv[1]), Path(sys.argv[2])
    atlas = learn_and_place(n_processes, folder)
    train(atlas, n_processes, Gradients(failing=n_processes - 1), checkpoint_dir=folder / "failed")
    (folder / "survived").touch()
