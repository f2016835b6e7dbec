"""Superposition of points, and the poses of sections in the common frame."""

import numpy as np
import pytest
import torch
from scipy.stats import ortho_group

from alphastomics import metrics
from alphastomics.diffusion_model.alignment import (
    Pose,
    SectionPoses,
    centroid,
    kabsch,
    procrustes,
    random_orthogonal,
    superpose,
)


class TestKabsch:
    @pytest.mark.parametrize("d", [2, 3])
    def test_it_recovers_a_rotation_and_ignores_points_without_weight(self, d):
        generator = torch.Generator().manual_seed(0)
        moving = torch.randn(1, 30, d, generator=generator)
        rotation = torch.tensor(ortho_group.rvs(d, random_state=0)).float()
        fixed = moving @ rotation
        fixed[:, 20:] = 100.0
        weight = (torch.arange(30) < 20).float()[None]
        torch.testing.assert_close(kabsch(moving, fixed, weight)[0], rotation, atol=1e-5, rtol=0)

    @pytest.mark.parametrize("d", [2, 3])
    def test_without_reflection_it_is_a_rotation(self, d):
        generator = torch.Generator().manual_seed(1)
        moving = torch.randn(8, 30, d, generator=generator)
        mirrored = moving.clone()
        mirrored[..., 0] *= -1
        rotation = kabsch(moving, mirrored, torch.ones(8, 30), allow_reflection=False)
        torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(8))

    def test_without_reflection_no_rotation_is_better(self):
        generator = torch.Generator().manual_seed(1)
        moving = torch.randn(8, 30, 2, generator=generator) * torch.tensor([1.0, 0.5])
        fixed = moving * torch.tensor([1.0, -1.0]) @ random_orthogonal((8, 2), generator)
        weight = torch.ones(8, 30)
        best = kabsch(moving, fixed, weight, allow_reflection=False)
        error = (moving @ best - fixed).square().sum((1, 2))
        for angle in torch.linspace(0, 2 * torch.pi, 60):
            cos, sin = angle.cos(), angle.sin()
            turned = moving @ torch.stack([torch.stack([cos, sin]), torch.stack([-sin, cos])])
            assert (error <= (turned - fixed).square().sum((1, 2)) + 1e-3).all()

    def test_it_is_the_superposition_of_the_metrics(self):
        rng = np.random.default_rng(0)
        moving, fixed = rng.normal(size=(2, 25, 3))
        moving, fixed = moving - moving.mean(0), fixed - fixed.mean(0)
        rotation = kabsch(
            torch.tensor(moving)[None].float(), torch.tensor(fixed)[None].float(), torch.ones(1, 25)
        )
        expected = metrics.superpose(moving, fixed)
        np.testing.assert_allclose(moving @ rotation[0].numpy(), expected, atol=1e-5)

    @pytest.mark.parametrize("allow_reflection", [True, False])
    def test_points_without_extent_still_give_an_orthogonal_matrix(self, allow_reflection):
        zero = torch.zeros(2, 5, 2)
        rotation = kabsch(zero, zero, torch.ones(2, 5), allow_reflection=allow_reflection)
        identity = torch.eye(2).expand(2, 2, 2)
        torch.testing.assert_close(rotation @ rotation.mT, identity)


def test_centroid_is_weighted():
    points = torch.tensor([[[0.0, 0.0], [4.0, 2.0], [99.0, 99.0]]])
    weight = torch.tensor([[1.0, 3.0, 0.0]])
    torch.testing.assert_close(centroid(points, weight), torch.tensor([[[3.0, 1.5]]]))


