"""The history of runs: who trains a model, and the checkpoints and metrics that a run leaves behind."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any

from pinnacle.backends.protocol import RunStore
from pinnacle.base.errors import NotFound, TrainingError
from pinnacle.catalog.catalog import Catalog
from pinnacle.components.artifact import Artifact
from pinnacle.components.run import DONE, INTERRUPTED, RUNNING, Checkpoint, Run, TrainingState, checkpoints_of

FOLLOW_S, POLL_S = 300.0, 0.2


class History:
    """The runs of one database; a `RunReader` for those that are loaded from it."""

    def __init__(self, catalog: Catalog, store: RunStore) -> None:
        self.catalog, self.store = catalog, store
        catalog.run_reader = self

    # -- reading -----------------------------------------------------------------------------------

    def newest(self, model: str) -> Run | None:
        """A model's last run."""
        try:
            found: Any = self.catalog.load(Run.kind, model)
        except NotFound:
            return None
        return found  # type: ignore[no-any-return]

    def wait_for_newer(self, model: str, known: Run | None, timeout_s: float = FOLLOW_S) -> Run:
        """The run of another process that trains along, once it is done. TrainingError when it is not in time."""
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            run = self.newest(model)
            if run is not None and run.status == DONE and (known is None or run != known):
                return run
            time.sleep(POLL_S)
        raise TrainingError(
            f"the process that tells the database of the fit of {model!r} did not end it in {timeout_s:.0f} s"
        )

    def checkpoints(self, run: Run) -> list[Checkpoint]:
        """See `RunReader`."""
        name = checkpoints_of(run)
        found: list[Any] = [
            self.catalog.load(Checkpoint.kind, name, step) for step in self.catalog.versions(Checkpoint.kind, name)
        ]
        return found

    def series(self, run: Run) -> list[dict[str, Any]]:
        """See `RunReader`."""
        return self.store.series(checkpoints_of(run))

    def is_alive(self, run: Run) -> bool:
        """See `RunReader`."""
        return run.identifier in self.store.leased()

    def states(self, run: Run) -> dict[int, TrainingState]:
        """What is kept to go on from checkpoints, by their steps."""
        name = checkpoints_of(run)
        return {
            step: self.catalog.load(TrainingState.kind, name, step)  # type: ignore[misc]
            for step in self.catalog.versions(TrainingState.kind, name)
        }

    # -- writing -----------------------------------------------------------------------------------

    def start(self, run: Run) -> Run:
        """Store a new run; the last one, where it still says that it runs, was interrupted: only one has the lease."""
        before = self.newest(run.identifier)
        if before is not None and before.status == RUNNING:
            before.status = INTERRUPTED
            self.catalog.amend(before)
        run.reader = self
        return self.catalog.add(run)

    def log(self, run: Run, position: int, entries: Sequence[Mapping[str, Any]]) -> None:
        """Append to the run's metrics."""
        self.store.log(checkpoints_of(run), position, entries)

    def rewind(self, run: Run, checkpoint: Checkpoint | None) -> None:
        """Forget the metrics logged after a checkpoint: they are logged again."""
        self.store.cut(checkpoints_of(run), 0 if checkpoint is None else checkpoint.logged)

    def save(
        self, run: Run, checkpoint: Checkpoint, state: Mapping[str, Artifact], limit: int | None = None
    ) -> Checkpoint:
        """Store a checkpoint, after what is needed to go on from it; keep that of the newest alone.

        ``limit``: how many checkpoints are kept, the best one among them.
        """
        name = checkpoints_of(run)
        if state:
            self.catalog.put(TrainingState(name, files=dict(state)), checkpoint.step)
        saved = self.catalog.put(dataclasses.replace(checkpoint, identifier=name), checkpoint.step)
        if saved.is_best:
            self.mark(run, best=saved.step)
        if state:
            self._drop(TrainingState.kind, name, keep={checkpoint.step})
        if limit is not None:
            self._prune(run, limit)
        return saved

    def mark(self, run: Run, *, best: int | None = None, final: int | None = None) -> None:
        """Say which checkpoint is the best, or the final one, and that no other is."""
        for checkpoint in self.checkpoints(run):
            if best is not None:
                checkpoint.is_best = checkpoint.step == best
            if final is not None:
                checkpoint.is_final = checkpoint.step == final
            self.catalog.amend(checkpoint)

    def end(self, run: Run) -> None:
        """Store how a run ended; one that is done needs nothing to go on from."""
        self.catalog.amend(run)
        if run.status == DONE:
            self._drop(TrainingState.kind, checkpoints_of(run), keep=set())

    def _prune(self, run: Run, limit: int) -> None:
        kept = self.checkpoints(run)
        worst_first = sorted(kept, key=lambda checkpoint: (checkpoint.is_best, checkpoint.step))
        doomed = {checkpoint.step for checkpoint in worst_first[: max(0, len(kept) - limit)]}
        doomed.discard(kept[-1].step if kept else -1)
        self._drop(Checkpoint.kind, checkpoints_of(run), keep={c.step for c in kept} - doomed)

    def _drop(self, kind: str, name: str, keep: set[int]) -> None:
        for version in self.catalog.versions(kind, name):
            if version not in keep:
                self.catalog.store.delete(kind, name, version)
