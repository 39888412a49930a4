"""The background event loop behind synchronous calls of async models."""

from __future__ import annotations

import asyncio
import contextvars
import multiprocessing
import os
import signal
import threading

import pytest

from pinnacle.base import loop
from tests.forked import in_child

variable = contextvars.ContextVar("variable", default="unset")


async def answer() -> int:
    await asyncio.sleep(0)
    return 42


async def where() -> tuple[str, asyncio.AbstractEventLoop]:
    return threading.current_thread().name, asyncio.get_running_loop()


def test_every_call_runs_on_the_same_loop_in_another_thread():
    (name, first), (_, second) = loop.run(where()), loop.run(where())
    assert first is second
    assert name != threading.current_thread().name


def test_an_error_reaches_the_caller():
    async def fails() -> None:
        raise ValueError("seen")

    with pytest.raises(ValueError, match="seen"):
        loop.run(fails())


def test_a_coroutine_may_call_run_again():
    async def outer() -> int:
        return loop.run(answer())

    assert loop.run(outer()) == 42


def test_a_system_exit_reaches_its_caller_and_leaves_the_loop_running():
    async def leaves() -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        loop.run(leaves())
    assert loop.run(answer()) == 42


def test_context_variables_are_the_callers():
    async def read() -> str:
        return variable.get()

    token = variable.set("mine")
    assert loop.run(read()) == "mine"
    variable.reset(token)


def test_an_interrupt_cancels_the_coroutine_and_waits_for_its_cleanup():
    cleaned = []

    async def long() -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append(True)

    with pytest.raises(KeyboardInterrupt):
        loop.run(long())
    assert cleaned == [True]


def test_threads_share_the_loop():
    results: list[int] = []
    threads = [threading.Thread(target=lambda: results.append(loop.run(answer()))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=600)
    assert results == [42] * 4


def _in_child(queue: multiprocessing.Queue[int]) -> None:
    queue.put(loop.run(answer()))


def test_a_forked_child_has_a_loop_of_its_own():
    loop.run(answer())
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    child = context.Process(target=_in_child, args=(queue,))
    child.start()
    child.join(timeout=600)
    assert child.exitcode == 0
    assert queue.get() == 42


class OwnLoop(asyncio.SelectorEventLoop):
    """A loop as uvloop's policy brings one."""


class OwnPolicy(asyncio.DefaultEventLoopPolicy):
    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        return OwnLoop()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_the_loop_is_that_of_the_programs_policy():
    async def look() -> str:
        return type(asyncio.get_running_loop()).__name__

    def child() -> list[str]:
        asyncio.set_event_loop_policy(OwnPolicy())

        async def nested() -> str:
            return loop.run(look())

        return [loop.run(look()), loop.run(nested()), asyncio.run(nested())]

    loop.run(look())
    assert in_child(child) == ["OwnLoop"] * 3
