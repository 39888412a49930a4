"""Paths into JSON give a model the very values that the document holds, on every SQL database alike."""

from __future__ import annotations

import json

import pytest
import sqlalchemy as sa

from pinnacle import model
from pinnacle.backends.protocol import Capability
from tests.models import note

pytestmark = pytest.mark.requires(Capability.SQL)

STORED = {
    "yes": True, "no": False, "sum": 0.1 + 0.2, "whole": 1.0, "large": 2**64, "digits": {"7": "seven"},
    "it's": 1, 'a "b"': 2, "größe": 3, "back\\slash": 4, "50%": 5, "list": [{"deep": [1, 2]}], "": 6,
}  # fmt: skip


@model(identifier="shown")
def shown(value: object) -> str:
    return repr(note(value))


def create(backend, kind: str, *documents: str) -> sa.Select:
    insert = sa.text(f"INSERT INTO docs VALUES (:key, {':text' if kind == 'JSON' else f'CAST(:text AS {kind})'})")
    with backend.engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE TABLE docs (id INTEGER PRIMARY KEY, meta {kind})")
        connection.execute(insert, [{"key": key, "text": text} for key, text in enumerate(documents, 1)])
    return sa.select(sa.table("docs", sa.column("id"), sa.column("meta", sa.JSON)))


def kinds(backend) -> list[str]:
    return ["JSON"] if backend.name == "sqlite" else ["json", "jsonb"]


def told(backend, name: str = "said") -> dict[int, str]:
    with backend.engine.connect() as connection:
        return dict(map(tuple, connection.execute(sa.text(f"SELECT id, {name} FROM docs ORDER BY id"))))


@pytest.mark.parametrize("number", [0, 1])
def test_a_path_gives_the_value_itself(backend, db, number):
    kind = kinds(backend)[min(number, len(kinds(backend)) - 1)]
    query = create(backend, kind, json.dumps(STORED))
    paths = {name: value for name, value in STORED.items() if name} | {
        "digits.7": "seven", "list.0.deep.1": 2, "list.5": None, "digits.8": None, "yes.no": None,
    }  # fmt: skip
    for place, (path, value) in enumerate(paths.items()):
        shown.predict(X=f"meta.{path}", db=db, select=query, output=f"o{place}")
        expected = {1: None if value is None else repr(value)}
        assert told(backend, f"o{place}") == expected, path


def test_the_last_digit_of_a_number_is_a_change(backend, db, calls):
    kind = kinds(backend)[0]
    query = create(backend, kind, '{"sum": 0.3000000000000000}')
    shown.predict(X="meta.sum", db=db, select=query, output="said")
    with backend.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE docs SET meta = '{\"sum\": 0.30000000000000004}'")
    assert shown.predict(X="meta.sum", db=db, select=query, output="said").written == 1
    assert calls == [(0.3), (0.1 + 0.2)]


def test_a_document_that_cannot_be_walked_costs_its_row_alone(backend, db, calls):
    kind = kinds(backend)[0]
    deep = '{"a":' * 5_000 + "1" + "}" * 5_000
    bad = "{" if backend.name == "sqlite" else deep
    query = create(backend, kind, '{"a": 1}', bad, deep, '{"a": "\\u0000", "b": 1}', '{"a": 2}')
    first = shown.predict(X="meta.a", db=db, select=query, output="said")
    again = shown.predict(X="meta.a", db=db, select=query, output="said")
    assert told(backend) == {1: "1", 2: None, 3: None, 4: "'\\x00'", 5: "2"}
    assert (first.written, first.failed, again.fresh, again.set_aside) == (3, 2, 3, 2)
    assert sorted(error.key for error in db.errors()) == [2, 3]
