"""What a fit refuses, before it trains: each with the value and what to do."""

from __future__ import annotations

import pytest
from pinnacle_transformers import LLM, LLMTrainingConfiguration
from pinnacle_transformers.fitting import check

from pinnacle import ConfigError, MissingPlugin
from plugins.transformers.tests.fits import TRAIN_ROWS, config, fitted, stored

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # trl's and peft's own

REPORTERS = "transformers.integrations.integration_utils"


@pytest.fixture
def rows(tmp_path):
    db, select = stored(tmp_path / "rows.db", TRAIN_ROWS)
    with db:
        yield db, select


@pytest.mark.parametrize(
    ("X", "options", "told"),
    [
        ({"completion": "completion", "promt": "prompt"}, {}, "row of key 1 gives completion, promt"),
        (("prompt", "completion"), {"eos_token": "<nope>"}, "eos_token='<nope>' is no token"),
        (("prompt", "completion"), {"chat_template_path": "/nope/nope"}, "is no .jinja file here"),
        (("prompt", "completion"), {"resume_from_checkpoint": "/nope"}, "goes on by itself"),
        (("prompt", "completion"), {"output_dir": "/proc/x/y"}, "cannot be made"),
        (("prompt", "completion"), {"report_to": "tensorbord"}, "'tensorbord'.*did you mean 'tensorboard'"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_cannot_be_trained_is_refused_by_name(rows, base, X, options, told):  # noqa: N803
    db, select = rows
    with pytest.raises(ConfigError, match=told):
        fitted(db, select, base, "refused", X=X, max_steps=1, **options)
    assert "model" not in {kind for kind, _ in db.show()}


@pytest.mark.parametrize(
    ("given", "error", "told"),
    [
        ({"report_to": "wandb"}, MissingPlugin, "wandb is needed for report_to='wandb'.*pip install 'wandb'"),
        ({"report_to": ["comet_ml"]}, MissingPlugin, "report_to='comet_ml'.*pip install 'comet-ml'"),
        ({"report_to": ["none", "wandb"]}, ConfigError, "report_to='none' is unknown"),
        ({"report_to": "kubeflow"}, ConfigError, "report_to='kubeflow' needs the environment of a Kubeflow job"),
        ({"use_liger_kernel": True}, MissingPlugin, "use_liger_kernel=True.*pip install 'liger-kernel>=0.3.0'"),
    ],
    ids=str,
)
def test_a_package_that_is_not_there_is_told_before_anything_is_written(
    rows, base, monkeypatch, tmp_path, given, error, told
):
    monkeypatch.setattr("transformers.utils.import_utils.is_liger_kernel_available", lambda: False)
    monkeypatch.setattr(f"{REPORTERS}.get_available_reporting_integrations", lambda: ["tensorboard"])
    monkeypatch.setattr("pinnacle_transformers.limits.importlib.util.find_spec", lambda module: None)
    db, select = rows
    with pytest.raises(error, match=told):
        fitted(db, select, base, "refused", max_steps=1, output_dir=str(tmp_path / "out"), **given)
    assert db.show() == []
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("report_to", [None, "none", [], "all", ["all"], "tensorboard", ["flyte"]], ids=str)
def test_what_is_installed_may_be_reported_to(base, monkeypatch, report_to):
    monkeypatch.setattr(f"{REPORTERS}.get_available_reporting_integrations", lambda: ["tensorboard"])
    monkeypatch.setattr("transformers.integrations.get_available_reporting_integrations", lambda: ["tensorboard"])
    monkeypatch.setattr(f"{REPORTERS}.is_flytekit_available", lambda: True)
    check(LLM("tiny", model_name_or_path=str(base)), config(report_to=report_to))


@pytest.mark.parametrize(
    "given",
    [{"max_steps": 0}, {"save_steps": 0}, {"save_total_limit": -1}, {"logging_steps": 0}, {"eval_steps": 0}],
    ids=str,
)
def test_counts_of_nothing_are_refused_when_they_are_written(given):
    with pytest.raises(ConfigError, match=next(iter(given))):
        LLMTrainingConfiguration("c", **given)


def test_the_rows_are_encoded_with_the_template_and_the_end_that_are_saved(base, tmp_path):
    template = tmp_path / "template.jinja"
    template.write_text("{% for m in messages %}ZZ{{ m['role'] }}: {{ m['content'] }}{{ eos_token }}{% endfor %}")
    from pinnacle_transformers.training import Training

    from pinnacle.base.rows import Fields
    from pinnacle.plugin import TrainingJob

    configuration = config(chat_template_path=str(template), eos_token="<|user|>")
    job = TrainingJob(configuration, Fields.of("text"), {}, {}, tmp_path, None)
    tokenizer = Training(LLM("tiny", model_name_or_path=str(base)), job).tokenizer
    rendered = tokenizer.apply_chat_template([{"role": "user", "content": "hello"}], tokenize=False)
    assert rendered == "ZZuser: hello<|user|>"


@pytest.mark.parametrize("metrics", [3, {"exact_match"}, [3]], ids=str)
def test_metrics_that_are_none_are_refused(rows, base, metrics):
    db, select = rows
    with pytest.raises(ConfigError, match="metrics= "):
        fitted(db, select, base, "refused", metrics=metrics)
    assert db.show() == []
