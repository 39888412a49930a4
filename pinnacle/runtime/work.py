"""The engine over claimed rows: what a worker does with one batch of a listener's work."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from pinnacle.backends.protocol import Target
from pinnacle.base.rows import Key, Page
from pinnacle.components.model import CallStyle, Model
from pinnacle.runtime.engine import Run
from pinnacle.runtime.held import Held
from pinnacle.runtime.memory import RunMemory
from pinnacle.runtime.options import RunOptions, RunSettings
from pinnacle.runtime.writing import Writer, brisk

PORTION_ROWS = 2_500
"""How many rows of a claim are read at once; a portion of a batch model is of whole batches."""


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
        parameters: Mapping[str, Any], settings: RunSettings,
    ) -> None:  # fmt: skip
        super().__init__(model, target, RunOptions(parameters=parameters), settings)
        self._unmatched = unmatched
        self._handled: set[Key] = set()
        self._judges = True
        a_call = self.batch_size if model.call_style is CallStyle.BATCH else 1
        self._portion_rows = math.ceil(PORTION_ROWS / a_call) * a_call

    def stop_on(self, stop: threading.Event) -> None:
        """Between two portions of a batch, stop when this is set (CancelledError); what is computed is written."""
        self._stop = stop

    @property
    def rows(self) -> int:
        """How many rows to claim next."""
        return self._size.rows

    def work(self, keys: Sequence[Key], lease: str, *, meanwhile: Callable[[], None] | None = None) -> Worked:
        """Bring claimed rows up to date; commits before it returns. ``meanwhile`` runs once all is computed,
        while the last outputs are written."""
        self._handled, self._later = set(), []
        self.caller.outage = self.caller.halted = None
        computed, again, pages = self.result.computed, set[Key](), list[Page]()
        with brisk, self._writing_portions(), self._metering():
            for start in range(0, len(keys), self._portion_rows):
                portion = keys[start : start + self._portion_rows]
                if self._has_met_outage():
                    again.update(portion)
                else:
                    pages.append(self._work_off(portion, lease, again))
            if meanwhile is not None:
                meanwhile()
        unwritten = set(self._later)
        again.update(key for page in pages for key in page.keys if key not in self._handled)
        self._keep_in_mind(pages, unwritten)
        outage = self.caller.outage or self.caller.halted
        return Worked(again | unwritten, outage, self.result.computed - computed)

    def _has_met_outage(self) -> bool:
        return self.caller.outage is not None or self.caller.halted is not None

    def _work_off(self, keys: Sequence[Key], lease: str, again: set[Key]) -> Page:
        """Read, compute, and leave the writing to its thread: the next portion is read meanwhile."""
        began = time.perf_counter()
        page = self._reread(keys)
        if page.read < len(keys):
            again.update(self._settle_absent(keys))
        if page.keys:
            held = Held(page, lease, is_retried=True)
            self._held.append(held)
            self._process(held)
        else:
            self._size.after_work(max(1, len(keys)), time.perf_counter() - began)
        return page

    @contextmanager
    def _writing_portions(self) -> Iterator[None]:
        """A writer that is done at the end; raises what a write failed with."""
        self._held, self._writer = [], Writer()
        try:
            yield
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

    def _write(self, held: Held, positions: list[int], outputs: Sequence[Any]) -> None:
        self._handled.update(held.page.keys[position] for position in positions)
        super()._write(held, positions, outputs)

    def _set_aside(self, held: Held, failed: Sequence[Any]) -> None:
        self._handled.update(held.page.keys[item.position] for item in failed)
        super()._set_aside(held, failed)

    def _keep_in_mind(self, pages: Sequence[Page], unwritten: set[Key]) -> None:
        known, self._memory = self._memory, RunMemory()
        for page in pages if unwritten else ():
            for identity, key in zip(page.identities, page.keys, strict=True):
                if key in unwritten and known.get(identity)[0]:
                    self._memory.put([identity], [known.get(identity)[1]])
