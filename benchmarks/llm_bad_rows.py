"""Rows without an answer, at random, in runs and at the end: they are set aside, and hold nothing else up."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import sqlalchemy as sa

from benchmarks.bad_provider import GOOD, BadProvider, Line, lines
from benchmarks.hosted import outputs_of
from benchmarks.places import connected, docs
from benchmarks.table import Table
from pinnacle import Listener, pinnacle

ROWS, SHARE, LATENCY_S = 2_000, 0.05, 0.05
PLACES, ATTEMPTS, TRIES = 64, 3, 3
SLOWER, DRAIN_S = 1.5, 300.0
LISTENED = ("null content", "400", "500")
EMBEDDED = ("an error in a 200", "400", "500")
HEADINGS = (
    "what bad rows meet", "rows", "right", "wrong", "set aside", "as told", "tries each", "at most", "seconds",
    "of clean", "holds",
)  # fmt: skip
Work = Callable[[Any, Any], None]


@dataclass(frozen=True)
class Found:
    """A table after a run: sound rows that are right, rows that are not, and the errors that are told of bad ones."""

    right: int
    wrong: int
    aside: int
    told: int


def run(*, rows: int = ROWS) -> Iterator[Table]:
    all_lines = {line.name: line for line in lines(ATTEMPTS, TRIES)}
    with BadProvider(LATENCY_S) as provider:
        for title, model, work, names in (
            ("a predict", llm, predicted, tuple(all_lines)),
            ("a listener", llm, listened, LISTENED),
            ("batches of texts to embed", embedder, predicted, EMBEDDED),
        ):
            table = Table(f"LLM 3. {rows:,} rows through {title}, {SHARE:.0%} of them bad", HEADINGS)
            aside = Table("", HEADINGS)
            add(aside, "", provider, model(provider), work, PLACES, frozenset(), None, 0.0)  # warm
            for name in names:
                bad = bad_rows(rows, Random(name))
                clean_s = add(aside, "nothing", provider, model(provider), work, rows, frozenset(), None, 0.0)
                add(table, name, provider, model(provider), work, rows, bad, all_lines[name], clean_s)
            table.misses += aside.misses
            table.notes.append(
                f"max_attempts={ATTEMPTS}, max_tries={TRIES}, {PLACES} in flight; a third of the bad rows are "
                "neighbours, and a third the last; a run without bad rows goes before each"
            )
            yield table


def add(
    table: Table, name: str, provider: BadProvider, model: Any, work: Work, rows: int, bad: frozenset[int],
    line: Line | None, clean_s: float,
) -> float:  # fmt: skip
    """One run, as a line of the table; how long it took."""
    provider.say(line or Line("nothing", {"status": 400}, False, 0))
    with table_of(rows, bad) as url, pinnacle(url) as db:
        began = time.perf_counter()
        work(db, model)
        seconds = time.perf_counter() - began
        found = found_in(url, db, rows, bad, line)
        used = sum(row.calls for row in db.usage())
    asked = provider.asked()
    is_chat = model.resolved_output_type().name == "str"
    most = max((count for text, count in asked.items() if text), default=0) if is_chat else 0
    slower = seconds / (clean_s or seconds)
    at_most = line.tries if line is not None and is_chat else 0
    is_billed = not is_chat or used == asked[""]
    holds = found == Found(rows - len(bad), 0, len(bad), len(bad)) and most <= at_most and is_billed
    table.add(
        name, rows, found.right, found.wrong, found.aside, found.told, most or "-", at_most or "-", seconds, slower,
        holds=holds and slower <= SLOWER,
    )  # fmt: skip
    return seconds


def predicted(db: Any, model: Any) -> None:
    model.predict(X="body", db=db, select=sa.select(docs()), output="answer", progress=False)


def listened(db: Any, model: Any) -> None:
    db.add(Listener(model=model, key="body", select=sa.select(docs()), output="answer"))
    db.listen()
    db.drain(DRAIN_S)


def llm(provider: BadProvider) -> Any:
    from pinnacle_openai import OpenAI

    return OpenAI(
        "llm", base_url=provider.url, api_key=new_key(), max_attempts=ATTEMPTS, max_tries=TRIES,
        max_batch_size=PLACES,
    )  # fmt: skip


def embedder(provider: BadProvider) -> Any:
    from pinnacle_openai import OpenAIEmbedding

    return OpenAIEmbedding(
        "embedder", base_url=provider.url, api_key=new_key(), dimensions=8, max_attempts=ATTEMPTS,
        max_tries=TRIES, batch_size=64, max_batch_size=PLACES,
    )  # fmt: skip


def new_key() -> str:
    """A key that no run before had: what an account has learned is its own."""
    return f"key-{next(_numbers)}"


_numbers = itertools.count()


def bad_rows(rows: int, random: Random) -> frozenset[int]:
    """Keys of bad rows: a third anywhere, a third neighbours in the middle, a third the last of the table."""
    third = max(1, int(rows * SHARE / 3))
    middle = rows // 2
    anywhere = random.sample(range(1, middle), third)
    return frozenset({*anywhere, *range(middle, middle + third), *range(rows - third + 1, rows + 1)})


@contextmanager
def table_of(rows: int, bad: frozenset[int]) -> Iterator[str]:
    """The URL of an SQLite file with so many rows, of which the text of some begins with "bad"."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as directory:
        url = f"sqlite:///{Path(directory) / 'rows.db'}"
        with connected(url) as connection:
            connection.exec_driver_sql("PRAGMA journal_mode = WAL")
            table = docs()
            table.create(connection)
            texts = [{"body": f"{'bad' if number in bad else 'row'} {number}"} for number in range(1, rows + 1)]
            connection.execute(table.insert(), texts)
        yield url


def found_in(url: str, db: Any, rows: int, bad: frozenset[int], line: Line | None) -> Found:
    outputs = outputs_of(url, "answer")
    sound = [outputs.get(number) for number in range(1, rows + 1) if number not in bad]
    right = sum(output == GOOD or isinstance(output, bytes) for output in sound)
    filled = sum(outputs.get(number) is not None for number in bad)
    errors = {error.key: error.message for error in db.errors(limit=rows)}
    told = sum(line is not None and number in bad and line.told in words for number, words in errors.items())
    return Found(right, len(sound) - right + filled, len(errors), told)
