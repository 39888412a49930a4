"""An answer is found among thoughts, fences, emphasis and prose, where it can be meant only one way."""

from __future__ import annotations

import copy
import datetime as dt
import pickle
import uuid
from decimal import Decimal
from typing import Any, Literal

import pydantic
import pytest
import sqlalchemy as sa

from pinnacle import ConfigError, InvalidAnswer, pinnacle
from pinnacle.components.field_of import column_type
from pinnacle.llm.schemas import answer_form
from tests.llms import llm, recorder

SCHEMA = {"type": "object", "properties": {"mood": {"type": "string"}}, "required": ["mood"]}
OPEN = {"properties": {"mood": {"default": "calm"}}}
BAD = {"mood": "bad"}


class Mood(pydantic.BaseModel):
    mood: str


def read(text: str, schema: Any = SCHEMA, **options: Any) -> Any:
    return answer_form(schema, None, **options).parse(text)


@pytest.mark.parametrize("schema", [SCHEMA, Mood], ids=["dict", "pydantic"])
@pytest.mark.parametrize(
    "text",
    [
        '<think>\nOkay, perhaps {"mood": "good"}?\n</think>\n\n{"mood": "bad"}',
        '<thinking>{"mood": "good"}</thinking>```json\n{"mood": "bad"}\n```',
        'Well, {"mood": "good"}... no.</think>{"mood": "bad"}',
        '[THINK]good[/THINK]{"mood": "bad"}',
        "◁think▷good◁/think▷" + '{"mood": "bad"}',
        '<|channel|>analysis<|message|>good<|end|><|channel|>final<|message|>{"mood": "bad"}<|return|>',
        '<think>good</think><answer>{"mood": "bad"}</answer>',
        'Sure! Here it is: {"mood": "bad"} Hope it helps.',
        'Sure:\n```json\n{"mood": "bad"}\n```\nIn short, [1] {nothing} more.',
        '{"mood": "bad"}</s>',
        'First {"mood": "bad"}, and again {"mood": "bad"}.',
    ],
)
def test_json_is_read_after_thoughts_in_fences_and_among_prose(schema, text):
    assert read(text, schema) == BAD
    with pytest.raises(InvalidAnswer, match="it is not JSON"):
        read(text, schema, is_strict=True)


@pytest.mark.parametrize("text", ['Here: ["a", "b"].', '**["a", "b"]**', 'So:\n```\n["a", "b"]\n```\n[1]'])
def test_a_list_is_read_among_prose(text):
    assert read(text, {"type": "array", "items": {"type": "string"}}) == ["a", "b"]


def test_a_text_that_is_the_answer_is_never_looked_into():
    assert read('{"mood": "</think>{\\"mood\\": \\"good\\"}"}') == {"mood": '</think>{"mood": "good"}'}
    assert read('{"mood": "bad"}', is_strict=True) == BAD


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('Either {"mood": "good"} or {"mood": "bad"}.', "2 answers that differ"),
        ('<think>It is {"mood": "good"}', "thoughts and no answer"),
        ('<think>It is {"mood": "good"}</think>', "thoughts and no answer"),
        ('{"answer": {"mood": "inner"}}', "'mood' is a required property"),
        ('It is {"mood": 7}.', "7 is not of type 'string'"),
        ("[" * 5_000, "not JSON"),
        ("text " + "{" * 5_000, "not JSON"),
        ('{"mood": 1e999}', "not JSON"),
    ],
)
def test_what_may_be_meant_otherwise_is_no_answer(text, told):
    with pytest.raises(InvalidAnswer, match=told):
        read(text)


@pytest.mark.parametrize("text", ["see {} there", 'see {"other": 1}', "see [1] there"])
def test_what_stands_in_prose_by_chance_is_no_answer(text):
    with pytest.raises(InvalidAnswer, match="not JSON"):
        read(text, OPEN)


