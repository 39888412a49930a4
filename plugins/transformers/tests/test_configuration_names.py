"""LLMTrainingConfiguration under other names: those of older libraries, and copies with changes."""

from __future__ import annotations

import dataclasses
import warnings

import pytest
import transformers
from pinnacle_transformers import LLMTrainingConfiguration
from pinnacle_transformers.renamed import OLD_NAMES, Gone

from pinnacle import ConfigError

SINCE_4_30 = {
    "overwrite_output_dir": False, "evaluation_strategy": "no", "per_gpu_train_batch_size": None,
    "per_gpu_eval_batch_size": None, "warmup_ratio": 0.0, "logging_dir": None, "save_safetensors": True,
    "no_cuda": False, "use_mps_device": False, "jit_mode_eval": False, "use_ipex": False, "fp16_opt_level": "O1",
    "half_precision_backend": "auto", "tpu_num_cores": None, "tpu_metrics_debug": False, "past_index": -1,
    "sharded_ddp": "", "fsdp_min_num_params": 0, "fsdp_transformer_layer_cls_to_wrap": None, "adafactor": False,
    "group_by_length": False, "use_legacy_prediction_loop": False, "include_inputs_for_metrics": False,
    "fp16_backend": "auto", "push_to_hub_model_id": None, "push_to_hub_organization": None, "push_to_hub_token": None,
    "mp_parameters": "", "torchdynamo": None, "ray_scope": "last", "xpu_backend": None, "dispatch_batches": None,
    "split_batches": None, "include_tokens_per_second": False,
}  # fmt: skip
"""Every argument that TrainingArguments of transformers 4.30 to 4.57 took and that of 5 does not, with its default."""


def made(**given):
    return LLMTrainingConfiguration("tuning", **given)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"evaluation_strategy": "steps"}, {"eval_strategy": "steps"}),
        ({"evaluation_strategy": True}, {"eval_strategy": "steps"}),
        ({"evaluation_strategy": False}, {"eval_strategy": "no"}),
        ({"warmup_ratio": 0.1}, {"warmup_steps": 0.1}),
        ({"warmup_ratio": 0.1, "warmup_steps": 0}, {"warmup_steps": 0.1}),
        ({"warmup_ratio": 0.0, "warmup_steps": 5}, {"warmup_steps": 5}),
        ({"no_cuda": True}, {"use_cpu": True}),
        ({"group_by_length": True}, {"train_sampling_strategy": "group_by_length"}),
        ({"per_gpu_train_batch_size": 2, "per_gpu_eval_batch_size": 3},
         {"per_device_train_batch_size": 2, "per_device_eval_batch_size": 3}),
        ({"adafactor": True}, {"optim": "adafactor"}),
        ({"include_inputs_for_metrics": True, "include_for_metrics": ["loss"]},
         {"include_for_metrics": ["loss", "inputs"]}),
        ({"include_tokens_per_second": True}, {"include_num_input_tokens_seen": "all"}),
        ({"include_tokens_per_second": True, "include_num_input_tokens_seen": "non_padding"},
         {"include_num_input_tokens_seen": "non_padding"}),
        ({"dispatch_batches": False, "split_batches": True},
         {"accelerator_config": {"dispatch_batches": False, "split_batches": True}}),
        ({"fsdp_min_num_params": 5, "fsdp_config": {"version": 2}},
         {"fsdp_config": {"version": 2, "min_num_params": 5}}),
        ({"fsdp_transformer_layer_cls_to_wrap": "Block"},
         {"fsdp_config": {"transformer_layer_cls_to_wrap": ["Block"]}}),
        ({"tpu_metrics_debug": True, "debug": "underflow_overflow"},
         {"debug": ["underflow_overflow", "tpu_metrics_debug"]}),
        ({"push_to_hub_model_id": "m", "push_to_hub_organization": "o"}, {"hub_model_id": "o/m"}),
        ({"push_to_hub_organization": "o", "output_dir": "runs/m/"}, {"hub_model_id": "o/m"}),
        ({"torchdynamo": "eager"}, {"torch_compile_backend": "eager"}),
        ({"xpu_backend": "ccl"}, {"ddp_backend": "ccl"}),
        ({"gradient_checkpointing": False}, {"activation_checkpointing": False}),
        ({"use_liger": True}, {"use_liger_kernel": True}),
    ],
    ids=lambda given: ",".join(given),
)  # fmt: skip
def test_an_old_name_is_what_it_is_called_now(old, new):
    assert made(**old).arguments == new


