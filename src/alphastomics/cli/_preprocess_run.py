"""The steps of ``preprocess``, one section in memory at a time."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm.auto import tqdm

from alphastomics import __version__, _keys
from alphastomics._anndata import expression_known
from alphastomics.cli._preprocess_options import Options
from alphastomics.cli._preprocess_plan import Plan, make_plan, read_planned
from alphastomics.cli._progress import STORES, Progress, Record, alone_in
from alphastomics.io import DataError, Manifest, RawSection, SectionEntry, find_sections
from alphastomics.io._files import checksum, file_names, stamps
from alphastomics.io._processed import MANIFEST_FILE, Provenance, Statistics
from alphastomics.io._store import arrange, compact, write_store
from alphastomics.pp._highly_variable_genes import rank_genes, residual_variance

PACKAGES = ("anndata", "numpy", "pandas", "scanpy", "scipy", "zarr")


def run(
    raw_dir: Path, output_dir: Path, options: Options, *, overwrite: bool, progress: bool
) -> Manifest:
    """Process raw data; see :func:`alphastomics.cli.preprocess.preprocess`."""
    _check_apart(raw_dir, output_dir)
    keys = (options.labels_key, options.batch_key)
    sections = find_sections(
        raw_dir,
        layer=options.layer,
        spatial_key=options.spatial_key,
        section_key=options.section_key,
        also_obs=[key for key in keys if key is not None],
    )
    plan = make_plan(sections, options)
    root = raw_dir if raw_dir.is_dir() else raw_dir.parent
    files = stamps(dict.fromkeys(section.path for section in sections), root)
    fingerprint = options.fingerprint(files)
    ended = not overwrite and (output_dir / MANIFEST_FILE).exists()
    with nullcontext() if ended else alone_in(output_dir):
        state = Progress(output_dir, fingerprint, overwrite=overwrite)
        if state.manifest is not None:
            return state.manifest
        with tqdm(total=_n_steps(plan, options), unit="section", disable=not progress) as bar:
            steps = _Steps(plan, options, state, root, bar)
            chosen = steps.choose_genes()
            written = steps.each("write", plan.sections, partial(steps.write, chosen=chosen))
        manifest = _manifest(plan, options, chosen, written, fingerprint)
        state.finish(manifest)
        return manifest


def _check_apart(raw_dir: Path, output_dir: Path) -> None:
    """Raise if the output would be read as raw data by the next run."""
    raw, output = raw_dir.resolve(), output_dir.resolve()
    if output == raw or (raw in output.parents and raw.is_dir()):
        raise DataError(
            f"--output_dir: {output_dir} is in the raw folder {raw_dir}: choose a folder beside it."
        )


def _n_steps(plan: Plan, options: Options) -> int:
    by_variance = options.num_genes is not None and options.num_genes < len(plan.genes)
    return len(plan.sections) + ((options.min_cells > 0) + by_variance) * len(plan.training)


@dataclass(frozen=True)
class _Steps:
    """Passes over the sections; a step that is recorded is not done again."""

    plan: Plan
    options: Options
    state: Progress
    root: Path
    bar: tqdm

    def each(
        self, step: str, sections: Sequence[RawSection], do: Callable[[RawSection, str], Record]
    ) -> list[Record]:
        """Do a step for every section, given its file name, or find what was recorded of it."""
        files = file_names(section.name for section in self.plan.sections)
        records = []
        for section in sections:
            self.bar.set_description(f"{step} {section.name}")
            file = files[section.name]
            records.append(self.state.once(step, file, partial(do, section, file)))
            self.bar.update()
        return records

    def choose_genes(self) -> NDArray[np.int64]:
        """Which of the plan's genes to keep, from training cells only."""
        options, n_genes = self.options, len(self.plan.genes)
        chosen = np.arange(n_genes)
        if options.min_cells:
            counted = self.each("count", self.plan.training, self.count)
            total = np.sum([record["expressed"] for record in counted], axis=0)
            chosen = np.flatnonzero(total >= options.min_cells)
            if not self.plan.shared()[chosen].any():
                raise DataError(
                    f"--min_cells: no gene that all training sections measure is expressed in "
                    f"{options.min_cells} of their cells; the most is {total.max()}. Lower it."
                )
        if options.num_genes is None or options.num_genes == len(chosen):
            return chosen
        if options.num_genes > len(chosen):
            self.bar.clear()
            warnings.warn(
                f"num_genes is {options.num_genes}, but there are {len(chosen)} genes: all of "
                "them are used.",
                UserWarning,
                stacklevel=5,
            )
            return chosen
        varied = self.each("vary", self.plan.training, partial(self.vary, among=chosen))
        variances = {str(i): np.asarray(record["variance"]) for i, record in enumerate(varied)}
        table = rank_genes(variances, options.num_genes)
        return chosen[table["highly_variable"].to_numpy()]

    def count(self, section: RawSection, file: str) -> Record:
        """Cells of a section that express each gene."""
        adata = read_planned(section, self.plan, self.options)
        return {"expressed": _n_expressing(adata).tolist()}

    def vary(self, section: RawSection, file: str, *, among: NDArray[np.int64]) -> Record:
        """How much each gene varies in a section."""
        adata = read_planned(section, self.plan, self.options)
        cells = np.flatnonzero(expression_known(adata.obs))
        matrix, panel = adata.X[cells][:, among], self.plan.panel(section)[among]
        return {"variance": residual_variance(matrix, panel, self.options.values).tolist()}

    def write(self, section: RawSection, file: str, *, chosen: NDArray[np.int64]) -> Record:
        """Write the store of a section; its entry in the manifest and its statistics."""
        adata = read_planned(section, self.plan, self.options)[:, chosen].copy()
        adata.X = compact(adata.X)
        panel = self.plan.panel(section)[chosen]
        if not panel.any():
            raise DataError(
                f"section {section.name!r} ({section.path}) measures none of the {len(chosen)} "
                "genes that are used: leave it out, or choose other --genes."
            )
        if not self._all_panels()[:, chosen].all():
            adata.varm[_keys.MEASURED] = pd.DataFrame({section.name: panel}, index=adata.var_names)
        if self.plan.units is not None:
            adata.uns[_keys.UNITS] = self.plan.units
        path = self.state.folder / STORES / f"{file}.zarr"
        arranged = arrange(adata, section.name, self.options.seed)
        write_store(path, arranged)
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
        shared = self.plan.shared()[chosen]
        return {"entry": entry.model_dump(), "statistics": _statistics(adata, panel, shared)}

    def _all_panels(self) -> NDArray[np.bool_]:
        """Whether each section measures each gene, ``(n_sections, n_genes)``."""
        return np.stack([self.plan.panel(section) for section in self.plan.sections])


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


