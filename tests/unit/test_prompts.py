"""From what a user passes to what a model is sent: context, keywords, prompt functions, dialogs, examples."""

from __future__ import annotations

import pytest

from pinnacle import ConfigError, Json
from pinnacle.base.types import Text
from tests.llms import recorder

HELLO = [{"role": "user", "content": "Hello"}]
SYSTEM = {"role": "system", "content": "Be brief"}


def shots(*texts: str) -> list[dict[str, str]]:
    return [{"role": "assistant" if n % 2 else "user", "content": text} for n, text in enumerate(texts)]


# -- what predict takes and gives --------------------------------------------------------------------


def test_a_string_gives_a_string():
    asked = recorder(str.upper)
    assert asked.model.predict("hello") == "HELLO"
    assert asked.prompts == ["hello"]


def test_a_list_of_strings_gives_a_list_in_the_same_order():
    texts = [f"text {number}" for number in range(200)]
    assert recorder(str.upper, max_batch_size=16).model.predict(texts) == [text.upper() for text in texts]


def test_one_dialog_gives_one_string():
    asked = recorder("hi")
    assert asked.model.predict(HELLO) == "hi"
    assert asked.prompts == [HELLO]


def test_a_list_of_dialogs_gives_a_list():
    asked = recorder(lambda dialog: dialog[-1]["content"].upper())
    assert asked.model.predict([HELLO, shots("a", "b", "c")]) == ["HELLO", "C"]


def test_an_empty_list_gives_an_empty_list_and_asks_nothing():
    asked = recorder()
    assert asked.model.predict([]) == []
    assert asked.asked == []


@pytest.mark.parametrize("value", [None, b"bytes", {"role": "user", "content": "a"}, ("a", "b"), object()])
def test_what_is_neither_text_nor_a_dialog_is_refused_by_its_type(value):
    with pytest.raises(ConfigError, match=f"takes text, or the messages of a dialog.*not {type(value).__name__}"):
        recorder().model.predict(value)


def test_the_users_messages_are_not_changed():
    dialog, copy = [dict(SYSTEM), *shots("a", "b", "c")], [dict(SYSTEM), *shots("a", "b", "c")]
    recorder(prompt_template="Say {input}", system_prompt="S").model.predict(dialog)
    assert dialog == copy


# -- context -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("context", "filled"), [("a", "a"), (["a", "b"], "a\nb"), (("a", "b"), "a\nb"), ([], "")])
def test_context_fills_its_place_and_lists_are_joined_by_newlines(context, filled):
    asked = recorder(prompt_template="{context}|{input}")
    asked.model.predict("q", context=context)
    assert asked.asked == [(f"{filled}|q", {})]


@pytest.mark.parametrize("given", [{}, {"context": None}])
def test_a_template_that_names_context_refuses_to_run_without_it(given):
    asked = recorder(prompt_template="{context} {input}")
    with pytest.raises(ConfigError, match=r"\{context\}"):
        asked.model.predict("q", **given)
    assert asked.asked == []


@pytest.mark.parametrize("context", [1, [1], {"a": "b"}, [["a"]]])
def test_a_context_that_is_no_text_is_refused(context):
    with pytest.raises(ConfigError, match="context= is text, or a list of texts"):
        recorder(prompt_template="{context} {input}").model.predict("q", context=context)


# -- keywords ------------------------------------------------------------------------------------------


def test_keywords_of_a_prompt_function_go_to_it_and_are_not_sent():
    asked = recorder(prompt_func=lambda x, lang: f"Translate into {lang}: {x}")
    asked.model.predict("Hello", lang="Japanese", seed=1)
    assert asked.asked == [("Translate into Japanese: Hello", {"seed": 1})]


def test_the_result_of_a_prompt_function_goes_into_the_template():
    asked = recorder(prompt_func=str.upper, prompt_template="<{input}>")
    asked.model.predict("a {b}")
    assert asked.prompts == ["<A {B}>"]


def test_a_prompt_function_may_have_defaults_keyword_only_arguments_and_the_context():
    asked = recorder(prompt_func=lambda x, context, *, tone="dry": f"{context}/{tone}/{x}")
    asked.model.predict("q", context=["a", "b"])
    asked.model.predict("q", context="a", tone="warm", top_p=1)
    assert asked.asked == [("a\nb/dry/q", {}), ("a/warm/q", {"top_p": 1})]


def test_a_prompt_function_may_make_a_dialog_of_an_input():
    asked = recorder(prompt_func=lambda x: [SYSTEM, {"role": "user", "content": x}])
    assert asked.model.predict("hi") == "ok"
    assert asked.prompts == [[SYSTEM, {"role": "user", "content": "hi"}]]


