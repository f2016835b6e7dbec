"""Each mistake gives one error that names the argument, what was found and what to do."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import alphastomics as al


@pytest.fixture
def atlas(tissue):
    return tissue.copy()


def break_inf(a):
    a.obsm["spatial"][3, 0] = np.inf


def break_half_missing(a):
    a.obsm["spatial"][3, 0] = np.nan


def break_constant(a):
    a.obsm["spatial"][(a.obs["section"] == "section_1").to_numpy()] = 5.0


def break_all_missing(a):
    a.obsm["spatial"][:] = np.nan


def break_1d(a):
    a.obsm["spatial"] = a.obsm["spatial"][:, :1]


def break_4d(a):
    a.obsm["spatial"] = np.tile(a.obsm["spatial"], 2)


def break_negative(a):
    a.X[0, 0] = -1


def break_fraction(a):
    a.X = a.X * 0.37


def break_nan(a):
    a.X[0, 0] = np.nan


def break_small_section(a):
    a.obs["section"] = ["tiny" if i < 2 else "big" for i in range(a.n_obs)]


def break_gene_names(a):
    a.var_names = ["same"] * a.n_vars


def break_cell_names(a):
    a.obs_names = ["same"] * a.n_obs


def break_section_value(a):
    a.obs["section"] = a.obs["section"].astype(object).where(np.arange(a.n_obs) > 4, np.nan)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (break_inf, r"obsm\['spatial'\] holds infinite coordinates in 1 cells: .* NaN"),
        (break_half_missing, "some coordinates NaN and others not"),
        (break_constant, "constant in section 'section_1': all 300 cells"),
        (break_all_missing, "NaN for every cell: training needs at least one section with"),
        (break_1d, r"must have 2 or 3 columns .* found shape \(900, 1\)"),
        (break_4d, r"must have 2 or 3 columns .* found shape \(900, 4\)"),
        (break_negative, r"adata.X holds negative values \(least -1\).*layer="),
        (break_fraction, r"adata.X holds fractional values .*values='lognorm'"),
        (break_nan, "adata.X holds NaN or infinite values"),
        (break_small_section, "section 'tiny' has 2 cells .* at least 3"),
        (break_gene_names, r"duplicated gene names, 'same' .*var_names_make_unique\(\)"),
        (break_cell_names, r"duplicated cell names, 'same' .*obs_names_make_unique\(\)"),
        (break_section_value, r"obs\['section'\] is missing for 5 cells"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_setup_refuses_bad_data(atlas, damage, message):
    damage(atlas)
    with pytest.raises(ValueError, match=message):
        al.AlphaSTomics.setup_anndata(atlas)
    assert "_scvi_uuid" not in atlas.uns


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"spatial_key": "where"}, r"spatial_key 'where' is not in adata.obsm, .*\['spatial'\]"),
        ({"section_key": "slice"}, "section_key 'slice' is not in adata.obs.*section_key=None"),
        ({"labels_key": "kind"}, "labels_key 'kind' is not in adata.obs"),
        ({"layer": "raw"}, "layer 'raw' is not in adata.layers"),
    ],
)
def test_setup_names_a_missing_key(atlas, options, message):
    with pytest.raises(KeyError, match=message):
        al.AlphaSTomics.setup_anndata(atlas, **options)


def test_setup_refuses_unknown_values_and_empty_or_foreign_objects(atlas):
    with pytest.raises(ValueError, match="values must be one of 'counts', 'lognorm', 'intensity'"):
        al.AlphaSTomics.setup_anndata(atlas, values="tpm")
    for empty in (atlas[:0].copy(), atlas[:, :0].copy()):
        with pytest.raises(ValueError, match="adata is empty: found"):
            al.AlphaSTomics.setup_anndata(empty)
    with pytest.raises(TypeError, match="must be an AnnData, found DataFrame"):
        al.AlphaSTomics.setup_anndata(pd.DataFrame())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"training_mode": "both"},
            "training_mode must be one of 'expr_to_pos', 'pos_to_expr', 'joint', found 'both'",
        ),
        ({"schedule": "linear"}, "schedule must be one of 'edm', 'cosine'"),
        (
            {"frame": "fixed"},
            "frame must be one of 'learned', 'registered', found 'fixed'",
        ),
        ({"d_model": 30}, "d_model=30 is not divisible by num_heads=4"),
        ({"expression_mask_ratio": 1.0}, "expression_mask_ratio must be at least 0 and below 1"),
        ({"position_mask_ratio": -0.1}, "position_mask_ratio must be at least 0 and below 1"),
        ({"dropout": -0.1}, "dropout must be at least 0 and below 1"),
        ({"num_heads": 0}, "num_heads must be at least 1"),
    ],
)
def test_constructor_names_a_bad_argument(atlas, options, message):
    al.AlphaSTomics.setup_anndata(atlas)
    with pytest.raises(ValueError, match=message):
        al.AlphaSTomics(atlas, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"val_sections": ["nowhere"]}, r"val_sections names \['nowhere'\], .*'section_0'"),
        ({"val_sections": ["section_0", "section_1", "section_2"]}, "leave at least one"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"set_size": 2}, "set_size must be at least 3"),
        ({"max_steps": 0}, "max_steps must be at least 1"),
    ],
)
def test_train_names_a_bad_argument(atlas, options, message):
    al.AlphaSTomics.setup_anndata(atlas)
    model = al.AlphaSTomics(atlas, d_model=16, num_layers=1, d_ff=16)
    with pytest.raises(ValueError, match=message):
        model.train(**options)


def test_untrained_model_refuses_to_place_or_be_saved(atlas, tmp_path):
    al.AlphaSTomics.setup_anndata(atlas)
    model = al.AlphaSTomics(atlas, d_model=16, num_layers=1, d_ff=16)
    for call in (model.predict, model.sample, lambda: model.save(tmp_path / "m")):
        with pytest.raises(RuntimeError, match=r"not trained: call model.train\(\) first"):
            call()
    assert not (tmp_path / "m").exists()


def test_query_errors_leave_the_query_alone(trained):
    model, cells = trained
    known = cells.copy()
    with pytest.raises(ValueError, match=r"nothing is missing.*mode='expr_to_pos'"):
        model.predict(known)
    strangers = known.copy()
    strangers.var_names = [f"other_{i}" for i in range(strangers.n_vars)]
    with pytest.raises(ValueError, match=r"shares no gene with the model: .*'other_0'.*'gene_0'"):
        model.predict(strangers, mode="expr_to_pos")
    with pytest.raises(ValueError, match=r"mode must be one of 'auto', .*'joint', found 'x'"):
        model.predict(known, mode="x")
    with pytest.raises(ValueError, match="n_samples must be at least 1, found 0"):
        model.sample(known, n_samples=0)
    with pytest.raises(ValueError, match="n_steps must be at least 1, found 0"):
        model.sample(known, n_steps=0)
    with pytest.raises(ValueError, match="n_rounds must be at least 1, found 0"):
        model.sample(known, n_rounds=0)
    with pytest.raises(ValueError, match="max_cells_per_set must be at least"):
        model.predict(known, mode="expr_to_pos", max_cells_per_set=0)
    with pytest.raises(ValueError, match="output must be one of 'lognorm', 'counts', found 'raw'"):
        model.predict(known, mode="pos_to_expr", output="raw")
    with pytest.raises(ValueError, match="point must be 'medoid', 'consensus' or None"):
        model.sample(known, point="mean")
    with pytest.raises(ValueError, match="adata is empty"):
        model.predict(ad.AnnData(np.zeros((0, 3))))
    assert list(known.obsm) == ["spatial"]
    assert not known.layers
    assert "alphastomics" not in known.uns


def without_positions(cells):
    cells = cells.copy()
    del cells.obsm["spatial"]
    return cells


def unmeasured(cells):
    cells = cells.copy()
    cells.obs["expression_known"] = False
    return cells


def test_hiding_everything_is_refused_with_the_way_out(trained):
    model, cells = trained
    for query, mode, message in (
        (unmeasured(cells), "expr_to_pos", "masks all values: no cell's expression is known"),
        (without_positions(cells), "pos_to_expr", "masks all values: no cell has a position"),
        (cells, "joint", r"mode='joint' masks all values.*model.sample"),
        (unmeasured(without_positions(cells)), "auto", "mode='auto' masks all values"),
    ):
        with pytest.raises(ValueError, match=message):
            model.predict(query, mode=mode, progress_bar=False)
    with pytest.raises(ValueError, match="masks all values: no cell has a position"):
        model.sample(without_positions(cells), mode="pos_to_expr", progress_bar=False)


def test_coordinates_of_another_dimension_are_refused(trained):
    model, cells = trained
    volume = cells.copy()
    volume.obsm["spatial"] = np.c_[volume.obsm["spatial"], np.zeros(volume.n_obs)]
    query = without_positions(cells)
    with pytest.raises(ValueError, match=r"adata.obsm\['spatial'\] has 3 columns.* model is 2D"):
        model.predict(volume, mode="pos_to_expr")
    with pytest.raises(ValueError, match=r"reference.obsm\['spatial'\] has 3 columns"):
        model.predict(query, reference=volume)
    assert list(query.obsm) == []


def test_a_reference_needs_coordinates_and_genes(trained):
    model, cells = trained
    query = without_positions(cells)
    nowhere = cells.copy()
    nowhere.obsm["spatial"][:] = np.nan
    for reference in (query.copy(), nowhere):
        with pytest.raises(ValueError, match=r"reference has no coordinates in reference.obsm"):
            model.predict(query, reference=reference)
    strangers = cells.copy()
    strangers.var_names = [f"other_{i}" for i in range(strangers.n_vars)]
    with pytest.raises(ValueError, match="reference shares no gene with the model"):
        model.predict(query, reference=strangers)
    with pytest.raises(TypeError, match="reference must be an AnnData, found str"):
        model.predict(query, reference="the other half")


def test_half_a_position_is_none(trained):
    model, cells = trained
    query = cells.copy()
    query.obsm["spatial"][3, 0] = np.nan
    with pytest.raises(ValueError, match="some coordinates NaN and others not"):
        model.predict(query, progress_bar=False)


def test_labels_the_model_never_saw_are_named(trained):
    model, cells = trained
    query = cells.copy()
    query.obs["cell_type"] = query.obs["cell_type"].astype(str)
    query.obs.iloc[0, query.obs.columns.get_loc("cell_type")] = "Neuroblast"
    with pytest.raises(
        ValueError, match=r"labels_key\) holds 'Neuroblast', .* not in the training data.*'L1'"
    ):
        model.predict(query, mode="pos_to_expr", progress_bar=False)
    query.obs["cell_type"] = query.obs["cell_type"].where(np.arange(query.n_obs) > 0, np.nan)
    model.predict(query, mode="pos_to_expr", progress_bar=False)
    del query.obs["cell_type"]
    model.predict(query, mode="pos_to_expr", progress_bar=False)


def test_expression_known_must_say_yes_or_no(trained):
    model, cells = trained
    query = cells.copy()
    query.obs["expression_known"] = "maybe"
    with pytest.raises(ValueError, match=r"obs\['expression_known'\] must hold True or False"):
        model.predict(query, progress_bar=False)


@pytest.mark.parametrize(
    ("training_mode", "mode", "message"),
    [
        ("expr_to_pos", "pos_to_expr", "training_mode='expr_to_pos' and cannot predict expression"),
        ("expr_to_pos", "joint", "training_mode='expr_to_pos' and cannot predict expression"),
        ("pos_to_expr", "expr_to_pos", "training_mode='pos_to_expr' and cannot place cells"),
        ("pos_to_expr", "joint", "training_mode='pos_to_expr' and cannot place cells"),
    ],
)
def test_a_model_of_one_direction_refuses_the_other(atlas, training_mode, mode, message):
    al.AlphaSTomics.setup_anndata(atlas)
    model = al.AlphaSTomics(atlas, training_mode=training_mode, d_model=16, num_layers=1, d_ff=16)
    model.train(max_steps=1, set_size=16, progress_bar=False)
    with pytest.raises(ValueError, match=f"{message}: train one with training_mode='joint'"):
        model.sample(atlas, mode=mode, progress_bar=False)
    assert "alphastomics" not in atlas.uns
    allowed = "pos_to_expr" if training_mode == "pos_to_expr" else "expr_to_pos"
    model.predict(atlas, mode=allowed, progress_bar=False)


def test_panels_must_name_every_section_and_measure_something(atlas):
    table = pd.DataFrame(True, index=atlas.var_names, columns=["section_0", "section_1"])
    atlas.varm["measured"] = table
    with pytest.raises(ValueError, match="must be a DataFrame with a boolean column for each"):
        al.AlphaSTomics.setup_anndata(atlas)
    atlas.varm["measured"] = table.assign(section_2=False)
    with pytest.raises(ValueError, match="section 'section_2' measures no gene"):
        al.AlphaSTomics.setup_anndata(atlas)
    first = np.arange(atlas.n_vars) < 20
    atlas.varm["measured"] = table.assign(section_1=first, section_2=~first)
    with pytest.raises(ValueError, match="leaves no gene that all sections measure"):
        al.AlphaSTomics.setup_anndata(atlas)
