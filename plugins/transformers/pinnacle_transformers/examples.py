"""Turns rows into what is trained on: token ids with labels, or preferences, on disk as Arrow."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pinnacle import ConfigError, TrainingError
from pinnacle_transformers.controls import START, Controls
from pinnacle_transformers.dialogs import Dialogs, common_prefix, is_said, is_written_dialog, turns

CHUNK_ROWS = 1_000
IGNORED = -100
"""The label of a token that is read and not learned: the loss leaves it out."""

TEXT, MESSAGES, PROMPT, COMPLETION, CHOSEN, REJECTED = (
    "text", "messages", "prompt", "completion", "chosen", "rejected",
)  # fmt: skip
FORMS = {
    "sft": ((TEXT,), (MESSAGES,), (PROMPT, COMPLETION)),
    "dpo": ((PROMPT, CHOSEN, REJECTED),),
}
EMPTY, NO_ROOM, LEFT_OUT = "empty", "with a prompt that fills max_length", "left out by transform"
NO_ANSWER, EQUAL = "without an answer of the assistant", "with equal answers"
CONTROLS = "with control tokens in their text, which DPO cannot take as text (allow_special_tokens=True takes them)"

Shape = tuple[Any, dict[str, Any]]
"""A row's key, and its fields by the names of a form."""


@dataclass
class Counted:
    """What a pass over rows found: how many can be trained on, and why others cannot; how many were too long."""

    rows: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    cut: int = 0


