"""What a language model costs, beside the tokens that its server counted, and a budget that is not passed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from benchmarks.hosted import KEY, answers, outputs_of, table_of
from benchmarks.places import docs
from benchmarks.table import Table
from pinnacle import pinnacle
from pinnacle.testing import ServerProcess

ROWS, PLACES, LATENCY_S = 1_000, 64, 0.02
PRICE = (5e-7, 1.5e-6)
SHARES = (0.1, 0.4, 0.9)
CLOSE = 1e-12
FAULTS = {"429": 0.03, "500": 0.03}
HEADINGS = (
    "budget", "spent", "over it", "at most", "rows done", "right", "tokens x price", "off by", "in the ledger", "holds",
)  # fmt: skip


def run(*, rows: int = ROWS) -> Iterator[Table]:
    """Over it by at most what the dearest requests cost that can be in flight; some requests fail and are repeated."""
    table = Table(f"LLM 4. {rows:,} rows at ${PRICE[0]:g} and ${PRICE[1]:g} a token, {PLACES} in flight", HEADINGS)
    whole = add(table, rows, None)
    for share in SHARES:
        add(table, rows, share * whole)
    table.notes.append("US dollars; tokens as the server counted them, off by in absolute terms")
    yield table


def add(table: Table, rows: int, budget: float | None) -> float:
    """One predict over a new table; what it cost."""
    with (
        ServerProcess(latency_s=LATENCY_S, faults=FAULTS) as server,
        table_of(rows) as url,
        pinnacle(url) as db,
    ):
        result = priced(server.url).predict(
            X="body", db=db, select=sa.select(docs()), output="answer", progress=False, budget=budget
        )
        stats, ledger = server.stats(), sum(row.cost for row in db.usage())
        found = {key: text for key, text in outputs_of(url, "answer").items() if text is not None}
    expected = answers(rows)
    right = sum(text == expected[key] for key, text in found.items())
    cost = stats["prompt_tokens"] * PRICE[0] + stats["completion_tokens"] * PRICE[1]
    over = 0.0 if budget is None else max(0.0, result.cost - budget)
    in_flight = PLACES * max(len(body.split()) * sum(PRICE) for body in expected.values())
    off = max(abs(result.cost - cost), abs(ledger - cost))
    is_whole = len(found) == rows if budget is None else result.budget_reached
    holds = over <= in_flight and right == len(found) == stats["served"] and off <= CLOSE and is_whole
    table.add(
        "none" if budget is None else f"{budget:.6f}", f"{result.cost:.6f}", f"{over:.6f}", f"{in_flight:.6f}",
        len(found), right, f"{cost:.6f}", f"{off:.1e}", f"{ledger:.6f}", holds=holds,
    )  # fmt: skip
    return float(result.cost)


def priced(address: str) -> Any:
    from pinnacle_openai import OpenAI

    return OpenAI("llm", base_url=address, api_key=KEY, max_batch_size=PLACES, cost=PRICE)
