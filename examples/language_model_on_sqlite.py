"""Answer every ticket of a table with a language model, under a budget; run again, and only new tickets are asked.

Asks the service at OPENAI_BASE_URL, or a stand-in of its own where that is not set.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack
from pathlib import Path

from sqlalchemy import Column, Integer, MetaData, Table, Text, insert, select

from pinnacle import pinnacle
from pinnacle.ext.llm import OpenAI
from pinnacle.testing import FakeOpenAI

TICKETS = ["The printer is on fire", "I forgot my password", "The printer smokes again"]


def stand_in(request: dict) -> str:
    """What the stand-in answers: one of the two choices."""
    return "hardware" if "printer" in request["messages"][-1]["content"] else "account"


def main() -> None:
    tickets = Table("tickets", MetaData(), Column("id", Integer, primary_key=True), Column("body", Text))
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        address = os.environ.get("OPENAI_BASE_URL") or stack.enter_context(FakeOpenAI(stand_in)).url
        db = stack.enter_context(pinnacle(f"sqlite:///{Path(folder)}/tickets.db"))
        tickets.create(db.engine)
        with db.engine.begin() as connection:
            connection.execute(insert(tickets), [{"body": body} for body in TICKETS])

        team = OpenAI("team", base_url=address, choices=["hardware", "account"], cost=(5e-7, 1.5e-6))
        print("to compute:", db.estimate(team, "body", select(tickets)).calls)
        first = team.predict(X="body", db=db, select=select(tickets), output="team", budget=0.10)
        print(f"first: {first.written} written, {first.requests} requests")

        with db.engine.begin() as connection:
            connection.execute(insert(tickets), [{"body": "My password is wrong"}])
        second = team.predict(X="body", db=db, select=select(tickets), output="team", budget=0.10)
        print(f"second: {second.written} written, {second.fresh} already fresh")
        for body, chosen in db.execute("SELECT body, team FROM tickets"):
            print(f"{chosen:>10}  {body}")
        for row in db.usage():
            print(f"{row.model}: {row.calls} calls, {row.input_tokens} tokens in, ${row.cost:.6f}")


if __name__ == "__main__":
    main()

# Prints:
# to compute: 3
# first: 3 written, 3 requests
# second: 1 written, 3 already fresh
#   hardware  The printer is on fire
#    account  I forgot my password
#   hardware  The printer smokes again
#    account  My password is wrong
# team: 4 calls, 17 tokens in, $0.000015
