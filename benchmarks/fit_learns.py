"""Fine-tuning 2: a tiny model learns a pattern that it did not know, in every way of training; and to prefer."""

from __future__ import annotations

import itertools
import json
import random
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from benchmarks.bulk import timed
from benchmarks.fits import reported
from benchmarks.recaller import NEW_TOKENS
from benchmarks.table import Table
from pinnacle import pinnacle
from pinnacle.testing import tiny_causal_lm

SEEDS = (0, 1, 2)
LEARNED, ASKED = 300, 40
EXACT_BOUND, KNOWN_BOUND = 0.95, 0.0
FACTORS = {"lora_r": 16, "lora_alpha": 32, "lora_dropout": 0.0}
LESSON = {"max_steps": 100, "per_device_train_batch_size": 50, "warmup_steps": 5, "save_strategy": "no"}
WAYS: dict[str, dict[str, Any]] = {
    "LoRA": {"learning_rate": 1e-2, **FACTORS},
    "QLoRA": {"learning_rate": 1e-2, "bits": 4, **FACTORS},
    "full": {"learning_rate": 3e-3, "use_lora": False},
}
BETA = 0.5
PREFERENCE: dict[str, Any] = {
    "method": "dpo", "beta": BETA, "loss_type": ["sigmoid", "sft"], "learning_rate": 2e-3, "max_steps": 60,
    "per_device_train_batch_size": 25, "save_strategy": "no", **FACTORS,
}  # fmt: skip
HEADINGS = ("trained", "seed", "exact before", "after", "at least", "on rows learned", "reloaded", "seconds", "holds")
PREFERENCE_HEADINGS = (
    "seed", "preferred before", "after", "margin", "exact before", "after", "at least", "reloaded", "seconds", "holds",
)  # fmt: skip

ANIMALS = ("heron", "badger", "otter", "marten", "lynx", "raven", "adder", "stoat", "plover", "vole")
THINGS = ("reeds", "moss", "clover", "river", "barns", "moon", "fog", "lantern", "maker", "bees")
RIGHT, OTHER = (3, 1), (3, 5)
"""Two patterns: an animal's thing is (factor * its place + shift) modulo ten."""

Three = tuple[int, int, int]


@dataclass(frozen=True)
class Lesson:
    """Rows that are trained on, and prompts that are not: other animals in the same places, all of them seen."""

    rows: list[Three]
    held_out: list[Three]

    @classmethod
    def of(cls, seed: int) -> Lesson:
        threes = list(itertools.product(range(10), repeat=3))
        random.Random(seed).shuffle(threes)
        return cls(threes[:LEARNED], threes[LEARNED : LEARNED + ASKED])


def run(*, seeds: tuple[int, ...] = SEEDS) -> Iterator[Table]:
    """All held-out prompts are new to the models, all parts of them known; a fresh process answers them again."""
    title = f"Fine-tuning 2. A pattern learned from {LEARNED} rows, asked on {ASKED} others"
    learned, preferred = Table(title, HEADINGS), Table(f"{title}; then DPO", PREFERENCE_HEADINGS)
    with tempfile.TemporaryDirectory(prefix="benchmark-") as directory:
        base = tiny_causal_lm(Path(directory) / "model")
        url = f"sqlite:///{directory}/rows.db"
        with pinnacle(url) as db:
            school = School(db, base, Path(directory))
            taught = {(way, seed): school.teach(way, seed) for seed in seeds for way in WAYS}
            swayed = {seed: school.sway(seed) for seed in seeds}
        again = reloaded(url, Path(directory), [*taught.values(), *swayed.values()])
    for (way, seed), one in taught.items():
        is_same = again[one.model] == one.answers
        holds = one.before <= KNOWN_BOUND and one.after >= EXACT_BOUND and is_same
        learned.add(
            way, seed, one.before, one.after, EXACT_BOUND, one.known, told(is_same), one.seconds, holds=holds
        )  # fmt: skip
    for seed, two in swayed.items():
        is_same = again[two.model] == two.answers
        holds = two.preferred[1] > two.preferred[0] and two.preferred[1] >= EXACT_BOUND and two.after >= EXACT_BOUND
        preferred.add(
            seed, *two.preferred, two.margin, two.before, two.after, EXACT_BOUND, told(is_same), two.seconds,
            holds=holds and is_same,
        )  # fmt: skip
    preferred.notes.append(
        "a model that was taught two patterns at once is told to prefer one of them. Preferred: the share of held-out "
        f"prompts on which its answer is the more likely one; margin: beta={BETA:g} times how much the difference of "
        "both answers' log-likelihoods grew"
    )
    yield learned
    yield preferred


def told(is_same: bool) -> str:
    return "same text" if is_same else "OTHER"


@dataclass
class Taught:
    """A model by its name in the database, what it answers to held-out prompts, and the share that is right."""

    model: str
    prompts: list[str]
    answers: list[str]
    before: float
    after: float
    known: float
    seconds: float


@dataclass
class Swayed(Taught):
    """And how many of the preferred answers are the more likely ones, before and after."""

    preferred: tuple[float, float]
    margin: float


