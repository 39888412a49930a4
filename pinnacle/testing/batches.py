"""OpenAI's Batch API, kept in memory: files in, batches run when they are looked at, files out."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pinnacle.testing.answers import Refuse

ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/chat/completions", "/embeddings")
OPEN = ("validating", "in_progress", "cancelling")

Run = Callable[[str, dict[str, Any]], dict[str, Any]]


@dataclass(frozen=True)
class File:
    shown: dict[str, Any]
    content: bytes


class Batches:
    """Files and batches; ``run(url, body)`` answers one request of a batch, or raises Refuse.

    A batch completes at the ``polls``-th look at it. Output lines come in another order than the input's, as
    OpenAI allows itself.
    """

    def __init__(self, run: Run, *, polls: int, results: Callable[[bytes], bytes] | None = None) -> None:
        self._run, self._polls, self._results = run, polls, results
        self._files: dict[str, File] = {}
        self._batches: dict[str, dict[str, Any]] = {}
        self._looks: dict[str, int] = {}
        self._created = 0

    def add_file(self, name: str, purpose: str, content: bytes) -> dict[str, Any]:
        self._created += 1
        shown: dict[str, Any] = {
            "id": f"file-{self._created}", "object": "file", "bytes": len(content), "created_at": int(time.time()),
            "filename": name, "purpose": purpose, "status": "processed",
        }  # fmt: skip
        self._files[shown["id"]] = File(shown, content)
        return shown

    def file(self, identifier: str) -> File:
        if identifier not in self._files:
            raise Refuse(404, f"No such File object: {identifier}")
        return self._files[identifier]

    def delete_file(self, identifier: str) -> dict[str, Any]:
        self.file(identifier)
        del self._files[identifier]
        return {"id": identifier, "object": "file", "deleted": True}

    def create(self, request: dict[str, Any]) -> dict[str, Any]:
        source = self.file(str(request.get("input_file_id")))
        if source.shown["purpose"] != "batch":
            raise Refuse(400, f"The file {source.shown['id']} has the purpose {source.shown['purpose']!r}, not 'batch'")
        if request.get("endpoint") not in ENDPOINTS:
            raise Refuse(400, f"The endpoint of a batch is one of {', '.join(ENDPOINTS)}")
        self._created += 1
        batch: dict[str, Any] = {
            "id": f"batch_{self._created}", "object": "batch", "endpoint": request["endpoint"], "errors": None,
            "input_file_id": source.shown["id"], "completion_window": request.get("completion_window", "24h"),
            "status": "validating", "output_file_id": None, "error_file_id": None, "created_at": int(time.time()),
            "request_counts": {"total": 0, "completed": 0, "failed": 0}, "metadata": request.get("metadata"),
        }  # fmt: skip
        self._batches[batch["id"]] = batch
        self._looks[batch["id"]] = 0
        if self._polls < 1:
            self._finish(batch)
        return batch

    def retrieve(self, identifier: str) -> dict[str, Any]:
        """The batch as it stands; to look at it takes it a step further."""
        batch = self._find(identifier)
        self._looks[identifier] += 1
        if batch["status"] == "cancelling":
            batch |= {"status": "cancelled", "cancelled_at": int(time.time())}
        elif batch["status"] in OPEN and self._looks[identifier] >= self._polls:
            self._finish(batch)
        elif batch["status"] == "validating":
            batch |= {"status": "in_progress", "in_progress_at": int(time.time())}
        return batch

    def cancel(self, identifier: str) -> dict[str, Any]:
        batch = self._find(identifier)
        if batch["status"] not in OPEN:
            raise Refuse(400, f"Cannot cancel a batch with status '{batch['status']}'.")
        batch |= {"status": "cancelling", "cancelling_at": int(time.time())}
        return batch

    def all(self) -> list[dict[str, Any]]:
        """The newest first."""
        return list(reversed(self._batches.values()))

    def _find(self, identifier: str) -> dict[str, Any]:
        if identifier not in self._batches:
            raise Refuse(404, f"No batch found with id '{identifier}'.")
        return self._batches[identifier]

    def _finish(self, batch: dict[str, Any]) -> None:
        now = int(time.time())
        lines, errors = parse(self.file(batch["input_file_id"]).content, batch["endpoint"])
        if errors:
            batch |= {"status": "failed", "failed_at": now, "errors": {"object": "list", "data": errors}}
            return
        answers = [self._answer(batch["id"], number, line) for number, line in enumerate(lines)]
        done = [answer for answer in answers if answer["response"]["status_code"] == 200]
        failed = [answer for answer in answers if answer["response"]["status_code"] != 200]
        counts = {"total": len(lines), "completed": len(done), "failed": len(failed)}
        batch |= {"status": "completed", "completed_at": now, "request_counts": counts}
        for field, kept in (("output_file_id", done), ("error_file_id", failed)):
            if kept:
                content = "".join(json.dumps(line) + "\n" for line in reversed(kept)).encode()
                content = content if self._results is None else self._results(content)
                batch[field] = self.add_file(f"{batch['id']}_{field}.jsonl", "batch_output", content)["id"]

    def _answer(self, batch: str, number: int, line: dict[str, Any]) -> dict[str, Any]:
        try:
            status, body = 200, self._run(line["url"], line["body"])
        except Refuse as refusal:
            status, body = refusal.status, refusal.body
        response = {"status_code": status, "request_id": f"{batch}_{number}", "body": body}
        return {
            "id": f"batch_req_{batch}_{number}", "custom_id": line["custom_id"], "response": response, "error": None,
        }  # fmt: skip


def parse(content: bytes, endpoint: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The requests of an input file, and what is wrong with it: one bad line fails a whole batch."""
    lines: list[dict[str, Any]] = []
    errors = []
    seen = set()
    for number, text in enumerate(content.removesuffix(b"\n").split(b"\n") if content else (), start=1):
        try:
            line = dict(json.loads(text))
        except (ValueError, TypeError):
            errors.append(fault(number, "invalid_json_line", "This line is not parseable as valid JSON."))
            continue
        if missing := {"custom_id", "method", "url", "body"} - set(line):
            message = f"Missing required parameter: '{sorted(missing)[0]}'."
            errors.append(fault(number, "missing_required_parameter", message))
        elif line["url"] != endpoint:
            errors.append(fault(number, "mismatched_url", f"The url is not the batch's endpoint {endpoint}."))
        elif line["custom_id"] in seen:
            errors.append(fault(number, "duplicate_custom_id", f"custom_id {line['custom_id']!r} was used before."))
        else:
            seen.add(line["custom_id"])
            lines.append(line)
    if not lines and not errors:
        errors.append(fault(None, "empty_file", "The input file has no requests."))
    return lines, errors


def fault(line: int | None, code: str, message: str) -> dict[str, Any]:
    return {"code": code, "message": message, "line": line, "param": None}
