"""A small town to attack: a database with a record of every kind, and what its operator does."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from click.testing import CliRunner

from pinnacle import Dataset, Listener, PinnacleError, pinnacle
from pinnacle.cli import main, status
from pinnacle.db import Database
from pinnacle.runtime import keeper, worker
from tests.contract.trainable import Line, LineConfiguration
from tests.models import Suffixed, chat, picky, shout, word_count
from tests.security.watch import is_below, is_of_python, watched

SECRET = "the-secret-of-the-operator-of-the-town"
USERS = [(1, "root", "admin"), (2, "eve", "guest")]
BODIES = ["one", "two words", "three", "bad"]
PATIENCE_S = 20.0
VICTIM, NEIGHBOUR = "docs.loud", "docs.size"
COLUMNS = {"loud", "size", "tail", "said", "picked", "near", "line", "again"}
"""The columns of docs that are pinnacle's to write."""

COMMANDS = ("status", "plan", "status --json", "show", "check", "remove --all --outputs")

metadata = sa.MetaData()
docs = sa.Table(
    "docs", metadata, sa.Column("id", sa.Integer, primary_key=True), sa.Column("body", sa.Text),
    sa.Column("n", sa.Integer), sa.Column("x", sa.Double), sa.Column("y", sa.Double),
)  # fmt: skip
users = sa.Table(
    "users", metadata, sa.Column("id", sa.Integer, primary_key=True), sa.Column("name", sa.Text),
    sa.Column("role", sa.Text),
)  # fmt: skip


def build(path: Path) -> None:
    """The town, with a record of every kind in pinnacle's tables."""
    engine = sa.create_engine(f"sqlite:///{path}")
    metadata.create_all(engine)
    with engine.begin() as connection:
        rows = [{"id": i, "body": body, "n": 1, "x": float(i), "y": 2.0 * i} for i, body in enumerate(BODIES, 1)]
        connection.execute(sa.insert(docs), rows)
        connection.execute(sa.insert(users), [dict(zip(("id", "name", "role"), row, strict=True)) for row in USERS])
    engine.dispose()
    every = sa.select(docs)
    with pinnacle(f"sqlite:///{path}") as db:
        db.add(Listener(model=shout, key="body", select=every.where(docs.c.n == 1), output="loud"))
        db.add(Listener(model=word_count, key="body", select=every, output="size"))
        db.add(Listener(model=Suffixed("tail", suffix="!"), key="body", select=every, output="tail", follow="latest"))
        db.add(Dataset("all", select=every))
        chat.predict(X="body", db=db, select=every, output="said", progress=False)
        picky.predict(X="body", db=db, select=every, output="picked", progress=False)
        line = Line("line")
        line.fit(("x", "y"), db=db, select=every, configuration=LineConfiguration("how", max_steps=4), progress=False)
        line.predict(X="x", db=db, select=every, output="line", progress=False)
        db.listen()
        db.drain()


def hurry(setattr_: Callable[[object, str, Any], None]) -> None:
    """Workers and commands of this process look sooner than they need to."""
    for module, name, seconds in (
        (worker, "POLL_S", 0.05), (worker, "REGISTRY_S", 0.05), (worker, "FOLLOW_S", 0.2), (keeper, "POLL_S", 0.1),
        (status, "RATE_S", 0.01),
    ):  # fmt: skip
        setattr_(module, name, seconds)


def in_town(folder: Path, setenv: Callable[[str, str], None], secret: str | None) -> None:
    """What the operator's environment says."""
    setenv("PINNACLE_CACHE_DIR", str(folder / "cache"))
    setenv("PINNACLE_SECRET_FILE", "off")
    setenv("PINNACLE_SECRET", secret or "")


