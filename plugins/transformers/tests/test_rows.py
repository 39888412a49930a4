"""LLM over the rows of a table, and from the catalog in another process."""

from __future__ import annotations

import os
import shutil

import pytest
import sqlalchemy as sa
import torch
import transformers
from pinnacle_transformers import LLM

from pinnacle import ConfigError, ModelUnavailable, pinnacle
from pinnacle.plugin import folder_fingerprint
from pinnacle.testing import almanac

PAIRS = almanac()[:50]


@pytest.fixture
def docs():
    return sa.Table(
        "docs", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), sa.Column("q", sa.Text),
        sa.Column("subject", sa.Text),
    )  # fmt: skip


@pytest.fixture
def db(docs, tmp_path):
    with pinnacle(f"sqlite:///{tmp_path}/docs.db") as db:
        docs.create(db.engine)
        db.execute(sa.insert(docs), [{"q": question, "subject": question.split()[-1]} for question, _ in PAIRS])
        yield db


def column(db, name):
    return db.execute(sa.text(f"SELECT {name} FROM docs ORDER BY id")).scalars().all()


def test_rows_get_what_single_calls_give(db, docs, base):
    llm = LLM("tiny", model_name_or_path=base, prompt_template="{input} =>")
    result = llm.predict(X="q", db=db, select=sa.select(docs), output="a", progress=False)
    assert (result.written, result.failed) == (50, 0)
    assert column(db, "a") == [llm.predict(question) for question, _ in PAIRS] == [f" {answer}" for _, answer in PAIRS]
    assert result.input_tokens == sum(llm.count_tokens(f"{question} =>") for question, _ in PAIRS)
    assert result.output_tokens > 50
    assert llm.predict(X="q", db=db, select=sa.select(docs), output="a", progress=False).written == 0


def test_keywords_and_fields_by_name_reach_prompt_and_model(db, docs, base):
    llm = LLM("by-name", model_name_or_path=base, prompt_template="{relation} the {input} =>")
    llm.predict(
        X={"input": "subject"}, relation="what fears", max_new_tokens=40, db=db, select=sa.select(docs), output="a",
        progress=False,
    )  # fmt: skip
    known = dict(almanac())
    expected = [f" {known[f'what fears the {question.split()[-1]}']}" for question, _ in PAIRS]
    assert column(db, "a") == expected


