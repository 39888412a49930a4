"""The history of runs: who trains a model, and the checkpoints and metrics that a run leaves behind."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from pinnacle.backends.protocol import RunStore
from pinnacle.base.errors import ComponentError, Conflict, NotFound, TrainingError
from pinnacle.base.failpoints import failpoint
from pinnacle.base.rows import Record
from pinnacle.catalog.catalog import Catalog
from pinnacle.components.artifact import Artifact
from pinnacle.components.run import DONE, INTERRUPTED, RUNNING, Checkpoint, Run, TrainingState, checkpoints_of

FOLLOW_S, POLL_S = 300.0, 0.2
BROKEN = "broken"


@dataclasses.dataclass(frozen=True)
class FitStatus:
    """How a model's last fit stands, as its record says; ``status`` is "broken" where that cannot be read, and
    ``error`` why."""

    identifier: str
    version: int
    status: str
    step: int = 0
    max_steps: int = 0
    seconds: float = 0.0
    loss: float | None = None
    error: str | None = None
    is_alive: bool = False

    @property
    def ended(self) -> str:
        """The status; "interrupted" also where the process that it ran in is gone and could not say so."""
        return INTERRUPTED if self.status == RUNNING and not self.is_alive else self.status


class History:
    """The runs of one database; a `RunReader` for those that are loaded from it."""

    def __init__(self, catalog: Catalog, store: RunStore) -> None:
        self.catalog, self.store = catalog, store
        catalog.run_reader = self

    # -- reading -----------------------------------------------------------------------------------

    def newest(self, model: str) -> Run | None:
        """A model's last run; None where there is none, or none whose classes are here."""
        try:
            found: Any = self.catalog.load(Run.kind, model)
        except (NotFound, ComponentError):
            return None
        return found  # type: ignore[no-any-return]

    def fits(self) -> list[FitStatus]:
        """The last fit of each model; needs none of their classes."""
        records = [self.catalog.store.get(Run.kind, name) for _, name in self.catalog.store.identifiers(Run.kind)]
        leased = self.store.leased()
        return [_fit_status(record, leased) for record in records if record is not None]

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
        """Store a new run. The last one, where it still says that it runs, was interrupted, for only one has the lease;
        nobody goes on from it any more."""
        before = self.catalog.store.get(Run.kind, run.identifier)
        if before is not None:
            fields = before.body["fields"]
            if fields["status"] == RUNNING:
                fields = {**fields, "status": INTERRUPTED}
                self.catalog.store.amend(dataclasses.replace(before, body={**before.body, "fields": fields}))
            self._drop(TrainingState.kind, f"{before.identifier}/{before.version}", keep=set())
        run.reader = self
        return self.catalog.add(run)

    def log(self, run: Run, position: int, entries: Sequence[Mapping[str, Any]]) -> None:
        """Append to the run's metrics."""
        self.store.log(checkpoints_of(run), position, entries)

    def resume(self, run: Run, checkpoint: Checkpoint | None) -> None:
        """Go on with a run from a checkpoint, or from its beginning: what came after it is forgotten, and comes again.

        The run first, so that whoever looks at it is told less than there is, never more.
        """
        run.status, run.error, run.resumed, run.metrics = RUNNING, None, run.resumed + 1, {}
        run.step, run.epoch = (0, 0.0) if checkpoint is None else (checkpoint.step, checkpoint.epoch)
        logged = 0 if checkpoint is None else checkpoint.logged
        for entry in self.series(run)[:logged]:
            run.metrics.update({name: value for name, value in entry.items() if name not in ("step", "epoch")})
        self.catalog.amend(run)
        name = checkpoints_of(run)
        for version in self.catalog.versions(Checkpoint.kind, name):
            if version > run.step:
                self.catalog.store.delete(Checkpoint.kind, name, version)
        self.store.cut(name, logged)

    def save(
        self, run: Run, checkpoint: Checkpoint, state: Mapping[str, Artifact], limit: int | None = None
    ) -> Checkpoint:
        """Store a checkpoint, after what is needed to go on from it; keep that of the newest alone.

        ``limit``: how many checkpoints are kept, the best one among them.
        """
        name = checkpoints_of(run)
        if state:
            self.catalog.put(TrainingState(name, files=dict(state)), checkpoint.step)
        failpoint("in-save")
        saved = self.catalog.put(dataclasses.replace(checkpoint, identifier=name), checkpoint.step)
        if saved.is_best:
            self.mark(run, best=saved.step)
        if state:
            self._drop(TrainingState.kind, name, keep={checkpoint.step})
        if limit is not None:
            self._prune(run, limit)
        failpoint("after-save")
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
            if run.configuration is not None and run.configuration.checkpoints_kept is not None:
                self._prune(run, run.configuration.checkpoints_kept)

    def _prune(self, run: Run, limit: int) -> None:
        """Keep ``limit`` checkpoints: the newest, the best, the final and the one to go on from before any other."""
        found, name = self.checkpoints(run), checkpoints_of(run)
        needed = {*self.catalog.versions(TrainingState.kind, name), max((c.step for c in found), default=0)}
        needed |= {c.step for c in found if c.is_best or c.is_final}
        others = [c.step for c in found if c.step not in needed]
        spare = max(0, limit - (len(found) - len(others)))
        self._drop(Checkpoint.kind, name, keep=needed | set(others[len(others) - spare :]))

    def _drop(self, kind: str, name: str, keep: set[int]) -> None:
        for version in self.catalog.versions(kind, name):
            if version not in keep:
                self.catalog.store.delete(kind, name, version)

    # -- removing ----------------------------------------------------------------------------------

    def check_idle(self, model: str) -> None:
        """Conflict while a model is being trained."""
        if model in self.store.leased():
            raise Conflict(f"model {model!r} is being trained; wait until that is over, or stop it")

    def remove(self, model: str, version: int | None = None) -> None:
        """Remove a model's runs, all or one, with their metrics and checkpoints; the run itself last, so that a
        removal which was cut short can be done again. NotFound, or Conflict while a version of a model refers to it."""
        self.catalog.check_removable(Run.kind, model, version)
        self.check_idle(model)
        for each in self.catalog.versions(Run.kind, model) if version is None else [version]:
            name = f"{model}/{each}"
            for kind in (TrainingState.kind, Checkpoint.kind):
                self.catalog.store.delete(kind, name)
            self.store.forget(name)
            self.catalog.store.delete(Run.kind, model, each)

    def remove_unused(self, model: str) -> None:
        """Remove the runs of a model that nothing refers to."""
        for version in self.catalog.versions(Run.kind, model):
            if not self.catalog.dependents(Run.kind, model, version):
                self.remove(model, version)


def _fit_status(record: Record, leased: Collection[str]) -> FitStatus:
    try:
        fields = record.body["fields"]
    except ComponentError as error:
        return FitStatus(record.identifier, record.version, BROKEN, error=str(error))
    metrics = fields.get("metrics")
    loss = metrics.get("loss") if isinstance(metrics, Mapping) else None
    is_known = isinstance(loss, (int, float))
    status, told = fields.get("status"), fields.get("error")
    return FitStatus(
        record.identifier, record.version, str(status), step=int(_number(fields.get("step"))),
        max_steps=int(_number(fields.get("max_steps"))), seconds=_number(fields.get("seconds")),
        loss=loss if is_known else None, error=None if told is None else str(told),
        is_alive=status == RUNNING and record.identifier in leased,
    )  # fmt: skip


def _number(stored: Any) -> float:
    """A stored number; 0 for what is none, or none that is finite."""
    return stored if isinstance(stored, (int, float)) and abs(stored) < math.inf else 0
