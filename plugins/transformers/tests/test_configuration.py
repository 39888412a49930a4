"""LLMTrainingConfiguration: what users write, under old names and new, and what trl and peft get of it."""

from __future__ import annotations

import copy
import dataclasses
import math
import pickle
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
import transformers
import trl
from peft import get_peft_model
from pinnacle_transformers import LLM, LLMTrainingConfiguration
from pinnacle_transformers.arguments import arguments_of
from pinnacle_transformers.fitting import check
from pinnacle_transformers.limits import DPO_LOSSES
from pinnacle_transformers.renamed import OLD_NAMES, Renamed

import pinnacle.ext.llm
import pinnacle.ext.llm.model
from pinnacle import ConfigError, MissingPlugin
from pinnacle import pinnacle as connect

FIELDS = {field.name: field for field in dataclasses.fields(transformers.TrainingArguments) if field.init}
VALUES = {
    "output_dir": "somewhere", "lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"num_cycles": 1},
    "optim": "adamw_torch", "optim_target_modules": ["q_proj"],
    "activation_checkpointing_kwargs": {"use_reentrant": True}, "adam_beta1": 0.5, "adam_beta2": 0.5,
    "logging_steps": 5, "save_steps": 5, "max_steps": 5, "gradient_checkpointing_kwargs": {"use_reentrant": True},
    "liger_kernel_config": {"rope": True},
    "logging_strategy": "epoch", "eval_strategy": "epoch", "save_strategy": "epoch", "hub_strategy": "end",
    "report_to": ["tensorboard"], "trackio_static_space_id": "user/space", "include_for_metrics": ["loss"],
    "accelerator_config": {"split_batches": True}, "label_names": ["labels"], "fsdp_config": {"version": 2},
    "debug": ["underflow_overflow"], "hub_token": "env:HUB_TOKEN", "include_num_input_tokens_seen": "all",
    "train_sampling_strategy": "group_by_length", "dataloader_multiprocessing_context": "spawn", "log_level": "info",
    "log_level_replica": "info", "ddp_backend": "gloo", "length_column_name": "size", "project": "mine",
    "parallelism_config": {"dp_replicate_size": 1}, "deepspeed": {"zero_optimization": {"stage": 2}},
}  # fmt: skip
ELSEWHERE = {
    "bf16",
    "fp16",
    "bf16_full_eval",
    "fp16_full_eval",
    "tf32",
    "deepspeed",
    "torch_compile",
    "fsdp",
    "ddp_backend",
}
"""What this machine's libraries do not take; that they are kept as given is shown all the same."""


RENAMED = {old: now.new for old, now in OLD_NAMES.items() if isinstance(now, Renamed)}
OLDER_PEFT = "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"


def made(**given):
    return LLMTrainingConfiguration("tuning", **given)


def held(configuration, name):
    """What a configuration holds of an argument, in a field of its own or among the libraries'."""
    libraries = {**configuration.arguments, **configuration.display}
    new = RENAMED.get(name, name)
    return libraries[new] if new in libraries else getattr(configuration, new)


def not_the_default(name):
    annotation, default = arguments_of("sft")[name], FIELDS[name].default
    if name in VALUES:
        return VALUES[name]
    if "bool" in annotation:
        return not default
    if "int" in annotation or "float" in annotation:
        return 3 if default in (None, dataclasses.MISSING) else default + (1 if "int" in annotation else 0.25)
    assert "str" in annotation, f"give {name} a value above"
    return "something"


