"""How a prediction goes: batches, threads, coroutines, limits, dry runs, interruptions."""

from __future__ import annotations

import asyncio
import threading

import pytest

from pinnacle import model
from pinnacle.runtime.outputs import OutputWriter
from tests.contract.documents import blank, create_docs, outputs, snapshot, wait_until
from tests.models import Sized, note, shout, whisper

pytestmark = pytest.mark.same_standalone


def run(backend, db, the_model=shout, **options):
    return the_model.predict(X="body", db=db, select=backend.query("docs"), **options)


def test_an_async_model_writes_every_row(backend, db, calls):
    create_docs(backend, *(f"TEXT {n}" for n in range(60)))
    assert run(backend, db, whisper).written == 60
    assert sorted(calls) == sorted(f"TEXT {n}" for n in range(60))
    assert outputs(backend, db, "body", "whisper") == {n + 1: f"text {n}" for n in range(60)}


def in_flight_counter():
    """Counts calls under way; ``most`` is the highest count."""
    state = {"now": 0, "most": 0}
    lock = threading.Lock()

    def move(step):
        with lock:
            state["now"] += step
            state["most"] = max(state["most"], state["now"])

    return state, move


def test_coroutines_in_flight_reach_the_models_concurrency_and_never_pass_it(backend, db):
    create_docs(backend, *map(str, range(40)))
    state, move = in_flight_counter()

    async def slow(body):
        move(+1)
        for _ in range(200):
            if state["most"] >= 5:
                break
            await asyncio.sleep(0.001)
        await asyncio.sleep(0)
        move(-1)
        return int(body)

    run(backend, db, model(slow, identifier="m", output_type=int, concurrency=5))
    assert state == {"now": 0, "most": 5}
    assert outputs(backend, db, "body", "m") == {n + 1: n for n in range(40)}


@pytest.mark.parametrize("batch", [False, True])
def test_threads_in_flight_reach_the_models_concurrency_and_never_pass_it(backend, db, batch):
    create_docs(backend, *map(str, range(40)))
    state, move = in_flight_counter()

    def slow(value):
        move(+1)
        wait_until(lambda: state["most"] >= 4)
        move(-1)
        return [int(body) for body in value] if batch else int(value)

    run(backend, db, model(slow, identifier="m", output_type=int, concurrency=4, batch=batch, batch_size=2))
    assert state == {"now": 0, "most": 4}
    assert outputs(backend, db, "body", "m") == {n + 1: n for n in range(40)}


def test_batches_hold_texts_of_like_length_and_outputs_land_on_their_rows(backend, db, calls):
    bodies = ["x" * (n * 37 % 50 + 1) + str(n) for n in range(50)]
    create_docs(backend, *bodies)
    run(backend, db, Sized("sized", output_type=str, batch_size=10))
    assert outputs(backend, db, "body", "sized") == {n + 1: f"{body}:{len(body)}" for n, body in enumerate(bodies)}
    lengths = sorted(map(len, bodies))
    assert sorted(calls) == [tuple(lengths[start : start + 10]) for start in range(0, 50, 10)]


def test_a_batch_is_never_larger_than_asked(backend, db, calls):
    create_docs(backend, *(f"text {n}" for n in range(25)))
    sizes = model(lambda bodies: note(len(bodies)) and bodies, identifier="m", output_type=str, batch=True)
    run(backend, db, sizes, batch_size=10)
    assert calls == [10, 10, 5]


def test_identical_inputs_are_computed_once(backend, db, calls):
    create_docs(backend, *(f"text {n % 3}" for n in range(30)))
    result = run(backend, db)
    assert (result.written, result.calls, result.deduplicated, len(calls)) == (30, 3, 27, 3)
    assert outputs(backend, db, "body", "shout") == {n + 1: f"TEXT {n % 3}" for n in range(30)}


def test_identical_inputs_on_far_pages_are_computed_once(backend, db, calls):
    create_docs(backend, *(f"text {n % 150}" for n in range(450)))
    result = run(backend, db)
    assert (result.written, len(calls)) == (450, 150)
    assert outputs(backend, db, "body", "shout") == {n + 1: f"TEXT {n % 150}" for n in range(450)}


def test_a_limit_takes_the_first_rows_in_key_order(backend, db, calls):
    create_docs(backend, *(f"text {n}" for n in range(10)))
    result = run(backend, db, limit=3)
    assert (result.read, result.written, calls) == (3, 3, ["text 0", "text 1", "text 2"])
    assert run(backend, db, limit=5).written == 2
    assert run(backend, db, limit=100).written == 5
    assert outputs(backend, db, "body", "shout") == {n + 1: f"TEXT {n}" for n in range(10)}


@pytest.mark.unmigrated
def test_a_dry_run_counts_and_changes_nothing_at_all(backend, db, calls):
    create_docs(backend, "a", "b", "a", None)
    before = snapshot(backend)
    result = run(backend, db, dry_run=True)
    assert (result.read, result.computed, result.deduplicated, result.empty, result.written) == (4, 2, 1, 1, 0)
    assert (calls, snapshot(backend)) == ([], before)
    assert "dry run" in str(result)


@pytest.mark.unmigrated
def test_a_dry_run_tells_what_is_fresh(backend, db, calls):
    create_docs(backend, *"abcd")
    run(backend, db)
    backend.update("docs", 2, {"body": "z"})
    before = snapshot(backend)
    calls.clear()
    result = run(backend, db, dry_run=True)
    assert (result.fresh, result.computed, calls) == (3, 1, [])
    assert snapshot(backend) == before


