"""What each role may do on PostgreSQL with the very grants of the guide: of pinnacle, a worker, a writer, a reader."""

from __future__ import annotations

import re
import uuid

import psycopg
import pytest
import sqlalchemy as sa

from pinnacle import BackendError, ConfigError, Listener, pinnacle
from tests.models import CALLS, shout
from tests.pages import page
from tests.roles import name_of, role, run_sql

DOCS = sa.table("docs", sa.column("id"), sa.column("body"))
REFUSED = psycopg.errors.InsufficientPrivilege


@pytest.fixture(autouse=True)
def impatient(impatient_workers):
    CALLS.clear()


@pytest.fixture
def roles(postgres_url):
    """Names of the guide for names of this test alone, as a server's roles are everybody's."""
    run = uuid.uuid4().hex[:8]
    found = {name: f"{name}_{run}" for name in ("app_owner", "pinnacle", "pinnacle_worker")}
    run_sql(
        postgres_url,
        f"CREATE ROLE {found['app_owner']}",
        "CREATE TABLE docs (id bigint PRIMARY KEY, body text)",
        "INSERT INTO docs VALUES (1, 'a')",
        f"ALTER TABLE docs OWNER TO {found['app_owner']}",
        f"GRANT CREATE ON SCHEMA public TO {found['app_owner']}",
    )
    yield found
    known = "SELECT 1 FROM pg_roles WHERE rolname = '{}'"
    there = [name for name in found.values() if run_sql(postgres_url, known.format(name))]
    for name in there:
        run_sql(postgres_url, f"DROP OWNED BY {name} CASCADE")
    for name in there:
        run_sql(postgres_url, f"DROP ROLE {name}")


def grants(url, roles, number):
    """One of the guide's blocks, for these roles and this database."""
    text = page("docs/guide/production.md").blocks("sql")[number]
    text = re.sub(r"(?<=TO |LE |OM )(pinnacle_worker|pinnacle)\b(?=[ ;])", lambda found: roles[found[1]], text)
    text = text.replace("app_owner", roles["app_owner"])
    return text.replace("DATABASE app", f'DATABASE "{sa.make_url(url).database}"')


def as_role(url, name):
    return sa.make_url(url).set(username=name).render_as_string(hide_password=False)


@pytest.mark.unmigrated
def test_each_role_does_its_part_with_the_rights_that_the_guide_gives_it(postgres_url, roles):
    url = postgres_url
    run_sql(url, grants(url, roles, 0))
    owner, worker = (as_role(url, roles[name]) for name in ("pinnacle", "pinnacle_worker"))
    with pinnacle(owner) as db:
        db.migrate()
        run_sql(url, grants(url, roles, 2))
        listener = db.add(Listener(model=shout, key="body", select=sa.select(DOCS), output="loud"))
        run_sql(url, grants(url, roles, 3))
    with pinnacle(worker) as db, role(url, "SELECT, INSERT, UPDATE (body), DELETE, TRUNCATE ON docs") as writer:
        db.listen()
        run_sql(writer, "INSERT INTO docs (id, body) VALUES (2, 'b')", "UPDATE docs SET body = 'z' WHERE id = 1")
        db.drain()
        assert run_sql(url, "SELECT id, loud FROM docs ORDER BY 1") == [(1, "Z"), (2, "B")]
        assert (db.fresh(listener).fresh, db.listeners()[0].last_error, db.errors()) == (2, None, [])
        run_sql(writer, "UPDATE docs SET body = 'bad' WHERE id = 1", "DELETE FROM docs WHERE id = 2")
        db.drain()
        with role(url, "SELECT (id, loud) ON docs") as reader:
            assert run_sql(reader, "SELECT id, loud FROM docs") == [(1, "BAD")]
            for stranger in (reader, writer):
                with pytest.raises(REFUSED, match="schema pinnacle"):
                    run_sql(stranger, "SELECT * FROM pinnacle.pinnacle_component")
        for statement in (
            "ALTER TABLE docs ADD x integer",
            "UPDATE docs SET body = 'mine'",
            "INSERT INTO docs VALUES (9, 'mine')",
            "CREATE TABLE pinnacle.more (x integer)",
            "CREATE OR REPLACE VIEW pinnacle.pinnacle_place_1 AS SELECT 'made' AS made",
            "UPDATE pinnacle.pinnacle_place_1 SET name = 'body'",
            "UPDATE pinnacle.pinnacle_output SET name = 'body'",
            "UPDATE pinnacle.pinnacle_component SET body = '{}'",
            "CREATE TRIGGER t AFTER TRUNCATE ON docs EXECUTE FUNCTION pinnacle.pinnacle_capture_1_truncate()",
        ):
            with pytest.raises(psycopg.Error, match=r"permission denied|must be owner|cannot update view"):
                run_sql(worker, statement)


