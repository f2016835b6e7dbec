import pytest
import torch

from alphastomics.diffusion_model import MaskedDiffusionModule
from alphastomics.diffusion_model.batch import CellBatch

B, N, G = 2, 12, 7


def build_module(position_dim=2, **options):
    """An untrained network of which no part is zero, the priors neither."""
    torch.manual_seed(0)
    size = {"d_model": 16, "num_heads": 2, "num_layers": 2, "d_ff": 32}
    module = MaskedDiffusionModule(
        G, position_dim, num_labels=2, num_batches=2, **{**size, **options}
    )
    with torch.no_grad():
        for parameter in module.parameters():
            if not parameter.any():
                parameter.normal_(std=0.2)
        for prior in (module.smoother.weight, module.genes.loading, module.genes.smooth_weights):
            prior.normal_(std=0.3)
        factors = module.factors.n_factors
        module.factors.encoder.copy_(torch.eye(G, factors))
        module.factors.decoder.copy_(torch.eye(factors, G))
    return module.eval()


@pytest.fixture(params=[2, 3], ids=["2D", "3D"])
def module(request):
    return build_module(request.param)


@pytest.fixture
def new_module():
    """A function that builds networks with options."""
    return build_module


def build_batch(
    position_dim=2,
    *,
    n_sets=B,
    n_cells=N,
    seed=0,
    padding=0,
    position_known=0,
    expression_known=None,
    located=None,
):
    """Sets whose first cells have a known position, a known expression, a position at all."""
    generator = torch.Generator().manual_seed(seed)
    n = n_cells + padding
    rate = 5 * torch.rand(n_sets, n, G, generator=generator)
    position = torch.randn(n_sets, n, position_dim, generator=generator)
    cell = torch.arange(n).expand(n_sets, n)
    mask = cell < n_cells
    zeros = torch.zeros(n_sets, n, dtype=torch.long)
    return CellBatch(
        values=torch.poisson(rate, generator=generator) * mask[..., None],
        measured=mask[..., None].expand_as(rate),
        position=position,
        located=cell < (n_cells if located is None else located),
        position_known=cell < position_known,
        expression_known=cell < (n_cells if expression_known is None else expression_known),
        label=zeros,
        batch=zeros,
        section=torch.arange(n_sets) % 2,
        scope=torch.zeros(n_sets, dtype=torch.long),
        cell_mask=mask if padding else None,
    )


@pytest.fixture
def new_batch():
    """A function that builds batches of sets."""
    return build_batch
