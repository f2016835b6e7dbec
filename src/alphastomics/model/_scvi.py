"""Habits of scvi-tools: what its models have that this one lacks, and what to use instead."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import rich.pretty  # noqa: F401  # AnnDataManager prints by it, but does not import it
import torch
from anndata import AnnData
from numpy.typing import ArrayLike, NDArray
from scvi.model.base import BaseModelClass

from alphastomics._options import nearest_name
from alphastomics._validate import renamed_argument, short

Function = TypeVar("Function", bound=Callable[..., Any])
Model = TypeVar("Model")

# Attributes of scvi-tools' models, its mixins' too.
ELSEWHERE = {
    "convert_legacy_save": "models of scvi-tools cannot be loaded, train this one",
    "data_registry": "data are in model.adata, and what is read of it in model.registry",
    "differential_abundance": "compare shares of model.predict's or your own labels in .obs",
    "differential_expression": "use scanpy.tl.rank_genes_groups on measured or imputed genes",
    "get_elbo": "losses are in model.history, scores in al.tl.score",
    "get_from_registry": "data are in model.adata, and what is read of it in model.registry",
    "get_likelihood_parameters": "use model.sample, which draws counts",
    "get_marginal_ll": "losses are in model.history, scores in al.tl.score",
    "get_normalized_expression": "use model.predict(mode='pos_to_expr'), or model.impute for genes",
    "get_normalized_function_name": "use model.predict(mode='pos_to_expr')",
    "get_reconstruction_error": "losses are in model.history, scores in al.tl.score",
    "get_var_names": "use model.genes",
    "load_query_data": "a query needs no training: pass it to model.predict",
    "minify_adata": "a model needs no adata: AlphaSTomics.load(folder)",
    "posterior_predictive_sample": "use model.sample",
    "setup_mudata": "pass one AnnData to setup_anndata, such as mdata['rna']",
    "test_indices": "sections are held out, not cells: see model.training_record",
    "train_indices": "sections are held out, not cells: see model.training_record",
    "transfer_fields": "other cells need no setup: pass them to model.predict",
    "update_setup_method_args": "call setup_anndata again, and make a new model",
    "validation_indices": "sections are held out, not cells: see model.training_record",
    "view_registry": "use model.view_anndata_setup()",
}
FOLDER = "a model is a folder, so put the prefix into its name"
SAVE = {
    "prefix": FOLDER,
    "save_anndata": "write it by adata.write_h5ad; a loaded model needs none to place cells",
    "save_kwargs": "files are safetensors and JSON",
    "legacy_mudata_format": "MuData is not read",
    "datamodule": "cells come from an AnnData, or from the command preprocess",
}
LOAD = {
    "prefix": FOLDER,
    "accelerator": "call model.to_device('cuda:0') after it",
    "device": "call model.to_device('cuda:0') after it",
    "backup_url": "download the folder first",
    "datamodule": "cells come from an AnnData, or from the command preprocess",
    "allowed_classes_names_list": "nothing in a saved model is run",
}
DEVICE = {"use_gpu": "pass accelerator='gpu' or 'cpu'"}
TRAIN = {
    "train_size": "name sections to hold out by val_sections=",
    "validation_size": "name sections to hold out by val_sections=",
    "shuffle_set_split": "name sections to hold out by val_sections=",
    "external_indexing": "name sections to hold out by val_sections=",
    "datasplitter_kwargs": "name sections to hold out by val_sections=",
    "plan_kwargs": "pass lr= and weight_decay= themselves",
    **DEVICE,
    "load_sparse_tensor": "sets of cells are made dense as they are drawn",
    "datamodule": "cells come from an AnnData, or from the command preprocess",
}
PARTS = {**DEVICE, "batch_size": "pass max_cells_per_set=, the most cells that are read at once"}
QUERY = {
    **PARTS,
    "indices": "pass a part of the cells, such as adata[indices].copy()",
    "inplace": "pass copy=True for a new AnnData",
}
NEW_CELLS = {**DEVICE, "batch_size": "many cells are divided into parts automatically"}
LATENT = {
    **PARTS,
    "give_mean": "the embedding is not drawn",
    "mc_samples": "the embedding is not drawn",
    "return_dist": "the embedding is not drawn",
    "dataloader": "pass an AnnData",
}
# Options of scvi-tools' methods that those of the same name here lack.
OPTIONS = {
    "train": TRAIN,
    "calibrate": TRAIN,
    "predict": QUERY,
    "sample": QUERY,
    "impute": QUERY,
    "register": QUERY,
    "predict_expression": NEW_CELLS,
    "generate": NEW_CELLS,
    "get_latent_representation": LATENT,
    "save": SAVE,
    "load": LOAD,
    "load_registry": {"prefix": FOLDER},
    "view_setup_args": {"prefix": FOLDER},
}
RENAMED = ("max_set", "max_cells_per_set")  # in an earlier version of this package
UNSET = (None, False, "auto")

# Of scvi-tools: the monitor is its own, and 45 epochs are longer than most trainings here.
EARLY_STOPPING = {"early_stopping_monitor": "validation_loss", "early_stopping_patience": 5}
MONITORS = ("validation_loss", "train_loss")


class Elsewhere:
    """Attribute that a model lacks, with what it has instead: ``hasattr`` is False."""

    def __init__(self, name: str, instead: str) -> None:
        self.name, self.instead = name, instead

    def __get__(self, model: object, owner: type) -> Any:
        """Raise."""
        raise AttributeError(f"{owner.__name__} has no {self.name}: {self.instead}.")


def explain_differences(model: type[Model]) -> type[Model]:
    """Class that says what to use instead of attributes and options of scvi-tools it lacks."""
    for name, instead in ELSEWHERE.items():
        setattr(model, name, Elsewhere(name, instead))
    for name, options in OPTIONS.items():
        method = vars(model)[name]
        if isinstance(method, classmethod):
            setattr(model, name, classmethod(without_options(options)(method.__func__)))
        else:
            setattr(model, name, renamed_argument(*RENAMED)(without_options(options)(method)))
    return model


class HidesInherited(type(BaseModelClass)):  # type: ignore[misc]
    """Metaclass of a model whose class does not list the attributes :data:`ELSEWHERE`."""

    def __dir__(cls) -> list[str]:
        return sorted(set(super().__dir__()) - ELSEWHERE.keys())


def require_setup(owner: type[BaseModelClass], adata: object) -> None:
    """Raise unless cells were registered by ``setup_anndata`` of a model class."""
    if not isinstance(adata, AnnData):
        raise TypeError(
            "adata must be an AnnData that was registered by setup_anndata, found "
            f"{adata!r:.60}; AlphaSTomics.load(folder) opens a saved model."
        )
    try:
        manager = owner._get_most_recent_anndata_manager(adata)
    except ValueError:  # it is a copy of one that was set up
        manager = None
    if manager is None:
        raise ValueError(
            "adata is not set up: call AlphaSTomics.setup_anndata(adata, ...) first, and again "
            "for a copy or after reading it from a file."
        )


def without_options(instead: dict[str, str]) -> Callable[[Function], Function]:
    """Let a method refuse options of scvi-tools, saying what to use ``instead``, unless unset.

    Of other options that it lacks, the error names the nearest one that it has.
    """

    def decorate(function: Function) -> Function:
        parameters = inspect.signature(function).parameters
        takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())

        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            for name in instead.keys() & kwargs.keys():
                value = kwargs.pop(name)
                if not any(value is unset or value == unset for unset in UNSET):
                    raise TypeError(
                        f"{function.__name__} takes no {name}={short(value)}: {instead[name]}."
                    )
            for name in [] if takes_all else sorted(kwargs.keys() - parameters.keys()):
                own = [known for known in parameters if known not in ("self", "cls")]
                raise TypeError(
                    f"{function.__name__} takes no {name}={short(kwargs[name])}."
                    f"{nearest_name(name, own)} Options are {', '.join(own)}."
                )
            return function(*args, **kwargs)

        return wrapped  # type: ignore[return-value]

    return decorate


def stopping_options(options: dict[str, Any], *, validates: bool) -> dict[str, Any]:
    """Options of a trainer, with our defaults for ``early_stopping``."""
    if not options.get("early_stopping"):
        return options
    options = {**EARLY_STOPPING, **options}
    monitor = options["early_stopping_monitor"]
    if monitor not in MONITORS:
        raise ValueError(
            f"early_stopping_monitor must be {' or '.join(map(repr, MONITORS))}, found {monitor!r}."
        )
    if monitor == "validation_loss" and not validates:
        raise ValueError(
            "early_stopping=True watches the validation loss: name sections to validate on by "
            "val_sections=, or pass early_stopping_monitor='train_loss'."
        )
    return options


def chosen_cells(indices: ArrayLike, n: int) -> NDArray[np.int64]:
    """Read ``indices``: numbers of cells, or a mask ``(n,)``."""
    chosen = np.asarray(indices)
    if chosen.shape == (n,) and chosen.dtype == bool:
        return np.flatnonzero(chosen)
    if chosen.size == 0 and chosen.ndim == 1:
        return np.zeros(0, dtype=np.int64)
    if chosen.ndim != 1 or not np.issubdtype(chosen.dtype, np.integer):
        raise TypeError(
            f"indices must be numbers of cells, or a mask of {n} cells, found {short(indices)}."
        )
    if chosen.min() < -n or chosen.max() >= n:
        raise ValueError(
            f"indices must be below the number of cells, {n}, found {chosen.min()} to "
            f"{chosen.max()}."
        )
    return chosen.astype(np.int64)


def move(module: Any, device: Any) -> None:
    """Move a network to a device, or say that this machine has none such."""
    try:
        module.to(torch.device(device))  # not to a type, which Module.to also takes
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            f"device={device!r} cannot be used on this machine, 'cpu' always can: "
            f"{str(error).splitlines()[0]}"
        ) from error
