"""What a model may return: every type is stored exactly and read back equal; what does not fit is that row's error."""

from __future__ import annotations

import dataclasses
import itertools
import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pydantic
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pinnacle import Datetime, Listener, OutputTypeConflict, Vector, model
from tests.contract.documents import blank, create_docs, outputs
from tests.models import note

pytestmark = pytest.mark.same_standalone

numbers = itertools.count()
INDIA = timezone(timedelta(hours=5, minutes=30))


class Point(pydantic.BaseModel):
    x: int
    y: float | None = None


@dataclasses.dataclass
class Span:
    start: int
    words: list[str]


STORED: dict[str, tuple[Any, list[Any]]] = {
    "text": (str, ["", "a", "grüße 🎈", 'it\'s "quoted" %s %(x)s :y ? \\', "x" * 100_000, "line\nbreak\ttab", " "]),
    "integer": (int, [0, -1, 2**31, 2**63 - 1, -(2**63)]),
    "float": (float, [0.0, 0.1, -1.5, 1e308, 5e-324, 2.0**60]),
    "boolean": (bool, [True, False]),
    "bytes": (bytes, [b"", b"\x00\xff", b"\x27\x00abcd", bytes(range(256))]),
    "datetime": (
        datetime,
        [datetime(2026, 1, 2, 3, 4, 5), datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999000)],
    ),
    "aware datetime": (
        Datetime(timezone=True),
        [
            datetime(2026, 1, 2, tzinfo=UTC),
            datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=INDIA),
            datetime(1970, 1, 1, tzinfo=UTC),
        ],
    ),
    "dict": (
        dict,
        [{}, {"a": [1, 2.5, None, True, "x", -1e-300], "b": {"c": {}, "": 0}, "ü": "é", "$set": 1, "a.b": 2}],
    ),
    "list": (list, [[], [1, "a", None, False], [[1], [[2]]], [{"x": []}]]),
}


def answering(values: list[Any], output_type: Any, **options: Any) -> Any:
    """A model that gives the n-th row the n-th value."""
    return model(lambda body: values[int(body)], identifier="answer", output_type=output_type, **options)


def predicted(backend: Any, db: Any, values: list[Any], output_type: Any) -> Any:
    create_docs(backend, *map(str, range(len(values))))
    return answering(values, output_type, retry_delay_s=0).predict(X="body", db=db, select=backend.query("docs"))


@pytest.mark.parametrize("kind", STORED)
def test_a_value_is_read_back_equal_in_value_and_type(backend, db, kind):
    output_type, values = STORED[kind]
    result = predicted(backend, db, values, output_type)
    found = list(outputs(backend, db, "body", "answer").values())
    assert (result.written, result.failed) == (len(values), 0)
    assert found == values
    assert list(map(type, found)) == list(map(type, values))


def test_each_output_reaches_a_listeners_model_as_it_reaches_a_predicts(backend, db, elsewhere, calls):
    """The listener's worker is another handle's: it knows of types what the database keeps of them."""
    kinds = [*STORED.values(), (Vector(3), [[1.0, 2.5, -3.0]])]
    rows, names = max(len(values) for _, values in kinds), tuple(f"out{n}" for n in range(len(kinds)))
    create_docs(backend, *map(str, range(rows)))
    for name, (output_type, values) in zip(names, kinds, strict=True):
        answer = model(
            lambda body, v=values: v[int(body) % len(v)], identifier=f"answer_{name}", output_type=output_type
        )
        answer.predict(X="body", db=db, select=backend.query("docs"), output=name)
    seen = model(lambda *inputs: note([(type(i), repr(i)) for i in inputs]) and "", identifier="seen", output_type=str)
    seen.predict(X=names, db=db, select=backend.query("docs"), output="by_predict")
    db.add(Listener(model=seen, key=names, select=backend.query("docs"), output="by_listener"))
    elsewhere.listen()
    elsewhere.drain(timeout_s=600)
    assert len(calls) == 2 * rows
    assert sorted(map(str, calls[:rows])) == sorted(map(str, calls[rows:]))


