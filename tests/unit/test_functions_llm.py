"""Language models and embedders made of functions, and of classes that users write."""

from __future__ import annotations

import copy
import dataclasses as dc
import gc
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

import pinnacle
from pinnacle import (
    AccountRefused,
    ConfigError,
    ContextOverflow,
    Model,
    ModelUnavailable,
    OutputCountMismatch,
    ProviderUnavailable,
    Vector,
    cos_sim,
)
from pinnacle.base import loop
from pinnacle.ext.llm import BaseLLMAPI, BaseLLMModel, EmbedModel
from pinnacle.llm.threads import CallThreads
from pinnacle.testing import unit_vector
from tests.contract.documents import wait_until
from tests.llms import DIMENSIONS, areply, embedder, llm, recorder, reply
from tests.models import CALLS

KEY = "sk-do-not-tell"
floats = st.floats(-1e6, 1e6)


@pytest.fixture
def calls():
    CALLS.clear()
    return CALLS


# -- Model.from_function ---------------------------------------------------------------------------------


@pytest.mark.parametrize("fn", [reply, areply])
def test_a_function_answers_whether_it_is_async_or_not(fn):
    model = llm(fn=fn)
    assert model.predict("hello there") == "HELLO THERE"
    assert model.predict(["a", "b"]) == ["A", "B"]
    assert model.spent.total.input_tokens == 4


def test_a_function_may_return_the_text_alone():
    assert recorder("text").model.predict("x") == "text"
    assert recorder(lambda prompt: ("text", None)).model.predict("x") == "text"


def test_a_functions_calls_run_side_by_side_in_threads():
    together = threading.Barrier(4, timeout=600)
    asked = recorder(lambda prompt: f"{together.wait()}"[:0] + prompt, max_batch_size=4)
    assert asked.model.predict(list("abcd")) == list("abcd")


def test_a_function_sees_its_model_its_arguments_and_its_client():
    seen = []

    def call(model, prompt, **parameters):
        seen.append((model.client, model.args, parameters))
        return prompt

    model = Model.from_function("m", fn=call, setup_fn=lambda key: [key], api_key=KEY, args={"region": "eu"})
    model.predict("x", temperature=1)
    assert seen == [([KEY], {"region": "eu"}, {"temperature": 1})]


def test_setup_is_called_once_even_from_many_threads_and_not_before_the_first_call():
    made = []

    def setup(key):
        time.sleep(0.05)
        made.append(key)
        return object()

    clients = set()
    asked = recorder(lambda prompt: "ok", setup_fn=setup, api_key=KEY)
    asked.model.fn = lambda model, prompt: str(clients.add(id(model.client)))
    assert made == []
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: asked.model.predict(["x"] * 4), range(8)))
    assert (made, len(clients)) == ([KEY], 1)


def test_without_a_setup_there_is_no_client():
    assert recorder().model.client is None


