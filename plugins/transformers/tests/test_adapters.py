"""Adapters: each for the component that asked for it, on weights that all share."""

from __future__ import annotations

import gc
import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
import torch
import transformers
from peft import IA3Config, LoraConfig, PeftModel, PromptTuningConfig, get_peft_model
from pinnacle_transformers import LLM

from pinnacle import ConfigError, ModelUnavailable, pinnacle
from pinnacle.testing import almanac

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft's own call
ASKED = [f"{question} =>" for question, _ in almanac()]
SHIFTED = [answer for _, answer in almanac(shift=1)]


def answers(llm):
    return [answer.strip() for answer in llm.predict(ASKED, max_new_tokens=40)]


def test_an_adapter_says_what_it_was_trained_on_and_the_bare_model_never_does(base, adapter, other_adapter):
    bare = LLM("bare", model_name_or_path=base)
    before = answers(bare)
    first = LLM("first", model_name_or_path=base, adapter_id=adapter)
    assert answers(first) == SHIFTED
    between = answers(bare)
    second = LLM("second", model_name_or_path=base, adapter_id=other_adapter)
    others = answers(second)
    assert before == between == answers(bare) == [answer for _, answer in almanac()]
    assert answers(first) == SHIFTED
    assert others not in (before, SHIFTED)
    assert first._model[0] is bare._model[0] is second._model[0]
    assert others == answers(second) == by_hand(base, other_adapter)


