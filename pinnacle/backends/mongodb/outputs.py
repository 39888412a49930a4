"""The outputs of a database, with all that is kept of each beside its values."""

from __future__ import annotations

from dataclasses import dataclass

from pinnacle.backends.mongodb.changes.listeners import MongoListeners
from pinnacle.backends.mongodb.stores.ledger import MongoLedger
from pinnacle.backends.mongodb.target.leases import LEASES
from pinnacle.backends.mongodb.target.output_registry import OutputRegistry
from pinnacle.backends.mongodb.target.row_errors import ERRORS


@dataclass(frozen=True)
class MongoOutputs(OutputRegistry):
    """See `Outputs`."""

    listeners: MongoListeners
    ledger: MongoLedger

    def forget(self, output: int, *, drop_column: bool) -> None:
        info = self.get(output)
        if drop_column and self.is_made(info):
            self.clear_values(info)
        self.listeners.remove(output)
        for table in (LEASES, ERRORS):
            self.wire.delete(table, {"output": output})
        self.ledger.forget_output(output)
        self.remove(output)
