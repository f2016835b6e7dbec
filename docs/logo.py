"""Draws docs/_static/logo.svg: layers of cells, most of them placed: python docs/logo.py."""

from __future__ import annotations

from math import cos, pi, sin
from pathlib import Path

OUT = Path(__file__).parent / "_static" / "logo.svg"
# Okabe-Ito colors from the outer to the inner layer, and the number of cells of each.
LAYERS = [("#0072B2", 9), ("#56B4E9", 8), ("#009E73", 6), ("#E69F00", 5), ("#D55E00", 3)]
UNKNOWN = {(0, 6), (2, 1), (3, 3)}  # cells whose position is open: outlines


def logo() -> str:
    """SVG of five arcs of cells, as in a cortex."""
    cells = []
    for layer, (color, n_cells) in enumerate(LAYERS):
        radius = 52 - 9.5 * layer
        for cell in range(n_cells):
            angle = pi * (0.06 + 0.88 * (cell + 0.5) / n_cells)
            x, y = 64 - radius * cos(angle), 92 - 1.35 * radius * sin(angle)
            style = (
                f'fill="none" stroke="{color}" stroke-width="1.6"'
                if (layer, cell) in UNKNOWN
                else f'fill="{color}"'
            )
            cells.append(f'  <circle cx="{x:.1f}" cy="{y:.1f}" r="4.6" {style}/>')
    body = "\n".join(cells)
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 16 128 84" role="img">\n'
        f"  <title>alphastomics</title>\n{body}\n</svg>\n"
    )


if __name__ == "__main__":
    OUT.write_text(logo())
