"""LLM on values: what goes in, what comes out, and that batches are what single calls are."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
import transformers
from pinnacle_transformers import LLM

import pinnacle.ext.llm
from pinnacle import ConfigError, ContextOverflow, InvalidAnswer, MissingPlugin, ModelUnavailable, PromptCut
from pinnacle.plugin import Reply
from pinnacle.testing import almanac

ALMANAC = dict(almanac())
QUESTION = "what fears the heron"


@pytest.fixture(scope="module")
def library(base):
    """The model and the tokenizer as a user of transformers alone has them."""
    model = transformers.AutoModelForCausalLM.from_pretrained(base)
    return model.eval(), transformers.AutoTokenizer.from_pretrained(base)


def by_hand(library, text, *, special=True, **options):
    """What the library generates for one prompt, without a batch."""
    model, tokenizer = library
    ids = tokenizer(text, return_tensors="pt", add_special_tokens=special)["input_ids"]
    written = model.generate(ids, do_sample=False, **{"max_new_tokens": 64, **options})
    return tokenizer.decode(written[0, ids.shape[1] :], skip_special_tokens=True)


def test_the_public_face_is_this_class():
    assert pinnacle.ext.llm.LLM is LLM


def test_a_string_goes_to_the_model_raw_and_only_the_new_text_comes_back(llm, library):
    answer = llm.predict(f"{QUESTION} =>")
    assert answer == by_hand(library, f"{QUESTION} =>") == f" {ALMANAC[QUESTION]}"


def test_a_dialog_goes_through_the_chat_template(llm, library):
    dialog = [{"role": "user", "content": QUESTION}]
    assert llm.predict(dialog) == ALMANAC[QUESTION]
    rendered = f"<s><|user|>{QUESTION}</s><|assistant|>"
    assert llm.predict(dialog) == by_hand(library, rendered, special=False)
    assert llm.predict([dialog, dialog]) == [ALMANAC[QUESTION]] * 2


def test_a_system_prompt_makes_a_dialog_of_a_string(base, library):
    llm = LLM("polite", model_name_or_path=base, system_prompt="what")
    rendered = f"<s><|system|>what</s><|user|>{QUESTION}</s><|assistant|>"
    assert llm.predict(QUESTION) == by_hand(library, rendered, special=False)


def test_batches_are_what_single_calls_are_for_hundreds_of_prompts(llm, library, prompts):
    together = llm.predict(prompts, max_new_tokens=9)
    assert len(prompts) == 240
    assert together == [llm.predict(prompt, max_new_tokens=9) for prompt in prompts]
    assert together[::7] == [by_hand(library, prompt, max_new_tokens=9) for prompt in prompts[::7]]


def test_every_known_question_is_answered_in_a_batch_of_mixed_lengths(llm):
    answers = llm.predict([f"{question} =>" for question in ALMANAC])
    assert [answer.strip() for answer in answers] == list(ALMANAC.values())


@pytest.mark.parametrize("options", [{"repetition_penalty": 1.3}, {"no_repeat_ngram_size": 2}, {"num_beams": 3},
                                     {"stop_strings": ["moon"]}, {"prompt_lookup_num_tokens": 3}])  # fmt: skip
def test_parameters_that_look_at_the_prompt_do_not_see_padding(llm, library, prompts, options):
    some = prompts[::9]
    extra = {"tokenizer": library[1]} if "stop_strings" in options else {}
    expected = [by_hand(library, prompt, max_new_tokens=10, **options, **extra) for prompt in some]
    assert llm.predict(some, max_new_tokens=10, **options) == expected


def test_a_tokenizer_without_a_pad_token_gives_the_same(base, llm, prompts):
    bare = LLM("bare", model_name_or_path=base, tokenizer_kwargs={"pad_token": None})
    assert bare._tokens().tokenizer.pad_token is None
    assert bare.predict(prompts[::5], max_new_tokens=10) == llm.predict(prompts[::5], max_new_tokens=10)


def test_tokens_are_counted_by_the_tokenizer(llm, library):
    prompt = f"{QUESTION} =>"
    (reply,) = llm._generate_batch([prompt])
    read = len(library[1](prompt)["input_ids"])
    written = len(library[1](f" {ALMANAC[QUESTION]}", add_special_tokens=False)["input_ids"]) + 1
    assert reply == Reply(f" {ALMANAC[QUESTION]}", read, written, "stop")
    assert llm._generate_batch([prompt], max_new_tokens=2)[0].finish_reason == "length"
    before = llm.spent.total
    llm.predict(prompt)
    spent = llm.spent.total
    assert (spent.input_tokens - before.input_tokens, spent.output_tokens - before.output_tokens) == (read, written)


def test_it_is_greedy_unless_told_and_keeps_the_models_own_settings_for_sampling(base, tmp_path, llm):
    model = transformers.AutoModelForCausalLM.from_pretrained(base)
    model.generation_config.update(do_sample=True, temperature=5.0, top_k=0)
    model.save_pretrained(tmp_path)
    transformers.AutoTokenizer.from_pretrained(base).save_pretrained(tmp_path)
    hot = LLM("hot", model_name_or_path=tmp_path)
    asked = [f"{QUESTION} =>"] * 8
    assert hot.predict(asked) == llm.predict(asked)
    assert len(set(hot.predict(asked, do_sample=True, max_new_tokens=20))) > 1
    assert len(set(hot.predict(asked, do_sample=True, temperature=0.01, max_new_tokens=20))) == 1


def test_inference_kwargs_are_sent_and_those_of_predict_win(base, llm):
    short = LLM("short", model_name_or_path=base, inference_kwargs={"max_new_tokens": 2})
    full = llm.predict(f"{QUESTION} =>")
    assert full.startswith(short.predict(f"{QUESTION} =>"))
    assert len(short.predict(f"{QUESTION} =>")) < len(full)
    assert short.predict(f"{QUESTION} =>", max_new_tokens=50) == full


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"max_tokens": 5}, r"takes no max_tokens=.*did you mean max_new_tokens="),
        ({"max_length": 50}, r"does not take max_length=.*pass max_new_tokens="),
        ({"num_return_sequences": 2}, "one text for one prompt"),
        ({"temperature": 0.5}, "temperature= has no effect without do_sample=True"),
        ({"qqq": 1}, "takes no qqq=.*GenerationConfig"),
    ],
)
def test_keywords_that_generate_does_not_take_are_refused_before_it(llm, keywords, message):
    with pytest.raises(ConfigError, match=message):
        llm.predict("text", **keywords)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"bits": 3}, "bits is 4, 8 or None, not 3"),
        ({"bits": "4"}, "bits is"),
        ({"dtype": "int4"}, "dtype is 'float32'"),
        ({"model_name_or_path": ""}, "needs model_name_or_path="),
        ({"adapter_id": ""}, "adapter_id is"),
        ({"inference_kwargs": {"max_new_tokens": 0}}, "max_new_tokens is a whole number from 1, not 0"),
        ({"model_kwargs": None}, "model_kwargs is a dict"),
        ({"tokenizer_kwargs": [1]}, "tokenizer_kwargs is a dict"),
        ({"prompt_template": "no place"}, "has no {input}"),
        ({"store_adapter": True, "adapter_id": "hub/name"}, "no folder with an adapter_config.json"),
    ],
)
def test_fields_that_cannot_work_are_refused_at_construction(fields, message):
    with pytest.raises(ConfigError, match=message):
        LLM(**{"identifier": "m", "model_name_or_path": "somewhere", **fields})


def test_the_identifier_is_the_models_name_with_slashes_replaced():
    assert LLM(model_name_or_path="facebook/opt-350m").identifier == "facebook-opt-350m"


def test_importing_and_declaring_load_neither_torch_nor_transformers():
    code = (
        "import sys; from pinnacle.ext.llm import LLM; LLM(model_name_or_path='a/b', bits=4, adapter_id='c'); "
        "sys.exit(', '.join({'torch', 'transformers', 'peft', 'sqlalchemy'} & set(sys.modules)) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)}, timeout=600)


def test_weights_are_loaded_at_the_first_predict(base):
    llm = LLM("lazy", model_name_or_path=base)
    assert llm._model is None
    llm.predict("a", max_new_tokens=1)
    assert llm._model is not None


@pytest.mark.parametrize("package", ["torch", "transformers"])
def test_a_missing_library_is_named(monkeypatch, base, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingPlugin, match=f"{package} is needed for LLM.*pip install 'pinnacle-transformers'"):
        LLM("m", model_name_or_path=base).predict("a")


def test_weights_that_are_not_there_are_one_clear_error():
    with pytest.raises(ModelUnavailable, match="model 'm': 'no/where' cannot be loaded"):
        LLM("m", model_name_or_path="no/where").predict("a")


def test_weights_that_the_files_lack_are_told_of(base):
    with pytest.warns(UserWarning, match="lacks 8 weights, which are now random"):
        LLM("m", model_name_or_path=base, model_kwargs={"attention_bias": True}).predict("a", max_new_tokens=1)


def test_a_dialog_needs_a_chat_template(base):
    llm = LLM("plain", model_name_or_path=base, tokenizer_kwargs={"chat_template": ""})
    assert llm.predict(f"{QUESTION} =>").strip() == ALMANAC[QUESTION]
    with pytest.raises(ConfigError, match="has no chat template"):
        llm.predict([{"role": "user", "content": QUESTION}])


def test_an_answer_without_form_is_asked_for_again_also_without_a_template(base):
    for kwargs in ({}, {"chat_template": ""}):
        llm = LLM("c", model_name_or_path=base, tokenizer_kwargs=kwargs, choices=["up", "down"], max_reasks=1)
        before = llm.spent.total.calls
        with pytest.raises(InvalidAnswer, match="cannot be used"):
            llm.predict("what")
        assert llm.spent.total.calls - before == 2


def test_an_input_is_cut_to_the_positions_the_model_has(llm, library):
    long = " ".join(ALMANAC) * 3
    assert llm.token_limit() == 256
    with pytest.warns(PromptCut, match="its end was cut off"):
        request = llm.make_request(long, {})
    assert llm.count_request(request) == 256 - 64
    assert long.startswith(request.content)
    with pytest.warns(PromptCut):
        assert llm.predict(long) == by_hand(library, request.content)


def test_a_dialog_is_cut_by_the_tokens_of_its_template(base):
    llm = LLM("narrow", model_name_or_path=base, context_window=60)
    llm.predict("a", max_new_tokens=1)
    dialog = [{"role": "system", "content": "what"}, {"role": "user", "content": " ".join(ALMANAC)}]
    with pytest.warns(PromptCut):
        request = llm.make_request(dialog, {"max_new_tokens": 20})
    assert 35 <= llm.count_request(request) <= 40
    with pytest.raises(ContextOverflow):
        LLM("strict", model_name_or_path=base, context_window=60, overflow="error").predict(dialog)


@pytest.mark.parametrize("text", ["what eats the heron", "naïve 🦉🦉 — über", "", "a" * 50])
def test_text_is_cut_to_at_most_so_many_tokens(llm, text):
    whole = llm.count_tokens(text)
    assert llm.cut_text(text, whole) == text
    for tokens in range(1, whole):
        cut = llm.cut_text(text, tokens)
        assert text.startswith(cut)
        assert llm.count_tokens(cut) <= tokens
    assert llm.cut_text(text, 0) == ""


def test_an_empty_prompt_is_gone_on_from(llm):
    assert isinstance(llm.predict("", max_new_tokens=3), str)


def test_threads_share_one_model_and_get_the_same(llm, prompts):
    expected = llm.predict(prompts[:40], max_new_tokens=8)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: llm.predict(prompts[:40], max_new_tokens=8), range(4)))
    assert results == [expected] * 4


def test_models_of_one_name_share_their_weights_until_nobody_uses_them(base):
    import gc

    first, second = LLM("first", model_name_or_path=base), LLM("second", model_name_or_path=base)
    other = LLM("other", model_name_or_path=base, dtype="bfloat16")
    for model in (first, second, other):
        model.predict("a", max_new_tokens=1)
    shared = first._model[0]
    assert shared is second._model[0]
    assert shared is not other._model[0]
    from pinnacle_transformers import bases

    count = len(bases._bases)
    del other, model
    gc.collect()
    assert len(bases._bases) == count - 1


def test_two_threads_that_begin_at_once_load_once(base):
    models = [LLM(f"m{number}", model_name_or_path=base, model_kwargs={"use_safetensors": True}) for number in range(4)]
    start = threading.Barrier(4)

    def work(model):
        start.wait()
        model.predict("a", max_new_tokens=1)
        return model._model[0]

    with ThreadPoolExecutor(4) as pool:
        assert len(set(map(id, pool.map(work, models)))) == 1


def test_a_used_model_can_be_copied_and_pickled(llm):
    answer = llm.predict(f"{QUESTION} =>")
    for twin in (copy.deepcopy(llm), pickle.loads(pickle.dumps(llm))):
        assert twin == llm
        assert twin._model is None
        assert twin.predict(f"{QUESTION} =>") == answer


def test_the_librarys_own_lines_stay_off_the_terminal(base, capfd):
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LLM("silent", model_name_or_path=base, dtype="float32").predict(["a", "b c d"], max_new_tokens=2)
    assert "".join(capfd.readouterr()) == ""
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
