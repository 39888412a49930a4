"""A fit ends with the loss and the weights of the same training written by hand with trl and peft."""

from __future__ import annotations

import importlib

import datasets
import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model_state_dict
from pinnacle_transformers import LLM
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from plugins.transformers.tests.fits import (
    ANSWERS,
    ASKED,
    TRAIN,
    TRAIN_ROWS,
    distance,
    fitted,
    preferred,
    stored,
    weights,
)

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # trl's and peft's own
TEXTS = [{"text": prompt + answer} for prompt, answer in TRAIN]
COMMON = {"max_steps": 5, "per_device_train_batch_size": 8, "learning_rate": 5e-3, "logging_steps": 1, "seed": 7}
CASES = {
    "lora-text": ("sft", "text", TEXTS, {}),
    "lora-pairs": ("sft", ASKED, TRAIN_ROWS, {"warmup_steps": 2, "gradient_accumulation_steps": 2}),
    "full-pairs": ("sft", ASKED, TRAIN_ROWS, {"use_lora": False}),
    "dpo": ("dpo", ANSWERS, preferred(TRAIN), {}),
}


def by_hand(base, folder, method, rows, use_lora=True, **options):
    """Weights and logged losses of a script that knows nothing of pinnacle."""
    config, trainer = (SFTConfig, SFTTrainer) if method == "sft" else (DPOConfig, DPOTrainer)
    lora = LoraConfig(r=8, lora_alpha=16, lora_dropout=0.05, target_modules="all-linear", task_type="CAUSAL_LM")
    args = config(
        str(folder), report_to="none", use_cpu=True, bf16=False, save_strategy="no", max_length=512, **COMMON, **options
    )
    training = trainer(
        transformers.AutoModelForCausalLM.from_pretrained(base), args=args,
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=transformers.AutoTokenizer.from_pretrained(base), peft_config=lora if use_lora else None,
    )  # fmt: skip
    training.train()
    model = training.model
    state = get_peft_model_state_dict(model) if use_lora else dict(model.named_parameters())
    losses = [entry["loss"] for entry in training.state.log_history if "loss" in entry]
    return {name: value.detach().clone() for name, value in state.items()}, losses


@pytest.mark.parametrize("case", CASES)
def test_loss_and_weights_are_those_of_a_script_by_hand(base, tmp_path, case):
    method, X, rows, options = CASES[case]  # noqa: N806
    db, select = stored(tmp_path / "rows.db", rows)
    with db:
        llm, run = fitted(db, select, base, case, X=X, method=method, gradient_checkpointing=True, **COMMON, **options)
        expected, losses = by_hand(base, tmp_path / "hand", method, rows, **options)
        assert [entry["loss"] for entry in run.series() if "loss" in entry] == pytest.approx(losses, abs=1e-6)
        assert distance(weights(llm), expected) <= 1e-6


def test_dpo_in_full_compares_with_the_model_as_it_is_loaded(base, tmp_path, monkeypatch):
    library, asked = importlib.import_module("trl.trainer.dpo_trainer"), []
    load = library.create_model_from_path

    def seen(path, **options):
        asked.append(options)
        return load(path, **options)

    monkeypatch.setattr(library, "create_model_from_path", seen)
    db, select = stored(tmp_path / "rows.db", preferred(TRAIN))
    llm = LLM("whole", model_name_or_path=base, model_kwargs={"use_safetensors": True})
    with db:
        fitted(db, select, base, "whole", model=llm, X=ANSWERS, method="dpo", use_lora=False, max_steps=1)
    assert [options["use_safetensors"] for options in asked] == [True]


def test_equal_seeds_give_equal_weights_and_others_do_not(base, tmp_path):
    db, select = stored(tmp_path / "rows.db", TRAIN_ROWS)
    with db:
        torch.manual_seed(0)
        first, run = fitted(db, select, base, "first", max_steps=3, seed=1)
        torch.manual_seed(5)
        same, _ = fitted(db, select, base, "same", max_steps=3, seed=1)
        other, other_run = fitted(db, select, base, "other", max_steps=3, seed=2)
        assert distance(weights(first), weights(same)) == 0.0
        assert distance(weights(first), weights(other)) > 1e-4
        assert (run.seeds["seed"], other_run.seeds["seed"]) == (1, 2)
