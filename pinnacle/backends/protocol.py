"""What a database must do for the rest of pinnacle: the duties every backend shares.

A Backend opens a database; `resolve` turns the user's query and fields into a Source;
`bind` creates the output and returns a Target, through which the engine reads pages,
claims them against other runs, writes outputs and records failures.
"""

from __future__ import annotations

import enum
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from pinnacle.base.errors import OutputTypeMismatch
from pinnacle.base.listening import Backlog, Claim, ListenerRecord, Watch
from pinnacle.base.rows import (
    Failure,
    Fields,
    Key,
    OutputBatch,
    OutputInfo,
    OutputSpec,
    Page,
    Record,
    RowError,
)
from pinnacle.base.usage import BatchJob, UsageRow

NO_OUTPUT = "pinnacle_rows"
"""The name of the output that a `Target` is over which only reads: no row has it."""


class Capability(enum.Enum):
    """What a database can do; tests and callers ask for these, never for its name."""

    SQL = "sql"
    TRANSACTIONS = "transactions"
    MANY_PROCESSES = "many processes"
    NATIVE_VECTORS = "native vectors"
    DOCUMENTS = "documents"


class Source(Protocol):
    """A query resolved to one table or collection with keys, inputs and a condition.

    Each backend has its own; callers hand it back to `plan` and `bind` as they got it.
    """

    @property
    def table(self) -> str:
        """The table's or collection's name, with its schema where it has one."""

    @property
    def fields(self) -> Fields:
        """The fields, by the names the database knows."""

    def beside(self, name: str) -> str:
        """The full name of a side table that is called ``name``, as `table` would give it."""


class Target(Protocol):
    """One output over one source, ready to be filled. Safe to use from two threads:
    one that reads and claims, one that writes."""

    @property
    def info(self) -> OutputInfo: ...

    def count(self) -> int:
        """Rows the source selects now."""

    def read(self, after: Key | None, limit: int, *, overwrite: bool = False) -> Page:
        """The next ``limit`` rows in key order after ``after``; only those that need work.

        A row needs no work when its fingerprint is current (fresh), or when it was set
        aside with its error for the same inputs and version. ``overwrite`` returns all.
        One short statement; no cursor stays open.
        """

    def reread(self, keys: Sequence[Key], *, overwrite: bool = False) -> Page:
        """Those of ``keys`` that are still there, still selected, and need work."""

    def claim(self, run: str, page: Page, done: Sequence[str], ttl_s: float) -> tuple[str, Sequence[int], bool]:
        """Lease the rows of ``page`` that no other live run holds.

        Returns a lease id, the positions granted, and whether the page must be read
        again because another run released rows since it was read. ``done`` are leases
        of this run to release in the same transaction.
        """

    def renew(self, run: str, ttl_s: float) -> None:
        """Extend all leases of ``run`` by ``ttl_s`` seconds from now."""

    def release(self, run: str) -> None:
        """Give up all leases of ``run``."""

    def check_all(self, values: Sequence[Any]) -> tuple[Sequence[Any], dict[int, OutputTypeMismatch]]:
        """The values as they will be stored, and by position those that fit neither the
        output type nor this database."""

    def prepare(self, batch: OutputBatch) -> OutputBatch:
        """Encode a batch for `write`: work for the caller's thread while the writer's waits for
        the database. Optional; `write` prepares what was not."""

    def write(self, batch: OutputBatch) -> Sequence[int]:
        """Write outputs and bookkeeping where the inputs are still those that were read.

        Commits before it returns, in transactions sized to about 20 ms. Returns the
        positions not written because the row was changed, deleted or locked by others.
        Raises Conflict when a newer version of the model has begun to write, RowRejected
        when the database refuses one value (nothing of that transaction is kept).
        """

    def fail(self, failures: Sequence[Failure]) -> None:
        """Set rows aside with their errors, where their inputs are still those that were read."""

    def absent(self, keys: Sequence[Key]) -> tuple[list[Key], list[Key]]:
        """Those of ``keys`` whose row is gone, and those whose row is there but not selected."""

    def forget(self, keys: Sequence[Key]) -> None:
        """Erase what is kept of rows that are gone: bookkeeping, errors, side rows."""

    def blank(self, keys: Sequence[Key]) -> Sequence[Key]:
        """Clear the output and its bookkeeping of rows that are not selected (still not, when it is done).

        Returns the keys left as they were, because others hold their rows locked.
        """

    def orphans(self, after: Key | None, last: Key | None, *, selected: bool) -> list[Key]:
        """Keys beyond ``after`` up to ``last`` (None: no bound) with bookkeeping, whose row is gone, or
        with ``selected`` not among those selected."""


