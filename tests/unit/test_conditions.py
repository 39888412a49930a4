"""Conditions as trees: the same SQL comes back, and no tree is SQL of another kind."""

from __future__ import annotations

from typing import Any

import pytest

from pinnacle import UnsupportedQuery
from pinnacle.backends.sql.conditions.grammar import FUNCTIONS, MAX_DEPTH, ROWS_OF, TYPES
from pinnacle.backends.sql.conditions.names import Scope, check_open
from pinnacle.backends.sql.conditions.parsing import check_volatile, parse
from pinnacle.backends.sql.conditions.rendering import render
from pinnacle.base.errors import ComponentError

COLUMNS = {"docs": ["id", "body", "n", "j", "Odd name"], "others": ["doc", "name"]}
ID, BODY, ONE = {"column": ["docs", "id"]}, {"column": ["docs", "body"]}, {"number": "1"}


class FakeTables:
    def columns(self, schema, table):
        check_open(schema, table)
        if table not in COLUMNS:
            raise ComponentError(f"no table {table}")
        return COLUMNS[table]

    def has_type(self, names):
        return list(names) in (["mood"], ["app", "mood"])


def quote(name):
    return name if name.isidentifier() and name.islower() else '"' + name.replace('"', '""') + '"'


def sql(tree: Any, *parameters: str) -> str:
    """The SQL of a tree, which comes in parentheses, without these."""
    scope = Scope(folds=True)
    with scope.inside({}):
        scope.add("docs", COLUMNS["docs"])
        text = render(tree, quote=quote, scope=scope, tables=FakeTables(), parameters=parameters)
    assert (text[0], text[-1]) == ("(", ")")
    return text[1:-1]


@pytest.mark.parametrize(
    "text",
    [
        "docs.n = :p0",
        "docs.n = :p0 AND docs.body LIKE '%' || :p1 || '%' ESCAPE '/' AND NOT docs.body IS NULL",
        "docs.n IN (:p0, :p1) AND docs.n NOT IN (SELECT others.doc FROM others)",
        "(docs.id, docs.n) IN (VALUES (:p0, :p1), (:p2, :p3))",
        "docs.n BETWEEN SYMMETRIC :p0 AND :p1",
        "docs.n IS NOT DISTINCT FROM -:p0\\:\\:INTEGER",
        "CAST((docs.j[:p0\\:\\:TEXT] ->> :p1\\:\\:TEXT) AS NUMERIC(10, 2)) > 1.5",
        "docs.j[:p0\\::p1] @> ARRAY[:p2, :p3]\\:\\:INTEGER[]",
        "CASE docs.n WHEN :p0 THEN 'it''s \\: so' ELSE docs.body END = :p1",
        'docs."Odd name" = :p0 COLLATE "C"',
        "EXTRACT(year FROM docs.body) = :p0",
        "docs.body = :p0\\:\\:mood OR docs.body = :p1\\:\\:app.mood[]",
        "docs.body = ANY (:p0\\:\\:TIMESTAMP(3) WITH TIME ZONE[])",
        "count(DISTINCT docs.id) FILTER (WHERE docs.n > 1) OVER (PARTITION BY docs.n ORDER BY docs.id DESC) > 1",
        "EXISTS (SELECT 1 FROM others AS o LEFT OUTER JOIN docs AS d ON d.id = o.doc WHERE o.name = docs.body)",
        "docs.id IN (SELECT x.v FROM (SELECT others.doc AS v FROM others GROUP BY v) AS x ORDER BY v LIMIT :p0)",
        "docs.id IN (WITH RECURSIVE t (a) AS (SELECT 1 UNION ALL SELECT t.a + 1 FROM t) SELECT t.a FROM t)",
        "EXISTS (SELECT * FROM json_each(docs.j) AS e WHERE e.value = :p0)",
        "docs.n = (SELECT max(o.doc) FROM docs AS a, LATERAL (SELECT others.doc FROM others) AS o)",
    ],
)  # fmt: skip
def test_a_condition_comes_back_as_it_was(text):
    tree = parse(text, folds=True)
    names = {f"p{n}" for n in range(4) if f":p{n}" in text}
    assert sql(tree, *names) in (text, f"({text})")


def test_an_or_may_stand_beside_other_conditions():
    """`sql` looks for the parentheses around each, also where a hostile tree has it below a word that binds tighter."""
    either = {"op": "OR", "args": [ONE, ONE]}
    assert sql({"op": "=", "args": [ID, either]}) == "docs.id = 1 OR 1"
    assert sql(parse("docs.n = 1 OR docs.id = 1", folds=True)) == "docs.n = 1 OR docs.id = 1"


