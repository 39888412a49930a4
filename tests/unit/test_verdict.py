"""The table: what a provider's response is, from its status, its documented fields and its whole body."""

from __future__ import annotations

import json

import pytest

from pinnacle import AnswerCut, ConfigError, NoAnswer, Price
from pinnacle.llm.http import HttpError
from pinnacle.llm.requests import as_reply
from pinnacle.llm.verdict import (
    Unreadable,
    Verdict,
    cached_tokens,
    chat_reply,
    refused_parameter,
    token_counts,
    verdict_on,
)


def refusal(status, body=None, **fields):
    """An error as `HttpClient` raises it; ``fields`` are those of OpenAI's error object."""
    body = {"error": {"message": "no", **fields}} if body is None else body
    return HttpError(status, "no", {}, body)


def verdict(error, *, has_served=False):
    return verdict_on(error, has_served=has_served)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (refusal(400), Verdict.REFUSED),
        (refusal(413), Verdict.REFUSED),
        (refusal(422), Verdict.REFUSED),
        (refusal(404, param="temperature"), Verdict.REFUSED),
        (refusal(429, message="Request too large for m on TPM: Limit 30000, Requested 44975."), Verdict.REFUSED),
        (refusal(429, message="Limit 30000, Used 29000, Requested 2000. Please try again in 2s"), Verdict.THROTTLED),
        (refusal(429, code="context_length_exceeded"), Verdict.REFUSED),
        (refusal(429, code="rate_limit_exceeded"), Verdict.THROTTLED),
        (refusal(429, body="slow down"), Verdict.THROTTLED),
        (refusal(401), Verdict.ACCOUNT),
        (refusal(402), Verdict.ACCOUNT),
        (refusal(429, code="insufficient_quota"), Verdict.ACCOUNT),
        (refusal(429, type="insufficient_quota"), Verdict.ACCOUNT),
        (refusal(403, code="billing_not_active"), Verdict.ACCOUNT),
        (refusal(404, code="model_not_found", param="model"), Verdict.ACCOUNT),
        (refusal(307), Verdict.ACCOUNT),
        (refusal(408), Verdict.OUTAGE),
        (refusal(500, code="insufficient_quota"), Verdict.OUTAGE),
        (refusal(507), Verdict.OUTAGE),
        (Unreadable("<html>"), Verdict.OUTAGE),
        (ConnectionResetError(), Verdict.OUTAGE),
        (TimeoutError(), Verdict.OUTAGE),
        (NoAnswer("none"), Verdict.NO_ANSWER),
        (AnswerCut("half"), Verdict.NO_ANSWER),
        (ConfigError("mine"), Verdict.OWN),
        (KeyError("mine"), Verdict.OWN),
    ],
    ids=str,
)
def test_every_line_of_the_table(error, expected):
    assert verdict(error) is expected


@pytest.mark.parametrize("status", [403, 404, 307])
def test_a_model_that_was_served_is_there_and_a_refusal_is_about_one_row(status):
    assert verdict(refusal(status), has_served=True) is Verdict.REFUSED


@pytest.mark.parametrize("status", [400, 422, 429])
def test_words_that_repeat_a_row_say_nothing_of_the_account(status):
    said = "insufficient_quota billing_hard_limit_reached account_deactivated"
    for error in (refusal(status, {"detail": [{"input": said}]}), refusal(status, message=f"invalid: {said}")):
        assert verdict(error) is (Verdict.THROTTLED if status == 429 else Verdict.REFUSED)


SENT = {"temperature", "n", "max_tokens", "messages", "model"}


@pytest.mark.parametrize(
    ("error", "named"),
    [
        (refusal(400, param="temperature"), "temperature"),
        (refusal(400, param="max_tokens.x"), "max_tokens"),
        (refusal(422, {"detail": [{"loc": ["body", "temperature"], "msg": "wrong"}]}), "temperature"),
        (refusal(400, message="gpt-5 does not support temperature=0", param="None"), "temperature"),
        (refusal(400, {"detail": "unknown field: max_tokens"}), "max_tokens"),
        (refusal(400, message="`n` must be 1"), "n"),
        (refusal(400, message="n is not what this is about"), None),
        (refusal(400, param="messages"), None),
        (refusal(400, param="model"), "model"),
        (refusal(400, type="invalid_model"), "model"),
        (refusal(400, message="this model is not made for that"), None),
        (refusal(400, message="no such model"), None),
        (refusal(400, message="maximum context length is 9 tokens, max_tokens is 5"), None),
        (refusal(400, message="the temperatures of row 5"), None),
        (refusal(422, {"detail": [{"loc": ["body", "messages"], "input": "no"}]}), None),
    ],
    ids=str,
)
def test_the_parameter_that_a_refusal_is_about(error, named):
    assert refused_parameter(error, SENT) == named


# -- what is an answer -------------------------------------------------------------------------------------


def chat(content="ok", reason="stop", *, usage=None, choice=None, **message):
    said = {"role": "assistant", "content": content, **message}
    usage = {"prompt_tokens": 3, "completion_tokens": 2} if usage is None else usage
    return {"choices": [{"message": said, "finish_reason": reason, **(choice or {})}], "usage": usage}


@pytest.mark.parametrize("reason", ["stop", "STOP", "eos", "end_turn", None, "", "tool_calls"])
def test_text_with_a_good_end_is_an_answer(reason):
    assert chat_reply(chat(reason=reason)).text == "ok"


def test_an_answer_has_its_counts_and_its_reason():
    reply = chat_reply(chat("half", "length"))
    assert (reply.text, reply.input_tokens, reply.output_tokens, reply.is_cut) == ("half", 3, 2, True)
    assert not chat_reply(chat()).is_cut