def test_a_negative_zero_is_fresh_once_written(backend, db):
    predicted(backend, db, [-0.0], float)
    again = answering([-0.0], float, retry_delay_s=0).predict(X="body", db=db, select=backend.query("docs"))
    assert outputs(backend, db, "body", "answer") == {1: 0.0}
    assert again.fresh == 1


def test_aware_datetimes_come_back_aware(backend, db):
    predicted(backend, db, [datetime(2026, 1, 2, tzinfo=INDIA)], Datetime(timezone=True))
    assert outputs(backend, db, "body", "answer")[1].utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (Point(x=1, y=2.5), {"x": 1, "y": 2.5}),
        (Point(x=2), {"x": 2, "y": None}),
        (Span(1, ["a", "b"]), {"start": 1, "words": ["a", "b"]}),
    ],
)
def test_pydantic_models_and_dataclasses_are_stored_as_their_fields(backend, db, value, stored):
    predicted(backend, db, [value], type(value))
    assert outputs(backend, db, "body", "answer") == {1: stored}


def test_vectors_come_back_as_float32_arrays(backend, db):
    given_as = [[1.0, 2.5, -3.0], (0, 1, 2), np.array([1e-30, 3e38, 0.1]), np.array([1, 2, 3], np.float32)]
    predicted(backend, db, given_as, Vector(3))
    for found, value in zip(outputs(backend, db, "body", "answer").values(), given_as, strict=True):
        assert (found.dtype, found.shape) == (np.float32, (3,))
        assert np.array_equal(found, np.asarray(value, np.float32))


@pytest.mark.parametrize(
    ("output_type", "values"),
    [
        (int, [np.int64(7), np.uint8(8)]),
        (float, [np.float32(0.5), 3]),
        (bool, [np.bool_(True)]),
        (dict, [{"t": (1, 2)}]),
    ],
)
def test_exact_equivalents_are_taken(backend, db, output_type, values):
    expected = [{"t": [1, 2]}] if output_type is dict else [output_type(value) for value in values]
    predicted(backend, db, values, output_type)
    found = list(outputs(backend, db, "body", "answer").values())
    assert found == expected
    assert {type(value) for value in found} == {output_type}


def test_none_is_stored_as_null_and_not_asked_for_again(backend, db):
    predicted(backend, db, [None, "x"], str)
    assert outputs(backend, db, "body", "answer") == {1: None, 2: "x"}
    again = answering([None, "x"], str, retry_delay_s=0).predict(X="body", db=db, select=backend.query("docs"))
    assert (again.calls, again.fresh) == (0, 2)


@pytest.mark.parametrize(
    ("output_type", "good", "bad"),
    [
        (str, "x", [1, b"x", True, "nul\x00", "\ud800", ["x"]]),
        (int, 1, ["1", 1.0, True, 2**63, -(2**63) - 1, np.float64(1)]),
        (float, 1.5, ["1.5", True, math.nan, math.inf, -math.inf, 2**1100, 2**53 + 1]),
        (bool, True, [1, 0, "true", "x"]),
        (bytes, b"x", ["x", bytearray(b"x"), 1]),
        (
            datetime,
            datetime(2026, 1, 1),
            ["2026-01-01", 0, datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1).date()],
        ),
        (Datetime(timezone=True), datetime(2026, 1, 1, tzinfo=UTC), [datetime(2026, 1, 1)]),
        (
            dict,
            {"a": 1},
            [{1: "x"}, {"a": {1, 2}}, {"a": math.nan}, {"a": 2**63}, {"a": "\x00"}, {"\ud800": 1}, "{}", {"a": b"x"}],
        ),
        (
            Vector(2),
            [1, 2],
            [[1], [1, 2, 3], [[1, 2]], [1, math.nan], [1, math.inf], [1, 1e39], ["a", "b"], "ab", [1, [2]], 1],
        ),
    ],
    ids=["text", "integer", "float", "boolean", "bytes", "datetime", "aware datetime", "dict", "vector"],
)
def test_a_value_that_does_not_fit_is_its_rows_error_alone(backend, db, output_type, good, bad):
    values = [good, *bad, good]
    result = predicted(backend, db, values, output_type)
    found = outputs(backend, db, "body", "answer")
    assert (result.written, result.failed) == (2, len(bad))
    assert [np.array_equal(found.pop(key), good) for key in (1, len(values))] == [True, True]
    assert set(found.values()) == {blank(backend)}
    assert {(error.error, error.key) for error in db.errors()} == {("OutputTypeMismatch", key) for key in found}


