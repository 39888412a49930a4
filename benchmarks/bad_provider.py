"""A provider in a process of its own, whose response to a row depends on the row's first words."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from pinnacle.testing import FakeOpenAI, Refuse, unit_vector
from pinnacle.testing.answers import question

if TYPE_CHECKING:
    from typing import Self

TOLD = "not this one"
GOOD = "fine"


@dataclass(frozen=True)
class Line:
    """A line of the table of what counts as an answer: what is said, and how often it may be asked for.

    ``is_billed``: each of these is a response that costs; ``told``: what of the provider's words is to be shown.
    """

    name: str
    said: Mapping[str, Any]
    is_billed: bool
    tries: int
    told: str = TOLD


def lines(attempts: int, tries: int) -> list[Line]:
    """The lines under which a row is bad; ``attempts`` and ``tries`` are the model's."""
    alone = tries + 2  # where it is not seen at once whether others are served
    return [
        Line("no choices", {"status": 200, "body": {"choices": [], "note": TOLD}}, True, attempts),
        Line("null content", {"content": None}, True, attempts, "no text"),
        Line("an error in a 200", {"status": 200}, True, attempts),
        Line("finish error", {"content": "Half", "finish_reason": "error", "error": TOLD}, True, attempts),
        Line("content_filter", {"content": "Half", "finish_reason": "content_filter"}, True, attempts, "filter"),
        Line("a refusal", {"content": None, "refusal": TOLD}, True, attempts),
        Line("reasoning alone", {"content": None, "reasoning": TOLD}, True, attempts, "reasoning"),
        Line("finish length", {"content": "Half", "finish_reason": "length"}, True, 1, "length"),
        Line("400", {"status": 400}, False, 1),
        Line("413", {"status": 413}, False, 1),
        Line("422", {"status": 422}, False, 1),
        Line("429 too large", {"status": 429, "code": "request_too_large"}, False, 1),
        Line("500", {"status": 500}, False, alone),
        Line("503", {"status": 503}, False, alone),
        Line("no JSON", {"status": 200, "body": b"<html>"}, False, alone, "no JSON"),
    ]


class BadProvider:
    """Serves chat and embeddings; what a bad row is told, and how often each was asked for, comes from here."""

    def __init__(self, latency_s: float) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, latency_s), daemon=True)

    def __enter__(self) -> Self:
        self._process.start()
        self.url: str = self._pipe.recv()
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.send(None)
        self._process.join()

    def say(self, line: Line) -> None:
        """What bad rows are told from now on; counts begin anew."""
        self._ask(line)

    def asked(self) -> Counter[str]:
        """Requests for each bad row, and of all together under an empty text."""
        found: Counter[str] = self._ask("asked")
        return found

    def _ask(self, order: Any) -> Any:
        self._pipe.send(order)
        return self._pipe.recv()


def serve(pipe: Connection, latency_s: float) -> None:
    """Answer until the other side sends None."""
    said: dict[str, Any] = {}
    asked: Counter[str] = Counter()

    def refuse_bad(text: str) -> None:
        if is_bad(text) and "status" in said:
            raise Refuse(said["status"], TOLD, code=said.get("code"), body=said.get("body"))

    def answer(request: dict[str, Any]) -> Any:
        text = question(request)
        asked.update(["", text] if is_bad(text) else [""])
        refuse_bad(text)
        return dict(said) if is_bad(text) else GOOD

    def embed(text: str, dimensions: int) -> list[float]:
        refuse_bad(text)
        return unit_vector(text, dimensions)

    with FakeOpenAI(answer, embed=embed, latency_s=latency_s, keep_requests=0) as server:
        pipe.send(server.url)
        while (order := pipe.recv()) is not None:
            if isinstance(order, Line):
                said.clear()
                said.update(order.said)
                asked.clear()
            pipe.send(Counter(asked))


def is_bad(text: str) -> bool:
    return text.startswith("bad")