def test_an_old_name_of_ours_is_what_it_is_called_now():
    assert made(max_seq_length=32).max_length == 32


def test_a_warmup_over_all_steps_stays_one(tmp_path):
    built = made(warmup_ratio=1).library_arguments(str(tmp_path))
    assert [built.get_warmup_steps(steps) for steps in (1, 10, 12345)] == [1, 10, 12345]


@pytest.mark.parametrize("name", sorted(SINCE_4_30))
def test_every_argument_that_transformers_4_took_is_taken_in_silence_with_its_default(name):
    fields = {field.name for field in dataclasses.fields(transformers.TrainingArguments) if field.init}
    assert name == "overwrite_output_dir" or name not in fields
    made(**{name: SINCE_4_30[name]})


@pytest.mark.parametrize(
    "given",
    [
        {"save_safetensors": False}, {"logging_dir": "logs"}, {"half_precision_backend": "apex"},
        {"fp16_opt_level": "O2"}, {"jit_mode_eval": True}, {"tpu_num_cores": 8}, {"past_index": 1}, {"use_ipex": True},
        {"use_legacy_prediction_loop": True}, {"sharded_ddp": "simple"}, {"max_prompt_length": 128},
    ],
    ids=str,
)  # fmt: skip
def test_what_will_not_happen_is_said_once(given):
    with pytest.warns(UserWarning, match=f"{next(iter(given))}=.*no effect any more") as told:
        configuration = made(**given)
    assert len(told) == 1
    assert told[0].filename == __file__
    assert configuration.arguments == {}


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({"evaluation_strategy": "steps", "eval_strategy": "epoch"}, ("evaluation_strategy", "eval_strategy")),
        ({"warmup_ratio": 0.1, "warmup_steps": 10}, ("warmup_ratio", "warmup_steps")),
        ({"no_cuda": False, "use_cpu": True}, ("no_cuda", "use_cpu")),
        ({"adafactor": True, "optim": "adamw_torch"}, ("adafactor", "optim")),
        ({"max_seq_length": 3, "max_length": 4}, ("max_seq_length", "max_length")),
        ({"split_batches": True, "accelerator_config": {"split_batches": False}},
         ("split_batches", "accelerator_config")),
        ({"split_batches": True, "accelerator_config": "file.json"}, ("split_batches", "accelerator_config")),
        ({"push_to_hub_token": "hf_a", "hub_token": "hf_b"}, ("push_to_hub_token", "hub_token")),
    ],
)  # fmt: skip
def test_two_names_of_one_argument_that_differ_are_refused(given, names):
    with pytest.raises(ConfigError) as refused:
        made(**given)
    assert all(name in str(refused.value) for name in names)
    assert "hf_" not in str(refused.value)


def test_an_unknown_name_is_refused_with_near_ones():
    with pytest.raises(TypeError, match="'lerning_rate'; did you mean 'learning_rate'"):
        made(lerning_rate=1e-4)
    with pytest.raises(TypeError, match="takes no argument 'qqqq'"):
        made(arguments={"qqqq": 1})


