"""The command line, as a user runs it."""

from __future__ import annotations

import json
import os
import re
import socket
import sqlite3
import sys
import time
import urllib.request
from contextlib import closing
from importlib.metadata import EntryPoint, EntryPoints

import pytest
import sqlalchemy as sa
from alembic import command as migrations
from click.testing import CliRunner

import pinnacle
from pinnacle import Settings
from pinnacle.backends import open as opening
from pinnacle.backends.open import open_backend
from pinnacle.backends.sql import migrate
from pinnacle.backends.sqlite.backend import open_sqlite
from pinnacle.base.usage import utc_day
from pinnacle.cli import main
from pinnacle.cli.metrics import serving
from pinnacle.cli.numbers import AddressType
from pinnacle.demo.models import word_count
from tests.contract.documents import wait_until
from tests.databases import DocumentDatabase, SqlDatabase

pytestmark = pytest.mark.unmigrated


@pinnacle.model(max_attempts=1)
def broken(text: str) -> int:
    raise ValueError(text)


@pytest.fixture
def url(sqlite_url):
    """A database with one table of the user's own."""
    engine = sa.create_engine(sqlite_url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE docs (id INTEGER PRIMARY KEY, body TEXT)")
        connection.exec_driver_sql("INSERT INTO docs (body) VALUES ('three words here'), ('two words'), (NULL)")
    return sqlite_url


@pytest.fixture
def filled(url):
    """The same after a predict."""
    with closing(pinnacle.pinnacle(url)) as db:
        docs = sa.Table("docs", sa.MetaData(), autoload_with=db.engine)
        word_count.predict(X="body", db=db, select=sa.select(docs), output="words")
    return url


def run(*arguments: str, exit_code: int = 0) -> str:
    answer = CliRunner().invoke(main, list(arguments))
    assert answer.exit_code == exit_code, f"{answer.output}\n{answer.exception!r}"
    return answer.output


def names(url: str) -> set[str]:
    """Tables and columns that the file has."""
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        return tables | {f"docs.{row[1]}" for row in connection.execute("PRAGMA table_info(docs)")}


def test_status_shows_outputs_and_components(filled):
    shown = run("status", filled)
    assert "words" in shown
    assert "word_count" in shown
    assert "Components (1)" in shown


def test_status_counts_rows_that_were_set_aside(url):
    with closing(pinnacle.pinnacle(url)) as db:
        docs = sa.Table("docs", sa.MetaData(), autoload_with=db.engine)
        broken.predict(X="body", db=db, select=sa.select(docs), output="broken")
    row, *messages = [line for line in run("status", url).splitlines() if "docs" in line and "broken" in line]
    assert row.split()[-1] == "2"
    assert sorted(messages) == [
        "  docs.broken, key 1: ValueError: three words here",
        "  docs.broken, key 2: ValueError: two words",
    ]


def spend(url: str, *days_ago: int) -> list[str]:
    """Record calls of the model gpt on those days; the days."""
    days = [utc_day(time.time() - 86_400 * ago) for ago in days_ago]
    numbers = {"calls": 12, "failed": 2, "retried": 1, "input_tokens": 3456, "output_tokens": 78, "cost": 0.00125}
    with closing(open_backend(url, Settings())) as below:
        below.ledger.add_usage(
            [pinnacle.UsageRow(day=day, model="gpt", output="docs.summary", **numbers) for day in days]
        )
    return days


def test_status_shows_what_the_calls_of_the_last_seven_days_cost(filled):
    assert "Usage" not in run("status", filled)
    today, last, before = spend(filled, 0, 6, 7)
    shown = run("status", filled)
    assert before not in shown
    title, header, *rows = shown[shown.index("Usage") :].splitlines()
    assert title == "Usage (last 7 days)"
    columns = ["day", "model", "output", "calls", "failed", "retried", "input tokens", "output tokens", "cost"]
    assert re.split(" {2,}", header.strip()) == columns
    numbers = ["gpt", "docs.summary", "12", "2", "1", "3456", "78", "$0.0013"]
    assert [row.split() for row in rows] == [[today, *numbers], [last, *numbers]]


def test_status_shows_no_usage_where_the_last_calls_are_long_ago(filled):
    spend(filled, 30)
    assert "Usage" not in run("status", filled)


def test_status_of_a_database_without_outputs_changes_nothing(url):
    before = names(url)
    assert "Outputs (0)" in run("status", url)
    assert names(url) == before


def test_a_misspelt_file_is_not_created(tmp_path):
    missing = tmp_path / "no.db"
    said = run("status", f"sqlite:///{missing}", exit_code=1)
    assert said.startswith("Error: there is no database file")
    assert run("status", f"postgresql+embedded:///{missing}", exit_code=1).startswith("Error: there is no database dir")
    assert not missing.exists()


def test_a_file_of_another_packages_scheme_is_not_created(tmp_path, monkeypatch):
    """Whoever opens a URL is asked not to make what is not there: a scheme says nothing of what is behind it."""
    known = [*opening.entry_points(group=opening.GROUP)]
    notes = EntryPoint("notes", f"{__name__}:open_notes", opening.GROUP)
    monkeypatch.setattr(opening, "entry_points", lambda group: EntryPoints([*known, notes]))
    missing = tmp_path / "no.db"
    assert run("status", f"notes:///{missing}", exit_code=1).startswith("Error: there is no database file")
    assert not missing.exists()
    pinnacle.pinnacle(f"notes:///{missing}").close()
    assert "Outputs (0)" in run("status", f"notes:///{missing}")


def open_notes(url, settings):
    return open_sqlite(url.replace("notes", "sqlite", 1), settings)


def test_an_error_is_one_line(url):
    said = run("plan", url, "--model", "nobody", "--table", "docs", "--x", "body", exit_code=1)
    assert said.startswith("Error: ")
    assert "nobody" in said
    assert "Traceback" not in said


def test_plan_shows_statements_and_changes_nothing(filled):
    before = names(filled)
    said = run("plan", filled, "--model", "word_count", "--table", "docs", "--x", "body", "--output", "again")
    assert "again" in said
    assert names(filled) == before


def test_plan_of_a_table_that_is_not_there_says_so(filled):
    said = run("plan", filled, "--model", "word_count", "--table", "docz", "--x", "body", exit_code=1)
    assert "docz" in said


def test_plan_without_options_shows_the_migration(url):
    before = names(url)
    assert "CREATE TABLE pinnacle_component" in run("plan", url)
    assert names(url) == before


def test_migrate_makes_the_tables_once(url):
    assert "statements" in run("migrate", url)
    assert "pinnacle_component" in names(url)
    assert "Nothing to do" in run("migrate", url)


def test_migrate_brings_an_older_database_along(url):
    with sa.create_engine(url, poolclass=sa.NullPool).begin() as connection:
        migrations.upgrade(migrate._config(None, connection=connection), "0002")
    assert "pinnacle migrate" in run("status", url, exit_code=1)
    planned = run("plan", url)
    assert "CREATE TABLE pinnacle_usage" in planned
    assert "CREATE TABLE pinnacle_component" not in planned
    assert "statements" in run("migrate", url)
    spend(url, 0)
    assert "Usage" in run("status", url)


def test_remove_asks_to_be_meant(filled):
    before = names(filled)
    run("remove", filled, exit_code=2)
    said = run("remove", filled, "--all", exit_code=1)
    assert "add --yes" in said
    assert names(filled) == before


def test_remove_takes_all_of_ours_and_leaves_the_data(filled):
    spend(filled, 0)
    run("remove", filled, "--all", "--yes")
    left = names(filled)
    assert not [name for name in left if name.startswith("pinnacle")]
    assert {"docs", "docs.id", "docs.body", "docs.words"} <= left


def test_remove_with_outputs_takes_the_columns_too(filled):
    run("remove", filled, "--all", "--outputs", "--yes")
    assert {name for name in names(filled) if name.startswith("docs.")} == {"docs.id", "docs.body"}


@pytest.fixture(params=["postgres_url", "mongodb_url"])
def served(request):
    """A database on a server, with one output."""
    url = request.getfixturevalue(request.param)
    user = SqlDatabase("postgres", url) if url.startswith("postgres") else DocumentDatabase.connect("mongodb", url)
    user.create("docs", {"body": str})
    user.insert("docs", {"body": "three words here"})
    with closing(pinnacle.pinnacle(url)) as db:
        word_count.predict(X="body", db=db, select=user.query("docs"), output="words")
    yield user
    user.close()


def test_the_commands_work_on_servers(served):
    url = served.address
    spend(url, 0)
    assert {"word_count", "$0.0013"} <= set(run("status", url).split())
    assert "Nothing to do" in run("migrate", url)
    planned = run("plan", url, "--model", "word_count", "--table", "docs", "--x", "body", "--output", "again")
    assert "again" in planned
    assert run("remove", url, "--all", exit_code=1)
    assert served.read("docs", 1) == {"body": "three words here", "words": 3}
    run("remove", url, "--all", "--outputs", "--yes")
    assert served.read("docs", 1) == {"body": "three words here"}
    assert "Outputs (0)" in run("status", url)


@pytest.fixture
def listened(url):
    """A database with a listener whose every row is set aside."""
    with closing(pinnacle.pinnacle(url)) as db:
        docs = sa.Table("docs", sa.MetaData(), autoload_with=db.engine)
        listener = pinnacle.Listener("broken", model=broken, key="body", select=sa.select(docs), output="out")
        db.add(listener, allow_pickle=True)
        db.listen()
        db.drain()
    return url


def test_an_operator_steers_listeners(listened):
    assert run("check", listened, exit_code=1) == "no worker lives\n"
    with closing(pinnacle.pinnacle(listened)) as db:
        db.listen()
        wait_until(db.workers)
        assert run("check", listened).startswith("ok: 1 listener")
        (worker,) = json.loads(run("status", listened, "--json"))["workers"]
        assert (worker["pid"], worker["since"] <= time.time()) == (os.getpid(), True)
        assert f":{os.getpid()} since " in run("status", listened).splitlines()[0]
    assert run("status", listened).startswith("Workers: none lives")
    assert "Paused broken" in run("pause", listened, "broken", "--reason", "for the night")
    assert "listener broken is paused: for the night" in run("check", listened, exit_code=1)
    (listener,) = json.loads(run("status", listened, "--json"))["listeners"]
    assert (listener["identifier"], listener["paused"], listener["failed"]) == ("broken", "for the night", 2)
    with closing(pinnacle.pinnacle(listened)) as db:
        db.execute(sa.text("INSERT INTO docs (body) VALUES ('one more')"))
    assert "Nothing is pending, but for what is paused: broken." in run("drain", listened)
    assert "No worker lives; the next one goes on with broken." in run("resume", listened, "broken")
    assert "no worker" in run("status", listened)
    late = run("drain", listened, "--timeout", "0", exit_code=1)
    assert "still pending for broken" in late
    assert "no worker lives: start one" in late
    assert "compares all rows of broken" in run("sweep", listened, "broken")
    assert "there is no listener 'nobody'" in run("sweep", listened, "nobody", exit_code=1)
    assert "Removed listener broken" in run("remove", listened, "listener", "broken")
    assert json.loads(run("status", listened, "--json"))["listeners"] == []


def test_an_operator_sees_and_retries_rows_that_were_set_aside(filled, listened):
    assert "ValueError: three words here" in run("errors", listened)
    assert len(run("errors", listened, "--limit", "1").splitlines()) == 2
    assert "2 failed" in run("retry", listened, "--model", "broken", exit_code=1)
    assert run("retry", listened, "--model", "word_count") == "No rows are set aside.\n"


def test_an_operator_lists_what_is_stored_and_what_it_cost(filled):
    spend(filled, 30)
    assert "$0.0013" in run("usage", filled)
    assert run("usage", filled, "--model", "word_count").strip() == "-"
    assert ["model", "word_count"] in [line.split() for line in run("show", filled).splitlines()]
    assert json.loads(run("show", filled, "model", "word_count"))["versions"][0]["version"] == 0


def test_status_is_shown_again_and_again(filled, monkeypatch):
    rounds = []

    def slept(seconds):
        rounds.append(seconds)
        if len(rounds) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("pinnacle.cli.status.time.sleep", slept)
    said = run("status", filled, "--watch", "0.5", exit_code=1)
    assert (rounds, said.count("Components (1)")) == ([0.5] * 3, 3)


def test_a_status_that_is_watched_outlives_an_outage(filled, monkeypatch):
    rounds = iter(
        [pinnacle.ConnectionLost("the server is away"), pinnacle.ConnectionLost("still"), KeyboardInterrupt()]
    )

    def away(db):
        raise next(rounds)

    monkeypatch.setattr("pinnacle.cli.status.show_status", away)
    monkeypatch.setattr("pinnacle.cli.status.time.sleep", lambda seconds: None)
    assert "Error: the server is away" in run("status", filled, exit_code=1)
    said = run("status", filled, "--watch", exit_code=1)
    assert "Error: still" in said
    assert next(rounds, None) is None


def test_a_path_or_the_environment_names_the_database(filled, monkeypatch):
    path = filled.removeprefix("sqlite:///")
    assert "Components (1)" in run("status", path)
    assert "name the database" in run("status", exit_code=2)
    monkeypatch.setenv("PINNACLE_URL", filled)
    assert "Components (1)" in run("status")
    assert json.loads(run("show", "model", "word_count"))["identifier"] == "word_count"
    assert "no database file" in run("status", "sqlite:///other.db", exit_code=1)


def test_check_fails_where_no_database_is_reached_or_its_tables_are_old(url, tmp_path):
    assert run("check", f"sqlite:///{tmp_path}/none.db", exit_code=1).startswith("Error: there is no database")
    assert "pinnacle migrate" in run("check", url, exit_code=1)
    run("migrate", url)
    assert run("check", url) == "ok: 0 listeners\n"


def test_metrics_are_served_by_listener(listened):
    with closing(pinnacle.pinnacle(listened)) as db, socket.socket() as free:
        numbers = {"calls": 12, "failed": 0, "retried": 0, "input_tokens": 300, "output_tokens": 40, "cost": 0.5}
        usage = [pinnacle.UsageRow(day=utc_day(time.time()), model="m", output="docs.out", **numbers)]
        db._backend.ledger.add_usage(usage)
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        free.close()
        with serving(db, AddressType()(address)), urllib.request.urlopen(f"http://{address}/metrics") as answer:
            lines = dict(line.rsplit(" ", 1) for line in answer.read().decode().splitlines() if line[0] != "#")
    assert {name.partition("{")[0]: float(value) for name, value in lines.items()} == {
        "pinnacle_pending": 0, "pinnacle_lag_seconds": 0, "pinnacle_failed": 2,
        "pinnacle_done_total": float(lines['pinnacle_done_total{listener="broken"}']), "pinnacle_calls_total": 12,
        "pinnacle_input_tokens_total": 300, "pinnacle_output_tokens_total": 40, "pinnacle_cost_dollars_total": 0.5,
    }  # fmt: skip
    assert float(lines['pinnacle_done_total{listener="broken"}']) >= 2


SECONDS = [("check", "--max-lag"), ("drain", "--timeout")]


@pytest.mark.parametrize(
    ("command", "option", "value", "said"),
    [*((*verb, value, "is no number of seconds from") for verb in SECONDS
       for value in ("nan", "inf", "-inf", "-1", "1e300")),
     *(("status", "--watch", value, "is no number of seconds from 0.1") for value in ("nan", "inf", "0", "1e300")),
     *(("errors", "--limit", value, "1<=x<=1000000") for value in ("0", "-1", "9" * 30)),
     *(("errors", "--limit", value, "not a valid integer") for value in ("nan", "1.5")),
     *(("worker", "--metrics", value, "takes host:port") for value in
       ("9464x", "127.0.0.1:99999", "h:0", "h:-1", "h:", "h:nan", "h:" + "9" * 30)),
     *(("demo", "--rows", value, "is not in the range") for value in ("0", "-1", "9" * 30))],
)  # fmt: skip
def test_a_number_that_cannot_be_meant_is_refused_before_anything_is_opened(tmp_path, command, option, value, said):
    target = tmp_path / "none.db"
    assert said in run(command, str(target), option, value, exit_code=2)
    assert not target.exists()


@pytest.mark.parametrize("command", ["errors", "retry", "usage"])
def test_a_model_that_is_not_there_is_an_error_that_names_a_near_one(filled, command):
    assert "there is no model 'wordcount'; did you mean 'word_count'?" in run(
        command, filled, "--model", "wordcount", exit_code=1
    )


def test_a_model_with_outputs_is_removed_as_the_command_says(filled):
    said = run("remove", filled, "model", "word_count", exit_code=1)
    assert "add --keep-outputs to leave the values" in said
    assert "outputs=" not in said
    assert "goes with a model" in run("remove", filled, "listener", "l", "--keep-outputs", exit_code=2)
    assert "Removed model word_count." in run("remove", filled, "model", "word_count", "--keep-outputs")
    assert "Outputs (0)" in run("status", filled)
    with sqlite3.connect(filled.removeprefix("sqlite:///")) as connection:
        assert connection.execute("SELECT count(words) FROM docs").fetchone() != (0,)
    connection.close()


def test_control_characters_of_the_database_do_not_reach_the_terminal(filled):
    spend(filled, 0)
    with sqlite3.connect(filled.removeprefix("sqlite:///")) as connection:
        connection.execute("UPDATE pinnacle_usage SET model = 'a' || char(27) || '[2J'")
    connection.close()
    assert "\x1b" not in run("status", filled)
    assert "a\\x1b[2J" in run("status", filled)


def test_a_password_is_never_printed():
    url = "postgresql://someone:hunter2@127.0.0.1:1/nothing"
    for command in ("status", "migrate", "plan"):
        assert "hunter2" not in run(command, url, exit_code=1)


@pytest.mark.parametrize("command", sorted(main.commands))
def test_help_reads_well(command):
    said = run(command, "--help")
    assert said.startswith("Usage: main ")
    assert all(len(line) <= 100 for line in said.splitlines())


def test_modules_are_imported_that_are_named_and_a_wrong_one_is_said(url, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tables_of_an_app.py").write_text("")
    monkeypatch.delitem(sys.modules, "tables_of_an_app", raising=False)
    run("--import", "tables_of_an_app", "status", url)
    assert "tables_of_an_app" in sys.modules
    said = run("--import", "none_such", "status", url, exit_code=1)
    assert "--import none_such: No module named" in said
    assert "add that folder to PYTHONPATH" in said
    assert "pinnacle --import MODULE COMMAND" in run("status", "--import", "tables_of_an_app", url, exit_code=2)
