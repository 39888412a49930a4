"""What runs with the rights of pinnacle's role on PostgreSQL serves pinnacle's triggers, and no stranger."""

from __future__ import annotations

import psycopg
import pytest
import sqlalchemy as sa

from pinnacle import Listener, pinnacle
from tests.contract.documents import wait_until
from tests.models import CALLS, shout
from tests.roles import name_of, role, run_sql

FUNCTIONS = (
    "SELECT p.oid::regprocedure::text FROM pg_proc AS p WHERE p.pronamespace = 'pinnacle'::regnamespace ORDER BY 1"
)
PUBLIC = f"{FUNCTIONS.replace('ORDER BY 1', '')} AND has_function_privilege('public', p.oid, 'EXECUTE')"
STOLEN = "CREATE TABLE public.loot AS SELECT body FROM public.docs"
"""What a stranger's code would do if it ran with the rights of pinnacle's role."""


@pytest.fixture(autouse=True)
def impatient(impatient_workers):
    """Workers look sooner whether their triggers are there."""


@pytest.fixture
def url(postgres_url):
    CALLS.clear()
    run_sql(
        postgres_url,
        "CREATE TABLE docs (id bigint PRIMARY KEY, body text)",
        "INSERT INTO docs VALUES (1, 'a')",
    )
    return postgres_url


@pytest.fixture
def db(url):
    with pinnacle(url) as handle:
        yield handle


def keep(db, table="docs", **options):
    select = sa.select(sa.Table(table, sa.MetaData(), autoload_with=db.engine))
    return db.add(Listener(model=shout, key="body", select=select, output="loud", **options))


def drained(db):
    db.listen()
    db.drain()


def outbox(url, number=1):
    return run_sql(url, f"SELECT count(*) FROM pinnacle.pinnacle_outbox_{number}")[0][0]


def triggers_like_ours(url, table):
    """The statements that hang our trigger functions on a table."""
    events = {
        "insert": "AFTER INSERT ON {} REFERENCING NEW TABLE AS pinnacle_rows FOR EACH STATEMENT",
        "delete": "AFTER DELETE ON {} REFERENCING OLD TABLE AS pinnacle_rows FOR EACH STATEMENT",
        "truncate": "AFTER TRUNCATE ON {} FOR EACH STATEMENT",
        "change": "AFTER INSERT OR UPDATE OR DELETE ON {} FOR EACH ROW",
    }
    kinds = [(name, name.rpartition("_")[2].removesuffix("()")) for (name,) in run_sql(url, FUNCTIONS)]
    return [
        f"CREATE TRIGGER x_{kind} {events[kind].format(table)} EXECUTE FUNCTION {function}" for function, kind in kinds
    ]


def evil_type(*, named="evil"):
    """A type whose casts run its owner's code: with the rights of whoever casts."""
    return [
        f"CREATE TYPE {named} AS (x bigint)",
        f"CREATE FUNCTION steal_text({named}) RETURNS text LANGUAGE plpgsql AS $$ BEGIN {STOLEN}; RETURN 1; END $$",
        f"CREATE FUNCTION steal_number({named}) RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN {STOLEN}; RETURN 1; END $$",
        f"CREATE CAST ({named} AS text) WITH FUNCTION steal_text({named}) AS IMPLICIT",
        f"CREATE CAST ({named} AS bigint) WITH FUNCTION steal_number({named}) AS IMPLICIT",
    ]


def has_loot(url):
    return run_sql(url, "SELECT to_regclass('public.loot') IS NOT NULL")[0][0]


@pytest.mark.parametrize("options", [{}, {"on_change": "clear"}, {"replicated": True}], ids=str)
def test_nobody_else_may_run_a_function_of_capture(url, db, options):
    keep(db, **options)
    assert run_sql(url, PUBLIC) == []
    run_sql(url, "DROP TRIGGER pinnacle_1_truncate ON docs")
    drained(db)  # which makes the triggers again
    assert len(run_sql(url, "SELECT 1 FROM pg_trigger WHERE tgname = 'pinnacle_1_truncate'")) == 1
    assert run_sql(url, PUBLIC) == []


def test_a_function_that_others_may_run_is_made_anew(url, db):
    """As a restored dump has it that was made without rights."""
    keep(db)
    run_sql(url, *(f"GRANT EXECUTE ON FUNCTION {name} TO PUBLIC" for (name,) in run_sql(url, FUNCTIONS)))
    assert run_sql(url, PUBLIC) != []
    drained(db)
    assert run_sql(url, PUBLIC) == []


def test_a_stranger_cannot_make_a_trigger_of_our_functions(url, db):
    keep(db)
    with role(url, "USAGE ON SCHEMA pinnacle", "CREATE ON SCHEMA public") as stranger:
        run_sql(stranger, "CREATE TABLE mine (id bigint, body text, loud text)")
        tried = triggers_like_ours(url, "mine")
        assert len(tried) == 4
        for statement in tried:
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied for function"):
                run_sql(stranger, statement)


