"""Opens a database that was mutated in one place, works with it, and tells of all that should not have been.

``python -m tests.security.fuzz --mutations 10000 --seed 14`` does it once without a secret and once with one, and exits
with 1 where anything was found. What was found can be had again by its seed.
"""

from __future__ import annotations

import argparse
import faulthandler
import logging
import os
import shutil
import sys
import tempfile
import time
import warnings
from pathlib import Path

from tests.security.attacks import MARK, elsewhere, lay_decoys
from tests.security.mutations import Mutation, Mutations
from tests.security.scene import NEIGHBOUR, SECRET, VICTIM, Town, build, hurry, in_town

LONGEST_S = 120
SHARED = ("pinnacle_lease", "pinnacle_identity", "pinnacle_migration")
"""Tables of which a record may stop all: who may write them can as well drop them."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutations", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=14)
    parser.add_argument("--only", choices=["signed", "unsigned"])
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    hurry(setattr)
    found = 0
    for is_signed in [each for each in (False, True) if asked.only in (None, "signed" if each else "unsigned")]:
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="pinnacle-fuzz-") as folder:
            here = Path.cwd()
            number, columns = fuzz(Path(folder), asked.mutations, asked.seed, SECRET if is_signed else None)
            os.chdir(here)
        found += number
        print(
            f"{asked.mutations} mutations of {columns} columns, {'signed' if is_signed else 'not signed'}, seed "
            f"{asked.seed}: {number} with a fault, {time.monotonic() - began:.0f} s",
            flush=True,
        )
    return 1 if found else 0


def fuzz(folder: Path, mutations: int, seed: int, secret: str | None) -> tuple[int, int]:
    """How many mutations had a fault, and how many columns there were."""
    base = folder / "base"
    base.mkdir()
    in_town(base, os.environ.__setitem__, secret)
    build(base / "town.db")
    made = Mutations(base / "town.db", seed)
    found = done = 0
    for number, mutation in enumerate(made):
        if done == mutations:
            break
        here = folder / f"town-{number}"
        here.mkdir()
        shutil.copyfile(base / "town.db", here / "town.db")
        if mutation.make(here / "town.db"):
            done += 1
            found += _is_faulty(here, mutation, secret, number)
        shutil.rmtree(here)
        shutil.rmtree(elsewhere(here), ignore_errors=True)
    return found, len(made.columns)


def _is_faulty(here: Path, mutation: Mutation, secret: str | None, number: int) -> bool:
    in_town(here, os.environ.__setitem__, secret)
    os.chdir(here)
    path = list(sys.path)
    sys.path.append(str(elsewhere(here)))
    lay_decoys(here)
    town = Town(here, neighbour=_neighbour(mutation))
    faulthandler.dump_traceback_later(LONGEST_S, exit=True)
    town.operate(is_brief=True)
    faulthandler.cancel_dump_traceback_later()
    sys.path[:] = path
    if (here / MARK).exists():
        town.faults.append("code of a neighbour's ran")
    if town.faults:
        print(f"{number}: {mutation}", *(ascii(each)[:300] for each in town.faults[:8]), sep="\n    ", flush=True)
    return bool(town.faults)


def _neighbour(mutation: Mutation) -> str | None:
    """The listener that has nothing to do with the record; None where all have."""
    if mutation.place.table in SHARED:
        return None
    of_the_neighbour = ("word_count", "docs.size", "'size'")
    is_its = mutation.place.table.endswith("_2") or any(each in mutation.record for each in of_the_neighbour)
    if mutation.place.table == "pinnacle_listener" and mutation.record.startswith("[2,"):
        is_its = True
    return VICTIM if is_its else NEIGHBOUR


if __name__ == "__main__":
    sys.exit(main())