class School:
    """Models trained on the rows of one database."""

    def __init__(self, db: Any, base: Path, directory: Path) -> None:
        self._db, self._base, self._directory = db, base, directory

    def teach(self, way: str, seed: int) -> Taught:
        """A model that knows nothing of the pattern, trained on it."""
        lesson, name = Lesson.of(seed), f"{way.lower()}-{seed}"
        rows = [{"prompt": prompt(three), "completion": answer(three)} for three in lesson.rows]
        model = self._model(name, bits=WAYS[way].get("bits"))
        before = exact(answers_of(model, lesson.held_out), lesson.held_out)
        seconds = self._fit(model, rows, {**LESSON, **WAYS[way], "seed": seed})
        answers, known = answers_of(model, lesson.held_out), lesson.rows[:ASKED]
        return Taught(
            name, [prompt(three) for three in lesson.held_out], answers, before, exact(answers, lesson.held_out),
            exact(answers_of(model, known), known), seconds,
        )  # fmt: skip

    def sway(self, seed: int) -> Swayed:
        """A model that knows two patterns for the same prompts, and then prefers one."""
        lesson, name = Lesson.of(seed), f"dpo-{seed}"
        mixed = [
            {"prompt": prompt(three), "completion": answer(three, pattern)}
            for three in lesson.rows
            for pattern in (RIGHT, OTHER)
        ]
        pairs = [
            {"prompt": prompt(three), "chosen": answer(three), "rejected": answer(three, OTHER)}
            for three in lesson.rows
        ]
        model = self._model(name)
        self._fit(model, mixed, {**LESSON, **WAYS["full"], "seed": seed})
        before, was = exact(answers_of(model, lesson.held_out), lesson.held_out), self._leanings(model, lesson)
        seconds = self._fit(model, pairs, {**PREFERENCE, "seed": seed})
        answers, now = answers_of(model, lesson.held_out), self._leanings(model, lesson)
        return Swayed(
            name, [prompt(three) for three in lesson.held_out], answers, before, exact(answers, lesson.held_out), 0.0,
            seconds, (share_above_zero(was), share_above_zero(now)),
            BETA * statistics.mean(after - before for before, after in zip(was, now, strict=True)),
        )  # fmt: skip

    def _model(self, name: str, bits: int | None = None) -> Any:
        from pinnacle_transformers import LLM

        return LLM(name, model_name_or_path=str(self._base), device="cpu", bits=bits)

    def _fit(self, model: Any, rows: list[dict[str, str]], arguments: dict[str, Any]) -> float:
        """Seconds of a fit on these rows, put into a table of their own."""
        from pinnacle_transformers import LLMTrainingConfiguration

        names, number = tuple(rows[0]), sum(1 for _ in self._directory.glob("output*"))
        columns = [sa.Column(name, sa.Text) for name in names]
        table = sa.Table(
            f"rows{number}", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True, autoincrement=True), *columns
        )
        table.create(self._db.engine)
        self._db.execute(sa.insert(table), rows)
        configuration = LLMTrainingConfiguration(
            f"{model.identifier}-{number}", output_dir=str(self._directory / f"output{number}"), **arguments
        )
        asked = {"X": names, "select": sa.select(table), "configuration": configuration, "progress": False}
        return timed(lambda: model.fit(**asked, db=self._db))

    def _leanings(self, model: Any, lesson: Lesson) -> list[float]:
        """By how much each preferred answer is the more likely one, by transformers alone."""
        folder = Path(tempfile.mkdtemp(dir=self._directory)) / "exported"
        model.export(folder)
        right, other = (likelihoods(folder, lesson.held_out, pattern) for pattern in (RIGHT, OTHER))
        return [one - two for one, two in zip(right, other, strict=True)]


def reloaded(url: str, directory: Path, models: list[Any]) -> dict[str, list[str]]:
    """What a process that has only the database answers to the same prompts."""
    questions = directory / "questions.json"
    questions.write_text(json.dumps({one.model: one.prompts for one in models}))
    found: dict[str, list[str]] = reported("benchmarks.recaller", url, questions)
    return found


def answers_of(model: Any, threes: list[Three]) -> list[str]:
    return [model.predict(prompt(three), max_new_tokens=NEW_TOKENS) for three in threes]


def exact(answers: list[str], threes: list[Three]) -> float:
    return sum(given == answer(three) for given, three in zip(answers, threes, strict=True)) / len(threes)


def share_above_zero(values: list[float]) -> float:
    return sum(value > 0 for value in values) / len(values)


def prompt(three: Three) -> str:
    return f"what follows the {' the '.join(ANIMALS[place] for place in three)} =>"


def answer(three: Three, pattern: tuple[int, int] = RIGHT) -> str:
    factor, shift = pattern
    return "".join(f" {THINGS[(factor * place + shift) % 10]}" for place in three)


def likelihoods(folder: Path, threes: list[Three], pattern: tuple[int, int]) -> list[float]:
    """The log-likelihood of each answer and its end behind its prompt."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    library: Any = AutoModelForCausalLM
    model, tokenizer = library.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    found = []
    for three in threes:
        asked = len(tokenizer(prompt(three))["input_ids"])
        ids = torch.tensor(tokenizer(prompt(three) + answer(three, pattern) + tokenizer.eos_token)["input_ids"])
        with torch.no_grad():
            chances = model(ids[None]).logits[0].log_softmax(-1)
        found.append(float(chances[asked - 1 : -1].gather(1, ids[asked:, None]).sum()))
    return found