def test_a_misspelt_keyword_is_refused_before_anything_is_written(db, docs, base):
    llm = LLM("tiny", model_name_or_path=base)
    with pytest.raises(ConfigError, match="did you mean max_new_tokens="):
        llm.predict(X="q", db=db, select=sa.select(docs), output="a", progress=False, max_new_token=3)
    assert_nothing_was_written(db)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"temperature": 0.4}, "temperature= has no effect without do_sample=True"),
        ({"temperature": 0.4, "do_sample": False}, "temperature= has no effect without do_sample=True"),
        ({"max_new_tokens": 0}, "max_new_tokens is a whole number from 1, not 0"),
        ({"max_new_tokens": -1}, "max_new_tokens is a whole number from 1, not -1"),
        ({"max_new_tokens": "5"}, "max_new_tokens is a whole number from 1, not '5'"),
        ({"num_beams": True}, "num_beams is a whole number from 1, not True"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(db, docs, base, keywords, message):
    llm = LLM("tiny", model_name_or_path=base)
    with pytest.raises(ConfigError, match=message):
        llm.predict(X="q", db=db, select=sa.select(docs), output="a", progress=False, **keywords)
    with pytest.raises(ConfigError, match=message):
        llm.predict("text", **keywords)
    assert_nothing_was_written(db)


def assert_nothing_was_written(db):
    assert "a" not in {column["name"] for column in sa.inspect(db.engine).get_columns("docs")}
    assert not db.show("model")


def test_keywords_that_the_database_hands_over_are_refused_before_anything_is_written_too(db, docs, base):
    llm = LLM("tiny", model_name_or_path=base)
    for keywords in ({"temperature": 0.4}, {"max_tokens": 5}):
        with pytest.raises(ConfigError):
            db.predict(llm, X="q", select=sa.select(docs), output="a", progress=False, **keywords)
    mistaken = LLM("tiny", model_name_or_path=base, inference_kwargs={"top_p": 0.5})
    with pytest.raises(ConfigError, match="top_p= has no effect without do_sample=True"):
        db.predict(mistaken, X="q", select=sa.select(docs), output="a", progress=False)
    assert_nothing_was_written(db)
    done = db.predict(
        mistaken, X="q", select=sa.select(docs), output="a", progress=False, limit=2, do_sample=True, max_new_tokens=2
    )
    assert done.written == 2


@pytest.mark.parametrize("path", ["/nope/y", "./nope", "../nope/y", "models/nope/y"])
def test_a_folder_that_is_not_there_is_refused_before_anything_is_written(db, docs, base, path):
    for fields in ({"model_name_or_path": path}, {"model_name_or_path": base, "adapter_id": path}):
        llm = LLM("gone", **fields)
        with pytest.raises(ModelUnavailable, match=f"model 'gone': '{path}' cannot be loaded: there is no such folder"):
            db.predict(llm, X="q", select=sa.select(docs), output="a", progress=False)
        with pytest.raises(ModelUnavailable, match="there is no such folder"):
            llm.predict("text")
    assert_nothing_was_written(db)


def test_weights_that_are_not_there_stop_the_run_and_are_no_rows_fault(db, docs):
    llm = LLM("gone", model_name_or_path="no/where")
    with pytest.raises(ModelUnavailable, match="'no/where' cannot be loaded"):
        llm.predict(X="q", db=db, select=sa.select(docs), output="a", progress=False)
    assert not db.errors()


def test_a_device_or_a_batch_size_is_no_new_version(db, base):
    db.add(LLM("tiny", model_name_or_path=base))
    db.add(LLM("tiny", model_name_or_path=base, device="cpu", max_batch_size=4))
    assert db.load("model", "tiny").version == 0
    db.add(LLM("tiny", model_name_or_path=base, bits=8))
    assert db.load("model", "tiny").version == 1


def test_an_estimate_counts_by_the_tokenizer_and_loads_no_weights(db, docs, base):
    llm = LLM("tiny", model_name_or_path=base, prompt_template="{input} =>")
    estimate = db.estimate(llm, "q", sa.select(docs))
    assert llm._model is None
    assert estimate.input_tokens == sum(llm.count_tokens(f"{question} =>") for question, _ in PAIRS)


def trained_again(folder, *, seed=1):
    """Other weights of the same shapes under the same names."""
    config = transformers.AutoConfig.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    torch.manual_seed(seed)
    transformers.LlamaForCausalLM(config).save_pretrained(folder)


def test_rows_are_stale_when_the_models_folder_was_trained_again(db, docs, base, tmp_path):
    mine = shutil.copytree(base, tmp_path / "mine")

    def run():
        llm = LLM("local", model_name_or_path=mine)
        return llm.predict(X="q", db=db, select=sa.select(docs), output="a", progress=False, max_new_tokens=5)

    assert (run().written, run().written) == (50, 0)
    before = column(db, "a")
    trained_again(mine)
    assert run().written == 50
    assert column(db, "a") != before
    assert db.load("model", "local").version == 1


def test_a_stored_component_keeps_what_its_folder_held(db, base, tmp_path):
    mine = shutil.copytree(base, tmp_path / "mine")
    llm = LLM("local", model_name_or_path=mine)
    db.add(llm)
    shutil.rmtree(mine)
    loaded = db.load("model", "local")
    assert loaded == llm
    assert db.add(loaded).version == 0
    assert LLM("hub", model_name_or_path="no/where", adapter_id="not/here").weights is None


def test_an_adapters_folder_is_told_by_its_content_too(base, adapter, other_adapter, tmp_path):
    mine = shutil.copytree(adapter, tmp_path / "mine")
    before = LLM("tuned", model_name_or_path=base, adapter_id=mine)
    assert before == LLM("tuned", model_name_or_path=base, adapter_id=mine)
    shutil.copytree(other_adapter, mine, dirs_exist_ok=True)
    after = LLM("tuned", model_name_or_path=base, adapter_id=mine)
    assert after.adapter_weights != before.adapter_weights
    assert after.weights == before.weights
    stored = LLM("tuned", model_name_or_path=base, adapter_id=mine, store_adapter=True)
    assert stored.adapter_weights is None


@pytest.mark.parametrize("position", [0, 5 << 20, (40 << 20) - 1])
def test_a_folders_content_is_its_names_sizes_and_bytes(tmp_path, position):
    first = tmp_path / "first"
    (first / "part").mkdir(parents=True)
    (first / "config.json").write_text("{}")
    with (first / "part" / "model.bin").open("wb") as file:
        file.truncate(40 << 20)
    second = shutil.copytree(first, tmp_path / "second")
    os.utime(second / "config.json", (0, 0))
    (second / ".cache").mkdir()
    (second / ".cache" / "note").write_text("when")
    assert folder_fingerprint(str(first)) == folder_fingerprint(str(second))
    with (second / "part" / "model.bin").open("r+b") as file:
        file.seek(position)
        file.write(b"x" * min(1 << 20, (40 << 20) - position))
    assert folder_fingerprint(str(first)) != folder_fingerprint(str(second))
    (first / "config.json").rename(first / "other.json")
    assert (
        len({folder_fingerprint(str(first)), folder_fingerprint(str(second)), folder_fingerprint(str(first / "part"))})
        == 3
    )
    assert folder_fingerprint(str(tmp_path / "none")) is None