@pytest.mark.parametrize(
    "text",
    [
        "<think>\nnegative, or positive?\n</think>\n\nnegative", "**Negative**", "Answer: **negative**", "_negative_",
        "Answer:negative",
        "The answer is negative.", "**Sentiment:** negative", "# negative", "- negative", "```\nnegative\n```",
        "It broke, which is not positive.\n\nnegative", 'I say {"choice": "negative"}.', "<answer>negative</answer>",
    ],
)  # fmt: skip
def test_a_choice_is_read_after_thoughts_and_inside_emphasis(text):
    assert answer_form(None, ["positive", "negative", "..."]).parse(text) == "negative"
    with pytest.raises(InvalidAnswer, match="is none of"):
        answer_form(None, ["positive", "negative"], is_strict=True).parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "positive\nnegative", "The answer is not negative", "negative or positive", "not negative", "negative?",
        "hello", "<think>negative", "negative\n\nActually, no.",
        'Either {"choice": "negative"} or {"choice": "positive"}.',
    ],
)  # fmt: skip
def test_a_choice_that_may_be_meant_otherwise_is_none(text):
    with pytest.raises(InvalidAnswer):
        answer_form(None, ["positive", "negative", "..."]).parse(text)


@pytest.mark.parametrize("text", ["a" + "_" * 100_000 + "b", "```" + " " * 100_000 + "b"], ids=["line", "space"])
def test_an_answer_that_goes_on_and_on_is_read_in_one_pass(text):
    """Read again from each of its places, it would take hours, in which nothing else is read."""
    with pytest.raises(InvalidAnswer):
        answer_form(None, ["positive", "negative"]).parse(text)


def test_strictness_is_a_models_own():
    text = "Sure: **spam**"
    with pytest.raises(InvalidAnswer, match="none of"):
        recorder("<think>ham</think>spam", choices=["spam", "ham"], strict_answers=True, max_reasks=0).model.predict(
            "x"
        )
    assert recorder("<think>ham</think>spam", choices=["spam", "ham"]).model.predict("x") == "spam"
    with pytest.raises(ConfigError, match="strict_answers is True or False"):
        recorder(text, strict_answers="yes")


# -- references --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "http://127.0.0.1:9/x"}, {"$ref": "file:///etc/passwd"}, {"$ref": "other.json"}, {"$ref": "//h/x"},
        {"properties": {"a": {"items": [{"$ref": "https://h/x"}]}}}, {"$defs": {"a": {"$dynamicRef": "http://h/x"}}},
        {"anyOf": [{"not": {"$ref": "x#/a"}}]}, {"patternProperties": {"a": {"$recursiveRef": "http://h/x"}}},
        {"$id": "http://h/me", "properties": {"a": {"$ref": "you"}}}, {"dependentSchemas": {"default": {"$ref": "x"}}},
    ],
)  # fmt: skip
def test_a_reference_to_anything_but_the_schema_itself_is_refused_at_construction(schema):
    with pytest.raises(ConfigError, match=r"a schema may refer to its own parts alone"):
        recorder(output_schema=schema)


@pytest.mark.parametrize("target", ["#/$defs/b", "#b", "#/properties/a/b"])
def test_a_reference_to_what_is_not_there_is_refused(target):
    with pytest.raises(ConfigError, match="which it does not hold"):
        recorder(output_schema={"$defs": {"a": {}}, "properties": {"a": {"$ref": target}}})


def test_a_class_may_not_refer_elsewhere_either():
    class Sly(pydantic.BaseModel):
        mood: str = pydantic.Field(json_schema_extra={"$ref": "http://127.0.0.1:9/x"})

    with pytest.raises(ConfigError, match="its own parts alone"):
        recorder(output_schema=Sly)


def test_references_within_a_schema_and_names_that_look_like_one_are_kept():
    schema = {
        "$schema": "http://127.0.0.1:9/draft", "type": "object",
        "$defs": {"m/d": {"$anchor": "mood", "type": "string"}},
        "properties": {"mood": {"$ref": "#/$defs/m~1d"}, "again": {"$ref": "#mood"}, "$ref": {"type": "integer"}},
        "examples": [{"$ref": "http://127.0.0.1:9/x"}], "default": {"$ref": "x"},
    }  # fmt: skip
    assert read('{"mood": "bad", "again": "x", "$ref": 1}', schema)["$ref"] == 1
    with pytest.raises(InvalidAnswer, match="1 is not of type 'string'"):
        read('{"mood": "bad", "again": 1}', schema)


