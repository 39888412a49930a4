"""A listener's select at rest: kept as values, looked at when it comes back, refused when somebody made it another."""

from __future__ import annotations

import base64
import dataclasses
import functools
from contextlib import closing
from typing import Any

import pytest
import sqlalchemy as sa

from pinnacle import ComponentError, Conflict, Dataset, Listener, UnsupportedQuery, pinnacle
from pinnacle.backends.mongodb import Collection
from pinnacle.backends.protocol import Capability
from tests.contract.documents import create_docs, has, wait_until
from tests.contract.listening import add, chosen, values
from tests.models import shout

SQL = pytest.mark.requires(Capability.SQL)


def stored_select(backend) -> dict[str, Any]:
    with closing(backend.below()) as below:
        return below.catalog.get("listener", "docs.loud").body["fields"]["select"]


def tamper(backend, **changes: Any) -> None:
    """Change the listener's stored select, as whoever may write pinnacle's tables can."""
    with closing(backend.below()) as below:
        record = below.catalog.get("listener", "docs.loud")
        fields = record.body["fields"]
        body = {**record.body, "fields": {**fields, "select": {**fields["select"], **changes}}}
        below.catalog.amend(dataclasses.replace(record, body=body))


def code(backend) -> dict[str, Any]:
    """A condition that runs code in the server, as it would be stored."""
    if has(backend, Capability.DOCUMENTS):
        import bson

        return {"filter": {"@bytes": base64.b64encode(bson.encode({"$where": "return true"})).decode()}}
    return {"where": {"call": "load_extension", "args": [{"string": "evil"}]}, "parameters": {}}


def with_code(backend) -> Any:
    """A query of the user's with such a condition."""
    if has(backend, Capability.DOCUMENTS):
        return Collection("docs").find({"$expr": {"$function": {"body": "return true", "args": [], "lang": "js"}}})
    return backend.query("docs").where(sa.func.sqlite_version() != "")


@pytest.mark.anywhere
def test_a_select_that_was_made_hostile_is_refused_and_the_others_go_on(backend, db):
    create_docs(backend, "one")
    add(backend, db)
    db.add(Listener(model=shout, key="body", select=backend.query("docs"), output="other"))
    tamper(backend, **code(backend))
    with pinnacle(backend.address) as elsewhere:
        elsewhere.listen()
        wait_until(lambda: values(backend, "other") == {1: "ONE"})
        wait_until(lambda: {s.identifier: s.last_error for s in elsewhere.listeners()}["docs.loud"] is not None)
        piece = "$where" if has(backend, Capability.DOCUMENTS) else "'load_extension'"
        told = {status.identifier: status.last_error for status in elsewhere.listeners()}
        assert piece in told["docs.loud"]
        assert told["docs.other"] is None
        with pytest.raises(ComponentError, match=r"listener 'docs\.loud'"):
            elsewhere.fresh("docs.loud")
    assert values(backend) == {1: None}


@pytest.mark.anywhere
def test_a_select_of_another_table_than_the_listener_is_registered_for_is_refused(backend, db):
    create_docs(backend, "one")
    create_docs(backend, "two", table="others")
    add(backend, db)
    place = "collection" if has(backend, Capability.DOCUMENTS) else "table"
    for name, piece in (("others", "registered with another output"), ("pinnacle_component", "yours")):
        tamper(backend, **{place: name})
        with pinnacle(backend.address) as elsewhere, pytest.raises((Conflict, ComponentError), match=piece):
            elsewhere.resume("docs.loud")
    assert all("loud" not in row for row in backend.read_all("others").values())


@SQL
@pytest.mark.anywhere
def test_a_select_that_is_nested_too_deeply_is_refused_when_it_is_added(backend, db):
    create_docs(backend, "one")
    docs = backend.entity("docs")
    deep = functools.reduce(lambda left, _: left + docs.c.id, range(600), docs.c.id)
    with pytest.raises(UnsupportedQuery, match="too deeply"):
        db.add(Listener(model=shout, key="body", select=backend.query("docs").where(deep > 0), output="loud"))