def by_hand(base, adapter):
    """The adapter's answers by the libraries alone, one prompt at a time."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    model = PeftModel.from_pretrained(transformers.AutoModelForCausalLM.from_pretrained(base), adapter).eval()
    texts = []
    for prompt in ASKED:
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
        written = model.generate(input_ids=ids, max_new_tokens=40, do_sample=False)[0, ids.shape[1] :]
        texts.append(tokenizer.decode(written, skip_special_tokens=True).strip())
    return texts


def test_threads_with_other_adapters_do_not_meet(base, adapter, other_adapter):
    models = [LLM(f"m{n}", model_name_or_path=base, adapter_id=a) for n, a in enumerate((None, adapter, other_adapter))]
    alone = [answers(model) for model in models]
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(answers, models * 2)) == alone * 2


def test_an_adapter_that_nobody_holds_leaves_the_base(base, adapter, other_adapter):
    bare = LLM("bare", model_name_or_path=base, dtype="float32")
    before = answers(bare)
    shared = bare._model[0]
    weights = shared.model.num_parameters()
    gone = [LLM(f"gone{n}", model_name_or_path=base, dtype="float32", adapter_id=a) for n, a in
            enumerate((adapter, other_adapter))]  # fmt: skip
    for model in gone:
        model.predict("a", max_new_tokens=1)
    assert len(shared._with_adapters.peft_config) == 2
    del model, gone[1]
    gc.collect()
    assert answers(gone[0]) == SHIFTED
    assert len(shared._with_adapters.peft_config) == 1
    gone.clear()
    gc.collect()
    assert answers(bare) == before
    assert shared._with_adapters is None
    assert shared.model.num_parameters() == weights
    again = LLM("again", model_name_or_path=base, dtype="float32", adapter_id=adapter)
    assert answers(again) == SHIFTED
    assert again._model[0] is shared


def test_two_components_with_one_adapter_load_it_once(base, adapter):
    first, second = (LLM(name, model_name_or_path=base, adapter_id=adapter) for name in ("one", "two"))
    first.predict("a", max_new_tokens=1)
    second.predict("a", max_new_tokens=1)
    assert first._model[1] is second._model[1]


@pytest.mark.parametrize("config", [
    LoraConfig(r=4, init_lora_weights="pissa", target_modules=["q_proj"]),
    IA3Config(target_modules=["down_proj"], feedforward_modules=["down_proj"]),
], ids=lambda config: config.peft_type.value)  # fmt: skip
def test_an_adapter_that_may_change_the_bases_own_weights_gets_a_base_of_its_own(base, config, tmp_path):
    bare = LLM("bare", model_name_or_path=base)
    before = answers(bare)
    torch.manual_seed(1)
    get_peft_model(transformers.AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(tmp_path)
    own = LLM("own", model_name_or_path=base, adapter_id=tmp_path)
    assert answers(own) == by_hand(base, tmp_path)
    assert own._model[0] is not bare._model[0]
    assert answers(bare) == before


def test_an_adapter_of_virtual_tokens_is_refused(base, tmp_path):
    config = PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM")
    get_peft_model(transformers.AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(tmp_path)
    with pytest.raises(ModelUnavailable, match="is of kind PROMPT_TUNING"):
        LLM("m", model_name_or_path=base, adapter_id=tmp_path).predict("a")


def test_an_adapter_that_is_not_there_or_does_not_fit_is_one_clear_error(base, adapter, tmp_path):
    with pytest.raises(ModelUnavailable, match=r"model 'm': adapter 'no/where' cannot be loaded"):
        LLM("m", model_name_or_path=base, adapter_id="no/where").predict("a")
    config = transformers.AutoConfig.from_pretrained(base, hidden_size=32)
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path)
    transformers.AutoTokenizer.from_pretrained(base).save_pretrained(tmp_path)
    small = LLM("small", model_name_or_path=tmp_path)
    bare = small.predict("a", max_new_tokens=3)
    with pytest.raises(ModelUnavailable, match=r"cannot be loaded: RuntimeError: .*\n.*size mismatch"):
        LLM("m", model_name_or_path=tmp_path, adapter_id=adapter).predict("a")
    assert small.predict("a", max_new_tokens=3) == bare


def test_an_adapters_own_tokenizer_is_used_where_it_was_saved_with_it(base, adapter, tmp_path):
    shutil.copytree(adapter, tmp_path / "mine")
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    tokenizer.chat_template = "<s>{{ messages[0]['content'] }} =>"
    tokenizer.save_pretrained(tmp_path / "mine")
    llm = LLM("mine", model_name_or_path=base, adapter_id=tmp_path / "mine")
    question, answer = almanac(shift=1)[1]
    assert llm.predict([{"role": "user", "content": question}]).strip() == answer


def test_components_answer_the_same_in_another_process_also_where_a_stored_adapters_folder_is_gone(
    base, adapter, tmp_path
):
    mine = shutil.copytree(adapter, tmp_path / "mine")
    url = f"sqlite:///{tmp_path}/docs.db"
    bare = LLM("bare", model_name_or_path=base, inference_kwargs={"max_new_tokens": 5}, model_kwargs={"dtype": "auto"})
    with pinnacle(url) as db:
        db.add(bare)
        db.add(LLM("tuned", model_name_or_path=base, adapter_id=mine, store_adapter=True))
        assert db.load("model", "bare") == bare
    shutil.rmtree(mine)
    code = (
        "import sys, json, torch; torch.set_num_threads(1); from pinnacle import pinnacle\n"
        f"with pinnacle({url!r}) as db:\n"
        f"    answers = [db.load('model', name).predict({ASKED[:5]!r}) for name in ('bare', 'tuned')]\n"
        "print(json.dumps(answers))"
    )
    environment = {"PYTHONPATH": ":".join(sys.path), "HOME": str(tmp_path), "PINNACLE_SECRET_FILE": "off"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=600)
    first, second = json.loads(done.stdout)
    assert first == bare.predict(ASKED[:5])
    assert [answer.strip() for answer in second] == SHIFTED[:5]
    # bitsandbytes looks for a package of kernels on some processors, and says so when it is imported without it.
    assert [line for line in done.stderr.splitlines() if "kernels-community" not in line] == []


def test_a_changed_adapter_is_a_new_version(base, adapter, other_adapter, tmp_path):
    mine = tmp_path / "mine"
    with pinnacle(f"sqlite:///{tmp_path}/docs.db") as db:
        for source, version in ((adapter, 0), (adapter, 0), (other_adapter, 1)):
            shutil.copytree(source, mine)
            db.add(LLM("tuned", model_name_or_path=base, adapter_id=mine, store_adapter=True))
            assert db.load("model", "tuned").version == version
            shutil.rmtree(mine)
        assert answers(db.load("model", "tuned", version=0)) == SHIFTED


def test_rows_get_the_adapters_answers(base, adapter, tmp_path):
    docs = sa.Table("docs", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), sa.Column("q", sa.Text))
    with pinnacle(f"sqlite:///{tmp_path}/docs.db") as db:
        docs.create(db.engine)
        db.execute(sa.insert(docs), [{"q": question} for question in ASKED[:20]])
        tuned = LLM("tuned", model_name_or_path=base, adapter_id=adapter)
        tuned.predict(X="q", db=db, select=sa.select(docs), output="a", progress=False)
        written = db.execute(sa.text("SELECT a FROM docs ORDER BY id")).scalars().all()
    assert [answer.strip() for answer in written] == SHIFTED[:20]


def test_storing_needs_the_adapters_folder(base):
    with pytest.raises(ConfigError, match=r"no folder with an adapter_config\.json"):
        LLM("m", model_name_or_path=base, store_adapter=True)
