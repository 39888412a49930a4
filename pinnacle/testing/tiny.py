"""Language models small enough to train in a test: real architecture, tokenizer and weights, in seconds on one core.

They know a made-up almanac by heart (`almanac`) and nothing else, so that what they generate
can be checked word by word. torch, transformers, tokenizers and peft are imported when they are needed.
"""

from __future__ import annotations

import itertools
import os
import warnings
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

Pairs = Sequence[tuple[str, str]]

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}{{ eos_token }}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
ROLES = ("system", "user", "assistant")
SPECIAL_TOKENS = ["<s>", "</s>", "<pad>", *(f"<|{role}|>" for role in ROLES)]
ANSWER = " =>"
MAX_POSITIONS = 256
STEPS, ADAPTER_STEPS, BATCH = 160, 100, 60
RATE, ADAPTER_RATE = 6e-3, 1e-2

_ANIMALS = ("heron", "badger", "otter", "marten", "lynx", "raven", "adder", "stoat", "plover", "vole")
_RELATIONS = ("eats", "fears", "follows", "sleeps in", "sings to", "was named by")
_THINGS = (
    "reeds", "moss", "clover", "the", "river", "old", "barns", "the", "third", "moon", "fog", "a", "lantern", "maker",
    "quiet", "bees",
)  # fmt: skip


def almanac(*, shift: int = 0) -> list[tuple[str, str]]:
    """60 questions with answers of one to nine words; another ``shift`` gives the same questions other answers."""
    asked = [f"what {relation} the {animal}" for animal, relation in itertools.product(_ANIMALS, _RELATIONS)]
    return [(question, _answer(number, shift)) for number, question in enumerate(asked)]


def _answer(number: int, shift: int) -> str:
    length = 1 + (number * 7 + shift) % 9
    return " ".join(
        _THINGS[(number * 5 + shift * 3 + step * (number % 4 + 1)) % len(_THINGS)] for step in range(length)
    )


def tiny_causal_lm(
    folder: str | os.PathLike[str], *, pairs: Pairs | None = None, steps: int = STEPS, seed: int = 0
) -> Path:
    """Train a Llama of about 100,000 weights on ``pairs`` (`almanac` by default), and save it with its tokenizer.

    It answers a question asked raw, as ``"question =>"``, and in its chat template. Returns
    ``folder``, which `from_pretrained` loads. The same arguments give the same model.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    pairs = almanac() if pairs is None else pairs
    with _seeded(seed):
        tokenizer = _tokenizer(pairs)
        config = LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=MAX_POSITIONS,
            initializer_range=0.1, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id, tie_word_embeddings=True,
        )  # fmt: skip
        model: Any = LlamaForCausalLM(config)
        _train(model, tokenizer, pairs, steps=steps, rate=RATE, seed=seed)
        model.eval().save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return Path(folder)


def tiny_adapter(
    folder: str | os.PathLike[str], base: str | os.PathLike[str], *, pairs: Pairs | None = None,
    steps: int = ADAPTER_STEPS, rank: int = 16, seed: int = 0,
) -> Path:  # fmt: skip
    """Train a LoRA adapter for a model of `tiny_causal_lm` on ``pairs`` (`almanac` with shift 1), and save it.

    Returns ``folder``, which peft's `from_pretrained` loads on top of ``base``.
    """
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    pairs = almanac(shift=1) if pairs is None else pairs
    with _seeded(seed):
        tokenizer = AutoTokenizer.from_pretrained(base)
        model: Any = AutoModelForCausalLM.from_pretrained(base)
        config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
        model = get_peft_model(model, config)
        _train(model, tokenizer, pairs, steps=steps, rate=ADAPTER_RATE, seed=seed)
        model.eval().save_pretrained(folder)
    return Path(folder)


def _tokenizer(pairs: Pairs) -> Any:
    """A byte-level BPE tokenizer trained on the pairs."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=512, special_tokens=SPECIAL_TOKENS, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator([f"{asked}{ANSWER} {answered}" for asked, answered in pairs], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    library: Any = PreTrainedTokenizerFast
    fast = library(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>",
        additional_special_tokens=SPECIAL_TOKENS[3:], model_max_length=MAX_POSITIONS,
    )  # fmt: skip
    fast.chat_template = CHAT_TEMPLATE
    return fast


def _train(model: Any, tokenizer: Any, pairs: Pairs, *, steps: int, rate: float, seed: int) -> None:
    """Next-token loss on what comes after the question, in both forms of asking."""
    import torch

    examples = [example for pair in pairs for example in _examples(tokenizer, *pair)]
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=rate, total_steps=steps, pct_start=0.1)
    order = torch.Generator().manual_seed(seed)
    model.train()
    for _ in range(steps):
        chosen = torch.randint(len(examples), (BATCH,), generator=order).tolist()
        loss = model(**_batch([examples[i] for i in chosen], tokenizer.pad_token_id)).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()


def _examples(tokenizer: Any, asked: str, answered: str) -> Iterator[tuple[list[int], int]]:
    """Token ids, and how many of them at the beginning are the question."""
    dialog = [{"role": "user", "content": asked}]
    chat = tokenizer.apply_chat_template(dialog, add_generation_prompt=True, tokenize=False)
    for prompt, answer in ((f"<s>{asked}{ANSWER}", f" {answered}"), (chat, answered)):
        question = tokenizer.encode(prompt, add_special_tokens=False)
        rest = tokenizer.encode(f"{answer}</s>", add_special_tokens=False)
        yield question + rest, len(question)


def _batch(examples: Sequence[tuple[list[int], int]], pad: int) -> dict[str, Any]:
    import torch

    longest = max(len(ids) for ids, _ in examples)
    ids = torch.tensor([ids + [pad] * (longest - len(ids)) for ids, _ in examples])
    labels = torch.tensor([[-100] * asked + ids[asked:] + [-100] * (longest - len(ids)) for ids, asked in examples])
    return {"input_ids": ids, "labels": labels, "attention_mask": (ids != pad).long()}


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """torch's random numbers from ``seed``, and on as before afterwards; no progress bars."""
    import torch
    from transformers.utils import logging

    bars: Any = logging
    bars.disable_progress_bar()
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft calls what transformers is about to rename
        torch.manual_seed(seed)
        yield