@pytest.fixture
def tiny():
    config = transformers.LlamaConfig(
        vocab_size=32, hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    return transformers.LlamaForCausalLM(config)


def test_users_find_it_beside_the_models():
    assert pinnacle.ext.llm.model.LLMTrainingConfiguration is LLMTrainingConfiguration
    assert pinnacle.ext.llm.LLMTrainingConfiguration is LLMTrainingConfiguration
    assert "LLMTrainingConfiguration" in dir(pinnacle.ext.llm.model)
    with pytest.raises(AttributeError, match=r"pinnacle\.ext\.llm\.model.*'LLMTrainer'"):
        pinnacle.ext.llm.model.LLMTrainer  # noqa: B018


def test_without_the_plugin_its_name_says_what_to_install(monkeypatch):
    monkeypatch.delattr(pinnacle.ext.llm, "LLMTrainingConfiguration", raising=False)
    monkeypatch.setitem(sys.modules, "pinnacle_transformers", None)
    with pytest.raises(MissingPlugin, match="pip install 'pinnacle-transformers'"):
        pinnacle.ext.llm.model.LLMTrainingConfiguration  # noqa: B018


def test_writing_one_down_loads_no_framework():
    code = (
        "import sys; from pinnacle.ext.llm.model import LLMTrainingConfiguration; "
        "print(LLMTrainingConfiguration('x', learning_rate=1, evaluation_strategy='no').arguments); "
        "sys.exit(', '.join({'torch', 'transformers', 'trl', 'peft'} & set(sys.modules)) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)}, timeout=600)


def test_what_users_write_becomes_trls_own_config(tmp_path):
    configuration = LLMTrainingConfiguration(
        identifier="llm-finetune-training-config", output_dir="output/llm-finetune", overwrite_output_dir=True,
        num_train_epochs=1, save_total_limit=5, logging_steps=10, evaluation_strategy="steps", fp16=True,
        eval_steps=100, save_steps=100, per_device_train_batch_size=1, per_device_eval_batch_size=1,
        gradient_accumulation_steps=4, max_length=512, use_lora=True,
    )  # fmt: skip
    with pytest.warns(UserWarning, match="fp16=True") as told:
        built = configuration.library_arguments(str(tmp_path), on_cpu=True)
    assert len(told) == 1
    assert type(built) is trl.SFTConfig
    assert (built.output_dir, built.eval_strategy, built.max_length) == (str(tmp_path), "steps", 512)
    assert (built.gradient_accumulation_steps, built.fp16, built.bf16) == (4, False, False)
    assert repr(configuration).startswith("LLMTrainingConfiguration('llm-finetune-training-config', ")
    assert "eval_strategy='steps'" in repr(configuration)
    assert "lora_r" not in repr(configuration)


@pytest.mark.parametrize("method", ["sft", "dpo"])
def test_the_rest_is_what_a_script_with_trl_alone_gets(tmp_path, method):
    given = {"learning_rate": 3e-4, "max_length": 64, "weight_decay": 0.1, "seed": 7, "lr_scheduler_type": "cosine"}
    config = {"sft": trl.SFTConfig, "dpo": trl.DPOConfig}[method]
    here = {"bf16": False, "report_to": "none", "dataloader_pin_memory": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of trl's own default
        by_hand = config(output_dir=str(tmp_path), **given, **here)
    built = made(method=method, **given).library_arguments(str(tmp_path), on_cpu=True)
    assert built.to_dict() == by_hand.to_dict()


@pytest.mark.parametrize("method", ["sft", "dpo"])
def test_the_names_read_from_source_are_those_the_class_takes(method):
    config = {"sft": trl.SFTConfig, "dpo": trl.DPOConfig}[method]
    assert set(arguments_of(method)) == {field.name for field in dataclasses.fields(config) if field.init}


def test_names_that_have_moved_in_the_source_are_asked_of_the_class(monkeypatch):
    read = arguments_of("sft")
    monkeypatch.setattr("pinnacle_transformers.arguments._declared", lambda *place: {})
    asked = arguments_of.__wrapped__("sft")
    assert set(asked) == set(read)
    assert (asked["seed"], asked["save_total_limit"]) == ("int", "int | None")


@pytest.mark.parametrize("name", sorted(FIELDS))
def test_every_training_argument_is_taken(name, tmp_path, monkeypatch):
    monkeypatch.setenv("HUB_TOKEN", "hf_hidden")
    value = not_the_default(name)
    more = {
        "dataloader_prefetch_factor": {"dataloader_num_workers": 1},
        "load_best_model_at_end": {"eval_strategy": "steps"},
    }
    configuration = made(**{name: value}, **more.get(name, {}))
    assert held(configuration, name) == value
    if name in ELSEWHERE:
        return
    built = configuration.library_arguments(str(tmp_path), on_cpu=True)
    kept = getattr(built, name)
    if name == "accelerator_config":
        kept = {"split_batches": kept.split_batches}
    if name == "parallelism_config":
        kept = {"dp_replicate_size": kept.dp_replicate_size}
    assert kept == {"output_dir": str(tmp_path), "hub_token": "hf_hidden"}.get(name, value)


def test_trls_own_arguments_are_taken_where_the_method_has_them(tmp_path):
    sft = {"assistant_only_loss": True, "packing_strategy": "wrapped", "eval_packing": False, "dataset_num_proc": 2}
    built = made(**sft, completion_only_loss=True, loss_type="dft").library_arguments(str(tmp_path))
    assert {name: getattr(built, name) for name in sft} == sft
    assert (built.completion_only_loss, built.loss_type) == (True, "dft")
    dpo = {"label_smoothing": 0.1, "precompute_ref_log_probs": True, "disable_dropout": False}
    built = made(method="dpo", beta=0.3, loss_type=["ipo", "sft"], **dpo).library_arguments(str(tmp_path))
    assert {name: getattr(built, name) for name in dpo} == dpo
    assert (built.beta, built.loss_type, type(built)) == (0.3, ["ipo", "sft"], trl.DPOConfig)


def test_the_losses_are_those_that_trl_names():
    told = {field.name: field.metadata["help"] for field in dataclasses.fields(trl.DPOConfig)}["loss_type"]
    assert set(re.findall(r"`'(\w+)'`", told)) == set(DPO_LOSSES)


def test_only_what_was_given_is_held(tmp_path):
    configuration = made(learning_rate=1e-4, max_length=64, report_to="none")
    assert (configuration.arguments, configuration.display) == ({"learning_rate": 1e-4}, {"report_to": "none"})
    assert configuration.given() == {"learning_rate": 1e-4, "max_length": 64, "report_to": "none"}
    assert (made().given(), made().arguments) == ({}, {})
    rates = [made(method=method).library_arguments(str(tmp_path)).learning_rate for method in ("sft", "dpo")]
    assert rates == [2e-5, 1e-6]  # the library's own


@pytest.mark.parametrize(
    "given",
    [
        {"lora_r": 0}, {"lora_r": True}, {"lora_r": "8"}, {"lora_alpha": 0}, {"lora_dropout": 1},
        {"lora_dropout": -0.1},
        {"lora_dropout": float("nan")}, {"lora_bias": "some"}, {"lora_target_modules": []}, {"lora_target_modules": 3},
        {"validation_fraction": 1.0}, {"validation_fraction": -0.1}, {"max_length": 0}, {"max_length": 1.5},
        {"beta": 0.0, "method": "dpo"}, {"beta": 0.2}, {"bits": 16}, {"bits": 4, "use_lora": False}, {"bits": True},
        {"method": "ppo"}, {"loss_type": "ipo"}, {"loss_type": "nll", "method": "dpo"},
        {"loss_type": "sigmiod", "method": "dpo"},
        {"packing": True, "method": "dpo"}, {"packing": True, "max_length": None}, {"packing": "yes"},
        {"completion_only_loss": True, "method": "dpo"}, {"precompute_ref_log_probs": True},
        {"assistant_only_loss": True, "method": "dpo"}, {"loss_type": "exo_pair", "method": "dpo"},
        {"loss_type": "robust", "method": "dpo", "label_smoothing": 0.5}, {"neftune_noise_alpha": -1},
        {"early_stopping_patience": 0, "eval_strategy": "steps"}, {"early_stopping_patience": 2}, {"use_lora": 1},
        {"learning_rate": "2e-5"}, {"learning_rate": -1}, {"num_train_epochs": 0}, {"per_device_train_batch_size": 0},
        {"gradient_accumulation_steps": True}, {"max_steps": 2.5}, {"max_steps": 0}, {"logging_steps": 0},
        {"fp16": "yes"}, {"lr_scheduler_kwargs": object},
        {"accelerator_config": {1: 2}}, {"warmup_ratio": 1.5}, {"group_by_length": "yes"}, {"arguments": [1]},
        {"model_init_kwargs": {"token": "hf_secret"}}, {"push_to_hub_organization": "o"},
    ],
    ids=str,
)  # fmt: skip
def test_a_value_that_cannot_work_is_refused_when_written(given):
    with pytest.raises(ConfigError, match=next(iter(given))) as refused:
        made(**given)
    assert "hf_secret" not in str(refused.value)


@pytest.mark.parametrize("method", ["sft", "dpo"])
@pytest.mark.parametrize(
    ("given", "instead"),
    [
        ({"dataset_text_field": "body"}, "X= of fit"),
        ({"dataset_kwargs": {"skip_prepare_dataset": True}}, "transform="),
        ({"model_init_kwargs": {"dtype": "bfloat16"}}, "model_kwargs="), ({"trust_remote_code": True}, "model_kwargs="),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_said_elsewhere_is_refused_with_the_place(given, instead, method):
    (name,) = given
    told = f"{name} is an argument of method" if name not in arguments_of(method) else f"{name}=.* no effect.*{instead}"
    with pytest.raises(ConfigError, match=told):
        made(**given, method=method)


def test_what_is_said_elsewhere_may_be_given_as_it_is_by_default():
    given = {"dataset_text_field": "text", "dataset_kwargs": None, "model_init_kwargs": {}, "trust_remote_code": False}
    assert made(**given).arguments == given


NUMBERS = sorted(
    name
    for name, annotation in {**arguments_of("sft"), **arguments_of("dpo")}.items()
    if {"int", "float"} & set(annotation.split(" | "))
)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan], ids=str)
@pytest.mark.parametrize("name", NUMBERS)
def test_no_number_is_endless_or_none(name, value):
    if (name, value) == ("max_grad_norm", math.inf):
        assert made(max_grad_norm=value).arguments == {"max_grad_norm": value}  # measured, and not clipped
        return
    with pytest.raises(ConfigError, match=name):
        made(**{name: value}, method="dpo" if name in arguments_of("dpo") else "sft")


@pytest.mark.parametrize(
    "given", [{"loss_type": ["ipo", "sft"], "loss_weights": [1.0, math.nan]}, {"lr_scheduler_kwargs": {"x": math.inf}}]
)
def test_no_number_in_a_list_or_dict_is_endless(given):
    with pytest.raises(ConfigError, match="not finite"):
        made(method="dpo", **given)


MAY_BE_NEGATIVE = {"max_steps", "local_rank", "f_alpha_divergence_coef"}


@pytest.mark.parametrize("name", sorted({*NUMBERS} - MAY_BE_NEGATIVE))
def test_no_number_is_negative(name):
    with pytest.raises(ConfigError, match=name):
        made(**{name: -1}, method="dpo" if name in arguments_of("dpo") else "sft")


@pytest.mark.parametrize("steps", [0, 0.03, 0.5, 1, 100], ids=str)
def test_a_warmup_is_a_number_of_steps_or_a_share_of_them(steps, tmp_path):
    assert made(warmup_steps=steps).library_arguments(str(tmp_path)).warmup_steps == steps


@pytest.mark.parametrize(
    "given",
    [
        {"eval_strategy": "sometimes"}, {"load_best_model_at_end": True}, {"lr_scheduler_type": "round"},
        {"fp16": True, "bf16": True, "use_cpu": True}, {"accelerator_config": "no_such_file.json"},
        {"dataloader_prefetch_factor": 2}, {"parallelism_config": {"size": 2}},
    ],
    ids=str,
)  # fmt: skip
def test_what_the_libraries_refuse_names_the_configuration(given, tmp_path, monkeypatch):
    configuration = made(**given)
    monkeypatch.setattr("pinnacle_transformers.configuration._HALF", ())
    with pytest.raises(ConfigError, match="training_configuration 'tuning': "):
        configuration.library_arguments(str(tmp_path), on_cpu=True)


def test_half_precision_without_a_gpu_is_told_once_and_silent_where_it_is_a_default(tmp_path):
    with pytest.warns(UserWarning, match="'tuning': bf16=True and tf32=True is turned off") as told:
        built = made(bf16=True, tf32=True).library_arguments(str(tmp_path), on_cpu=True)
    assert (len(told), told[0].filename, built.bf16, built.tf32) == (1, __file__, False, False)
    assert made().library_arguments(str(tmp_path), on_cpu=True).bf16 is False
    assert made(bf16=True, use_cpu=True).library_arguments(str(tmp_path)).bf16 is True


def test_a_gpu_that_has_no_bf16_is_not_asked_for_it(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    built = made().library_arguments(str(tmp_path))
    assert (built.bf16, built.use_cpu, built.dataloader_pin_memory) == (False, False, True)
    assert made().library_arguments(str(tmp_path), on_cpu=True).use_cpu is True


def test_early_stopping_watches_the_loss_unless_told_otherwise(tmp_path):
    given = {"early_stopping_patience": 2, "eval_strategy": "epoch"}
    assert made(**given).library_arguments(str(tmp_path)).metric_for_best_model == "loss"
    other = made(**given, metric_for_best_model="eval_accuracy").library_arguments(str(tmp_path))
    assert (other.metric_for_best_model, other.greater_is_better) == ("eval_accuracy", True)


def test_deepspeed_that_is_not_installed_is_named(tmp_path):
    with pytest.raises(MissingPlugin, match="deepspeed"):
        made(deepspeed={"zero_optimization": {"stage": 2}}).library_arguments(str(tmp_path))


def test_values_become_plain_ones(tmp_path):
    configuration = made(
        eval_strategy=transformers.IntervalStrategy.EPOCH, output_dir=tmp_path, optim_target_modules=("a", "b"),
        lr_scheduler_kwargs={"dtype": torch.bfloat16}, learning_rate=torch.tensor(0.5).numpy()[()],
        accelerator_config=transformers.trainer_pt_utils.AcceleratorConfig(split_batches=True),
        lora_target_modules={"v", "q"},
    )  # fmt: skip
    assert configuration.output_dir == str(tmp_path)
    assert configuration.lora_target_modules == ["q", "v"]
    assert configuration.arguments["accelerator_config"].pop("split_batches") is True
    assert {**configuration.arguments, "accelerator_config": 0} == {
        "eval_strategy": "epoch", "optim_target_modules": ["a", "b"], "lr_scheduler_kwargs": {"dtype": "bfloat16"},
        "learning_rate": 0.5, "accelerator_config": 0,
    }  # fmt: skip
    assert type(configuration.arguments["eval_strategy"]) is str


def test_it_is_stored_and_comes_back_equal(tmp_path):
    db = connect(f"sqlite:///{tmp_path / 'tuning.db'}")
    with pytest.warns(UserWarning, match="save_safetensors"):
        configuration = made(
            learning_rate=1e-4, evaluation_strategy="steps", method="dpo", loss_type="ipo", save_safetensors=False,
            lora_target_modules=["q_proj"], lr_scheduler_kwargs={"num_cycles": 2}, report_to="none", output_dir="runs",
        )  # fmt: skip
    db.add(configuration)
    loaded = db.load("training_configuration", "tuning")
    assert loaded == configuration
    assert (type(loaded), loaded.version, loaded.kind) == (LLMTrainingConfiguration, 0, "training_configuration")
    assert (loaded.arguments["learning_rate"], loaded.arguments["eval_strategy"]) == (1e-4, "steps")
    assert loaded.display == {"report_to": "none"}


def test_a_change_of_what_is_computed_alone_is_a_new_version(tmp_path):
    db = connect(f"sqlite:///{tmp_path / 'tuning.db'}")
    versions = []
    for given in (
        {"learning_rate": 1e-4}, {"learning_rate": 1e-4, "output_dir": "elsewhere", "overwrite_output_dir": True},
        {"learning_rate": 1e-4, "disable_tqdm": True, "report_to": "none"}, {"learning_rate": 2e-4},
        {"learning_rate": 2e-4, "lora_r": 16},
    ):  # fmt: skip
        db.add(configuration := made(**given))
        versions.append(configuration.version)
    assert versions == [0, 0, 0, 1, 2]


def test_a_token_is_neither_stored_nor_shown(tmp_path, monkeypatch):
    db = connect(f"sqlite:///{tmp_path / 'tuning.db'}")
    literal = made(push_to_hub_token="hf_secret")
    assert literal.library_arguments(str(tmp_path)).hub_token == "hf_secret"
    db.add(literal)
    assert db.load("training_configuration", "tuning").hub_token is None
    assert "hf_secret" not in repr(literal)
    assert b"hf_secret" not in b"".join(path.read_bytes() for path in Path(tmp_path).glob("tuning.db*"))
    db.add(LLMTrainingConfiguration("named", hub_token="env:HUB_TOKEN"))
    monkeypatch.setenv("HUB_TOKEN", "hf_named")
    loaded = db.load("training_configuration", "named")
    assert loaded.hub_token == "env:HUB_TOKEN"
    assert loaded.library_arguments(str(tmp_path)).hub_token == "hf_named"
    loaded.check()
    monkeypatch.setattr("pinnacle.base.destinations._said", set())  # as in a process that only loads it
    with pytest.raises(ConfigError, match=r"set PINNACLE_SECRETS=HUB_TOKEN@huggingface\.co in this process"):
        loaded.library_arguments(str(tmp_path))


def test_what_is_set_later_is_checked_before_it_trains(base):
    llm = LLM("tiny", model_name_or_path=str(base))
    configuration = made(learning_rate=1e-4, hub_token="hf_secret", max_steps=1)
    configuration.arguments["learning_rate"] = 2e-4
    configuration.max_length = 16
    assert configuration == made(learning_rate=2e-4, max_length=16, hub_token="hf_secret", max_steps=1)
    check(llm, configuration)
    for name, value, told in (
        ("lora_r", 0, "lora_r"), ("lora_r", "8", "lora_r"), ("arguments", {"learning_rate": -1}, "learning_rate"),
        ("learning_rate", 1.0, r"learning_rate was set, which is no field; set arguments\['learning_rate'\]"),
    ):  # fmt: skip
        changed = copy.copy(configuration)
        setattr(changed, name, value)
        with pytest.raises(ConfigError, match=f"training_configuration 'tuning': {told}"):
            check(llm, changed)
    configuration.arguments["lerning_rate"] = 1
    with pytest.raises(TypeError, match="'lerning_rate'; did you mean 'learning_rate'"):
        check(llm, configuration)


def test_it_is_copied_and_pickled():
    configuration = made(learning_rate=1e-4, report_to="none")
    assert pickle.loads(pickle.dumps(configuration)) == copy.deepcopy(configuration) == configuration
    assert dataclasses.replace(configuration, lora_r=4).lora_r == 4


@pytest.mark.filterwarnings(OLDER_PEFT)
def test_lora_trains_every_linear_layer_but_the_head(tiny):
    config = made(lora_r=4, lora_alpha=32, lora_dropout=0.1, lora_bias="lora_only").lora_config(tiny)
    assert (config.r, config.lora_alpha, config.lora_dropout, config.bias) == (4, 32, 0.1, "lora_only")
    assert config.task_type == "CAUSAL_LM"
    adapted = {name.rpartition(".lora_A")[0] for name, _ in get_peft_model(tiny, config).named_modules()}
    layers = {name.rpartition(".")[2] for name in adapted if name}
    assert layers == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def test_lora_takes_the_layers_it_is_given(tiny):
    assert made(lora_target_modules=["q_proj"]).lora_config(tiny).target_modules == {"q_proj"}
    assert made(lora_target_modules=r".*\.q_proj").lora_config(tiny).target_modules == r".*\.q_proj"
    assert made(use_lora=False).lora_config(tiny) is None
    with pytest.raises(ConfigError, match="no layer 'q_prj', which lora_target_modules names; did you mean 'q_proj'"):
        made(lora_target_modules=["q_prj"]).lora_config(tiny)


@pytest.mark.filterwarnings(OLDER_PEFT)
def test_lora_on_gpt2_has_its_weights_the_right_way_round():
    model = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=32, n_positions=8, n_embd=8, n_layer=1, n_head=2)
    )
    adapted = get_peft_model(model, made().lora_config(model))  # a warning of peft's would fail
    assert {name for name, weight in adapted.named_parameters() if weight.requires_grad} != set()
