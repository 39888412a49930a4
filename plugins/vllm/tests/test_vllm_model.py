"""VllmModel against a stand-in of vLLM that records its calls; the real one needs a GPU."""

from __future__ import annotations

import copy
import importlib
import pickle
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from pinnacle_vllm import VllmModel

import pinnacle.ext.llm
from pinnacle import ConfigError, MissingPlugin, ModelUnavailable, Settings
from pinnacle import pinnacle as connect

STAND_IN = """
from types import SimpleNamespace
calls = []

class SamplingParams:
    def __init__(self, *, temperature=1.0, max_tokens=16, seed=None):
        self.given = {"temperature": temperature, "max_tokens": max_tokens, "seed": seed}
        calls.append(("SamplingParams", self.given))

class LLM:
    def __init__(self, model, **options):
        calls.append(("LLM", {"model": model, **options}))
        if model == "too/large":
            raise RuntimeError("no GPU")

    def generate(self, prompts, sampling_params, *, use_tqdm):
        calls.append(("generate", prompts, sampling_params.given, use_tqdm))
        return [output(prompt, prompt.upper()) for prompt in prompts]

    def chat(self, messages, sampling_params, *, use_tqdm):
        calls.append(("chat", messages, sampling_params.given, use_tqdm))
        return [output("x", dialog[-1]["content"] + "!") for dialog in messages]

def output(prompt, text):
    first = SimpleNamespace(text=text, token_ids=[0] * len(text), finish_reason="stop")
    return SimpleNamespace(outputs=[first], prompt_token_ids=[0] * len(prompt))
"""
DEFAULTS = {"temperature": 1.0, "max_tokens": 16, "seed": None}


@pytest.fixture
def vllm(tmp_path, monkeypatch):
    (tmp_path / "vllm.py").write_text(STAND_IN)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield importlib.import_module("vllm")
    sys.modules.pop("vllm")


def test_the_public_face_is_this_class():
    assert pinnacle.ext.llm.VllmModel is VllmModel


def test_it_starts_the_engine_once_with_its_fields(vllm):
    llm = VllmModel(model_name="a/b", tensor_parallel_size=2, trust_remote_code=True, vllm_kwargs={"max_model_len": 9})
    assert vllm.calls == []
    llm.predict("x")
    llm.predict("y")
    started = [call[1] for call in vllm.calls if call[0] == "LLM"]
    assert started == [{"model": "a/b", "tensor_parallel_size": 2, "trust_remote_code": True, "max_model_len": 9}]


def test_strings_go_to_generate_raw_and_in_one_call(vllm):
    assert VllmModel(model_name="a/b").predict(["x", "y"], max_tokens=5) == ["X", "Y"]
    given = {**DEFAULTS, "max_tokens": 5}
    assert vllm.calls[1:] == [("SamplingParams", given), ("generate", ["x", "y"], given, False)]


def test_dialogs_go_to_chat(vllm):
    dialog = [{"role": "user", "content": "hello"}]
    llm = VllmModel(model_name="a/b")
    assert llm.predict(dialog) == "hello!"
    assert vllm.calls[-1] == ("chat", [dialog], DEFAULTS, False)
    assert llm._generate_batch([dialog, "x", dialog]) == [*llm._generate_batch([dialog, "x"]), llm._generate(dialog)]


def test_tokens_are_counted(vllm):
    llm = VllmModel(model_name="a/b")
    llm.predict("four")
    assert (llm.spent.total.input_tokens, llm.spent.total.output_tokens) == (4, 4)


def test_what_is_no_sampling_parameter_is_refused(vllm):
    with pytest.raises(ConfigError, match=r"SamplingParams: .*temprature.*; did you mean temperature=\?"):
        VllmModel(model_name="a/b").predict("x", temprature=0)
    assert [call[0] for call in vllm.calls] == ["LLM"]


def test_components_of_the_same_fields_share_one_engine(vllm):
    models = [VllmModel(name, model_name="a/b") for name in ("one", "two", "three")]
    start = threading.Barrier(3)

    def ask(llm):
        start.wait()
        return llm.predict("x")

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(ask, models)) == ["X"] * 3
    assert [call[0] for call in vllm.calls].count("LLM") == 1


