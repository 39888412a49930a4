"""Document: a dict-like row of MongoDB, as `db.execute` returns it and as inserts take it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pinnacle.base.errors import ConfigError
from pinnacle.base.rows import Fields
from pinnacle.base.types import is_float_vector, vector_of

OUTPUTS_FIELD = "_outputs"
"""The field of the user's documents that holds outputs with no chosen field of their own."""

MISSING: Any = type("Missing", (), {"__repr__": lambda self: "MISSING", "__bool__": lambda self: False})()
"""What a path leads to where a document has nothing, as opposed to null."""

_ESCAPED = {"%": "%25", ".": "%2E", "$": "%24", "\x00": "%00"}


@dataclass(frozen=True)
class StoredAt:
    """Where an output is kept in its document.

    ``decode`` makes the output of the driver's value, where its type says how.
    ``fetch``: asks for an output that is kept elsewhere, by the document's key; MISSING where there is none.
    """

    path: str
    decode: Callable[[Any], Any] | None = None
    fetch: Callable[[Any], Any] | None = None


Locate = Callable[[Fields, str], Sequence[StoredAt]]
"""Finds the places where a model's outputs on some fields are kept, the likeliest first."""


class Document(dict[str, Any]):
    """A row of MongoDB: a dict that also finds its computed values.

    Values are those of the driver (ObjectId, datetime, Binary), so that a document read
    with `find` can be handed back to `replace_one` byte for byte.
    """

    __slots__ = ("_locate",)

    def __init__(self, content: Mapping[str, Any] | None = None, /, *, locate: Locate | None = None) -> None:
        super().__init__(content or {})
        self._locate = locate

    def unpack(self) -> dict[str, Any]:
        """A deep copy in plain Python, with everything the document holds, ``_outputs`` included.

        Documents become dicts, 64-bit integers ints and float32 vectors lists of floats.
        ObjectIds, datetimes and other values without a plain kin stay as they are.
        """
        return {name: plain(value) for name, value in self.items()}

    def outputs(self, key: str | Sequence[str] | Mapping[str, str], model: Any) -> Any:
        """The value computed by ``model`` (its identifier, or the model) on ``key``.

        ``key`` takes all that X takes; the value is found wherever it is stored. A vector
        is a float32 numpy array of shape (dim,). Of `Side` outputs the list of items, which
        the database is asked for at each call. Raises KeyError where there is no output.
        """
        identifier = model if isinstance(model, str) else model.identifier
        fields = fields_of(key)
        default = StoredAt(default_output_path(fields, identifier))
        for place in (*(self._locate(fields, identifier) if self._locate else ()), default):
            value = value_at(self, place.path) if place.fetch is None else place.fetch(self.get("_id"))
            if value is not MISSING:
                return _as_output(value, place)
        raise KeyError(f"no output of model {identifier!r} on {key!r} in the document with _id {self.get('_id')!r}")

    def copy(self) -> Document:
        return Document(self, locate=self._locate)

    def __copy__(self) -> Document:
        return self.copy()

    def __deepcopy__(self, memo: dict[int, Any]) -> Document:
        return Document({name: copy.deepcopy(value, memo) for name, value in self.items()}, locate=self._locate)

    def __reduce__(self) -> tuple[Any, ...]:
        return Document, (dict(self),)

    def __repr__(self) -> str:
        return f"Document({dict.__repr__(self)})"


def fields_of(key: str | Sequence[str] | Mapping[str, str]) -> Fields:
    """The fields that ``key`` names: one, several positional ones, or argument -> field."""
    if isinstance(key, str):
        return Fields((key,))
    if isinstance(key, Mapping):
        return Fields(tuple(key.values()), tuple(key))
    return Fields(tuple(key))


def default_output_path(fields: Fields, identifier: str) -> str:
    """``_outputs.{X}.{identifier}``, each part made one safe field name."""
    return f"{OUTPUTS_FIELD}.{escape_name(fields.label)}.{escape_name(identifier)}"


def escape_name(name: str) -> str:
    """``name`` as one field name: dots, ``$``, NUL and ``%`` as percent escapes, so that no two names meet."""
    if not name:
        raise ConfigError("an output needs a field and a model identifier that are not empty")
    return "".join(_ESCAPED.get(character, character) for character in name)


def value_at(document: Any, path: str) -> Any:
    """Exactly the value at a dotted path, through documents and array indices; MISSING where there is none."""
    value = document
    for name in path.split("."):
        if isinstance(value, Mapping):
            value = value.get(name, MISSING)
        elif isinstance(value, (list, tuple)) and is_index(name) and int(name) < len(value):
            value = value[int(name)]
        else:
            return MISSING
    return value


def overlap(one: str, other: str) -> bool:
    """Whether one of two dotted paths leads to the other, or through it; an empty one leads to all."""
    return not one or not other or f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")


def is_index(name: str) -> bool:
    """Whether a path's segment can count the elements of an array."""
    return name.isascii() and name.isdigit() and len(name) < 10


def plain(value: Any) -> Any:
    """``value`` and all within it as plain Python, deep-copied."""
    if isinstance(value, Mapping):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if is_float_vector(value):
        return [float(number) for number in vector_of(value)]
    if isinstance(value, int) and not isinstance(value, bool):
        return int(value)
    return copy.deepcopy(value)


def _as_output(value: Any, place: StoredAt) -> Any:
    if isinstance(value, list) and place.fetch is not None:
        return [_as_output(item, replace(place, fetch=None)) for item in value]
    if place.decode is not None and value is not None:
        return place.decode(value)
    return vector_of(value) if is_float_vector(value) else plain(value)
