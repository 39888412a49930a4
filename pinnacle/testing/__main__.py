"""`python -m pinnacle.testing`: the fake server, until its standard input closes or it is told to stop."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType
from typing import Any

import click

from pinnacle.base.errors import PinnacleError
from pinnacle.testing.faults import Faults
from pinnacle.testing.process import parse_faults


def read_rate(context: click.Context, option: click.Parameter, value: str | None) -> tuple[int, float] | None:
    if value is None:
        return None
    count, _, seconds = value.partition("/")
    try:
        return int(count), float(seconds or 1)
    except ValueError:
        raise click.BadParameter("say N/SECONDS, such as 20/1") from None


def read_faults(context: click.Context, option: click.Parameter, value: str) -> Any:
    try:
        return parse_faults(value)
    except ValueError:
        raise click.BadParameter("say chances, 429=0.1,500=0.02, or kinds in turn, 429,none,500") from None


@click.command(context_settings={"max_content_width": 100})
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="0 finds a free one.")
@click.option("--latency", type=click.FloatRange(min=0), default=0.0, help="Seconds an answer takes.")
@click.option("--answer", help="Say this (default: the last user message, reversed).")
@click.option("--rate", callback=read_rate, help="N/SECONDS in a sliding window; 429 beyond it.")
@click.option("--headers/--no-headers", default=True, help="Tell the limit in x-ratelimit-* and Retry-After.")
@click.option("--faults", callback=read_faults, default="", help="429=0.1,hang=0.01 or, in turn, 429,none,500.")
@click.option("--seed", type=int, default=0, help="Of the chances.")
@click.option("--retry-after", type=click.FloatRange(min=0), help="Seconds that a fault's 429 asks for.")
@click.option("--slow", type=click.FloatRange(min=0), default=1.0, help="Seconds a slow body takes.")
@click.option("--api-key", help="Answer other keys with 401.")
@click.option("--batch-polls", type=click.IntRange(min=0), default=1, help="Looks until a batch is completed.")
def main(
    faults: Any, seed: int, retry_after: float | None, slow: float, rate: Any, latency: float, **options: Any
) -> None:
    """Serve OpenAI's API on 127.0.0.1, with faults; the first line printed is the URL.

    GET /stats tells what was served. Ends when standard input closes, or on SIGTERM.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, leave)
    try:
        from pinnacle.testing.server import FakeOpenAI

        plan = Faults(faults, seed=seed, retry_after_s=retry_after, slow_s=slow)
        server = FakeOpenAI(faults=plan, rate_limit=rate, latency_s=latency, keep_requests=0, **options)
    except PinnacleError as error:
        raise click.ClickException(str(error)) from error
    with server:
        click.echo(server.url)
        sys.stdout.flush()
        if sys.stdin.isatty():
            threading.Event().wait()  # for a signal
        sys.stdin.buffer.read()


def leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(0)


if __name__ == "__main__":
    main()
