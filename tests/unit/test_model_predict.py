"""Models on values and lists: no database anywhere."""

from __future__ import annotations

import asyncio
import functools
import threading
from typing import Any

import numpy as np
import pytest

from pinnacle import ConfigError, Model, ModelError, OutputCountMismatch, Vector, model
from pinnacle.base.types import Float, Integer, Json, Text
from pinnacle.plugin import CallStyle


@model
def word_count(body: str) -> int:
    """Count words."""
    return len(body.split())


@model(batch=True)
def lengths(texts: list[str]) -> list[int]:
    return [len(text) for text in texts]


@model
async def shout(text: str, mark: str = "!") -> str:
    await asyncio.sleep(0)
    return text.upper() + mark


class Embedder(Model):
    """Embeds a text as (length, batch size it was handed in)."""

    def predict_batch(self, inputs: list[Any], **kwargs: Any) -> np.ndarray:
        return np.array([[len(text), len(inputs)] for text in inputs], dtype=np.float32)

    def length_of(self, value: Any) -> int:
        return len(value)


def test_a_value_gives_one_output_and_a_list_gives_a_list_in_order():
    assert word_count.predict("three words here") == 3
    assert word_count.predict(["a", "b c", ""]) == [1, 2, 0]
    assert word_count.predict([]) == []


def test_a_decorated_function_is_still_called_like_the_function():
    assert word_count("a b") == 2
    assert word_count.__name__ == "word_count"
    assert word_count.__doc__ == "Count words."


def test_further_arguments_go_to_the_function():
    assert shout.predict("a", mark="?") == "A?"
    assert shout.predict("a", "?") == "A?"
    assert shout.predict(["a", "b"], mark="?") == ["A?", "B?"]


def test_a_tuple_is_one_value():
    assert model(lambda pair: pair[0] + pair[1], identifier="add", output_type=int).predict((1, 2)) == 3


def test_a_batch_function_gets_one_value_as_a_batch_of_one():
    assert lengths.predict("abc") == 3
    assert lengths.predict(["abc", "d"]) == [3, 1]


def test_batches_are_no_larger_than_asked():
    embed = Embedder("embed", batch_size=2)
    assert embed.predict(["a"] * 5)[:, 1].tolist() == [2, 2, 2, 2, 1]
    assert embed.predict(["a"] * 5, batch_size=3)[:, 1].tolist() == [3, 3, 3, 2, 2]


def test_an_embedders_list_is_one_array_in_input_order():
    rows = Embedder("embed", batch_size=2).predict(["ccc", "a", "dddd", "bb"])
    assert rows.shape == (4, 2)
    assert rows.dtype == np.float32
    assert rows[:, 0].tolist() == [3, 1, 4, 2]


def test_batches_hold_inputs_of_similar_length():
    seen = []

    class Watching(Embedder):
        def predict_batch(self, inputs, **kwargs):
            seen.append(sorted(map(len, inputs)))
            return super().predict_batch(inputs)

    Watching("watching", batch_size=2).predict(["cccc", "a", "ddddd", "b"])
    assert seen == [[1, 1], [4, 5]]


@pytest.mark.parametrize(("returned", "named"), [([1], "1 outputs for 2 inputs"), ("ab", "one str for 2 inputs")])
def test_too_few_outputs_name_both_counts(returned, named):
    broken = model(lambda texts: returned, identifier="broken", batch=True, output_type=int)
    with pytest.raises(OutputCountMismatch, match=named):
        broken.predict(["a", "b"])


def test_a_batch_that_is_no_sequence_is_a_model_error():
    broken = model(lambda texts: 7, identifier="broken", batch=True, output_type=int)
    with pytest.raises(ModelError, match="returned int for a batch of 2"):
        broken.predict(["a", "b"])


def test_an_async_model_is_called_from_plain_code():
    assert shout.predict("a") == "A!"
    assert shout.predict(["a", "b", "c"]) == ["A!", "B!", "C!"]


def test_a_synchronous_predict_works_inside_a_running_loop():
    async def notebook_cell() -> Any:
        return shout.predict(["a", "b"])

    assert asyncio.run(notebook_cell()) == ["A!", "B!"]


def test_apredict_runs_async_models_on_the_callers_loop():
    loops = []

    @model
    async def where(value: int) -> int:
        loops.append(asyncio.get_running_loop())
        return value + 1

    async def caller() -> Any:
        assert await where.apredict(1) == 2
        assert await where.apredict([1, 2]) == [2, 3]
        return asyncio.get_running_loop()

    assert set(loops) <= {asyncio.run(caller())} | set(loops[:1])
    assert len(set(loops)) == 1


def test_apredict_runs_other_models_beside_the_loop():
    async def caller() -> Any:
        return await word_count.apredict(["a b", "c"]), await lengths.apredict("abc")

    assert asyncio.run(caller()) == ([2, 1], 3)


def test_an_async_model_has_no_more_calls_in_flight_than_its_concurrency():
    in_flight, most = 0, 0

    @model(concurrency=3)
    async def watched(value: int) -> int:
        nonlocal in_flight, most
        in_flight += 1
        most = max(most, in_flight)
        await asyncio.sleep(0)
        in_flight -= 1
        return -value

    assert watched.predict(list(range(20))) == [-i for i in range(20)]
    assert most == 3


