"""Every name under which alphastomics reads from or writes to AnnData, once."""

from __future__ import annotations

from typing import Final

# Read, unless `setup_anndata` gets other names.
SPATIAL: Final = "spatial"
SECTION: Final = "section"
CELL_TYPE: Final = "cell_type"
EXPRESSION_KNOWN: Final = "expression_known"  # obs, False where a cell was not measured
MEASURED: Final = "measured"  # varm, one boolean column a section

# Written.
PREDICTED: Final = "spatial_predicted"
SAMPLED: Final = "spatial_sampled"
REGISTERED: Final = "spatial_registered"
DRAWS_SUFFIX: Final = "_draws"
RADIUS_SUFFIX: Final = "_radius"
ONLY_SECTION: Final = "all"  # name of the section of cells without a section_key
EXPRESSION_PREDICTED: Final = "expression_predicted"
EXPRESSION_SAMPLED: Final = "expression_sampled"
EXPRESSION_IMPUTED: Final = "expression_imputed"
POSITION_IMPORTANCE: Final = "position_importance"  # var, written by `al.tl.gene_importance`
LOWER_SUFFIX: Final = "_lower"  # of the 90 % interval of expression
UPPER_SUFFIX: Final = "_upper"
RELIABILITY_SUFFIX: Final = "_reliability"  # var
RELIABILITY: Final = "reliability"  # in the provenance of imputed genes
UNS: Final = "alphastomics"
UNITS: Final = "units"

# Registry of the setup, beside scvi-tools' own `REGISTRY_KEYS.X_KEY`.
POSITION_REGISTRY: Final = "position"
CATEGORIES_REGISTRY: Final = "categories"
UNITS_REGISTRY: Final = "units"

# Written by `al.pp` and `preprocess`.
SPLIT: Final = "split"  # obs, train, val or test
HIGHLY_VARIABLE: Final = "highly_variable"  # var
BLOCKS: Final = "blocks"  # uns of a store, where its blocks start and end

# Of SpatialData, in uns of a table: what its rows annotate.
SPATIALDATA: Final = "spatialdata_attrs"

# Saved models: version of the format, files of checkpoints.
MODEL_FORMAT: Final = 3  # 1: alphastomics 0.1; 2: without stored cells for imputation
LAST_CHECKPOINT: Final = "last.ckpt"
BEST_CHECKPOINT: Final = "best.ckpt"
