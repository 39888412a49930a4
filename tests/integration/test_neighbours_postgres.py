"""What the user's own program may see of pinnacle on PostgreSQL: nothing but its outputs."""

from __future__ import annotations

import psycopg
import pytest
import sqlalchemy as sa

from pinnacle import ConfigError, Listener, Side, UnsupportedQuery, UnsupportedTable, pinnacle
from tests.contract.documents import wait_until
from tests.models import CALLS, shout, words
from tests.servers import start_pgbouncer

DOCS = sa.table("docs", sa.column("id"), sa.column("body"))
LEFT = """
    SELECT name, setting FROM pg_settings WHERE source = 'session' AND NOT starts_with(name, 'transaction')
    UNION ALL SELECT 'LISTEN', pg_listening_channels()
"""


@pytest.fixture
def url(postgres_url):
    """A user's database with three rows."""
    run_sql(postgres_url, "CREATE TABLE docs (id integer PRIMARY KEY, body text)")
    run_sql(postgres_url, "INSERT INTO docs VALUES (1, 'a'), (2, 'b'), (3, 'c')")
    return postgres_url


def run_sql(url, *statements):
    """Statements by the plain driver, in one transaction; the last one's rows."""
    with psycopg.connect(url) as connection:
        for statement in statements:
            cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def listener(table=DOCS, **options):
    return Listener(model=shout, key="body", select=sa.select(table), output="loud", **options)


@pytest.mark.parametrize("style", ["ISO, MDY", "German, DMY"])
def test_a_pool_of_the_users_own_gets_its_connections_back_as_they_were(url, style):
    shelf = []

    class Pooled(psycopg.Connection):
        def close(self):
            if not self.closed:
                self.rollback()
                self.autocommit = False
                shelf.append(self)

    run_sql(url, f"ALTER DATABASE {sa.make_url(url).database} SET datestyle = '{style}'")
    engine = sa.create_engine("postgresql+psycopg://", creator=lambda: shelf.pop() if shelf else Pooled.connect(url))
    with engine.connect() as connection:
        before = set(connection.exec_driver_sql(LEFT).all())
    with pinnacle(engine) as db:
        db.add(listener())
        db.listen()
        run_sql(url, "INSERT INTO docs VALUES (4, 'd')")
        db.drain()
        shout.predict(X="body", db=db, select=sa.select(DOCS), output="again")
    engine.dispose()
    assert len(shelf) >= 3
    for connection in shelf:
        assert set(connection.execute(LEFT).fetchall()) == before
        assert connection.execute("SHOW datestyle").fetchone() == (style,)
        assert connection.cursor_factory is psycopg.Cursor
        psycopg.Connection.close(connection)
    assert run_sql(url, "SELECT count(*) FROM docs WHERE loud = upper(body) AND again = loud") == [(4,)]


SUBTRANSACTIONS = """
    SELECT s.subxact_count FROM pg_stat_get_backend_idset() AS b, pg_stat_get_backend_subxact(b) AS s
    WHERE pg_stat_get_backend_pid(b) = %s
"""


def test_a_listener_costs_a_transaction_of_many_statements_no_subtransaction(url):
    with pinnacle(url) as db, psycopg.connect(url) as user, psycopg.connect(url, autocommit=True) as other:
        db.add(listener())
        for i in range(10, 30):
            user.execute("INSERT INTO docs VALUES (%s, 'x')", (i,))
            user.execute("UPDATE docs SET body = 'y' WHERE id = %s", (i,))
        user.execute("DELETE FROM docs WHERE id = 29")
        assert other.execute(SUBTRANSACTIONS, (user.info.backend_pid,)).fetchone() == (0,)
        user.execute("TRUNCATE docs")
        own = user.execute("SELECT pg_current_xact_id()::xid::text").fetchone()
        assert user.execute("SELECT DISTINCT xmin::text FROM pinnacle.pinnacle_outbox_1").fetchall() == [own]
        user.commit()


