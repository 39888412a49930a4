"""Checkpoints of a fit: in the database without anything pickled, and as models, folders and merged weights."""

from __future__ import annotations

import gc
import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import torch
import transformers
from peft import PeftModel
from pinnacle_transformers import LLM
from pinnacle_transformers.trainers import Watcher
from safetensors.torch import load_file

from pinnacle import ConfigError, ModelUnavailable, NotFound, Settings, pinnacle
from pinnacle.backends.open import open_backend
from pinnacle.catalog.catalog import Catalog
from pinnacle.catalog.history import History
from plugins.transformers.tests.fits import (
    ANSWERS,
    PAIRS,
    TRAIN,
    TRAIN_ROWS,
    distance,
    fitted,
    preferred,
    stored,
    told,
    weights,
)

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # trl's and peft's own
STEPS = {"save_strategy": "steps", "save_steps": 8, "max_steps": 30}
ASKED = [prompt for prompt, _ in PAIRS]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("checkpoints")


@pytest.fixture(scope="module")
def db(folder):
    db, _ = stored(folder / "pairs.db", TRAIN_ROWS)
    with db:
        yield db


@pytest.fixture(scope="module")
def rows(folder):
    return stored(folder / "pairs.db", TRAIN_ROWS)[1]


@pytest.fixture(scope="module")
def lora(db, rows, base, folder):
    return fitted(db, rows, base, "lora", output_dir=str(folder / "lora"), save_total_limit=3, **STEPS)


@pytest.fixture(scope="module")
def full(db, rows, base, folder):
    return fitted(
        db, rows, base, "full", output_dir=str(folder / "full"), use_lora=False, learning_rate=5e-3, max_steps=10
    )


def generated(model, tokenizer):
    """Answers by the libraries alone, one prompt at a time."""
    texts = []
    for prompt in ASKED:
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
        written = model.eval().generate(input_ids=ids, max_new_tokens=12, do_sample=False)[0, ids.shape[1] :]
        texts.append(tokenizer.decode(written, skip_special_tokens=True).strip())
    return texts


def stop_at(last, monkeypatch):
    """As by the keyboard, after a step."""
    step = Watcher.on_step_end

    def stopped(watcher, args, state, control, **kwargs):
        step(watcher, args, state, control, **kwargs)
        if state.global_step == last:
            raise KeyboardInterrupt

    monkeypatch.setattr(Watcher, "on_step_end", stopped)


def test_the_last_checkpoints_are_kept_and_the_last_is_final(lora):
    _, run = lora
    assert [checkpoint.step for checkpoint in run.checkpoints()] == [16, 24, 30]
    assert [checkpoint.is_final for checkpoint in run.checkpoints()] == [False, False, True]
    assert all(checkpoint.loss > 0 and checkpoint.form == "adapter" for checkpoint in run.checkpoints())


@pytest.mark.parametrize("options", [{"save_strategy": "no"}, {"save_strategy": "steps", "save_steps": 50}])
def test_there_is_a_final_checkpoint_without_any_save_step(db, rows, base, options):
    llm, run = fitted(db, rows, base, f"final-{options['save_strategy']}", max_steps=2, **options)
    (only,) = run.checkpoints()
    assert (only.step, only.is_final) == (2, True)
    assert distance(weights(llm), weights(only.files)) == 0.0


def test_a_model_may_use_another_checkpoint(lora, db, base):
    llm = db.load("model", "lora")
    last = told(llm, PAIRS)
    assert [checkpoint.step for checkpoint in llm.checkpoints()] == [16, 24, 30]
    llm.use_checkpoint(16)
    assert told(llm, PAIRS) != last
    assert distance(weights(llm), weights(lora[1].checkpoints()[0].files)) == 0.0
    llm.use_checkpoint(llm.checkpoints()[-1])
    assert told(llm, PAIRS) == last == told(lora[0], PAIRS)
    with pytest.raises(NotFound, match="no checkpoint at step 8; there is 16, 24, 30"):
        llm.use_checkpoint(8)
    with pytest.raises(NotFound, match="there is none"):
        LLM("untaught", model_name_or_path=base).use_checkpoint(8)


@pytest.fixture
def history(folder) -> Iterator[History]:
    """What is kept of the fits in the database of pairs, read past its handle."""
    with closing(open_backend(f"sqlite:///{folder / 'pairs.db'}", Settings())) as below:
        yield History(Catalog(below.catalog, Settings()), below.runs)


