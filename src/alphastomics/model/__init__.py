"""The scvi-tools-style model on AnnData."""

from alphastomics.model._model import AlphaSTomics

__all__ = ["AlphaSTomics"]
