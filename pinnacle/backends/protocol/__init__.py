"""What a database must do for the rest of pinnacle: the duties every backend shares, one module a noun.

All are imported from here; `backend` is the one to read first.
"""

from __future__ import annotations

from pinnacle.backends.protocol.backend import Backend, Capability
from pinnacle.backends.protocol.catalog import CatalogStore, RunStore, Seals
from pinnacle.backends.protocol.changes import Feed, Listeners, Wake
from pinnacle.backends.protocol.ledger import Ledger
from pinnacle.backends.protocol.outputs import Errors, Outputs
from pinnacle.backends.protocol.rows import NO_OUTPUT, Source, Target
from pinnacle.backends.protocol.search import Searcher

__all__ = [
    "Backend", "Capability", "Source", "Target", "NO_OUTPUT", "Outputs", "Errors", "Listeners", "Feed", "Wake",
    "CatalogStore", "RunStore", "Seals", "Ledger", "Searcher",
]  # fmt: skip