@pytest.mark.parametrize("d", [2, 3])
def test_a_pose_is_inverted(d):
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(4, 6, d, generator=generator)
    pose = Pose(random_orthogonal((4, d), generator), torch.randn(4, 1, d, generator=generator))
    torch.testing.assert_close(pose.invert(pose.apply(points)), points, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("d", [2, 3])
def test_superpose_recovers_rotation_mirror_image_and_shift(d):
    generator = torch.Generator().manual_seed(0)
    moving = torch.randn(6, 20, d, generator=generator)
    pose = Pose(random_orthogonal((6, d), generator), torch.randn(6, 1, d, generator=generator))
    fixed, weight = pose.apply(moving), (torch.arange(20) < 15).float().expand(6, 20)
    fixed[:, 15:] = 50.0
    found = superpose(moving, fixed, weight, allow_reflection=True)
    torch.testing.assert_close(list(found), list(pose), atol=1e-4, rtol=0)
    rotated = superpose(moving, fixed, weight, allow_reflection=False)
    torch.testing.assert_close(torch.linalg.det(rotated.rotation), torch.ones(6))


def test_procrustes_recovers_scale_as_well():
    generator = torch.Generator().manual_seed(0)
    moving = torch.randn(3, 20, 2, generator=generator)
    turns = random_orthogonal((3, 2), generator)
    fixed = 2.5 * moving @ turns + torch.tensor([4.0, -1.0])
    torch.testing.assert_close(procrustes(moving, fixed), fixed, atol=1e-4, rtol=0)
    mirrored = moving * torch.tensor([1.0, -1.0])
    error = (procrustes(mirrored, moving, allow_reflection=False) - moving).square().mean()
    assert error > 0.1
    assert torch.isfinite(procrustes(torch.zeros(1, 5, 2), torch.randn(1, 5, 2))).all()


@pytest.mark.parametrize("d", [2, 3])
def test_random_orthogonal_matrices_are_uniform_and_half_of_them_mirrored(d):
    generator = torch.Generator().manual_seed(0)
    turns = random_orthogonal((2000, d), generator)
    torch.testing.assert_close(turns @ turns.mT, torch.eye(d).expand(2000, d, d))
    assert (torch.linalg.det(turns) < 0).float().mean() == pytest.approx(0.5, abs=0.04)
    torch.testing.assert_close(turns.mean(0), torch.zeros(d, d), atol=0.06, rtol=0)
    rotations = random_orthogonal((500, d), generator, reflect=False)
    torch.testing.assert_close(torch.linalg.det(rotations), torch.ones(500))


class TestSectionPoses:
    """Sections of which random sets are predicted in a common frame."""

    SECTIONS, CELLS = 3, 40

    def true_pose(self, d, *, reflect):
        generator = torch.Generator().manual_seed(5)
        rotation = random_orthogonal((self.SECTIONS, d), generator, reflect=reflect)
        if reflect:
            rotation[0, :, 0] *= -torch.linalg.det(rotation[0]).sign()  # one is a mirror image
        return Pose(rotation, torch.randn(self.SECTIONS, 1, d, generator=generator))

    def sets(self, pose, n_sets=12, *, noise=0.0, seed=0):
        """Number of the section, true and predicted positions, and which cells count."""
        generator = torch.Generator().manual_seed(seed)
        section = torch.arange(n_sets) % self.SECTIONS
        true = torch.randn(n_sets, self.CELLS, pose.shift.shape[-1], generator=generator)
        predicted = Pose(pose.rotation[section], pose.shift[section]).apply(true)
        predicted = predicted + noise * torch.randn(predicted.shape, generator=generator)
        weight = torch.rand(n_sets, self.CELLS, generator=generator) > 0.3
        predicted[~weight] = 100.0
        return section, true, predicted, weight

    def fitted(self, *sets, d):
        poses = SectionPoses(d)
        poses.start(self.SECTIONS)
        for each in sets:
            poses.update(poses.measure(*each))
        return poses

    @pytest.mark.parametrize("d", [2, 3])
    @pytest.mark.parametrize("allow_reflection", [True, False])
    def test_rotation_mirror_image_and_shift_are_recovered(self, d, allow_reflection):
        expected = self.true_pose(d, reflect=allow_reflection)
        batches = [self.sets(expected, noise=0.1, seed=seed) for seed in range(8)]
        poses = self.fitted(*batches, d=d)
        found = poses.pose(torch.arange(self.SECTIONS), allow_reflection=allow_reflection)
        torch.testing.assert_close(list(found), list(expected), atol=0.03, rtol=0)

    def test_without_reflection_a_mirrored_section_has_the_best_rotation(self):
        mirrored = self.true_pose(2, reflect=True)
        poses = self.fitted(self.sets(mirrored), d=2)
        found = poses.pose(torch.tensor([0]), allow_reflection=False)
        assert torch.linalg.det(mirrored.rotation[0]) < 0
        torch.testing.assert_close(torch.linalg.det(found.rotation), torch.ones(1))

    def test_poses_are_given_set_by_set(self):
        poses = self.fitted(self.sets(self.true_pose(2, reflect=True)), d=2)
        all_sections = poses.pose(torch.arange(3), allow_reflection=True)
        section = torch.tensor([2, 0, 2, 1])
        for found, expected in zip(
            poses.pose(section, allow_reflection=True), all_sections, strict=True
        ):
            assert torch.equal(found, expected[section])

    def test_a_section_without_statistics_stays_as_it_is(self):
        section, *rest = self.sets(self.true_pose(2, reflect=True))
        poses = self.fitted((torch.zeros_like(section), *rest), d=2)
        points = torch.randn(1, 5, 2)
        for allow_reflection in (True, False):
            pose = poses.pose(torch.tensor([1]), allow_reflection=allow_reflection)
            torch.testing.assert_close(pose.apply(points), points)

    def test_statistics_add_up_over_batches(self):
        everything = self.sets(self.true_pose(2, reflect=True))
        poses = self.fitted(d=2)
        parts = [poses.measure(*(f[half] for f in everything)) for half in (slice(5), slice(5, 12))]
        torch.testing.assert_close(sum(parts), poses.measure(*everything))

    def test_old_statistics_fade_only_in_sections_with_new_ones(self):
        old, new = (self.true_pose(2, reflect=reflect) for reflect in (True, False))
        poses = self.fitted(*[self.sets(old)] * 20, d=2)
        before = poses.statistics.clone()
        for seed in range(60):
            section, *rest = self.sets(new, n_sets=2, seed=seed)
            poses.update(poses.measure(section, *rest))
        assert torch.equal(poses.statistics[2], before[2])
        found = poses.pose(torch.arange(2), allow_reflection=True)
        torch.testing.assert_close(found.rotation, new.rotation[:2], atol=0.02, rtol=0)
        torch.testing.assert_close(found.shift, new.shift[:2], atol=0.05, rtol=0)

    def test_they_are_saved_with_the_network_and_forgotten_at_a_new_start(self):
        poses = self.fitted(self.sets(self.true_pose(3, reflect=True)), d=3)
        loaded = SectionPoses(3)
        assert len(loaded) == 0
        loaded.load_state_dict(poses.state_dict())
        assert len(loaded) == self.SECTIONS
        section = torch.arange(self.SECTIONS)
        both = [p.pose(section, allow_reflection=True) for p in (loaded, poses)]
        torch.testing.assert_close(list(both[0]), list(both[1]))
        loaded.start(5)
        assert len(loaded) == 5
        assert not loaded.statistics.any()
