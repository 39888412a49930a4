"""A worker to be tortured: ``python -m benchmarks.torture_worker URL [small]``.

With ``small`` its bounds are those of a table a thousand times as large: few hundred rows then go through what only
many would, changes folded in pieces and sweeps of many slices.
"""

from __future__ import annotations

import sys

from pinnacle import cli
from pinnacle.runtime import keeper

ROWS = 12


def make_small(url: str) -> None:
    keeper.SWEEP_ROWS = 4 * ROWS
    if url.startswith("sqlite"):
        from pinnacle.backends.sqlite.changes import SqliteFeed

        SqliteFeed.fold_rows = ROWS
    elif url.startswith("postgresql"):
        from pinnacle.backends.postgres.changes import PostgresFeed

        PostgresFeed.fold_rows = ROWS


if __name__ == "__main__":
    address, *size = sys.argv[1:]
    if size:
        make_small(address)
    cli.main(["worker", address])
