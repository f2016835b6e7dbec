"""From raw data to the folder that training reads."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
from typer.testing import CliRunner

import alphastomics as al
from alphastomics import _progress
from alphastomics.cli._preprocess_run import alone_in
from alphastomics.cli.preprocess import preprocess
from alphastomics.io import DataError, Manifest, open_data
from alphastomics.main import app


@pytest.fixture(scope="module")
def cells():
    """Three sections, the last of them without coordinates."""
    tissue = al.datasets.simulate_tissue(3, 60, 20)
    tissue.obsm["spatial"][120:] = np.nan
    return tissue


@pytest.fixture(scope="module")
def raw(cells, tmp_path_factory):
    folder = tmp_path_factory.mktemp("raw")
    cells[60:].write_h5ad(folder / "b.h5ad")
    cells[:60].write_h5ad(folder / "a.h5ad")
    return folder


def go(raw, output, **options):
    return preprocess(raw, output, progress=False, **options)


def load(folder):
    """Everything that was written, in memory."""
    return ad.concat([ad.read_zarr(section.path) for section in open_data(folder).sections()])


def test_what_is_written_is_what_was_there(raw, cells, tmp_path):
    manifest = go(raw, tmp_path, labels_key="cell_type", test_sections=["section_1"], val_ratio=0.0)
    data = open_data(tmp_path)
    data.verify()
    assert data.manifest == manifest
    assert manifest.genes == list(cells.var_names)
    assert (manifest.n_dims, manifest.units, manifest.labels_key) == (2, "µm", "cell_type")
    assert [s.name for s in data.sections("train")] == ["section_0", "section_2"]
    assert [s.name for s in data.sections("test")] == ["section_1"]
    for section in data.sections():
        own = cells[section.obs.index]
        assert set(section.obs.index) == set(cells.obs_names[cells.obs["section"] == section.name])
        read = section.expression[np.arange(60)]
        assert read.dtype == own.X.dtype
        assert (read != own.X).nnz == 0
        assert (section.obs["cell_type"].astype(str) == own.obs["cell_type"].astype(str)).all()
        if section.name == "section_2":
            assert section.position is None
        else:
            assert np.array_equal(section.position, own.obsm["spatial"])
        assert section.measured.all()
        assert list(section.blocks) == [0, 60]
    assert not (tmp_path / ".progress").exists()


def test_statistics_are_those_of_training_cells(raw, cells, tmp_path):
    statistics = go(raw, tmp_path, test_sections=["section_1"]).statistics
    training = cells[cells.obs["section"] != "section_1"].X.toarray()
    assert statistics.n_cells == 120
    assert statistics.median_total == np.median(np.asarray(training.sum(1)))
    assert np.allclose(statistics.mean, training.mean(0))
    assert np.allclose(statistics.expressed, (training > 0).mean(0))


def test_one_section_at_a_time_is_the_same_as_in_memory(raw, cells, tmp_path):
    chosen = {"min_genes": 8, "min_counts": 20}
    manifest = go(raw, tmp_path, **chosen, num_genes=7, min_cells=70, test_sections=["section_0"])
    atlas = cells.copy()
    al.pp.split_sections(atlas, test_sections=["section_0"])
    al.pp.filter_cells(atlas, **chosen)
    training = atlas[atlas.obs["split"] == "train"]
    atlas = atlas[:, np.asarray((training.X > 0).sum(0)).ravel() >= 70].copy()
    assert 7 < atlas.n_vars < 20
    al.pp.highly_variable_genes(atlas, n_top_genes=7)
    atlas = atlas[:, atlas.var["highly_variable"]].copy()
    written = load(tmp_path)
    assert manifest.genes == list(atlas.var_names)
    assert written.n_obs < cells.n_obs
    assert set(written.obs_names) == set(atlas.obs_names)
    assert (written.X != atlas[written.obs_names].X).nnz == 0


def test_panels_that_differ(cells, tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    cells[:60, :15].write_h5ad(raw / "a.h5ad")
    cells[60:120, 5:][:, ::-1].write_h5ad(raw / "b.h5ad")
    common = go(raw, tmp_path / "common")
    assert common.genes == [f"gene_{i}" for i in range(5, 15)]
    assert all(section.measured is None for section in common.sections)
    union = go(raw, tmp_path / "union", genes="union")
    assert len(union.genes) == 20
    first, second = open_data(tmp_path / "union").sections()
    assert (first.measured.sum(), second.measured.sum()) == (15, 15)
    expected = al.pp.intersect_genes([cells[:60, :15], cells[60:120, 5:]], how="union")
    for section in (first, second):
        own = expected[section.obs.index, union.genes]
        assert (section.expression[:] != own.X).nnz == 0
        table = ad.read_zarr(section.path).varm["measured"]
        assert np.array_equal(table[section.name], section.measured)
    expressed = union.genes.index("gene_0")
    assert union.statistics.expressed[expressed] == pytest.approx((cells[:60, 0].X > 0).mean())
    assert union.statistics.median_total == np.median(
        np.asarray(cells[:120, common.genes].X.sum(1))
    )
    (tmp_path / "list.txt").write_text("gene_16\ngene_7\n\n")
    listed = go(
        raw, tmp_path / "listed", genes=str(tmp_path / "list.txt"), test_sections=["section_0"]
    )
    assert listed.genes == ["gene_16", "gene_7"]


def test_more_genes_than_there_are_is_one_warning(raw, tmp_path):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        manifest = go(raw, tmp_path, num_genes=2000)
    ours = [w for w in caught if "num_genes is 2000, but there are 20 genes" in str(w.message)]
    assert len(ours) == 1
    assert len(manifest.genes) == 20


def test_names_are_made_safe_for_files(cells, tmp_path):
    names = ["A/B 1", "A_B 1", "a_b 1"]
    renamed = cells.copy()
    renamed.obs["section"] = renamed.obs["section"].cat.rename_categories(names)
    renamed.write_h5ad(tmp_path / "raw.h5ad")
    go(tmp_path / "raw.h5ad", tmp_path / "out", test_sections=["A/B 1"])
    sections = open_data(tmp_path / "out").sections()
    assert [section.name for section in sections] == names
    files = {section.path.name.casefold() for section in sections}
    assert len(files) == 3
    assert not any(set("/ ") & set(file) for file in files)
    assert {section.obs["section"].iloc[0] for section in sections} == set(names)


def outcome(folder):
    return (folder / "manifest.json").read_bytes()


def in_a_child(raw, output, kill_at=None):
    """Run in a child, killed before it names its n-th file; what it named."""
    log = output.with_suffix(".log")
    log.touch()
    child = os.fork()
    if child:
        status = os.waitpid(child, 0)[1]
        assert os.WIFSIGNALED(status) == (kill_at is not None)
        return log.read_text().splitlines()
    replace, left = os.replace, [kill_at]

    def dying(source, target):
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] = None if left[0] is None else left[0] - 1
        with log.open("a") as file:
            file.write(f"{target}\n")
        replace(source, target)

    os.replace = dying
    try:
        go(raw, output)
    finally:
        os._exit(0)


def test_killed_at_any_moment_it_resumes_to_the_same(raw, tmp_path):
    raw = raw / "a.h5ad"
    targets = in_a_child(raw, tmp_path / "whole")
    expected = outcome(tmp_path / "whole")
    ours = [i for i, target in enumerate(targets) if "/.alphastomics-" not in target]
    assert len(ours) == 4, "fingerprint, store, record, manifest"
    inside = range(ours[0] + 1, ours[1], max(1, (ours[1] - ours[0]) // 3))
    for kill_at in [*ours, *inside]:
        output = tmp_path / str(kill_at)
        in_a_child(raw, output, kill_at)
        for store in output.glob("sections/[!.]*"):
            assert ad.read_zarr(store).n_obs == 60, "never half a store under a final name"
        go(raw, output)
        assert outcome(output) == expected
        open_data(output).verify()
        assert not list(output.glob("**/.alphastomics-*"))


def test_finished_sections_are_not_done_again(raw, tmp_path, monkeypatch):
    from alphastomics.cli import _preprocess_run

    write, written = _preprocess_run.write_store, []

    def failing(path, section):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(path.name)
        write(path, section)

    monkeypatch.setattr(_preprocess_run, "write_store", failing)
    result = CliRunner().invoke(
        app, ["preprocess", "--input_dir", str(raw), "--output_dir", str(tmp_path)]
    )
    assert result.exit_code == 130
    assert "resumes where this one stopped" in result.output
    monkeypatch.setattr(
        _preprocess_run, "write_store", lambda path, s: (written.append(path.name), write(path, s))
    )
    go(raw, tmp_path)
    assert written == ["section_0.zarr", "section_1.zarr", "section_2.zarr"]
    go(raw, tmp_path)
    assert len(written) == 3, "nothing is done when all is done"


def test_other_data_in_the_folder_are_not_mixed_in(raw, cells, tmp_path):
    go(raw, tmp_path)
    before = outcome(tmp_path)
    with pytest.raises(
        DataError, match=r"other raw files or options: choose another .*--overwrite"
    ):
        go(raw, tmp_path, min_genes=3)
    assert outcome(tmp_path) == before
    manifest = go(raw, tmp_path, min_genes=8, overwrite=True)
    assert manifest.provenance.options["min_genes"] == 8
    shutil.copytree(raw, tmp_path.parent / "copy")
    (tmp_path.parent / "copy" / "a.h5ad").touch()
    with pytest.raises(DataError, match="other raw files or options"):
        go(tmp_path.parent / "copy", tmp_path, min_genes=8)
    foreign = tmp_path / "foreign"
    (foreign / "sections").mkdir(parents=True)
    for overwrite in (False, True):
        with pytest.raises(DataError, match="'sections' that preprocess did not write"):
            go(raw, foreign, overwrite=overwrite)


def test_a_full_disk_leaves_nothing_half_written(raw, tmp_path, monkeypatch):
    from alphastomics.io import _store

    def full(path, *_):
        (path / "half").write_bytes(b"x")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(_store, "_write", full)
        with pytest.raises(
            DataError, match=r"the disk is full, .*needs about [\d.]+ MB more.*again"
        ):
            go(raw, tmp_path)
    assert not list((tmp_path / "sections").iterdir())
    assert len(go(raw, tmp_path).sections) == 3


def test_two_runs_do_not_write_to_one_folder(raw, tmp_path):
    with alone_in(tmp_path), pytest.raises(DataError, match="another preprocess is writing to"):
        go(raw, tmp_path)
    go(raw, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["manifest.json", "sections"]


def change(cells, **columns):
    cells = cells.copy()
    cells.obs = cells.obs.assign(**columns)
    return cells


def without_coordinates(cells):
    cells = cells.copy()
    del cells.obsm["spatial"]
    return cells


def volume(cells):
    cells = cells.copy()
    cells.obsm["spatial"] = np.column_stack([cells.obsm["spatial"], np.ones(cells.n_obs)])
    return cells


def fractions(cells):
    cells = cells.copy()
    cells.X = cells.X * 0.5
    return cells


def pixels(cells):
    cells = cells.copy()
    cells.uns["units"] = "pixels"
    return cells


@pytest.mark.parametrize(
    ("options", "alter", "message"),
    [
        (
            {"test_sections": ["x"]},
            None,
            "^--test_sections names 'x', but the sections are 'section_0'",
        ),
        ({"genes": "some.txt"}, None, "--genes must be intersection, union or a file"),
        (
            {"values": "raw"},
            None,
            "--values must be one of 'counts', 'lognorm', 'intensity', found 'raw'",
        ),
        ({"num_genes": 0}, None, "--num_genes must be at least 1, found 0"),
        ({"labels_key": "type"}, None, "--labels_key: 'type' is in no section; .* cell_type"),
        ({"min_genes": 21}, None, r"a.h5ad: section 'section_0' keeps none of its 60 cells"),
        ({"min_cells": 999}, None, "--min_cells: no gene .* 999 of their cells; the maximum is"),
        ({}, without_coordinates, "--spatial_key: none of the 1 sections has coordinates"),
        ({}, fractions, r"a.h5ad: section 'section_0': X holds fractional values"),
    ],
)
def test_what_cannot_be_is_one_clear_error(cells, tmp_path, options, alter, message):
    raw, part = tmp_path / "raw", cells[:60].copy()
    raw.mkdir()
    (alter(part) if alter else part).write_h5ad(raw / "a.h5ad")
    with pytest.raises(DataError, match=message):
        go(raw, tmp_path / "out", **options)
    assert not list((tmp_path / "out").glob("sections/*"))
    assert not (tmp_path / "out" / "manifest.json").exists()


@pytest.mark.parametrize(
    ("alter", "message"),
    [
        (volume, "section 'section_0' .*2D and section 'section_1' .*3D.*apart"),
        (pixels, "'section_0' has coordinates in 'µm', section 'section_1' in 'pixels'"),
        (lambda c: c[:, :0].copy(), "b.h5ad holds no genes"),
        (
            lambda c: ad.AnnData(c.X, c.obs, c.var.rename("x_{}".format)),
            "--genes: .* no gene in common",
        ),
    ],
)
def test_sections_that_do_not_go_together(cells, tmp_path, alter, message):
    raw = tmp_path / "raw"
    raw.mkdir()
    cells[:60].write_h5ad(raw / "a.h5ad")
    alter(cells[60:120].copy()).write_h5ad(raw / "b.h5ad")
    with pytest.raises(DataError, match=message):
        go(raw, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_folders_that_cannot_be_written(raw, tmp_path):
    (tmp_path / "file").write_text("")
    for output in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(DataError, match=r"--output_dir: .*cannot be written"):
            go(raw, output)
    with pytest.raises(DataError, match="is in the raw folder"):
        go(raw, raw / "processed")


def test_a_damaged_folder_is_not_opened(raw, tmp_path):
    with pytest.raises(DataError, match=r"holds no processed data: it has no manifest.json"):
        open_data(tmp_path)
    go(raw, tmp_path)
    path, good = tmp_path / "manifest.json", json.loads(outcome(tmp_path))
    for altered, message in (
        (b"{", "is damaged or was altered"),
        (json.dumps({**good, "n_dims": "2"}).encode(), r"altered: n_dims"),
        (json.dumps({**good, "more": 1}).encode(), r"altered: more"),
        (json.dumps({**good, "format_version": 99}).encode(), "format 99.*upgrade alphastomics"),
    ):
        path.write_bytes(altered)
        with pytest.raises(DataError, match=message):
            open_data(tmp_path)
    path.write_text(Manifest.model_validate(good).model_dump_json())
    open_data(tmp_path).verify()
    chunk = next(p for p in (tmp_path / "sections").glob("*/X/data/*") if p.name.isdigit())
    chunk.write_bytes(chunk.read_bytes() + b"x")
    with pytest.raises(DataError, match="was altered after preprocess wrote it"):
        open_data(tmp_path).verify()
    shutil.rmtree(chunk.parents[2])
    with pytest.raises(DataError, match="lacks the store sections/"):
        open_data(tmp_path)


def test_the_command_says_what_it_wrote_or_what_is_wrong(raw, tmp_path):
    command = ["preprocess", "--raw_dir", str(raw), "--output_dir", str(tmp_path / "out")]
    done = CliRunner().invoke(
        app, [*command, "--test_sections", "section_0", "--labels_key", "cell_type"]
    )
    assert done.exit_code == 0, done.output
    assert "3 sections, 180 cells, 20 genes" in done.output
    wrong = CliRunner().invoke(app, [*command, "--min_genes", "5"])
    assert wrong.exit_code == 2
    (line,) = wrong.stderr.strip().splitlines()
    assert line.startswith("Error: --output_dir: ")


def test_reading_raw_and_processed_data_needs_no_torch():
    code = "import sys, alphastomics.cli.preprocess, alphastomics.cli._preprocess_run; "
    code += (
        "import alphastomics.pp; assert 'torch' not in sys.modules and 'scanpy' not in sys.modules"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(al.__file__).parents[1])}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def test_real_sections(shared_data, tmp_path):
    path = shared_data / "merfish_hypothalamus.h5ad"
    test = "animal1_bregma+0.21"
    manifest = go(path, tmp_path, labels_key="cell_type", test_sections=[test])
    real = ad.read_h5ad(path)
    assert len(manifest.genes) == 135
    for section in open_data(tmp_path).sections():
        own = real[section.obs.index]
        assert set(own.obs["section"]) == {section.name}
        assert len(own) == section.entry.n_cells == (real.obs["section"] == section.name).sum()
        assert (section.expression[:] != own.X).nnz == 0
        assert np.array_equal(section.position, own.obsm["spatial"])
    training = real[real.obs["section"] != test].X
    assert manifest.statistics.median_total == np.median(np.asarray(training.sum(1)))


@pytest.mark.parametrize("shown", [True, False])
def test_progress_follows_the_settings(tmp_path, raw, monkeypatch, capsys, shown):
    """In the terminal; in a log there are no bars."""
    preprocess(raw, tmp_path / "log", labels_key="cell_type", min_cells=1)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(_progress, "_is_interactive", lambda: True)
    al.settings.progress_bar = shown
    try:
        preprocess(raw, tmp_path / "data", labels_key="cell_type", min_cells=1)
    finally:
        al.settings.reset()
    written = capsys.readouterr().err
    for bar in ("Counting cells per gene: 100%", "Writing sections: 100%"):
        assert (bar in written) == shown
