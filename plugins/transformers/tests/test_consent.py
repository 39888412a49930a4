"""What a stored LLM may not do: run code that the process did not agree to. One that was made here may."""

from __future__ import annotations

import json

import pytest
from pinnacle_transformers import LLM, LLMTrainingConfiguration
from pinnacle_transformers.fitting import check

from pinnacle import ComponentError, ModelUnavailable, Settings, pinnacle
from pinnacle.plugin import Artifact

CONFIG = {
    "model_type": "of_elsewhere", "architectures": ["E"],
    "auto_map": {"AutoConfig": "configuration_e.E", "AutoModelForCausalLM": "configuration_e.E"},
}  # fmt: skip


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/models.db"


def stored(url, **fields):
    """An LLM as it comes out of a database."""
    with pinnacle(url) as db:
        db.add(LLM("m", inference_kwargs={"max_new_tokens": 1}, **fields))
        return db.load("model", "m")


@pytest.mark.parametrize(
    "fields",
    [
        {"model_kwargs": {"trust_remote_code": True}},
        {"model_kwargs": {"trust_remote_code": "yes"}},
        {"model_kwargs": {"weights_only": False}},
        {"model_kwargs": {"use_safetensors": False}},
        {"model_kwargs": {"subfolder": "../elsewhere"}},
        {"model_kwargs": {"attn_implementation": "somebody/kernel"}},
        {"tokenizer_kwargs": {"trust_remote_code": True}},
        {"tokenizer_kwargs": {"code_revision": "x"}},
    ],
    ids=str,
)
def test_keywords_that_can_run_code_are_refused_of_a_stored_model(url, base, fields):
    name = next(iter(next(iter(fields.values()))))
    with pytest.raises(ModelUnavailable, match=rf"'m' asks for \w+_kwargs {name}=.*PINNACLE_ALLOW_REMOTE_CODE"):
        stored(url, model_name_or_path=base, **fields).predict("x")


def test_what_the_author_wrote_in_this_process_holds(base):
    llm = LLM("m", model_name_or_path=base, model_kwargs={"trust_remote_code": True, "attention_bias": False})
    assert llm.predict("x", max_new_tokens=1) == LLM("n", model_name_or_path=base).predict("x", max_new_tokens=1)


def test_harmless_keywords_of_a_stored_model_go_on_working(url, base):
    fields = {"model_kwargs": {"trust_remote_code": False, "attn_implementation": "eager"}}
    assert isinstance(stored(url, model_name_or_path=base, **fields).predict("x"), str)


def with_code(tmp_path):
    mark = tmp_path / "code-ran"
    code = f"open({str(mark)!r}, 'w').close()\nraise ImportError('x')\n"
    files = {"config.json": Artifact(json.dumps(CONFIG).encode()), "configuration_e.py": Artifact(code.encode())}
    return mark, {"model_name_or_path": "m", "weight_files": files, "model_kwargs": {"trust_remote_code": True}}


def test_code_among_the_weights_runs_only_where_the_process_allows_it_by_name(url, tmp_path):
    mark, fields = with_code(tmp_path)
    with pytest.raises(ModelUnavailable, match="trust_remote_code"):
        stored(url, **fields).predict("x")
    for allowed, runs in ((("other",), False), (("m",), True)):
        settings = Settings(allow_remote_code=allowed, cache_dir=tmp_path / "cache")
        with pinnacle(url, settings=settings) as db, pytest.raises(ModelUnavailable):
            db.load("model", "m").predict("x")
        assert mark.exists() is runs


def test_a_model_made_here_runs_no_code_of_weights_that_came_from_the_database(url, tmp_path):
    mark, fields = with_code(tmp_path)
    stored(url, **fields)
    with pinnacle(url) as db:
        taught = db.add(LLM("m", model_name_or_path="m", inference_kwargs={"max_new_tokens": 1},
                            model_kwargs={"trust_remote_code": True}))  # fmt: skip
        assert (sorted(taught.weight_files), taught.version) == (["config.json", "configuration_e.py"], 0)
        with pytest.raises(ModelUnavailable, match="trust_remote_code"):
            taught.predict("x")
    assert not mark.exists()


def test_pickled_weights_are_left_out(url, base, tmp_path, caplog):
    files = {path.name: Artifact(path) for path in base.iterdir() if path.is_file()}
    files["pytorch_model.bin"] = Artifact(b"a pickle")
    llm = stored(url, model_name_or_path="m", weight_files=files)
    assert isinstance(llm.predict("x"), str)
    assert "'pytorch_model.bin'; PINNACLE_ALLOW_REMOTE_CODE" in caplog.text


def test_a_database_reads_no_folder_of_the_machine_that_loads(url, base, adapter, tmp_path):
    """A body that says store_adapter and has no files would have the folder read, and added with the next version."""
    with pinnacle(url) as db:
        db.add(LLM("m", model_name_or_path=base, adapter_id=str(adapter)))
        with db.engine.begin() as connection:
            connection.exec_driver_sql(
                "UPDATE pinnacle_component SET body = json_set(body, '$.fields.store_adapter', json('true'))"
            )
    with pinnacle(url) as db, pytest.raises(ComponentError, match="without the adapter's files"):
        db.load("model", "m")


@pytest.mark.filterwarnings("ignore::FutureWarning")  # trl's own
@pytest.mark.parametrize(
    "asked",
    [
        {"report_to": "mlflow"}, {"push_to_hub": False}, {"deepspeed": "/etc/x.json"},
        {"torch_compile_backend": "eager"},
        {"output_dir": "/srv/models", "overwrite_output_dir": True},
    ],
    ids=str,
)  # fmt: skip
def test_a_stored_configuration_neither_runs_code_nor_sends_data_away(url, base, asked):
    with pinnacle(url) as db:
        db.add(LLMTrainingConfiguration("c", max_steps=1, **asked))
        configuration = db.load("training_configuration", "c")
    llm = LLM("m", model_name_or_path=base)
    with pytest.raises(ModelUnavailable, match=rf"'c' asks for {list(asked)[-1]}=.*PINNACLE_ALLOW_REMOTE_CODE"):
        check(llm, configuration)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # trl's own
def test_a_stored_configuration_that_only_trains_is_taken(url, base, tmp_path):
    with pinnacle(url) as db:
        db.add(LLMTrainingConfiguration("c", max_steps=1, learning_rate=1e-3, output_dir=str(tmp_path / "out")))
        check(LLM("m", model_name_or_path=base), db.load("training_configuration", "c"))
