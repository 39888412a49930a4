"""The engine over claimed rows: what a worker does with one batch of a listener's work."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pinnacle.backends.protocol import Target
from pinnacle.base.rows import Key
from pinnacle.components.model import Model
from pinnacle.runtime.engine import Run, RunOptions, _Held
from pinnacle.runtime.memory import RunMemory
from pinnacle.runtime.writing import Writer, brisk


@dataclass
class Worked:
    """What became of a batch: ``again`` holds the keys whose rows wait still.

    ``outage``: why some of these met no answer. ``computed``: inputs that did.
    """

    again: set[Key] = field(default_factory=set)
    outage: BaseException | None = None
    computed: int = 0


class WorkRun(Run):
    """A run over rows that come with their lease, batch after batch.

    Outputs that could not be written, because a row was locked, are remembered for when
    it comes back: it is not paid for twice.
    """

    def __init__(
        self, model: Model, target: Target, *, unmatched: Literal["keep", "clear"],
        parameters: Mapping[str, Any], lease_ttl_s: float,
    ) -> None:  # fmt: skip
        super().__init__(model, target, RunOptions(parameters=parameters), lease_ttl_s=lease_ttl_s)
        self.caller.spares_outages = True
        self._unmatched = unmatched
        self._handled: set[Key] = set()

    def stop_on(self, stop: threading.Event) -> None:
        """Between two portions of a batch, stop when this is set (CancelledError); what is computed is written."""
        self._stop = stop

    @property
    def rows(self) -> int:
        """How many rows to claim next."""
        return self._size.rows

    def work(self, keys: Sequence[Key], lease: str) -> Worked:
        """Bring claimed rows up to date; commits before it returns."""
        self._handled, self._later = set(), []
        computed = self.result.computed
        began = time.perf_counter()
        page = self._reread(keys)
        locked = self._settle_absent(keys) if page.read < len(keys) else ()
        if page.keys:
            held = _Held(page, lease, is_retried=True)
            with brisk:
                self._work_off(held)
        unwritten = set(self._later)
        again = unwritten.union(locked) | {key for key in page.keys if key not in self._handled}
        self._keep_in_mind(page.identities, page.keys, unwritten)
        if not page.keys:
            self._size.after_work(max(1, len(keys)), time.perf_counter() - began)
        return Worked(again, self.caller.outage, self.result.computed - computed)

    def _work_off(self, held: _Held) -> None:
        self._held = [held]
        self._writer = Writer()
        try:
            self._process(held)
            self._drain()
            self._writer.raise_failure()
        finally:
            self._held = []
            self._writer.close()

    def _settle_absent(self, keys: Sequence[Key]) -> Sequence[Key]:
        """Rows that are gone leave no copies behind; rows no longer selected are kept or cleared. Those that
        could not be."""
        gone, unmatched = self.target.absent(keys)
        if gone:
            self.target.forget(gone)
        return self.target.blank(unmatched) if unmatched and self._unmatched == "clear" else ()

    def _write(self, held: _Held, positions: list[int], outputs: Sequence[Any]) -> None:
        self._handled.update(held.page.keys[position] for position in positions)
        super()._write(held, positions, outputs)

    def _set_aside(self, held: _Held, failed: Sequence[Any]) -> None:
        self._handled.update(held.page.keys[item.position] for item in failed)
        super()._set_aside(held, failed)

    def _keep_in_mind(self, identities: Sequence[Any], keys: Sequence[Key], unwritten: set[Key]) -> None:
        known, self._memory = self._memory, RunMemory()
        for identity, key in zip(identities, keys, strict=True):
            if key in unwritten and known.get(identity)[0]:
                self._memory.put([identity], [known.get(identity)[1]])
