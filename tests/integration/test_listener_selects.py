"""A listener's select is stored as a tree and parameters; on PostgreSQL it means the same to a worker elsewhere."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from decimal import Decimal

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from pinnacle import ComponentError, Listener, UnsupportedQuery, pinnacle
from tests.databases import new_postgres
from tests.models import shout

OTHERS = sa.table("others", sa.column("doc"), sa.column("name"))
KEPT = sa.Table(
    "kept", sa.MetaData(),
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("body", sa.Text),
    sa.Column("n", sa.Integer),
    sa.Column("u", sa.Uuid),
    sa.Column("d", sa.Numeric),
    sa.Column("t", sa.DateTime(timezone=True)),
    sa.Column("mood", sa.Enum("sad", "happy %", name="mood")),
    sa.Column("j", postgresql.JSONB),
    sa.Column("tags", postgresql.ARRAY(sa.Text)),
)  # fmt: skip
K = KEPT.c
SELECTS = {
    "equal": (lambda: sa.select(KEPT).where(K.n == 1), {1}),
    "in": (lambda: sa.select(KEPT).where(K.n.in_([1, 2])), {1, 2}),
    "not in": (lambda: sa.select(KEPT).where(K.n.not_in([1, 2])), {3}),
    "empty in": (lambda: sa.select(KEPT).where(sa.or_(K.n.in_([]), K.n == 3)), {3}),
    "like": (lambda: sa.select(KEPT).where(K.body.like("50% :off%")), {2}),
    "contains": (lambda: sa.select(KEPT).where(K.body.contains("% :o", autoescape=True)), {2}),
    "regexp": (lambda: sa.select(KEPT).where(K.body.regexp_match("^[a:]+$")), {1}),
    "modulo": (lambda: sa.select(KEPT).where(K.n % 2 == 0), {2}),
    "expression": (lambda: sa.select(KEPT).where(sa.func.length(K.body) * 2 > K.n + 4), {2, 3}),
    "case": (lambda: sa.select(KEPT).where(sa.case((K.n > 1, "big"), else_="small") == "small"), {1}),
    "uuid": (lambda: sa.select(KEPT).where(K.u == uuid.UUID(int=2)), {2}),
    "decimal": (lambda: sa.select(KEPT).where(K.d > Decimal("1.25")), {2, 3}),
    "time": (lambda: sa.select(KEPT).where(K.t >= datetime(2026, 1, 2, tzinfo=UTC)), {2, 3}),
    "enum": (lambda: sa.select(KEPT).where(K.mood == "happy %"), {2, 3}),
    "json": (lambda: sa.select(KEPT).where(K.j["a"]["b"].as_integer() == 2), {2}),
    "json contains": (lambda: sa.select(KEPT).where(K.j.contains({"a": {"b": 2}})), {2}),
    "array": (lambda: sa.select(KEPT).where(K.tags.contains(["x"])), {1, 2}),
    "any": (lambda: sa.select(KEPT).where(K.n == sa.any_(sa.literal([1, 3], sa.ARRAY(sa.Integer)))), {1, 3}),
    "null": (lambda: sa.select(KEPT).where(K.j.is_(None)), {3}),
    "text": (lambda: sa.select(KEPT).where(sa.text("n > :low AND body !~ '\\:' ").bindparams(low=1)), {3}),
    "tuple": (lambda: sa.select(KEPT).where(sa.tuple_(K.id, K.n).in_([(1, 1), (2, 9)])), {1}),
    "exists": (lambda: sa.select(KEPT).where(sa.exists().where(OTHERS.c.doc == K.id, OTHERS.c.name == "% :n")), {2}),
    "in a subquery": (lambda: sa.select(KEPT).where(K.id.in_(sa.select(OTHERS.c.doc))), {1, 2}),
    "join": (lambda: sa.select(KEPT).join(OTHERS, OTHERS.c.doc == K.id).where(OTHERS.c.name != "no"), {2}),
    "alias": (lambda: sa.select(KEPT.alias("k")).where(sa.column("n") == 2), {2}),
    "cte": (lambda: _by_cte(), {1, 2}),
}  # fmt: skip


def _by_cte():
    found = sa.select(OTHERS.c.doc).cte("found")
    return sa.select(KEPT).where(K.id.in_(sa.select(found.c.doc)))


def run_sql(url, *statements):
    """Statements by the plain driver, in one transaction; the last one's rows."""
    with psycopg.connect(url) as connection:
        for statement in statements:
            cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def loud(url):
    return dict(run_sql(url, "SELECT id, loud FROM kept"))


