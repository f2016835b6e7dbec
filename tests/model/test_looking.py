"""What the network makes of cells, beside the answer."""

import numpy as np
import pytest

import alphastomics as al

QUIET = {"progress_bar": False}


def test_cells_are_shared_out_between_experts(tissue):
    tissue = tissue.copy()
    al.AlphaSTomics.setup_anndata(tissue)
    model = al.AlphaSTomics(tissue, d_model=16, num_heads=2, num_layers=2, d_ff=16, num_experts=4)
    model.train(max_steps=2, set_size=64, **QUIET)
    shares = model.get_expert_utilisation(tissue)
    assert shares.shape == (2, 4)
    assert (shares.index.name, shares.columns.name) == ("block", "expert")
    np.testing.assert_allclose(shares.sum(1), 1)
    router = model.module.transformer.blocks[1].feed_forward.router
    router.weight.data.zero_()  # ties: top-k takes the same two of four
    assert sorted(model.get_expert_utilisation(tissue).loc[2]) == [0, 0, 0.5, 0.5]


def test_a_dense_model_has_no_experts(trained):
    model, cells = trained
    with pytest.raises(ValueError, match="has no experts"):
        model.get_expert_utilisation(cells)
