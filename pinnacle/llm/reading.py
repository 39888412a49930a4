"""Finds an answer in what a model says: after its thoughts, inside fences and emphasis, among prose.

Only what cannot be meant otherwise is taken: where two answers stand in a text, none of them is.
"""

from __future__ import annotations

import json
import math
import re
import string
from collections.abc import Iterator, Sequence
from typing import Any

THOUGHTS = "think|thinking|thought|thoughts|reasoning|reflection|scratchpad|seed:think"
OPENING = re.compile(rf"\s*(?:<(?:{THOUGHTS})>|\[think\]|◁think▷|<\|begin_of_thought\|>)", re.IGNORECASE)
CLOSING = re.compile(
    rf"</(?:{THOUGHTS})>|\[/think\]|◁/think▷|<\|end_of_thought\|>|<\|channel\|>final<\|message\|>", re.IGNORECASE
)
WRAPPED = re.compile(r"<(answer|output|response|result)>(.*)</\1>", re.IGNORECASE | re.DOTALL)
END = re.compile(r"(?:<\|(?:end|return|im_end|eot_id|endoftext)\|>|</s>)\s*$")
FENCE = re.compile(r"```[^\S\n]*+([A-Za-z0-9_+-]*+)[^\S\n]*+\n(.*?)```", re.DOTALL)
EMPHASIS = re.compile(r"[*`]+|(?<!\w)_+|(?<!_)_++(?!\w)")
LABEL = re.compile(
    r"(?:(?:the|my|so|final|correct|best) )*"
    r"(?:answer|choice|label|category|class|classification|option|sentiment|result|output)"
    r"(?: is)?(?:\s*[:=：]\s*|\s+)(.+)",
    re.IGNORECASE,
)
AROUND = string.whitespace + "\"'`."
MOST_BEGINNINGS = 200
"""Places of a text that are tried as the beginning of JSON."""


def without_thoughts(text: str) -> str:
    """What a model says after its thoughts; empty where it only thinks."""
    closings = list(CLOSING.finditer(text))
    said = text[closings[-1].end() :] if closings else text
    if OPENING.match(said):
        return ""
    said = END.sub("", said)
    wrapped = WRAPPED.fullmatch(said.strip())
    return wrapped[2] if wrapped else said


def is_thought_alone(text: str) -> bool:
    """Whether a text begins with a model's thoughts, and nothing follows them."""
    return OPENING.match(text) is not None and not without_thoughts(text).strip()


def without_fence(text: str) -> str:
    """The text inside a Markdown code fence that is around all of it."""
    bare = text.strip()
    if not (bare.startswith("```") and bare.endswith("```") and len(bare) > 6):
        return bare
    first, _, rest = bare[3:-3].partition("\n")
    return rest.strip() if first.strip().isalpha() or not first.strip() else bare[3:-3].strip()


def wholes(text: str) -> list[str]:
    """The texts that an answer may be as a whole, the likeliest first: nothing but thoughts and fences is taken off."""
    said = without_thoughts(text)
    return list(dict.fromkeys([text.strip(), without_fence(text), said.strip(), without_fence(said)]))


def fenced(text: str) -> list[str]:
    """What stands in the fences of a text."""
    return [match[2].strip() for match in FENCE.finditer(without_thoughts(text))]


def objects(text: str) -> Iterator[str]:
    """The JSON objects, and lists of them or of texts, that stand in a text as written; of nested ones the outer."""
    said = without_thoughts(text)
    place = tried = 0
    while (beginning := _BEGINNING.search(said, place)) is not None and tried < MOST_BEGINNINGS:
        place, tried = beginning.start() + 1, tried + 1
        try:
            _, end = _DECODER.raw_decode(said, beginning.start())
        except (ValueError, RecursionError):
            continue
        yield said[beginning.start() : end]
        place = end


def choice_in(text: str, choices: Sequence[str]) -> str | None:
    """The choice that a text is, or that its last line is and no other; None where there is none."""
    said = without_thoughts(text)
    if (whole := _chosen([text, without_fence(text), said, without_fence(said)], choices)) is not None:
        return whole
    lines = [line for line in said.splitlines() if line.strip()]
    found = [choice for line in lines if (choice := _chosen([line], choices)) is not None]
    return found[0] if len(found) == 1 and _chosen(lines[-1:], choices) is not None else None


def _chosen(texts: Sequence[str], choices: Sequence[str]) -> str | None:
    """A choice as it is written, or where capitals, quotes, full stops, emphasis or a label alone differ."""
    if written := [text for text in texts if text in choices]:
        return written[0]
    likely: set[str] = set()
    for read in (_folded, _unmarked, _unlabelled):
        seen = {read(text) for text in texts} - {""}
        likely = {choice for choice in choices if _folded(choice) in seen}
        if likely:
            break
    return likely.pop() if len(likely) == 1 else None


def _folded(text: str) -> str:
    """A text without capitals and what may stand around a word."""
    return text.strip(AROUND).casefold()


def _unmarked(text: str) -> str:
    return _folded(EMPHASIS.sub("", text).strip().lstrip("#>- "))


def _unlabelled(text: str) -> str:
    labelled = LABEL.fullmatch(EMPHASIS.sub("", text).strip().lstrip("#>- "))
    return _folded(labelled[1]) if labelled else ""


def read_json(text: str) -> Any:
    """The value of JSON. Raises ValueError, or RecursionError, for what is none, and for what databases do not keep."""
    return _DECODER.decode(text)


def _no_json(constant: str) -> Any:
    """NaN and infinities, which Python's reader takes and databases do not."""
    raise ValueError(f"{constant} is no JSON")


def _finite(written: str) -> float:
    number = float(written)
    return number if math.isfinite(number) else _no_json(written)


_BEGINNING = re.compile(r'\{|\[\s*[{\["]')
_DECODER = json.JSONDecoder(parse_constant=_no_json, parse_float=_finite)
