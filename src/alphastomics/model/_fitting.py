"""Stage 1 of training, before the network learns: fit of transforms and priors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy import sparse

from alphastomics._progress import Reporter
from alphastomics._validate import MIN_CELLS
from alphastomics.config import ModelConfig
from alphastomics.diffusion_model.module import MaskedDiffusionModule
from alphastomics.diffusion_model.transforms import LEAST_STD, Rows
from alphastomics.model._data import CellTable
from alphastomics.priors import SectionSample
from alphastomics.priors.reference_matching import MAX_STORED_CELLS, MAX_STORED_SECTIONS

MAX_CELLS = 6000  # of a section, those nearest to a random one
MAX_CELLS_IN_ALL = 24_000
MAX_SECTIONS = 12  # that closed-form priors are fitted to
MATCHING_STEPS = 250
MATCHED_CELLS = 2048  # cells of a section in a step of the fit of the matching
STORED_CELLS, LEAST_OF_TYPE = 4096, 8  # donors, and of each cell type at least
STAGE_1 = "stage 1 of 2: cell similarity"
MORE_CELLS = 12_288  # stored besides, to impute genes by


def fit_statistics(
    module: MaskedDiffusionModule,
    data: CellTable,
    sections: list[str],
    config: ModelConfig,
    steps: int,
    reporter: Reporter,
) -> None:
    """Fit everything that is not learned by the network, on the CPU.

    Parameters
    ----------
    module
        The network; its transforms and priors are fitted in place.
    data, sections
        Cells, and the names of the sections to train on.
    config
        Of the model; priors that its mode does not need are not fitted.
    steps
        Of training; before a short one, the fit of the reference matching is short, too.
    reporter
        Of the progress.
    """
    seed = config.seed
    fit_transforms(module, data, sections)
    if config.frame == "learned" and config.places_cells:
        module.poses.start(len(sections))
    if config.training_mode != "expr_to_pos":
        patches = _patches(module, data, sections, np.random.default_rng(seed))
        if patches:
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                module.smoother.fit(patches)
        fit_genes(module, data, sections, patches, seed)
    if config.training_mode == "joint":
        fit_autocorrelation(module, data, sections, seed)
    if config.places_cells:
        fit_places(module, data, sections, seed)
        fit_matcher(
            module,
            data,
            sections,
            config.position_mask_ratio,
            seed,
            n_steps=min(MATCHING_STEPS, 20 + steps),
            reporter=reporter,
        )
        store_reference(module, data, sections, seed)


def fit_transforms(module: MaskedDiffusionModule, data: CellTable, sections: list[str]) -> None:
    """Take the statistics of the training cells."""
    training, known = np.isin(data.section, sections), data.expression_known
    groups = [np.flatnonzero(training & known & (data.panel == i)) for i in range(len(data.panels))]
    module.expression_transform.fit(
        [
            (_SubsetRows(data.expression, cells), panel)
            for cells, panel in zip(groups, data.panels, strict=True)
            if len(cells)
        ]
    )
    if bool(module.expression_transform.std.isinf().all()):
        raise ValueError(
            f"no gene varies between the training cells (standard deviations of log-normalized "
            f"values are all below {LEAST_STD:g}): there is nothing to learn from. Check values= "
            "and layer= of setup_anndata; counts of a single gene do not vary once they are "
            "divided by the total of the cell."
        )
    located = [data.has_position & (data.section == section) for section in sections]
    module.position_transform.fit([data.position[cells] for cells in located if cells.any()])


@dataclass(frozen=True)
class _SubsetRows:
    """Rows of expression, read when indexed."""

    expression: Rows
    cells: NDArray[np.int64]

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.cells), self.expression.shape[1]

    def __getitem__(self, rows: slice) -> sparse.csr_matrix:
        return self.expression[self.cells[rows]]


def fit_genes(
    module: MaskedDiffusionModule,
    data: CellTable,
    sections: list[str],
    patches: list[SectionSample],
    seed: int,
) -> None:
    """Fit the gene factors to the cells of the largest panel, with coordinates or without.

    How to mix in the surroundings is learned from patches of sections with coordinates.
    """
    rng = np.random.default_rng(seed)
    used = np.isin(data.section, sections) & data.expression_known
    widest = data.panels[data.panel[used]].any(0)
    is_full = np.asarray(data.panels[:, widest].all(axis=1))
    full = used & is_full[data.panel]
    source = full if full.any() else used
    groups = [np.flatnonzero(source & (data.section == section)) for section in sections]
    groups, size = _at_most(MAX_SECTIONS, groups, rng)
    groups = [data.shuffle(cells, rng, size)[:size] for cells in groups]
    if not groups:
        return
    values = [standardized(module, data, cells) for cells in groups]
    module.genes.fit(values, seed)
    module.genes.fit_weights(patches, module.smoother, seed)
    cells = np.concatenate(groups)
    centered = torch.cat([z - z.mean(0) for z in values])
    module.factors.fit(centered, _depth(module, data, cells), seed)
    cells = rng.permutation(cells)
    rank = pd.Series(data.label[cells]).groupby(data.label[cells]).cumcount().to_numpy()
    is_stored = (np.arange(len(cells)) < STORED_CELLS) | (rank < LEAST_OF_TYPE)
    _store_donors(module, data, cells[is_stored])
    more = cells[~is_stored][:MORE_CELLS]
    module.examples.fill(
        data.expression[more],
        data.panels,
        data.panel[more],
        torch.zeros(len(more), 0),
        data.label[more],
    )


def _depth(
    module: MaskedDiffusionModule, data: CellTable, cells: NDArray[np.int64]
) -> torch.Tensor:
    """Depth of cells relative to the median of training, ``(n,)``; 1 if values are not counts."""
    parts = []
    for chunk in np.split(cells, range(STORED_CELLS, len(cells), STORED_CELLS)):
        counts = torch.from_numpy(data.expression[chunk].toarray().astype(np.float32))
        measured = torch.from_numpy(data.measured(chunk))
        parts.append(module.expression_transform.depth(counts, measured))
    return torch.cat(parts)


def _store_donors(module: MaskedDiffusionModule, data: CellTable, cells: NDArray[np.int64]) -> None:
    """Store training cells as donors of drawn ones; the factors must be fitted."""
    description = module.factors.encode(
        standardized(module, data, cells),
        torch.from_numpy(data.measured(cells)),
        _depth(module, data, cells),
    )
    module.donors.fill(
        data.expression[cells], data.panels, data.panel[cells], description, data.label[cells]
    )


def fit_autocorrelation(
    module: MaskedDiffusionModule, data: CellTable, sections: list[str], seed: int
) -> None:
    """Fit the spatial autocorrelation of the factors; these must be fitted."""
    groups = [placed_cells(data, section) for section in sections]
    groups, _ = _at_most(MAX_SECTIONS, groups, np.random.default_rng(seed))

    def factors_of(cells: NDArray[np.int64]) -> NDArray[np.float64]:
        parts = np.split(cells, range(STORED_CELLS, len(cells), STORED_CELLS))
        factors = [
            module.factors.of_genes(
                standardized(module, data, part), torch.from_numpy(data.measured(part))
            )
            for part in parts
        ]
        return torch.cat(factors).double().numpy()

    located = [
        (data.position[cells], lambda chosen, cells=cells: factors_of(cells[chosen]))
        for cells in groups
    ]
    if located:
        module.autocorrelation.fit(located, seed)


def fit_places(
    module: MaskedDiffusionModule, data: CellTable, sections: list[str], seed: int
) -> None:
    """Fit the spacing of cells and the support of the tissue to all located cells."""
    groups = [cells[data.has_position[cells]] for cells in map(data.cells_of, sections)]
    positions = [data.position[cells] / float(module.position_transform.scale) for cells in groups]
    module.spacing.fit([points for points in positions if len(points) > 1])
    module.support.fit(
        [points - points.mean(0) if len(points) else points for points in positions], seed
    )


def fit_matcher(
    module: MaskedDiffusionModule,
    data: CellTable,
    sections: list[str],
    position_mask_ratio: float,
    seed: int,
    *,
    n_steps: int,
    reporter: Reporter,
) -> None:
    """Fit the reference matching; without a ``position_mask_ratio`` there is nothing to learn."""
    groups = [placed_cells(data, section) for section in sections]
    groups = [cells for cells in groups if len(cells) >= 2 * MIN_CELLS]
    if not groups or position_mask_ratio == 0:
        return
    rng = np.random.default_rng(seed)

    def draw_cells(step: int) -> SectionSample:
        cells = data.shuffle(groups[step % len(groups)], rng, MATCHED_CELLS)[:MATCHED_CELLS]
        return sample_of(module, data, cells)

    with reporter.bar(STAGE_1, n_steps, "steps") as progress:
        module.matcher.fit(
            draw_cells, position_mask_ratio, seed, n_steps=n_steps, on_step=progress.update
        )


def store_reference(
    module: MaskedDiffusionModule, data: CellTable, sections: list[str], seed: int
) -> None:
    """Store cells of sections with the model; the matching must be fitted."""
    rng = np.random.default_rng(seed)
    groups = [placed_cells(data, section) for section in rng.permutation(sections)]
    groups = [cells for cells in groups if len(cells) >= MIN_CELLS][:MAX_STORED_SECTIONS]
    chosen = [data.shuffle(cells, rng, MAX_STORED_CELLS)[:MAX_STORED_CELLS] for cells in groups]
    if chosen:
        module.reference.fill(module.matcher, [sample_of(module, data, c) for c in chosen])


def _at_most(
    n: int, groups: list[NDArray[np.int64]], rng: np.random.Generator
) -> tuple[list[NDArray[np.int64]], int]:
    """Choose ``n`` groups of cells at random if there are more, and how many cells of each."""
    groups = [cells for cells in groups if len(cells) > 1]
    if len(groups) > n:
        groups = [groups[i] for i in np.sort(rng.permutation(len(groups))[:n])]
    return groups, min(MAX_CELLS, MAX_CELLS_IN_ALL // max(len(groups), 1))


def placed_cells(data: CellTable, section: str) -> NDArray[np.int64]:
    """Find the cells of a section of which position and expression are known."""
    cells = data.cells_of(section)
    return np.asarray(cells[data.has_position[cells] & data.expression_known[cells]])


def _patches(
    module: MaskedDiffusionModule, data: CellTable, sections: list[str], rng: np.random.Generator
) -> list[SectionSample]:
    """Cells of sections with position and expression, a dense patch of a large one."""
    groups, size = _at_most(MAX_SECTIONS, [placed_cells(data, s) for s in sections], rng)
    patches = []
    for cells in groups:
        if len(cells) > size:
            distance = np.square(data.position[cells] - data.position[rng.choice(cells)]).sum(1)
            cells = cells[np.argsort(distance, kind="stable")[:size]]
        patches.append(sample_of(module, data, cells))
    return patches


def sample_of(
    module: MaskedDiffusionModule, data: CellTable, cells: NDArray[np.int64]
) -> SectionSample:
    """Standardize cells of one section with known positions."""
    position = torch.from_numpy(data.position[cells] - data.position[cells].mean(0)).float()
    return SectionSample(
        standardized(module, data, cells),
        torch.from_numpy(data.measured(cells)),
        module.position_transform(position),
    )


def standardized(
    module: MaskedDiffusionModule, data: CellTable, cells: NDArray[np.int64]
) -> torch.Tensor:
    """Standardized expression ``(n, G)``, 0 where a gene was not measured."""
    values = torch.from_numpy(data.expression[cells].toarray().astype(np.float32))
    measured = torch.from_numpy(data.measured(cells))
    return module.expression_transform(values, measured) * measured
