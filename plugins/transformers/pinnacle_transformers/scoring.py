"""Metrics of a validation set: what the model writes, compared with what it should."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from pinnacle import TrainingError
from pinnacle_transformers.examples import IGNORED

ROOM_TOKENS = 8
"""Tokens that an answer may be longer than the longest target: an answer that goes on is seen to."""


class MetricError(TrainingError):
    """A metric of the user's that failed, or gave no number."""


class Scoring:
    """Computes metrics by name: functions of (predictions, targets), two lists of texts."""

    def __init__(self, metrics: Mapping[str, Callable[..., Any]], tokenizer: Any, batch_size: int) -> None:
        self._metrics, self._tokenizer, self._batch_size = metrics, tokenizer, batch_size

    def scores(self, model: Any, examples: Any, prefix: str) -> dict[str, float]:
        """The metrics of one set, as ``{prefix}_{metric}``.

        A prediction is what the model writes, greedily, behind the prompt; for plain text the tokens that it finds
        most likely, each behind the true ones before it.
        """
        if not self._metrics:
            return {}
        predictions: list[str] = []
        targets: list[str] = []
        with evaluating(model):
            for start in range(0, len(examples), self._batch_size):
                rows = [
                    _prompt_and_target(examples[i]) for i in range(start, min(start + self._batch_size, len(examples)))
                ]
                asked = [row for row in rows if row[0]]
                answers = iter(self._answers(model, asked) if asked else ())
                for prompt, target in rows:
                    predictions.append(self._text(next(answers)) if prompt else self._text(self._likely(model, target)))
                    targets.append(self._text(target if prompt else target[1:]))
        return _named(self._metrics, predictions, targets, prefix)

    def _answers(self, model: Any, rows: Sequence[tuple[list[int], list[int]]]) -> list[list[int]]:
        import torch

        width = max(len(prompt) for prompt, _ in rows)
        pad = self._tokenizer.pad_token_id if self._tokenizer.pad_token_id is not None else self._tokenizer.eos_token_id
        ids = torch.full((len(rows), width), pad, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for number, (prompt, _) in enumerate(rows):
            ids[number, width - len(prompt) :] = torch.tensor(prompt)
            mask[number, width - len(prompt) :] = 1
        written = model.generate(
            input_ids=ids.to(model.device), attention_mask=mask.to(model.device), do_sample=False,
            max_new_tokens=max(len(target) for _, target in rows) + ROOM_TOKENS, pad_token_id=pad,
            eos_token_id=list(self._ends(model)) or None,
        )  # fmt: skip
        return [self._until_end(answer, self._ends(model)) for answer in written[:, width:].tolist()]

    def _ends(self, model: Any) -> set[int]:
        """The tokens that end an answer, as `predict` has it."""
        known = model.generation_config.eos_token_id
        ends = known if isinstance(known, (list, tuple)) else [self._tokenizer.eos_token_id if known is None else known]
        return {int(end) for end in ends if end is not None}

    def _until_end(self, answer: list[int], ends: set[int]) -> list[int]:
        return answer[: next((place for place, token in enumerate(answer) if token in ends), None)]

    def _likely(self, model: Any, ids: list[int]) -> list[int]:
        import torch

        logits = model(input_ids=torch.tensor([ids], device=model.device)).logits
        return list(logits[0, :-1].argmax(-1).tolist())

    def _text(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """The model without dropout and gradients, and as it was afterwards."""
    import torch

    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


def _prompt_and_target(example: Mapping[str, Any]) -> tuple[list[int], list[int]]:
    """Token ids of what is asked and of what should come; no prompt where all of the text is learned."""
    if "chosen_ids" in example:
        return example["prompt_ids"], example["chosen_ids"]
    ids, labels = example["input_ids"], example["labels"]
    end = len(labels)
    while end and labels[end - 1] == IGNORED:
        end -= 1
    start = end
    while start and labels[start - 1] != IGNORED:
        start -= 1
    return ids[:start], ids[start:end]


def _named(
    metrics: Mapping[str, Callable[..., Any]], predictions: list[str], targets: list[str], prefix: str
) -> dict[str, float]:
    scores: dict[str, float] = {}
    for name, metric in metrics.items():
        try:
            value = metric(predictions, targets)
        except Exception as error:  # the unit of work: the user's metric, on one set
            raise MetricError(f"metric {name!r} failed on {prefix}: {type(error).__name__}: {error}") from error
        values = value if isinstance(value, Mapping) else {name: value}
        for part, number in values.items():
            try:
                scores[f"{prefix}_{part}"] = float(number)
            except (TypeError, ValueError):
                raise MetricError(
                    f"metric {name!r} returned {number!r}; a metric returns a number, or a dict of names to numbers"
                ) from None
    return scores
