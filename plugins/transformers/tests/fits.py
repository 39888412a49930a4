"""Rows to train on, quick fits and scores, which the tests of fine-tuning share.

The pattern to learn: the animal alone decides the answer, one that the tiny model's almanac does not have. A third of
the questions is held out.
"""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import torch
import transformers
from peft import PeftModel
from pinnacle_transformers import LLM, LLMTrainingConfiguration
from safetensors.torch import load_file

from pinnacle import pinnacle
from pinnacle.plugin import unpack

ANIMALS = ("heron", "badger", "otter", "marten", "lynx", "raven", "adder", "stoat", "plover", "vole")
RELATIONS = ("eats", "fears", "follows", "sleeps in", "sings to", "was named by")
WORDS = ("moss", "clover", "river", "barns", "moon", "fog", "lantern", "bees", "reeds", "quiet")

PAIRS = [
    (f"what {relation} the {animal} =>", f" {WORDS[number]} moss")
    for (number, animal), relation in itertools.product(enumerate(ANIMALS), RELATIONS)
]
random.Random(0).shuffle(PAIRS)
TRAIN, HELD = PAIRS[:45], PAIRS[45:]
TRAIN_ROWS = [{"prompt": prompt, "completion": answer} for prompt, answer in TRAIN]
ASKED, ANSWERS = ("prompt", "completion"), ("prompt", "chosen", "rejected")
QUICK = {
    "per_device_train_batch_size": 16, "learning_rate": 1e-2, "logging_steps": 5, "save_strategy": "no",
    "gradient_checkpointing": False,
}  # fmt: skip


def preferred(pairs):
    """Rows for DPO: the answer of the pattern, and that of another animal."""
    return [
        {"prompt": prompt, "chosen": answer, "rejected": next(other for _, other in pairs if other != answer)}
        for prompt, answer in pairs
    ]


def stored(url, rows, name="pairs"):
    """A database with a table of ``rows``, and the query for them; rows that are there already stay."""
    columns: dict[str, Any] = {}
    for row in rows:
        lists = {key: sa.JSON(none_as_null=True) for key, value in row.items() if isinstance(value, list)}
        columns = {**dict.fromkeys(row, sa.Text), **columns, **lists}
    table = sa.Table(
        name, sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True),
        *(sa.Column(key, kind) for key, kind in columns.items()),
    )  # fmt: skip
    db = pinnacle(url if "://" in str(url) else f"sqlite:///{url}")
    if not sa.inspect(db.engine).has_table(name):
        table.create(db.engine)
        if rows:
            db.execute(sa.insert(table), [{**dict.fromkeys(columns), **row} for row in rows])
    return db, sa.select(table)


def config(identifier="quick", **options):
    return LLMTrainingConfiguration(identifier, **{**QUICK, **options})


def fitted(db, select, base, identifier, *, X=ASKED, model=None, bits=None, **options):  # noqa: N803
    """A model after a fit, and the run. ``fit`` options by their names, all else is the configuration's."""
    llm = model or LLM(identifier, model_name_or_path=base, bits=bits)
    names = ("validation_sets", "transform", "metrics", "progress")
    asked = {name: options.pop(name) for name in names if name in options}
    run = llm.fit(X, select=select, configuration=config(**options), db=db, **asked)
    return llm, run


def told(llm, pairs=HELD):
    """What a model answers to the prompts of pairs."""
    return [answer.strip() for answer in llm.predict([prompt for prompt, _ in pairs], max_new_tokens=12)]


def hits(llm, pairs=HELD):
    """The share of answers that are exactly those of the pattern."""
    given = told(llm, pairs)
    return sum(answer == wanted.strip() for answer, (_, wanted) in zip(given, pairs, strict=True)) / len(pairs)


def weights(llm_or_files):
    """The weights of a fitted model, or of a checkpoint's files, by name."""
    files = llm_or_files if isinstance(llm_or_files, dict) else llm_or_files.adapter or llm_or_files.weight_files
    folder = Path(unpack(files))
    return {name: value for path in sorted(folder.glob("*.safetensors")) for name, value in load_file(path).items()}


def distance(first, second):
    """The largest difference of two sets of weights; infinite where they have other names."""
    if set(first) != set(second):
        return float("inf")
    return max(float((first[name].float() - second[name].float()).abs().max()) for name in first)


def by_hand(llm):
    """A model's weights as the libraries load them, without ours, and its tokenizer."""
    model = transformers.AutoModelForCausalLM.from_pretrained(llm.weights_source())
    if llm.adapter_source() is not None:
        model = PeftModel.from_pretrained(model, llm.adapter_source())
    return model.eval(), transformers.AutoTokenizer.from_pretrained(llm.tokenizer_source())


def margins(llm, rows):
    """By how much a model finds each preferred answer likelier than the other, in nats."""
    model, tokenizer = by_hand(llm)
    return [
        _likelihood(model, tokenizer, row, "chosen") - _likelihood(model, tokenizer, row, "rejected") for row in rows
    ]


def _likelihood(model, tokenizer, row, name):
    asked = tokenizer(row["prompt"])["input_ids"]
    ids = torch.tensor([tokenizer(row["prompt"] + row[name] + tokenizer.eos_token)["input_ids"]])
    with torch.no_grad():
        likely = model(input_ids=ids).logits.log_softmax(-1)
    return sum(float(likely[0, place - 1, ids[0, place]]) for place in range(len(asked), ids.shape[1]))


def python(code, *arguments, timeout=600, check=True):
    """Run code in a new process."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, timeout=timeout,
        env={**os.environ, "PYTHONPATH": ":".join(filter(None, sys.path))},
    )  # fmt: skip
    if check:
        assert done.returncode == 0, done.stderr[-3000:]
    return done
