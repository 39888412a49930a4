"""What the user writes against MongoDB: `Collection("docs").find(...)` and its kin, as frozen values.

A query says what to do and does nothing; `db.execute(query)` runs it. Arguments are those
of pymongo's methods of the same name. Importing this module loads no driver.
"""

# ruff: noqa: A002  (``filter`` is pymongo's own name for it)

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pinnacle.base.errors import ConfigError

Filter = Mapping[str, Any]
Order = tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Query:
    """Anything that `db.execute` runs on one collection."""

    collection: str


@dataclass(frozen=True)
class Window:
    """At most ``limit`` documents (0: all) of those that come after the first ``skip``, by ``order``."""

    order: Order
    skip: int
    limit: int

    @property
    def exact_order(self) -> dict[str, int]:
        """The order in which each document has its place: those that are equal in ``order`` come by ``_id``."""
        order = dict(self.order)
        return order if "_id" in order else {**order, "_id": 1}


@dataclass(frozen=True)
class Find(Query):
    """The documents that match a filter.

    With `skip` or `limit` they can be read, by `fit` too; outputs are kept with all that match.
    """

    filter: Filter = field(default_factory=dict)
    projection: Any = None
    order: Order = ()
    skipped: int = 0
    limited: int = 0

    def sort(self, key: str | Sequence[tuple[str, int]], direction: int = 1) -> Find:
        """The same documents by one field, or by (field, direction) pairs; 1 ascends, -1 descends."""
        pairs = [(key, direction)] if isinstance(key, str) else key
        return replace(self, order=tuple((name, way) for name, way in pairs))

    def skip(self, count: int) -> Find:
        """All but the first ``count`` documents."""
        return replace(self, skipped=_count("skip", count))

    def limit(self, count: int) -> Find:
        """At most ``count`` documents; 0 is all."""
        return replace(self, limited=_count("limit", count))

    @property
    def window(self) -> Window | None:
        """Which of the documents that match are meant; None where all are, in whatever order."""
        return Window(self.order, self.skipped, self.limited) if self.skipped or self.limited else None


@dataclass(frozen=True)
class FindOne(Query):
    """The first document that matches, or None."""

    filter: Filter = field(default_factory=dict)
    projection: Any = None
    order: Order = ()


@dataclass(frozen=True)
class Count(Query):
    """How many documents match."""

    filter: Filter = field(default_factory=dict)


@dataclass(frozen=True)
class Aggregate(Query):
    """The documents that come out of a pipeline."""

    pipeline: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class Write(Query):
    """A change; ``verb`` is the name of pymongo's method, and its result is what comes back."""

    verb: str = ""
    arguments: tuple[Any, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)


class Collection:
    """A collection by name; its methods make queries for `db.execute`."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        is_name = isinstance(name, str) and all(name.split(".")) and not {"$", "\x00"}.intersection(name)
        if not is_name or name.startswith("system."):
            raise ConfigError(f"{name!r} cannot be the name of a collection")
        self.name = name

    def find(self, filter: Filter | None = None, projection: Any = None) -> Find:
        return Find(self.name, _filter(filter), projection)

    def find_one(self, filter: Any = None, projection: Any = None, *, sort: Order = ()) -> FindOne:
        chosen = filter if filter is None or isinstance(filter, Mapping) else {"_id": filter}
        return FindOne(self.name, _filter(chosen), projection, tuple(sort))

    def insert_one(self, document: Mapping[str, Any]) -> Write:
        return Write(self.name, "insert_one", (document,))

    def insert_many(self, documents: Iterable[Mapping[str, Any]], *, ordered: bool = True) -> Write:
        return Write(self.name, "insert_many", (list(documents),), {"ordered": ordered})

    def update_one(self, filter: Filter, update: Any, *, upsert: bool = False) -> Write:
        return Write(self.name, "update_one", (_filter(filter), update), {"upsert": upsert})

    def update_many(self, filter: Filter, update: Any, *, upsert: bool = False) -> Write:
        return Write(self.name, "update_many", (_filter(filter), update), {"upsert": upsert})

    def replace_one(self, filter: Filter, replacement: Mapping[str, Any], *, upsert: bool = False) -> Write:
        return Write(self.name, "replace_one", (_filter(filter), replacement), {"upsert": upsert})

    def delete_one(self, filter: Filter) -> Write:
        return Write(self.name, "delete_one", (_filter(filter),))

    def delete_many(self, filter: Filter) -> Write:
        return Write(self.name, "delete_many", (_filter(filter),))

    def count_documents(self, filter: Filter | None = None) -> Count:
        return Count(self.name, _filter(filter))

    def aggregate(self, pipeline: Sequence[Mapping[str, Any]]) -> Aggregate:
        return Aggregate(self.name, tuple(pipeline))

    def __repr__(self) -> str:
        return f"Collection({self.name!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Collection) and other.name == self.name

    def __hash__(self) -> int:
        return hash((Collection, self.name))


def _filter(given: Filter | None) -> Filter:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise ConfigError(f"a filter is a document such as {{'lang': 'en'}}, not {type(given).__name__}")
    return given


def _count(name: str, count: int) -> int:
    if isinstance(count, bool) or not isinstance(count, int) or count < 0:
        raise ConfigError(f"{name} takes a whole number from 0, not {count!r}")
    return count
