"""4 and 8 bits through bitsandbytes, on the CPU; and what is said where that cannot work."""

from __future__ import annotations

import importlib.util

import pytest
from pinnacle_transformers import LLM

from pinnacle import ConfigError, MissingPlugin, ModelUnavailable
from pinnacle.testing import almanac

ASKED = [f"{question} =>" for question, _ in almanac()]


@pytest.mark.parametrize(("bits", "kind"), [(4, "Linear4bit"), (8, "Linear8bitLt")])
def test_a_model_in_few_bits_answers(base, bits, kind, caplog):
    llm = LLM("small", model_name_or_path=base, bits=bits)
    answers = [answer.strip() for answer in llm.predict(ASKED)]
    right = sum(answer == known for answer, (_, known) in zip(answers, almanac(), strict=True))
    assert type(llm._model[0].model.model.layers[0].mlp.up_proj).__name__ == kind
    assert right >= 40
    assert not [record for record in caplog.records if record.name.startswith("bitsandbytes")]


def test_an_adapter_goes_on_a_model_in_4_bits(base, adapter):
    bare = LLM("bare", model_name_or_path=base, bits=4)
    before = bare.predict(ASKED[:10])
    tuned = LLM("tuned", model_name_or_path=base, bits=4, adapter_id=adapter)
    answers = [answer.strip() for answer in tuned.predict(ASKED)]
    right = sum(answer == known for answer, (_, known) in zip(answers, almanac(shift=1), strict=True))
    assert right >= 30
    assert bare.predict(ASKED[:10]) == before
    assert bare._model[0] is tuned._model[0]


def test_a_missing_bitsandbytes_is_named(base, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "bitsandbytes" else found(name))
    with pytest.raises(MissingPlugin, match="bitsandbytes is needed for bits=8 and not installed; run: pip install"):
        LLM("m", model_name_or_path=base, bits=8).predict("a")


def test_bits_that_cannot_work_on_a_device_say_so(base):
    with pytest.raises(ModelUnavailable, match=r"with bits=4 on 'cuda'; leave bits= out, or choose another device="):
        LLM("m", model_name_or_path=base, bits=4, device="cuda").predict("a")


def test_bits_are_not_blamed_for_weights_that_are_not_there():
    with pytest.raises(ModelUnavailable, match="'no/where' cannot be loaded: OSError") as caught:
        LLM("m", model_name_or_path="no/where", bits=4).predict("a")
    assert "bits=" not in str(caught.value)


def test_bits_and_a_quantization_of_ones_own_are_refused(base):
    with pytest.raises(ConfigError, match="bits= and a quantization_config"):
        LLM("m", model_name_or_path=base, bits=4, model_kwargs={"quantization_config": {}}).predict("a")
