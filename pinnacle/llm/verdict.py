"""What a provider's response is: an answer, the row's own error, the account's, or the limiter's and an outage.

One table for live calls, batches of a provider and embeddings:

=====================================================================  ==============================================
the provider says                                                      it is
=====================================================================  ==============================================
a well-formed envelope with text, or tool calls where tools were       an answer
given, and a good finish reason
200 with no choices, no text, a bad finish reason (``error``,          `NoAnswer`: that row's error, asked for at most
``content_filter``, ...), a refusal, only reasoning, an ``error``      ``max_attempts`` times, each of them billed
object, or token counts that cannot be
finish reason ``length``                                               `AnswerCut`, unless ``on_length="keep"``
400, 404 of a parameter, 413, 422, other statuses below 500, a 429     `ProviderRefused`: that row's error at once
that says that this request alone is too large
the same parameter refused for the first rows of a prediction          `ParameterRefused`: it stops
401, 402, 407, a used-up quota by the error's code; 403, 404 and       `AccountRefused`: the prediction stops
redirects as long as the model was served nothing
408, 429, 5xx, no HTTP, a body that is no JSON                         the limiter's, or an outage: no row's fault,
                                                                       unless it alone meets it while others are
                                                                       served
=====================================================================  ==============================================

It goes by statuses and documented fields, never by words of a body that may repeat the row.
"""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from pinnacle.base.errors import AnswerCut, NoAnswer, PinnacleError
from pinnacle.base.metering import MOST_TOKENS
from pinnacle.base.outages import THROTTLED, is_outage, status_of
from pinnacle.llm.reading import is_thought_alone
from pinnacle.llm.requests import CUT_ENDS, Reply

MAX_SHOWN = 300
"""Characters of the provider's words in an error."""

ACCOUNT_STATUSES = frozenset({401, 402, 407})
"""407 is a proxy's, which says nothing of a row."""

MODEL_STATUSES = frozenset({403, 404, 405, *range(300, 400)})
"""About the account or the address, as long as nothing was served: some providers answer so to one input."""

QUOTA_STATUSES = frozenset({400, 403, THROTTLED})
QUOTA_CODES = frozenset(
    {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "account_deactivated"}
)
"""Codes and types of OpenAI's error object."""

TOO_LARGE_CODES = frozenset({"request_too_large", "context_length_exceeded", "string_above_max_length"})
TOO_LARGE = re.compile(r"\W*(?:request|prompt|input)s?(?: is| are)? too (?:large|long|big)\b", re.IGNORECASE)
MOST_READ = 2000
"""Characters of a message that are searched for these."""

LIMIT_AND_REQUESTED = re.compile(r"\bLimit:? (\d+).*\bRequested:? (\d+)", re.DOTALL)

GOOD_ENDS = frozenset(
    {
        "", "stop", "end", "eos", "eos_token", "end_turn", "stop_sequence", "stop_token", "done", "finished",
        "complete", "completed", "tool_calls", "tool_call", "tool_use", "function_call",
    }
)  # fmt: skip
"""Finish reasons as services spell them, in lower case; some tell none."""

TEXT_PARTS = ("text", "output_text")
"""Types of the parts of a content that are its answer: others are thoughts and refusals, and may hold text too."""

REASONING_FIELDS = ("reasoning", "reasoning_content", "thinking")
MODEL = "model"
MODEL_CODES = frozenset({"model_not_found", "invalid_model", "unsupported_model"})
OF_THE_ROW = frozenset({"messages", "input", "prompt", MODEL})
"""Fields of a request that are no parameters, or are named in messages about others."""


class Unreadable(Exception):
    """A response that is no JSON, or broken off: no answer was had. ``billed`` is what it cost all the same."""

    billed: Any = None


class Verdict(enum.Enum):
    """What an exception of one try says; an answer is none."""

    NO_ANSWER = "the row's error, which asking again may mend"
    REFUSED = "the row's error at once"
    ACCOUNT = "the account's"
    THROTTLED = "the limiter's"
    OUTAGE = "an outage"
    OWN = "an error of pinnacle's or the user's own, raised as it is"


def verdict_on(error: Exception, *, has_served: bool) -> Verdict:
    """What one try's error is; ``has_served``: whether the model was ever served under this account."""
    if isinstance(error, NoAnswer):
        return Verdict.NO_ANSWER
    if isinstance(error, PinnacleError):
        return Verdict.OWN
    status = status_of(error)
    if status is None:
        return Verdict.OUTAGE if isinstance(error, Unreadable) or is_outage(error) else Verdict.OWN
    if status in ACCOUNT_STATUSES or _is_used_up(error, status):
        return Verdict.ACCOUNT
    if status == THROTTLED:
        return Verdict.REFUSED if _is_too_large(error) else Verdict.THROTTLED
    if is_outage(error) or status >= 500:
        return Verdict.OUTAGE
    is_of_all = status in MODEL_STATUSES and not has_served and not _is_of_a_parameter(error)
    return Verdict.ACCOUNT if is_of_all else Verdict.REFUSED


