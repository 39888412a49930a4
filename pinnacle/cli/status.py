"""Commands that tell how a database stands: for people, for programs, and for a health probe."""

from __future__ import annotations

import dataclasses
import json
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from pinnacle.base.errors import BackendError, DatabaseReplaced, NotFound
from pinnacle.base.listeners import ListenerStatus
from pinnacle.base.rows import RowError
from pinnacle.base.told import plain
from pinnacle.base.usage import UsageRow, utc_day
from pinnacle.cli.group import database_command, opened
from pinnacle.cli.names import check_model
from pinnacle.cli.numbers import Seconds
from pinnacle.cli.tables import table

if TYPE_CHECKING:
    from pinnacle.db import Database

SHOWN_ERRORS = 3
RATE_S = 1.0
USAGE_DAYS = 7
WATCH_S = 2.0
MAX_LAG_S = 300.0


@database_command()
@click.option("--json", "as_json", is_flag=True, help="Print it as one JSON object, for programs.")
@click.option(
    "--watch", type=Seconds(0.1), is_flag=False, flag_value=WATCH_S, default=None,
    help="Show it again every so many seconds (2 where none are said), until Ctrl-C.",
)  # fmt: skip
def status(url: str, as_json: bool, watch: float | None) -> None:
    """Show the listeners, fits, outputs, components, set-aside rows and recent costs of a database.

    Changes nothing. Rates are of one second. Days are in UTC, costs in US dollars.
    """
    with opened(url) as db:
        if watch is None:
            show(db, as_json=as_json)
        while watch is not None:
            show_again(db, as_json=as_json)
            time.sleep(watch)


def show_again(db: Database, *, as_json: bool) -> None:
    """The same in place of what was shown before; of a database that is away, which may come back, that it is."""
    if not as_json:
        click.clear()
    try:
        show(db, as_json=as_json)
    except DatabaseReplaced:
        raise
    except BackendError as error:
        click.echo(plain(f"Error: {error}"), err=True)


def show(db: Database, *, as_json: bool) -> None:
    """All of it, for programs or for people."""
    if as_json:
        click.echo(json.dumps(told(db), default=str))
    else:
        show_status(db)


@database_command()
@click.option(
    "--max-lag", type=Seconds(), default=MAX_LAG_S, show_default=True, metavar="SECONDS",
    help="How old the oldest change that waits may be.",
)  # fmt: skip
def check(url: str, max_lag: float) -> None:
    """Exit with 0 where all is well and with 1 where it is not: a health probe.

    It is not where the database is not reached or pinnacle's tables are not current, where
    there are listeners and no worker lives, where a listener is paused or has failed last, or
    where a change waits for longer than --max-lag.
    """
    with opened(url, "pinnacle check") as db:
        troubles = ["pinnacle's own tables are not current: run pinnacle migrate"] if db.migration_plan() else []
        listeners = [] if troubles and not db.outputs() else db.listeners()
        if listeners and not db.workers():
            troubles.append("no worker lives")
    for listener in listeners:
        for trouble in (
            listener.paused and f"is paused: {listener.paused}",
            listener.last_error and f"last failed with: {listener.last_error}",
            listener.lag_s > max_lag and f"has a change that waits for {listener.lag_s:.0f} s",
        ):
            troubles += [f"listener {listener.identifier} {trouble}"] if trouble else []
    for trouble in troubles:
        click.echo(plain(trouble))
    if troubles:
        raise click.exceptions.Exit(1)
    click.echo(f"ok: {len(listeners)} listeners")


@database_command()
@click.option("--model", help="Of one model alone.")
def usage(url: str, model: str | None) -> None:
    """Show what model calls cost, by day, model and output.

    A dash where nothing is known to have been charged: no price is known, or there is none.
    """
    with opened(url) as db:
        check_model(db, model)
        click.echo(usage_table(db.usage(model)))


def told(db: Database) -> dict[str, Any]:
    """The same as `show_status` shows, as plain values."""
    return {
        "workers": [dataclasses.asdict(worker) for worker in db.workers()],
        "listeners": [dataclasses.asdict(listener) for listener in db.listeners()],
        "fits": [
            {name: getattr(fit, name) for name in ("identifier", "version", "status", "step", "max_steps", "error")}
            for fit in db.fits()
        ],
        "outputs": [
            {"table": o.table, "name": o.name, "type": str(o.type), "model": o.model, "version": o.version,
             "reads": list(o.fields.paths)}
            for o in db.outputs()
        ],
        "components": [list(pair) for pair in db.show()],
        "errors": [
            {name: getattr(error, name) for name in ("output", "key", "model", "error", "message", "failed_at")}
            for error in db.errors()
        ],
        "usage": [dataclasses.asdict(row) for row in db.usage()],
    }  # fmt: skip


