"""Commands that work on listeners and rows: the worker, and the verbs by which an operator steers."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from pinnacle.base.told import PlainFormatter, plain
from pinnacle.cli.group import database_command, opened
from pinnacle.cli.metrics import serving
from pinnacle.cli.names import check_model
from pinnacle.cli.numbers import MOST_ROWS, Address, AddressType, Seconds
from pinnacle.cli.tables import table

if TYPE_CHECKING:
    from pinnacle.db import Database


@database_command()
@click.option("--verbose", "-v", is_flag=True, help="Also say what is done, a line a batch, not only what goes wrong.")
@click.option(
    "--metrics", type=AddressType(), metavar="HOST:PORT", help="Serve figures of each listener to Prometheus there."
)
def worker(url: str, verbose: bool, metrics: Address | None) -> None:
    """Keep the outputs of all listeners of a database fresh, until stopped.

    Any number of workers may run on one PostgreSQL or MongoDB and share the work; on one
    SQLite file the second stands by for the first. SIGTERM and Ctrl-C finish what is in
    hand. Modules of your models are imported from the working directory.
    """
    shown = logging.StreamHandler()
    shown.setFormatter(PlainFormatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, handlers=[shown])
    with stopped_by_signals() as stop, opened(url, "pinnacle worker") as db, serving(db, metrics):
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


@database_command()
@click.option("--timeout", type=Seconds(), default=30.0, show_default=True, metavar="SECONDS")
def drain(url: str, timeout: float) -> None:
    """Wait until nothing is pending for any listener that is not paused; exit with 1 where that takes too long."""
    with opened(url) as db:
        db.drain(timeout)
        paused = [listener.identifier for listener in db.listeners() if listener.paused and listener.pending]
    left_out = f", but for what is paused: {plain(', '.join(paused))}" if paused else ""
    click.echo(f"Nothing is pending{left_out}.")


def when_a_worker(db: Database) -> str:
    """Who does what was asked for."""
    return "A worker" if db.workers() else "No worker lives; the next one"


@database_command("LISTENER")
def sweep(url: str, listener: str) -> None:
    """Have a worker compare all rows of a listener with what is recorded of them."""
    with opened(url) as db:
        db.sweep(listener)
        when = when_a_worker(db)
    click.echo(f"{when} compares all rows of {plain(listener)}.")


@database_command("LISTENER")
@click.option("--reason", default="paused by hand", show_default=True, help="What pinnacle status shows.")
def pause(url: str, listener: str, reason: str) -> None:
    """Stop working on a listener; changes are still captured."""
    with opened(url) as db:
        db.pause(listener, reason)
    click.echo(f"Paused {plain(listener)}.")


@database_command("LISTENER")
def resume(url: str, listener: str) -> None:
    """Work on a paused listener again, with a sweep of all its rows."""
    with opened(url) as db:
        db.resume(listener)
        when = when_a_worker(db)
    click.echo(f"{when} goes on with {plain(listener)}.")


@database_command()
@click.option("--model", help="Of one model alone.")
@click.option(
    "--limit", type=click.IntRange(1, MOST_ROWS), default=100, show_default=True, help="So many, the newest first."
)
def errors(url: str, model: str | None, limit: int) -> None:
    """List rows that were set aside, with their errors."""
    with opened(url) as db:
        check_model(db, model)
        found = db.errors(model, limit=limit)
    rows = [(e.output, repr(e.key), e.model, e.version, e.attempts, f"{e.error}: {e.message}") for e in found]
    click.echo(table(("output", "key", "model", "version", "attempts", "error"), rows))


@database_command()
@click.option("--model", help="Of one model alone.")
def retry(url: str, model: str | None) -> None:
    """Compute rows that were set aside again.

    Exits with 1 where some fail again. Modules of your models are imported from the working directory.
    """
    with opened(url) as db:
        check_model(db, model)
        results = db.retry_errors(model)
    for result in results:
        click.echo(plain(str(result).replace("\n ", ";")))
    if not results:
        click.echo("No rows are set aside.")
    if any(result.failed for result in results):
        raise click.exceptions.Exit(1)
