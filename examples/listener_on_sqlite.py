"""A column that keeps itself fresh: another program writes, and the output follows.

Run: python examples/listener_on_sqlite.py
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from sqlalchemy import Column, Integer, MetaData, Table, Text, create_engine, select

from pinnacle import Listener, model, pinnacle

notes = Table("notes", MetaData(), Column("id", Integer, primary_key=True), Column("body", Text))


@model(max_attempts=1)
def score(body: str) -> int:
    if "?" in body:
        raise ValueError("questions have no score")
    return body.count("!")


def main() -> None:
    path = Path("notes.db")
    path.unlink(missing_ok=True)
    notes.create(create_engine(f"sqlite:///{path}"))
    with pinnacle(f"sqlite:///{path}") as db:
        listener = db.add(Listener(model=score, key="body", select=select(notes), output="score"))
        db.listen()
        with sqlite3.connect(path) as other:
            other.executemany("INSERT INTO notes (body) VALUES (?)", [("good!",), ("really?",), ("wow!!",)])
        db.drain()
        print(db.execute("SELECT body, score FROM notes").all())
        print(f"set aside: {[(error.key, error.message) for error in db.errors()]}")

        with sqlite3.connect(path) as other:
            other.execute("UPDATE notes SET body = 'really!' WHERE id = 2")
        db.drain()
        print(db.execute("SELECT body, score FROM notes WHERE id = 2").all(), db.fresh(listener))


if __name__ == "__main__":
    main()

# Prints:
# [('good!', 1), ('really?', None), ('wow!!', 2)]
# set aside: [(2, 'questions have no score')]
# [('really!', 1)] Freshness(fresh=3, stale=0, missing=0, failed=0)
