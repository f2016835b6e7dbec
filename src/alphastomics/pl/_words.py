"""Titles and labels in words, from names of AnnData."""

from __future__ import annotations

from alphastomics import _keys

KNOWN = {
    None: "measured",
    "X": "measured",
    _keys.PREDICTED: "predicted",
    _keys.SAMPLED: "sampled",
    _keys.REGISTERED: "registered",
    _keys.EXPRESSION_PREDICTED: "predicted",
    _keys.EXPRESSION_SAMPLED: "sampled",
    _keys.EXPRESSION_IMPUTED: "imputed",
}


def in_words(name: str | None) -> str:
    """Name of coordinates, a layer or a column, as a reader writes it."""
    return KNOWN.get(name) or str(name).replace("_", " ")


def capitalized(text: str) -> str:
    """Text with a capital first letter, others unchanged."""
    return text[:1].upper() + text[1:]


def uncapitalized(text: str) -> str:
    """Text with a small first letter, others unchanged."""
    return text[:1].lower() + text[1:]
