"""OpenAI's Batch API: a file of requests in, a file of answers out, within a day and at half the price."""

from __future__ import annotations

import io
import json
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import openai

TOKEN = "pinnacle"
RUNNING = frozenset({"validating", "in_progress", "finalizing", "cancelling"})
UNANSWERED = frozenset({"batch_expired", "batch_cancelled"})
"""The provider did not come to these: they are no errors, and are asked for again."""

ENDPOINT = "/v1/chat/completions"


NAMED = re.compile(rb'"custom_id"\s*:\s*"([^"\\\\]+)"')
"""A request's name, in a line that is no JSON."""


@dataclass(frozen=True)
class Line:
    """What stands in one line of a batch's files: its request's name, the status and the body that came.

    ``error``: what went wrong, where it is not in the body. ``is_unanswered``: the provider did not come to it.
    ``body`` is None where the line cannot be read.
    """

    name: str
    status: int = 200
    body: Mapping[str, Any] | None = None
    error: str | None = None
    is_unanswered: bool = False


@dataclass(frozen=True)
class Results:
    """What a batch has come to. ``failure``: why it failed as a whole. ``is_whole``: every request has its line."""

    lines: Sequence[Line] = ()
    failure: str | None = None
    is_whole: bool = False


async def submit(client: openai.AsyncOpenAI, bodies: Mapping[str, Mapping[str, Any]], token: str, path: str) -> str:
    """Submit request bodies for a path by name; the batch's id."""
    lines = (
        json.dumps({"custom_id": name, "method": "POST", "url": path, "body": body}, ensure_ascii=False)
        for name, body in bodies.items()
    )
    endpoint: Any = path  # the library's type lists OpenAI's own
    content = "\n".join(lines).encode("utf-8", "backslashreplace")
    uploaded = await client.files.create(file=(f"{token}.jsonl", io.BytesIO(content)), purpose="batch")
    batch = await client.batches.create(
        input_file_id=uploaded.id, endpoint=endpoint, completion_window="24h", metadata={TOKEN: token}
    )
    return batch.id


async def find(client: openai.AsyncOpenAI, token: str) -> str | None:
    """The id of the batch that was submitted with a token, among all that the account has."""
    async for batch in client.batches.list(limit=100):
        if (batch.metadata or {}).get(TOKEN) == token:
            return batch.id
    return None


async def fetch(client: openai.AsyncOpenAI, batch_id: str, most: int) -> Results | None:
    """What a batch brought; None while it is worked on. A line of more than ``most`` bytes is not read."""
    try:
        batch = await client.batches.retrieve(batch_id)
        lines = await _answers(client, batch, most)
    except openai.NotFoundError:
        return Results(failure="the provider has it no more")
    if batch.status in RUNNING:
        return None
    if batch.status != "failed":
        if not lines and batch.status == "completed" and _asked(batch):
            return None
        return Results(lines, is_whole=batch.status == "completed" and _has_its_files(batch))
    told = [error.message for error in (batch.errors.data or [])] if batch.errors else []
    return Results(lines, "; ".join(filter(None, told)) or "the provider says no more than that it failed")


async def _answers(client: openai.AsyncOpenAI, batch: Any, most: int) -> list[Line]:
    """What is in the files of a batch that has ended; of a request that stands there more than once the last."""
    lines: dict[str, Line] = {}
    for file_id in filter(None, (batch.error_file_id, batch.output_file_id)) if batch.status not in RUNNING else ():
        async with client.files.with_streaming_response.content(file_id) as content:
            texts = _split(content.iter_bytes(), most)
            lines |= {line.name: line async for text in texts if (line := _line(text)) is not None}
    return list(lines.values())


async def _split(pieces: AsyncIterator[bytes], most: int) -> AsyncIterator[bytes]:
    """The lines of a file, and of one that is too long its beginning, which says whose it is.

    Other line ends may stand within an answer, and bytes that are no UTF-8 are their own line's affair.
    """
    begun = bytearray()
    async for piece in pieces:
        first, *others = piece.split(b"\n")
        begun += first[: max(0, most - len(begun))]
        for text in others:
            yield bytes(begun)
            begun = bytearray(text[:most])
    yield bytes(begun)


def _asked(batch: Any) -> bool:
    """Whether the batch says that it has answers, whose files are not there yet."""
    counts = batch.request_counts
    return counts is not None and counts.completed + counts.failed > 0


def _has_its_files(batch: Any) -> bool:
    """Whether all the files are there that the batch counts lines of."""
    counts = batch.request_counts
    if counts is None:
        return False
    return not (counts.completed and not batch.output_file_id) and not (counts.failed and not batch.error_file_id)


def _line(text: bytes) -> Line | None:
    """One line, as much of it as can be read; None for one that is empty, or does not even say whose it is."""
    try:
        line = json.loads(text.decode()) if text.strip() else None
    except (ValueError, RecursionError):
        found = NAMED.search(text)
        return None if found is None else Line(found[1].decode("utf-8", "replace"))
    if not isinstance(line, dict) or not isinstance(line.get("custom_id"), str):
        return None
    name, error, response = line["custom_id"], line.get("error"), line.get("response")
    response = response if isinstance(response, dict) else {}
    status, body = response.get("status_code"), response.get("body")
    told = None if error is None else str(error.get("message", error) if isinstance(error, dict) else error)
    return Line(
        name, status if isinstance(status, int) else 200, body if isinstance(body, dict) else None, told,
        is_unanswered=isinstance(error, dict) and error.get("code") in UNANSWERED,
    )  # fmt: skip
