"""OpenAI's Batch API: a file of requests in, a file of answers out, within a day and at half the price."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import openai

TOKEN = "pinnacle"
RUNNING = frozenset({"validating", "in_progress", "finalizing", "cancelling"})
UNANSWERED = frozenset({"batch_expired", "batch_cancelled"})
"""The provider did not come to these: they are no errors, and are asked for again."""

BUSY = frozenset({408, 429, 500, 502, 503, 504})
"""Statuses of a line that say nothing of the request itself."""

ENDPOINT = "/v1/chat/completions"


@dataclass(frozen=True)
class Line:
    """One answer of a batch: its request's name, and the body or what went wrong."""

    name: str
    body: Any
    error: str | None


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


async def fetch(client: openai.AsyncOpenAI, batch_id: str) -> tuple[str | None, list[Line]] | None:
    """Why it failed as a whole, if it did, and its lines; None while it is worked on."""
    try:
        batch = await client.batches.retrieve(batch_id)
        lines = await _answers(client, batch)
    except openai.NotFoundError:
        return "the provider has it no more", []
    if batch.status in RUNNING:
        return None
    if batch.status != "failed":
        return None if not lines and batch.status == "completed" and _asked(batch) else (None, lines)
    told = [error.message for error in (batch.errors.data or [])] if batch.errors else []
    return "; ".join(filter(None, told)) or "the provider says no more than that it failed", lines


async def _answers(client: openai.AsyncOpenAI, batch: Any) -> list[Line]:
    """What is in the files of a batch that has ended."""
    lines: list[Line] = []
    for file_id in filter(None, (batch.output_file_id, batch.error_file_id)) if batch.status not in RUNNING else ():
        content = await client.files.content(file_id)
        lines += _lines(content.text.split("\n"))  # other line ends may stand within an answer
    return lines


def _asked(batch: Any) -> bool:
    """Whether the batch says that it has answers, whose files are not there yet."""
    counts = batch.request_counts
    return counts is not None and counts.completed + counts.failed > 0


def _lines(texts: Iterable[str]) -> Iterator[Line]:
    for text in texts:
        if not text.strip():
            continue
        line = json.loads(text)
        response = line.get("response") or {}
        body = response.get("body")
        error = line.get("error")
        is_unanswered = isinstance(error, dict) and error.get("code") in UNANSWERED
        if is_unanswered or response.get("status_code", 200) in BUSY:
            continue
        if error is None and response.get("status_code", 200) >= 400:
            error = (body or {}).get("error") or f"HTTP {response['status_code']}"
        told = None if error is None else str(error.get("message", error) if isinstance(error, dict) else error)
        yield Line(line["custom_id"], body, told)
