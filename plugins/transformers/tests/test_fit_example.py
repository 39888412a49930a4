"""The example of fine-tuning as users write it, and dialogs from lists in columns and documents."""

from __future__ import annotations

import pytest

from pinnacle import pinnacle
from pinnacle.backends.mongodb import Collection
from pinnacle.base.document import Document
from pinnacle.ext.llm import LLM
from pinnacle.ext.llm.model import LLMTrainingConfiguration
from plugins.transformers.tests.fits import HELD, TRAIN, distance, fitted, stored, told, weights

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # trl's and peft's own
DIALOGS = [
    [{"role": "user", "content": prompt.removesuffix(" =>")}, {"role": "assistant", "content": answer.strip()}]
    for prompt, answer in TRAIN[:16]
]


@pytest.mark.filterwarnings("ignore:.*fp16=True is turned off")
def test_the_example_runs_as_it_is_written(base, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dataset = {
        name: [{"text": prompt + answer} for prompt, answer in pairs]
        for name, pairs in (("train", TRAIN[:10]), ("test", HELD[:3]))
    }
    model, prompt = str(base), HELD[0][0]

    db = pinnacle("mongomock://test_llm")
    db.execute(
        Collection("datas").insert_many([Document({"text": e["text"], "_fold": "train"}) for e in dataset["train"]])
    )
    db.execute(
        Collection("datas").insert_many([Document({"text": e["text"], "_fold": "valid"}) for e in dataset["test"]])
    )

    llm = LLM(identifier="llm-finetune", bits=4, model_name_or_path=model)
    training_configuration = LLMTrainingConfiguration(
        identifier="llm-finetune-training-config", output_dir="output/llm-finetune", overwrite_output_dir=True,
        num_train_epochs=1, save_total_limit=5, logging_steps=10, evaluation_strategy="steps", fp16=True,
        eval_steps=100, save_steps=100, per_device_train_batch_size=1, per_device_eval_batch_size=1,
        gradient_accumulation_steps=4, max_length=512, use_lora=True)  # fmt: skip
    llm.fit(X="text", select=Collection("datas").find(), configuration=training_configuration, db=db)
    assert isinstance(llm.predict(prompt, max_new_tokens=100, do_sample=True), str)

    again = db.load("model", "llm-finetune")
    run = db.load("run", "llm-finetune")
    assert told(again) == told(llm)
    assert distance(weights(again), weights(llm)) == 0.0
    assert (run.status, run.rows, run.step) == ("done", {"train": 10, "valid": 3}, 3)
    assert run.metrics["eval_valid_loss"] > 0
    assert (tmp_path / "output" / "llm-finetune" / "adapter_model.safetensors").is_file()
    db.close()


def test_dialogs_come_from_a_list_in_a_column_and_in_a_document(base, tmp_path):
    options = {"X": "messages", "max_steps": 3, "logging_steps": 1}
    sql, select = stored(tmp_path / "rows.db", [{"messages": dialog} for dialog in DIALOGS])
    with sql, pinnacle("mongomock://dialogs") as documents:
        documents.execute(Collection("chats").insert_many([Document({"messages": dialog}) for dialog in DIALOGS]))
        _, from_column = fitted(sql, select, base, "chat", **options)
        llm, from_document = fitted(documents, Collection("chats").find(), base, "chat", **options)
        assert from_column.rows == from_document.rows == {"train": 16}
        losses = [[entry.get("loss") for entry in run.series()] for run in (from_column, from_document)]
        assert losses[0] == losses[1]
        assert losses[0][2] < losses[0][0]
        assert isinstance(llm.predict(DIALOGS[0][:1], max_new_tokens=4), str)
