"""Which rows a fit reads, on every database: fields, folds, validation sets, transforms, conditions."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

import pytest
import sqlalchemy as sa
from bson import Int64, ObjectId
from sqlalchemy import orm

from pinnacle import ConfigError, Dataset, Listener, TrainingError, UnsupportedQuery
from pinnacle.backends.mongodb import Collection
from pinnacle.backends.protocol import Capability
from tests.contract.documents import snapshot
from tests.contract.lines import DONE, create_points, expected, fit, kept, matching, points
from tests.contract.trainable import AT_STEP, Line
from tests.models import shout

pytestmark = [pytest.mark.usefixtures("cache_dir"), pytest.mark.same_standalone]

FOLDS = ("train", "valid", "train", "test", "train", "train", None, "valid")
SHAPES = {
    "field": "sample", "tuple": ("x", "y"), "list": ["x", "y"], "dict": {"target": "y", "input": "x"},
    "dotted path": ("meta.x", "y"),
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_X_names_fields_in_every_shape(backend, db, shape):
    create_points(backend)
    line = Line("line")
    run = fit(backend, db, line, shape)
    assert line.line() == expected(points())
    assert db.load("run", "line").X == run.X == (list(shape) if isinstance(shape, tuple) else shape)
    assert (run.rows, run.left_out) == ({"train": 8}, {})


def test_rows_that_the_model_cannot_use_are_counted(backend, db):
    odd = [{**points(1)[0], **lacking} for lacking in ({"x": None}, {"y": None})]
    create_points(backend, [*points(), *odd])
    line = Line("line")
    run = fit(backend, db, line)
    assert (run.rows, run.left_out) == ({"train": 8}, {"not two numbers": 2})
    assert line.line() == expected(points())


# -- folds and validation sets -----------------------------------------------------------------------


def test_folds_say_what_rows_are_for(backend, db):
    create_points(backend, folds=FOLDS)
    line = Line("line")
    run = fit(backend, db, line)
    assert run.rows == {"train": 4, "valid": 2}
    assert run.left_out == {"of fold 'test'": 1, "of fold None": 1}
    assert set(run.metrics) == {"loss", "eval_valid_loss"}
    trained = [row for row, fold in zip(points(), FOLDS, strict=True) if fold == "train"]
    assert line.line() == expected(trained)


def test_a_validation_set_is_evaluated_and_not_trained_on(backend, db):
    create_points(backend, points(12))
    line = Line("line")
    some = Dataset("held out", select=matching(backend, x=0.0))
    run = fit(backend, db, line, select=matching(backend, x=0.5), validation_sets=[some], metrics=["exact_match"])
    assert run.rows == {"train": 7, "held out": 5}
    assert set(run.metrics) == {"loss", "eval_held out_loss", "eval_held out_exact_match"}
    slope, offset = line.line()
    by_hand = [(slope * row["x"] + offset - row["y"]) ** 2 for row in points(5)]
    assert run.metrics["eval_held out_loss"] == pytest.approx(sum(by_hand) / 5, rel=1e-9)
    assert line.line() == expected(points(7))


def test_a_validation_set_may_read_other_fields(backend, db):
    create_points(backend)
    run = fit(backend, db, validation_sets=[Dataset("valid", select=backend.query("points"), X=("meta.x", "y"))])
    assert run.rows == {"train": 8, "valid": 8}


def test_a_validation_set_of_another_table_is_read(backend, db):
    create_points(backend)
    create_points(backend, points(3), table="others")
    run = fit(backend, db, validation_sets=[Dataset("valid", select=backend.query("others"))])
    assert run.rows == {"train": 8, "valid": 3}


def test_a_named_validation_set_stands_in_for_the_fold(backend, db):
    create_points(backend, folds=FOLDS)
    run = fit(backend, db, validation_sets=[Dataset("valid", select=backend.query("points"))])
    assert run.rows == {"train": 4, "valid": 8}


# -- datasets at rest --------------------------------------------------------------------------------


def test_a_stored_dataset_is_loaded_and_used(backend, db):
    create_points(backend)
    made = Dataset("small", select=matching(backend, x=0.0))
    assert db.add(made).version == 0
    with backend.open() as other:
        loaded = other.load("dataset", "small")
        run = fit(backend, other, validation_sets=[loaded])
    assert (loaded.version, run.rows) == (0, {"train": 8, "small": 5})
    assert run.call == fit(backend, db, validation_sets=[made]).call
    backend.insert("points", {"x": -3.0, "y": -5.0, "sample": "", "meta": {}, "n": 9})
    assert fit(backend, db, validation_sets=[loaded]).rows == {"train": 9, "small": 6}


def test_a_stored_dataset_keeps_its_fields_and_is_versioned(backend, db):
    create_points(backend)
    query = backend.query("points")
    for _ in range(2):
        assert db.add(Dataset("all", select=query, X=["meta.x", "y"])).version == 0
    assert db.add(Dataset("all", select=query, X=("x", "y"))).version == 1
    assert db.add(Dataset("all", select=matching(backend, x=0.0), X=("x", "y"))).version == 2
    assert db.replace(Dataset("all", select=query)).version == 3
    assert db.load("dataset", "all", 0).X == ["meta.x", "y"]
    assert db.add(db.load("dataset", "all", 0)).version == 4
    run = fit(backend, db, validation_sets=[db.load("dataset", "all", 2)])
    assert run.rows == {"train": 8, "all": 5}


def test_a_dataset_that_cannot_be_read_is_not_stored(backend, db):
    create_points(backend)
    before = snapshot(backend)
    for wrong in ({"select": backend.query("points"), "X": "z"}, {"select": "points"}, {"select": 7}):
        with pytest.raises(ConfigError):
            db.add(Dataset("wrong", **wrong))
    assert snapshot(backend) == before


# -- transforms --------------------------------------------------------------------------------------


def doubled(row):
    """The point with twice its y; None for points left of 0."""
    return {"x": row["x"], "y": 2 * row["y"]} if row["x"] >= 0 else None


def test_a_transform_makes_of_rows_what_is_trained_on(backend, db):
    create_points(backend)
    line = Line("line")
    run = fit(backend, db, line, transform=doubled)
    assert (run.rows, run.left_out) == ({"train": 4}, {"left out by transform": 4})
    assert line.line() == expected([{**row, "y": 2 * row["y"]} for row in points() if row["x"] >= 0])


def test_a_transform_gets_the_arguments_of_a_dict_and_validation_rows_too(backend, db):
    create_points(backend, folds=FOLDS)
    seen = []

    def told(row):
        seen.append(sorted(row))
        return f"{row['input']} {Decimal(row['target'])}"

    run = fit(backend, db, X={"input": "x", "target": "y"}, transform=told)
    assert run.rows == {"train": 4, "valid": 2}
    assert seen == [["input", "target"]] * 6


@pytest.mark.parametrize("folds", [(), ["train"] * 8], ids=["no folds", "folds"])
def test_a_dict_of_one_field_gives_the_whole_field(backend, db, folds):
    create_points(backend, folds=folds)
    line = Line("line")
    assert fit(backend, db, line, X={"point": "sample"}, transform=lambda row: row["point"]).rows == {"train": 8}
    assert line.line() == expected(points())


@pytest.mark.requires(Capability.SQL)
def test_columns_name_fields(backend, db):
    create_points(backend)
    columns, line = backend.entity("points").c, Line("line")
    assert fit(backend, db, line, X=(columns.x, columns.y)).X == ["x", "y"]
    assert line.line() == expected(points())


def test_a_transform_that_leaves_nothing_is_a_training_error_with_the_reason(backend, db):
    create_points(backend)
    with pytest.raises(TrainingError, match="8 left out by transform"):
        fit(backend, db, transform=lambda row: None)
    assert ("run", "line") not in kept(db)


def test_a_transform_that_fails_says_on_which_row(backend, db):
    create_points(backend)
    with pytest.raises(TrainingError, match=r"row of key 5: ZeroDivisionError") as raised:
        fit(backend, db, transform=lambda row: {**row, "x": 1 / row["x"]})
    assert isinstance(raised.value.__cause__, ZeroDivisionError)
    assert ("run", "line") not in kept(db)
    fit(backend, db)


# -- queries -----------------------------------------------------------------------------------------


def test_a_condition_chooses_the_rows(backend, db):
    create_points(backend)
    line = Line("line")
    assert fit(backend, db, line, select=matching(backend, x=0.25, n=4)).rows == {"train": 5}
    assert line.line() == expected(points(5))


@pytest.mark.requires(Capability.SQL)
def test_a_limit_chooses_the_rows_and_is_told_with_its_number(backend, db):
    create_points(backend)
    table = backend.entity("points")
    line = Line("line")
    first = backend.query("points").order_by(table.c.n).limit(5)
    run = fit(backend, db, line, select=first)
    assert (run.rows, line.line()) == ({"train": 5}, expected(points(5)))
    other = fit(backend, db, select=backend.query("points").order_by(table.c.n).limit(6))
    assert (other.rows, other.query == run.query) == ({"train": 6}, False)
    db.add(Dataset("last", select=backend.query("points").order_by(table.c.n.desc()).limit(2)))
    assert fit(backend, db, validation_sets=[db.load("dataset", "last")]).rows == {"train": 8, "last": 2}


class Base(orm.DeclarativeBase):
    pass


class Point(Base):
    """A mapped class whose attributes have names of their own."""

    __tablename__ = "points"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    across: orm.Mapped[float] = orm.mapped_column("x")
    up: orm.Mapped[float] = orm.mapped_column("y")


@pytest.mark.requires(Capability.SQL)
def test_mapped_attributes_are_fields_also_of_a_stored_dataset(backend, db):
    create_points(backend)
    db.add(Dataset("left", select=sa.select(Point).where(Point.across < 0), X=(Point.across, Point.up)))
    db.add(Dataset("right", select=sa.select(Point).where(Point.across > 0)))
    seen = set()
    run = fit(
        backend, db, Line("line"), (Point.across, Point.up), select=sa.select(Point),
        validation_sets=[db.load("dataset", "left"), db.load("dataset", "right")],
        transform=lambda row: (seen.add(tuple(row)), row)[1],
    )  # fmt: skip
    assert run.rows == {"train": 8, "left": 4, "right": 3}
    assert seen == {("across", "up"), ("x", "y")}


# -- parts of a find() -------------------------------------------------------------------------------

DOCS = Collection("points").find()
SHUFFLED = [
    {**row, "id": key, "kind": row["n"] % 2} for row, key in zip(points(), [5, 8, 3, 1, 7, 2, 6, 4], strict=True)
]
WINDOWS = {
    "limit": (DOCS.limit(3), [3, 5, 2]),
    "skip": (DOCS.skip(6), [4, 1]),
    "nothing": (DOCS.sort("n", -1).skip(0).limit(0), [3, 5, 2, 7, 0, 6, 4, 1]),
    "more than there are": (DOCS.skip(7).limit(9), [1]),
    "sort": (DOCS.sort("n", -1).skip(1).limit(3), [5, 6, 4]),
    "sort without limit": (DOCS.sort("n", -1).skip(5), [2, 0, 1]),
    "ties": (DOCS.sort("kind", -1).limit(2), [3, 5]),
    "ties after skip": (DOCS.sort("kind").skip(1).limit(2), [0, 6]),
    "several": (DOCS.sort([("kind", 1), ("_id", -1)]).limit(2), [6, 4]),
    "nested": (DOCS.sort("meta.x").limit(2), [0, 1]),
    "missing": (DOCS.sort([("nothing.at.all", 1), ("n", -1)]).limit(2), [7, 6]),
    "filter": (Collection("points").find({"n": {"$gte": 5}}).limit(2), [5, 7]),
}
"""Queries for points, and the numbers of those that they are for, in the order of their keys."""


def numbers(backend, db, select, **options):
    """The numbers of the points that a fit reads."""
    seen = []
    fit(backend, db, X="n", select=select, transform=lambda row: (seen.append(row["n"]), "1 1")[1], **options)
    return seen


@pytest.mark.requires(Capability.DOCUMENTS)
def test_skip_and_limit_choose_documents_and_ties_go_by_id(backend, db):
    create_points(backend, SHUFFLED)
    found = {name: numbers(backend, db, select) for name, (select, _) in WINDOWS.items()}
    assert found == {name: chosen for name, (_, chosen) in WINDOWS.items()}


@pytest.mark.requires(Capability.DOCUMENTS)
def test_sort_skip_and_limit_are_told_and_stored(backend, db):
    create_points(backend)
    line = Line("line")
    run = fit(backend, db, line, select=DOCS.sort("n", -1).skip(1).limit(5))
    assert (run.rows, line.line()) == ({"train": 5}, expected(points()[2:7]))
    told = db.load("run", "line").query["train"]
    assert (told["sort"], told["skip"], told["limit"]) == ([["n", -1]], 1, 5)
    assert fit(backend, db, select=told).call == run.call
    assert fit(backend, db, select=DOCS.sort("n", -1).skip(1).limit(4)).query["train"] == {**told, "limit": 4}
    last = Dataset("last", select=matching(backend, n=6).sort("n", -1).limit(2))
    assert fit(backend, db, validation_sets=[last]).rows == {"train": 8, "last": 2}
    db.add(last)
    with backend.open() as other:
        loaded = other.load("dataset", "last")
        backend.delete("points", 7)
        backend.insert("points", {**points()[0], "n": 5, "x": 9.0, "y": 7.0})
        line = Line("line")
        run = fit(backend, other, line, select=loaded.select, validation_sets=[loaded])
        assert run.rows == {"train": 2, "last": 2}
        assert line.line() == expected([points()[5], {**points()[0], "x": 9.0, "y": 7.0}])


@pytest.mark.requires(Capability.DOCUMENTS)
def test_documents_in_a_window_have_folds_and_transforms(backend, db):
    create_points(backend, folds=FOLDS)
    line = Line("line")
    some = DOCS.sort("meta.x", -1).limit(6)
    run = fit(
        backend, db, line, ("meta.x", "y"), select=some, transform=lambda row: {"x": row["meta.x"], "y": row["y"]}
    )
    assert (run.rows, run.left_out) == ({"train": 3, "valid": 1}, {"of fold 'test'": 1, "of fold None": 1})
    assert line.line() == expected([points()[i] for i in (2, 4, 5)])


@pytest.mark.requires(Capability.DOCUMENTS)
def test_documents_of_any_id_are_in_a_window(backend, db):
    keys = [
        5, 2.5, Int64(2**40), "x", "X", ObjectId(), {"a": 1, "b": "y"}, {"a": 2}, datetime(2026, 1, 1), True,
        b"\x00\x01", -7,
    ]  # fmt: skip
    create_points(backend, [{**points()[0], "id": key, "n": n} for n, key in enumerate(keys)])
    assert sorted(numbers(backend, db, DOCS.sort("n", -1).limit(11))) == list(range(1, 12))
    assert sorted(numbers(backend, db, DOCS.limit(9))) == [0, 1, 2, 3, 4, 6, 7, 10, 11]


@pytest.mark.requires(Capability.DOCUMENTS)
def test_a_window_is_of_the_beginning_and_its_documents_are_as_they_are_read(backend, db):
    create_points(backend, [{**points()[0], "n": n} for n in range(1_205)])
    seen = []

    def told(row):
        if not seen:
            backend.insert("points", {**points()[0], "n": 9_000})
            for key in (1_101, 1_205):
                backend.delete("points", key)
            backend.update("points", 1_102, {"n": -1})
        seen.append(row["n"])
        return "1 1"

    fit(backend, db, X="n", select=DOCS.sort("n", -1).limit(1_203), transform=told)
    assert seen == [*range(2, 1_100), -1, *range(1_102, 1_204)]


@pytest.mark.requires(Capability.DOCUMENTS)
def test_a_fit_of_a_window_is_gone_on_with_where_its_documents_are_the_same(backend, db):
    create_points(backend)
    some = DOCS.sort("n", -1).limit(5)
    AT_STEP[6] = lambda job: job.no_such_name
    with pytest.raises(AttributeError):
        fit(backend, db, select=some)
    AT_STEP.clear()
    failed = db.load("run", "line")
    backend.insert("points", {**points()[0], "n": -1})
    line = Line("line")
    run = fit(backend, db, line, select=some)
    assert (run.resumed, run.fingerprint, line.line()) == (1, failed.fingerprint, expected(points()[3:]))


@pytest.mark.requires(Capability.DOCUMENTS)
@pytest.mark.parametrize("part", [DOCS.sort("n").limit(5), DOCS.skip(1)], ids=["limit", "skip"])
def test_outputs_are_not_kept_in_a_window(backend, db, part, below):
    create_points(backend)
    before = backend.read_all("points")
    asks = [
        lambda: shout.predict(X="sample", db=db, select=part),
        lambda: shout.predict(X="sample", db=db, select=part, dry_run=True),
        lambda: db.plan(shout, X="sample", select=part),
        lambda: db.add(Listener(model=shout, key="sample", select=part)),
        lambda: db.plan(Listener(model=shout, key="sample", select=part)),
    ]
    for ask in asks:
        with pytest.raises(UnsupportedQuery, match=r"skip\(\) and limit\(\) .* pass limit= to predict"):
            ask()
    assert (backend.read_all("points"), db.listeners(), below.outputs.all()) == (before, [], [])


# -- pages and empty queries -------------------------------------------------------------------------


def test_rows_are_read_again_for_each_fit_and_beyond_a_page(backend, db):
    create_points(backend, [{**points()[i % 8], "n": i} for i in range(1_203)])
    line = Line("line")
    assert fit(backend, db, line, select=matching(backend, n=1_100)).rows == {"train": 1_101}
    assert fit(backend, db, line).rows == {"train": 1_203}


@pytest.mark.parametrize("how", ["no rows", "no rows match", "none of the fold"])
def test_a_query_without_rows_is_a_training_error_and_leaves_no_run(backend, db, how, below):
    if how == "none of the fold":
        create_points(backend, points(1), folds=["valid"])
    else:
        create_points(backend, points(2))
    if how == "no rows":
        for key in (1, 2):
            backend.delete("points", key)
    reason = r"1 of fold 'valid'\); rows whose _fold is 'train'" if how == "none of the fold" else r"it has none\)"
    with pytest.raises(TrainingError, match=rf"no row of the query can be trained on \({reason}"):
        fit(backend, db, select=matching(backend, x=-9.0) if how == "no rows match" else None)
    assert kept(db) == {}
    assert below.runs.leased() == {}
    backend.insert("points", {**points()[0], "_fold": "train"} if how == "none of the fold" else points()[0])
    fit(backend, db)
    assert kept(db) == DONE
