"""Mutations of what pinnacle keeps, from a seed: every column of every record, every place inside its JSON."""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.security.attacks import ESCAPES, INJECTION, changed

TYPES = [None, 7, -1, 0, 1.5, True, "", "x", [], {}, [[]], 10**18, -(10**18), float("inf")]
CODE = [
    "os:system", "subprocess:Popen", "builtins:exec", "antigravity:x", "setup:model", "evil_neighbour:model",
    "__main__:x", "pinnacle.testing.__main__:main", "tests.models:note", "tests.kill_job:main", "FunctionLLM", "OpenAI",
]  # fmt: skip
PLACES = [
    "users", "role", "docs", "body", "id", "pinnacle_component", "sqlite_master", "main.users", "docs.size", "size",
    "word_count", INJECTION, "1 = 1; DROP TABLE users", "(SELECT role FROM users)", "load_extension('evil')", "rowid",
]  # fmt: skip
ADDRESSES = [
    "file:///etc/passwd", "/etc/passwd", "../../../etc/passwd", "http://127.0.0.1:9/v1", "s3://evil/x",
    "memory://evil", "env:PINNACLE_SECRET", "env:PATH", "C:\\evil", "a/../../b", "\x00", ".", "",
]  # fmt: skip
TAGGED = [
    {"@function": {"reference": "os:system", "digest": None, "local": False}},
    {"@pickle": "0" * 64}, {"@path": "/etc/passwd"},
    {"@int": "9" * 5000}, {"@component": {"kind": "model", "identifier": "shout", "version": 0}}, {"@evil": 1},
    {"@artifact": {"sha256": "0" * 64, "size": 1}}, {"@output_type": "os:system"}, {"@dict": [[["x"], 1]]},
    {"trust_remote_code": True}, {"op": "AND", "args": []}, {"call": "load_extension", "args": [{"string": "x"}]},
    {"column": "role"}, {"side": "users", "item": None}, {"p0": "x"}, {"items": "str"}, {"type": "os:system"},
]  # fmt: skip
TEXTS = [ESCAPES, "\u202eevil", "a" * 100_000, "1e999", "NaN", "%s%s%n", "{input}", "\ufffe", "'", '"', "--", "\\"]
DANGEROUS: list[Any] = [*CODE, *PLACES, *ADDRESSES, *TAGGED, *TEXTS]
DEEP = "[" * 2_000 + "]" * 2_000


@dataclass(frozen=True)
class Place:
    """One value: a column of a row, or what is at a path inside its JSON."""

    table: str
    row: int
    column: str
    path: tuple[str | int, ...] = ()

    def __str__(self) -> str:
        inside = "".join(f"[{part!r}]" for part in self.path)
        return f"{self.table}[{self.row}].{self.column}{inside}"


@dataclass(frozen=True)
class Mutation:
    """What is put at a place."""

    place: Place
    value: Any
    record: str
    """The row as it was, to tell whose it is."""

    def __str__(self) -> str:
        return f"{self.place} = {ascii(self.value)[:80]}"

    def make(self, file: Path) -> bool:
        """Write it; False where the database takes no such value."""
        try:
            with closing(sqlite3.connect(file)) as raw, raw:
                raw.execute(
                    f'UPDATE "{self.place.table}" SET "{self.place.column}" = ? WHERE rowid = ?',
                    (self.value, self.place.row),
                )
        except (sqlite3.Error, OverflowError, UnicodeEncodeError):
            return False
        return True


class Mutations:
    """Mutations of one file, as many as one likes; the same from the same seed."""

    def __init__(self, file: Path, seed: int) -> None:
        self._random = random.Random(seed)
        self._values: dict[Place, Any] = {}
        self._records: dict[tuple[str, int], str] = {}
        with closing(sqlite3.connect(file)) as raw:
            listed = raw.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE 'pinnacle_%' ORDER BY name"
            )
            for (table,) in listed.fetchall():
                self._read(raw, table)
        self._columns: dict[tuple[str, str], list[Place]] = {}
        for place in self._values:
            self._columns.setdefault((place.table, place.column), []).append(place)

    @property
    def columns(self) -> set[tuple[str, str]]:
        """What there is a value in to mutate."""
        return set(self._columns)

    def _read(self, raw: sqlite3.Connection, table: str) -> None:
        found = raw.execute(f'SELECT rowid, * FROM "{table}"')
        names = [column[0] for column in found.description][1:]
        for row, *values in found.fetchall():
            self._records[table, row] = ascii(values)
            for name, value in zip(names, values, strict=True):
                place = Place(table, row, name)
                self._values[place] = value
                self._values.update((Place(table, row, name, path), inner) for path, inner in _inside(value))

    def __iter__(self) -> Iterator[Mutation]:
        columns = sorted(self._columns)
        while True:
            place = self._random.choice(self._columns[self._random.choice(columns)])
            yield Mutation(place, self._stored(place, self._mutated(place)), self._records[place.table, place.row])

    def _mutated(self, place: Place) -> Any:
        old, pick = self._values[place], self._random
        match pick.randrange(8):
            case 0 | 1:
                return pick.choice(TYPES)
            case 2 | 3 | 4:
                return pick.choice(DANGEROUS)
            case 5:
                return self._values[pick.choice(self._columns[place.table, place.column])]
            case 6:
                return self._flipped(old)
        return self._values[pick.choice(list(self._values))]

    def _flipped(self, old: Any) -> Any:
        """One bit of it is another."""
        if isinstance(old, (bool, int)):
            return int(old) ^ (1 << self._random.randrange(40))
        content = bytearray(old if isinstance(old, bytes) else str(old).encode())
        if content:
            content[self._random.randrange(len(content))] ^= 1 << self._random.randrange(8)
        return bytes(content) if isinstance(old, bytes) else content.decode("utf-8", "replace")

    def _stored(self, place: Place, value: Any) -> Any:
        """What the column holds then."""
        if not place.path:
            if self._random.random() < 0.05:
                return DEEP
            return json.dumps(value) if isinstance(value, (dict, list, tuple)) else value
        whole = json.loads(self._values[Place(place.table, place.row, place.column)])
        value = value.decode("latin-1") if isinstance(value, bytes) else value
        return json.dumps(changed(whole, place.path, value))


def _inside(value: Any) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """The paths inside a text of JSON, with what is there."""
    if not isinstance(value, str) or value[:1] not in ("{", "["):
        return
    try:
        content = json.loads(value)
    except ValueError:
        return
    waiting: list[tuple[tuple[str | int, ...], Any]] = [((), content)]
    while waiting:
        path, each = waiting.pop()
        parts = each.items() if isinstance(each, dict) else enumerate(each) if isinstance(each, list) else ()
        for part, inner in parts:
            yield (*path, part), inner
            waiting.append(((*path, part), inner))