@pytest.fixture(scope="module")
def kept_url(postgres_server):
    """A database with the table that all selects choose from."""
    with new_postgres(postgres_server) as url:
        engine = sa.create_engine(sa.make_url(url).set(drivername="postgresql+psycopg"), poolclass=sa.NullPool)
        KEPT.create(engine)
        run_sql(
            url,
            "INSERT INTO kept SELECT "
            "n, b, n, lpad(n::text, 32, '0')::uuid, d, make_date(2026, 1, n), m::mood, j::jsonb, t::text[] "
            "FROM (VALUES (1, 'aa', 1.25, 'sad', '{\"a\": {\"b\": 1}}', '{x}'), "
            "(2, '50% :off', 1.5, 'happy %', '{\"a\": {\"b\": 2}}', '{x,y}'), "
            "(3, 'third', 2, 'happy %', NULL, '{}')) AS rows (n, b, d, m, j, t)",
            "CREATE TABLE others (doc integer, name text)",
            "INSERT INTO others VALUES (1, 'no'), (2, '% :n'), (NULL, 'x')",
        )
        yield url


@pytest.mark.parametrize("kind", SELECTS)
def test_a_select_means_the_same_to_the_worker(kept_url, kind):
    make, expected = SELECTS[kind]
    with pinnacle(kept_url) as db:
        listener = db.add(Listener(model=shout, key="body", select=make(), output="loud"))
        with pinnacle(kept_url) as elsewhere:
            elsewhere.listen()
            elsewhere.drain()
            assert {key for key, value in loud(kept_url).items() if value is not None} == expected
            run_sql(kept_url, "UPDATE kept SET loud = NULL")
            elsewhere.drain()
        assert {key for key, value in loud(kept_url).items() if value is not None} == expected
        assert db.fresh(listener).fresh == len(expected)
        db.remove("listener", listener.identifier)
    run_sql(kept_url, "UPDATE kept SET loud = NULL")


def test_a_select_runs_no_check_of_a_domain_and_no_row_security_of_a_strangers(kept_url):
    """Both run with the rights of whoever reads, as what is written into a view does."""
    stranger, theirs = f"stranger_{uuid.uuid4().hex}", sa.table("theirs", sa.column("doc"), sa.column("what"))
    run_sql(
        kept_url,
        f"CREATE ROLE {stranger}",
        "CREATE DOMAIN whatever AS text CHECK (VALUE <> '')",
        "CREATE TABLE theirs (doc integer, what whatever)",
        "INSERT INTO theirs VALUES (1, 'x'), (2, 'y')",
        f"ALTER DOMAIN whatever OWNER TO {stranger}",
        f"ALTER TABLE theirs OWNER TO {stranger}",
    )
    select = sa.select(KEPT).where(K.id.in_(sa.select(theirs.c.doc).where(theirs.c.what == "x")))
    checked = sa.text("EXISTS (SELECT 1 FROM theirs WHERE CAST(kept.body AS whatever) = theirs.what)")
    with pinnacle(kept_url) as db:
        listener = db.add(Listener(model=shout, key="body", select=select, output="loud"))
        found = db.fresh(listener)
        assert found.fresh + found.stale + found.missing == 1
        with pytest.raises(UnsupportedQuery, match="a type 'whatever'"):
            db.add(Listener(model=shout, key="body", select=sa.select(KEPT).where(checked), output="louder"))
        run_sql(kept_url, "ALTER TABLE theirs ENABLE ROW LEVEL SECURITY")
        with pytest.raises(ComponentError, match=rf"row security, theirs, which belongs to '{stranger}'"):
            db.fresh(listener)
        db.remove("listener", listener.identifier)
    run_sql(kept_url, f"DROP OWNED BY {stranger}", f"DROP ROLE {stranger}")


def test_a_select_reads_no_view_of_a_strangers(kept_url):
    """What is written into a view runs with the rights of the worker that reads it."""
    stranger, names = f"stranger_{uuid.uuid4().hex}", sa.table("names", sa.column("doc"))
    run_sql(kept_url, f"CREATE ROLE {stranger}", "CREATE VIEW names AS SELECT doc FROM others")
    select = sa.select(KEPT).where(K.id.in_(sa.select(names.c.doc)))
    with pinnacle(kept_url) as db:
        listener = db.add(Listener(model=shout, key="body", select=select, output="loud"))
        found = db.fresh(listener)
        assert found.fresh + found.stale + found.missing == 2
        run_sql(kept_url, f"GRANT SELECT ON others TO {stranger}", f"ALTER VIEW names OWNER TO {stranger}")
        with pytest.raises(ComponentError, match=rf"listener 'kept\.loud'.* names, which belongs to '{stranger}'"):
            db.fresh(listener)
        with pytest.raises(UnsupportedQuery, match="security, names"):
            db.add(Listener(model=shout, key="body", select=select, output="louder"))
        db.remove("listener", listener.identifier)
    run_sql(kept_url, f"DROP OWNED BY {stranger}", f"DROP ROLE {stranger}")
