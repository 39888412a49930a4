"""What a call would do, told beforehand: statements, rows to compute, why, and whose values would go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pinnacle.backends.protocol import Backend, Source, Target
from pinnacle.base.errors import ConfigError
from pinnacle.base.rows import OutputSpec

PAGE_ROWS = 10_000


@dataclass(frozen=True)
class Plan:
    """Statements that a call would run, in order; prints as a script.

    For a model with ``X`` and ``select`` also: of the ``rows`` selected, ``computed`` would be computed, and
    ``recomputed`` of these have an output already. ``changes`` names what of the model is another than in its newest
    stored version: fields, and what its code consists of. ``foreign`` values stand where the output would go and were
    not written by pinnacle: they are refused, unless ``adopt=True`` gives them up.
    """

    statements: tuple[str, ...]
    rows: int | None = None
    computed: int = 0
    recomputed: int = 0
    changes: tuple[str, ...] = ()
    foreign: int = 0

    def __str__(self) -> str:
        lines = [f"{statement};" for statement in self.statements]
        if self.rows is not None and (lines or self.computed):
            lines.append(f"-- rows: {self.rows:,}; to compute: {self.computed:,}; of these again: {self.recomputed:,}")
        if self.changes:
            lines.append(f"-- the model is another than its newest version by: {', '.join(self.changes)}")
        if self.foreign:
            lines.append(f"-- values there that pinnacle did not write: {self.foreign:,}; adopt=True gives them up")
        return "\n".join(lines) or "nothing to do"


def counted(target: Target) -> tuple[int, int, int]:
    """Of an output's rows: how many there are, how many need work, and how many of these have an output recorded."""
    rows = computed = recomputed = 0
    after = None
    while (page := target.read(after, PAGE_ROWS)).last is not None:
        after = page.last
        rows += page.read
        computed += len(page.keys)
        recomputed += len(page.keys) - page.missing
    return rows, computed, recomputed


def foreign_values(backend: Backend, source: Source, spec: OutputSpec, chosen: Any) -> int:
    """How many values a predict would overwrite that pinnacle did not write; none at a place that nobody chose,
    which is called after the model."""
    return 0 if chosen is None else backend.outputs.foreign(source, spec)


def refuse_foreign(backend: Backend, source: Source, spec: OutputSpec, chosen: Any, *, adopt: bool) -> None:
    """ConfigError where values would be overwritten that pinnacle did not write, unless that is meant."""
    if not adopt and (foreign := foreign_values(backend, source, spec, chosen)):
        backend.plan(source, spec)  # what else stands in the way is said first
        values = "1 value" if foreign == 1 else f"{foreign:,} values"
        raise ConfigError(
            f"{source.table}.{spec.name} holds {values} that pinnacle did not write, and the output of model "
            f"{spec.model!r} would overwrite them; choose another place with output=, or give them up with adopt=True"
        )