EVERY_STATEMENT = (
    "INSERT INTO docs VALUES (7, 'g')", "UPDATE docs SET body = 'z' WHERE body = 'g'", "DELETE FROM docs",
    "TRUNCATE docs", "INSERT INTO docs SELECT n, 'h' FROM generate_series(1, 3) AS n",
)  # fmt: skip


@pytest.mark.parametrize("gone", ["pinnacle_outbox_1", "pinnacle_work_1", "pinnacle_listener", "pinnacle_output"])
def test_a_table_of_ours_that_is_dropped_fails_no_statement(url, gone):
    with pinnacle(url) as db:
        db.add(listener())
        run_sql(url, f"DROP TABLE pinnacle.{gone}")
        run_sql(url, *EVERY_STATEMENT)
    assert run_sql(url, "SELECT count(*) FROM docs") == [(3,)]


@pytest.mark.parametrize("gone", ["pinnacle_outbox_1", "pinnacle_work_1"])
def test_a_listener_makes_its_tables_again_and_misses_nothing(url, gone):
    with pinnacle(url) as db:
        db.add(listener())
        db.listen()
        db.drain()
        run_sql(url, f"DROP TABLE pinnacle.{gone}", "INSERT INTO docs VALUES (4, 'd')")
        wait_until(lambda: run_sql(url, "SELECT loud FROM docs WHERE id = 4") == [("D",)])
        run_sql(url, "INSERT INTO docs VALUES (5, 'e')")
        db.drain()
    assert run_sql(url, "SELECT loud FROM docs WHERE id = 5") == [("E",)]


def test_a_key_renamed_beside_an_older_snapshot_fails_no_statement(url):
    with pinnacle(url) as db, psycopg.connect(url) as user:
        db.add(listener())
        user.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        user.execute("SELECT 1 FROM pg_class LIMIT 1").fetchall()
        run_sql(url, "ALTER TABLE docs RENAME id TO number")
        assert user.execute("INSERT INTO docs VALUES (9, 'i')").rowcount == 1
        assert user.execute("DELETE FROM docs WHERE number = 9").rowcount == 1
        user.commit()


def test_columns_that_moved_in_a_restore_are_found_again(url):
    """A dump counts columns anew where some were dropped; its functions are as they were."""
    with pinnacle(url) as db:
        db.add(listener())
        run_sql(url, "UPDATE pg_proc SET prosrc = replace(prosrc, 'TG_RELID, 1)', 'TG_RELID, 2)')")
        db.listen()
        db.drain()
        assert run_sql(url, "SELECT count(*) FROM pg_proc WHERE prosrc LIKE '%TG_RELID, 2)%'") == [(0,)]
        run_sql(url, "INSERT INTO docs VALUES (4, 'd')")
        db.drain()
    assert run_sql(url, "SELECT loud FROM docs WHERE id = 4") == [("D",)]


# -- keys, partitions, publications ---------------------------------------------------------------------------


def fill(db, **options):
    return shout.predict(X="body", db=db, select=sa.select(DOCS), output="loud", **options)


def test_a_key_that_becomes_bigint_keeps_what_is_recorded(url):
    with pinnacle(url) as db:
        fill(db)
        run_sql(url, "ALTER TABLE docs ALTER id TYPE bigint", "INSERT INTO docs VALUES (5000000000, 'd')")
        assert fill(db).written == 1
    with pinnacle(url) as db:
        assert fill(db).written == 0
    assert run_sql(url, "SELECT count(*) FROM docs WHERE loud = upper(body)") == [(4,)]


def test_a_listener_follows_its_key_in_the_same_process(url):
    with pinnacle(url) as db:
        kept = db.add(listener())
        db.listen()
        for i in range(10, 20):  # the statements of the worker are prepared by then
            run_sql(url, f"INSERT INTO docs VALUES ({i}, 'd')")
            db.drain()
        run_sql(url, "DROP TRIGGER pinnacle_1_update ON docs", "ALTER TABLE docs ALTER id TYPE bigint")
        run_sql(url, "INSERT INTO docs VALUES (5000000000, 'e')")
        wait_until(lambda: db.listeners()[0].paused is not None)
        assert "was integer and is bigint" in db.listeners()[0].paused
        db.resume(kept)
        db.drain()
        run_sql(url, "UPDATE docs SET body = 'f' WHERE id = 5000000000")
        db.drain()
    assert run_sql(url, "SELECT count(*) FROM docs WHERE loud = upper(body)") == [(14,)]


