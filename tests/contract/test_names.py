"""Names with anything in them: of tables, fields, outputs and models. Identifiers are always quoted."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pinnacle import ConfigError, Conflict, Side, model
from pinnacle.backends.protocol import Capability
from tests.contract.documents import create_docs, has, outputs
from tests.contract.listening import add
from tests.models import shout, whisper

pytestmark = pytest.mark.same_standalone

numbers = itertools.count()

AWKWARD = [
    'say "hi"', "it's", "two words", "ünï çødé 🎈", "100%", "%s", "%(name)s", ":colon", "?", "semi;colon", "a`b", "[x]",
    "select", "Robert'); DROP TABLE docs;--", "UPPER lower", " leading", "trailing ", "back\\slash", "tab\there", "1st",
    "line\nbreak", "--", "/* x */", "{brace}", "x" * 63, "é" * 31, "pinnacle", "oid_", "null", "@", "#",
]  # fmt: skip
SQL_ONLY = ["a.b", ".", "$1", "a..b"]
"""Names that are a path, or forbidden, in a document."""


def names(backend):
    return AWKWARD + (SQL_ONLY if has(backend, Capability.SQL) else [])


def test_a_table_a_field_and_an_output_of_any_name_work(backend, db):
    for number, name in enumerate(names(backend)):
        table = f"{name[:20]} {number}"
        backend.create(table, {name: str})
        backend.insert(table, {name: "a"})
        result = shout.predict(X=name, db=db, select=backend.query(table), output=f"{name[:20]} out")
        assert result.written == 1, name
        assert outputs(backend, db, name, "shout", table) == {1: "A"}, name
        assert shout.predict(X=name, db=db, select=backend.query(table), output=f"{name[:20]} out").fresh == 1, name
        assert backend.read(table, 1) == {name: "a", f"{name[:20]} out": "A"}, name


def test_default_outputs_of_any_field_and_model_name_keep_apart(backend, db):
    fields = names(backend)
    backend.create("docs", dict.fromkeys(fields, str))
    backend.insert("docs", {name: f"value {n}" for n, name in enumerate(fields)})
    for number, name in enumerate(fields):
        the_model = model(lambda text, number=number: f"{number}: {text}", identifier=f"${name}.", output_type=str)
        the_model.predict(X=name, db=db, select=backend.query("docs"))
    for number, name in enumerate(fields):
        assert outputs(backend, db, name, f"${name}.") == {1: f"{number}: value {number}"}
    assert db.show("model") == sorted(f"${name}." for name in fields)
    assert len({info.name for info in db.outputs()}) == len(fields)


def test_a_default_name_is_the_field_and_the_model(backend, db):
    create_docs(backend, "a")
    shout.predict(X="body", db=db, select=backend.query("docs"))
    (info,) = db.outputs()
    assert info.name == ("_outputs.body.shout" if has(backend, Capability.DOCUMENTS) else "body__shout")


@pytest.mark.requires(Capability.SQL)
def test_a_default_name_over_63_bytes_is_cut_and_stays_unique(backend, db):
    long = "é" * 30
    backend.create("docs", {long: str})
    backend.insert("docs", {long: "a"})
    for identifier in ("x" * 60, "x" * 61):
        model(lambda text: text, identifier=identifier, output_type=str).predict(
            X=long, db=db, select=backend.query("docs")
        )
    made = {info.name for info in db.outputs()}
    assert len(made) == 2
    assert all(len(name.encode()) <= 63 and name.startswith(long[:20]) for name in made)
    assert made < set(backend.read("docs", 1))


TOO_LONG = dict.fromkeys(["x" * 64, "é" * 32, "🎈" * 16], "too long: it takes 64 bytes")
NO_NAMES = dict.fromkeys(["a\x00b", "\ud800"], "cannot be a name")


@pytest.mark.parametrize(("name", "message"), [*TOO_LONG.items(), *NO_NAMES.items()])
def test_a_given_name_that_no_database_keeps_is_refused_before_anything_is_made(backend, db, name, message):
    create_docs(backend, "a")
    before = backend.read_all("docs")
    with pytest.raises(ConfigError, match=message):
        shout.predict(X="body", db=db, select=backend.query("docs"), output=name)
    with pytest.raises(ConfigError, match=message):
        Side(name)
    with pytest.raises(ConfigError, match=message):
        add(backend, db, output=name)
    assert (backend.read_all("docs"), db.outputs(), db.show("model")) == (before, [], [])


HOSTILE = [
    "..", ".a", "a.", "a..b", "$x", "a.$b", "a$b", "__", "__proto__", "new\nline", "\x01", "select", "NULL", "'",
    '"', "ctid", "xmin", "tableoid", "rowid", "OID", "_rowid_", "_id", "0", "1.2", "docs", "docs_index", "docs_view",
    "docs_pkey", "value", "position", "system", "system.x", "é" * 31, "🎈" * 15 + "xyz", "e\u0301", "\u202e",
]  # fmt: skip
"""What a database, a driver or SQL may take for something else, or have already."""


def tried(make):
    """The hostile names by which an output can be made, with their predicts; the others are refused by their name."""
    made, refused = {}, {}
    for name in HOSTILE:
        try:
            made[name] = make(name).written
        except (ConfigError, Conflict) as error:
            refused[name] = str(error)
    assert [name for name, message in refused.items() if repr(name) not in message] == []
    assert set(made.values()) == {1}
    return set(made)


@pytest.mark.requires(Capability.SQL)
def test_a_column_of_any_name_is_filled_or_refused_before_it_is_made(backend, db):
    create_docs(backend, "a")
    made = tried(lambda name: shout.predict(X="body", db=db, select=backend.query("docs"), output=name))
    assert backend.read("docs", 1) == {"body": "a", "n": 0} | dict.fromkeys(made, "A")
    assert {info.name for info in db.outputs()} == made
    is_sqlite = backend.engine.dialect.name == "sqlite"
    own = {"rowid", "OID", "_rowid_"} if is_sqlite else {"ctid", "xmin", "tableoid"}
    assert set(HOSTILE) - made == own


@pytest.mark.requires(Capability.DOCUMENTS)
def test_a_field_of_any_name_is_filled_or_refused_before_it_is_made(backend, db):
    create_docs(backend, "a")
    made = tried(lambda name: shout.predict(X="body", db=db, select=backend.query("docs"), output=name))
    row = backend.read("docs", 1)
    assert {info.name for info in db.outputs()} == made
    assert row.keys() == {"body", "n", *(name.partition(".")[0] for name in made)}
    assert set(HOSTILE) - made >= {"..", ".a", "a.", "a..b", "$x", "a.$b", "_id", "0", "1.2"}


def test_a_side_table_of_any_name_is_filled_or_refused_before_it_is_made(backend, db):
    create_docs(backend, "a")
    if has(backend, Capability.SQL):
        with backend.engine.begin() as connection:
            connection.exec_driver_sql("CREATE INDEX docs_index ON docs (body)")
            connection.exec_driver_sql("CREATE VIEW docs_view AS SELECT * FROM docs")
            if connection.dialect.name == "postgresql":
                connection.exec_driver_sql("CREATE SEQUENCE rowid")
    made = tried(lambda name: shout.predict(X="body", db=db, select=backend.query("docs"), output=Side(name)))
    assert {info.name for info in db.outputs()} == made
    assert [name for name in made if backend.rows(name, "value") != [("A",)]] == []
    taken = {"docs", "system.x"} | ({"docs_index", "docs_view"} if has(backend, Capability.SQL) else {"..", ".a", "a."})
    assert not made & taken
    assert (backend.name == "postgres") == ("docs_pkey" not in made) == ("rowid" not in made)


@pytest.mark.parametrize("name", ["pinnacle_state_2", "Pinnacle_x", "sqlite_stat9", "system.parts"])
def test_a_side_table_is_never_among_those_of_pinnacle_or_the_database(name):
    with pytest.raises(ConfigError, match="choose a name that does not begin with"):
        Side(name)


def test_outputs_of_63_bytes_that_differ_at_their_end_keep_apart(backend, db):
    create_docs(backend, "a")
    for the_model, last in ((shout, "A"), (whisper, "B")):
        the_model.predict(X="body", db=db, select=backend.query("docs"), output="x" * 62 + last)
        the_model.predict(X="body", db=db, select=backend.query("docs"), output=Side("side" * 15 + "xx" + last))
    row = backend.read("docs", 1)
    assert (row["x" * 62 + "A"], row["x" * 62 + "B"]) == ("A", "a")
    assert [backend.rows("side" * 15 + "xx" + last, "value") for last in "AB"] == [[("A",)], [("a",)]]


@pytest.mark.requires(Capability.DOCUMENTS)
def test_of_the_path_of_a_field_each_part_has_63_bytes(backend, db):
    create_docs(backend, "a")
    path = ".".join(["x" * 63, "y" * 63])
    shout.predict(X="body", db=db, select=backend.query("docs"), output=path)
    assert backend.read("docs", 1)["x" * 63]["y" * 63] == "A"
    with pytest.raises(ConfigError, match="too long"):
        shout.predict(X="body", db=db, select=backend.query("docs"), output=f"a.{'y' * 64}")


@pytest.mark.requires(Capability.SQL)
def test_a_column_whose_dots_make_it_longer_than_63_bytes_is_refused(backend, db):
    create_docs(backend, "a")
    before = backend.read_all("docs")
    with pytest.raises(ConfigError, match="takes 65 bytes"):
        shout.predict(X="body", db=db, select=backend.query("docs"), output=f"{'x' * 32}.{'y' * 32}")
    assert backend.read_all("docs") == before


def test_errors_of_rows_in_tables_of_any_name_can_be_retried(backend, db):
    for name in ("a b", 'c"d', "e%f", "grüße"):
        create_docs(backend, "x", table=name)
        broken = [True]

        def failing(body, broken=broken):
            if broken:
                raise ValueError
            return body.upper()

        fragile = model(failing, identifier=f"m {name}", output_type=str, retry_delay_s=0)
        fragile.predict(X="body", db=db, select=backend.query(name))
        broken.clear()
        (result,) = db.retry_errors(fragile)
        assert result.written == 1
        assert outputs(backend, db, "body", f"m {name}", name) == {1: "X"}


# A column of SQLite or PostgreSQL; NUL and lone surrogates can be in none, and PostgreSQL cuts at 63 bytes.
def identifiers(max_bytes):
    text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=20)
    return text.filter(lambda name: len(name.encode()) <= max_bytes and name.lower() != "id")


@pytest.mark.requires(Capability.SQL)
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), database=None, derandomize=True)
@given(identifiers(50), identifiers(50), identifiers(60))
@example('""\';--', "a", "b")
@example(":1", "?", "%%")
def test_any_identifiers_work_on_sql(backend, db, field, output, identifier):
    if field.lower() == output.lower() or not identifier.strip():
        return
    number = next(numbers)
    backend.create(f"{number}{field}", {field: str})
    backend.insert(f"{number}{field}", {field: "a"})
    the_model = model(lambda text: text.upper(), identifier=f"{number}{identifier}", output_type=str)
    the_model.predict(X=field, db=db, select=backend.query(f"{number}{field}"), output=output)
    assert backend.read(f"{number}{field}", 1) == {field: "a", output: "A"}
    assert outputs(backend, db, field, the_model, f"{number}{field}") == {1: "A"}
    db.remove("model", the_model.identifier, outputs="drop")
    assert backend.read(f"{number}{field}", 1) == {field: "a"}


@pytest.mark.requires(Capability.DOCUMENTS)
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), database=None, derandomize=True)
@given(identifiers(50), identifiers(60))
@example("$a", "$b.c")
@example("%2E", ".")
def test_any_identifiers_work_on_documents(backend, db, field, identifier):
    if not identifier.strip() or not field.strip(".") or field.startswith("$") or "." in field or field == "_id":
        return
    number = next(numbers)
    table = f"docs{number}"
    backend.create(table, {})
    backend.insert(table, {field: "a"})
    the_model = model(lambda text: text.upper(), identifier=f"{number}{identifier}", output_type=str)
    the_model.predict(X=field, db=db, select=backend.query(table))
    assert outputs(backend, db, field, the_model, table) == {1: "A"}
    assert the_model.predict(X=field, db=db, select=backend.query(table)).fresh == 1
    db.remove("model", the_model.identifier, outputs="drop")
    assert backend.read(table, 1) == {field: "a"}
