"""The fake server as a process of its own: `python -m pinnacle.testing` and `ServerProcess`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from itertools import islice
from typing import Any

import psutil
import pytest

from pinnacle.base.errors import ConfigError
from pinnacle.testing import FakeOpenAI, Faults, ServerProcess
from pinnacle.testing.process import fault_arguments, parse_faults
from tests.unit.test_fake_server import ASKED, post

COMMAND = [sys.executable, "-m", "pinnacle.testing"]


def ask(server: ServerProcess | FakeOpenAI, *, key: str = "any") -> int:
    headers = {"Authorization": f"Bearer {key}"}
    return post(f"{server.url}/chat/completions", json={"messages": ASKED}, headers=headers)[0]


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([*COMMAND, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_server_process_serves_counts_and_ends_with_its_context():
    with ServerProcess("fixed", latency_s=0.01) as server:
        status, answer = post(f"{server.url}/chat/completions", json={"messages": ASKED})
        stats = server.stats()
        process = psutil.Process(server.pid)
    assert (status, answer["choices"][0]["message"]["content"]) == (200, "fixed")
    assert (stats["served"], stats["refused"], stats["max_in_flight"]) == (1, 0, 1)
    assert server.url == f"{server.root}/v1"
    assert not process.is_running()


def test_a_server_process_takes_the_options_of_the_server():
    faults = Faults([None, "500"], retry_after_s=0.5)
    with ServerProcess(rate_limit=(3, 60.0), headers=False, api_key="sk-right", faults=faults) as server:
        statuses = [ask(server, key=key) for key in ("sk-wrong", *["sk-right"] * 4)]
        assert statuses == [401, 200, 500, 200, 429]
        assert server.stats()["faults"] == {"500": 1}
        assert len(server.stats()["refused_times"]) == 1


@pytest.mark.parametrize(
    "faults",
    [
        Faults({"429": 0.1, "500": 0.02}, seed=3, retry_after_s=0.25, slow_s=2.0),
        Faults(["429", None, "slow"], seed=1),
        Faults([]),
    ],
)
def test_faults_survive_the_way_through_the_command_line(faults):
    given = dict(argument.removeprefix("--").split("=", 1) for argument in fault_arguments(faults))
    wait_s = given.get("retry-after")
    read = Faults(
        parse_faults(given["faults"]), seed=int(given["seed"]), slow_s=float(given["slow"]),
        retry_after_s=None if wait_s is None else float(wait_s),
    )  # fmt: skip
    assert read == faults


def test_the_command_prints_its_url_first_and_serves_until_its_input_closes():
    options = "--port 0 --latency 0.01 --rate 20/1 --headers --faults 429=0.5,500=0.02 --seed 1"
    with start(*options.split()) as process:
        url = read_line(process)
        statuses = [post(f"{url}/chat/completions", json={"messages": ASKED})[0] for _ in range(10)]
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(10) == 0
    plan: Any = {"429": 0.5, "500": 0.02}
    assert statuses == [int(kind or 200) for kind in islice(Faults(plan, seed=1).kinds(), 10)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_command(number):
    with start() as process:
        assert read_line(process).startswith("http://127.0.0.1:")
        process.send_signal(number)
        assert process.wait(10) == 0


def test_a_server_process_ends_when_its_parent_is_killed(tmp_path):
    code = (
        "import sys; from pinnacle.testing import ServerProcess\n"
        "server = ServerProcess().start(); sys.stdout.write(f'{server.pid}\\n'); sys.stdout.flush(); sys.stdin.read()"
    )
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as parent:
        server = psutil.Process(int(read_line(parent)))
        os.kill(parent.pid, signal.SIGKILL)
        psutil.wait_procs([server], timeout=600)
    assert not server.is_running() or server.status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rate", "often"], "N/SECONDS"),
        (["--rate", "0/1"], "rate_limit is"),
        (["--faults", "429=often"], "429=0.1"),
        (["--faults", "hagn"], "did you mean 'hang'"),
    ],
)
def test_options_that_make_no_sense_are_refused_in_one_line(arguments, message):
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=600)
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_server_process_that_cannot_start_says_so():
    with FakeOpenAI() as taken, pytest.raises(ConfigError, match="before it served"):
        ServerProcess(port=int(taken.root.rpartition(":")[2])).start()