def test_a_table_made_anew_with_keys_of_another_kind_is_filled_anew(url):
    with pinnacle(url) as db:
        fill(db)
        run_sql(
            url,
            "DROP TABLE docs",
            "CREATE TABLE docs (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), body text)",
            "INSERT INTO docs (body) VALUES ('x'), ('y')",
        )
        assert fill(db).written == 2
        assert fill(db).written == 0


def test_all_tables_may_be_published(url):
    with pinnacle(url) as db:
        db.add(listener())
        db.listen()
        db.drain()
        run_sql(url, "CREATE PUBLICATION everything FOR ALL TABLES")
        run_sql(url, "INSERT INTO docs VALUES (4, 'd')", "UPDATE docs SET body = 'aa' WHERE id = 1")
        db.drain()
        run_sql(url, "DELETE FROM docs WHERE id = 2")
        db.drain()
    assert run_sql(url, "SELECT count(*) FROM docs WHERE loud = upper(body)") == [(3,)]


def test_a_listener_on_a_partition_sees_what_comes_through_its_parent(postgres_url):
    run_sql(
        postgres_url,
        "CREATE TABLE docs (id int, year int, body text, PRIMARY KEY (id, year)) PARTITION BY LIST (year)",
        "CREATE TABLE docs_24 PARTITION OF docs FOR VALUES IN (2024)",
        "ALTER TABLE docs ADD COLUMN loud text",
    )
    with pinnacle(postgres_url) as db:
        db.add(listener(sa.table("docs_24", sa.column("id"), sa.column("year"), sa.column("body"))))
        db.listen()
        run_sql(postgres_url, "INSERT INTO docs VALUES (1, 2024, 'a'), (2, 2024, 'b')")
        db.drain()
        run_sql(postgres_url, "UPDATE docs SET body = 'c' WHERE id = 1", "DELETE FROM docs WHERE id = 2")
        db.drain()
    assert run_sql(postgres_url, "SELECT id, loud FROM docs") == [(1, "C")]


def test_a_parent_by_inherits_is_refused_and_one_that_becomes_it_pauses(url):
    with pinnacle(url) as db:
        db.add(listener())
        db.listen()
        db.drain()
        run_sql(url, "CREATE TABLE more () INHERITS (docs)")
        wait_until(lambda: db.listeners()[0].paused is not None)
        assert "INHERITS" in db.listeners()[0].paused
        db.remove("listener", db.listeners()[0].identifier)
        with pytest.raises(UnsupportedTable, match="INHERITS"):
            db.add(listener())
        assert db.listeners() == []


def add_trigger(url, when, does):
    """A trigger of the user's on each update of the row with key 1."""
    body = f"BEGIN {does} RETURN NEW; END"
    run_sql(
        url,
        f"CREATE FUNCTION theirs() RETURNS trigger LANGUAGE plpgsql AS $$ {body} $$",
        f"CREATE TRIGGER theirs {when} UPDATE ON docs FOR EACH ROW WHEN (old.id = 1) EXECUTE FUNCTION theirs()",
    )


BUMPS = "NEW.body = OLD.body || '+';"
BUMPS_AFTER = "IF pg_trigger_depth() = 1 THEN UPDATE docs SET body = body || '+' WHERE id = 1; END IF;"
RAISES_TO_X = "NEW.body = 'x';"
KEEPS_OUT, BLANKS = "RETURN NULL;", "NEW.loud = NULL;"
TAGS = "NEW.loud = rtrim(NEW.loud, '!') || '!';"
TAGS_AFTER = "IF NEW.loud NOT LIKE '%!' THEN UPDATE docs SET loud = NEW.loud || '!' WHERE id = 1; END IF;"
IS_OUT, IS_MOVED = "keeps 'loud' from being written", "changes what the model reads"


