"""The fake server's Batch API, from the upload to the output files, as OpenAI's own client uses it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import openai
import pytest

from pinnacle.testing import FakeOpenAI, Refuse, unit_vector
from tests.unit.test_fake_server import client_of

CHAT = "/v1/chat/completions"


def line(custom_id: str, text: str, *, url: str = CHAT) -> dict[str, Any]:
    body = {"model": "m", "messages": [{"role": "user", "content": text}]}
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": body}


def submit(client: openai.OpenAI, lines: list[Any], *, endpoint: Any = CHAT) -> Any:
    content = "\n".join(json.dumps(each, ensure_ascii=False) for each in lines).encode()
    file = client.files.create(file=("input.jsonl", content), purpose="batch")
    return client.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window="24h")


def rows(client: openai.OpenAI, file_id: str | None) -> dict[str, Any]:
    """The lines of an output file by custom_id."""
    assert file_id is not None
    found = [json.loads(text) for text in client.files.content(file_id).text.splitlines()]
    return {row["custom_id"]: row for row in found}


def refuse_bad(request: dict[str, Any]) -> str:
    text = request["messages"][-1]["content"]
    if "bad" in text:
        raise Refuse(400, f"{text} is refused", code="invalid_value")
    return text.upper()


def test_a_batch_answers_every_line_and_sets_refused_ones_aside():
    with FakeOpenAI(refuse_bad) as server, client_of(server) as client:
        batch = submit(client, [line("a", "one"), line("b", "bad one"), line("c", "two\u2028three")])
        assert batch.status == "validating"
        done = client.batches.retrieve(batch.id)
        output, errors = rows(client, done.output_file_id), rows(client, done.error_file_id)
    assert (done.status, done.errors) == ("completed", None)
    assert done.request_counts.model_dump() == {"total": 3, "completed": 2, "failed": 1}
    texts = {key: row["response"]["body"]["choices"][0]["message"]["content"] for key, row in output.items()}
    assert texts == {"a": "ONE", "c": "TWO\u2028THREE"}
    assert set(output["a"]) == {"id", "custom_id", "response", "error"}
    assert (output["a"]["response"]["status_code"], output["a"]["error"]) == (200, None)
    assert errors["b"]["response"]["status_code"] == 400
    assert errors["b"]["response"]["body"]["error"]["message"] == "bad one is refused"
    assert server.stats()["prompt_tokens"] == 3


def test_output_lines_come_in_another_order_than_the_input():
    with FakeOpenAI() as server, client_of(server) as client:
        batch = submit(client, [line(str(number), "x") for number in range(5)])
        done = client.batches.retrieve(batch.id)
        assert list(rows(client, done.output_file_id)) == ["4", "3", "2", "1", "0"]
        assert done.error_file_id is None


def test_a_batch_completes_after_so_many_looks():
    with FakeOpenAI(batch_polls=3) as server, client_of(server) as client:
        batch = submit(client, [line("a", "x")])
        statuses = [client.batches.retrieve(batch.id).status for _ in range(4)]
        assert statuses == ["in_progress", "in_progress", "completed", "completed"]
    with FakeOpenAI(batch_polls=0) as server, client_of(server) as client:
        assert submit(client, [line("a", "x")]).status == "completed"


def test_embeddings_can_be_batched():
    request = {"custom_id": "a", "method": "POST", "url": "/v1/embeddings", "body": {"model": "m", "input": "text"}}
    with FakeOpenAI() as server, client_of(server) as client:
        batch = client.batches.retrieve(submit(client, [request], endpoint="/v1/embeddings").id)
        answer = rows(client, batch.output_file_id)["a"]["response"]["body"]
    assert answer["data"][0]["embedding"] == unit_vector("text")


def test_a_batch_can_be_cancelled_until_it_is_completed():
    with FakeOpenAI(batch_polls=2) as server, client_of(server) as client:
        batch = submit(client, [line("a", "x")])
        assert client.batches.cancel(batch.id).status == "cancelling"
        assert client.batches.retrieve(batch.id).status == "cancelled"
        assert client.batches.retrieve(batch.id).output_file_id is None
        with pytest.raises(openai.BadRequestError, match="status 'cancelled'"):
            client.batches.cancel(batch.id)


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        (["not an object"], "invalid_json_line"),
        ([{"custom_id": "a"}], "missing_required_parameter"),
        ([line("a", "x"), line("a", "y")], "duplicate_custom_id"),
        ([line("a", "x", url="/v1/embeddings")], "mismatched_url"),
        ([], "empty_file"),
    ],
)
def test_one_bad_line_fails_the_batch(lines, code):
    with FakeOpenAI() as server, client_of(server) as client:
        failed = client.batches.retrieve(submit(client, lines).id)
    assert (failed.status, failed.output_file_id) == ("failed", None)
    assert [error.code for error in failed.errors.data] == [code]


def test_what_does_not_exist_is_not_found():
    with FakeOpenAI() as server, client_of(server) as client:
        for look in (client.batches.retrieve, client.batches.cancel, client.files.retrieve, client.files.content):
            with pytest.raises(openai.NotFoundError):
                look("nothing")
        with pytest.raises(openai.NotFoundError):
            client.batches.create(input_file_id="nothing", endpoint=CHAT, completion_window="24h")


def test_a_batch_needs_a_file_for_batches_and_an_endpoint():
    with FakeOpenAI() as server, client_of(server) as client:
        file = client.files.create(file=("input.jsonl", b"{}"), purpose="fine-tune")
        with pytest.raises(openai.BadRequestError, match="purpose"):
            client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
        with pytest.raises(openai.BadRequestError, match="endpoint"):
            submit(client, [line("a", "x")], endpoint="/v1/models")


def test_files_are_described_read_and_deleted_and_batches_listed():
    with FakeOpenAI() as server, client_of(server) as client:
        file = client.files.create(file=("input.jsonl", b"content"), purpose="batch")
        assert (file.filename, file.bytes, file.purpose) == ("input.jsonl", 7, "batch")
        assert client.files.retrieve(file.id) == file
        assert client.files.content(file.id).read() == b"content"
        assert client.files.delete(file.id).deleted
        with pytest.raises(openai.NotFoundError):
            client.files.retrieve(file.id)
        created = [submit(client, [line("a", "x")]).id for _ in range(2)]
        assert [batch.id for batch in client.batches.list()] == created[::-1]


def test_the_asynchronous_client_runs_a_batch_too():
    async def run(url: str) -> str:
        async with openai.AsyncOpenAI(base_url=url, api_key="any", max_retries=0, timeout=10) as client:
            content = json.dumps(line("a", "ab")).encode()
            file = await client.files.create(file=("input.jsonl", content), purpose="batch")
            batch = await client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
            done = await client.batches.retrieve(batch.id)
            return (await client.files.content(done.output_file_id or "")).text

    with FakeOpenAI() as server:
        answer = json.loads(asyncio.run(run(server.url)))
    assert answer["response"]["body"]["choices"][0]["message"]["content"] == "ba"


def test_a_large_input_file_is_taken_whole():
    with FakeOpenAI(refuse_bad) as server, client_of(server) as client:
        batch = submit(client, [line(str(number), "x" * 2000) for number in range(2000)])  # 4 MB
        assert client.batches.retrieve(batch.id).request_counts.completed == 2000