def refused_parameter(error: BaseException, sent: Collection[str]) -> str | None:
    """The one of the parameters ``sent`` that a refusal is about; None where it is about the input, or does not say."""
    names = set(sent) - OF_THE_ROW
    told = error_fields(error)
    if told.get("param") == MODEL or not MODEL_CODES.isdisjoint((_text(told.get("code")), _text(told.get("type")))):
        return MODEL
    if (param := _text(told.get("param"))) not in ("", "None", "null"):
        root = re.split(r"[.\[]", param)[0]
        return root if root in names else None
    for place in _places(error):
        if found := [name for name in place if name in names]:
            return found[0]
    if told.get("code") in TOO_LARGE_CODES or "context length" in (message := message_of(error)):
        return None
    return next((name for name in sorted(names, key=len, reverse=True) if _names(message, name)), None)


def chat_reply(answer: Any, *, takes_calls: bool = False) -> Reply:
    """The answer in a chat completion; NoAnswer with the provider's words where there is none.

    The text of a content in parts is joined. ``takes_calls``: tool calls without text are an answer, as JSON text.
    """
    if told := error_object(answer):
        raise NoAnswer(f"the provider answered with an error: {told}")
    choice = _choice(answer)
    message = choice["message"]
    told_reason = choice.get("finish_reason")
    reason = "" if told_reason is None else _shown(told_reason)
    text = _joined(message.get("content"))
    if told := error_object(choice) or error_object(message):
        raise NoAnswer(f"the answer ended with an error: {told}", finish_reason=reason or None)
    if reason.lower() not in GOOD_ENDS | CUT_ENDS:
        words = _shown(message.get("refusal") or "")
        raise NoAnswer(f"the answer ended with finish_reason {reason!r}{words and f': {words}'}", finish_reason=reason)
    if refusal := message.get("refusal"):
        raise NoAnswer(f"the model refused to answer: {_shown(refusal)}", finish_reason=reason or None)
    if not text.strip() and takes_calls and message.get("tool_calls") and reason.lower() not in CUT_ENDS:
        text = json.dumps(message["tool_calls"], ensure_ascii=False)
    if not text.strip() or is_thought_alone(text):
        kind = AnswerCut if reason.lower() in CUT_ENDS else NoAnswer
        raise kind(_why_empty(message, reason), finish_reason=reason or None)
    return Reply(text, *token_counts(answer), reason or None, cached_tokens(answer))


def told_text(answer: Any) -> str:
    """What text there is in a chat completion, be it an answer or not: the provider charges for it."""
    try:
        return _joined(_choice(answer)["message"].get("content"))
    except NoAnswer:
        return ""


def error_object(holder: Any) -> str:
    """The provider's words in an ``error`` object; empty where there is none."""
    told = holder.get("error") if isinstance(holder, Mapping) else None
    if not told:
        return ""
    if not isinstance(told, Mapping):
        return _shown(told)
    code = told.get("code")
    return _shown(told.get("message") or told) + (f" (code {code})" if code not in (None, "") else "")


def token_counts(answer: Any) -> tuple[int | None, int | None]:
    """Tokens read and written, as an answer tells them; NoAnswer for counts that cannot be.

    Cached tokens are of those read and reasoning tokens of those written, also where a service tells them beside these.
    """
    usage = answer.get("usage") if isinstance(answer, Mapping) else None
    read, written = token_count(usage, "prompt_tokens"), token_count(usage, "completion_tokens")
    if usage is None or read is None or written is None:
        return read, written
    cached = cached_tokens(answer)
    thought = token_count(usage.get("completion_tokens_details"), "reasoning_tokens") or 0
    beside = (token_count(usage, "total_tokens") or 0) - read - written
    if thought and (thought > written or beside >= thought):
        written, beside = written + thought, beside - thought
    return read + (cached if cached > read or (cached and beside >= cached) else 0), written


def cached_tokens(answer: Any) -> int:
    """How many of the tokens read the provider had in its own cache, at a lower price."""
    usage = answer.get("usage") if isinstance(answer, Mapping) else None
    details = usage.get("prompt_tokens_details") if isinstance(usage, dict) else None
    told = (
        token_count(details, "cached_tokens"), token_count(usage, "cache_read_input_tokens"),
        token_count(usage, "prompt_cache_hit_tokens"),
    )  # fmt: skip
    return next((count for count in told if count), 0)


