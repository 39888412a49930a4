"""Which worker runs which tests: a file's tests on one database stay together, those that take longest come first.

Each worker collects all tests before it runs some. Those of libraries that are slow to import, one in four has alone.

How long they take is measured and kept in ``durations.json``; ``make durations`` measures again.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.databases import CAPABILITIES

if TYPE_CHECKING:
    from xdist.remote import Producer

DURATIONS = Path(__file__).with_name("durations.json")
GUESSED_S = {"tests/acceptance": 4.0, "plugins/transformers": 1.0, "": 0.1}
"""What a test takes that was never measured, by where it is."""
SLOW_TO_IMPORT = ("plugins/transformers/", "plugins/sentence_transformers/")
"""Ten CPU seconds, and half a gigabyte of memory."""
WORKERS_A_SLOW_ONE = 4
DATABASE = re.compile(rf"[\[-]({'|'.join(CAPABILITIES)})[\]-]")


def group_of(node_id: str) -> str:
    """The tests that one worker runs in a row: what a file sets up once, they may share."""
    path, _, test = node_id.partition("::")
    database = DATABASE.search(test)
    return f"{path}@{database[1]}" if database and path.startswith("tests/contract/") else path


@cache
def measured() -> dict[str, float]:
    """Seconds by group."""
    found: dict[str, float] = json.loads(DURATIONS.read_text())
    return found


def seconds_of(group: str, tests: int) -> float:
    """How long a group takes, by measure or guess."""
    guessed = next(seconds for place, seconds in GUESSED_S.items() if group.startswith(place))
    return measured().get(group, guessed * tests)


def is_slow_to_import(node_id: str) -> bool:
    return node_id.startswith(SLOW_TO_IMPORT)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave these to another worker, unless they were asked for by their path."""
    worker = getattr(config, "workerinput", {"workerid": "gw0"})["workerid"]
    if int(worker.removeprefix("gw")) % WORKERS_A_SLOW_ONE == 0 or any(map(is_slow_to_import, config.args)):
        return None
    return is_slow_to_import(f"{collection_path.relative_to(config.rootpath).as_posix()}/") or None


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--measure-durations", action="store_true", help=f"write {DURATIONS.name} anew")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--measure-durations") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Measuring())


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Any:
    from xdist.scheduler import LoadScopeScheduling

    class LongestFirst(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid)

        def _check_nodes_have_same_collection(self) -> bool:
            """The whole of it comes first, which is that of the run."""
            found = sorted(self.registered_collections.items(), key=lambda entry: -len(entry[1]))
            self.registered_collections = dict(found)
            quick = self._quick(found[0][1])
            return all(each in (found[0][1], quick) for _, each in found) or super()._check_nodes_have_same_collection()

        def _quick(self, collection: list[str]) -> list[str]:
            return [test for test in collection if not is_slow_to_import(test)]

        def add_node_collection(self, node: Any, collection: Any) -> None:
            if self.collection is not None and collection == self._quick(self.collection):
                self.registered_collections[node] = collection  # in the place of a worker that died
            else:
                super().add_node_collection(node, collection)

        def _assign_work_unit(self, node: Any) -> None:
            waiting, collected = self.workqueue, set(self.registered_collections[node])
            able = [name for name, tests in waiting.items() if collected.issuperset(tests)]
            if not able:
                node.shutdown()
                return
            first = max(able, key=lambda name: (is_slow_to_import(name), seconds_of(name, len(waiting[name]))))
            waiting.move_to_end(first, last=False)
            super()._assign_work_unit(node)

    return LongestFirst(config, log)


class Measuring:
    """Adds up how long each group of tests takes; of groups that did not run the last measure stays."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[group_of(report.nodeid)] += report.duration  # type: ignore[assignment]

    def pytest_sessionfinish(self) -> None:
        known = {name: seconds for name, seconds in measured().items() if Path(name.partition("@")[0]).exists()}
        rounded = {name: round(seconds, 1) for name, seconds in self.seconds.items()}
        DURATIONS.write_text(json.dumps(known | rounded, indent=0, sort_keys=True) + "\n")
