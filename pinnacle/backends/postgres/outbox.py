"""A listener's outbox: how what it has is found, once, and moved into the work."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pinnacle.backends.postgres.session import PostgresSession
from pinnacle.backends.postgres.statements import Kind, escaped
from pinnacle.backends.sql.schema import CHANGED_AT


@dataclass(frozen=True)
class Folded:
    """What a fold did. ``has_marker``: a change of the whole table was among it, which asks for a sweep. ``position``:
    to be noted in the registry; None where it stays as it is."""

    count: int = 0
    has_marker: bool = False
    position: str | None = None


class Outbox:
    """The statement that moves up to ``rows`` changes, and what its result says.

    A position holds the snapshot up to which all is folded, and while a large part is folded in pieces the snapshot
    it was begun with and the transaction it has come to.
    """

    def __init__(self, session: PostgresSession, outbox: str, work: str, key: Sequence[Kind], rows: int) -> None:
        self._outbox, self._rows = outbox, rows
        keys = ", ".join(f"k{i}" for i in range(len(key)))
        self._returned = f"RETURNING xid, {', '.join(_typed(i, kind) for i, kind in enumerate(key))}, {CHANGED_AT}"
        self._moved = (
            f"folded AS (INSERT INTO {work} ({keys}, at) SELECT {keys}, {session.epoch_s(f'min({CHANGED_AT})')} "
            f"FROM taken WHERE k0 IS NOT NULL GROUP BY {keys} "
            f"ON CONFLICT ({keys}) DO UPDATE SET revision = excluded.place) "
            "SELECT count(*), CAST(max(xid) AS text), bool_or(k0 IS NULL), "
            "CAST(pg_current_snapshot() AS text) FROM taken"
        )

    def fold(self, position: str) -> tuple[str, dict[str, Any]]:
        """The statement, and its parameters."""
        unseen, parameters = self._unseen(_known(position))
        taken = f"taken AS (DELETE FROM {self._outbox} WHERE ctid = ANY(ARRAY({unseen})) {self._returned})"
        return f"WITH {taken}, {self._moved}", parameters

    def folded(self, position: str, row: Sequence[Any]) -> Folded:
        """What the row says that the statement gave for a ``position``."""
        known = _known(position)
        count, last, has_marker, snapshot = row
        if not count and "begun" not in known:
            return Folded()
        begun = known.get("begun") or snapshot
        now = {**known, "begun": begun, "at": last} if count >= self._rows else {"seen": begun}
        return Folded(count, bool(has_marker), json.dumps(now))

    def _unseen(self, known: dict[str, str]) -> tuple[str, dict[str, Any]]:
        """The query for rows that no fold has looked at, and its parameters.

        A range of the index for each kind of transaction, begun after the last snapshot or
        open in it: rows that were taken and cannot be removed yet are not walked over.
        """
        kinds, parameters = ["true"], dict[str, Any](rows=self._rows, at=known.get("at", "0"))
        if "seen" in known:
            _, end, still_open = known["seen"].split(":")
            kinds, parameters["end"] = ["xid >= CAST(%(end)s AS xid8)"], end
            if still_open:
                kinds.append("xid = ANY(CAST(%(open)s AS xid8[]))")
                parameters["open"] = still_open.split(",")
        ranges = [
            f"(SELECT ctid, xid FROM {self._outbox} WHERE {kind} AND xid >= CAST(%(at)s AS xid8) "
            "ORDER BY xid LIMIT %(rows)s)"
            for kind in kinds
        ]
        return f"SELECT ctid FROM ({' UNION ALL '.join(ranges)}) AS unseen ORDER BY xid LIMIT %(rows)s", parameters


def _known(position: str) -> dict[str, str]:
    return json.loads(position) if position else {}


def _typed(i: int, kind: Kind) -> str:
    """A part of the key as a query takes it out of the outbox: of the user's own type and collation."""
    collation = kind.with_collation.removeprefix(kind.declared)
    return escaped(f"CAST(k{i} AS {kind.declared}){collation} AS k{i}")
