"""Document: plain Python out of it, and the outputs in it."""

from __future__ import annotations

import copy
import pickle
from datetime import UTC, datetime

import bson
import numpy as np
import pytest
from bson.binary import Binary
from hypothesis import given
from hypothesis import strategies as st

from pinnacle.base.document import (
    MISSING,
    Document,
    StoredAt,
    default_output_path,
    escape_name,
    fields_of,
    value_at,
)
from pinnacle.base.errors import ConfigError
from pinnacle.base.types import Datetime, vector_bytes


def test_a_document_is_a_dict():
    document = Document({"a": 1})
    document["b"] = 2
    assert document == {"a": 1, "b": 2}
    assert isinstance(document, dict)
    assert bson.decode(bson.encode(document)) == {"a": 1, "b": 2}


def test_unpack_is_a_deep_plain_copy_of_everything():
    inner = {"list": [1, {"x": bson.Int64(5)}]}
    document = Document({"_id": 7, "inner": Document(inner), "_outputs": {"a": {"m": "out"}}})
    plain = document.unpack()
    assert plain == {"_id": 7, "inner": {"list": [1, {"x": 5}]}, "_outputs": {"a": {"m": "out"}}}
    assert type(plain) is type(plain["inner"]) is dict
    assert type(plain["inner"]["list"][1]["x"]) is int
    plain["inner"]["list"].append("more")
    assert document["inner"] == inner


def test_outputs_finds_the_default_place():
    document = Document({"_outputs": {"meta%2Ebody": {"m%241": 3}, "a_b": {"two": "x"}}})
    assert document.outputs("meta.body", "m$1") == 3
    assert document.outputs(("a", "b"), "two") == "x"
    assert document.outputs({"input": "a", "other": "b"}, "two") == "x"


def test_outputs_takes_a_model_as_well_as_its_identifier():
    class Named:
        identifier = "m"

    assert Document({"_outputs": {"q": {"m": 1}}}).outputs("q", Named()) == 1


def test_a_missing_output_is_a_key_error_that_names_it():
    with pytest.raises(KeyError, match="no output of model 'm' on 'q'"):
        Document({"_id": 1, "q": "x"}).outputs("q", "m")


def test_outputs_finds_a_chosen_field_first():
    document = Document(
        {"meta": {"n": 2}, "_outputs": {"q": {"m": 1}}}, locate=lambda fields, model: [StoredAt("meta.n")]
    )
    assert document.outputs("q", "m") == 2
    del document["meta"]
    assert document.outputs("q", "m") == 1


def test_a_vector_comes_back_as_float32():
    array = np.array([0.5, -1.25, 3e-3], dtype=np.float32)
    stored = Binary(vector_bytes(array), 9)
    assert stored.as_vector().data == pytest.approx(array.tolist())
    document = Document({"_outputs": {"q": {"m": stored}}})
    assert document.outputs("q", "m").dtype == np.float32
    assert np.array_equal(document.outputs("q", "m"), array)
    assert document.unpack()["_outputs"]["q"]["m"] == array.tolist()


def test_a_datetime_with_a_time_zone_comes_back_with_one():
    place = StoredAt("at", decode=Datetime(timezone=True).on_mongodb().decode)
    document = Document({"at": datetime(2026, 1, 2)}, locate=lambda fields, model: [place])
    assert document.outputs("q", "m") == datetime(2026, 1, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda d: d.copy(), lambda d: pickle.loads(pickle.dumps(d))]
)
def test_copies_are_documents(duplicate):
    document = Document({"a": [1]})
    assert type(duplicate(document)) is Document
    assert duplicate(document) == document


@pytest.mark.parametrize(
    ("path", "value"),
    [("a", 1), ("b.c", 2), ("l.1.x", 3), ("l.0", 0), ("b.0", "zero"), ("l.x", MISSING), ("l.9", MISSING),
     ("a.b", MISSING), ("no", MISSING), ("n", None), ("n.x", MISSING), ("l.-1", MISSING)],
)  # fmt: skip
def test_a_path_leads_to_exactly_one_value(path, value):
    document = {"a": 1, "b": {"c": 2, "0": "zero"}, "l": [0, {"x": 3}], "n": None}
    assert value_at(document, path) is value or value_at(document, path) == value


@given(st.text(min_size=1), st.text(min_size=1))
def test_names_are_escaped_without_collision(one, other):
    assert (escape_name(one) == escape_name(other)) == (one == other)
    assert not set(escape_name(one)) & set(".$\x00")


@given(st.text(min_size=1), st.text(min_size=1))
def test_a_default_path_has_three_parts(field, model):
    assert len(default_output_path(fields_of(field), model).split(".")) == 3


def test_an_empty_name_is_refused():
    with pytest.raises(ConfigError):
        default_output_path(fields_of("q"), "")