def test_names_without_quotes_are_of_lower_case_where_the_database_folds_them():
    assert parse("BODY IS NULL", folds=True)["args"][0] == {"column": ["body"]}
    assert parse("BODY IS NULL", folds=False)["args"][0] == {"column": ["BODY"]}
    assert sql(parse("BODY is null", folds=True)) == "body IS NULL"


@pytest.mark.parametrize(
    ("text", "piece"),
    [
        ("n = 1; DROP TABLE docs", "; DROP TABLE docs"),
        ("n = 1 -- all", "comment"),
        ("n = /* all */ 1", "comment"),
        ("n = 1) OR (1 = 1", r"\) OR"),
        ("n = E'\\x41'", "x41"),
        ("n = $$x$$", "[$]"),
        ("body = U&'x'", "'x'"),
        ("n = 1 UNION SELECT 1", "UNION"),
        ("id IN (DELETE FROM docs RETURNING id)", "FROM docs"),
        ("id IN (SELECT id FROM docs FOR UPDATE)", "FOR UPDATE"),
        ("id IN (SELECT id FROM docs TABLESAMPLE system (1))", "TABLESAMPLE"),
        ("app.fn(n) = 1", r"\(n\)"),
    ],
)
def test_what_is_no_condition_is_refused_naming_the_piece(text, piece):
    with pytest.raises(UnsupportedQuery, match=piece):
        parse(text, folds=True)


def test_what_is_nested_too_deeply_is_refused():
    with pytest.raises(UnsupportedQuery, match="nested"):
        parse("(" * (MAX_DEPTH + 1) + "n = 1" + ")" * (MAX_DEPTH + 1), folds=True)
    deep: Any = ID
    for _ in range(100_000):
        deep = {"group": [deep]}
    with pytest.raises(ComponentError, match="nested"):
        sql(deep)
    wide = {"op": "AND", "args": [ID] * 300_000}
    with pytest.raises(ComponentError, match="no part"):
        sql(wide)


def call(name: str, *args: Any) -> dict[str, Any]:
    return {"call": name, "args": list(args)}


def chosen_from(*tables: Any, **rest: Any) -> dict[str, Any]:
    return {"select": {"items": [{"value": ONE}], "from": list(tables), **rest}}