class Feed(Protocol):
    """The changes of one listener's rows: captured, folded into work, claimed, cleared."""

    def plan(self) -> list[str]:
        """Every statement `install` would run on a database without it."""

    def install(self) -> None:
        """Make the capture, replacing one of another form. Safe to run again and beside others."""

    def verify(self) -> str | None:
        """Why the listener cannot go on (a watched column is gone or of another type), else None.

        Capture that was lost is made again, and a sweep asked for.
        """

    def fold(self) -> int:
        """Move captured changes into the work, one row a key, a bounded number; how many.

        A change of the whole table (TRUNCATE) asks for a sweep instead.
        """

    def enqueue(self, keys: Sequence[Key]) -> None:
        """Put rows into the captured changes, as if they had been changed."""

    def claim(self, run: str, limit: int, ttl_s: float) -> Claim:
        """Lease up to ``limit`` rows of work that no live lease holds, longest-waiting first."""

    def finish(self, claim: Claim, done: Sequence[int], deferred: Sequence[int]) -> None:
        """Take the rows at ``done`` out of the work, unless a newer change came; put those at ``deferred``
        behind all others; give up the lease. One short transaction."""


class Wake(Protocol):
    """Tells a worker that something was written; closed by its worker."""

    def wait(self, timeout_s: float, stop: threading.Event) -> bool:
        """Wait until there may be changes (True), ``stop`` is set, or the time is over."""

    def close(self) -> None: ...


class CatalogStore(Protocol):
    """Where components and artifacts are kept."""

    def save(self, record: Record) -> bool:
        """Store one version; False when that version exists already (another process was faster).

        Records may share artifacts, which must all be there: NotFound, and nothing is stored, when one went with
        the last other record that used it. Put it again, then save again.
        """

    def amend(self, record: Record) -> None:
        """Put the record's body in place of that of the version it names."""

    def get(self, kind: str, identifier: str, version: int | None = None) -> Record | None:
        """One version, or the newest."""

    def versions(self, kind: str, identifier: str) -> list[Record]:
        """All versions, oldest first."""

    def newest(self, kind: str, identifiers: Collection[str]) -> dict[str, int]:
        """The newest version of each of these components that is there, in one small query; no body is read."""

    def identifiers(self, kind: str | None = None) -> list[tuple[str, str]]:
        """(kind, identifier) pairs, sorted."""

    def delete(self, kind: str, identifier: str, version: int | None = None) -> int:
        """Remove one version or all, and the artifacts nothing refers to any more."""

    def has_artifact(self, sha256: str) -> bool: ...

    def put_artifact(self, sha256: str, chunks: Iterable[bytes]) -> None:
        """Store a blob under its hash, chunk by chunk; a no-op when it is there.

        ``chunks`` are taken ahead in another thread, a few at a time. The blob is there once all of them are: what
        fails, or is killed, leaves nothing that is seen, and what it did leave is erased by a later call.
        """

    def get_artifact(self, sha256: str) -> Iterator[bytes]:
        """The blob's chunks in order, none over 4 MiB; NotFound when it is absent, or removed meanwhile."""


class RunStore(Protocol):
    """Training runs: who may train a model, and the metrics that a run logged.

    What is read before pinnacle's own tables are there is empty; what is written makes them.
    """

    def lease(self, model: str, token: str, ttl_s: float) -> str | None:
        """Take or renew the right to train ``model``, for ``ttl_s`` seconds; None when it was granted, else its
        owner (host:pid) as text. A lease whose process on this machine is dead, or that has expired, is void.

        Of several who ask at once, exactly one gets it. A lease that was lost is renewed only where nobody has it.
        """

    def renew(self, model: str, token: str, ttl_s: float) -> bool:
        """Extend the lease of that token by ``ttl_s`` seconds from now, expired or not; False where it is gone:
        another had it since."""

    def leased(self) -> dict[str, str]:
        """The models that somebody trains now (live leases only), with the token of each."""

    def release(self, model: str, token: str) -> None:
        """Give up the lease of that token; any other stays."""

    def log(self, run: str, position: int, entries: Sequence[Mapping[str, Any]]) -> None:
        """Append metrics of a run, from ``position`` on; entries at a position that is there already are replaced
        (a resumed run goes over steps again), and those after the last one are kept. Commits before it returns,
        all or none where there are transactions."""

    def cut(self, run: str, position: int) -> None:
        """Forget the entries of a run from ``position`` on: a resumed run writes them again."""

    def series(self, run: str) -> list[dict[str, Any]]:
        """A run's metrics, in order. Entries are plain JSON objects; NaN and infinities survive."""

    def forget(self, run: str) -> None:
        """Erase the metrics of a run."""


