import numpy as np
import pytest
import torch
from scipy.stats import ortho_group

from alphastomics import metrics
from alphastomics.diffusion_model.geometry import centroid, kabsch


@pytest.mark.parametrize("d", [2, 3])
def test_kabsch_recovers_a_rotation_and_ignores_weightless_points(d):
    generator = torch.Generator().manual_seed(0)
    moving = torch.randn(1, 30, d, generator=generator)
    rotation = torch.tensor(ortho_group.rvs(d, random_state=0)).float()
    fixed = moving @ rotation
    fixed[:, 20:] = 100.0
    weight = (torch.arange(30) < 20).float()[None]
    torch.testing.assert_close(kabsch(moving, fixed, weight)[0], rotation, atol=1e-5, rtol=0)


@pytest.mark.parametrize("d", [2, 3])
def test_kabsch_without_reflection_is_a_rotation(d):
    generator = torch.Generator().manual_seed(1)
    moving = torch.randn(8, 30, d, generator=generator)
    mirrored = moving.clone()
    mirrored[..., 0] *= -1
    rotation = kabsch(moving, mirrored, torch.ones(8, 30), allow_reflection=False)
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(8))


def test_kabsch_is_the_superposition_of_the_metrics():
    rng = np.random.default_rng(0)
    moving, fixed = rng.normal(size=(2, 25, 3))
    moving, fixed = moving - moving.mean(0), fixed - fixed.mean(0)
    rotation = kabsch(
        torch.tensor(moving)[None].float(), torch.tensor(fixed)[None].float(), torch.ones(1, 25)
    )
    expected = metrics.superpose(moving, fixed)
    np.testing.assert_allclose(moving @ rotation[0].numpy(), expected, atol=1e-5)


def test_centroid_is_weighted():
    points = torch.tensor([[[0.0, 0.0], [4.0, 2.0], [99.0, 99.0]]])
    weight = torch.tensor([[1.0, 3.0, 0.0]])
    torch.testing.assert_close(centroid(points, weight), torch.tensor([[[3.0, 1.5]]]))


def test_kabsch_survives_points_without_extent():
    zero = torch.zeros(2, 5, 2)
    rotation = kabsch(zero, zero, torch.ones(2, 5))
    identity = torch.eye(2).expand(2, 2, 2)
    torch.testing.assert_close(rotation @ rotation.mT, identity)