@pytest.mark.unmigrated
@pytest.mark.parametrize("is_superuser", [False, True])
def test_a_schema_that_a_stranger_made_first_is_refused_unread(postgres_url, roles, is_superuser):
    url = postgres_url
    run_sql(url, grants(url, roles, 0))
    opened = url if is_superuser else as_role(url, roles["pinnacle"])
    with role(url, f'CREATE ON DATABASE "{sa.make_url(url).database}"') as squatter:
        run_sql(
            squatter,
            "CREATE SCHEMA pinnacle",
            "GRANT ALL ON SCHEMA pinnacle TO PUBLIC",
            "CREATE FUNCTION pinnacle.run() RETURNS text LANGUAGE plpgsql "
            "AS $$ BEGIN RAISE 'ran as %', current_user; END $$",
            "CREATE VIEW pinnacle.pinnacle_migration AS SELECT pinnacle.run() AS version_num",
            "GRANT SELECT ON pinnacle.pinnacle_migration TO PUBLIC",
        )
        with pinnacle(opened) as db:
            for look in (db.outputs, db.migration_plan, db.migrate):
                with pytest.raises(ConfigError, match=f"belongs to the role '{name_of(squatter)}'"):
                    look()
            with pytest.raises(ConfigError, match="belongs to the role"):
                shout.predict(X="body", db=db, select=sa.select(DOCS), output="loud")
    assert CALLS == []


def test_a_table_that_a_stranger_put_among_ours_is_refused(postgres_url, roles):
    with role(postgres_url, "CREATE, USAGE ON SCHEMA pinnacle") as squatter:
        run_sql(squatter, "CREATE TABLE pinnacle.pinnacle_state_1 (k0 bigint)")
        with pinnacle(postgres_url) as db, pytest.raises(ConfigError, match="pinnacle_state_1 in the schema pinnacle"):
            db.outputs()


@pytest.mark.unmigrated
def test_forced_row_level_security_is_an_error_for_the_tables_own_owner(postgres_url, roles):
    url = postgres_url
    run_sql(url, grants(url, roles, 0), "ALTER TABLE docs ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
    with pinnacle(as_role(url, roles["pinnacle"])) as db:
        with pytest.raises(BackendError, match="row-level security"):
            shout.predict(X="body", db=db, select=sa.select(DOCS), output="loud")
        assert CALLS == []
        run_sql(url, f"ALTER ROLE {roles['pinnacle']} BYPASSRLS")
        assert shout.predict(X="body", db=db, select=sa.select(DOCS), output="loud").written == 1


@pytest.mark.unmigrated
def test_that_all_may_make_operators_for_everybody_is_said(postgres_url, caplog):
    with pinnacle(postgres_url) as db:
        run_sql(postgres_url, "GRANT CREATE ON SCHEMA public TO PUBLIC")
        db.migrate()
    assert "REVOKE CREATE ON SCHEMA public FROM PUBLIC" in caplog.text
