"""What the rest asks of a server or of mongomock; whatever fails in it raises pinnacle's errors.

`ServerWire` lets the server build the canonical rows; `MongomockWire` builds them here.
Both say the same about the same documents.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from bson.codec_options import CodecOptions
from bson.timestamp import Timestamp

from pinnacle.backends.mongodb.query import Window
from pinnacle.backends.mongodb.wire.change_stream import ChangeStream
from pinnacle.backends.mongodb.wire.shape import Shape
from pinnacle.backends.mongodb.wire.stored_collection import Order, StoredCollection
from pinnacle.backends.protocol import Capability


class Update(NamedTuple):
    """One update statement: which documents, the change, and whether to insert it where there is none."""

    condition: Mapping[str, Any]
    change: Any
    upsert: bool = False
    multi: bool = False


class Updated(NamedTuple):
    """How many documents an update matched or inserted, and how many of these it changed or inserted."""

    matched: int
    changed: int


class CollectionInfo(NamedTuple):
    """``kind``: ``collection``, also where there is none yet, or what else is called one (a view, a time series).

    ``is_text_exact``: conditions on it tell all different texts apart.
    """

    kind: str
    is_text_exact: bool


class Wire(Protocol):
    """Reads canonical rows and fingerprints, runs write statements, and knows the database's collections."""

    codec: CodecOptions[Any]

    @property
    def name(self) -> str:
        """What kind of database it is."""

    @property
    def capabilities(self) -> frozenset[Capability]: ...

    @property
    def in_process(self) -> bool:
        """Whether the database is in this process, and nobody else's."""

    @property
    def has_expressions(self) -> bool:
        """Whether a condition may hold ``$expr``, and an update be a pipeline."""

    @property
    def engine(self) -> Any:
        """The user's own Database object. Nothing of ours works with it: it raises the driver's errors."""

    # -- collections -------------------------------------------------------------------------------

    def collection(self, table: str, *, durable: bool = True) -> StoredCollection:
        """A collection, for other reads and writes; those that may be lost need not be ``durable``."""

    def user_collection(self, table: str) -> StoredCollection:
        """A collection with the options of the user's own database object, for their queries."""

    def create(self, table: str) -> None:
        """Make a collection, unless it is there."""

    def names(self) -> list[str]:
        """The names of all collections."""

    def uuids(self) -> dict[str, Any]:
        """The collections' own ids by their names: they stay when it is renamed. None where there are none."""

    def described(self, table: str) -> CollectionInfo: ...

    def misfit(self, table: str, path: str, types: Sequence[str]) -> Mapping[str, Any] | None:
        """A document whose value at ``path`` is of none of these types (by their ``$type`` names), or in which a part
        of the path that others hang on is no document."""

    # -- reading -----------------------------------------------------------------------------------

    def rows(self, table: str, shape: Shape, condition: Mapping[str, Any], after: Any, limit: int) -> list[bytes]:
        """The next canonical rows by ``_id`` after ``after`` (None: from the first)."""

    def rows_at(self, table: str, shape: Shape, keys: Sequence[Any], condition: Mapping[str, Any]) -> list[bytes]:
        """The canonical rows of those of ``keys`` that are there and match."""

    def rows_of(self, table: str, shape: Shape, parents: Sequence[Any]) -> Iterator[bytes]:
        """The canonical rows whose first input is one of ``parents``, each parent's by the second input."""

    def hashes(self, table: str, first: Any, last: Any, count: int) -> set[bytes]:
        """The fingerprints recorded for keys from ``first`` to ``last``, of which there are about ``count``."""

    def hashes_at(self, table: str, keys: Sequence[Any]) -> set[bytes]:
        """The fingerprints recorded for ``keys``."""

    def documents(
        self, table: str, condition: Mapping[str, Any], projection: Any = None, *, sort: Order = (), limit: int = 0,
        key: str = "_id",
    ) -> list[dict[str, Any]]:  # fmt: skip
        """Documents of which ``key`` is the key of a row; of one that cannot be decoded it is all there is."""

    def keys(self, table: str, after: Any, last: Any, limit: int, path: str = "_id") -> list[Any]:
        """The next keys in order after ``after`` and up to ``last`` (None: no bound), as documents have them at
        ``path``; what can be no key is left out."""

    def keys_at(self, table: str, keys: Sequence[Any], condition: Mapping[str, Any]) -> list[Any]:
        """Those of ``keys`` whose documents are there and match, as they are there."""

    def keys_in(self, table: str, condition: Mapping[str, Any], window: Window) -> list[Any]:
        """The keys of the documents that match and are in the window, in order of ``_id``."""

    def thawed(self, condition: Mapping[str, Any]) -> Mapping[str, Any]:
        """A condition that was decoded from BSON, as conditions are taken here."""

    # -- writing -----------------------------------------------------------------------------------

    def update(self, table: str, statements: Sequence[Update], *, durable: bool = True) -> Updated:
        """Run update statements in order.

        Not ``durable``: a later durable write makes this one so.
        """

    def insert(self, table: str, documents: Sequence[Mapping[str, Any]], *, durable: bool = True) -> None:
        """Insert documents, in order; DuplicateKey at the first whose key is there."""

    def insert_missing(self, table: str, documents: Sequence[Mapping[str, Any]], *, durable: bool = True) -> list[int]:
        """Insert those of the documents whose keys are not there; the positions of the others."""

    def delete(self, table: str, condition: Mapping[str, Any], *, durable: bool = True) -> int:
        """Delete the documents that match; how many they were."""

    # -- time and changes --------------------------------------------------------------------------

    def clock(self) -> datetime:
        """The server's time."""

    def piped(self, table: str, pipeline: Sequence[Mapping[str, Any]]) -> list[bytes]:
        """What little an aggregation pipeline gives, as the server sends it."""

    def operation_time(self) -> Timestamp | None:
        """The server's time as changes are told by it: what commits from now on is later. None where none are told."""

    def changes(self, tables: Collection[str], start: Timestamp) -> ChangeStream:
        """The changes of some collections from ``start`` on."""

    def close(self) -> None:
        """Close the connection, where it is not the user's own."""
