"""Between measured units and the standardized space."""

import numpy as np
import pytest
import torch
from scipy import sparse

from alphastomics.diffusion_model.transforms import ExpressionTransform, PositionTransform

G = 7
ALL = np.ones(G, dtype=bool)


def counts(n=500, seed=0):
    """Counts of genes of different abundance in cells of different depth."""
    rng = np.random.default_rng(seed)
    mean = np.linspace(2, 14, G) * rng.lognormal(0, 0.3, (n, 1))
    return torch.from_numpy(rng.poisson(mean)).float()


def fitted(values="counts", panels=None):
    transform = ExpressionTransform(G, values)
    panels = panels or [(counts(), ALL)]
    transform.fit([(sparse.csr_matrix(x.numpy() * m), m) for x, m in panels])
    return transform


def lacking(*genes):
    panel = ALL.copy()
    panel[list(genes)] = False
    return panel


def visible(x, panel=ALL):
    return torch.from_numpy(panel).expand_as(x)


class TestExpression:
    @pytest.mark.parametrize("values", ["counts", "lognorm", "intensity"])
    def test_training_cells_are_standardized(self, values):
        x = counts()
        out = fitted(values)(x, visible(x))
        torch.testing.assert_close(out.mean(0), torch.zeros(G), atol=1e-4, rtol=0)
        torch.testing.assert_close(out.std(0), torch.ones(G), atol=1e-2, rtol=0)

    def test_depth_cancels_and_hidden_genes_do_not_matter(self):
        x = counts() + 1
        counted = visible(x, lacking(0))
        transform = fitted()
        out = transform(x, counted)
        torch.testing.assert_close(transform(3 * x, counted), out)
        changed = x.clone()
        changed[:, 0] = 1e6
        torch.testing.assert_close(transform(changed, counted)[:, 1:], out[:, 1:])

    def test_hiding_genes_keeps_the_values_of_the_others(self):
        x, transform = counts(), fitted()
        some = visible(x, lacking(*range(G // 2)))
        full, part = (transform(x, counted)[:, G // 2 :] for counted in (visible(x), some))
        assert (full - part).mean().abs() < 0.1

    @pytest.mark.parametrize("values", ["counts", "lognorm", "intensity"])
    def test_log_values_come_back(self, values):
        x, transform = counts(), fitted(values)
        logged = transform.log(x, visible(x))
        back = transform.inverse(transform(x, visible(x)))
        torch.testing.assert_close(back, logged, atol=1e-4, rtol=1e-4)

    def test_counts_come_back_exactly(self):
        x, transform = counts(), fitted()
        logged = transform.log(x, visible(x))
        back = transform.unlog(logged, transform.depth(x, visible(x)))
        assert torch.equal(back, x)
        whole = transform.unlog(logged + 0.01)
        assert torch.equal(whole, whole.round())

    def test_intensities_come_back(self):
        x, transform = 0.3 * counts(), fitted("intensity")
        torch.testing.assert_close(transform.unlog(transform.log(x, visible(x))), x)

    def test_values_are_not_negative_unless_lognorm(self):
        low = torch.full((1, G), -100.0)
        assert (fitted().inverse(low) == 0).all()
        assert (fitted("intensity").inverse(low) == 0).all()
        assert (fitted("lognorm").inverse(low) < 0).all()

    def test_outliers_are_clipped(self):
        x = counts(5)
        out = fitted("lognorm")(1e6 * x + 1, visible(x))
        assert out.abs().max() == 10

    def test_a_gene_without_variation_is_zero_and_comes_back_as_its_mean(self):
        x = counts()
        x[:, 2] = 4.0
        transform = fitted("lognorm", [(x, ALL)])
        assert (transform(x + 5, visible(x))[:, 2] == 0).all()
        np.testing.assert_allclose(transform.inverse(torch.randn(3, G))[:, 2], 4.0)


class TestPanels:
    """Training sections that measured different genes."""

    def test_genes_of_all_panels_have_the_statistics_of_one_panel(self):
        x = counts(1000)
        one, two = fitted(panels=[(x, ALL)]), fitted(panels=[(x[:500], ALL), (x[500:], ALL)])
        for name, value in one.state_dict().items():
            torch.testing.assert_close(two.state_dict()[name], value, atol=1e-4, rtol=1e-4)

    def test_a_gene_that_one_panel_lacks_has_the_statistics_of_the_other(self):
        x = counts(1000)
        whole = fitted(panels=[(x, ALL)])
        panel = lacking(0, 3)
        split = fitted(panels=[(x[:500], ALL), (x[500:], panel)])
        logged = split.log(x[:500], visible(x[:500]))
        torch.testing.assert_close(split.mean[0], logged[:, 0].mean(), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(
            split.std[3], logged[:, 3].std(correction=0), atol=1e-4, rtol=1e-4
        )
        torch.testing.assert_close(split.share, whole.share, atol=0, rtol=0.05)
        torch.testing.assert_close(split.median_total, whole.median_total, atol=0, rtol=0.05)
        torch.testing.assert_close(split.mean, whole.mean, atol=0.05, rtol=0)

    def test_cells_of_both_panels_are_of_one_depth(self):
        """Half of the genes, measured alone, have the same values as among all."""
        x, panel = counts(1000), lacking(4, 5, 6)
        transform = fitted(panels=[(x[:500], ALL), (x[500:], panel)])
        whole = transform.log(x, visible(x)).mean(0)
        part = transform.log(x, visible(x, panel)).mean(0)
        torch.testing.assert_close(part[:4], whole[:4], atol=0.05, rtol=0)

    def test_two_panels_may_lack_different_genes(self):
        x = counts(1000)
        whole = fitted(panels=[(x, ALL)])
        split = fitted(panels=[(x[:500], lacking(0)), (x[500:], lacking(6))])
        torch.testing.assert_close(split.share, whole.share, atol=0, rtol=0.05)
        torch.testing.assert_close(split.median_total, whole.median_total, atol=0, rtol=0.05)

    def test_a_gene_that_no_panel_measured_is_zero(self):
        x = counts()
        transform = fitted(panels=[(x, lacking(2))])
        assert all(torch.isfinite(v).all() for k, v in transform.state_dict().items() if k != "std")
        assert (transform(x, visible(x))[:, 2] == 0).all()


class TestPositions:
    def test_they_keep_aspect_and_come_back(self):
        rng = torch.Generator().manual_seed(0)
        points = torch.randn(100, 2, generator=rng, dtype=torch.float64) * torch.tensor([300, 20])
        transform = PositionTransform()
        transform.fit([points.numpy()])
        standard = transform(points - points.mean(0))
        assert standard.square().sum(1).mean().sqrt() == pytest.approx(1)
        torch.testing.assert_close(transform.inverse(transform(points)), points)
        torch.testing.assert_close(
            standard.std(0) / standard.std(0)[1], points.std(0) / points.std(0)[1]
        )

    def test_where_sections_lie_on_their_slides_does_not_matter(self):
        points = np.random.default_rng(0).normal(size=(50, 2))
        one, other = PositionTransform(), PositionTransform()
        one.fit([points, 2 * points])
        other.fit([points + 1e4, 2 * points - 3])
        torch.testing.assert_close(one.scale, other.scale)