def test_a_trigger_that_a_stranger_got_runs_nothing_of_theirs_and_records_nothing(url, db):
    """One that was made while functions of older versions could be used by all."""
    keep(db)
    drained(db)
    with role(url, "USAGE ON SCHEMA pinnacle", "CREATE ON SCHEMA public") as stranger:
        run_sql(stranger, *evil_type(), "CREATE TABLE mine (id evil, body text, loud text)")
        run_sql(url, *triggers_like_ours(url, "mine"))
        before = outbox(url)
        run_sql(stranger, "INSERT INTO mine VALUES (ROW(1)::evil, 'x')", "UPDATE mine SET body = 'y'")
        run_sql(stranger, "DELETE FROM mine", "TRUNCATE mine")
        assert (has_loot(url), outbox(url)) == (False, before)
        run_sql(url, "INSERT INTO docs VALUES (2, 'b')")
        drained(db)
        assert run_sql(url, "SELECT loud FROM docs WHERE id = 2") == [("B",)]
        run_sql(url, "DROP TRIGGER pinnacle_1_truncate ON docs")
        theirs = "SELECT 1 FROM pg_trigger WHERE tgrelid = 'mine'::regclass"
        wait_until(lambda: run_sql(url, theirs) == [])  # made anew, the functions take it along


@pytest.mark.parametrize("options", [{}, {"replicated": True}], ids=str)
def test_casts_of_a_key_that_was_retyped_do_not_run_with_our_rights(url, db, options):
    with role(url, "USAGE, CREATE ON SCHEMA public") as stranger:
        run_sql(stranger, "CREATE TABLE theirs (id bigint PRIMARY KEY, body text)", *evil_type())
        keep(db, "theirs", **options)
        run_sql(
            stranger,
            "DROP TRIGGER pinnacle_1_update ON theirs",
            "ALTER TABLE theirs ALTER id TYPE evil USING ROW(id)::evil",
            "INSERT INTO theirs VALUES (ROW(7)::evil, 'x')",
            "DELETE FROM theirs",
        )
        assert (has_loot(url), outbox(url)) == (False, 2)


def test_a_role_that_owns_a_partitioned_table_goes_on_making_partitions(url, db):
    with role(url, "USAGE, CREATE ON SCHEMA public") as owner:
        run_sql(
            owner,
            "CREATE TABLE parted (id bigint, body text, PRIMARY KEY (id)) PARTITION BY RANGE (id)",
            "CREATE TABLE low PARTITION OF parted FOR VALUES FROM (0) TO (10)",
        )
        keep(db, "parted", on_change="clear")
        drained(db)
        run_sql(owner, "CREATE TABLE high PARTITION OF parted FOR VALUES FROM (10) TO (20)")
        run_sql(
            owner,
            "CREATE TABLE other (body text, extra text, id bigint NOT NULL, loud text)",
            "ALTER TABLE other DROP extra",
            "ALTER TABLE parted ATTACH PARTITION other FOR VALUES FROM (20) TO (30)",
            "INSERT INTO parted VALUES (1, 'a'), (11, 'b')",
            "INSERT INTO other (id, body) VALUES (21, 'c')",
        )
        drained(db)
        run_sql(owner, "UPDATE parted SET body = 'z' WHERE id IN (11, 21)", "DELETE FROM low")
        drained(db)
        assert run_sql(url, "SELECT id, loud FROM parted ORDER BY id") == [(11, "Z"), (21, "Z")]
        assert run_sql(url, PUBLIC) == []


def test_a_listener_on_a_partition_that_has_partitions_sees_their_changes(url, db):
    run_sql(
        url,
        "CREATE TABLE whole (id bigint PRIMARY KEY, body text) PARTITION BY RANGE (id)",
        "CREATE TABLE parted PARTITION OF whole FOR VALUES FROM (0) TO (100) PARTITION BY RANGE (id)",
        "CREATE TABLE low PARTITION OF parted FOR VALUES FROM (0) TO (10)",
    )
    run_sql(url, "ALTER TABLE whole ADD loud text")
    keep(db, "parted")
    drained(db)
    run_sql(url, "INSERT INTO whole VALUES (1, 'a')", "INSERT INTO low VALUES (2, 'b')", "UPDATE low SET body = 'c'")
    drained(db)
    assert run_sql(url, "SELECT id, loud FROM whole ORDER BY id") == [(1, "C"), (2, "C")]


def test_a_new_owner_of_a_partitioned_table_may_make_partitions_once_a_worker_has_looked(url, db):
    run_sql(url, "CREATE TABLE parted (id bigint PRIMARY KEY, body text) PARTITION BY RANGE (id)")
    keep(db, "parted")
    with role(url, "USAGE, CREATE ON SCHEMA public") as owner:
        run_sql(url, f"ALTER TABLE parted OWNER TO {name_of(owner)}")
        drained(db)
        run_sql(owner, "CREATE TABLE low PARTITION OF parted FOR VALUES FROM (0) TO (10)")


def test_an_operator_of_a_strangers_is_not_what_a_trigger_compares_with(url, db):
    """The nearest operator for two varchars would be one that is of exactly these."""
    with role(url, "CREATE ON SCHEMA public") as stranger:
        run_sql(
            stranger,
            "CREATE FUNCTION alike(varchar, varchar) RETURNS boolean LANGUAGE sql AS 'SELECT true'",
            "CREATE OPERATOR = (LEFTARG = varchar, RIGHTARG = varchar, FUNCTION = alike)",
        )
        run_sql(url, "CREATE TABLE short (id bigint PRIMARY KEY, body varchar)")
        keep(db, "short")
        run_sql(url, "INSERT INTO short VALUES (1, 'a')", "UPDATE short SET body = 'b'")
        drained(db)
        assert run_sql(url, "SELECT loud FROM short") == [("B",)]
        assert outbox(url) == 0
        with psycopg.connect(url) as writer:
            writer.execute("UPDATE short SET body = 'c'")
            assert writer.execute("SELECT count(*) FROM pinnacle.pinnacle_outbox_1").fetchone() == (1,)