def test_the_error_of_a_misfit_does_not_show_the_value(backend, db):
    predicted(backend, db, [["my secret"]], str)
    (error,) = db.errors()
    assert "my secret" not in error.message
    assert "list" in error.message


ADOPTED = {str: "x", int: 7, float: 0.5, bool: True, bytes: b"x", dict: {"a": 1}}


@pytest.mark.parametrize("kind", ADOPTED)
def test_an_existing_place_of_the_right_type_is_adopted(backend, db, kind):
    backend.create("docs", {"body": str, "found": kind})
    backend.insert("docs", {"body": "0", "found": None}, {"body": "0", "found": ADOPTED[kind]})
    answering([ADOPTED[kind]], kind).predict(X="body", db=db, select=backend.query("docs"), output="found", adopt=True)
    assert [row["found"] for row in backend.read_all("docs").values()] == [ADOPTED[kind]] * 2
    assert list(outputs(backend, db, "body", "answer").values()) == [ADOPTED[kind]] * 2


OTHERS = [(kind, there) for kind in [*ADOPTED, Datetime()] for there in ADOPTED if kind is not there]
OTHERS += [(Vector(2), there) for there in (str, int, float, bool, dict)]


def test_an_existing_place_of_another_type_is_refused_before_any_call(backend, db, calls):
    for number, (kind, there) in enumerate(OTHERS):
        table = f"docs{number}"
        backend.create(table, {"body": str, "taken": there})
        backend.insert(table, {"body": "0", "taken": ADOPTED[there]})
        before = backend.read_all(table)
        clash = model(lambda body: note(None), identifier=f"clash{number}", output_type=kind)
        with pytest.raises(OutputTypeConflict, match="taken"):
            clash.predict(X="body", db=db, select=backend.query(table), output="taken")
        assert backend.read_all(table) == before
    assert calls == []


# PostgreSQL's JSONB gives floats of 2**53 and more back as integers: its numbers are decimal.
json_numbers = st.integers(-(2**63), 2**63 - 1) | st.floats(-(2.0**53), 2.0**53, allow_nan=False)
json_texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=6)
json_values = st.recursive(
    st.none() | st.booleans() | json_numbers | json_texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(json_texts, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None)
@given(st.lists(st.lists(json_values, max_size=4), min_size=1, max_size=8))
def test_any_json_survives(backend, db, values):
    table = f"docs{next(numbers)}"
    create_docs(backend, *map(str, range(len(values))), table=table)
    answer = answering(values, list)
    answer.predict(X="body", db=db, select=backend.query(table))
    assert list(outputs(backend, db, "body", "answer", table).values()) == values
    assert answer.predict(X="body", db=db, select=backend.query(table)).fresh == len(values)


@model(max_attempts=1)
def nested(text: str) -> list:
    """A list within a list within ..., as deep as the text says; of "itself" one that never ends."""
    made: list = []
    if text == "itself":
        made.append(made)
    else:
        for _ in range(int(text)):
            made = [made]
    return made


@pytest.mark.anywhere
def test_an_output_without_end_costs_its_row_alone(backend, db):
    create_docs(backend, "1", "5000", "itself", "2")
    result = nested.predict(X="body", db=db, select=backend.query("docs"), output="said")
    assert (result.written, result.failed) == (2, 2)
    assert sorted(error.key for error in db.errors()) == [2, 3]
