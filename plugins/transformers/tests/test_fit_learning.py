"""What a fit teaches: a pattern that the model did not know, by exact match on questions that were held out."""

from __future__ import annotations

import json
from statistics import mean

import pytest
from pinnacle_transformers import LLM

from plugins.transformers.tests.fits import (
    ANSWERS,
    HELD,
    PAIRS,
    TRAIN_ROWS,
    distance,
    fitted,
    hits,
    margins,
    preferred,
    python,
    stored,
    weights,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),  # peft's own call
    pytest.mark.timeout(300),
]

WAYS = {
    "lora": {"max_steps": 60, "lora_r": 16, "lora_alpha": 32},
    "qlora": {"max_steps": 60, "lora_r": 16, "lora_alpha": 32, "bits": 4},
    "full": {"max_steps": 30, "use_lora": False, "learning_rate": 5e-3},
}
RELOAD = """
import json, sys
from pinnacle import pinnacle
url, *names, asked = sys.argv[1:]
with pinnacle(url) as db:
    for name in names:
        print(json.dumps(db.load("model", name).predict(json.loads(asked), max_new_tokens=12)))
"""


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    return f"sqlite:///{tmp_path_factory.mktemp('learning')}/pairs.db"


@pytest.fixture(scope="module")
def learned(url, base):
    """A model for each way to train, all over the same rows."""
    db, select = stored(url, TRAIN_ROWS)
    with db:
        yield {name: fitted(db, select, base, name, **options) for name, options in WAYS.items()}


@pytest.mark.parametrize("way", WAYS)
def test_a_fit_teaches_a_pattern_to_a_model_that_did_not_know_it(learned, base, way):
    llm, run = learned[way]
    assert hits(LLM("untaught", model_name_or_path=base, bits=WAYS[way].get("bits"))) == 0.0
    assert hits(llm) >= 0.95
    assert (run.status, run.rows, run.step) == ("done", {"train": 45}, WAYS[way]["max_steps"])
    assert run.series()[0]["loss"] > 2 * run.metrics["loss"]


def test_a_fresh_process_answers_the_same_token_for_token(learned, url):
    asked = [prompt for prompt, _ in PAIRS]
    done = python(RELOAD, url, *learned, json.dumps(asked))
    told_there = [json.loads(line) for line in done.stdout.splitlines()]
    assert told_there == [llm.predict(asked, max_new_tokens=12) for llm, _ in learned.values()]


def test_only_full_training_changes_the_weights_themselves(learned):
    assert all("lora" in name for way in ("lora", "qlora") for name in weights(learned[way][0]))
    full = learned["full"][0]
    assert full.adapter is None
    assert not any("lora" in name for name in weights(full))


@pytest.mark.parametrize(("loss_type", "beta"), [("sigmoid", 0.1), ("ipo", 0.1)])
def test_dpo_after_sft_prefers_the_chosen_answers_and_keeps_the_pattern(learned, base, url, loss_type, beta):
    taught = learned["lora"][0]
    db, select = stored(url, preferred(PAIRS[:45]), name=f"preferred_{loss_type}")
    before, held = weights(taught), preferred(HELD)
    with db:
        llm = LLM(f"dpo-{loss_type}", model_name_or_path=base, adapter_id=taught.adapter_source())
        margins_before = margins(llm, held)
        llm, run = fitted(
            db, select, base, llm.identifier, model=llm, X=ANSWERS, method="dpo", loss_type=loss_type, beta=beta,
            max_steps=12, learning_rate=1e-3, lora_r=16, lora_alpha=32,
        )  # fmt: skip
        assert mean(margins(llm, held)) > mean(margins_before) + 0.5
        assert hits(llm) >= 0.95
        assert run.metrics["rewards/margins"] > 0
    assert distance(weights(llm), before) > 1e-4
    assert set(weights(llm)) == set(before)
