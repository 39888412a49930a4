"""What the figures of fine-tuning share: models with random weights, configurations, and fits in fresh processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from benchmarks.places import docs
from benchmarks.rows import bodies
from pinnacle.backends.mongodb import Collection

SEED = 11
CORPUS_ROWS, POSITIONS = 2_000, 256
QUIET = {"HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "PYTHONWARNINGS": "ignore"}
SPECIAL_TOKENS = ["<s>", "</s>", "<pad>"]


def select_of(url: str) -> Any:
    """What ``select=`` takes for all rows of ``docs(id, body)``."""
    return Collection("docs").find() if url.startswith("mongodb") else sa.select(docs())


def random_llama(folder: Path, *, hidden: int, layers: int, vocabulary: int) -> int:
    """Save a Llama of random weights with a BPE tokenizer of the rows' words; how many weights it has."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.utils import logging

    tokenizer = word_pieces(vocabulary)
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=hidden, intermediate_size=4 * hidden, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=POSITIONS,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=True,
    )  # fmt: skip
    bars: Any = logging
    bars.disable_progress_bar()
    torch.manual_seed(SEED)
    model: Any = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return sum(weight.numel() for weight in model.parameters())


def word_pieces(vocabulary: int) -> Any:
    """A byte-level BPE tokenizer trained on rows like those that are trained on."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=SPECIAL_TOKENS, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator(bodies(CORPUS_ROWS), trainer)
    library: Any = PreTrainedTokenizerFast
    return library(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", model_max_length=POSITIONS
    )


def reported(*arguments: object) -> dict[str, Any]:
    """What ``python -m ARGUMENTS`` prints as its last line, in JSON."""
    command = [sys.executable, "-m", *map(str, arguments)]
    environment = {**os.environ, **QUIET}
    finished = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    return found


def largest_difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """Between the weights of two files, which must have the same names."""
    if one.keys() != other.keys():
        raise RuntimeError(f"the files have different weights: {sorted(one.keys() ^ other.keys())[:4]}")
    return max(float((one[name].double() - other[name].double()).abs().max()) for name in one)