def token_count(usage: Any, name: str) -> int | None:
    """One of the counts; None where it is not told, NoAnswer where it is below 0 or above 2**53."""
    value = usage.get(name) if isinstance(usage, dict) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if not 0 <= value <= MOST_TOKENS:
        raise NoAnswer(f"the answer counts {_shown(value)} {name.replace('_', ' ')}, which cannot be")
    return int(value)


def sane_counts(answer: Any) -> tuple[int | None, int | None]:
    """The counts of a response that is no answer, to bill it by; None for those that cannot be."""
    try:
        return token_counts(answer)
    except NoAnswer:
        return None, None


def error_fields(error: BaseException) -> Mapping[str, Any]:
    """The documented fields (``code``, ``type``, ``param``, ``message``) that came with an error's status."""
    body = getattr(error, "body", None)
    if not isinstance(body, Mapping):
        names = ("code", "type", "param", "message")
        return {name: value for name in names if (value := getattr(error, name, None)) is not None}
    inner = body.get("error")
    return inner if isinstance(inner, Mapping) else body


def message_of(error: BaseException) -> str:
    """The provider's own message; that of the exception where the body has none."""
    body = getattr(error, "body", None)
    bare = [_text(body.get(name)) for name in ("error", "detail")] if isinstance(body, Mapping) else []
    return next(filter(None, [_text(error_fields(error).get("message")), *bare]), str(error))


def _is_used_up(error: Exception, status: int) -> bool:
    fields = error_fields(error)
    codes = {_text(fields.get("code")), _text(fields.get("type"))}
    return status in QUOTA_STATUSES and not QUOTA_CODES.isdisjoint(codes)


def _is_too_large(error: Exception) -> bool:
    """Whether a 429 will not pass by waiting: by the provider's fields the request is over the whole limit."""
    fields = error_fields(error)
    message = _text(fields.get("message"))[:MOST_READ]
    found = LIMIT_AND_REQUESTED.search(message)
    is_over = found is not None and int(found[2]) > int(found[1])
    return is_over or fields.get("code") in TOO_LARGE_CODES or TOO_LARGE.match(message) is not None


def _is_of_a_parameter(error: Exception) -> bool:
    return _text(error_fields(error).get("param")) not in ("", "None", "null", MODEL)


def _places(error: BaseException) -> Iterator[list[str]]:
    """Where in a request something is wrong, as FastAPI and others list it: ``{"detail": [{"loc": [...]}]}``."""
    body = getattr(error, "body", None)
    details = body.get("detail") if isinstance(body, Mapping) else None
    for detail in details if isinstance(details, list) else ():
        if isinstance(detail, Mapping) and isinstance(detail.get("loc"), list):
            yield [part for part in detail["loc"] if isinstance(part, str)]


def _names(message: str, name: str) -> bool:
    """Whether a message names a parameter: a short plain word must be quoted to be a name."""
    is_plain = len(name) < 6 and "_" not in name
    around = r"['\"`]" if is_plain else r"(?<![\w-])", r"['\"`]" if is_plain else r"(?![\w-])"
    return re.search(f"{around[0]}{re.escape(name)}{around[1]}", message) is not None


def _choice(answer: Any) -> Mapping[str, Any]:
    """The first choice, by its index where it tells one, which has a message."""
    choices = answer.get("choices") if isinstance(answer, Mapping) else None
    told = [choice for choice in choices if isinstance(choice, Mapping)] if isinstance(choices, list) else []
    choice = next((choice for choice in told if choice.get("index") == 0), told[0] if told else None)
    if not isinstance(choice, Mapping):
        raise NoAnswer(f"the provider answered without a choice: {_shown(answer)}")
    return choice if isinstance(choice.get("message"), Mapping) else {**choice, "message": {}}


def _joined(content: Any) -> str:
    """A content's text: as it is, or of its parts that are neither thoughts nor a refusal."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = [part.get("text") if _is_text_part(part) else part for part in parts]
    return "".join(text for text in texts if isinstance(text, str))


def _is_text_part(part: Any) -> bool:
    return isinstance(part, Mapping) and part.get("type", "text") in TEXT_PARTS and not part.get("thought")


def _why_empty(message: Mapping[str, Any], reason: str) -> str:
    ended = f", and ended with finish_reason {reason!r}" if reason else ""
    if any(message.get(name) for name in REASONING_FIELDS) or _joined(message.get("content")).strip():
        return f"the answer is reasoning alone, without text{ended}"
    if message.get("tool_calls"):
        return f"the answer calls tools, and has no text{ended}"
    return f"the answer has no text{ended}"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."