def test_nothing_pickled_is_in_the_database(db, rows, base, folder, history, monkeypatch):
    """An interrupted fit keeps what it needs to go on, random numbers and optimizer too."""
    stop_at(3, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        fitted(db, rows, base, "stopped", max_steps=4, save_strategy="steps", save_steps=2)
    monkeypatch.undo()
    run = db.load("run", "stopped")
    assert (run.status, run.step) == ("interrupted", 3)
    (state,) = history.states(run).values()
    names = {name for name in state.files if "rng" in name or "optimizer" in name or "scheduler" in name}
    assert len(names) == 6
    for files in (state.files, *(checkpoint.files for checkpoint in run.checkpoints())):
        assert {Path(name).suffix for name in files} <= {".safetensors", ".json", ".jinja", ".txt"}
        for name, file in files.items():
            content = b"".join(file.chunks())
            if name.endswith(".json"):
                json.loads(content)
            elif name.endswith(".safetensors"):
                assert content[8:9] == b"{"
    with sqlite3.connect(folder / "pairs.db") as plain:
        dump = [value for (name,) in plain.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
                for row in plain.execute(f'SELECT * FROM "{name}"') for value in row]  # fmt: skip
    contents = [
        value.encode() if isinstance(value, str) else value for value in dump if isinstance(value, (str, bytes))
    ]
    assert any(b"lora_A" in content for content in contents)
    for content in contents:
        assert not content.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x04", b"\x80\x05"))
        assert b"training_args" not in content
    llm, after = fitted(db, rows, base, "stopped", max_steps=4, save_strategy="steps", save_steps=2)
    assert (after.status, after.resumed, after.version, llm.version) == ("done", 1, 0, 0)
    assert not history.states(after)


def test_merged_weights_answer_like_the_adapter(lora, db):
    merged = lora[0].merge()
    assert merged.identifier == "lora-merged"
    assert merged.adapter is None
    db.add(merged)
    answers = told(lora[0], PAIRS)
    assert told(merged, PAIRS) == answers == told(db.load("model", "lora-merged"), PAIRS)


def test_an_export_opens_by_the_libraries_alone(lora, full, base, tmp_path):
    tokenizer = transformers.AutoTokenizer.from_pretrained(lora[0].export(tmp_path / "adapter"))
    auto = transformers.AutoModelForCausalLM
    answers = told(lora[0], PAIRS)
    assert generated(PeftModel.from_pretrained(auto.from_pretrained(base), tmp_path / "adapter"), tokenizer) == answers
    assert generated(auto.from_pretrained(tmp_path / "adapter"), tokenizer) == answers
    full[0].export(tmp_path / "full")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "full")
    assert generated(auto.from_pretrained(tmp_path / "full"), tokenizer) == told(full[0], PAIRS)
    lora[0].merge().export(tmp_path / "merged")
    assert generated(auto.from_pretrained(tmp_path / "merged"), tokenizer) == answers
    with pytest.raises(ConfigError, match=r"has files in it"):
        full[0].export(tmp_path / "full")


def test_the_output_folder_has_the_final_checkpoint_in_hugging_face_form(lora, full, folder):
    adapter, whole = ({path.name for path in (folder / name).iterdir()} for name in ("lora", "full"))
    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json"} <= adapter
    assert not adapter & {"config.json", "model.safetensors"}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= whole
    assert not list(folder.rglob("training_args.bin"))
    assert distance(load_file(folder / "lora" / "adapter_model.safetensors"), weights(lora[0])) == 0.0
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "full")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder / "full")
    assert generated(model, tokenizer) == told(full[0], PAIRS)


def test_everything_works_without_the_output_folder_and_with_an_empty_cache(
    db, rows, base, folder, tmp_path, monkeypatch
):
    llm, _ = fitted(db, rows, base, "gone", output_dir=str(tmp_path / "out"), max_steps=4, save_steps=2)
    answers = told(llm)
    shutil.rmtree(tmp_path / "out")
    monkeypatch.setenv("PINNACLE_CACHE_DIR", str(tmp_path / "cache"))
    for _ in range(2):
        with pinnacle(f"sqlite:///{folder}/pairs.db") as other:
            loaded = other.load("model", "gone")
            assert told(loaded) == answers
            shutil.rmtree(tmp_path / "cache")
            assert told(other.load("model", "gone")) == answers
            loaded.use_checkpoint(4)
            assert told(loaded) == answers
    again, run = fitted(db, rows, base, "gone", model=db.load("model", "gone"), max_steps=1)
    assert (run.version, again.version) == (1, 1)


def test_two_adapters_share_the_memory_of_their_base(lora, db, rows, base):
    other, _ = fitted(db, rows, base, "other", max_steps=1)
    bare = LLM("bare", model_name_or_path=base)
    answers = [told(llm) for llm in (lora[0], other, bare)]
    assert lora[0]._model[0] is other._model[0] is bare._model[0]
    assert answers == [told(llm) for llm in (lora[0], other, bare)]
    assert len({str(each) for each in answers}) == 3


