"""Writes docs/config-errors.md: every kind of error in a configuration, as a user sees it.

python docs/config_errors.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from alphastomics.config import ConfigError, load_config

PAGE = Path(__file__).with_name("config-errors.md")
CASES = {
    "unknown key": "training: {learning_rat: 0.1}",
    "unknown section": "trainning: {epochs: 3}",
    "key in the wrong section": "diffusion: {epochs: 3}",
    "text for a number": "training: {epochs: many}",
    "fraction for a whole number": "TransformerLayer_setting: {d_model: 12.5}",
    "text for a switch": "masking: {enable: 'yes please'}",
    "out of range": "masking: {expression_mask_ratio: 1.5}",
    "negative": "training: {learning_rate: -1e-4}",
    "zero": "training: {batch_size: 0}",
    "choice": "training_mode: both",
    "choice in a section": "TransformerLayer_setting: {attention: flash}",
    "gate": "TransformerLayer_setting: {use_gated_attention: true, gate_type: strong}",
    "width and heads": "TransformerLayer_setting: {d_model: 100, num_heads: 8}",
    "more experts than there are": (
        "TransformerLayer_setting: {use_moe: true, num_experts: 4, moe_top_k: 5}"
    ),
    "experts that do not divide": (
        "TransformerLayer_setting: {use_moe: true, num_experts: 7, moe_top_k: 2, d_ff: 256}"
    ),
    "a list where keys belong": "training: [1, 2]",
    "no keys at all": "just text",
    "not YAML": "training: {epochs: 3",
    "key that is there twice": "training: {epochs: 3, epochs: 5}",
    "alias": "training: {epochs: &n 3, batch_size: *n}",
    "infinite": "training: {learning_rate: .inf}",
    "far too large": "TransformerLayer_setting: {num_layers: 100000}",
    "two at once": "training: {epochs: 0, batch_size: many}",
}


def message(text: str) -> str:
    """Message of a configuration that cannot be."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"
        path.write_text(text)
        try:
            load_config(path)
        except ConfigError as error:
            return str(error).replace(str(path), "config.yaml")
    raise AssertionError(f"{text!r} is no error")


def page() -> str:
    """Table of all cases."""
    lines = [
        "# Errors in a configuration",
        "",
        "Each names the key, what was found and what may be there. The command ends with exit code",
        "2 before anything is written.",
        "",
        "| | `config.yaml` | message |",
        "|---|---|---|",
    ]
    for name, text in CASES.items():
        told = message(text).replace("|", r"\|").replace("\n", "<br>")
        lines.append(f"| {name} | `{text}` | {told} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
