"""The value objects that cross between the prediction engine and a backend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from pinnacle.base import limits
from pinnacle.base.errors import ConfigError
from pinnacle.base.redaction import redacted
from pinnacle.base.types import Items, OutputType

Key = Any
"""A row's key as its driver gives it: a scalar, or a tuple for a composite key."""


@dataclass(frozen=True)  # its two parts are told apart by their looks, and every caller writes them
class Fields:
    """Which fields of a row feed which arguments of a model.

    ``paths`` are field names or dotted paths. ``arguments`` is None for positional
    arguments, else one argument name a path; ``input`` names the first argument.
    """

    paths: tuple[str, ...]
    arguments: tuple[str, ...] | None = None

    @classmethod
    def of(cls, X: Any) -> Fields:  # noqa: N803 - the argument users know it by
        """The fields a user named: a string, an attribute, a tuple of these, or a dict by argument."""
        if isinstance(X, Mapping):
            if not X or not all(isinstance(argument, str) for argument in X):
                raise ConfigError(
                    f"X as a dict maps argument names to fields, for example {{'input': 'body'}}; got {X!r}"
                )
            return cls(tuple(map(_path, X.values())), tuple(X))
        if isinstance(X, (tuple, list)):
            if not X:
                raise ConfigError("X names no field; pass a field, a tuple of fields, or a dict of argument to field")
            return cls(tuple(map(_path, X)))
        return cls((_path(X),))

    @property
    def is_single(self) -> bool:
        """One positional field: the model is called with the bare value."""
        return len(self.paths) == 1 and self.arguments is None

    @property
    def label(self) -> str:
        """The X part of a default output name."""
        return "_".join(self.paths)

    def to_json(self) -> Any:
        """The shape the user wrote: a string, a list or an object."""
        if self.arguments is not None:
            return dict(zip(self.arguments, self.paths, strict=True))
        return self.paths[0] if self.is_single else list(self.paths)


def _path(field: Any) -> str:
    """A field's name; a mapped attribute or a column is taken by its key."""
    name = field if isinstance(field, str) else getattr(field, "key", None)
    if not isinstance(name, str) or not name:
        raise ConfigError(f"a field is a name or a dotted path such as 'body' or 'meta.title', not {field!r}")
    return str(name)  # of a column it is more than a plain string


@dataclass(frozen=True, kw_only=True)
class OutputSpec:
    """An output before it exists: what will be computed, by what, and where it goes.

    ``parameters``: the keyword arguments that a predict hands on to the model, as canonical
    text. They are part of what makes an output fresh; empty where there are none.
    ``adopt``: who calls gives up what is at the place, whoever made it.
    """

    name: str
    type: OutputType
    model: str
    version: int
    fields: Fields
    parameters: str = ""
    adopt: bool = False