@pytest.mark.parametrize("function", ["text", 1, lambda: "x", lambda *, x: x])
def test_what_is_no_function_of_an_input_is_refused_at_construction(function):
    with pytest.raises(ConfigError, match="prompt_func"):
        recorder(prompt_func=function)


def test_keywords_that_the_template_names_fill_it_and_are_not_sent():
    asked = recorder(prompt_template="{input} in {lang}")
    asked.model.predict("x", lang="French", temperature=0.5)
    assert asked.asked == [("x in French", {"temperature": 0.5})]


def test_inference_kwargs_are_sent_with_every_call_and_those_of_predict_win():
    asked = recorder(inference_kwargs={"temperature": 0.7, "stop": ["\n"]})
    asked.model.predict("a", seed=1)
    asked.model.predict("b", temperature=0)
    assert asked.sent == [{"temperature": 0.7, "stop": ["\n"], "seed": 1}, {"temperature": 0, "stop": ["\n"]}]
    assert asked.model.inference_kwargs == {"temperature": 0.7, "stop": ["\n"]}


@pytest.mark.parametrize("kwargs", [None, ["temperature"], {1: 2}])
def test_inference_kwargs_is_a_dict_of_keywords(kwargs):
    with pytest.raises(ConfigError, match="inference_kwargs is a dict of keywords"):
        recorder(inference_kwargs=kwargs)


# -- system prompt, examples, dialogs ----------------------------------------------------------------


def test_a_system_prompt_stands_before_the_input():
    asked = recorder(system_prompt="Be brief")
    asked.model.predict("a")
    assert asked.prompts == [[SYSTEM, {"role": "user", "content": "a"}]]


def test_examples_are_turns_between_the_system_prompt_and_the_input():
    asked = recorder(system_prompt="Be brief", examples=[("1+1", "2"), ["2+2", 4]], prompt_template="Q: {input}")
    asked.model.predict("3+3")
    assert asked.prompts == [[SYSTEM, *shots("1+1", "2", "2+2", "4", "Q: 3+3")]]


def test_examples_of_a_call_come_after_the_models_and_are_not_sent():
    asked = recorder(examples=[("a", "b")], system_prompt="Be brief")
    asked.model.predict("q", examples=[("c", "d")])
    asked.model.predict("q")
    assert asked.asked == [([SYSTEM, *shots("a", "b", "c", "d", "q")], {}), ([SYSTEM, *shots("a", "b", "q")], {})]


@pytest.mark.parametrize("examples", [["ab"], [("a",)], [("a", "b", "c")], [{"a": "b"}], "ab"])
def test_examples_that_are_no_pairs_are_refused(examples):
    with pytest.raises(ConfigError, match="examples is a list of"):
        recorder(examples=examples)


def test_a_template_is_filled_with_the_last_message_of_a_dialog():
    asked = recorder(prompt_template="Translate: {input}")
    asked.model.predict([SYSTEM, *shots("a", "b", "c")])
    assert asked.prompts == [[SYSTEM, *shots("a", "b", "Translate: c")]]


def test_a_template_on_a_dialog_without_text_to_fill_it_is_refused():
    parts = [{"type": "image_url", "image_url": {"url": "x"}}]
    asked = recorder(prompt_template="Translate: {input}")
    for dialog in (shots("a", "b"), [{"role": "user", "content": parts}]):
        with pytest.raises(ConfigError, match="last message of a dialog"):
            asked.model.predict(dialog)
    assert asked.asked == []


def test_parts_of_a_message_and_tool_messages_are_sent_as_they_are():
    parts = [{"type": "text", "text": "what is it?"}, {"type": "image_url", "image_url": {"url": "data:,"}}]
    dialog = [{"role": "tool", "tool_call_id": "1", "content": "4"}, {"role": "user", "content": parts}]
    asked = recorder()
    asked.model.predict(dialog)
    assert asked.prompts == [dialog]


# -- the name, the type ---------------------------------------------------------------------------------


def test_the_output_is_text_and_json_where_the_answer_has_a_schema():
    schema = {"type": "object"}
    assert recorder().model.resolved_output_type() == Text()
    assert recorder(choices=["a", "b"]).model.resolved_output_type() == Text()
    assert recorder(output_schema=schema).model.resolved_output_type() == Json()


def test_a_context_without_a_place_is_refused():
    with pytest.raises(ConfigError, match=r"no \{context\}"):
        recorder().model.predict("a", context="lost")