@pytest.mark.parametrize(
    ("when", "does", "left", "error", "calls"),
    [
        ("BEFORE", BUMPS, ("a+", None), IS_MOVED, 4),
        ("AFTER", BUMPS_AFTER, ("a+", None), IS_MOVED, 4),
        ("BEFORE", RAISES_TO_X, ("x", "X"), None, 4),
        ("BEFORE", KEEPS_OUT, ("a", None), IS_OUT, 3),
        ("BEFORE", BLANKS, ("a", None), IS_OUT, 3),
        ("BEFORE", TAGS, ("a", "A!"), None, 3),
        ("AFTER", TAGS_AFTER, ("a", "A!"), None, 3),
    ],
    ids=["bumps", "bumps after", "raises", "keeps out", "blanks", "tags", "tags after"],
)
def test_what_a_trigger_of_the_users_does_to_a_write_is_seen_and_paid_for_no_more(url, when, does, left, error, calls):
    run_sql(
        url, "ALTER TABLE docs ADD COLUMN loud text, ADD COLUMN n int, ADD COLUMN h text, ADD COLUMN fingerprint text"
    )
    add_trigger(url, when, does)
    CALLS.clear()
    with pinnacle(url) as db:
        kept = db.add(listener())
        db.listen()
        db.drain()
        db.sweep(kept)
        db.drain()
        found = db.fresh(kept)
        assert [row.key for row in db.errors() if error and error in row.message] == ([1] if error else [])
        assert shout.predict(X="body", db=db, select=sa.select(DOCS), output="loud").calls == 0
    assert (found.fresh, found.failed) == ((2, 1) if error else (3, 0))
    assert len(CALLS) == calls
    (body, loud), *_ = run_sql(url, "SELECT body, loud FROM docs ORDER BY id")
    assert (body, loud if error is None or error == IS_OUT else None) == left


def test_a_rule_for_updates_is_refused_and_one_that_comes_later_pauses(url):
    rule = "CREATE RULE theirs AS ON UPDATE TO docs DO INSTEAD NOTHING"
    with pinnacle(url) as db:
        db.add(listener())
        db.listen()
        db.drain()
        run_sql(url, rule)
        wait_until(lambda: db.listeners()[0].paused is not None)
        assert "rule 'theirs'" in db.listeners()[0].paused
        with pytest.raises(UnsupportedTable, match=r"rule 'theirs'.*Side"):
            shout.predict(X="body", db=db, select=sa.select(DOCS), output="again")
        assert words.predict(X="body", db=db, select=sa.select(DOCS), output=Side("parts")).written == 3
    assert "again" not in str(run_sql(url, "SELECT array_agg(attname::text) FROM pg_attribute WHERE attnum > 0"))


# -- tenants ----------------------------------------------------------------------------------------------------


def tenants_url(url, tenant):
    path = {"options": f"-csearch_path={tenant},public"}
    return sa.make_url(url).update_query_dict(path).render_as_string(hide_password=False)


def test_tenants_by_search_path_share_nothing(postgres_url):
    for tenant in ("one", "two"):
        run_sql(
            postgres_url,
            f"CREATE SCHEMA {tenant}",
            f"CREATE TABLE {tenant}.docs (id int PRIMARY KEY, body text)",
            f"INSERT INTO {tenant}.docs VALUES (1, 'same'), (2, 'of {tenant}')",
        )
    for tenant in ("one", "two"):
        with pinnacle(tenants_url(postgres_url, tenant)) as db:
            db.add(listener())
            db.listen()
            db.drain()
            run_sql(postgres_url, f"INSERT INTO {tenant}.docs VALUES (3, 'later of {tenant}')")
            db.drain()
            column = db.output(DOCS, "body", shout)
            found = db.execute(sa.select(column).select_from(DOCS).order_by(DOCS.c.id)).scalars().all()
        assert found == ["SAME", f"OF {tenant}".upper(), f"LATER OF {tenant}".upper()]
    with pinnacle(postgres_url) as db:  # a worker of all tenants, with a search_path of its own
        assert [status.output for status in db.listeners()] == ["one.docs.loud", "two.docs.loud"]
        db.listen()
        run_sql(postgres_url, "UPDATE one.docs SET body = 'new'")
        db.drain()
    assert run_sql(postgres_url, "SELECT DISTINCT loud FROM one.docs") == [("NEW",)]


