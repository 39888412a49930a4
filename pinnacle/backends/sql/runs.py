"""Who may train a model, and the metrics of training runs, for every SQL database."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from pinnacle.backends.sql.schema import metric, training
from pinnacle.backends.sql.session import SqlSession
from pinnacle.base.processes import is_gone, shown, this_process


class SqlRuns:
    """See `RunStore`. The tables training and metric of one database."""

    def __init__(self, session: SqlSession) -> None:
        self._session = session

    def lease(self, model: str, token: str, ttl_s: float) -> str | None:
        """See `RunStore.lease`. Each attempt is one statement, which locks the model's row and then judges it."""
        self._session.migrate()
        void = ""
        while not self._take(model, token, void, ttl_s):
            holder = self._holder(model)
            if holder is None:
                continue  # given up just now
            void, process = holder
            if not is_gone(process):
                return shown(process)
        return None

    def renew(self, model: str, token: str, ttl_s: float) -> bool:
        """See `RunStore.renew`."""
        held = (training.c.model == model, training.c.token == token)
        with self._session.writing() as connection:
            statement = sa.update(training).where(*held).values(expires_at=self._session.now() + ttl_s)
            return bool(connection.execute(statement).rowcount)

    def leased(self) -> dict[str, str]:
        if not self._session.is_migrated():
            return {}
        query = sa.select(training).where(training.c.expires_at > self._session.now())
        with self._session.reading() as connection:
            return {row.model: row.token for row in connection.execute(query) if not is_gone(row.process)}

    def release(self, model: str, token: str) -> None:
        if self._session.is_migrated():
            with self._session.writing() as connection:
                held = (training.c.model == model, training.c.token == token)
                connection.execute(sa.delete(training).where(*held))

    def _take(self, model: str, token: str, void: str, ttl_s: float) -> bool:
        """Take a lease that nobody has, that has expired, or whose token is this one or the ``void`` one."""
        new = {"token": token, "process": this_process(), "expires_at": self._session.now() + ttl_s}
        with self._session.writing() as connection:
            statement = self._session.insert(training).values(model=model, **new)
            taken = statement.on_conflict_do_update(
                index_elements=["model"],
                set_={name: statement.excluded[name] for name in new},
                where=training.c.token.in_([token, void]) | (training.c.expires_at <= self._session.now()),
            ).returning(training.c.token)
            return connection.scalar(taken) is not None

    def _holder(self, model: str) -> tuple[str, str] | None:
        """The token and the process of a model's lease."""
        with self._session.reading() as connection:
            found = connection.execute(sa.select(training).where(training.c.model == model)).first()
        return None if found is None else (found.token, found.process)

    # -- metrics ------------------------------------------------------------------------------

    def log(self, run: str, position: int, entries: Sequence[Mapping[str, Any]]) -> None:
        """See `RunStore.log`. One transaction."""
        if not entries:
            return
        rows = [
            {"run": run, "position": place, "entry": json.dumps(dict(entry))}
            for place, entry in enumerate(entries, position)
        ]
        self._session.migrate()
        with self._session.writing() as connection:
            statement = self._session.insert(metric)
            connection.execute(
                statement.on_conflict_do_update(
                    index_elements=["run", "position"], set_={"entry": statement.excluded.entry}
                ),
                rows,
            )

    def cut(self, run: str, position: int) -> None:
        self._forget(metric.c.run == run, metric.c.position >= position)

    def forget(self, run: str) -> None:
        self._forget(metric.c.run == run)

    def _forget(self, *conditions: sa.ColumnElement[bool]) -> None:
        if self._session.is_migrated():
            with self._session.writing() as connection:
                connection.execute(sa.delete(metric).where(*conditions))

    def series(self, run: str) -> list[dict[str, Any]]:
        if not self._session.is_migrated():
            return []
        query = sa.select(metric.c.entry).where(metric.c.run == run).order_by(metric.c.position)
        with self._session.reading() as connection:
            return [json.loads(entry) for entry in connection.scalars(query)]
