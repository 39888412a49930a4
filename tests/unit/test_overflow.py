"""Prompts that are longer than the context window: the context is cut first, then the input, or they are refused."""

from __future__ import annotations

import dataclasses
import math
import warnings
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinnacle import ContextOverflow, PromptCut
from pinnacle.ext.llm import BaseLLMModel
from pinnacle.llm.overflow import DEFAULT_OUTPUT_RESERVE, estimated_cut, estimated_tokens
from tests.llms import recorder

ROOM = 40
WINDOW = {"context_window": ROOM + 10, "inference_kwargs": {"max_tokens": 10}}
"""A window that has room for 40 tokens of prompt: 120 bytes by the estimate."""


@dataclasses.dataclass
class Words(BaseLLMModel):
    """A model whose tokens are words; answers with the prompt."""

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    def cut_text(self, text: str, tokens: int) -> str:
        return " ".join(text.split()[: max(0, tokens)])

    def _generate(self, messages: Any, **kwargs: Any) -> str:
        return messages if isinstance(messages, str) else repr(messages)


def words(count: int, name: str = "w") -> str:
    return " ".join(f"{name}{number}" for number in range(count))


# -- the estimate ------------------------------------------------------------------------------------------


@given(st.text(st.characters()), st.integers(0, 50))
def test_a_cut_is_a_beginning_of_at_most_so_many_tokens_and_no_shorter_than_need_be(text, tokens):
    cut = estimated_cut(text, tokens)
    assert text.startswith(cut)
    assert estimated_tokens(cut) <= tokens
    one_more = text[: len(cut) + 1]
    assert cut == text or len(one_more.encode("utf-8", "surrogatepass")) > 3 * tokens


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_the_estimate_is_a_token_for_three_bytes(text):
    assert estimated_tokens(text) == math.ceil(len(text.encode()) / 3)


# -- cutting -----------------------------------------------------------------------------------------------


def test_what_fits_is_sent_as_it_is_without_a_warning():
    asked = recorder(**WINDOW)
    asked.model.predict("x" * 3 * ROOM)
    assert asked.prompts == ["x" * 3 * ROOM]


def test_a_longer_input_is_cut_to_the_window_with_a_warning_that_names_the_sizes():
    asked = recorder(**WINDOW)
    with pytest.warns(PromptCut, match=rf"'recorder'.* 5 tokens longer than the {ROOM} .*{ROOM + 10}"):
        asked.model.predict("x" * 3 * (ROOM + 5))
    assert asked.prompts == ["x" * 3 * ROOM]


def test_the_context_is_cut_before_the_input():
    asked = recorder(prompt_template="{context}|{input}", **WINDOW)
    with pytest.warns(PromptCut):
        asked.model.predict("question", context="c" * 1000)
    (prompt,) = asked.prompts
    assert prompt == "c" * (3 * ROOM - len("|question")) + "|question"


def test_the_input_is_cut_where_the_context_is_used_up():
    asked = recorder(prompt_template="{context}|{input}", **WINDOW)
    with pytest.warns(PromptCut):
        asked.model.predict("q" * 1000, context="c" * 1000)
    assert asked.prompts[0].strip("q") == "|"
    assert ROOM - 1 <= estimated_tokens(asked.prompts[0]) <= ROOM


def test_a_context_that_prompt_func_takes_does_not_keep_the_input_from_being_cut():
    asked = recorder(**WINDOW, prompt_func=lambda x, context: context[:3] + x)
    with pytest.warns(PromptCut):
        asked.model.predict("q" * 1000, context="c" * 10_000)
    assert len(asked.prompts[0]) == 3 * ROOM


def test_the_last_message_of_a_dialog_is_cut_and_the_others_are_not():
    asked = recorder(system_prompt="Be brief", **WINDOW)
    dialog = [{"role": "assistant", "content": "Hi"}, {"role": "user", "content": "x" * 1000}]
    with pytest.warns(PromptCut):
        asked.model.predict(dialog)
    system, first, last = asked.prompts[0]
    assert (system["content"], first["content"]) == ("Be brief", "Hi")
    assert 0 < len(last["content"]) < 3 * ROOM


