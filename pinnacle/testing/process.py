"""The fake server as a process of its own, so that a benchmark's client does not share its CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import ProxyHandler, build_opener

from pinnacle.base.distribution import with_extra
from pinnacle.base.errors import ConfigError, MissingPlugin
from pinnacle.testing.faults import Faults

if TYPE_CHECKING:
    from typing import Self

STOP_TIMEOUT_S = 10.0
NOTHING = "none"


class ServerProcess:
    """`python -m pinnacle.testing` for as long as the context lasts; the options are those of `FakeOpenAI`.

    Requests are not recorded. The server ends with this process, however that ends. Raises MissingPlugin
    without aiohttp, and ConfigError where the server does not start (its standard error says why).
    """

    def __init__(
        self,
        answer: str | None = None,
        *,
        latency_s: float = 0.0,
        faults: Faults | Sequence[str | None] | Mapping[str, float] = (),
        rate_limit: tuple[int, float] | None = None,
        headers: bool = True,
        api_key: str | None = None,
        batch_polls: int = 1,
        port: int = 0,
    ) -> None:
        if find_spec("aiohttp") is None:
            raise MissingPlugin("aiohttp", with_extra("testing"), purpose="the fake server")
        self._arguments = [
            f"--port={port}", f"--latency={latency_s!r}", f"--batch-polls={batch_polls}",
            "--headers" if headers else "--no-headers", *fault_arguments(faults),
        ]  # fmt: skip
        if answer is not None:
            self._arguments.append(f"--answer={answer}")
        if rate_limit is not None:
            self._arguments.append("--rate={}/{}".format(*rate_limit))
        if api_key is not None:
            self._arguments.append(f"--api-key={api_key}")
        self._opener = build_opener(ProxyHandler({}))
        self.url = ""

    @property
    def root(self) -> str:
        return self.url.removesuffix("/v1")

    def start(self) -> Self:
        """Start the process; returns once it serves."""
        path = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pinnacle.testing", *self._arguments],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()
        if not self.url:
            self.close()
            raise ConfigError(f"the fake server ended with {self._process.returncode} before it served")
        return self

    def stats(self) -> dict[str, Any]:
        """The counts of the server; see `Record.stats`."""
        with self._opener.open(f"{self.root}/stats", timeout=STOP_TIMEOUT_S) as answer:
            stats: dict[str, Any] = json.load(answer)
        return stats

    @property
    def pid(self) -> int:
        return self._process.pid

    def close(self) -> None:
        """Ask the server to end by closing its standard input, and wait for it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._process.__exit__(None, None, None)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()


def fault_arguments(faults: Faults | Sequence[str | None] | Mapping[str, float]) -> Iterator[str]:
    """The command line of faults; `parse_faults` reads it."""
    faults = faults if isinstance(faults, Faults) else Faults(faults)
    if isinstance(faults.plan, Mapping):
        plan = ",".join(f"{kind}={chance!r}" for kind, chance in faults.plan.items())
    else:
        plan = ",".join(kind or NOTHING for kind in faults.plan)
    yield from (f"--faults={plan}", f"--seed={faults.seed}", f"--slow={faults.slow_s!r}")
    if faults.retry_after_s is not None:
        yield f"--retry-after={faults.retry_after_s!r}"


def parse_faults(plan: str) -> dict[str, float] | list[str | None]:
    """Read ``429=0.1,500=0.02`` as chances, ``429,none,500`` as kinds in turn; ValueError for anything else."""
    items = [item.strip() for item in plan.split(",") if item.strip()]
    if not any("=" in item for item in items):
        return [None if item == NOTHING else item for item in items]
    pairs = (item.partition("=") for item in items)
    return {kind: float(chance) for kind, _, chance in pairs}
