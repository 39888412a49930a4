"""Prints rows as columns, and statements as a script."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import click

from pinnacle.base.told import plain, plain_lines


def show_statements(statements: Sequence[str]) -> None:
    """One statement a paragraph, each ended by a semicolon unless it is not SQL."""
    if not statements:
        click.echo("Nothing to do.")
    for statement in statements:
        click.echo(plain_lines(statement.rstrip().rstrip(";") + ";"))


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Rows as aligned columns under a header; a dash where there are none."""
    cells = [[plain(cell) for cell in row] for row in rows]
    if not cells:
        return "  -"
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
    return "\n".join("  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in [list(header), *cells])
