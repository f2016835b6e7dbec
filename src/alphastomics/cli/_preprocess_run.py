"""Steps of ``preprocess``, one section in memory at a time; finished ones are not done again."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import typer
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from alphastomics import __version__, _keys
from alphastomics._anndata import expression_known
from alphastomics._compat import warn
from alphastomics._files import TEMPORARY
from alphastomics._progress import Reporter
from alphastomics.cli._labels import label_hint
from alphastomics.cli._preprocess_plan import Options, Plan, make_plan, read_planned
from alphastomics.io import DataError, Manifest, RawSection, SectionEntry, find_sections
from alphastomics.io._files import (
    WriteError,
    checksum,
    file_names,
    remove,
    stamps,
    write_file,
    writing,
)
from alphastomics.io._manifest import MANIFEST_FILE, Provenance, Statistics, read_manifest
from alphastomics.io._store import arrange, compact, write_store
from alphastomics.pp._highly_variable_genes import rank_genes, residual_variance

PACKAGES = ("anndata", "numpy", "pandas", "scanpy", "scipy", "zarr")
STORES = "sections"
LOCK = ".lock"
# Passes over the sections, by the names of their records.
PASSES = {
    "count": "counting cells per gene",
    "vary": "measuring the variance of genes",
    "write": "writing sections",
}

Record = dict[str, Any]


def run(
    raw_dir: Path, output_dir: Path, options: Options, *, overwrite: bool, progress: bool
) -> Manifest:
    """Process raw data; see :func:`alphastomics.cli.preprocess.preprocess`."""
    raw, output = raw_dir.resolve(), output_dir.resolve()
    if output == raw or (raw in output.parents and raw.is_dir()):
        # The next run would read the output as raw data.
        raise DataError(
            f"--output_dir: {output_dir} is in the raw folder {raw_dir}: choose one outside it."
        )
    sections = find_sections(
        raw_dir,
        layer=options.layer,
        spatial_key=options.spatial_key,
        section_key=options.section_key,
        also_obs=[key for key in (options.labels_key, options.batch_key) if key is not None],
        bin_size=options.bin_size,
    )
    plan = make_plan(sections, options)
    root = raw_dir if raw_dir.is_dir() else raw_dir.parent
    read = (path for section in sections for path in section.files or (section.path,))
    files = stamps(dict.fromkeys(read), root)
    finished = not overwrite and (output_dir / MANIFEST_FILE).exists()
    with nullcontext() if finished else alone_in(output_dir):
        records = Records(output_dir, options.fingerprint(files), overwrite=overwrite)
        if records.manifest is not None:
            return records.manifest
        if progress:
            _print_notes(sections, options)
        try:
            reporter = Reporter.of(None if progress else False)
            return _Steps(plan, options, records, root, reporter).run()
        except WriteError:
            raise
        except DataError:
            records.clear()  # with these raw files and options there is no going on
            raise


def _print_notes(sections: Sequence[RawSection], options: Options) -> None:
    """Print what was read of instruments, and a column that looks like cell types but is unused."""
    notes = [section.note for section in sections]
    if options.labels_key is None:
        hint = label_hint(dict.fromkeys(c for section in sections for c in section.columns))
        notes.append(f"{hint}." if hint else "")
    for note in filter(None, notes):
        typer.echo(note, err=True)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Make a folder and lock it against other runs of ``preprocess``."""
    made = not folder.exists()
    with writing(folder, 0):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise DataError(
                f"--output_dir: another preprocess is writing to {folder}: wait until it has "
                "ended, or choose another folder."
            ) from None
    try:
        yield
    finally:
        with suppress(PermissionError):  # Windows does not delete an open file
            (folder / LOCK).unlink(missing_ok=True)
        lock.release()
        if made and not any(folder.iterdir()):
            folder.rmdir()