@pytest.mark.parametrize(
    ("before", "changes", "after"),
    [
        ({"learning_rate": 1e-4}, {"learning_rate": 1e-3}, {"learning_rate": 1e-3}),
        ({"learning_rate": 1e-4, "seed": 1}, {"learning_rate": 1e-3, "weight_decay": 0.1, "lora_r": 16},
         {"learning_rate": 1e-3, "seed": 1, "weight_decay": 0.1, "lora_r": 16}),
        ({"report_to": "none", "disable_tqdm": True}, {"report_to": "all"}, {"report_to": "all", "disable_tqdm": True}),
        ({"learning_rate": 1e-4, "lora_r": 4}, {"lora_r": 16}, {"learning_rate": 1e-4, "lora_r": 16}),
        ({"learning_rate": 1e-4, "seed": 1}, {"arguments": {"seed": 2}}, {"seed": 2}),
        ({"max_seq_length": 16}, {"max_length": 32}, {"max_length": 32}),
        ({"max_length": 16}, {"max_seq_length": None}, {"max_length": 16}),
        ({"hub_token": "env:A"}, {"hub_token": "env:B"}, {"hub_token": "env:B"}),
        ({"eval_strategy": "steps"}, {"evaluation_strategy": "epoch"}, {"eval_strategy": "epoch"}),
        ({"evaluation_strategy": "steps"}, {"eval_strategy": "epoch"}, {"eval_strategy": "epoch"}),
        ({"gradient_checkpointing": False}, {"gradient_checkpointing": True}, {"activation_checkpointing": True}),
        ({"warmup_steps": 10}, {"warmup_ratio": 0.2}, {"warmup_steps": 0.2}),
        ({"warmup_steps": 10}, {"warmup_ratio": 0.0}, {"warmup_steps": 10}),
        ({"warmup_ratio": 0.1}, {"warmup_ratio": 1}, {"warmup_ratio": 1}),
        ({"warmup_ratio": 0.1}, {"warmup_ratio": 0.0}, {"warmup_steps": 0.0}),
        ({"optim": "adamw_torch"}, {"adafactor": True}, {"optim": "adafactor"}),
        ({"adafactor": True}, {"adafactor": False}, {}),
        ({"optim": "adamw_torch"}, {"adafactor": False}, {"optim": "adamw_torch"}),
        ({"group_by_length": True}, {"group_by_length": False}, {}),
        ({"accelerator_config": {"split_batches": True, "even_batches": False}}, {"split_batches": False},
         {"accelerator_config": {"split_batches": False, "even_batches": False}}),
        ({"include_inputs_for_metrics": True}, {"include_inputs_for_metrics": False}, {}),
        ({"include_for_metrics": ["loss"]}, {"include_inputs_for_metrics": True},
         {"include_for_metrics": ["loss", "inputs"]}),
        ({"include_tokens_per_second": True}, {"include_tokens_per_second": False}, {}),
        ({"hub_model_id": "o/m"}, {"push_to_hub_organization": "other"}, {"hub_model_id": "other/m"}),
        ({"hub_model_id": "m"}, {"push_to_hub_model_id": "n"}, {"hub_model_id": "n"}),
    ],
    ids=str,
)  # fmt: skip
def test_a_copy_with_changes_is_as_if_it_were_written_so(before, changes, after):
    configuration = made(**before)
    assert dataclasses.replace(configuration, **changes) == made(**after)
    assert dataclasses.replace(configuration, **changes).hub_token == after.get("hub_token")
    assert configuration == made(**before)


def test_a_copy_with_changes_is_checked_as_what_was_written():
    configuration = made(learning_rate=1e-4)
    with pytest.raises(TypeError, match="'lerning_rate'; did you mean"):
        dataclasses.replace(configuration, lerning_rate=1e-4)
    with pytest.raises(ConfigError, match="learning_rate"):
        dataclasses.replace(configuration, learning_rate=-1)
    with pytest.raises(ConfigError, match="evaluation_strategy is now eval_strategy"):
        dataclasses.replace(configuration, evaluation_strategy="epoch", eval_strategy="steps")
    with pytest.raises(ConfigError, match="max_seq_length is now max_length, and both are given and differ"):
        dataclasses.replace(configuration, max_seq_length=32)
    assert dataclasses.replace(configuration).arguments is not configuration.arguments


def test_what_is_given_by_its_own_name_goes_before_the_dicts():
    given = {"learning_rate": 1, "evaluation_strategy": "steps", "report_to": "none"}
    assert made(learning_rate=2, lora_r=4, arguments=given, display={"run_name": "x"}) == made(
        **{**given, "learning_rate": 2}, lora_r=4, run_name="x"
    )


@pytest.mark.parametrize("name", sorted(OLD_NAMES))
def test_no_old_name_is_stored(name):
    values = {
        "evaluation_strategy": "epoch", "xpu_backend": "ccl", "torchdynamo": "eager", "push_to_hub_token": "env:A",
        "max_seq_length": 32, "gradient_checkpointing_kwargs": {"use_reentrant": True}, "warmup_ratio": 1.0,
        "per_gpu_train_batch_size": 3, "per_gpu_eval_batch_size": 3, "fsdp_min_num_params": 5,
        "push_to_hub_model_id": "m", "push_to_hub_organization": "o", "fsdp_transformer_layer_cls_to_wrap": ["Block"],
    }  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of those without an effect
        configuration = made(**{"output_dir": "runs", name: values.get(name, True)})
    told = configuration.given() | ({"hub_token": ...} if configuration.hub_token else {})
    assert (name in told, bool(told.keys() - {"output_dir"})) == (False, not isinstance(OLD_NAMES[name], Gone))