def test_apredict_works_inside_a_running_loop(backend, db):
    create_docs(backend, *"AB")

    async def caller():
        ticks = 0

        async def tick():
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0)

        ticking = asyncio.ensure_future(tick())
        result = await whisper.apredict(X="body", db=db, select=backend.query("docs"))
        ticking.cancel()
        return result, ticks

    result, ticks = asyncio.run(caller())
    assert result.written == 2
    assert ticks > 1
    assert outputs(backend, db, "body", "whisper") == {1: "a", 2: "b"}


def test_a_synchronous_predict_of_an_async_model_works_inside_a_running_loop(backend, db):
    create_docs(backend, *"AB")

    async def notebook_cell():
        return run(backend, db, whisper)

    assert asyncio.run(notebook_cell()).written == 2
    assert outputs(backend, db, "body", "whisper") == {1: "a", 2: "b"}


@pytest.mark.parametrize("style", ["value", "batch", "threads", "async"])
def test_an_interrupt_keeps_what_is_done_and_frees_the_rest(backend, db, calls, style):
    bodies = [f"text {n}" for n in range(60)]
    create_docs(backend, *bodies)
    interrupted = []

    def interrupt(body):
        if body == "text 30" and not interrupted:
            interrupted.append(body)
            raise KeyboardInterrupt
        return note(body).upper()

    async def interrupt_async(body):
        return interrupt(body)

    function = {"batch": lambda batch: list(map(interrupt, batch)), "async": interrupt_async}.get(style, interrupt)
    options = {"threads": {"concurrency": 3}, "async": {"concurrency": 2}, "batch": {"batch": True, "batch_size": 10}}
    stopping = model(function, identifier="m", output_type=str, **options.get(style, {}))
    with pytest.raises(KeyboardInterrupt):
        run(backend, db, stopping)
    done = sum(
        value == body.upper() for value, body in zip(outputs(backend, db, "body", "m").values(), bodies, strict=True)
    )
    assert done >= 20
    calls.clear()
    result = run(backend, db, stopping)
    assert (result.fresh, result.written, len(calls)) == (done, 60 - done, 60 - done)
    assert outputs(backend, db, "body", "m") == {n + 1: body.upper() for n, body in enumerate(bodies)}


@pytest.mark.anywhere
@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_an_interrupt_while_outputs_are_handed_to_the_writer_loses_none(backend, db, calls, monkeypatch, before):
    create_docs(backend, *(f"TEXT {n}" for n in range(60)))
    settle, interrupts = OutputWriter.settle, [KeyboardInterrupt()]

    def interrupted(self, held, outcomes):
        if not before:
            settle(self, held, outcomes)
        if interrupts:
            raise interrupts.pop()
        if before:
            settle(self, held, outcomes)

    monkeypatch.setattr(OutputWriter, "settle", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(backend, db, whisper)
    written = [key for key, output in outputs(backend, db, "body", "whisper").items() if output != blank(backend)]
    assert len(written) == len(calls) > 0
    assert db.errors() == []


def test_what_is_computed_is_committed_while_the_run_goes_on(backend, db):
    create_docs(backend, *(f"text {n}" for n in range(30)))
    with backend.open() as reader:

        def watching(body):
            if body == "text 25":
                wait_until(lambda: "TEXT 0" in outputs(backend, reader, "body", "m").values())
            return body.upper()

        assert run(backend, db, model(watching, identifier="m", output_type=str), batch_size=5).written == 30


@pytest.mark.anywhere
@pytest.mark.parametrize("style", ["threads", "async"])
def test_a_slow_row_holds_one_place_and_no_page_of_others(backend, db, calls, style):
    """It is answered once all others are written, with a row far away that has the same input."""
    create_docs(backend, "slow", *(f"text {n}" for n in range(98)), "slow")
    with backend.open() as reader:

        def answer(body):
            if note(body) == "slow":
                wait_until(
                    lambda: sum(str(v).startswith("TEXT") for v in outputs(backend, reader, "body", "m").values()) == 98
                )
            return body.upper()

        async def answer_async(body):
            return await asyncio.to_thread(answer, body) if body == "slow" else answer(body)

        function = answer_async if style == "async" else answer
        result = run(backend, db, model(function, identifier="m", output_type=str, concurrency=2), batch_size=5)
    assert (result.written, result.deduplicated, calls.count("slow")) == (100, 1, 1)


def test_a_result_prints_its_counts(backend, db):
    create_docs(backend, "a", None, "a")
    text = str(run(backend, db))
    assert "3 rows read" in text
    assert "3 written" in text
    assert "1 with NULL input" in text
    assert "1 shared another row's output" in text


def test_progress_is_shown_on_request(backend, db, capsys):
    create_docs(backend, *"abc")
    run(backend, db, progress=True)
    assert "body" in capsys.readouterr().err
    run(backend, db, progress=False)
    assert capsys.readouterr().err == ""


def test_a_write_by_another_is_not_held_up_by_a_model_call(backend, db):
    create_docs(backend, *"abc")
    took = []

    def writing(body):
        began = threading.Event()
        other = threading.Thread(target=lambda: (backend.update("docs", 3, {"n": 100}), began.set()))
        other.start()
        took.append(began.wait(5))
        other.join()
        return body.upper()

    run(backend, db, model(writing, identifier="m", output_type=str))
    assert took == [True] * 3
    assert outputs(backend, db, "body", "m") == {1: "A", 2: "B", 3: "C"}