@pytest.mark.parametrize("wrong", [{"fn": None}, {"fn": "call"}, {"fn": str}, {"setup_fn": 7}, {"setup_fn": areply}])
def test_what_is_no_function_is_refused_at_construction(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        recorder(**wrong)


# -- keys ------------------------------------------------------------------------------------------------


def test_a_key_is_read_from_the_environment_when_it_is_needed(monkeypatch):
    seen = []
    model = recorder(setup_fn=seen.append, api_key="env:MY_KEY").model
    monkeypatch.setenv("MY_KEY", KEY)
    assert model.predict("x") == "ok"
    assert seen == [KEY]


def test_a_missing_key_is_told_by_the_name_of_its_variable_and_nothing_is_asked(monkeypatch):
    monkeypatch.delenv("MY_KEY", raising=False)
    asked = recorder(api_key="env:MY_KEY")
    with pytest.raises(AccountRefused, match="environment variable MY_KEY, which is not set"):
        asked.model.predict("x")
    assert asked.asked == []


def test_args_hold_what_their_variables_do_for_the_function_alone(monkeypatch):
    monkeypatch.setenv("MY_KEY", KEY)
    seen = []
    given = {"token": "env:MY_KEY", "more": [{"n": 1, "sig": "env:MY_KEY"}]}
    model = llm(fn=lambda model, prompt: str(seen.append((model.args, model.identifier))), args=given)
    model.predict("x")
    assert seen == [({"token": KEY, "more": [{"n": 1, "sig": KEY}]}, model.identifier)]
    assert model.args == given
    assert KEY not in repr(model) + repr(vars(model))


@pytest.mark.parametrize("args", [{"api_key": "q9!"}, {"a": [{"X": "sk-0123456789abc"}]}, {"password": "x"}])
def test_a_secret_in_plain_text_among_the_args_is_refused(args):
    with pytest.raises(ConfigError, match=r"looks like a secret .* pass 'env:NAME'"):
        llm(args=args)


@pytest.mark.parametrize("make", [llm, embedder])
def test_a_key_is_in_no_repr_no_catalog_and_no_pickle(make, monkeypatch, tmp_path):
    monkeypatch.setenv("MY_KEY", KEY)
    model = make(api_key="env:MY_KEY", setup_fn=client_of)
    model.predict(["x"])
    assert KEY not in repr(model)
    assert KEY.encode() not in pickle.dumps(model)
    literal = make(api_key=KEY)
    assert KEY not in repr(literal)
    with pinnacle.pinnacle(f"sqlite:///{tmp_path / 'a.db'}") as db:
        db.add(model)
        db.add(dc.replace(literal, identifier="literal"))
        assert db.load("model", model.identifier).api_key == "env:MY_KEY"
        assert db.load("model", "literal").api_key is None
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert KEY.encode() not in stored
    assert b"env:MY_KEY" in stored


def client_of(key: str) -> dict[str, str]:
    return {"key": key}


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_used_model_can_be_copied_and_asked_again(copied):
    model = llm(fn=reply, setup_fn=client_of)
    model.predict("x")
    again = copied(model)
    assert again.predict("y") == "Y"
    assert (model.spent.total.calls, again.spent.total.calls) == (1, 1)


# -- users' own classes ------------------------------------------------------------------------------------


@dc.dataclass
class CustomLLM(BaseLLMModel):
    path: str = "weights"
    made: Any = dc.field(default_factory=list, compare=False)

    def init(self):
        time.sleep(0.02)
        self.made.append(self.path)

    def _generate(self, messages, **kwargs):
        return f"{messages} {kwargs}" if kwargs else f"{messages}"


@dc.dataclass
class CustomAPI(BaseLLMAPI):
    suffix: str = "!"

    def _generate(self, prompt, **kwargs):
        return f"{prompt}{self.suffix}", (1, 1)


@dc.dataclass
class CustomAsync(CustomAPI):
    async def _generate(self, prompt, **kwargs):  # type: ignore[override]
        return f"{prompt}{self.suffix}"


def test_init_is_called_once_at_the_first_predict_even_from_many_threads():
    model = CustomLLM("custom", path="p")
    assert model.made == []
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(model.predict, "abcdefgh")) == list("abcdefgh")
    assert model.made == ["p"]


def test_a_models_generate_gets_the_templated_string_or_the_dialog_and_what_is_sent():
    model = CustomLLM("custom", prompt_template="<{input}>", inference_kwargs={"top_k": 3})
    assert model.predict("a") == "<a> {'top_k': 3}"
    assert model.predict(["a", "b"], top_k=4) == ["<a> {'top_k': 4}", "<b> {'top_k': 4}"]
    plain = CustomLLM("custom")
    assert plain.predict([{"role": "user", "content": "a"}]) == "[{'role': 'user', 'content': 'a'}]"
    assert plain.predict([]) == []


@pytest.mark.parametrize("cls", [CustomAPI, CustomAsync])
def test_an_apis_generate_may_be_a_function_or_a_coroutine(cls):
    model = cls("api", suffix="?", prompt_template="<{input}>")
    assert model.predict("a") == "<a>?"
    assert model.predict(["a", "b"]) == ["<a>?", "<b>?"]


def test_a_model_that_generates_batches_gets_those_that_share_their_keywords():
    class Batches(BaseLLMModel):
        def _generate_batch(self, prompts, **kwargs):
            CALLS.append((tuple(prompts), kwargs))
            return [prompt.upper() for prompt in prompts]

    CALLS.clear()
    model = Batches("batches", max_batch_size=2)
    assert model.predict(["a", "b", "c"], seed=1) == ["A", "B", "C"]
    assert sorted(CALLS) == [(("a", "b"), {"seed": 1}), (("c",), {"seed": 1})]


@dc.dataclass
class Picky(BaseLLMModel):
    """Raises ``error`` on "bad", and answers with no text on "odd"."""

    error: ClassVar[type[BaseException]] = ValueError
    asked: Any = dc.field(init=False, default_factory=list)

    def _generate(self, messages, **kwargs):
        self.asked.append(messages)
        if messages == "bad":
            raise self.error("no")
        return 5 if messages == "odd" else messages.upper()


