"""Names that the examples of methods take for granted."""

import pytest


@pytest.fixture(scope="session")
def _example_model():
    import alphastomics as al

    atlas = al.datasets.simulate_tissue(n_sections=3, n_cells=200)
    cells = atlas[atlas.obs["section"] == "section_2"].copy()
    atlas = atlas[atlas.obs["section"] != "section_2"].copy()
    al.AlphaSTomics.setup_anndata(atlas, labels_key="cell_type")
    model = al.AlphaSTomics(atlas, d_model=32, num_layers=1)
    model.train(max_steps=2, progress_bar=False)
    return al, model, atlas, cells


@pytest.fixture(autouse=True)
def _example_names(request, doctest_namespace):
    """Those of the example of AlphaSTomics: al, atlas, cells, and a model trained on the atlas."""
    if request.node.name.startswith("alphastomics.model."):
        al, model, atlas, cells = request.getfixturevalue("_example_model")
        doctest_namespace.update(al=al, model=model, atlas=atlas, cells=cells.copy())