@dataclass
class Town:
    """One copy of the town, and what became of it."""

    folder: Path
    neighbour: str | None = NEIGHBOUR
    """The listener that is to go on whatever was changed."""

    faults: list[str] = field(default_factory=list)
    outcomes: dict[str, str] = field(default_factory=dict)
    """What each act of the operator's came to: "" or the error that it met."""

    @property
    def path(self) -> Path:
        return self.folder / "town.db"

    @property
    def url(self) -> str:
        return f"sqlite:///{self.path}"

    def change(self, *statements: str, **values: Any) -> None:
        """As whoever may write the file: by plain SQL."""
        with closing(sqlite3.connect(self.path, timeout=60)) as raw, raw:
            for statement in statements:
                raw.execute(statement, values)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.path, timeout=60)) as raw:
            return raw.execute(query).fetchall()

    @property
    def told(self) -> str:
        """All that the operator was told."""
        return "\n".join(f"{act}: {told}" for act, told in self.outcomes.items() if told)

    # -- what the operator does --------------------------------------------------------------------

    def operate(self, *, is_brief: bool = False) -> None:
        """Look, plan, load, work, predict and remove, watched; what should not have been goes to ``faults``."""
        with watched() as watch:
            self._acts(COMMANDS[:2] if is_brief else COMMANDS)
        self.faults += [" ".join(each) for each in sorted(watch.done) if not is_meant(each, self.folder)]
        if self.rows("SELECT * FROM users") != USERS:
            self.faults.append("the users are not as they were")
        bodies = [*BODIES, "fresh news"]
        if [body for (body,) in self.rows("SELECT body FROM docs ORDER BY id")] != bodies:
            self.faults.append("the rows are not as they were")

    def _acts(self, commands: Sequence[str]) -> None:
        for words in commands:
            self._command(words, *words.split())
        self.attempt("open", self._with_a_handle)
        self._command("remove", "remove", "listener", VICTIM)
        self._command("remove all", "remove", "--all", "--outputs", "--yes")

    def _with_a_handle(self) -> None:
        with closing(pinnacle(self.url)) as db:
            for kind, identifier in self.attempt("list", db.show) or ():
                self.attempt(f"load {kind} {identifier}", lambda k=kind, i=identifier: db.load(k, i))
            self.attempt("work", lambda: self._work(db))
            self.attempt("errors", db.errors)
            for model in ("shout", "line"):
                field = {"shout": "body", "line": "x"}[model]
                self.attempt(f"predict {model}", lambda m=model, f=field: db.predict(
                    m, X=f, select=sa.select(docs), output="again" if m == "shout" else "line", progress=False
                ))  # fmt: skip
            self.attempt("retry", lambda: db.retry_errors(progress=False))
            self.attempt("remove model", lambda: db.remove("model", "line", outputs="drop"))

    def _work(self, db: Database) -> None:
        """The user's work goes on: a new row gets the output of the listener that nobody attacked."""
        self.change("INSERT INTO docs (body, n) VALUES ('fresh news', 1)")
        db.listen()
        if self.neighbour is not None and not _until(self._has_output):
            self.faults.append("the neighbour's output of a new row is missing")
        _until(lambda: all(self._is_settled(status) for status in db.listeners()), 2.0)
        self.outcomes |= {f"listener {s.identifier}": s.last_error or s.paused or "" for s in db.listeners()}
        db.stop()

    def _has_output(self) -> bool:
        column, output = {NEIGHBOUR: ("size", 2), VICTIM: ("loud", "FRESH NEWS")}[str(self.neighbour)]
        return self.rows(f"SELECT {column} FROM docs WHERE body = 'fresh news'") == [(output,)]

    def _is_settled(self, status: Any) -> bool:
        return bool(status.last_error or status.paused or not status.pending)

    def attempt(self, name: str, act: Callable[[], Any]) -> Any:
        """What an act returns; an error of pinnacle's is an outcome, any other a fault."""
        self.outcomes[name] = ""
        try:
            return act()
        except PinnacleError as error:
            self.outcomes[name] = f"{type(error).__name__}: {error}"
        except Exception as error:
            self.faults.append(f"{name}: {type(error).__module__}.{type(error).__name__}: {error}")
        return None

    def _command(self, name: str, verb: str, *words: str) -> None:
        result = CliRunner().invoke(main, [verb, self.url, *words])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            error = result.exception
            self.faults.append(f"{name}: {type(error).__module__}.{type(error).__name__}: {error}")
        self.outcomes[name] = result.output if result.exit_code else ""
        if name == "status" and (self.neighbour or "") not in result.output:
            self.faults.append(f"status shows nothing of the neighbour: {result.output}")
        if any(not letter.isprintable() for letter in result.output if letter != "\n"):
            self.faults.append(f"{name} prints control characters")


def _until(holds: Callable[[], bool], patience_s: float | None = None) -> bool:
    deadline = time.monotonic() + (PATIENCE_S if patience_s is None else patience_s)
    while not (held := holds()) and time.monotonic() < deadline:
        time.sleep(0.005)
    return held


def is_meant(done: tuple[str, ...], folder: Path) -> bool:
    """Whether what was done is what pinnacle is for."""
    kind, what = done[0], done[1]
    if kind == "module":
        return is_of_python(what) or what.startswith("<")
    if kind in ("read", "write", "database"):
        return is_below(what, folder) or (kind == "read" and is_of_python(what))
    return kind == "sql" and _is_meant_sql(*done[1:])


def _is_meant_sql(verb: str, first: str, second: str) -> bool:
    """Whether a statement is one on pinnacle's tables, or on the one table that listeners are for.

    How that one could be written is asked before triggers are made, without writing: its rows are compared at the end.
    """
    if verb == "function":
        return second in FUNCTIONS
    table = second if verb in ("alter_table", "create_trigger", "drop_trigger") else first
    if verb == "read" and table.startswith(("pragma_table_", "json_each")):
        return True
    if verb in ("create_trigger", "drop_trigger") and not first.startswith("pinnacle_"):
        return False
    if table == "docs":
        return verb in ON_DOCS and (verb != "update" or second in {*COLUMNS, "id"})
    return table.startswith(("pinnacle_", "sqlite_")) and verb in {*ON_DOCS, "create_table", "drop_table",
                                                                   "create_index", "drop_index",
                                                                   "create_view", "drop_view"}  # fmt: skip


ON_DOCS = {"read", "insert", "update", "delete", "alter_table", "create_trigger", "drop_trigger"}
FUNCTIONS = {
    "count", "max", "min", "sum", "coalesce", "typeof", "json_array", "quote", "julianday", "hex", "lower", "abs",
    "total", "length", "substr", "printf", "like", "glob", "sqlite_drop_column", "sqlite_rename_quotefix",
    "sqlite_rename_test", "sqlite_rename_column", "sqlite_rename_table",
}  # fmt: skip
