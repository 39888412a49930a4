"""A tiny model that knows an almanac by heart, and adapters that know other answers; trained once a run."""

from __future__ import annotations

import os

import pytest
import torch
from pinnacle_transformers import LLM

from pinnacle.testing import almanac, tiny_adapter, tiny_causal_lm
from tests.shared import once

torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def cache_dir(tmp_path_factory):
    """Where files are unpacked, here and in subprocesses."""
    folder = tmp_path_factory.mktemp("cache")
    before = os.environ.get("PINNACLE_CACHE_DIR")
    os.environ["PINNACLE_CACHE_DIR"] = str(folder)
    yield folder
    os.environ.pop("PINNACLE_CACHE_DIR")
    if before is not None:
        os.environ["PINNACLE_CACHE_DIR"] = before


@pytest.fixture(scope="session")
def base():
    return once("tiny-base", tiny_causal_lm)


@pytest.fixture(scope="session")
def adapter(base):
    return once("tiny-adapter", lambda folder: tiny_adapter(folder, base))


@pytest.fixture(scope="session")
def other_adapter(base):
    return once("tiny-other", lambda folder: tiny_adapter(folder, base, pairs=almanac(shift=2), steps=40))


@pytest.fixture(scope="session")
def llm(base):
    return LLM("tiny", model_name_or_path=base)


@pytest.fixture(scope="session")
def prompts():
    """Hundreds of prompts of many lengths: what the model knows, parts of it, and what it never saw."""
    asked = [question for question, _ in almanac()]
    known = [f"{question} =>" for question in asked]
    parts = [known[number][: 1 + number % len(known[number])] for number in range(len(known))]
    begun = [f"{question} => {answer[: len(answer) // 2]}" for question, answer in almanac()]
    strange = [" ".join(asked[number : number + number % 5 + 1])[::-1] for number in range(len(asked))]
    return known + parts + begun + strange