@pytest.mark.anywhere
def test_a_select_that_runs_code_is_refused_when_it_is_added(backend, db):
    create_docs(backend, "one")
    piece = (
        r"\$function" if has(backend, Capability.DOCUMENTS) else "'sqlite_version', which is not among the functions"
    )
    for component in (
        Listener(model=shout, key="body", select=with_code(backend), output="loud"),
        Dataset("rows", select=with_code(backend)),
    ):
        with pytest.raises(UnsupportedQuery, match=piece):
            db.add(component)
    assert (db.show("listener"), db.show("dataset")) == ([], [])


@SQL
@pytest.mark.anywhere
@pytest.mark.parametrize(
    "changes",
    [
        {"where": "load_extension('evil') IS NULL"}, {"where": "1 = 1; DROP TABLE docs"}, {"where": 1}, {"table": None},
        {"table": ["docs"]}, {"schema": 1}, {"reads": ["body", "no_such"]}, {"readings": {"body": 1}},
        {"parameters": {"p0": {"@path": "x"}}}, {"parameters": {"p0) OR (1=1": 1}}, {"parameters": 1}, {"reads": 1},
    ],
    ids=str,
)  # fmt: skip
def test_whatever_a_stored_select_was_changed_to_it_is_refused(backend, db, changes):
    create_docs(backend, "one")
    add(backend, db, select=chosen(backend, 0))
    tamper(backend, **changes)
    with pinnacle(backend.address) as elsewhere, pytest.raises(ComponentError, match=r"listener 'docs\.loud'"):
        elsewhere.fresh("docs.loud")
    assert backend.has("docs")


@SQL
def test_no_text_of_sql_is_stored(backend, db):
    create_docs(backend, "one")
    docs = backend.entity("docs").c
    add(backend, db, select=backend.query("docs").where(sa.or_(docs.n == 1, sa.text("body = :x").params(x="one"))))
    stored = stored_select(backend)
    assert stored["where"]["op"] == "OR"
    assert [sorted(arg) for arg in stored["where"]["args"]] == [["args", "op"]] * 2
    assert (sorted(stored["parameters"].values(), key=str), stored["reads"]) == ([1, "one"], ["body", "n"])


@SQL
def test_a_condition_that_an_earlier_pinnacle_stored_as_text_goes_on(backend, db, calls):
    create_docs(backend, "one", "two", "three")
    add(backend, db, select=chosen(backend, 1))
    cast = "\\:\\:INTEGER" if has(backend, Capability.MANY_PROCESSES) else ""
    tamper(backend, where=f"docs.n = :p0{cast} OR docs.n = :p1{cast}", parameters={"p0": 1, "p1": 2})
    with pinnacle(backend.address) as elsewhere:
        elsewhere.listen()
        elsewhere.drain()
        assert values(backend) == {1: None, 2: "TWO", 3: "THREE"}
        backend.update("docs", 1, {"body": "uno"})
        backend.update("docs", 2, {"body": "dos"})
        elsewhere.drain()
        assert (values(backend), calls) == ({1: None, 2: "DOS", 3: "THREE"}, ["two", "three", "dos"])
        docs = backend.entity("docs").c
        again = add(backend, elsewhere, select=backend.query("docs").where(sa.or_(docs.n == 1, docs.n == 2)))
        elsewhere.drain()
        assert (stored_select(backend)["where"]["op"], again.version, len(calls)) == ("OR", 1, 3)
        assert elsewhere.fresh("docs.loud").fresh == 2


@SQL
@pytest.mark.anywhere
def test_a_sample_may_be_chosen_by_chance_and_a_listener_may_not(backend, db):
    create_docs(backend, "one", "two")
    docs = backend.entity("docs").c
    db.add(Dataset("sample", select=backend.query("docs").order_by(sa.func.random()).limit(1)))
    with pytest.raises(UnsupportedQuery, match=r"random\(\) chooses other rows"):
        add(backend, db, select=backend.query("docs").where(sa.func.random() > docs.n))