def test_a_used_model_can_be_copied_and_pickled(vllm):
    llm = VllmModel(model_name="a/b")
    llm.predict("x")
    for twin in (copy.deepcopy(llm), pickle.loads(pickle.dumps(llm))):
        assert twin == llm
        assert twin._engine is None
        assert twin.predict("x") == "X"


def test_an_engine_that_does_not_start_is_one_clear_error(vllm):
    with pytest.raises(ModelUnavailable, match="vLLM cannot run 'too/large' here: RuntimeError: no GPU"):
        VllmModel(model_name="too/large").predict("x")


def test_declaring_storing_and_loading_need_no_vllm(tmp_path):
    llm = VllmModel(model_name="mistralai/Mistral-7B-Instruct-v0.2", vllm_kwargs={"max_model_len": 9}, ray_address="r")
    assert llm.identifier == "mistralai-Mistral-7B-Instruct-v0.2"
    with connect(f"sqlite:///{tmp_path}/docs.db") as db:
        db.add(llm)
        assert db.load("model", llm.identifier) == llm


def test_a_missing_vllm_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(MissingPlugin, match="vllm is needed for VllmModel and not installed; run: pip install 'vllm'"):
        VllmModel(model_name="a/b").predict("x")


@pytest.mark.parametrize("fields", [{"on_ray": True}, {"ray_address": "ray://host:10001"}])
def test_ray_is_refused_at_predict(vllm, tmp_path, monkeypatch, fields):
    llm = VllmModel(model_name="a/b", **fields)
    assert llm.on_ray
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingPlugin, match=r"ray is needed for on_ray=True .* pip install 'ray\[default\]'"):
        llm.predict("x")
    monkeypatch.delitem(sys.modules, "ray")
    (tmp_path / "ray.py").write_text("")
    importlib.invalidate_caches()
    with pytest.raises(ConfigError, match="VllmModel does not run on Ray yet"):
        llm.predict("x")
    assert vllm.calls == []


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model_name": ""}, "needs model_name="),
        ({"tensor_parallel_size": 0}, "tensor_parallel_size is a whole number"),
        ({"vllm_kwargs": None}, "vllm_kwargs is a dict"),
        ({"vllm_kwargs": {"model": "x"}}, "vllm_kwargs holds 'model'"),
        ({"prompt_template": "none"}, "has no {input}"),
    ],
)
def test_fields_that_cannot_work_are_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        VllmModel(**{"identifier": "m", "model_name": "a/b", **fields})


@pytest.mark.parametrize(
    "fields",
    [
        {"trust_remote_code": True},
        {"vllm_kwargs": {"worker_cls": "os.system"}},
        {"vllm_kwargs": {"hf_overrides": {"auto_map": {}}}},
        {"vllm_kwargs": {"tokenizer": "/etc"}},
    ],
    ids=str,
)
def test_a_stored_model_may_not_ask_for_code(vllm, tmp_path, fields):
    with connect(f"sqlite:///{tmp_path}/models.db") as db:
        db.add(VllmModel("m", model_name="a/b", **fields))
    with (
        connect(f"sqlite:///{tmp_path}/models.db") as db,
        pytest.raises(ModelUnavailable, match=f"'m' asks for .*{next(iter(fields.get('vllm_kwargs', fields)))}="),
    ):
        db.load("model", "m").predict("x")
    assert vllm.calls == []
    with connect(f"sqlite:///{tmp_path}/models.db", settings=Settings(allow_remote_code=True)) as db:
        assert db.load("model", "m").predict("x") == "X"


def test_a_stored_model_keeps_its_harmless_keywords(vllm, tmp_path):
    with connect(f"sqlite:///{tmp_path}/models.db") as db:
        db.add(VllmModel("m", model_name="a/b", vllm_kwargs={"max_model_len": 9}))
        assert db.load("model", "m").predict("x") == "X"