def test_a_prompt_that_raises_has_its_error_and_the_others_are_asked_once():
    model = Picky("picky")
    first, bad, odd, last = model.predict_batch(["a", "bad", "odd", "b"])
    assert (first, last, model.asked) == ("A", "B", ["a", "bad", "odd", "b"])
    assert isinstance(bad, ValueError)
    assert "answers with a string" in str(odd)
    assert model.spent.total.calls == 2
    with pytest.raises(ValueError, match="no"):
        model.predict(["a", "bad", "b"])


def test_a_row_that_raises_costs_the_rows_of_its_batch_no_second_call(tmp_path):
    model = Picky("picky", max_attempts=1)
    docs = sa.Table("docs", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), sa.Column("q", sa.Text))
    with pinnacle.pinnacle(f"sqlite:///{tmp_path / 'a.db'}") as db:
        docs.create(db.engine)
        db.execute(sa.insert(docs), [{"q": text} for text in ("a", "b", "bad", "c", "d", "e", "f")])
        result = db.predict(model, X="q", select=sa.select(docs), output="a", progress=False)
    assert (result.written, result.failed) == (6, 1)
    assert sorted(model.asked) == ["a", "b", "bad", "c", "d", "e", "f"]


@pytest.mark.parametrize("error", [ModelUnavailable, ConnectionRefusedError])
def test_after_an_error_that_is_not_the_prompts_those_after_it_are_not_asked(error, monkeypatch):
    monkeypatch.setattr(Picky, "error", error)
    model = Picky("picky")
    answers = model.predict_batch(["a", "bad", "b"])
    assert [type(answer) for answer in answers] == [str, error, error]
    assert model.asked == ["a", "bad"]


