"""PostgreSQL: an input column that a migration gives a type of the same values recomputes nothing."""

from __future__ import annotations

import psycopg
import pytest
import sqlalchemy as sa

from pinnacle import model, pinnacle


@model(version="1")
def seen(value: object) -> str:
    return repr(value)


RETYPED = [
    ("varchar(50)", "text", "'a'", 0),
    ("varchar(5)", "varchar(50)", "'a'", 0),
    ("text", "varchar(50)", "'a'", 0),
    ("short_text", "text", "'a'", 0),
    ("mood", "text", "'ok'", 0),
    ("varchar(9)[]", "text[]", "'{a,b}'", 0),
    ("smallint", "integer", "7", 0),
    ("integer", "bigint", "-7", 0),
    ("integer[]", "bigint[]", "'{1,NULL}'", 0),
    ("numeric(6,2)", "numeric(12,2)", "1.5", 0),
    ("numeric(6,2)", "numeric", "1.5", 0),
    ("numeric(6,2)", "numeric(8,3)", "1.5", 1),
    ("integer", "text", "7", 1),
    ("real", "double precision", "0.1", 1),
    ("json", "jsonb", '\'{"b": 1, "a": 2}\'', 1),
]


@pytest.mark.parametrize(("before", "after", "value", "computed"), RETYPED)
def test_a_type_that_holds_the_same_values_computes_nothing_again(postgres_url, before, after, value, computed):
    with psycopg.connect(postgres_url, autocommit=True) as plain, pinnacle(postgres_url) as db:
        plain.execute("CREATE TYPE mood AS ENUM ('ok', 'sad'); CREATE DOMAIN short_text AS varchar(5)")
        plain.execute(f"CREATE TABLE docs (id integer PRIMARY KEY, body {before})")
        plain.execute(f"INSERT INTO docs VALUES (1, {value})")

        def predict():
            docs = sa.Table("docs", sa.MetaData(), autoload_with=db.engine)
            return seen.predict(X="body", db=db, select=sa.select(docs), output="out").computed

        assert (predict(), predict()) == (1, 0)
        stored = plain.execute("SELECT out FROM docs").fetchone()
        plain.execute(f"ALTER TABLE docs ALTER COLUMN body TYPE {after} USING body::{after}")
        assert predict() == computed
        computed_again = repr(plain.execute("SELECT body FROM docs").fetchone()[0])
        assert computed or stored == (computed_again,)  # what was kept is what the model would say now
