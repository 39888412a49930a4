"""Answers with a form: choices, Pydantic models and JSON Schemas, asked for again until they fit."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any, Literal

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinnacle import ConfigError, InvalidAnswer, Settings, pinnacle
from pinnacle.llm.schemas import answer_form
from pinnacle.plugin import BaseLLMModel
from tests.llms import llm, recorder


class Person(pydantic.BaseModel):
    name: str
    age: int = pydantic.Field(ge=0)
    born: dt.date | None = None
    full_name: str = pydantic.Field(default="", alias="fullName")


class Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True)
    day: dt.date
    tone: Literal["warm", "cold"]


ADA = {"name": "Ada", "age": 36}
ADA_IN_FULL = {"name": "Ada", "age": 36, "born": None, "fullName": ""}


def answers(*texts: str) -> Any:
    """Answers in turn, the last again and again."""
    left = list(texts)
    return lambda prompt: left.pop(0) if len(left) > 1 else left[0]


# -- choices -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", ["spam", "Spam", " SPAM.\n", '"spam"', "`spam`", '{"choice": "spam"}', '"Spam".'])
def test_an_answer_is_a_choice_whatever_its_capitals_and_quotes(answer):
    assert recorder(answer, choices=["spam", "ham"]).model.predict("x") == "spam"


@pytest.mark.parametrize("choice", ["U.S.", "e.g.", "'quoted'", "`code`", "1", "{a}", "Straße", " padded "])
def test_every_choice_may_be_answered_as_it_is_written(choice):
    assert recorder(choice, choices=["other", choice]).model.predict("x") == choice


@given(st.lists(st.text(min_size=1).filter(str.strip), min_size=1, max_size=5), st.data())
def test_a_choice_is_always_recognised_as_itself_as_text_and_as_json(choices, data):
    try:
        form = answer_form(None, choices)
    except ConfigError:
        return
    choice = data.draw(st.sampled_from(choices))
    assert form.parse(choice) == choice
    assert form.parse(json.dumps({"choice": choice})) == choice


@pytest.mark.parametrize("answer", ["eggs", "", "spam and ham", "spam?", '{"choice": "eggs"}', "7", "[]", "null"])
def test_what_is_no_choice_is_an_invalid_answer_naming_the_choices(answer):
    with pytest.raises(InvalidAnswer, match=r"recorder.*(spam.*ham|at \$)"):
        recorder(answer, choices=["spam", "ham"], max_reasks=0).model.predict("x")


def test_the_choices_are_told_in_the_prompt():
    asked = recorder("ham", choices=["spam", "ham"])
    asked.model.predict("Buy now!")
    assert asked.prompts[0].startswith("Buy now!\n\nAnswer with exactly one of these")
    assert "spam, ham" in asked.prompts[0]


@pytest.mark.parametrize("choices", [[], "ab", ["a", 1], ["a", ""], ["a", "A"], [None], {"a": 1}])
def test_choices_that_are_none_are_refused_at_construction(choices):
    with pytest.raises(ConfigError, match="choices"):
        recorder(choices=choices)


# -- schemas -----------------------------------------------------------------------------------------------


def test_a_pydantic_model_gives_plain_json_by_its_schemas_names():
    text = json.dumps({**ADA, "born": "1815-12-10", "fullName": "Ada Lovelace"})
    answer = recorder(text, output_schema=Person).model.predict("x")
    assert answer == {**ADA, "born": "1815-12-10", "fullName": "Ada Lovelace"}


def test_a_strict_pydantic_model_is_validated_as_json():
    text = '{"day": "2026-11-20", "tone": "warm"}'
    assert recorder(text, output_schema=Strict).model.predict("x") == {"day": "2026-11-20", "tone": "warm"}


@pytest.mark.parametrize(
    "answer",
    ["```json\n{}\n```", "```\n{}\n```", "```JSON\r\n{}```", "```{}```", "  \n{}\n "],
)
def test_a_code_fence_around_json_is_taken_off(answer):
    text = answer.replace("{}", json.dumps(ADA))
    assert recorder(text, output_schema=Person).model.predict("x") == ADA_IN_FULL


@pytest.mark.parametrize(
    "answer", ["", "Ada", "{", "NaN", '{"name": "Ada"}', '{"name": "Ada", "age": -1}', "[]", "null"]
)
@pytest.mark.parametrize("schema", [Person, Person.model_json_schema()], ids=["pydantic", "dict"])
def test_what_does_not_fit_is_an_invalid_answer(schema, answer):
    with pytest.raises(InvalidAnswer, match="recorder"):
        recorder(answer, output_schema=schema, max_reasks=0).model.predict("x")


def test_a_schema_as_a_dict_gives_what_fits_it():
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    assert recorder('{"n": 1, "m": 2}', output_schema=schema).model.predict("x") == {"n": 1, "m": 2}


@pytest.mark.parametrize("schema", [Person(**ADA), {}, "person", dict, 7])
def test_what_is_no_schema_is_refused_at_construction(schema):
    with pytest.raises(ConfigError, match="output_schema is a Pydantic model or a JSON Schema"):
        recorder(output_schema=schema)


def test_a_schema_and_choices_exclude_each_other():
    with pytest.raises(ConfigError, match="exclude each other"):
        recorder(output_schema=Person, choices=["a"])


def test_a_property_that_is_missing_gets_its_schemas_default():
    properties = {"n": {"type": "integer"}, "mood": {"default": "calm"}, "tags": {"default": []}, "any": True}
    model = recorder('{"n": 1}', output_schema={"properties": properties, "required": ["n"]}).model
    model.predict("x")["tags"].append("changed")
    assert model.predict("x") == {"n": 1, "mood": "calm", "tags": []}


@pytest.mark.parametrize("answer", ['{"mood": null}', '{"mood": "odd", "more": 2}', "[1]", '"text"'])
def test_what_is_there_is_kept_beside_the_defaults(answer):
    schema = {"properties": {"mood": {"default": "calm"}}}
    assert recorder(answer, output_schema=schema).model.predict("x") == json.loads(answer)


def test_what_is_required_is_not_filled_in():
    schema = {"properties": {"n": {"default": 1}}, "required": ["n"]}
    with pytest.raises(InvalidAnswer, match="'n' is a required property"):
        recorder("{}", output_schema=schema, max_reasks=0).model.predict("x")


def test_a_class_is_the_same_after_a_catalog(tmp_path):
    with pinnacle(f"sqlite:///{tmp_path / 'a.db'}", settings=Settings()) as db:
        db.add(llm(fn=person_or_not, output_schema=Person, max_reasks=0))
        loaded = db.load("model", "replies")
        assert loaded.output_schema is Person
        assert db.add(llm(fn=person_or_not, output_schema=Person, max_reasks=0)).version == 0
    assert loaded.predict("person") == {**ADA_IN_FULL, "fullName": "A. L."}
    with pytest.raises(InvalidAnswer, match=r"(?s)age.*valid integer"):
        loaded.predict("no person")


def person_or_not(model: Any, prompt: str) -> str:
    age = "old" if prompt.startswith("no") else 36
    return json.dumps({**ADA, "age": age, "fullName": "A. L."})


# -- asking again -----------------------------------------------------------------------------------------


def test_an_answer_that_does_not_fit_is_asked_for_again_with_what_is_wrong():
    asked = recorder(answers("eggs", "ham"), choices=["spam", "ham"])
    assert asked.model.predict("Q") == "ham"
    first, second = asked.prompts
    assert second[0] == {"role": "user", "content": first}
    assert second[1] == {"role": "assistant", "content": "eggs"}
    assert second[2]["role"] == "user"
    assert "'eggs' is none of 'spam', 'ham'" in second[2]["content"]


@pytest.mark.parametrize("limit", [0, 1, 3])
def test_it_is_asked_again_so_often_and_then_it_is_an_error(limit):
    asked = recorder("eggs", choices=["spam", "ham"], max_reasks=limit)
    with pytest.raises(InvalidAnswer):
        asked.model.predict("Q")
    assert len(asked.asked) == limit + 1


@pytest.mark.parametrize("limit", [-1, 1.5, True, None])
def test_max_reasks_is_a_whole_number(limit):
    with pytest.raises(ConfigError, match="max_reasks is a whole number"):
        recorder(max_reasks=limit)


class Chooser(BaseLLMModel):
    """Says the second word of a prompt at first, and its last word when it is asked again."""

    def _generate(self, messages: Any, **kwargs: Any) -> str:
        if isinstance(messages, str):
            return messages.split()[1]
        return messages[0]["content"].split("\n")[0].split()[-1]


def test_a_local_model_asks_again_for_those_that_do_not_fit_and_for_no_others():
    model = Chooser("chooser", choices=["a", "b"], max_reasks=1)
    assert model.predict(["is a", "is eggs b", "is b"]) == ["a", "b", "b"]
    outputs = model.predict_batch(["is a", "is eggs eggs"])
    assert outputs[0] == "a"
    assert isinstance(outputs[1], InvalidAnswer)
    with pytest.raises(InvalidAnswer):
        model.predict(["is a", "is eggs eggs"])
