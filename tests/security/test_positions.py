"""Other ways in than pinnacle's tables on SQLite: stored addresses and names of keys; roles that write or read rows."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from pinnacle_openai import OpenAI

from pinnacle import Listener, PinnacleError, pinnacle
from tests.models import shout
from tests.roles import role, run_sql
from tests.security.attacks import field

KEY, OTHER = "sk-the-key-of-the-environment", "what another variable holds"


@pytest.fixture
def thief() -> Iterator[tuple[str, list[str]]]:
    """The address of a server of somebody else's, and all that it was sent."""
    sent: list[str] = []

    class Thief(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            sent.append(f"{self.path} {self.headers} {body!r}")
            self.send_error(400)

        def log_message(self, *_: Any) -> None:
            """Nothing is printed."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Thief) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1", sent
        server.shutdown()


@pytest.mark.parametrize(
    ("name", "to"),
    [
        ("api_key", "env:OPENAI_API_KEY"), ("api_key", "env:OTHER_VARIABLE"), ("api_key", "env:PINNACLE_SECRET"),
        ("default_headers", {"X-Own": "env:OTHER_VARIABLE"}), ("default_query", {"own": "env:OTHER_VARIABLE"}),
        ("organization", "env:OTHER_VARIABLE"), ("args", {"user": "env:OTHER_VARIABLE"}),
        ("args", {"extra_headers": {"X-Own": "env:OTHER_VARIABLE"}}), ("base_url", "file:///etc/passwd"),
        ("base_url", "http://127.0.0.1:9@evil.invalid/v1"),
    ],
    ids=str,
)  # fmt: skip
def test_no_variable_goes_to_an_address_that_the_database_names(town, thief, monkeypatch, name, to):
    url, sent = thief
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OTHER_VARIABLE", OTHER)
    monkeypatch.setenv("PINNACLE_SECRET", "")
    with pinnacle(town.url) as db:
        db.add(OpenAI("gpt", model_name="gpt-4"))
    field("gpt", "base_url", to=url).make(town.path)
    field("gpt", name, to=to).make(town.path)
    with pinnacle(town.url) as db, pytest.raises(PinnacleError) as refused:
        db.load("model", "gpt").predict("hello")
    assert not [each for each in sent if KEY in each or OTHER in each]
    assert KEY not in str(refused.value)


AS_A_WRITER = [
    "INSERT INTO pinnacle.pinnacle_outbox_1 DEFAULT VALUES",
    "UPDATE pinnacle.pinnacle_component SET body = '{}'",
    "SELECT body FROM pinnacle.pinnacle_component",
    "DELETE FROM pinnacle.pinnacle_output",
    "TRUNCATE pinnacle.pinnacle_listener",
    "DROP SCHEMA pinnacle CASCADE",
    "CREATE TABLE pinnacle.mine (id int)",
    "DROP TRIGGER pinnacle_1_insert ON docs",
    "ALTER TABLE docs DROP COLUMN loud",
    "ALTER TABLE docs DISABLE TRIGGER ALL",
    "SELECT * FROM users",
    "SET ROLE postgres",
    "COPY docs TO PROGRAM 'cat'",
    "COMMENT ON COLUMN docs.body IS 'pinnacle'",
]
AS_A_READER = [
    *AS_A_WRITER, "INSERT INTO docs (id, body) VALUES (9, 'x')", "UPDATE docs SET loud = 'x'", "DELETE FROM docs",
]  # fmt: skip


def test_roles_of_postgresql_that_write_or_read_rows_reach_nothing_else(postgres_url):
    run_sql(
        postgres_url,
        "CREATE TABLE docs (id bigint PRIMARY KEY, body text)",
        "CREATE TABLE users (id bigint PRIMARY KEY, role text)",
    )
    docs = sa.table("docs", sa.column("id"), sa.column("body"))
    with closing(pinnacle(postgres_url)) as db:
        db.add(Listener(model=shout, key="body", select=sa.select(docs), output="loud"))
        db.listen()
        grant = "SELECT, INSERT, UPDATE, DELETE ON docs"
        with role(postgres_url, grant) as writer, role(postgres_url, "SELECT ON docs") as reader:
            for url, statements in ((writer, AS_A_WRITER), (reader, AS_A_READER)):
                for statement in statements:
                    with pytest.raises(psycopg.Error) as refused:
                        run_sql(url, statement)
                    assert isinstance(refused.value, psycopg.errors.InsufficientPrivilege), statement
            run_sql(writer, "INSERT INTO docs (id, body) VALUES (1, 'one')")
            db.drain(120)
            assert run_sql(reader, "SELECT id, loud FROM docs") == [(1, "ONE")]
