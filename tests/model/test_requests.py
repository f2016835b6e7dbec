"""Requests whose answer says little are warned of, once, with what to do; others are not."""

import warnings

import numpy as np
import pytest

import alphastomics as al
from alphastomics.model._plausibility import warn_of_collapse

QUIET = {"progress_bar": False}
NO_FRAME = "no cell is measured"
OUTSIDE = "lie far outside the measured cells"


def messages(call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    assert all(w.filename == __file__ for w in caught if w.category is UserWarning)
    return [str(w.message) for w in caught]


def matching(text, call):
    return [message for message in messages(call) if text in message]


@pytest.fixture(scope="module")
def halves(trained, half):
    """The two halves of the section that was held out."""
    cells = trained[1]
    return cells[half].copy(), cells[~half].copy()


def test_expression_at_positions_of_unknown_orientation(trained, halves):
    model, (known, hidden) = trained[0], halves
    points = hidden.obsm["spatial"][:20]
    assert matching(NO_FRAME, lambda: model.predict_expression(points, **QUIET))
    assert matching(NO_FRAME, lambda: model.predict(hidden.copy(), mode="pos_to_expr", **QUIET))
    given = {"reference": known, **QUIET}
    assert not matching(NO_FRAME, lambda: model.predict_expression(points, **given))
    assert not matching(NO_FRAME, lambda: model.predict(hidden.copy(), mode="pos_to_expr", **given))


def test_positions_far_outside_the_measured_cells(trained, halves):
    model, (known, hidden) = trained[0], halves
    points = hidden.obsm["spatial"][:20].copy()
    width = np.ptp(known.obsm["spatial"], axis=0).max()
    given = {"reference": known, **QUIET}
    assert not matching(OUTSIDE, lambda: model.predict_expression(points, **given))
    points[0] += 2 * width
    (found,) = matching(OUTSIDE, lambda: model.predict_expression(points, **given))
    assert found.startswith("1 of 20 positions lie far outside")
    assert matching(
        "training sections reach", lambda: model.predict_expression(50 * points, **QUIET)
    )


def test_genes_imputed_of_training_cells(trained, halves):
    model, cells = trained
    text = "are training cells"
    seen = model.adata.copy()
    assert matching(text, lambda: model.impute(seen, genes=["gene_0"], **QUIET))
    assert matching(text, lambda: model.impute(seen[:50].copy(), genes=["gene_0"], **QUIET))
    assert not matching(text, lambda: model.impute(cells.copy(), genes=["gene_0"], **QUIET))
    lacking = seen[:, 1:].copy()  # nothing known is compared
    assert not matching(text, lambda: model.impute(lacking, **QUIET))


def test_calibration_that_is_shorter_than_training(tissue):
    atlas = tissue.copy()
    al.AlphaSTomics.setup_anndata(atlas)
    small = {"d_model": 16, "num_layers": 1, "d_ff": 16, "num_heads": 2}
    model = al.AlphaSTomics(atlas, training_mode="expr_to_pos", **small)
    few = {"set_size": 32, "batch_size": 2, **QUIET}
    model.train(max_steps=3, **few)
    text = "max_steps=1 is less than 2 steps"
    assert len(matching(text, lambda: model.calibrate(max_steps=1, **few))) == 1
    assert not matching("max_steps", lambda: model.calibrate(**few))


def test_a_radius_as_wide_as_the_tissue(placer):
    model, cells = placer
    from dataclasses import replace

    text = "as wide as the tissue"
    before = model.training_record
    try:
        for quantile, expected in ((0.01, 0), (100.0, 1)):
            calibration = {"unframed": {"predict": quantile, "sample": quantile}}
            model.training_record = replace(before, calibration=calibration)
            call = lambda: model.predict(  # noqa: E731
                cells.copy(), mode="expr_to_pos", **QUIET
            )
            assert len(matching(text, call)) == expected
    finally:
        model.training_record = before


def test_cells_at_nearly_one_point_are_warned_of(recwarn):
    wide = np.random.default_rng(0).normal(size=(100, 2)) * 100
    sections = [("a", np.arange(50)), ("b", np.arange(50, 100))]
    warn_of_collapse(wide, sections, radius=140.0, steps=20)
    assert not recwarn
    wide[50:] /= 100
    with pytest.warns(UserWarning, match=r"50 cells of section 'b' .* one point .*\(20 steps\)"):
        warn_of_collapse(wide, sections, radius=140.0, steps=20)
