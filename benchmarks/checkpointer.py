"""One checkpoint into or out of a database: ``python -m benchmarks.checkpointer put|get URL PATH``.

``put`` stores the file at PATH; ``get`` unpacks it below the folder PATH. Prints as JSON the seconds it took and by how
many MB the resident memory grew at most, from what a process holds that has stored and unpacked a small one.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import ClassVar

from pinnacle import Component, Database, pinnacle
from pinnacle.plugin import Artifact, unpack

NAME = "weights.safetensors"


@dataclasses.dataclass
class Checkpoint(Component):
    """The files of one checkpoint."""

    kind: ClassVar[str] = "run"
    files: dict[str, Artifact] = dataclasses.field(default_factory=dict)


def put(db: Database, path: Path, identifier: str = "checkpoint") -> None:
    """Store a file with a component."""
    db.add(checkpoint(identifier, Artifact(path)))


def get(db: Database, path: Path, identifier: str = "checkpoint") -> None:
    """Load the component and write its file, whose hash is checked on the way."""
    unpack(db.load("run", identifier).files, path)


def checkpoint(identifier: str, artifact: Artifact) -> Component:
    """Of the class that other processes find: run as a script, this module is another one."""
    from benchmarks import checkpointer

    return checkpointer.Checkpoint(identifier, files={NAME: artifact})


class Peak:
    """The most that this process held since it was begun, as Linux counts it."""

    def __init__(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")
        self._before_kb = _status("VmRSS")

    def grown_mb(self) -> float:
        return (_status("VmHWM") - self._before_kb) / 1024


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def main(verb: str, url: str, path: Path) -> None:
    moved = {"put": put, "get": get}[verb]
    with pinnacle(url) as db:
        db.add(checkpoint("small", Artifact(b"small")))
        get(db, path.with_name("small"), "small")
        peak, began = Peak(), time.perf_counter()
        moved(db, path)
        seconds = time.perf_counter() - began
    print(json.dumps([seconds, peak.grown_mb()]))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
