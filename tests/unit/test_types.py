"""Output types: what fits, what does not, and what annotations mean."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
from datetime import UTC, datetime
from fractions import Fraction
from importlib.metadata import EntryPoint
from types import SimpleNamespace
from typing import Annotated, Any, Optional, TypedDict, Union

import numpy as np
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinnacle import ConfigError, OutputTypeMismatch
from pinnacle.base.types import (
    Boolean,
    Bytes,
    Datetime,
    Float,
    Integer,
    Items,
    Json,
    OutputType,
    Text,
    Vector,
    dump_json,
    output_type_from_json,
    output_type_of,
    registry,
)

EVERY: list[OutputType] = [
    Text(),
    Integer(),
    Float(),
    Boolean(),
    Bytes(),
    Datetime(),
    Datetime(timezone=True),
    Json(),
    Vector(3),
]


class Item(pydantic.BaseModel):
    name: str


@dataclasses.dataclass
class Pair:
    a: int
    b: list[int]


@pytest.mark.parametrize(
    ("annotation", "meant"),
    [
        (str, Text()),
        (int, Integer()),
        (float, Float()),
        (bool, Boolean()),
        (bytes, Bytes()),
        (datetime, Datetime()),
        (dict, Json()),
        (list, Json()),
        (dict[str, int], Json()),
        (list[float], Json()),
        (Item, Json()),
        (Pair, Json()),
        (str | None, Text()),
        (Optional[int], Integer()),  # noqa: UP045
        (Union[None, bool], Boolean()),  # noqa: UP007
        (Annotated[str, "a title"], Text()),
        (Annotated[list[float], Vector(3)], Vector(3)),
        (Vector(7), Vector(7)),
        ("str", Text()),
        (list[int] | None, Json()),
    ],
    ids=str,
)
def test_an_annotation_means_an_output_type(annotation, meant):
    assert output_type_of(annotation) == meant


class Movie(TypedDict):
    title: str


@pytest.mark.parametrize(
    "annotation", [None, Any, object, complex, str | int, set, tuple, "vector", type(None), 7], ids=str
)
def test_what_no_column_holds_is_refused_naming_what_one_does(annotation):
    with pytest.raises(ConfigError, match=r"annotate what it returns.* str, int, .* dict, list, a Pydantic model"):
        output_type_of(annotation)


def test_an_entry_point_has_the_name_of_its_type(monkeypatch):
    points = [EntryPoint("vectors", "pinnacle.base.types.vector:Vector", registry.GROUP)]
    monkeypatch.setattr(registry, "entry_points", lambda group: points)
    monkeypatch.setattr(registry, "_installed", registry._installed.__wrapped__)
    with pytest.raises(ConfigError, match=r"calls itself 'vector', and its entry point .* calls it 'vectors'"):
        output_type_of("amounts")


@pytest.mark.parametrize("kind", EVERY, ids=str)
def test_a_type_survives_being_stored(kind):
    assert output_type_from_json(kind.to_json()) == kind
    assert type(output_type_from_json(kind.to_json())) is type(kind)


@pytest.mark.parametrize("dim", [0, -1, 1.5, True, "3", None])
def test_a_vector_has_a_positive_whole_number_of_numbers(dim):
    with pytest.raises(ConfigError):
        Vector(dim)


def is_misfit(kind: OutputType, value: Any) -> bool:
    """What `check` and `check_all` agree on."""
    try:
        kind.check(value)
        alone = False
    except OutputTypeMismatch:
        alone = True
    _, misfits = kind.check_all([value])
    assert (0 in misfits) == alone
    return alone


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.binary(),
    st.datetimes(),
    st.datetimes(timezones=st.just(UTC)),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=2), st.floats(), max_size=2),
)


@given(scalars.filter(lambda value: value is not None))
def test_no_value_fits_two_types_but_an_int_that_is_exact_as_a_float(value):
    fitting = [kind for kind in EVERY if not is_misfit(kind, value)]
    if type(value) is int and fitting:
        assert set(fitting) <= {Integer(), Float()}
    elif isinstance(value, list) and fitting:
        assert set(fitting) <= {Json(), Vector(3)}
    else:
        assert len(fitting) <= 1


@pytest.mark.parametrize("kind", EVERY, ids=str)
@given(values=st.lists(scalars, max_size=6))
def test_a_batch_is_checked_as_its_values_are(kind, values):
    checked, misfits = kind.check_all(values)
    assert len(checked) == len(values)
    for position, value in enumerate(values):
        if value is None:
            assert checked[position] is None
        elif position not in misfits:
            assert np.array_equal(checked[position], kind.check(value))
    assert set(misfits) == {i for i, value in enumerate(values) if value is not None and is_misfit(kind, value)}


@given(st.integers())
def test_integers_fit_64_bits(number):
    assert is_misfit(Integer(), number) == (not -(2**63) <= number < 2**63)


@given(st.floats())
def test_floats_are_finite(number):
    assert is_misfit(Float(), number) == (not math.isfinite(number))


@given(st.text())
def test_texts_are_what_utf8_and_databases_take(text):
    encodes = "\x00" not in text and not any("\ud800" <= character <= "\udfff" for character in text)
    assert is_misfit(Text(), text) == (not encodes)


@pytest.mark.parametrize("value", [np.int8(1), np.uint64(2**63 - 1), np.int64(-5)])
def test_numpy_integers_become_pythons(value):
    assert type(Integer().check(value)) is int


@pytest.mark.parametrize("value", [np.bool_(True), np.float64(1), "1", 1.0])
def test_what_is_no_integer_is_refused(value):
    assert is_misfit(Integer(), value)


def test_subclasses_of_str_become_plain_text():
    class Tagged(str):
        pass

    assert type(Text().check(Tagged("x"))) is str


def test_json_is_copied_and_names_the_place_of_what_is_none():
    nested = {"a": [1, {"b": (2, 3)}]}
    checked = Json().check(nested)
    assert checked == {"a": [1, {"b": [2, 3]}]}
    nested["a"].append(4)
    assert checked == {"a": [1, {"b": [2, 3]}]}
    with pytest.raises(OutputTypeMismatch, match=r"\.a\[1\]\.b"):
        Json().check({"a": [1, {"b": object()}]})


def test_json_that_holds_itself_is_a_misfit():
    ring: list[Any] = []
    ring.append(ring)
    assert is_misfit(Json(), ring)


@pytest.mark.parametrize("value", [Item, Pair, 1, "x", None.__class__])
def test_json_is_a_dict_or_a_list(value):
    assert is_misfit(Json(), value)


def test_compact_json_keeps_the_order_of_keys():
    assert dump_json({"b": 1, "a": "é"}) == '{"b":1,"a":"é"}'


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=3, max_size=3))
def test_vectors_become_float32_arrays(numbers):
    checked = Vector(3).check(numbers)
    assert (checked.dtype, checked.shape) == (np.float32, (3,))
    assert checked.tolist() == numbers


@pytest.mark.parametrize(
    "value",
    [
        [1, 2],
        [[1, 2, 3]],
        [1, 2, math.nan],
        [1, 2, 1e39],
        ["1", "2", "3"],
        [True, False, True],
        "abc",
        None.__class__,
        [1, 2, None],
    ],
)
def test_what_is_no_vector_of_that_size_is_refused(value):
    assert is_misfit(Vector(3), value)


class Hostile:
    """Raises whatever is asked of it, as a tensor that needs gradients does."""

    def __array__(self, *args, **kwargs):
        raise RuntimeError("not now")

    def __index__(self):
        raise KeyError

    def model_dump(self, **kwargs):
        raise OSError


@pytest.mark.parametrize("kind", EVERY, ids=str)
def test_a_value_whose_own_code_raises_is_a_misfit(kind):
    _, misfits = kind.check_all([Hostile(), None])
    assert list(misfits) == [0]


@pytest.mark.parametrize("value", [np.array([1, 2]), np.array([]), np.array(1.5)])
def test_an_array_is_no_integer(value):
    assert list(Integer().check_all([value])[1]) == [0]


def test_an_error_shows_types_and_not_values():
    with pytest.raises(OutputTypeMismatch) as caught:
        Integer().check("secret")
    assert "str" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("value", [["a", "b"], ("a",), []])
def test_items_takes_a_list_of_its_item(value):
    assert Items(Text(), many=True).check(value) == list(value)


def test_one_item_is_a_list_of_one():
    assert Items(Integer(), many=False).check(7) == [7]


@pytest.mark.parametrize("value", ["text", ["a", 1], ["a", None], 5])
def test_items_refuses_what_is_no_list_of_its_item(value):
    with pytest.raises(OutputTypeMismatch):
        Items(Text(), many=True).check(value)


@pytest.mark.parametrize("kind", [Items(Text(), many=True), Items(Vector(3), many=False)])
def test_items_come_back_from_json(kind):
    assert output_type_from_json(json.loads(json.dumps(kind.to_json()))) == kind


def test_a_package_brings_a_type_by_an_entry_point(monkeypatch):
    class Ratio(Float):
        """A share of one."""

        name, annotations = "ratio", (Fraction,)

    point = SimpleNamespace(name="ratio", load=lambda: Ratio)
    monkeypatch.setattr(registry, "entry_points", lambda *, group: [point] if group == "pinnacle.types" else [])
    registry._installed.cache_clear()
    try:
        assert output_type_from_json("ratio") == output_type_of(Fraction | None) == output_type_of("ratio") == Ratio()
    finally:
        registry._installed.cache_clear()


def test_describing_a_type_loads_no_database_library():
    script = (
        "import sys; from datetime import datetime; from pinnacle.base.types import *; "
        "kinds = [output_type_of(kind) for kind in (str, int, float, bool, bytes, datetime, dict, Vector(2))]; "
        "[output_type_from_json(kind.to_json()) for kind in kinds]; "
        "print(sorted({'sqlalchemy', 'numpy', 'bson', 'psycopg', 'pgvector'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