def test_an_async_error_cancels_the_calls_in_flight():
    cancelled = []

    @model(concurrency=2)
    async def sometimes(value: int) -> int:
        if value == 0:
            raise ValueError("zero")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(value)
            raise
        return value

    with pytest.raises(ValueError, match="zero"):
        sometimes.predict([1, 0, 2])
    assert cancelled == [1]


def test_a_value_model_may_run_on_threads():
    both = threading.Barrier(2, timeout=600)

    @model(concurrency=2)
    def meets(value: int) -> int:
        both.wait()
        return value

    assert meets.predict([1, 2]) == [1, 2]


def test_call_styles_follow_the_function():
    assert word_count.call_style is CallStyle.VALUE
    assert lengths.call_style is CallStyle.BATCH
    assert shout.call_style is CallStyle.ASYNC
    assert (word_count.concurrency, shout.concurrency) == (1, 16)
    assert Embedder("embed").call_style is CallStyle.BATCH
    assert model(functools.partial(shout.function, mark="?"), identifier="p").call_style is CallStyle.ASYNC


def test_output_types_come_from_annotations():
    assert word_count.resolved_output_type() == Integer()
    assert lengths.resolved_output_type() == Integer()
    assert shout.resolved_output_type() == Text()

    @model
    def textual(body: str) -> Vector(3):
        return [0.0] * 3

    assert textual.resolved_output_type() == Vector(3)
    assert model(lambda x: x, identifier="declared", output_type=Vector(2)).resolved_output_type() == Vector(2)
    assert model(lambda x: x, identifier="declared", output_type=dict).resolved_output_type() == Json()


def test_a_subclass_is_annotated_on_its_method():
    class Half(Model):
        def predict_one(self, value: int) -> float:
            return value / 2

    assert Half("half").resolved_output_type() == Float()
    assert Half("half").predict([1, 2]) == [0.5, 1.0]


@pytest.mark.parametrize(
    "unclear",
    [
        model(lambda x: x, identifier="bare"),
        model(lambda x: x, identifier="list", batch=True),
        Embedder("embed"),
    ],
)
def test_an_unknown_output_type_says_what_to_declare(unclear):
    with pytest.raises(ConfigError, match="needs an output type"):
        unclear.resolved_output_type()


def test_null_inputs_are_skipped_unless_they_are_declared():
    def takes_none(x: str | None) -> int:
        return 0

    def option(x: str, y: str | None = None) -> int:
        return 0

    assert word_count.skip_null
    assert model(option).skip_null
    assert not model(takes_none).skip_null
    assert model(takes_none, skip_null=True).skip_null


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: model(lambda: 1, identifier="none"), "takes no input"),
        (lambda: model(lambda x: x), "pass identifier="),
        (lambda: model("name"), "takes a function"),
        (lambda: model(int), "needs a function"),
        (lambda: model(shout.function, batch=True), "async and batch=True"),
        (lambda: model(word_count.function, batch_size=0), "batch_size is a whole number"),
        (lambda: model(word_count.function, concurrency=-1), "concurrency is a whole number"),
        (lambda: model(word_count.function, max_attempts=0), "max_attempts is a whole number"),
        (lambda: model(word_count.function, retry_delay_s=float("nan")), "retry_delay_s"),
        (lambda: model(word_count.function, identifier=" "), "non-empty string"),
        (lambda: model(word_count.function, output_type=object), "needs an output type"),
        (lambda: Model("nothing").predict(1), "implements none of"),
    ],
)
def test_a_wrong_declaration_says_what_is_wrong(make, why):
    with pytest.raises(ConfigError, match=why):
        make()


@pytest.mark.parametrize(
    ("call", "why"),
    [
        (lambda: word_count.predict(), "needs a value, or X="),
        (lambda: word_count.predict(X="body"), "X= without db="),
        (lambda: word_count.predict("text", limit=3), "limit= without db="),
        (lambda: word_count.predict("text", db=object()), "a value and a database"),
        (lambda: word_count.predict(db=object()), "needs X="),
        (lambda: asyncio.run(shout.apredict("text", limit=3)), "limit= without db="),
    ],
)
def test_mixing_values_and_rows_is_refused(call, why):
    with pytest.raises(ConfigError, match=why):
        call()


def test_predict_on_rows_hands_everything_to_the_database():
    class Recorder:
        def predict(self, component: Model, **options: Any) -> Any:
            self.component, self.options = component, options
            return "result"

    db = Recorder()
    assert word_count.predict(X="body", db=db, select="q", output="n", limit=2, temperature=0.5) == "result"
    assert db.component is word_count
    assert db.options == {
        "X": "body", "select": "q", "output": "n", "limit": 2, "batch_size": None, "overwrite": False,
        "on_error": "isolate", "progress": None, "dry_run": False, "listen": False, "budget": None,
        "mode": "live", "adopt": False, "temperature": 0.5,
    }  # fmt: skip
    assert asyncio.run(word_count.apredict(X="body", db=db)) == "result"