def test_an_interrupt_ends_a_batch(monkeypatch):
    monkeypatch.setattr(Picky, "error", KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        Picky("picky").predict(["a", "bad", "b"])


def test_a_batch_with_too_few_answers_is_an_error_naming_the_counts():
    class Short(BaseLLMModel):
        def _generate_batch(self, prompts, **kwargs):
            return ["one"]

    with pytest.raises(OutputCountMismatch, match="1 answers for 2 prompts"):
        Short("short").predict(["a", "b"])


@pytest.mark.parametrize("cls", [CustomLLM, CustomAPI])
def test_a_model_without_a_name_to_go_by_is_refused(cls):
    with pytest.raises(ConfigError, match="needs an identifier"):
        cls()


@pytest.mark.parametrize("wrong", [{"max_batch_size": 0}, {"max_batch_size": 1.5}, {"max_batch_size": True}])
@pytest.mark.parametrize("cls", [CustomLLM, CustomAPI])
def test_sizes_that_make_no_sense_are_refused_at_construction(cls, wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        cls("m", **wrong)


@pytest.mark.parametrize("wrong", [{"timeout_s": 0}, {"timeout_s": float("inf")}, {"max_tries": 0}])
def test_times_and_tries_that_make_no_sense_are_refused_at_construction(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        CustomAPI("m", **wrong)


# -- embedders -----------------------------------------------------------------------------------------------


def test_embed_gives_a_list_of_one_vector_a_text_also_for_one_text():
    model = embedder()
    assert model.embed("a") == [unit_vector("a", DIMENSIONS)]
    assert model.embed(["a", "b"]) == [unit_vector("a", DIMENSIONS), unit_vector("b", DIMENSIONS)]
    assert model.embed([]) == []
    assert model.predict("a") == unit_vector("a", DIMENSIONS)


def test_texts_go_out_in_batches_and_vectors_come_back_in_order(calls):
    texts = [f"{'x' * (number * 7 % 10)} {number}" for number in range(25)]
    assert embedder(batch_size=10).embed(texts) == [unit_vector(text, DIMENSIONS) for text in texts]
    assert sorted(map(len, calls)) == [5, 10, 10]
    assert sorted(text for batch in calls for text in batch) == sorted(texts)


def test_an_async_embedder_may_return_numpy_vectors():
    async def call(model, texts):
        return np.array([unit_vector(text, 3) for text in texts], dtype=np.float32), None

    np.testing.assert_array_equal(embedder(fn=call).embed(["a", "b"]), [unit_vector("a", 3), unit_vector("b", 3)])


def test_the_output_type_is_a_vector_of_the_size_that_is_declared_or_found(calls):
    assert embedder(dimensions=7).resolved_output_type() == Vector(7)
    assert calls == []
    model = embedder()
    assert model.resolved_output_type() == model.resolved_output_type() == Vector(DIMENSIONS)
    assert len(calls) == 1
    assert model.content() == embedder().content()  # what was found out is no new content


def test_a_text_that_is_too_long_fails_or_is_cut_as_the_model_says(calls):
    with pytest.raises(ContextOverflow, match="a text of 4 tokens is longer than its 2"):
        embedder(context_window=2).embed(["ok", "x" * 12])
    assert "x" * 12 not in str(calls)
    cut = embedder(context_window=2, text_overflow_mode="TRUNCATE")
    assert cut.embed(["ok", "x" * 12]) == [unit_vector("ok", DIMENSIONS), unit_vector("x" * 6, DIMENSIONS)]


def test_one_text_that_cannot_be_embedded_leaves_the_others_theirs():
    outputs = embedder(context_window=2).predict_batch(["a", "x" * 12, None, "b"])
    assert [type(output) for output in outputs] == [list, ContextOverflow, ConfigError, list]


@pytest.mark.parametrize("answer", [[[1.0]], ([[1.0]], "3"), ([[1.0]],), None, ([[1.0]], 1, 2)])
def test_an_embedder_that_returns_no_pair_is_told_what_to_return(answer):
    with pytest.raises(TypeError, match=r"an embedder returns \(vectors, tokens\)"):
        embedder(fn=lambda model, texts: answer).embed("a")


def test_a_vector_too_few_is_an_error_naming_the_counts():
    with pytest.raises(OutputCountMismatch, match="1 vectors for 2 texts"):
        embedder(fn=lambda model, texts: ([[1.0]], 1)).embed(["a", "b"])


def test_the_overflow_mode_is_one_of_two():
    with pytest.raises(ConfigError, match="text_overflow_mode= is 'FAIL' or 'TRUNCATE', not 'CUT'"):
        embedder(text_overflow_mode="CUT")


class Mine(EmbedModel):
    def _embed(self, texts, **kwargs):
        return [[float(len(text))] for text in texts], None


def test_a_users_own_embedder_needs_nothing_but_embed():
    assert Mine("mine").embed(["a", "bcd"]) == [[1.0], [3.0]]


@given(st.lists(st.tuples(floats, floats), min_size=1, max_size=20))
def test_cos_sim_is_what_numpy_computes(pairs):
    left, right = np.array(pairs).T
    norms = np.linalg.norm(left) * np.linalg.norm(right)
    expected = left @ right / norms if norms else 0.0
    assert cos_sim(left, right) == pytest.approx(expected, abs=1e-9)
    assert cos_sim(list(left), list(right)) == cos_sim(left, right)


def test_cos_sim_of_vectors_of_two_sizes_is_refused():
    with pytest.raises(ConfigError, match="of 2 and 3 numbers"):
        cos_sim([1, 2], [1, 2, 3])


def test_threads_of_a_model_are_named_and_no_more_than_its_calls():
    hold, asked = threading.Event(), None

    def wait(prompt):
        hold.wait(10)
        return prompt

    asked = recorder(wait, max_batch_size=3)
    with ThreadPoolExecutor(1) as pool:
        answers = pool.submit(asked.model.predict, list("abcdef"))
        wait_until(lambda: len(asked.asked) == 3)
        running = [thread for thread in threading.enumerate() if thread.name.startswith("pinnacle-llm")]
        hold.set()
        assert answers.result() == list("abcdef")
    assert len(running) >= 3


def test_a_call_that_hangs_takes_no_others_place():
    hold = threading.Event()

    def answer(prompt):
        if prompt == "hang":
            hold.wait()
        return prompt

    asked = recorder(answer, max_batch_size=2, timeout_s=0.5, max_tries=2)
    with pytest.raises(ProviderUnavailable):
        asked.model.predict("hang")
    assert asked.model.predict("sound") == "sound"
    hold.set()


def test_a_function_that_raises_stop_iteration_has_failed():
    with pytest.raises(RuntimeError, match="it raised StopIteration"):
        recorder(lambda _: next(iter(()))).model.predict("a")


def test_a_thread_is_used_again_and_goes_with_its_owner_and_keeps_no_process_alive():
    threads = CallThreads()
    thread = loop.run(threads.run(threading.current_thread))
    assert loop.run(threads.run(threading.current_thread)) is thread
    assert thread.daemon
    del threads
    gc.collect()
    thread.join(30)
    assert not thread.is_alive()