def _manifest(
    plan: Plan,
    options: Options,
    chosen: NDArray[np.int64],
    written: Sequence[Record],
    fingerprint: str,
) -> Manifest:
    """Put together what the records of the sections say."""
    training = [record["statistics"] for record in written if record["entry"]["split"] == "train"]
    n_cells = np.array([part["n_cells"] for part in training])
    measuring = np.maximum(n_cells @ np.array([part["panel"] for part in training]), 1)
    totals = np.concatenate([part["totals"] for part in training])
    return Manifest(
        genes=plan.genes[chosen].tolist(),
        values=options.values,  # type: ignore[arg-type]
        n_dims=plan.n_dims,
        units=plan.units,
        labels_key=options.labels_key,
        batch_key=options.batch_key,
        sections=[SectionEntry(**record["entry"]) for record in written],
        statistics=Statistics(
            n_cells=int(n_cells.sum()),
            median_total=float(np.median(totals)),
            mean=(np.sum([part["sum"] for part in training], axis=0) / measuring).tolist(),
            expressed=(
                np.sum([part["expressed"] for part in training], axis=0) / measuring
            ).tolist(),
        ),
        provenance=Provenance(
            options=_plain(asdict(options)),
            versions={"alphastomics": __version__, **{name: version(name) for name in PACKAGES}},
            seed=options.seed,
            fingerprint=fingerprint,
        ),
    )


def _plain(options: Record) -> Record:
    """Turn tuples into lists, as JSON has them."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in options.items()}