HOSTILE: dict[str, Any] = {
    "a call without arguments' list": {"call": "lower"},
    "an operator that is a list": {"op": ["="], "args": [ONE, ONE]},
    "a column that is a mapping": {"column": [{}]},
    "a quantifier that is a list": {"any": ["ANY"], "of": {"group": [ONE]}},
    "a join that is a list": {"select": {"items": [{"value": ONE}], "from": [{"join": [], "left": {}, "right": {}}]}},
    "a function that reads files": call("pg_read_file", {"string": "/etc/passwd"}),
    "one that writes files": call("lo_export", ONE, {"string": "/tmp/x"}),
    "one that loads code": call("load_extension", {"string": "x"}),
    "one that waits": call("pg_sleep", ONE),
    "one that connects": call("dblink", {"string": "host=evil"}),
    "one that sets": call("set_config", {"string": "role"}, {"string": "postgres"}, {"constant": "FALSE"}),
    "one that runs SQL": call("query_to_xml", {"string": "select 1"}),
    "one with a schema": call("pg_catalog.lower", ID),
    "one with quotes": call('lower"(1); --', ID),
    "a function's name that is none": call(["lower"], ID),
    "rows of a function that reads files": chosen_from({"rows_of": call("pg_ls_dir", ONE), "alias": "x"}),
    "an unknown node": {"sql": "1=1"},
    "no node": "1=1",
    "a list": [ID],
    "nothing": None,
    "an unknown operator": {"op": "; DROP TABLE docs; --", "args": [ID, ID]},
    "an operator that is none": {"op": 1, "args": [ID, ID]},
    "an operator of a list": {"op": ["="], "args": [ID, ID]},
    "too many operands": {"op": "=", "args": [ID, ID, ID]},
    "too few operands": {"op": "BETWEEN", "args": [ID, ID]},
    "no operands": {"op": "AND", "args": []},
    "IN something else": {"op": "IN", "args": [ID, {"column": ["docs", "n"]}]},
    "a column that is SQL": {"column": ["docs", 'id" = 1 OR "id']},
    "a column that is a function": {"column": ["docs", "pg_sleep"]},
    "a column that is not there": {"column": ["docs", "secret"]},
    "a table that is not there": {"column": ["others", "name"]},
    "a column of a whole path": {"column": ["a", "b", "c", "d"]},
    "a column with NUL": {"column": ["docs", "id\x00"]},
    "a column of no text": {"column": ["docs", 1]},
    "a number that is SQL": {"number": "1); DROP TABLE docs; --"},
    "a number that is one": {"number": 1},
    "a text with a backslash": {"string": "\\' OR 1=1 --"},
    "a text with NUL": {"string": "a\x00b"},
    "a constant that is SQL": {"constant": "SESSION_USER"},
    "a parameter that is SQL": {"param": "p0) OR (1=1"},
    "a parameter that is not there": {"param": "p7"},
    "a type that is SQL": {"cast": ID, "to": {"name": "int) OR (1=1"}, "style": "CAST"},
    "a stranger's type": {"cast": ID, "to": {"named": ["evil"]}, "style": "::"},
    "a type's size that is SQL": {"cast": ID, "to": {"name": "varchar", "size": ["1); --"]}, "style": "CAST"},
    "a type's zone that is SQL": {"cast": ID, "to": {"name": "time", "zone": "; --"}, "style": "CAST"},
    "a cast of another style": {"cast": ID, "to": {"name": "int"}, "style": "; --"},
    "a part of time that is SQL": {"extract": "year FROM now()); --", "from": ID},
    "a word more": {"op": "=", "args": [ID, ID], "then": "; --"},
    "two nodes in one": {"number": "1", "string": "x"},
    "a system table": chosen_from({"table": ["pg_catalog", "pg_authid"]}),
    "pinnacle's schema": chosen_from({"table": ["pinnacle", "pinnacle_component"]}),
    "pinnacle's table": chosen_from({"table": ["pinnacle_component"]}),
    "SQLite's own table": chosen_from({"table": ["sqlite_master"]}),
    "an unknown table": chosen_from({"table": ["secrets"]}),
    "a table that is SQL": chosen_from({"table": ["docs; --"]}),
    "a join that is SQL": chosen_from({"join": "; --", "left": {"table": ["docs"]}, "right": {"table": ["docs"]}}),
    "a way of a join": chosen_from({"table": ["docs"]}, order_by=[{"value": ONE, "way": "; --"}]),
    "a lock": chosen_from({"table": ["docs"]}, locks="FOR UPDATE"),
    "parts that are SQL": {
        "select": {"parts": [["", {"items": [{"value": ONE}]}], ["; --", {"items": [{"value": ONE}]}]]}
    },
    "a column name that is SQL": {"select": {"items": [{"value": ONE, "name": None}]}},
    "a star of another table": {"select": {"items": [{"value": {"star": ["others"]}}], "from": [{"table": ["docs"]}]}},
    "a star alone": {"star": []},
    "a statement": {"select": {"delete": "docs"}},
    "a kept CTE": {"select": {"with": [{"name": "x", "kept": "; --", "as": {"items": [{"value": ONE}]}}], "items": []}},
    "columns of rows that are SQL": chosen_from({"rows": {"items": [{"value": ONE}]}, "alias": "x", "columns": "; --"}),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_tree_is_refused(name):
    with pytest.raises(ComponentError):
        sql({"op": "AND", "args": [{"op": "IS", "args": [ID, ID]}, HOSTILE[name]]}, "p0")


@pytest.mark.parametrize("name", HOSTILE)
def test_it_is_refused_within_a_subquery_too(name):
    with pytest.raises(ComponentError):
        sql(chosen_from({"table": ["docs"]}, where=HOSTILE[name], order_by=[{"value": ID}]), "p0")


def test_a_parameter_that_is_not_used_is_refused():
    with pytest.raises(ComponentError, match="p1"):
        sql({"op": "=", "args": [ID, {"param": "p0"}]}, "p0", "p1")


def test_names_are_quoted_whatever_is_in_them(monkeypatch):
    monkeypatch.setitem(COLUMNS, "docs", ['id" OR 1=1 --', "a:b"])
    assert sql({"column": ['id" OR 1=1 --']}) == '"id"" OR 1=1 --"'
    assert sql({"column": ["a:b"]}) == '"a\\:b"'
    assert sql({"op": "=", "args": [{"string": "' OR ':x'='"}, ONE]}) == "''' OR ''\\:x''=''' = 1"


def test_minus_signs_are_no_comment():
    assert sql({"op": "-", "args": [{"op": "-", "args": [{"op": "-", "args": [ID]}]}]}) == "- - -docs.id"


def test_chance_may_choose_for_a_sample_alone():
    tree = parse("docs.id IN (SELECT docs.id FROM docs ORDER BY random() LIMIT 5)", folds=True)
    check_volatile(tree, limited=True)
    with pytest.raises(UnsupportedQuery, match="random"):
        check_volatile(tree, limited=False)


def test_no_function_on_the_list_reaches_beyond_its_arguments():
    """By how those are named that read or write files, settings, other databases, or wait."""
    beginnings = ("pg_", "lo_", "dblink", "set_config", "current_", "query_to", "load", "read", "write", "file", "txid")
    assert not [name for name in FUNCTIONS | set(ROWS_OF) if name.startswith(beginnings)]
    assert not {"regclass", "regproc", "oid", "name", "xml"} & TYPES