def test_parameters_are_kept_when_the_input_is_cut():
    asked = recorder(**WINDOW)
    with pytest.warns(PromptCut):
        asked.model.predict("x" * 1000, seed=1)
    assert asked.sent == [{"max_tokens": 10, "seed": 1}]


# -- the answer's reserve ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens", "max_new_tokens"])
def test_the_answers_own_limit_is_kept_free(name):
    asked = recorder(context_window=100)
    with pytest.warns(PromptCut):
        asked.model.predict("x" * 1000, **{name: 70})
    assert asked.prompts == ["x" * 90]


@pytest.mark.parametrize(("window", "room"), [(100, 75), (4096, 4096 - DEFAULT_OUTPUT_RESERVE)])
def test_without_a_limit_a_part_of_the_window_is_kept_free(window, room):
    asked = recorder(context_window=window)
    with pytest.warns(PromptCut):
        asked.model.predict("x" * 30_000)
    assert asked.prompts == ["x" * 3 * room]


# -- refusing ----------------------------------------------------------------------------------------------


def test_overflow_error_refuses_what_is_too_long_naming_the_sizes_and_asks_nothing():
    asked = recorder(overflow="error", **WINDOW)
    asked.model.predict("x" * 3 * ROOM)
    with pytest.raises(ContextOverflow, match=rf"1 tokens longer than the {ROOM} .*{ROOM + 10}"):
        asked.model.predict("x" * (3 * ROOM + 1))
    assert len(asked.asked) == 1


@pytest.mark.parametrize(
    "options",
    [{"prompt_template": "t" * 200 + "{input}"}, {"system_prompt": "s" * 200}, {"examples": [("e" * 200, "e")]}],
)
def test_fixed_parts_that_do_not_fit_alone_are_refused(options):
    asked = recorder(**WINDOW, **options)
    with pytest.raises(ContextOverflow, match="fixed parts alone do not fit"):
        asked.model.predict("q" * 10)
    assert asked.asked == []


def test_an_answer_longer_than_the_window_is_refused():
    with pytest.raises(ContextOverflow):
        recorder(context_window=50).model.predict("q", max_tokens=60)


@pytest.mark.parametrize("wrong", [{"context_window": 0}, {"context_window": 1.5}, {"overflow": "raise"}])
def test_sizes_and_modes_that_make_no_sense_are_refused_at_construction(wrong):
    with pytest.raises(Exception, match=next(iter(wrong))):
        recorder(**wrong)


# -- by the model's own tokenizer -------------------------------------------------------------------------


def test_a_models_own_tokens_count():
    model = Words("words", context_window=8)
    with pytest.warns(PromptCut, match="4 tokens longer than the 6 "):
        assert model.predict(words(10)) == words(6)


texts = st.text(st.sampled_from("ab {}\u00e9\u4e16\U0001f600"), max_size=200)


@given(text=texts, context=texts, window=st.integers(1, 60), reserve=st.integers(1, 20), is_words=st.booleans())
def test_a_prompt_is_never_longer_than_the_window_leaves_by_the_models_own_counter(
    text, context, window, reserve, is_words
):
    options = {"prompt_template": "Of {context} say {input}!", "context_window": window}
    asked = recorder(lambda prompt: prompt, **options)
    model = Words("words", **options) if is_words else asked.model
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PromptCut)
        try:
            prompt = model.predict(text, context=context, max_tokens=reserve)
        except ContextOverflow:
            assert model.count_tokens("Of  say !") > window - reserve
            return
    assert model.count_tokens(prompt) <= window - reserve
    whole = f"Of {context} say {text}!"
    assert (prompt == whole) == (model.count_tokens(whole) <= window - reserve)
