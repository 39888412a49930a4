"""Bookkeeping of outputs when the primary key of the user's table has become another."""

from __future__ import annotations

from collections.abc import Sequence

from pinnacle.backends.sql.outputs import create_state
from pinnacle.backends.sql.schema import WORK_PREFIX, error, lease, outbox_name, state_name
from pinnacle.backends.sql.session import SqlSession
from pinnacle.backends.sql.source import SqlSource
from pinnacle.base.rows import OutputInfo


def forget_keys(session: SqlSession, source: SqlSource, info: OutputInfo, drops: Sequence[str]) -> None:
    """Make what is kept by key anew, for what there was is of other keys.

    ``drops`` take a listener's triggers away, which write the former key; its worker makes them again, and sweeps.
    """
    mine = f"output_id = {info.id}"
    tables = (outbox_name(info.id), f"{WORK_PREFIX}{info.id}", state_name(info.id))
    session.alter_all(
        source.actual,
        [
            *drops,
            *(f"DROP TABLE IF EXISTS {session.own(name)}" for name in tables),
            create_state(session, source, info.id),
            *(f"DELETE FROM {session.own(table.name)} WHERE {mine}" for table in (error, lease)),
        ],
    )