class Backend(Protocol):
    """An open database."""

    @property
    def name(self) -> str: ...

    @property
    def capabilities(self) -> frozenset[Capability]: ...

    @property
    def catalog(self) -> CatalogStore: ...

    @property
    def runs(self) -> RunStore: ...

    @property
    def engine(self) -> Any:
        """The application's way to the database: an Engine, or a pymongo Database."""

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

    def plan(self, source: Any, spec: OutputSpec) -> list[str]:
        """Every statement `bind` would run now, in order; empty when all is there."""

    def bind(self, source: Any, spec: OutputSpec, *, create: bool = True) -> Target:
        """Create or adopt the output and its bookkeeping; return the way to fill it.

        With ``create=False`` nothing is changed, and what is missing counts as empty.
        Raises OutputTypeConflict, or Conflict when another model owns the output or a
        newer version of this one has filled it; UnsupportedQuery for rows that outputs cannot be kept with.
        """

    def scan(self, source: Any) -> Target:
        """The way to `read` the rows of a source and nothing else; changes nothing.

        Those of a query with a limit are the ones that it has at the first read, as they are when they are read.
        """

    def outputs(self, model: str | None = None) -> list[OutputInfo]:
        """The outputs that exist, of one model or of all."""

    def forget_output(self, output: int, *, drop_column: bool) -> None:
        """Remove an output's bookkeeping and batches, and with ``drop_column`` the column if pinnacle made it."""

    def output_column(self, entity: Any, info: OutputInfo) -> Any:
        """What a query of this database selects to get the output."""

    def find_output(self, entity: Any, fields: Fields, model: str) -> OutputInfo | None:
        """The output of ``model`` on ``fields`` of a table or collection."""

    def freeze(self, source: Any, *, limited: bool = False) -> dict[str, Any]:
        """A resolved query as plain values, which `resolve` takes in a query's place.

        UnsupportedQuery for one that means other rows whenever the data changes, which a listener cannot keep;
        with ``limited`` that may be.
        """

    def feed(self, target: Any, reads: Sequence[str], watch: Watch) -> Feed:
        """The capture of a bound target's rows; ``reads`` are the columns that its condition reads."""

    def wake(self) -> Wake:
        """A new wait for changes."""

    def listeners(self) -> list[ListenerRecord]:
        """The registry of listeners, oldest first."""

    def register_listener(self, output: int, identifier: str, version: int) -> bool:
        """Record a listener of an output, or its new version; whether it was new.

        Conflict when another listener keeps that output fresh.
        """

    def move_listener(self, output: int, seen: int, version: int) -> bool:
        """Put another version of a listener in the place of the version ``seen``; its capture stays as it is.

        In the same write a sweep is asked for and its error is taken away. False when the
        registry has another version than ``seen``: somebody was faster.
        """

    def remove_listener(self, output: int) -> None:
        """Take a listener's capture away, triggers before tables, and the listener out of the registry."""

    def advance_sweep(self, output: int, seen: str, now: str | None) -> bool:
        """Move a listener's sweep from ``seen`` to ``now``, None to end it; False when another was asked for."""

    def has_work(self, output: int) -> bool:
        """Whether any change or row of work of a listener waits or is in somebody's hands."""

    def backlog(self, output: int) -> Backlog:
        """What waits for a listener, counted."""

    def lead(self, worker: str, ttl_s: float) -> str | None:
        """Take or renew the right to work here, for ``ttl_s`` seconds: None, or the process that has it.

        Databases that many processes may write to at once give it to all.
        """

    def set_listener(self, output: int, **values: Any) -> None:
        """Change a listener's ``paused``, ``sweep``, ``swept_at``, ``error`` or ``error_at``."""

    def errors(self, output: int | None = None, limit: int = 1000) -> list[RowError]:
        """Rows set aside, newest first."""

    def take_errors(self, output: int) -> list[Key]:
        """Make an output's set-aside rows eligible again; return their keys."""

    def add_usage(self, rows: Sequence[UsageRow]) -> None:
        """Add to the counters of each row's day, model and output, whoever else adds to them at the same time.

        Makes pinnacle's own tables if they are not there. Commits before it returns: all rows
        or none where there are transactions, row by row elsewhere.
        """

    def usage(self, model: str | None = None) -> list[UsageRow]:
        """The counters, of one model or of all: the newest day first, within a day by model and output."""

    def cached(self, digests: Sequence[bytes]) -> dict[bytes, str]:
        """What the cache of paid results has under these digests: the JSON texts that have not expired."""

    def cache(self, entries: Mapping[bytes, str], ttl_s: float) -> None:
        """Keep JSON texts under digests of 16 bytes for ``ttl_s`` seconds, each in place of an earlier one.

        Makes pinnacle's own tables if they are not there. Commits before it returns. Now and
        then entries that have expired are deleted, and the oldest beyond `MAX_CACHE_ENTRIES`.
        """

    def clear_cache(self) -> None:
        """Erase the cache of paid results."""

    def save_batch(self, job: BatchJob) -> None:
        """Record a batch that a provider has accepted; saving it again changes nothing. Commits before it returns."""

    def batches(self, output: int) -> list[BatchJob]:
        """The recorded batches of an output, oldest first."""

    def delete_batch(self, batch: str) -> bool:
        """Forget the batch of that id; whether it was there, which it is for one of all who ask."""

    def rows_of(self, info: OutputInfo) -> Any:
        """The query for all rows of an output's table or collection."""

    def migration_plan(self) -> list[str]:
        """Statements that would bring pinnacle's own tables to this version."""

    def migrate(self) -> None:
        """Create or upgrade pinnacle's own tables; a no-op when they are current."""

    def removal_plan(self, *, outputs: bool = False) -> list[str]:
        """What `remove_all` would run."""

    def remove_all(self, *, outputs: bool = False) -> None:
        """Take everything of pinnacle's out of the database and leave the user's data."""

    def close(self) -> None: ...
