"""The server for APIs of a provider's own answers, refuses, and remembers what it was asked."""

from __future__ import annotations

import pytest

from pinnacle.plugin import HttpClient, HttpError, run_coroutine
from pinnacle.testing import JsonServer, Refuse


def answer(path, body):
    if path == "/none":
        raise Refuse(422, "no such thing", {"x-reason": "none"})
    return {"said": body["prompt"].upper()}


def test_it_answers_refuses_and_remembers():
    with JsonServer(answer) as server:
        post = HttpClient().post
        said, headers = run_coroutine(post(f"{server.url}/say", {"prompt": "hello"}))
        assert (said, headers["content-type"]) == ({"said": "HELLO"}, "application/json")
        with pytest.raises(HttpError, match="HTTP 422: no such thing") as refused:
            run_coroutine(post(f"{server.url}/none", {}))
        assert (refused.value.status, refused.value.headers["x-reason"]) == (422, "none")
        assert server.requests == [("/say", {"prompt": "hello"}), ("/none", {})]