def test_a_second_fit_goes_on_from_what_the_first_learned(lora, db, rows, folder):
    first = lora[0]
    before = weights(first)
    assert first.version == 0
    llm, run = fitted(
        db, rows, None, "lora", model=db.load("model", "lora"), output_dir=str(folder / "lora"), learning_rate=1e-4,
        logging_steps=1, max_steps=2, lora_target_modules="all-linear",
    )  # fmt: skip
    assert (run.version, llm.version) == (1, 1)
    assert run.series()[0]["loss"] < 0.5
    assert 0 < distance(weights(llm), before) < 1e-3
    assert told(db.load("model", "lora", version=0)) == told(first)
    assert [run.version for run in (db.load("run", "lora", version=0), db.load("run", "lora"))] == [0, 1]
    for options, said in (
        ({"lora_r": 4}, "has lora_r=8, not 4"), ({"lora_alpha": 3}, "has lora_alpha=16, not 3"),
        ({"lora_target_modules": ["q_proj"]}, "has lora_target_modules="), ({"use_lora": False}, "use_lora=False"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=f"{said}.*merge"):
            fitted(db, rows, None, "lora", model=db.load("model", "lora"), max_steps=1, **options)


def test_dpo_of_a_fitted_model_leaves_its_reference_out_and_goes_on_with_the_same(
    lora, db, folder, tmp_path, monkeypatch
):
    _, select = stored(folder / "pairs.db", preferred(TRAIN[:16]), name="preferred")

    def fit(name):
        model = db.load("model", "lora", version=0)
        model.identifier, model.version = name, None
        return fitted(
            db, select, None, name, model=model, X=ANSWERS, method="dpo", max_steps=3, output_dir=str(tmp_path / name),
            save_strategy="steps", save_steps=1, learning_rate=1e-3, logging_steps=1,
        )  # fmt: skip

    whole, run = fit("whole")
    assert run.series()[0]["loss"] == pytest.approx(0.6931, abs=1e-3)  # the reference is the model itself
    assert not [path for path in tmp_path.rglob("ref*") if path.is_dir()]
    assert set(weights(whole)) == set(weights(lora[0]))
    stop_at(2, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        fit("halves")
    monkeypatch.undo()
    halves, run = fit("halves")
    assert run.resumed == 1
    assert distance(weights(halves), weights(whole)) <= 1e-6


def test_training_gives_back_the_memory_it_took(lora):
    gc.collect()
    optimizers = [each for each in gc.get_objects() if issubclass(type(each), torch.optim.Optimizer)]
    assert not optimizers


def test_a_folder_with_other_files_is_refused_and_they_are_never_deleted(db, rows, base, tmp_path):
    kept = tmp_path / "out" / "notes.txt"
    (tmp_path / "out" / "checkpoint-7").mkdir(parents=True)
    kept.write_text("mine")
    options = {"output_dir": str(tmp_path / "out"), "max_steps": 1}
    with pytest.raises(ConfigError, match=r"has files in it.*overwrite_output_dir=True"):
        fitted(db, rows, base, "tidy", **options)
    assert (tmp_path / "out" / "checkpoint-7").is_dir()
    fitted(db, rows, base, "tidy", overwrite_output_dir=True, **options)
    assert kept.read_text() == "mine"
    assert not (tmp_path / "out" / "checkpoint-7").exists()
    llm, run = fitted(db, rows, base, "tidy", model=db.load("model", "tidy"), seed=2, **options)
    assert (run.version, llm.version) == (1, 1)
    assert kept.read_text() == "mine"
    with pytest.raises(ConfigError, match=r"has files in it"):
        fitted(db, rows, base, "another", **options)


def test_without_log_to_db_all_stays_on_the_disk(db, rows, base, tmp_path):
    options = {"output_dir": str(tmp_path / "disk"), "log_to_db": False}
    llm, run = fitted(
        db, rows, base, "disk", max_steps=4, **options, save_strategy="steps", save_steps=2, logging_steps=2
    )
    assert (run.checkpoints(), run.status) == ([], "done")
    there = db.load("run", "disk").data()
    assert list(there["step"]) == [2, 4]
    assert there["loss"].notna().all()
    assert there["train_loss"].iloc[-1] == pytest.approx(there["loss"].mean())
    assert run.plot() is not None
    assert run.series()[-1]["train_loss"] == pytest.approx(there["loss"].mean())
    assert {"checkpoint-2", "checkpoint-4"} <= {path.name for path in (tmp_path / "disk").iterdir()}
    answers = told(llm)
    assert answers != told(LLM("bare", model_name_or_path=base))
    assert told(db.load("model", "disk")) == answers
    _, again = fitted(db, rows, base, "disk", max_steps=2, **options)
    assert [entry["step"] for entry in again.series()] == [2]
    with pytest.raises(NotFound, match="until another fit writes there"):
        run.data()
    with pytest.raises(ModelUnavailable, match="not those of this version any more"):
        told(db.load("model", "disk", version=0))
    assert told(db.load("model", "disk", version=1)) != answers
    full, _ = fitted(
        db, rows, base, "disk-full", max_steps=2, use_lora=False, output_dir=str(tmp_path / "full"), log_to_db=False
    )
    assert told(db.load("model", "disk-full")) == told(full)
    with pytest.raises(ConfigError, match="say where with output_dir="):
        fitted(db, rows, base, "nowhere", max_steps=1, log_to_db=False)
