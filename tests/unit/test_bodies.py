"""Field values as JSON and back: every type that can be stored comes back as it was."""

from __future__ import annotations

import json
import math
import uuid
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pinnacle import ComponentError, Vector
from pinnacle.base.types import Datetime, Json, Text
from pinnacle.catalog.bodies import Hooks, Readers, canonical, decode, digest_of, encode


def unexpected(*arguments: Any) -> Any:
    raise AssertionError(f"no hook is expected for {arguments}")


HOOKS = Hooks(unexpected, unexpected, unexpected, unexpected, unexpected)
READERS = Readers(unexpected, unexpected, unexpected, unexpected, unexpected)
ZONES = st.none() | st.just(UTC) | st.integers(-1439, 1439).map(lambda m: timezone(timedelta(minutes=m)))

HASHABLE = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec=None))
    | st.binary(max_size=20)
    | st.datetimes(timezones=ZONES, allow_imaginary=True)
    | st.dates()
    | st.timedeltas()
    | st.decimals(allow_nan=False)
    | st.uuids()
    | st.sampled_from([Vector(3), Text(), Json(), Datetime(timezone=True), Path("a/b")])
)
KEYS = st.text(st.characters(codec=None), max_size=5) | st.sampled_from(["@bytes", "$set", "a.b", "", "@component"])
VALUES = st.recursive(
    HASHABLE,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(KEYS, inner, max_size=4)
        | st.dictionaries(HASHABLE, inner, max_size=4)
        | st.sets(HASHABLE, max_size=4)
        | st.frozensets(HASHABLE, max_size=4)
    ),
    max_leaves=12,
)


def through_json(value: Any) -> Any:
    return decode(json.loads(canonical(encode(value, HOOKS, "field"))), READERS)


def typed(value: Any) -> Any:
    """A form of ``value`` that tells 1 from 1.0 and True, and -0.0 from 0.0."""
    if isinstance(value, dict):
        return {repr(typed(k)): typed(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [type(value).__name__, *map(typed, value)]
    if isinstance(value, (set, frozenset)):
        return [type(value).__name__, *sorted(repr(typed(v)) for v in value)]
    if isinstance(value, datetime):
        return ["datetime", value.replace(tzinfo=None), value.utcoffset(), value.fold]
    return [type(value).__name__, repr(value)]


@given(VALUES)
@settings(max_examples=300, deadline=None)
def test_every_value_comes_back_as_it_was(value):
    assert typed(through_json(value)) == typed(value)


@given(VALUES)
@settings(max_examples=100, deadline=None)
def test_what_is_stored_suits_every_database(value):
    def check(stored: Any) -> None:
        if isinstance(stored, dict):
            for key, item in stored.items():
                assert key
                assert "." not in key
                assert key[0] != "$"
                check(key)
                check(item)
        elif isinstance(stored, list):
            for item in stored:
                check(item)
        elif isinstance(stored, str):
            assert "\x00" not in stored
            stored.encode()
        elif isinstance(stored, int):
            assert -(2**63) <= stored < 2**63
        elif isinstance(stored, float):
            assert math.isfinite(stored)
            assert not (stored.is_integer() and abs(stored) >= 1e15)

    check(encode(value, HOOKS, "field"))


@given(st.dictionaries(st.text(max_size=3), st.integers(), max_size=6))
def test_the_digest_does_not_depend_on_key_order(value):
    backwards = dict(reversed(value.items()))
    assert digest_of(encode(value, HOOKS, "f")) == digest_of(encode(backwards, HOOKS, "f"))


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (1, 1),
        (1.0, 1.0),
        (b"ab", {"@bytes": "YWI="}),
        ((1, "a"), {"@tuple": [1, "a"]}),
        (float("nan"), {"@float": "nan"}),
        (2**70, {"@int": str(2**70)}),
        (date(2024, 1, 2), {"@date": "2024-01-02"}),
        (time(1, 2), {"@time": "01:02:00"}),
        (Decimal("1.50"), {"@decimal": "1.50"}),
        (uuid.UUID(int=1), {"@uuid": str(uuid.UUID(int=1))}),
        (Vector(3), {"@output_type": {"type": "vector", "dim": 3}}),
        ({"a.b": 1}, {"@dict": [["a.b", 1]]}),
    ],
)
def test_how_values_look_at_rest(value, stored):
    assert encode(value, HOOKS, "field") == stored


def test_an_unknown_tag_asks_for_an_upgrade():
    with pytest.raises(ComponentError, match="'@quaternion', which this version"):
        decode({"@quaternion": [1, 2, 3, 4]}, READERS)
