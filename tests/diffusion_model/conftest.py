import pytest
import torch

from alphastomics.diffusion_model import MaskedDiffusionModule

B, N, G = 2, 12, 7


@pytest.fixture(params=[2, 3], ids=["2D", "3D"])
def module(request):
    """An untrained network whose outputs are not zero."""
    torch.manual_seed(0)
    module = MaskedDiffusionModule(
        G,
        request.param,
        num_labels=2,
        num_batches=2,
        d_model=16,
        num_heads=2,
        num_layers=2,
        d_ff=32,
    ).eval()
    for head in (module.position_head, module.expression_head):
        torch.nn.init.normal_(head.weight, std=0.2)
    return module
