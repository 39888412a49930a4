"""What the parts of one prediction share."""

from __future__ import annotations

from dataclasses import dataclass, field

from pinnacle.backends.protocol import Target
from pinnacle.base.rows import Key
from pinnacle.components.model import Model
from pinnacle.runtime.account import Account
from pinnacle.runtime.caller import BATCH_SIZES, Caller
from pinnacle.runtime.database_patience import DatabasePatience
from pinnacle.runtime.memory import OutputMemory
from pinnacle.runtime.options import PredictOptions, PredictSettings
from pinnacle.runtime.result import PredictResult
from pinnacle.runtime.writer import WriterThread


@dataclass(frozen=True, kw_only=True)
class Scope:
    """A model over a target, and how; the counts, the writer's thread and what is remembered meanwhile.

    ``later``: keys of rows that are not done, to come back to. Both threads add to it. ``unanswered``: those of them
    that met no answer of the provider; ``tried``: rows that were sent to it and met none, which go behind all others.
    """

    model: Model
    target: Target
    options: PredictOptions
    settings: PredictSettings
    caller: Caller
    result: PredictResult
    account: Account
    database: DatabasePatience = field(default_factory=DatabasePatience)
    thread: WriterThread = field(default_factory=WriterThread)
    memory: OutputMemory = field(default_factory=OutputMemory)
    later: list[Key] = field(default_factory=list)
    unanswered: set[Key] = field(default_factory=set)
    tried: set[Key] = field(default_factory=set)

    @classmethod
    def of(
        cls, model: Model, target: Target, options: PredictOptions, settings: PredictSettings, *, waits: bool = True
    ) -> Scope:
        """The scope of a prediction that begins; one that ``waits`` does so in its user's thread, which a Ctrl-C may
        interrupt, and has as much patience with its database as with a provider."""
        batch_size = options.batch_size or model.batch_size or BATCH_SIZES[model.call_style]
        info, database = target.info, DatabasePatience(settings.outage_patience_s) if waits else DatabasePatience()
        return cls(
            model=model, target=target, options=options, settings=settings,
            caller=Caller(model, info.fields, options.parameters, batch_size, is_interruptible=waits),
            result=PredictResult(f"{info.table}.{info.name}", dry_run=options.dry_run),
            account=Account(settings, options.budget, database), database=database,
        )  # fmt: skip

    @property
    def batch_size(self) -> int:
        """Inputs of one call of a batch model, and rows of one write."""
        return self.caller.batch_size

    def progress(self, rows: int) -> None:
        """Tell whoever watches that so many more rows are done with."""
        self.settings.on_progress(rows)

    def take_later(self) -> list[Key]:
        """The keys to come back to, once; for when no write is queued."""
        keys = sorted(self.later, key=self.tried.__contains__)
        self.later.clear()
        self.unanswered.clear()
        return keys

    def leave(self) -> None:
        """Count what is not done as what it is, and leave it to the next prediction."""
        unanswered = len(self.unanswered.intersection(self.later))
        self.result.unanswered += unanswered
        self.result.changed += len(self.later) - unanswered