class Records:
    """Records of finished steps under a fingerprint of the raw files and options.

    A record is written after the result of its step is on disk under its final name, so a step
    without a record is done again, and a finished one never.
    """

    def __init__(self, folder: Path, fingerprint: str, *, overwrite: bool) -> None:
        self.folder, self.fingerprint = folder, fingerprint
        self._records = folder / ".progress"
        self._mark = self._records / "fingerprint.json"
        self.manifest: Manifest | None = None
        if overwrite and ((folder / MANIFEST_FILE).exists() or self._mark.exists()):
            with writing(folder, 0):
                self.clear()
        if (folder / MANIFEST_FILE).exists():
            self.manifest = read_manifest(folder)
            self._check(self.manifest.provenance.fingerprint)
            remove(self._records)
        else:
            self._resume()

    def clear(self) -> None:
        """Delete what an earlier run wrote; a run killed meanwhile has to be overwritten again."""
        self._records.mkdir(exist_ok=True)
        write_file(self._mark, json.dumps("being replaced").encode())
        remove(self.folder / MANIFEST_FILE)
        remove(self.folder / STORES)
        for record in self._records.iterdir():
            if record != self._mark:
                remove(record)
        remove(self._records)

    def _resume(self) -> None:
        stores = self.folder / STORES
        if self._mark.is_file():
            self._check(json.loads(self._mark.read_bytes()))
        elif stores.exists():
            raise DataError(
                f"--output_dir: {self.folder} holds a folder {STORES!r} that preprocess did not "
                "write: choose another folder."
            )
        with writing(self.folder, 0):
            self._records.mkdir(exist_ok=True)
            write_file(self._mark, json.dumps(self.fingerprint).encode())
            stores.mkdir(exist_ok=True)
            for folder in (self.folder, stores):
                for unfinished in folder.glob(f"{TEMPORARY}*"):
                    remove(unfinished)

    def _check(self, found: str) -> None:
        if found != self.fingerprint:
            raise DataError(
                f"--output_dir: {self.folder} holds data of other raw files or options: choose "
                "another folder, or replace them by --overwrite."
            )

    def once(self, name: str, do: Callable[[], Record]) -> Record:
        """Read the record of a step, which is done if it has none."""
        path = self._records / f"{name}.json"
        if not path.is_file():
            write_file(path, json.dumps(do()).encode())
        record: Record = json.loads(path.read_bytes())
        return record

    def finish(self, manifest: Manifest) -> Manifest:
        """Write the manifest; then the records are not needed."""
        manifest.write(self.folder)
        remove(self._records)
        return manifest


