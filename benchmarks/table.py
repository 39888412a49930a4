"""Prints figures as tables, and says which of them miss their bound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Table:
    """Rows of cells under headings; numbers are aligned right. ``misses`` counts bounds that do not hold."""

    title: str
    headings: Sequence[str]
    rows: list[list[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    misses: int = 0

    def add(self, *cells: object, holds: bool | None = None) -> None:
        """One row; ``holds`` says whether its bound does and becomes the last cell."""
        shown = [cell if isinstance(cell, str) else written(cell) for cell in cells]
        if holds is not None:
            shown.append("yes" if holds else "NO")
            self.misses += not holds
        self.rows.append(shown)

    def __str__(self) -> str:
        lines = [list(self.headings), *self.rows]
        widths = [max(len(line[i]) for line in lines if i < len(line)) for i in range(len(self.headings))]
        text = ["  ".join(place(cell, width) for cell, width in zip(line, widths, strict=False)) for line in lines]
        rule = "-" * max(map(len, text))
        return "\n".join([self.title, rule, text[0], rule, *text[1:], *self.notes, ""])


def written(cell: object) -> str:
    """A number in few digits."""
    if isinstance(cell, float):
        return f"{cell:,.0f}" if abs(cell) >= 1000 else f"{cell:.3g}" if abs(cell) < 1 else f"{cell:.2f}"
    return f"{cell:,}" if isinstance(cell, int) else str(cell)


def place(cell: str, width: int) -> str:
    is_number = cell[:1].isdigit() or cell[:1] in "-+" or cell == "yes" or cell == "NO"
    return cell.rjust(width) if is_number else cell.ljust(width)