def test_of_several_choices_the_first_by_index_is_the_answer():
    choices = [{"index": n, "message": {"content": f"no. {n}"}, "finish_reason": "stop"} for n in (1, 0)]
    assert chat_reply({"choices": choices}).text == "no. 0"


def test_the_texts_of_a_content_in_parts_are_joined():
    parts = [{"type": "text", "text": "o"}, {"type": "image_url"}, {"type": "text", "text": "k"}, "!"]
    assert chat_reply(chat(parts)).text == "ok!"


CALLS = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]


def test_tool_calls_are_an_answer_where_tools_were_given():
    assert json.loads(chat_reply(chat(None, "tool_calls", tool_calls=CALLS), takes_calls=True).text) == CALLS
    with pytest.raises(NoAnswer, match="calls tools"):
        chat_reply(chat(None, "tool_calls", tool_calls=CALLS))


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (chat(None), "no text"),
        (chat(""), "no text"),
        (chat(" \n"), "no text"),
        (chat([{"type": "image_url"}]), "no text"),
        ({"choices": [{"finish_reason": "stop"}]}, "no text"),
        ({"choices": [{"message": None}]}, "no text"),
        ({"choices": []}, "without a choice"),
        ({"choices": None}, "without a choice"),
        ({"choices": {"0": "x"}}, "without a choice"),
        ({"status": "in maintenance"}, "in maintenance"),
        ([], "without a choice"),
        (None, "without a choice"),
        ("text", "without a choice"),
        (chat(None, refusal="not this"), "refused to answer: not this"),
        (chat(None, reasoning="hm"), "reasoning alone"),
        (chat("", reasoning_content="hm"), "reasoning alone"),
        (chat("<think>hm</think>\n"), "reasoning alone"),
        (chat("<think>hm, perhaps"), "reasoning alone"),
        (chat("half a sent", "error"), "'error'"),
        (chat("half a sent", "content_filter", refusal="unsafe"), "'content_filter': unsafe"),
        (chat("half a sent", "insufficient_system_resource"), "'insufficient_system_resource'"),
        (chat("half", "error", choice={"error": {"code": 502, "message": "Upstream died"}}), r"Upstream died.*502"),
        ({"error": {"message": "8192 tokens at most", "code": 400}}, r"8192 tokens at most \(code 400\)"),
        ({"error": "out of order", **chat()}, "out of order"),
        (chat(usage={"prompt_tokens": -1}), "counts -1 prompt tokens"),
        (chat(usage={"completion_tokens": 2**53 + 1}), "completion tokens"),
        (chat(usage={"completion_tokens": float("inf")}), "completion tokens"),
        (chat(usage={"completion_tokens": float("nan")}), "completion tokens"),
        (chat(usage={"prompt_tokens": 10**400}), "prompt tokens, which cannot be"),
        (chat("Sorry.", refusal="not this"), "refused to answer: not this"),
        (chat("Half", error={"message": "died"}), "died"),
        (chat([{"type": "reasoning", "text": "Let me think"}]), "no text"),
        (chat("half", {"type": "error"}), 'finish_reason \'{"type": "error"}\''),
    ],
)
def test_what_is_no_answer_is_told_in_the_providers_words(answer, told):
    with pytest.raises(NoAnswer, match=told):
        chat_reply(answer)


def test_without_text_at_the_limit_of_tokens_asking_again_helps_nothing():
    with pytest.raises(AnswerCut, match="'length'") as caught:
        chat_reply(chat(None, "length", reasoning="hm"))
    assert caught.value.finish_reason == "length"


@pytest.mark.parametrize("usage", [{}, None, [], {"prompt_tokens": None}, {"prompt_tokens": "7"}])
def test_counts_that_are_not_told_are_unknown(usage):
    assert token_counts({"usage": usage}) == (None, None)


@pytest.mark.parametrize(
    ("told", "counts", "cached"),
    [
        ({"total_tokens": 120, "completion_tokens_details": {"reasoning_tokens": 15}}, (100, 20), 0),
        ({"total_tokens": 135, "completion_tokens_details": {"reasoning_tokens": 15}}, (100, 35), 0),
        ({"completion_tokens_details": {"reasoning_tokens": 50}}, (100, 70), 0),
        ({"total_tokens": 120, "prompt_tokens_details": {"cached_tokens": 90}}, (100, 20), 90),
        ({"total_tokens": 210, "cache_read_input_tokens": 90}, (190, 20), 90),
        ({"cache_read_input_tokens": 500}, (600, 20), 500),
        ({"prompt_cache_hit_tokens": 64, "total_tokens": 120}, (100, 20), 64),
        ({"total_tokens": 120, "completion_tokens_details": None, "prompt_tokens_details": None}, (100, 20), 0),
    ],
)
def test_cached_and_reasoning_tokens_are_counted_once_wherever_they_are_told(told, counts, cached):
    answer = {"usage": {"prompt_tokens": 100, "completion_tokens": 20, **told}}
    assert (token_counts(answer), cached_tokens(answer)) == (counts, cached)


def test_cached_tokens_cost_less():
    assert Price(2.0, 10.0, 0.5).of(100, 3, 40) == 60 * 2.0 + 40 * 0.5 + 30.0
    assert Price(2.0, 10.0).of(100, 3, 40) == 230.0


def test_counts_of_the_users_own_function_are_within_reason_too():
    assert as_reply(("a", (0, 2**53))).output_tokens == 2**53
    with pytest.raises(TypeError, match="input tokens"):
        as_reply(("a", (0, 2**53 + 1)))
