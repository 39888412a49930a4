"""The handle of an open database.

A Backend opens a database; `resolve` turns the user's query and fields into a Source;
`bind` creates the output and returns a Target, through which the engine reads pages,
claims them against other runs, writes outputs and records failures.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Any, Protocol

from pinnacle.backends.protocol.catalog import CatalogStore, RunStore, Seals
from pinnacle.backends.protocol.changes import Feed, Listeners, Wake
from pinnacle.backends.protocol.ledger import Ledger
from pinnacle.backends.protocol.outputs import Errors, Outputs
from pinnacle.backends.protocol.rows import Source, Target
from pinnacle.backends.protocol.search import Searcher
from pinnacle.base.listeners import Watch
from pinnacle.base.rows import Fields, OutputSpec


class Capability(enum.Enum):
    """What a database can do; tests and callers ask for these, never for its name."""

    SQL = "sql"
    TRANSACTIONS = "transactions"
    MANY_PROCESSES = "many processes"
    NATIVE_VECTORS = "native vectors"
    DOCUMENTS = "documents"
    VECTOR_SEARCH = "vector search"
    """Finds the rows whose output is nearest to a vector: `Searcher.nearest`."""
    TEXT_SEARCH = "text search"
    """Finds rows by the words in their fields: `Searcher.matching`."""


class Backend(Protocol):
    """An open database: a handle on what it keeps, each under its noun, and the verbs of queries and of pinnacle's
    own tables."""

    @property
    def name(self) -> str: ...

    @property
    def capabilities(self) -> frozenset[Capability]: ...

    @property
    def engine(self) -> Any:
        """The application's way to the database: an Engine, or a pymongo Database."""

    @property
    def seals(self) -> Seals: ...

    @property
    def catalog(self) -> CatalogStore: ...

    @property
    def runs(self) -> RunStore: ...

    @property
    def outputs(self) -> Outputs: ...

    @property
    def listeners(self) -> Listeners: ...

    @property
    def errors(self) -> Errors: ...

    @property
    def ledger(self) -> Ledger: ...

    @property
    def searcher(self) -> Searcher | None:
        """None where the database has no capability for search."""

    def execute(self, query: Any, *args: Any, **kwargs: Any) -> Any:
        """Run the user's own query; what comes back is the database's usual result."""

    def owns(self, query: Any) -> bool:
        """Whether ``query`` is of this database's kind."""

    def default_name(self, fields: Fields, identifier: str) -> str:
        """Where an output goes when the user names no place."""

    def resolve(self, query: Any, fields: Fields, *, checked: bool = False) -> Source:
        """Check the query and the fields against the database; a stored query's fields only if ``checked``, for its
        table may be dropped for a while.

        Raises UnsupportedQuery, UnsupportedTable or UnknownField; changes nothing.
        """

    def plan(self, source: Source, spec: OutputSpec) -> list[str]:
        """Every statement `bind` would run now, in order; empty when all is there."""

    def bind(self, source: Source, spec: OutputSpec, *, create: bool = True) -> Target:
        """Create or adopt the output and its bookkeeping; return the way to fill it.

        With ``create=False`` nothing is changed, and what is missing counts as empty.
        Raises OutputTypeConflict, or Conflict when another model owns the output or a
        newer version of this one has filled it; UnsupportedQuery for rows that outputs cannot be kept with.
        """

    def scan(self, source: Source) -> Target:
        """The way to `read` the rows of a source and nothing else; changes nothing.

        Those of a query with a limit are the ones that it has at the first read, as they are when they are read.
        """

    def freeze(self, source: Source, *, limited: bool = False) -> dict[str, Any]:
        """A resolved query as plain values, which `resolve` takes in a query's place.

        UnsupportedQuery for one that means other rows whenever the data changes, which a listener cannot keep;
        with ``limited`` that may be.
        """

    def feed(self, target: Target, reads: Sequence[str], watch: Watch) -> Feed:
        """The capture of a bound target's rows; ``reads`` are the columns that its condition reads."""

    def wake(self) -> Wake:
        """A new wait for changes."""

    def check(self) -> None:
        """Look whether this is still the database that was opened, as a worker does all the time: DatabaseReplaced.

        Capture that fails the users' writes, because what it writes to was dropped by hand, is taken away.
        """

    def lead(self, worker: str, ttl_s: float) -> str | None:
        """Take or renew the right to work here, for ``ttl_s`` seconds: None, or the process that has it.

        Databases that many processes may write to at once give it to all.
        """

    def migration_plan(self) -> list[str]:
        """Statements that would bring pinnacle's own tables to this version."""

    def migrate(self) -> None:
        """Create or upgrade pinnacle's own tables; a no-op when they are current."""

    def removal_plan(self, *, outputs: bool = False) -> list[str]:
        """What `remove_all` would run."""

    def remove_all(self, *, outputs: bool = False) -> None:
        """Take everything of pinnacle's out of the database and leave the user's data."""

    def close(self) -> None: ...