def show_status(db: Database) -> None:
    """All of it, as tables."""
    workers = [
        f"{w.host}:{w.pid} since {datetime.fromtimestamp(w.since, UTC):%Y-%m-%d %H:%M:%S} UTC" for w in db.workers()
    ]
    click.echo(f"Workers: {plain(', '.join(workers)) or 'none lives'}")
    show_listeners(db, has_worker=bool(workers))
    show_runs(db)
    outputs = db.outputs()
    failed = Counter(db.count_errors())
    components = [(*pair, versions_of(db, *pair)) for pair in db.show()]
    rows = [
        (o.table, o.name, o.type, o.model, o.version, ", ".join(o.fields.paths), failed[f"{o.table}.{o.name}"])
        for o in outputs
    ]
    click.echo(f"Outputs ({len(outputs)})")
    click.echo(table(("table", "column", "type", "model", "version", "reads", "set aside"), rows))
    for output in failed:
        show_errors(db.errors(output=output, limit=SHOWN_ERRORS))
    click.echo(f"\nComponents ({len(components)})")
    click.echo(table(("kind", "identifier", "versions"), components))
    show_usage(db.usage())


def versions_of(db: Database, kind: str, identifier: str) -> str:
    """How many versions there are of a component; a dash where its record is none that goes by such a name."""
    try:
        return str(len(db.show(kind, identifier)["versions"]))
    except NotFound:
        return "-"


def show_errors(errors: Sequence[RowError]) -> None:
    """The messages of rows that are set aside."""
    for error in errors:
        row = f"{plain(error.output)}, key {plain(repr(error.key))}"
        click.echo(f"  {row}: {plain(error.error)}: {plain(error.message)}")


def show_listeners(db: Database, *, has_worker: bool) -> None:
    """One line a listener, and below it why it is paused and its last error."""
    before = {listener.identifier: listener.processed for listener in db.listeners()}
    if before:
        time.sleep(RATE_S)
    listeners = db.listeners()
    rows = [
        (
            listener.identifier, state_of(listener, has_worker=has_worker),
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
            click.echo(plain(f"  {listener.identifier} is paused: {listener.paused}"))
        if listener.last_error:
            click.echo(plain(f"  {listener.identifier} last failed with: {listener.last_error}"))
    click.echo()


def state_of(listener: ListenerStatus, *, has_worker: bool) -> str:
    """In a word, what is done for a listener now."""
    if listener.paused:
        return "paused"
    if not has_worker:
        return "no worker"
    return "filling" if listener.is_sweeping else "running"


def listed_model(listener: ListenerStatus) -> str:
    """The model that a listener computes with, its version, and whether it follows newer ones."""
    version = "" if listener.model_version is None else f" {listener.model_version}"
    return f"{listener.model}{version}{' (latest)' if listener.follow == 'latest' else ''}"


def show_runs(db: Database) -> None:
    """The last fit of each model, one that runs now first; nothing where there were none."""
    rows = [
        (
            fit.identifier, fit.version, fit.ended, f"{fit.step}/{fit.max_steps}",
            "-" if fit.loss is None else f"{fit.loss:.4f}", f"{fit.seconds:,.0f} s", fit.error or "",
        )
        for fit in sorted(db.fits(), key=lambda fit: not fit.is_alive)
    ]  # fmt: skip
    if rows:
        click.echo(f"Fits ({len(rows)})")
        click.echo(table(("model", "run", "state", "step", "loss", "time", "error"), rows))
        click.echo()


def show_usage(usage: Sequence[UsageRow]) -> None:
    """What the calls of the last days cost, today's included; nothing where there were none."""
    first = utc_day(time.time() - (USAGE_DAYS - 1) * 86_400)
    if recent := [row for row in usage if row.day >= first]:
        click.echo(f"\nUsage (last {USAGE_DAYS} days)")
        click.echo(usage_table(recent))


def usage_table(usage: Sequence[UsageRow]) -> str:
    header = ("day", "model", "output", "calls", "failed", "retried", "input tokens", "output tokens", "cost")
    rows = [
        (
            row.day, row.model, row.output or "-", row.calls, row.failed, row.retried, row.input_tokens,
            row.output_tokens, f"${row.cost:.4f}" if row.cost else "-",
        )
        for row in usage
    ]  # fmt: skip
    return table(header, rows)
