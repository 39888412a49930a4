"""Runs beside each other agree: no input is computed twice, none is left out, and the dead hold nothing."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from pinnacle import model
from pinnacle.backends.protocol import Capability
from tests.contract.documents import create_docs, outputs, wait_until
from tests.contract.processes import logged_calls, start_predict
from tests.models import logged, note, shout


def run(backend, db, the_model=shout, **options):
    return the_model.predict(X="body", db=db, select=backend.query("docs"), **options)


@pytest.mark.parametrize("handles", ["one handle", "two handles"])
def test_two_predicts_in_two_threads_compute_each_row_once(backend, db, calls, handles):
    bodies = [f"text {n}" for n in range(300)]
    create_docs(backend, *bodies)
    other = db if handles == "one handle" else backend.open()
    with ThreadPoolExecutor() as pool:
        results = [future.result() for future in [pool.submit(run, backend, handle) for handle in (db, other)]]
    if other is not db:
        other.close()
    assert Counter(calls) == Counter(bodies)
    assert sum(result.written for result in results) == 300
    assert outputs(backend, db, "body", "shout") == {n + 1: body.upper() for n, body in enumerate(bodies)}


@pytest.mark.unmigrated
def test_many_predicts_that_begin_at_once_agree_on_one_output(backend, calls):
    create_docs(backend, *(f"text {n}" for n in range(20)))
    begin = threading.Barrier(4)

    def predict():
        with backend.open() as db:
            begin.wait(10)
            return run(backend, db)

    with ThreadPoolExecutor(4) as pool:
        results = [future.result() for future in [pool.submit(predict) for _ in range(4)]]
    assert Counter(calls) == Counter(f"text {n}" for n in range(20))
    assert [result.read for result in results] == [20] * 4
    with backend.open() as db:
        assert len(db.outputs()) == 1
        assert len(db.show("model", "shout")["versions"]) == 1
        assert outputs(backend, db, "body", "shout") == {n + 1: f"TEXT {n}" for n in range(20)}


def test_rows_that_a_live_run_holds_are_waited_for(backend, db):
    create_docs(backend, *"abc")
    at_work, may_finish = threading.Event(), threading.Event()

    def slow(body):
        note(body)
        at_work.set()
        assert may_finish.wait(20)
        return body.upper()

    first = model(slow, identifier="m", output_type=str)
    with ThreadPoolExecutor() as pool, backend.open() as other:
        running = pool.submit(run, backend, db, first)
        assert at_work.wait(20)
        beside = pool.submit(run, backend, other, first)
        wait_until(lambda: beside.running())
        with pytest.raises(TimeoutError):
            beside.result(0.3)
        may_finish.set()
        assert (running.result().written, beside.result().fresh) == (3, 3)
    assert outputs(backend, db, "body", "m") == {1: "A", 2: "B", 3: "C"}


def test_a_run_whose_rows_another_gives_up_takes_them_over(backend, db, calls):
    create_docs(backend, *"abc")
    at_work, may_fail = threading.Event(), threading.Event()

    def interrupted_once(body):
        if not at_work.is_set():
            at_work.set()
            assert may_fail.wait(20)
            raise KeyboardInterrupt
        return note(body).upper()

    fragile = model(interrupted_once, identifier="m", output_type=str)
    with ThreadPoolExecutor() as pool, backend.open() as other:
        first = pool.submit(run, backend, db, fragile)
        assert at_work.wait(20)
        second = pool.submit(run, backend, other, fragile)
        may_fail.set()
        with pytest.raises(KeyboardInterrupt):
            first.result()
        assert second.result().written == 3
    assert sorted(calls) == ["a", "b", "c"]
    assert outputs(backend, db, "body", "m") == {1: "A", 2: "B", 3: "C"}


def test_rows_inserted_while_a_run_is_at_work_are_not_lost(backend, db):
    create_docs(backend, *(f"text {n}" for n in range(150)))
    added = []

    def inserting(body):
        if body == "text 10":
            added.extend(backend.insert("docs", {"id": 1000, "body": "late", "n": 0}))
        return body.upper()

    late = model(inserting, identifier="m", output_type=str)
    run(backend, db, late)
    run(backend, db, late)
    assert outputs(backend, db, "body", "m")[1000] == "LATE"


@pytest.mark.requires(Capability.MANY_PROCESSES)
def test_two_predicts_in_two_processes_compute_each_row_once(backend, db, tmp_path):
    check_two_processes(backend, db, tmp_path / "calls")


def check_two_processes(backend, db, log):
    bodies = [f"text {n}" for n in range(500)]
    create_docs(backend, *bodies)
    processes = [start_predict(backend.address, log) for _ in range(2)]
    written = [int(process.communicate(timeout=600)[0]) for process in processes]
    assert sum(written) == 500
    assert Counter(logged_calls(log)) == Counter(bodies)
    assert outputs(backend, db, "body", "logged") == {n + 1: body.upper() for n, body in enumerate(bodies)}


@pytest.mark.requires(Capability.MANY_PROCESSES)
def test_a_killed_run_keeps_what_it_wrote_and_holds_nothing(backend, db, tmp_path, monkeypatch):
    check_killed_run(backend, db, tmp_path / "calls", monkeypatch)


def check_killed_run(backend, db, log, monkeypatch):
    bodies = [f"text {n}" for n in range(300)]
    create_docs(backend, *bodies)
    killed = start_predict(backend.address, log, kill_at="text 150")
    killed.communicate(timeout=600)
    assert killed.returncode == -signal.SIGKILL
    monkeypatch.setenv("PINNACLE_TEST_LOG", str(log))
    result = run(backend, db, logged)
    assert result.fresh + result.written == 300
    assert result.fresh >= 100
    assert len(logged_calls(log)) <= 300 + 30
    assert outputs(backend, db, "body", "logged") == {n + 1: body.upper() for n, body in enumerate(bodies)}