@pytest.mark.parametrize("schema", [{"type": "strng"}, {"properties": []}, {"properties": {"a": {"pattern": "["}}}])
def test_what_is_no_json_schema_is_refused_at_construction(schema):
    with pytest.raises(ConfigError, match="output_schema is no JSON Schema"):
        recorder(output_schema=schema)


def test_a_schema_that_never_ends_is_an_invalid_answer():
    with pytest.raises(InvalidAnswer, match="too deep"):
        read("{}", {"$ref": "#"})


def test_a_form_that_was_used_goes_to_another_process():
    form = answer_form(SCHEMA, None)
    assert form.parse('{"mood": "bad"}') == BAD
    assert (
        pickle.loads(pickle.dumps(form)).parse('{"mood": "bad"}') == copy.deepcopy(form).parse('{"mood": "bad"}') == BAD
    )


# -- fields as columns -------------------------------------------------------------------------------------


class Part(pydantic.BaseModel):
    n: int


class Wide(pydantic.BaseModel):
    total: Decimal
    rest: Decimal | None
    day: dt.date
    at: dt.datetime
    who: uuid.UUID
    number: int | float
    part: Part | list[int]
    level: Literal[1, 2]
    whole: int


WIDE = (
    '{"total": "12.30", "rest": null, "day": "2026-01-02", "at": "2026-01-02T03:04:05Z", "number": 3, '
    '"who": "550e8400-e29b-41d4-a716-446655440000", "part": {"n": 1}, "level": 2, "whole": 3.0}'
)


def test_each_field_goes_to_a_column_of_a_type_that_holds_it(tmp_path):
    docs = sa.Table("docs", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), sa.Column("body", sa.Text))
    with pinnacle(f"sqlite:///{tmp_path}/a.db") as db:
        docs.create(db.engine)
        with db.engine.begin() as connection:
            connection.execute(sa.insert(docs), [{"body": "x"}])
        model = llm(fn=wide, output_schema=Wide)
        columns = {name: f"my_{name}" for name in Wide.model_fields}
        result = db.predict(model, "body", sa.select(docs), output=columns, progress=False)
        assert result.failed == 0
        stored = db.execute("SELECT " + ", ".join(columns.values()) + " FROM docs").one()
    assert stored == (
        "12.30", None, "2026-01-02", "2026-01-02T03:04:05Z", "550e8400-e29b-41d4-a716-446655440000",
        3.0, '{"n": 1}', 2, 3,
    )  # fmt: skip


def wide(model: Any, prompt: str) -> str:
    return WIDE


@pytest.mark.parametrize(
    ("declared", "told"),
    [
        ({"type": ["integer", "string"]}, r"of several types \(integer, string\)"),
        (
            {"anyOf": [{"type": "object"}, {"type": "null"}, {"type": "integer"}]},
            r"of several types \(integer, object\)",
        ),
        ({"enum": [1, "a"]}, "of several types"),
        ({}, "of any type"),
        (True, "of any type"),
        ({"$ref": "#/properties/f"}, None),
    ],
)
def test_a_field_that_no_column_holds_is_refused(declared, told):
    schema = {"properties": {"f": declared}}
    if told is None:
        assert column_type(schema, "f").name == "str"
        return
    with pytest.raises(ConfigError, match=rf"the field 'f' has values {told}.* column of the whole answer"):
        column_type(schema, "f")


def test_it_is_refused_before_the_first_call(tmp_path):
    docs = sa.Table("docs", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), sa.Column("body", sa.Text))
    asked = recorder("{}", output_schema={"properties": {"f": {"type": ["integer", "string"]}}})
    with pinnacle(f"sqlite:///{tmp_path}/a.db") as db:
        docs.create(db.engine)
        with db.engine.begin() as connection:
            connection.execute(sa.insert(docs), [{"body": "x"}])
        with pytest.raises(ConfigError, match="several types"):
            db.predict(asked.model, "body", sa.select(docs), output={"f": "f"}, progress=False)
        assert (db.outputs(), db.show("model")) == ([], [])
    assert asked.prompts == []
