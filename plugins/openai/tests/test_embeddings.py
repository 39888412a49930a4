"""OpenAIEmbedding against a fake server: what is sent, how vectors come back, and batches."""

from __future__ import annotations

import base64
import struct

import numpy as np
import pytest

from pinnacle import ConfigError, NoAnswer
from pinnacle.ext.llm import OpenAIEmbedding
from pinnacle.testing import FakeOpenAI, unit_vector


@pytest.fixture
def server():
    with FakeOpenAI() as running:
        yield running


def body(server, number=-1):
    return server.requests[number].body


def embedder(server, **options):
    return OpenAIEmbedding(**{"base_url": server.url, "api_key": "any", "retry_delay_s": 0, **options})


def test_embeddings_are_asked_for_as_base64_and_are_float32_numbers(server):
    assert embedder(server).embed("abc") == [unit_vector("abc")]
    assert body(server) == {"model": "text-embedding-3-small", "input": ["abc"], "encoding_format": "base64"}
    assert embedder(server).embed(["a", "b"]) == [unit_vector("a"), unit_vector("b")]


def test_a_server_that_sends_numbers_is_understood_too():
    answer = {"data": [{"index": 1, "embedding": [3.0, 4.0]}, {"index": 0, "embedding": [1.0, 2.0]}]}
    from pinnacle_openai.embedding import _vectors

    assert _vectors(answer) == [[1.0, 2.0], [3.0, 4.0]]
    packed = base64.b64encode(struct.pack("<2f", 0.5, -2.0)).decode()
    assert _vectors({"data": [{"index": 0, "embedding": packed}]}) == [[0.5, -2.0]]


@pytest.mark.parametrize("places", [(0, 0), (1, 2), (0, 2), (-1, 0)])
def test_vectors_at_places_that_cannot_be_are_no_answer(places):
    from pinnacle_openai.embedding import _vectors

    with pytest.raises(NoAnswer, match="places"):
        _vectors({"data": [{"index": place, "embedding": [1.0]} for place in places]})


@pytest.mark.parametrize(
    "vectors",
    [
        [[]], [[1.0, float("nan")]], [[float("inf"), 1.0]], [[1e39, 1.0]], [["1", "2"]], [[None, 1.0]], [[[1.0, 2.0]]],
        [[10**400, 1]], [[1.0, 2.0], [1.0]], [""], [base64.b64encode(struct.pack("<2f", float("nan"), 1.0)).decode()],
    ],
)  # fmt: skip
def test_what_is_no_vector_of_numbers_is_no_answer(vectors):
    from pinnacle_openai.embedding import _vectors

    with pytest.raises(NoAnswer):
        _vectors({"data": [{"index": place, "embedding": vector} for place, vector in enumerate(vectors)]})


def test_dimensions_are_sent_where_they_are_given(server):
    assert embedder(server, dimensions=3).embed("abc") == [unit_vector("abc", 3)]
    assert body(server)["dimensions"] == 3
    assert embedder(server, dimensions=3).resolved_output_type().dim == 3


def test_texts_go_out_in_batches_and_vectors_come_back_in_order(server):
    texts = [f"{'word ' * (number * 7 % 5)}{number}" for number in range(25)]
    llm = embedder(server, batch_size=10, cost=0.5)
    np.testing.assert_array_equal(llm.embed(texts), [unit_vector(text) for text in texts])
    assert sorted(len(request.body["input"]) for request in server.requests) == [5, 10, 10]
    assert llm.spent.total.cost == 0.5 * sum(len(text.split()) for text in texts)


@pytest.mark.parametrize(("kind", "requests"), [("500", 2), ("garbage", 2), ("cut", 2), ("empty", 3), ("null", 3)])
def test_an_embedding_that_does_not_come_is_asked_for_again(kind, requests):
    """After a response without vectors, which is billed, each text is asked for alone."""
    with FakeOpenAI(faults=[kind]) as server:
        assert embedder(server).embed(["a", "b"]) == [unit_vector("a"), unit_vector("b")]
        assert server.received == requests


@pytest.mark.parametrize("word", ["model", "input", "encoding_format"])
def test_what_is_made_of_other_fields_cannot_be_set_as_a_keyword(server, word):
    with pytest.raises(ConfigError, match=word):
        embedder(server).embed("a", **{word: "x"})
    assert len(server.requests) == 0
