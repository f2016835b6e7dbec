"""Tools on AnnData: scores and floors."""

from alphastomics.tl._floors import placement_floors
from alphastomics.tl._score import score

__all__ = ["placement_floors", "score"]