@dataclass(frozen=True)
class _Steps:
    """Passes over the sections."""

    plan: Plan
    options: Options
    records: Records
    root: Path
    reporter: Reporter

    def run(self) -> Manifest:
        """Choose genes, write the stores and the manifest."""
        chosen = self.choose_genes()
        written = self.each("write", self.plan.sections, partial(self.write, chosen=chosen))
        return self.records.finish(self.manifest(chosen, written))

    def each(
        self, step: str, sections: Sequence[RawSection], do: Callable[[RawSection, str], Record]
    ) -> list[Record]:
        """Do a step for every section, given its file name, or read its record."""
        files = file_names(section.name for section in self.plan.sections)
        found = []
        with self.reporter.bar(PASSES[step], len(sections), "sections") as bar:
            for section in sections:
                file = files[section.name]
                found.append(self.records.once(f"{step}-{file}", partial(do, section, file)))
                bar.update(note=section.name)
        return found

    def choose_genes(self) -> NDArray[np.int64]:
        """Numbers of the planned genes to keep, from training cells only."""
        options, chosen = self.options, np.arange(len(self.plan.panels))
        if options.min_cells:
            counted = self.each("count", self.plan.training, self.count)
            total = np.sum([record["expressed"] for record in counted], axis=0)
            chosen = np.flatnonzero(total >= options.min_cells)
            if not self.plan.shared[chosen].any():
                raise DataError(
                    f"--min_cells: no gene that all training sections measure is expressed in "
                    f"{options.min_cells} of their cells; the maximum is {total.max()}: lower it."
                )
        if options.num_genes is None or options.num_genes == len(chosen):
            return chosen
        if options.num_genes > len(chosen):
            warn(
                f"num_genes is {options.num_genes}, but there are {len(chosen)} genes: all of "
                "them are used."
            )
            return chosen
        varied = self.each("vary", self.plan.training, partial(self.vary, among=chosen))
        variances = {str(i): np.asarray(record["variance"]) for i, record in enumerate(varied)}
        table = rank_genes(variances, options.num_genes)
        return chosen[table["highly_variable"].to_numpy()]

    def count(self, section: RawSection, file: str) -> Record:
        """Count the cells of a section that express each gene."""
        adata = read_planned(section, self.plan, self.options)
        return {"expressed": _n_expressing(adata).tolist()}

    def vary(self, section: RawSection, file: str, *, among: NDArray[np.int64]) -> Record:
        """Variance of each gene in a section."""
        adata = read_planned(section, self.plan, self.options)
        matrix = adata.X[np.flatnonzero(expression_known(adata.obs))][:, among]
        panel = self.plan.panels[section.name].to_numpy()[among]
        return {"variance": residual_variance(matrix, panel, self.options.values).tolist()}

    def write(self, section: RawSection, file: str, *, chosen: NDArray[np.int64]) -> Record:
        """Write the store of a section; record its entry in the manifest and its statistics."""
        adata = read_planned(section, self.plan, self.options)[:, chosen].copy()
        adata.X = compact(adata.X)
        panels = self.plan.panels.iloc[chosen]
        panel = panels[section.name].to_numpy()
        if not panel.any():
            raise DataError(
                f"section {section.name!r} ({section.path}) measures none of the {len(chosen)} "
                "genes that are used: leave it out, or choose other --genes."
            )
        if not panels.all(axis=None):
            adata.varm[_keys.MEASURED] = panels[[section.name]]
        if self.plan.units is not None:
            adata.uns[_keys.UNITS] = self.plan.units
        path = self.records.folder / STORES / f"{file}.zarr"
        write_store(path, arrange(adata, section.name, self.options.seed))
        entry = SectionEntry(
            name=section.name,
            file=f"{STORES}/{path.name}",
            n_cells=adata.n_obs,
            split=self.plan.split[section.name],
            has_coordinates=_keys.SPATIAL in adata.obsm,
            measured=None if panel.all() else adata.var_names[panel].tolist(),
            source=os.path.relpath(section.path, self.root),
            checksum=checksum(path),
        )
        statistics = _statistics(adata, panel, self.plan.shared[chosen])
        return {"entry": entry.model_dump(), "statistics": statistics}

    def manifest(self, chosen: NDArray[np.int64], written: Sequence[Record]) -> Manifest:
        """Combine the records of the sections."""
        options = self.options
        return Manifest(
            genes=self.plan.panels.index[chosen].tolist(),
            values=options.values,
            n_dims=self.plan.n_dims,
            units=self.plan.units,
            labels_key=options.labels_key,
            batch_key=options.batch_key,
            sections=[SectionEntry(**record["entry"]) for record in written],
            statistics=_combine(
                [r["statistics"] for r in written if r["entry"]["split"] == "train"]
            ),
            provenance=Provenance(
                options=options.model_dump(),
                versions={"alphastomics": __version__, **{p: version(p) for p in PACKAGES}},
                seed=options.seed,
                fingerprint=self.records.fingerprint,
            ),
        )


def _n_expressing(adata: ad.AnnData) -> NDArray[np.int64]:
    """Count the cells that express each gene, ``(n_genes,)``."""
    return np.asarray((adata.X != 0).sum(0), dtype=np.int64).ravel()


def _statistics(adata: ad.AnnData, panel: NDArray[np.bool_], shared: NDArray[np.bool_]) -> Record:
    """Sum over the measured cells of a section; their totals are over the shared genes."""
    cells = adata[np.flatnonzero(expression_known(adata.obs))]
    total = cells.X[:, np.flatnonzero(shared)].sum(1, dtype=np.float64)
    return {
        "n_cells": cells.n_obs,
        "panel": panel.tolist(),
        "totals": np.asarray(total).ravel().tolist(),
        "sum": np.asarray(cells.X.sum(0, dtype=np.float64)).ravel().tolist(),
        "expressed": _n_expressing(cells).tolist(),
    }


def _combine(parts: Sequence[Record]) -> Statistics:
    """Combine the statistics of the training sections."""
    n_cells = np.array([part["n_cells"] for part in parts])
    measuring = np.maximum(n_cells @ np.array([part["panel"] for part in parts]), 1)
    total = {name: np.sum([part[name] for part in parts], axis=0) for name in ("sum", "expressed")}
    return Statistics(
        n_cells=int(n_cells.sum()),
        median_total=float(np.median(np.concatenate([part["totals"] for part in parts]))),
        mean=(total["sum"] / measuring).tolist(),
        expressed=(total["expressed"] / measuring).tolist(),
    )
