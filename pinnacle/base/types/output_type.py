"""OutputType: what a kind of output must say of itself, and what all of them share."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

from pinnacle.base.errors import OutputTypeMismatch
from pinnacle.base.types.storage import BsonField, PostgresColumn, SqliteColumn


@dataclasses.dataclass(frozen=True)
class OutputType:
    """Base of all output types; compare by value, store with `to_json`.

    ``name`` is what the registry of outputs keeps, ``annotations`` the Python types that
    mean this one where a function is annotated with them. ``is_cached``: whether answers
    that were paid for are kept as JSON, which `check` must take back as it was. Vectors are
    not: they are large, and cheap to ask for again.
    """

    name: ClassVar[str]
    annotations: ClassVar[tuple[type, ...]] = ()
    is_cached: ClassVar[bool] = False

    def check(self, value: Any) -> Any:
        """Return ``value`` as it will be stored; raise OutputTypeMismatch if it does not fit.

        None is never passed here: it is stored as NULL for every type.
        """
        raise NotImplementedError

    def on_sqlite(self) -> SqliteColumn:
        """How SQLite keeps it."""
        raise NotImplementedError

    def on_postgres(self) -> PostgresColumn:
        """How PostgreSQL keeps it."""
        raise NotImplementedError

    def on_mongodb(self) -> BsonField:
        """How MongoDB keeps it."""
        raise NotImplementedError

    @property
    def stored(self) -> OutputType:
        """The type of one value in the database: of items that of one item."""
        return self

    def check_all(self, values: Sequence[Any]) -> tuple[Sequence[Any], dict[int, OutputTypeMismatch]]:
        """Check a whole batch: the values to store, and the misfits by position."""
        if set(map(type, values)) <= self.exact_types():
            return values, {}
        checked, misfits = list(values), {}
        for position, value in enumerate(values):
            if value is None:
                continue
            try:
                checked[position] = self.check(value)
            except OutputTypeMismatch as error:
                misfits[position] = error
            except Exception as error:  # of the value's own code: its model_dump, __array__ or __index__
                misfits[position] = self.misfit(value, f"reading it raised {type(error).__name__}")
        return checked, misfits

    def exact_types(self) -> frozenset[type]:
        """Python types whose every value fits as it is (the fast path of `check_all`)."""
        return frozenset()

    def to_json(self) -> Any:
        """A string, or an object with the type's parameters."""
        parameters = dataclasses.asdict(self)
        return {"type": self.name, **parameters} if parameters else self.name

    @classmethod
    def from_json(cls, parameters: Mapping[str, Any]) -> Self:
        """The type of these parameters, as `to_json` gave them."""
        return cls(**parameters)

    def misfit(self, value: Any, why: str = "") -> OutputTypeMismatch:
        """The error for a value that does not fit; shows its type and not its content."""
        found = type(value).__name__
        return OutputTypeMismatch(f"the model returned {found} where the output is {self}{': ' + why if why else ''}")

    def __str__(self) -> str:
        return self.name
