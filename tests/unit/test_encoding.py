"""Canonical forms: equal exactly when the values are, and back again."""

from __future__ import annotations

import ipaddress
import json
import math
import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pinnacle import UnsupportedTable
from pinnacle.base.encoding import (
    MAX_NAME_BYTES,
    dump_key,
    dump_keys,
    fingerprint,
    fingerprints,
    load_key,
    load_keys,
    safe_name,
    tag,
)

# What SQLite stores: no NaN, which it turns into NULL.
stored = st.one_of(
    st.none(),
    st.text(max_size=8),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.binary(max_size=8),
    st.sampled_from(["", "n", "i1;", "s1:x", "b1:x", "f0x1.0p+0;", 1, 1.0, "1", b"1", 0, 0.0, -0.0, "\ud800"]),
)


def same(one, other):
    """Equal in type and value; SQLite keeps -0.0 as 0.0."""
    return len(one) == len(other) and all(type(a) is type(b) and a == b for a, b in zip(one, other, strict=True))


@given(stored, stored)
def test_tags_are_equal_exactly_when_type_and_value_are(one, other):
    assert (tag(one) == tag(other)) == same([one], [other])


@given(st.lists(stored, min_size=1, max_size=4), st.lists(stored, min_size=1, max_size=4))
@example(["ab", "c"], ["a", "bc"])
@example([None, "n"], ["nn"])
@example(["x", "y"], ["xs1:y"])
def test_fingerprints_of_rows_are_equal_exactly_when_the_rows_are(one, other):
    if len(one) == len(other):
        assert (fingerprint(one) == fingerprint(other)) == same(one, other)
    else:
        assert fingerprint(one) != fingerprint(other)


@given(st.lists(st.tuples(stored, st.one_of(st.text(max_size=5), stored)), min_size=1, max_size=6))
def test_a_column_of_fingerprints_is_the_fingerprint_of_each_row(rows):
    assert fingerprints(*zip(*rows, strict=True)) == list(map(fingerprint, rows))


@pytest.mark.parametrize("outputs", [["a", "b"], [1, 2], [1.5, None], [b"x", "y"]])
@pytest.mark.parametrize("inputs", [["x", "y"], ["", "\ud800"], [1, "y"], [None, b"z"]])
def test_the_fast_ways_agree_with_the_slow_one(outputs, inputs):
    assert fingerprints(outputs, inputs) == list(map(fingerprint, zip(outputs, inputs, strict=True)))


def test_a_fingerprint_has_16_bytes():
    assert len(fingerprint(["x", 1])) == 16


@pytest.mark.parametrize("value", [object(), {"a": 1}, [1], True])
def test_what_sqlite_does_not_store_has_no_tag(value):
    with pytest.raises(TypeError):
        tag(value)


keys = st.one_of(
    st.integers(),
    st.text(),
    st.floats(allow_nan=False),
    st.booleans(),
    st.uuids(),
    st.binary(max_size=20),
    st.dates(),
    st.times(),
    st.datetimes(),
    # never equal to any of another zone where a clock is put forward or back: not to itself with a fixed offset either
    st.datetimes(timezones=st.timezones()).filter(lambda d: d.utcoffset() == d.replace(fold=1 - d.fold).utcoffset()),
    st.timedeltas(),
    st.decimals(allow_nan=False, allow_infinity=False),
    st.ip_addresses(),
    st.none(),
)


@given(st.one_of(keys, st.tuples(keys, keys), st.tuples(keys, keys, keys)))
@example(ipaddress.ip_interface("10.0.0.1/24"))
@example((1,))
@example({"uuid": "x"}["uuid"])
def test_a_key_survives_being_stored(key):
    again = load_key(dump_key(key))
    assert again == key
    assert type(again) is type(key)
    json.loads(dump_key(key))


@given(st.one_of(st.lists(st.integers(-5, 5)), st.lists(keys, max_size=5), st.lists(st.tuples(keys, keys), max_size=5)))
@example([3, 4, 5, 6])
@example([6, 5, 4])
@example([1, 3, 2, 4])
@example([True, 2])
def test_a_list_of_keys_survives_being_stored(listed):
    again = load_keys(dump_keys(listed))
    assert again == listed
    assert list(map(type, again)) == list(map(type, listed))


@given(st.integers(-(2**62), 2**62), st.integers(1, 10_000))
def test_consecutive_integers_take_little_room(first, count):
    assert len(dump_keys(list(range(first, first + count)))) < 80


@given(keys, keys)
def test_different_keys_have_different_texts(one, other):
    if type(one) is type(other) and one != other:
        assert dump_key(one) != dump_key(other)


@pytest.mark.parametrize("key", [object(), {"a": 1}, (1, [2]), {1}])
def test_a_key_that_cannot_be_stored_is_refused_by_its_type(key):
    with pytest.raises(UnsupportedTable, match="keys of type"):
        dump_key(key)


@given(st.text())
def test_a_safe_name_fits_and_keeps_its_beginning(name):
    safe = safe_name(name)
    assert len(safe.encode("utf-8", "replace")) <= MAX_NAME_BYTES
    assert "\x00" not in safe
    if len(name.encode("utf-8", "replace")) <= MAX_NAME_BYTES:
        assert safe == name.replace("\x00", "_")
    assert safe_name(safe) == safe


@given(
    st.text(string.ascii_letters + "é🎈", min_size=40, max_size=90),
    st.text(string.ascii_letters + "é🎈", min_size=40, max_size=90),
)
def test_names_that_differ_stay_different_when_cut(one, other):
    if one != other:
        assert safe_name(one) != safe_name(other)


def test_long_names_that_differ_at_their_ends_stay_different():
    assert len({safe_name("x" * 70 + end) for end in "abcdefgh"}) == 8


def test_infinite_floats_are_keys_too():
    assert load_key(dump_key(math.inf)) == math.inf
