"""The value objects that cross between a worker and a backend: what to watch, what is claimed, how it stands."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pinnacle.base.rows import Fields, Key, Page


@dataclass(frozen=True, kw_only=True)
class Watch:
    """How one listener's changes are captured.

    ``clears``: an input that changes blanks the output inside the user's own transaction.
    ``notifies``: a change wakes waiting workers at once, where that costs the writer
    something; None leaves it to the database. ``replicated``: also changes that a replication applies are captured.
    """

    clears: bool = False
    notifies: bool | None = None
    replicated: bool = False


@dataclass(frozen=True, kw_only=True)
class Claim:
    """Rows that a worker holds under a lease, with their places in the queue and the revisions of the
    changes that it knows of; all row-aligned.

    ``is_range``: the places are all there were between the first and the last.
    """

    lease: str
    keys: Sequence[Key]
    places: Sequence[int]
    revisions: Sequence[int]
    is_range: bool = False

    def part(self, positions: Sequence[int]) -> Claim:
        """The claim on the rows at these positions alone."""
        columns = ([column[i] for i in positions] for column in (self.keys, self.places, self.revisions))
        keys, places, revisions = columns
        return Claim(lease=self.lease, keys=keys, places=places, revisions=revisions)

    @property
    def newest(self) -> int:
        """No change that came after the claim has a revision up to this one."""
        return max(max(self.places), max(self.revisions))


NOTHING = Claim(lease="", keys=[], places=[], revisions=[])
"""A claim on no rows."""


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What one look at a listener's changes gave.

    ``claim``: all rows that waited; None where these are many, or others hold some, for a claim to choose of. ``page``:
    the rows of the claim, read after its changes were. ``is_current``: the listener is not paused, nor of another
    version than was asked for; else nothing was done. ``may_be_more``: nobody tells of what changes while the claim is
    worked off.
    """

    folded: int = 0
    claim: Claim | None = NOTHING
    page: Page | None = None
    is_current: bool = True
    may_be_more: bool = False


@dataclass(frozen=True, kw_only=True)
class ListenerRecord:
    """One listener as its database's registry has it.

    ``sweep`` is None when no sweep is due, else what `new_sweep` or `next_sweep` made.
    ``paused`` is the reason, None while it runs. ``side``: the side table that it fills, with
    its schema where it has one.
    """

    output: int
    identifier: str
    version: int
    table: str
    column: str
    fields: Fields
    reads: tuple[str, ...]
    paused: str | None
    sweep: str | None
    swept_at: float
    folded_at: float
    processed: int
    error: str | None
    error_at: float | None
    side: str | None = None

    @property
    def writes(self) -> tuple[str, str | None]:
        """The table and column that the listener fills; of a side table all columns."""
        return (self.table, self.column) if self.side is None else (self.side, None)


NO_VERSION = -1
"""Of a model or listener whose definition is gone: no stored version is this one, so all is computed anew."""
UNDEFINED = "its definition was dropped by hand, with pinnacle_component; add the model and the listener again"
"""Why a listener is paused whose definition is gone."""


def new_sweep() -> str:
    """A request to look at all rows, from the first; unlike all others, so that none is lost under another."""
    return json.dumps([uuid.uuid4().hex, None])


def next_sweep(sweep: str, after: str) -> str:
    """The same sweep, to go on after the key that ``after`` is the text of."""
    return json.dumps([json.loads(sweep)[0], after])


def sweep_position(sweep: str) -> str | None:
    """The text of the key after which a sweep goes on; None for the first row."""
    after: str | None = json.loads(sweep)[1]
    return after


@dataclass(frozen=True, kw_only=True)
class Backlog:
    """What waits for a listener: changes not yet looked at, rows of work, rows in workers' hands.

    ``oldest_s``: seconds since the oldest waiting change was made, as far as it is known here, 0 where nothing waits.
    ``lost``: tables of this listener's that somebody dropped.
    """

    changes: int
    work: int
    in_flight: int
    oldest_s: float
    lost: tuple[str, ...] = ()

    @property
    def pending(self) -> int:
        return self.changes + self.work


@dataclass(frozen=True, kw_only=True)
class Freshness:
    """How a listener's rows stand: ``fresh`` need nothing; ``stale`` have an output that is not
    current; ``missing`` have none; ``failed`` were set aside with their error."""

    fresh: int = 0
    stale: int = 0
    missing: int = 0
    failed: int = 0


@dataclass(frozen=True)
class WorkerStatus:
    """A worker that lives: the process's machine and number, and since when it works (seconds since 1970)."""

    host: str
    pid: int
    since: float


@dataclass(frozen=True, kw_only=True)
class ListenerStatus:
    """One line of `pinnacle status`. ``lag_s``: age of the oldest change that waits, as far
    as a worker has seen it. ``is_sweeping``: a first fill or a sweep is under way or due; so it is
    for a listener that follows its model and is not at the newest version yet."""

    identifier: str
    output: str
    pending: int
    in_flight: int
    failed: int
    lag_s: float
    processed: int
    is_sweeping: bool
    last_error: str | None
    paused: str | None
    model: str = ""
    model_version: int | None = None
    follow: Literal["pinned", "latest"] = "pinned"