class Examples:
    """Makes examples of rows, chunk by chunk.

    ``max_length``: tokens of an example; what is longer is cut (``keep_start`` or ``keep_end``), and counted.
    ``packs``: cutting is left to the packing. ``learns_prompt``: the loss is of the prompt and of others' turns too.
    ``by_place``: ``names`` are fields, which say by their order what they are. ``asks_for``: settings of the loss that
    only some rows can have.
    """

    def __init__(
        self, tokenizer: Any, names: Sequence[str], *, method: str, max_length: int | None, keep_end: bool, packs: bool,
        learns_prompt: bool, model: str, by_place: bool = True, asks_for: Collection[str] = (),
        allows_controls: bool = False,
    ) -> None:  # fmt: skip
        self._tokenizer, self._names, self._method, self._model = tokenizer, tuple(names), method, model
        self._max_length, self._keep_end, self._packs = max_length, keep_end, packs
        self._asks_for, self._learns_prompt, self._by_place = asks_for, learns_prompt, by_place
        self._controls = Controls(tokenizer, are_allowed=allows_controls)
        self._dialogs = Dialogs(tokenizer, model, self._controls, learns_prompt=learns_prompt)
        self._end = tokenizer.eos_token or ""
        self._are_dialogs: bool | None = None

    def write(self, rows: Iterable[tuple[Any, Any]], path: Path) -> Counted:
        """Write the examples of ``rows``, each with its key, as an Arrow stream; the counts are of this pass."""
        import pyarrow as pa

        counted = Counted()
        chunks = self._chunks(rows, counted)
        first = next(chunks, [])
        path.parent.mkdir(parents=True, exist_ok=True)
        table = pa.Table.from_pylist(first, schema=self._schema(first))
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table)
            for chunk in chunks:
                writer.write_table(pa.Table.from_pylist(chunk, schema=table.schema))
        return counted

    def _chunks(self, rows: Iterable[tuple[Any, Any]], counted: Counted) -> Iterator[list[dict[str, Any]]]:
        keyed = iter(rows)
        while chunk := list(itertools.islice(keyed, CHUNK_ROWS)):
            shaped = [(key, shape) for key, row in chunk if (shape := self._shaped(key, row, counted)) is not None]
            examples = self._preferences(shaped, counted) if self._method == "dpo" else self._learned(shaped, counted)
            counted.rows += len(examples)
            if examples:
                yield examples

    def _schema(self, examples: Sequence[Mapping[str, Any]]) -> Any:
        import pyarrow as pa

        if self._method == "sft":
            return pa.schema({"input_ids": pa.list_(pa.int32()), "labels": pa.list_(pa.int32())})
        if examples and isinstance(examples[0][PROMPT], list):
            turns = pa.list_(pa.struct({"role": pa.string(), "content": pa.string()}))
            return pa.schema(dict.fromkeys((PROMPT, CHOSEN, REJECTED), turns))
        return pa.schema(dict.fromkeys((PROMPT, CHOSEN, REJECTED), pa.string()))

    # -- from rows to the forms that are trained on ------------------------------------------------

    def _shaped(self, key: Any, row: Any, counted: Counted) -> dict[str, Any] | None:
        """A row by the names of a form; None for one that is counted as left out."""
        if row is None:
            counted.left_out[LEFT_OUT] += 1
            return None
        shape = self._named(key, row)
        self._check_loss(key, shape)
        for name, value in shape.items():
            if value is None or (isinstance(value, (str, list)) and not value and name != PROMPT):
                counted.left_out[EMPTY] += 1
                return None
            if isinstance(value, str) and name != PROMPT and not value.strip():
                counted.left_out[EMPTY] += 1
                return None
            if isinstance(value, str) and is_written_dialog(value):
                raise ConfigError(f"the row of key {key!r} has a dialog as JSON text: pass {_parsed(row, name, value)}")
            if not isinstance(value, (str, list)) or (name == MESSAGES and isinstance(value, str)):
                raise ConfigError(
                    f"the row of key {key!r} has {name}={value!r}; text is a string, and a dialog a list of "
                    "messages, as in [{'role': 'user', 'content': 'Hello'}, ...]. transform= can make one of it"
                )
        return shape

    def _check_loss(self, key: Any, shape: Mapping[str, Any]) -> None:
        if "completion_only_loss" in self._asks_for and COMPLETION not in shape:
            given = ", ".join(shape)
            raise ConfigError(f"completion_only_loss=True is of completions, and the row of key {key!r} has {given}")
        if "assistant_only_loss" in self._asks_for and any(isinstance(value, str) for value in shape.values()):
            raise ConfigError(f"assistant_only_loss=True is of dialogs, and the row of key {key!r} is text")

    def _named(self, key: Any, row: Any) -> dict[str, Any]:
        forms = FORMS[self._method]
        if isinstance(row, str):
            row = {TEXT: row}
        if not isinstance(row, Mapping):
            raise ConfigError(f"transform= makes a dict or a text of a row, not {row!r}")
        if any(set(row) == set(form) for form in forms):
            return dict(row)
        if self._by_place and set(row) == set(self._names):
            values = [row[name] for name in self._names]
            if self._method == "sft" and len(values) == 1:
                return {MESSAGES if isinstance(values[0], list) else TEXT: values[0]}
            form = next((form for form in forms if len(form) == len(values)), None)
            if form is not None:
                return dict(zip(form, values, strict=True))
        known = " or ".join(", ".join(form) for form in forms)
        raise ConfigError(
            f"the row of key {key!r} gives {', '.join(row)}, and method={self._method!r} trains on {known}"
        )

    # -- from forms to examples --------------------------------------------------------------------

    def _learned(self, shaped: Sequence[Shape], counted: Counted) -> list[dict[str, Any]]:
        """Token ids, and the same as labels where they are learned."""
        shapes = [shape for _, shape in shaped]
        pairs: list[tuple[list[int], list[int]] | None] = [None] * len(shapes)
        plain = [i for i, shape in enumerate(shapes) if isinstance(shape.get(TEXT), str)]
        for i, ids in zip(plain, self._encoded([self._ended(shapes[i][TEXT]) for i in plain]), strict=True):
            pairs[i] = (ids, list(ids))
        asked = [i for i, shape in enumerate(shapes) if {type(shape.get(PROMPT)), type(shape.get(COMPLETION))} == {str}]
        quoted = [self._controls.quoted(shapes[i][PROMPT]) for i in asked]
        prompts = self._encoded(quoted)
        wholes = self._encoded([f"{p}{self._ended(shapes[i][COMPLETION])}" for i, p in zip(asked, quoted, strict=True)])
        for i, prompt, whole in zip(asked, prompts, wholes, strict=True):
            start = 0 if self._learns_prompt else common_prefix(prompt, whole)
            pairs[i] = (whole, _labels(whole, [(start, len(whole))]))
        for i in {*range(len(shapes))} - {*plain, *asked}:
            pairs[i] = self._dialog(shaped[i][0], shapes[i], counted)
        return [example for pair in pairs if pair is not None and (example := self._cut(*pair, counted)) is not None]

    def _dialog(self, key: Any, shape: dict[str, Any], counted: Counted) -> tuple[list[int], list[int]] | None:
        with _of_row(key):
            answer = turns(shape[COMPLETION], "assistant") if COMPLETION in shape else None
            dialog = turns(shape[MESSAGES] if MESSAGES in shape else shape[PROMPT], "user")
            if lack := _lack(dialog if answer is None else answer):
                counted.left_out[lack] += 1
                return None
            ids, spans = self._dialogs.encode(self._quoted(dialog), None if answer is None else self._quoted(answer))
        return ids, _labels(ids, spans)

    def _cut(self, ids: list[int], labels: list[int], counted: Counted) -> dict[str, Any] | None:
        if self._max_length is not None and len(ids) > self._max_length:
            counted.cut += 1
            if not self._packs:
                kept = slice(-self._max_length, None) if self._keep_end else slice(self._max_length)
                ids, labels = ids[kept], labels[kept]
        if all(label == IGNORED for label in labels):
            counted.left_out[NO_ROOM] += 1
            return None
        return {"input_ids": ids, "labels": labels}

    def _preferences(self, shaped: Sequence[Shape], counted: Counted) -> list[dict[str, Any]]:
        """Rows as the library takes them; what it would cut or leave out is counted."""
        kept = []
        for key, shape in shaped:
            self._check_form(key, shape)
            with _of_row(key):
                taken = _messages(shape) if self._are_dialogs else shape
                lack, longest = (CONTROLS, 0) if self._has_controls(taken) else self._compared(taken)
            if lack is not None:
                counted.left_out[lack] += 1
                continue
            counted.cut += self._max_length is not None and longest > self._max_length
            kept.append(taken)
        return kept

    def _check_form(self, key: Any, shape: Mapping[str, Any]) -> None:
        is_dialog = any(isinstance(value, list) for value in shape.values())
        self._are_dialogs = is_dialog if self._are_dialogs is None else self._are_dialogs
        if is_dialog != self._are_dialogs:
            raise ConfigError(
                f"the row of key {key!r} is {'a dialog' if is_dialog else 'text'}, and the rows before it are "
                f"{'text' if is_dialog else 'dialogs'}; all must be of one form, and transform= can make them so"
            )

    def _compared(self, shape: Mapping[str, Any]) -> tuple[str | None, int]:
        """Why there is nothing to learn of a preference, where that is so; and the tokens of its prompt with the longer
        answer, as the library counts them."""
        if self._are_dialogs:
            if lack := _lack(shape[CHOSEN]) or _lack(shape[REJECTED]):
                return lack, 0
            prompt = self._dialogs.prompt(shape[PROMPT])
            wholes = [self._dialogs.encode(shape[PROMPT], shape[name])[0] for name in (CHOSEN, REJECTED)]
        else:
            answered = [shape[PROMPT] + self._ended(shape[name]) for name in (CHOSEN, REJECTED)]
            prompt, *wholes = self._encoded([shape[PROMPT], *answered])
        if wholes[0] == wholes[1]:
            return EQUAL, 0
        asked = min(common_prefix(prompt, whole) for whole in wholes)
        is_full = self._max_length is not None and asked >= self._max_length and not self._keep_end
        return NO_ROOM if is_full else None, max(map(len, wholes))

    def _encoded(self, texts: list[str]) -> list[list[int]]:
        """Their token ids, most of them in one call."""
        plain = [text for text in texts if START not in text]
        ids = iter(self._tokenizer(plain)["input_ids"] if plain else ())
        return [self._controls.ids(text, with_ends=True) if START in text else next(ids) for text in texts]

    def _has_controls(self, preference: Mapping[str, Any]) -> bool:
        """Whether control tokens stand in a preference's text, which the library itself would tokenize."""
        texts = [
            text for value in preference.values() for text in ([value] if isinstance(value, str) else map(_said, value))
        ]
        return any(START in self._controls.quoted(text.removesuffix(self._end)) for text in texts)

    def _quoted(self, dialog: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        return [{**turn, "content": self._controls.quoted(turn["content"])} for turn in dialog]

    def _ended(self, text: str) -> str:
        """With the token that ends a text, so that the model learns to stop; other control tokens in it are text."""
        return self._controls.quoted(text.removesuffix(self._end)) + self._end


def _parsed(row: Any, name: str, value: str) -> str:
    """The transform that makes a dialog of the JSON text that a row has."""
    given = row if isinstance(row, Mapping) else {name: value}
    field = next(field for field, text in given.items() if text is value)
    if name in (TEXT, MESSAGES):
        return f'transform=lambda row: {{"{MESSAGES}": json.loads(row["{field}"])}}'
    return f'transform=lambda row: {{**row, "{field}": json.loads(row["{field}"])}}'


def _said(turn: Mapping[str, Any]) -> str:
    return str(turn["content"])


def _messages(shape: Mapping[str, Any]) -> dict[str, Any]:
    """A preference of which all is dialogs, in the columns that the Arrow file has."""
    roles = {PROMPT: "user", CHOSEN: "assistant", REJECTED: "assistant"}
    return {
        name: [{part: str(turn[part]) for part in ("role", "content")} for turn in turns(shape[name], role)]
        for name, role in roles.items()
    }


def _lack(dialog: Sequence[Mapping[str, Any]]) -> str | None:
    """Why there is nothing to learn of a dialog, where that is so."""
    if any(is_said(turn) for turn in dialog):
        return None
    return NO_ANSWER if any(turn["content"].strip() for turn in dialog) else EMPTY


def _labels(ids: Sequence[int], spans: Sequence[tuple[int, int]]) -> list[int]:
    labels = [IGNORED] * len(ids)
    for start, end in spans:
        labels[start:end] = ids[start:end]
    return labels


@contextmanager
def _of_row(key: Any) -> Iterator[None]:
    """Around what is made of one row: what is wrong with it is told with its key."""
    from jinja2 import TemplateError

    try:
        yield
    except (ConfigError, TemplateError) as error:
        raise ConfigError(f"the row of key {key!r} cannot be trained on: {error}") from error


def require_rows(counted: Mapping[str, Counted], model: str) -> None:
    """TrainingError for a validation set in which nothing is left."""
    for name, found in counted.items():
        if name != "train" and not found.rows:
            reasons = ", ".join(f"{count} {reason}" for reason, count in found.left_out.items())
            raise TrainingError(
                f"validation set {name!r} of model {model!r} has no row to use ({reasons or 'none at all'})"
            )
