"""Lines fitted to the points of a table, as the tests of fit make them, and all that a fit leaves behind."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mongomock
import sqlalchemy as sa

from pinnacle import Database, Run, pinnacle
from pinnacle.backends.mongodb import Collection
from pinnacle.backends.protocol import Capability
from tests.contract.documents import has
from tests.contract.trainable import Line, LineConfiguration
from tests.databases import DocumentDatabase, UserDatabase

SLOPE, OFFSET = 2.0, 1.0
XY = ("x", "y")
DONE = {
    ("checkpoint", "line/0"): [4, 8, 12],
    ("model", "line"): [0],
    ("run", "line"): [0],
    ("training_configuration", "training"): [0],
}
"""What `kept` gives after one fit as `fit` does it."""


def points(count: int = 8) -> list[dict[str, Any]]:
    """Rows on a line, from x = -1 in steps of 1/4, in several shapes."""
    found = [(x, SLOPE * x + OFFSET) for x in (i / 4 - 1 for i in range(count))]
    return [{"x": x, "y": y, "sample": f"{x} {y}", "meta": {"x": x}, "n": i} for i, (x, y) in enumerate(found)]


def create_points(
    backend: UserDatabase, rows: Sequence[Any] | None = None, *, folds: Sequence[Any] = (), table: str = "points"
) -> list[Any]:
    """A table of points; with ``folds``, one of them in ``_fold`` of each."""
    rows = points() if rows is None else rows
    columns = {"x": float, "y": float, "sample": str, "meta": dict, "n": int}
    backend.create(table, {**columns, "_fold": str} if folds else columns)
    if folds:
        rows = [{**row, "_fold": fold} for row, fold in zip(rows, folds, strict=True)]
    return backend.insert(table, *rows)


def configure(**settings: Any) -> LineConfiguration:
    return LineConfiguration("training", **settings)


def fit(
    backend: UserDatabase, db: Database, line: Line | None = None, X: Any = XY, *, select: Any = None,  # noqa: N803
    configuration: Any = None, **options: Any,
) -> Run:  # fmt: skip
    """Fit a line to the points, by default a new one to all of them."""
    query = backend.query("points") if select is None else select
    configuration = configure() if configuration is None else configuration
    return (line or Line("line")).fit(X=X, select=query, configuration=configuration, db=db, **options)


def expected(rows: Sequence[Any], configuration: LineConfiguration | None = None, **options: Any) -> tuple[float, ...]:
    """The line that an undisturbed fit of these rows learns, somewhere else."""
    client = mongomock.MongoClient()
    backend = DocumentDatabase("mongomock", client["elsewhere"], client["elsewhere"])
    create_points(backend, rows)
    line = Line("line")
    with pinnacle(backend.address) as db:
        fit(backend, db, line, configuration=configuration, **options)
        return line.line()


def matching(backend: UserDatabase, **at_most: Any) -> Any:
    """The query for points whose fields are at most these values."""
    if has(backend, Capability.DOCUMENTS):
        return Collection("points").find({name: {"$lte": value} for name, value in at_most.items()})
    table = backend.entity("points")
    return sa.select(table).where(*(table.c[name] <= value for name, value in at_most.items()))


def kept(db: Database) -> dict[tuple[str, str], list[int]]:
    """The versions of all that is stored."""
    return {pair: [version["version"] for version in db.show(*pair)["versions"]] for pair in db.show()}


def artifacts(backend: UserDatabase) -> set[str]:
    """The artifacts that are in the database."""
    if has(backend, Capability.DOCUMENTS):
        database: Any = backend.database  # type: ignore[attr-defined]
        found = {entry["_id"] for entry in database["pinnacle_artifact"].find()}
        chunks = {chunk["sha256"].partition(":")[0] for chunk in database["pinnacle_artifact_chunk"].find()}
        assert chunks == found
        return found
    schema = "pinnacle" if has(backend, Capability.NATIVE_VECTORS) else None
    names = [
        sa.table(name, sa.column("sha256"), schema=schema) for name in ("pinnacle_artifact", "pinnacle_artifact_chunk")
    ]
    with backend.engine.connect() as connection:  # type: ignore[attr-defined]
        found, chunks = (set(connection.scalars(sa.select(table.c.sha256))) for table in names)
    assert {key.partition(":")[0] for key in chunks} == found
    return found


def used_artifacts(db: Database) -> set[str]:
    """The artifacts that components refer to."""
    records = [version for pair in db.show() for version in db.show(*pair)["versions"]]
    return {sha256 for record in records for sha256 in record["artifacts"]}


def work_folders(cache_dir: Path) -> list[Path]:
    """The folders in which fits work."""
    return list((cache_dir / "training").iterdir()) if (cache_dir / "training").exists() else []


def steps(run: Run, name: str = "loss") -> list[int]:
    """At which steps a value was logged, in the order of the series."""
    return [entry["step"] for entry in run.series() if name in entry]