class UnreadableKey(str):
    """A key that has no value in Python, in the form that its database writes it in.

    It stands for the key everywhere: the database finds the row by it.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"


@dataclass(frozen=True, kw_only=True)
class Unreadable:
    """A row whose inputs could not be read or decoded, with what was raised."""

    key: Key
    witness: Any
    error: Exception


@dataclass(frozen=True, kw_only=True)
class Page:
    """Rows of one key window that need work; all sequences but ``unreadable`` are row-aligned.

    ``inputs`` holds one value a row (a tuple when several fields feed the model), and
    ``identities`` a hashable that is equal where inputs are equal. ``witnesses`` is the
    backend's own record of what it read, handed back unchanged in `OutputBatch`.
    ``last`` is the greatest key of the window, fresh rows included; None at the end.
    ``missing``: how many of the rows with ``keys`` have no output recorded yet.
    ``unreadable``: the rows that need work and cannot be had, whatever is bad in them; they are to be set aside.
    """

    keys: Sequence[Key]
    inputs: Sequence[Any]
    identities: Sequence[Any]
    witnesses: Sequence[Any]
    read: int
    fresh: int
    set_aside: int
    last: Key | None
    generation: int = 0
    missing: int = 0
    unreadable: Sequence[Unreadable] = ()

    @property
    def has_work(self) -> bool:
        """Whether there is a row to be computed or set aside."""
        return bool(self.keys or self.unreadable)

    def without(self, errors: Mapping[int, Exception]) -> Page:
        """The same page with the rows that raised ``errors``, by position, among its unreadable ones."""
        if not errors:
            return self
        bad = [Unreadable(key=self.keys[i], witness=self.witnesses[i], error=error) for i, error in errors.items()]
        sound = self.take([i for i in range(len(self.keys)) if i not in errors])
        return replace(sound, unreadable=[*self.unreadable, *bad])

    def take(self, positions: Sequence[int]) -> Page:
        """The same page with only the rows at ``positions``."""
        if len(positions) == len(self.keys):
            return self
        return replace(
            self,
            keys=[self.keys[i] for i in positions],
            inputs=[self.inputs[i] for i in positions],
            identities=[self.identities[i] for i in positions],
            witnesses=[self.witnesses[i] for i in positions],
        )


def joined(pages: Sequence[Page]) -> Page:
    """Pages of one read in a row, as one."""
    if len(pages) == 1:
        return pages[0]
    return Page(
        keys=[key for page in pages for key in page.keys],
        inputs=[value for page in pages for value in page.inputs],
        identities=[identity for page in pages for identity in page.identities],
        witnesses=[witness for page in pages for witness in page.witnesses],
        read=sum(page.read for page in pages),
        fresh=sum(page.fresh for page in pages),
        set_aside=sum(page.set_aside for page in pages),
        last=pages[-1].last if pages else None,
        generation=min((page.generation for page in pages), default=0),
        missing=sum(page.missing for page in pages),
        unreadable=[row for page in pages for row in page.unreadable],
    )


@dataclass(frozen=True, kw_only=True)
class OutputBatch:
    """Checked outputs to be written beside their rows; all sequences are row-aligned.

    A None output is stored as NULL. Vector outputs are float32 of shape (dim,).
    ``prepared`` is what `Target.prepare` made of it.
    """

    keys: Sequence[Key]
    outputs: Sequence[Any]
    witnesses: Sequence[Any]
    prepared: Any = None


@dataclass(frozen=True, kw_only=True)
class Failure:
    """One row's failure after all its attempts; its texts are such as every database takes, bounded, and redacted."""

    key: Key
    witness: Any
    error: str
    message: str
    traceback: str
    attempts: int

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "message", _storable(redacted(self.message[: 2 * limits.MAX_MESSAGE]))[: limits.MAX_MESSAGE]
        )
        object.__setattr__(
            self, "traceback", _storable(redacted(self.traceback[-2 * limits.MAX_TRACEBACK :]))[-limits.MAX_TRACEBACK :]
        )


def _storable(text: str) -> str:
    """``text`` with what no database takes, NUL and lone surrogates, as escapes."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\x00", "\\x00")


@dataclass(frozen=True, kw_only=True)
class RowError:
    """One row that was set aside, as `db.errors()` lists it."""

    output: str
    key: Key
    model: str
    version: int
    error: str
    message: str
    traceback: str
    attempts: int
    failed_at: datetime


@dataclass(frozen=True, kw_only=True)
class OutputInfo:
    """An existing output, as the catalog of outputs records it; ``parameters`` are those of the prediction at hand."""

    id: int
    table: str
    name: str
    model: str
    version: int
    fields: Fields
    type: OutputType
    created_column: bool
    parameters: str = ""

    @classmethod
    def unmade(cls, table: str, spec: OutputSpec, *, created_column: bool) -> OutputInfo:
        """What is to be recorded of an output that is not there yet."""
        return cls(
            id=0, table=table, name=spec.name, model=spec.model, version=spec.version, fields=spec.fields,
            type=spec.type, created_column=created_column,
        )  # fmt: skip

    @property
    def side(self) -> str | None:
        """The name of the table of its own that holds the output; None for a column or field."""
        return self.name if isinstance(self.type, Items) else None


@dataclass(frozen=True, kw_only=True)
class Record:
    """A component at rest: its JSON body and what identifies it."""

    kind: str
    identifier: str
    version: int
    type: str
    body: Mapping[str, Any]
    digest: str
    created_at: datetime | None = None
    artifacts: tuple[str, ...] = field(default=())
