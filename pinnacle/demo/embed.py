"""The demo's long job, as a process of its own: ``python -m pinnacle.demo.embed PATH``.

It knows the database and the model's name, and nothing else: the model comes out of
the database. The demo kills this process half-way.
"""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path

from sqlalchemy import select

from pinnacle.db import pinnacle
from pinnacle.demo.models import Doc


def main(path: Path) -> None:
    with closing(pinnacle(f"sqlite:///{path}")) as db:
        db.load("model", "minilm").predict(X="summary", db=db, select=select(Doc), output="embedding")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
