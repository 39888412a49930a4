"""The one way of outputs into the database: checked, remembered, paid for, shared, written; what fails is set aside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from pinnacle.base.answers import CutText
from pinnacle.base.errors import ModelError, RowRejected
from pinnacle.base.failpoints import failpoint
from pinnacle.base.rows import Failure, OutputBatch, Page
from pinnacle.runtime.held import Held, failure_of, failures_of
from pinnacle.runtime.outcomes import Failed, Outcomes, message_of, pick
from pinnacle.runtime.scope import Scope

UNREAD_A_WRITE = 500
"""Rows that cannot be read are set aside so many in one transaction."""


class OutputWriter:
    """Takes what came of inputs of held pages, and has it written by the writer's thread, in that order.

    It knows positions of a held page and not where their outcomes come from: a call, a provider's batch, a cache.
    Rows that cannot be written because others hold or have changed them go to the scope's ``later``.
    """

    def __init__(self, scope: Scope) -> None:
        self._scope, self._target, self._result = scope, scope.target, scope.result

    def settle(self, held: Held, outcomes: Outcomes, *, is_new: bool = True) -> None:
        """Bring outcomes of a page on their way; waits while two batches are queued already.

        Not ``is_new``: outputs that were computed and paid for before.
        """
        failpoint("after-model")
        sound = self._checked(outcomes)
        identities = pick(held.page.identities, sound.positions)
        self._scope.memory.put(identities, sound.outputs)
        if is_new:
            self._result.computed += len(outcomes)
            for task in self._due(outcomes, sound, identities):
                self._queue(held, task)
        shared = held.shared(sound)
        self._result.deduplicated += sum(map(len, shared.values())) - len(sound)
        for page, theirs in shared.items():
            self.write(page, theirs.positions, theirs.outputs)
        for page, theirs in shared.items():
            self.set_aside(page, theirs.failed)

    def _due(self, outcomes: Outcomes, sound: Outcomes, identities: Sequence[Any]) -> list[Callable[[], None]]:
        """What is to be committed first; an answer that was cut is counted, and not kept for another time."""
        cut = {i for i, output in zip(outcomes.positions, outcomes.outputs, strict=True) if type(output) is CutText}
        if not cut:
            return self._scope.account.due(identities, sound.outputs)
        self._result.cut += len(cut)
        kept = [n for n, position in enumerate(sound.positions) if position not in cut]
        return self._scope.account.due([identities[n] for n in kept], [sound.outputs[n] for n in kept])

    def write(self, held: Held, positions: Sequence[int], outputs: Sequence[Any]) -> None:
        """Queue checked outputs, a batch at a time."""
        held.settled.update(positions)
        page, size = held.page, self._scope.batch_size
        for start in range(0, len(positions), size):
            part = positions[start : start + size]
            batch = OutputBatch(
                keys=pick(page.keys, part), outputs=outputs[start : start + size], witnesses=pick(page.witnesses, part)
            )
            self._queue(held, partial(self._commit, self._prepared(batch), held.write_whole))

    def set_aside(self, held: Held, failed: Sequence[Failed]) -> None:
        """Queue failures; with ``on_error="raise"`` raise the first, which is recorded all the same."""
        if not failed:
            return
        held.settled.update(item.position for item in failed)
        self._queue(held, partial(self._record, failures_of(held.page, failed)))
        if self._scope.options.on_error == "raise":
            first, keys = failed[0], held.page.keys
            raise ModelError(
                f"model {self._scope.model.identifier!r} failed on {self._result.output} for key "
                f"{keys[first.position]!r}: {type(first.error).__name__}: {first.message}",
                keys=[keys[item.position] for item in failed],
            ) from first.error

    def set_aside_unread(self, page: Page) -> None:
        """Set aside what of a page could not be read; with ``on_error="raise"`` raise the first, which is recorded
        all the same."""
        rows = page.unreadable
        for start in range(0, len(rows), UNREAD_A_WRITE):
            part = rows[start : start + UNREAD_A_WRITE]
            self._scope.thread.write(partial(self._record, [failure_of(row) for row in part]))
        if rows and self._scope.options.on_error == "raise":
            first = rows[0]
            raise ModelError(
                f"the row with key {first.key!r} cannot be read for {self._result.output}: "
                f"{type(first.error).__name__}: {message_of(first.error)}",
                keys=[row.key for row in rows],
            ) from first.error

    # -- from outcomes to what is written ------------------------------------------------------------

    def _checked(self, outcomes: Outcomes) -> Outcomes:
        """The outputs as they will be stored; those that do not fit the output have failed."""
        if not outcomes.outputs:
            return outcomes
        positions, (values, misfits) = outcomes.positions, self._target.check_all(outcomes.outputs)
        if not misfits:
            return Outcomes(positions, list(values), outcomes.failed)
        sound = [i for i in range(len(positions)) if i not in misfits]
        failed = [Failed(positions[i], error, 1) for i, error in misfits.items()]
        return Outcomes([positions[i] for i in sound], [values[i] for i in sound], [*outcomes.failed, *failed])

    def _queue(self, held: Held, task: Callable[[], None]) -> None:
        held.writes.append(self._scope.thread.write(task))

    def _prepared(self, batch: OutputBatch) -> OutputBatch:
        """The batch encoded; one with a value that cannot be is left as it is, for the writer to find the row."""
        try:
            return self._target.prepare(batch)
        except Exception:  # of an output type's own code; it is raised again where the row is alone
            return batch

    # -- on the writer's thread ------------------------------------------------------------------------

    def _commit(self, batch: OutputBatch, write_whole: Callable[[OutputBatch], bool] | None = None) -> None:
        """Write a batch; one that the database refuses is halved until the refused rows are alone and set aside."""
        failpoint("before-write")
        try:
            unwritten = self._written(self._encoded(batch), write_whole)
        except RowRejected as error:
            self._refused(batch, error)
            return
        failpoint("after-write")
        written = len(batch.keys) - len(unwritten)
        self._result.written += written
        self._scope.progress(written)
        self._scope.later.extend(batch.keys[i] for i in unwritten)

    def _written(self, batch: OutputBatch, write_whole: Callable[[OutputBatch], bool] | None) -> Sequence[int]:
        """Write; the positions that were not."""
        run = self._scope.database.run
        if write_whole is not None and run(partial(write_whole, batch)):
            return ()
        return run(partial(self._target.write, batch))

    def _encoded(self, batch: OutputBatch) -> OutputBatch:
        """The batch prepared; RowRejected where a value has no form for the database."""
        if batch.prepared is not None:
            return batch
        try:
            return self._target.prepare(batch)
        except Exception as error:  # of an output type's own code: the row is searched for
            raise RowRejected(f"the output cannot be encoded: {type(error).__name__}: {message_of(error)}") from error

    def _refused(self, batch: OutputBatch, error: RowRejected) -> None:
        if len(batch.keys) > 1:
            middle = len(batch.keys) // 2
            for part in (slice(None, middle), slice(middle, None)):
                self._commit(
                    OutputBatch(keys=batch.keys[part], outputs=batch.outputs[part], witnesses=batch.witnesses[part])
                )
        elif self._scope.options.on_error == "raise":
            raise error
        else:
            message = str(error)
            self._record(
                [
                    Failure(
                        key=batch.keys[0],
                        witness=batch.witnesses[0],
                        error=type(error).__name__,
                        message=message,
                        traceback=message,
                        attempts=1,
                    )
                ]
            )

    def _record(self, failures: Sequence[Failure]) -> None:
        """Set rows aside with their errors."""
        self._scope.database.run(partial(self._target.fail, failures))
        self._result.failed += len(failures)
        self._scope.progress(len(failures))