# -- poolers ----------------------------------------------------------------------------------------------------


def test_pgbouncer_in_transaction_mode_works_with_a_plain_url(url):
    with start_pgbouncer(url) as through:
        with pinnacle(through) as db:
            db.add(listener())
            db.listen()
            for i in range(10, 20):  # often enough for the driver to prepare what it is given
                run_sql(url, f"INSERT INTO docs VALUES ({i}, 'd')")
                db.drain()
                shout.predict(X="body", db=db, select=sa.select(DOCS), output="again")
            assert db.execute(sa.text("SELECT count(*) FROM docs WHERE loud = again")).scalar() == 13
        with psycopg.connect(through, prepare_threshold=None) as other:
            left = {name for name, _ in other.execute(LEFT)} - {"application_name"}  # pgbouncer's own doing
            assert left == set()


def test_public_and_no_schema_are_one_place(postgres_url):
    run_sql(
        postgres_url,
        "CREATE SCHEMA one",
        "CREATE TABLE docs (id int PRIMARY KEY, body text)",
        "INSERT INTO docs VALUES (1, 'a')",
    )
    public = sa.table("docs", sa.column("id"), sa.column("body"), schema="public")
    with pinnacle(postgres_url) as db:
        assert shout.predict(X="body", db=db, select=sa.select(public), output="loud").written == 1
        assert shout.predict(X="body", db=db, select=sa.select(DOCS), output="loud").fresh == 1
        db.add(Listener(model=shout, key="body", select=sa.select(public), output="loud"))
        assert [(info.table, info.name) for info in db.outputs()] == [("docs", "loud")]
        assert db.output(public, "body", shout).name == "loud"
    # A tenant's worker, to whom the plain name is its own table's, works on the one that is meant.
    run_sql(postgres_url, "CREATE TABLE one.docs (LIKE docs)", "ALTER TABLE one.docs ADD PRIMARY KEY (id)")
    run_sql(postgres_url, "INSERT INTO docs VALUES (2, 'b')", "INSERT INTO one.docs (id, body) VALUES (3, 'c')")
    with pinnacle(tenants_url(postgres_url, "one")) as db:
        db.listen()
        db.drain()
        assert db.fresh("docs.loud").fresh == 2
        assert shout.predict(X="body", db=db, select=sa.select(public), output="loud").fresh == 2
        assert shout.predict(X="body", db=db, select=sa.select(DOCS), output="loud").written == 1
        assert {(info.table, info.name) for info in db.outputs()} == {("docs", "loud"), ("one.docs", "loud")}
    assert run_sql(postgres_url, "SELECT loud FROM docs ORDER BY id") == [("A",), ("B",)]
    assert run_sql(postgres_url, "SELECT loud FROM one.docs") == [("C",)]


def test_translated_schemas_are_refused_with_what_to_do_instead(postgres_url):
    run_sql(postgres_url, "CREATE TABLE docs (id int PRIMARY KEY, body text)")
    tenant = {"schema_translate_map": {None: "one"}}
    with pinnacle(postgres_url) as db:
        with pytest.raises(UnsupportedQuery, match=r"this select translates schemas.*to_metadata"):
            shout.predict(X="body", db=db, select=sa.select(DOCS).execution_options(**tenant))
        engine = sa.create_engine(postgres_url).execution_options(**tenant)
        with pytest.raises(ConfigError, match=r"this Engine translates schemas.*search_path"):
            pinnacle(engine)
        engine.dispose()
