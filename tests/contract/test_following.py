"""Listeners that follow their model: each new version that is stored, by any process, takes over by itself."""

from __future__ import annotations

import threading
import time
from collections import Counter

import pytest

from pinnacle import ComponentError, ConfigError, Conflict, Database, Listener, Model, NotDrained, Side, model
from pinnacle.backends.protocol import Capability
from pinnacle.runtime import worker
from tests.contract.documents import create_docs, wait_until
from tests.contract.following import follow, version, versions
from tests.contract.listening import add, values
from tests.models import ABSENT_PARTS, Counted, Suffixed, key_of, note, words

pytestmark = pytest.mark.same_standalone


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Workers look often, so that the tests are short."""
    monkeypatch.setattr(worker, "REGISTRY_S", 0.05)
    monkeypatch.setattr(worker, "FOLLOW_S", 0.1)
    monkeypatch.setattr(worker, "RELOAD_S", 0.3)


# -- moving on -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["add", "replace"])
def test_a_newer_version_that_another_process_stores_is_followed(backend, db, elsewhere, calls, verb):
    listener = follow(backend, db, *"ab")
    getattr(elsewhere, verb)(version("2"))
    db.drain()
    assert values(backend) == {1: "a2", 2: "b2"}
    assert Counter(calls) == {"a": 1, "b": 1}
    assert db.fresh(listener).fresh == 2
    backend.update("docs", 1, {"body": "c"})
    db.drain()
    assert values(backend) == {1: "c2", 2: "b2"}


def test_a_listener_without_a_choice_is_pinned(backend, db, elsewhere, calls):
    create_docs(backend, "a")
    pinned = add(backend, db, version("1"))
    assert pinned.follow == "pinned"
    add(backend, db, version("1"), output="other", follow="latest")
    db.listen()
    db.drain()
    elsewhere.add(version("2"))
    db.drain()
    assert values(backend, "other") == {1: "a2"}
    assert (values(backend), db.fresh(pinned).fresh) == ({1: "a1"}, 1)


def test_a_listener_that_a_predict_leaves_behind_is_pinned(backend, db, elsewhere):
    create_docs(backend, "a")
    version("1").predict(X="body", db=db, select=backend.query("docs"), output="loud", listen=True)
    elsewhere.add(version("2"))
    db.listen()
    db.drain()
    (status,) = db.listeners()
    assert (status.follow, status.model_version, values(backend)) == ("pinned", 0, {1: "a1"})


def test_rows_are_stale_from_the_moment_that_a_newer_version_is_stored(backend, db, elsewhere):
    listener = follow(backend, db, *"ab")
    db.stop()
    elsewhere.add(version("2"))
    backend.insert("docs", {"id": 3, "body": "c", "n": 0})
    found = db.fresh(listener)
    assert (found.fresh, found.stale, found.missing) == (0, 2, 1)
    assert db.listeners()[0].is_sweeping
    with pytest.raises(NotDrained, match=r"docs\.loud"):
        db.drain(timeout_s=0.05)
    db.listen()
    db.drain()
    assert (values(backend), db.fresh(listener).fresh) == ({1: "a2", 2: "b2", 3: "c2"}, 3)


def test_old_values_stay_until_the_newer_version_has_written_its_own(backend, db, elsewhere):
    follow(backend, db, *"ab")
    began, go_on = threading.Event(), threading.Event()

    def longer(body):
        began.set()
        go_on.wait()
        return body * 2

    elsewhere.replace(model(longer, identifier="m", output_type=str))
    began.wait(20)
    try:
        assert values(backend) == {1: "a1", 2: "b1"}
    finally:
        go_on.set()
    db.drain()
    assert values(backend) == {1: "aa", 2: "bb"}


def test_of_many_versions_the_newest_wins(backend, db, elsewhere):
    listener = follow(backend, db, *"ab")
    for number in range(2, 9):
        elsewhere.add(version(str(number)))
    db.drain()
    assert values(backend) == {1: "a8", 2: "b8"}
    assert db.fresh(listener).fresh == 2
    assert db.listeners()[0].model_version == 7


def test_a_version_stored_while_an_older_one_works_ends_with_the_newer(backend, db, elsewhere):
    create_docs(backend, *"ab")
    began, go_on = threading.Event(), threading.Event()

    def slow(body):
        began.set()
        go_on.wait()
        return body

    listener = add(backend, db, model(slow, identifier="m", output_type=str), follow="latest")
    db.listen()
    began.wait(20)
    elsewhere.replace(version("2"))
    wait_until(lambda: db.listeners()[0].model_version == 1)
    go_on.set()
    db.drain()
    assert (values(backend), db.fresh(listener).fresh) == ({1: "a2", 2: "b2"}, 2)


def test_a_chain_is_computed_to_its_end_when_its_head_moves(backend, db, elsewhere):
    follow(backend, db, *"ab")
    twice = model(lambda loud: note(loud) * 2, identifier="twice", output_type=str)
    add(backend, db, twice, key="loud", output="twice")
    db.drain()
    elsewhere.add(version("2"))
    wait_until(lambda: values(backend, "twice") == {1: "a2a2", 2: "b2b2"})
    db.drain()


def test_a_side_output_is_computed_again(backend, db, elsewhere):
    create_docs(backend, "a b")
    listener = add(backend, db, words, follow="latest", output=Side("parts"))
    db.listen()
    db.drain()
    assert backend.rows("parts", "position", "value") == [(0, "a"), (1, "b")]
    elsewhere.add(model(lambda body: [body, body, body], identifier="words", output_type=dict))
    wait_until(lambda: db.listeners()[0].last_error is not None)
    elsewhere.add(model(backwards, identifier="words"))
    db.drain()
    assert backend.rows("parts", "position", "value") == [(0, "b"), (1, "a")]
    assert db.fresh(listener).fresh == 1


def backwards(body: str) -> list[str]:
    return body.split()[::-1]


@pytest.mark.requires(Capability.MANY_PROCESSES)
def test_two_workers_that_notice_at_once_agree(backend, db, elsewhere, calls):
    follow(backend, db, *(f"text {n}" for n in range(50)))
    elsewhere.listen()
    for number in range(2, 6):
        elsewhere.add(version(str(number)))
        db.drain()
        assert set(values(backend).values()) == {f"text {n}{number}" for n in range(50)}
    assert versions(db, "listener", "docs.loud") == [0, 1, 2, 3, 4]
    assert max(Counter(calls).values()) == 4


def test_a_worker_that_starts_later_catches_up(backend, db, elsewhere):
    follow(backend, db, "a")
    db.stop()
    elsewhere.add(version("2"))
    elsewhere.listen()
    elsewhere.drain()
    assert values(backend) == {1: "a2"}


def test_a_predict_with_a_newer_version_moves_the_listener_and_no_row_is_paid_for_twice(backend, db, elsewhere, calls):
    listener = follow(backend, db, *"abc")
    version("2").predict(X="body", db=elsewhere, select=backend.query("docs"), output="loud")
    db.drain()
    assert (values(backend), db.fresh(listener).fresh) == ({1: "a2", 2: "b2", 3: "c2"}, 3)
    assert Counter(calls) == {"a": 1, "b": 1, "c": 1}
    wait_until(lambda: db.listeners()[0].last_error is None)
    assert (db.listeners()[0].model_version, db.listeners()[0].paused) == (1, None)


@pytest.mark.parametrize("is_moved_here", [True, False])
def test_a_newer_version_keeps_the_key_that_was_given_to_the_one_before(backend, db, elsewhere, is_moved_here):
    create_docs(backend, "a")
    key = "sk-given-here"
    add(backend, db, Model.from_function("chat", fn=key_of, api_key=key, args={"n": 1}), follow="latest")
    elsewhere.add(Model.from_function("chat", fn=key_of, args={"n": 2}))
    worker = db if is_moved_here else elsewhere
    worker.listen()
    worker.drain()
    assert values(backend) == {1: f"a with {key if is_moved_here else None}"}
    worker.stop()
    backend.update("docs", 1, {"body": "b"})
    db.listen()
    db.drain()
    assert (db.listeners()[0].model_version, values(backend)) == (1, {1: f"b with {key}"})


# -- versions that do not do -----------------------------------------------------------------------------


def add_unloadable(db: Database, error: type[Exception] = ComponentError) -> None:
    """Store a newer version that no worker of this process can load, until ABSENT_PARTS is cleared."""
    newer = version("2", needs="a part")
    ABSENT_PARTS["a part"] = error
    db.add(newer)


@pytest.mark.parametrize("error", [ComponentError, ValueError])
def test_a_version_that_cannot_be_loaded_here_is_shown_and_the_next_good_one_mends_it(backend, db, elsewhere, error):
    listener = follow(backend, db, "a")
    add_unloadable(elsewhere, error)
    wait_until(lambda: "version 1: " in (db.listeners()[0].last_error or ""))
    assert "a part is not here" in str(db.listeners()[0].last_error)
    backend.insert("docs", {"id": 2, "body": "b", "n": 0})
    wait_until(lambda: values(backend) == {1: "a1", 2: "b1"})
    assert (db.fresh(listener).fresh, db.fresh(listener).stale) == (0, 2)
    with pytest.raises(NotDrained, match="a part is not here"):
        db.drain(timeout_s=0.5)
    elsewhere.add(version("3"))
    db.drain()
    assert (values(backend), db.listeners()[0].last_error) == ({1: "a3", 2: "b3"}, None)
    assert db.fresh(listener).fresh == 2


def test_a_version_that_could_not_be_loaded_is_followed_once_it_can_be(backend, db, elsewhere):
    follow(backend, db, "a")
    add_unloadable(elsewhere)
    wait_until(lambda: db.listeners()[0].last_error is not None)
    ABSENT_PARTS.clear()
    db.drain()
    assert (values(backend), db.listeners()[0].last_error) == ({1: "a2"}, None)


def test_a_version_with_another_output_type_is_shown_and_the_next_good_one_mends_it(backend, db, elsewhere, calls):
    follow(backend, db, "a")
    elsewhere.replace(Counted("m"))
    wait_until(lambda: "version 1: " in (db.listeners()[0].last_error or ""))
    assert (values(backend), calls, db.listeners()[0].paused) == ({1: "a1"}, [], None)
    elsewhere.replace(version("3"))
    db.drain()
    assert (values(backend), db.listeners()[0].last_error) == ({1: "a3"}, None)


def test_a_version_that_takes_other_arguments_is_shown(backend, db, elsewhere):
    follow(backend, db, "a", the_model=model(lambda body: body + "1", identifier="m", output_type=str))
    elsewhere.add(model(lambda body, more: body + more, identifier="m", output_type=str))
    wait_until(lambda: "more" in (db.listeners()[0].last_error or ""))
    assert values(backend) == {1: "a1"}


def test_a_version_that_fails_at_every_row_sets_rows_aside_and_the_next_mends_them(backend, db, elsewhere):
    follow(backend, db, "a")
    elsewhere.add(version("bad", max_attempts=1))
    wait_until(lambda: db.listeners()[0].failed == 1)
    elsewhere.add(version("3", max_attempts=1))
    db.drain()
    assert (values(backend), db.errors()) == ({1: "a3"}, [])


def test_the_others_are_followed_beside_one_that_cannot_be(backend, db, elsewhere):
    follow(backend, db, "a")
    add(backend, db, Suffixed("n", suffix="1"), output="other", follow="latest")
    add_unloadable(elsewhere)
    elsewhere.add(Suffixed("n", suffix="2"))
    wait_until(lambda: values(backend, "other") == {1: "a2"})


def test_a_move_that_was_broken_off_is_finished_by_the_next(backend, db, elsewhere, monkeypatch, below):
    follow(backend, db, "a")
    honest, breaks = type(below.listeners).move, iter(range(2))

    def move_listener(*args):
        if next(breaks, None) is not None:
            raise OSError("broken off")
        return honest(*args)

    monkeypatch.setattr(type(below.listeners), "move", move_listener)
    elsewhere.add(version("2"))
    db.drain()
    assert (values(backend), db.listeners()[0].last_error) == ({1: "a2"}, None)
    assert versions(db, "listener", "docs.loud") == [0, 1]


def test_who_pins_a_listener_that_is_about_to_move_wins(backend, db, elsewhere, monkeypatch, below):
    follow(backend, db, "a")
    honest, moved = type(below.listeners).move, []

    def move_listener(*args):
        add(backend, elsewhere, version("1"))
        moved.append(honest(*args))
        return moved[-1]

    monkeypatch.setattr(type(below.listeners), "move", move_listener)
    elsewhere.add(version("2"))
    wait_until(lambda: bool(moved))
    db.drain()
    (status,) = db.listeners()
    assert (moved, status.follow, status.model_version, values(backend)) == ([False], "pinned", 0, {1: "a1"})


# -- versions that go ------------------------------------------------------------------------------------


def test_a_version_that_is_followed_is_not_removed(backend, db, elsewhere):
    follow(backend, db, "a")
    elsewhere.add(version("2"))
    db.drain()
    with pytest.raises(Conflict):
        db.remove("model", "m", version=1, outputs="keep")


def test_a_version_that_was_left_is_removed_after_the_listener_version_that_had_it(backend, db, elsewhere, calls):
    listener = follow(backend, db, "a")
    elsewhere.add(version("2"))
    db.drain()
    calls.clear()
    with pytest.raises(Conflict, match=r"listener 'docs\.loud' version 0"):
        db.remove("model", "m", version=0)
    db.remove("listener", "docs.loud", version=0)
    db.remove("model", "m", version=0)
    db.drain()
    assert (calls, values(backend), db.fresh(listener).fresh) == ([], {1: "a2"}, 1)


def test_a_newest_version_that_could_not_be_followed_is_removed_and_all_is_as_before(backend, db, elsewhere, calls):
    listener = follow(backend, db, "a")
    add_unloadable(elsewhere)
    wait_until(lambda: db.listeners()[0].last_error is not None)
    elsewhere.remove("model", "m", version=1)
    wait_until(lambda: db.listeners()[0].last_error is None)
    db.drain()
    assert (values(backend), calls, db.fresh(listener).fresh) == ({1: "a1"}, [], 1)
    elsewhere.add(version("3"))
    db.drain()
    assert (values(backend), db.listeners()[0].model_version) == ({1: "a3"}, 1)


# -- paused ----------------------------------------------------------------------------------------------


def test_a_paused_listener_moves_when_it_resumes(backend, db, elsewhere):
    listener = follow(backend, db, "a")
    db.pause(listener, "maintenance")
    version("2").predict(X="body", db=elsewhere, select=backend.query("docs"), output="loud", limit=1)
    elsewhere.add(version("3"))
    db.drain()
    wait_until(lambda: not db.listen().listeners)
    assert db.listeners()[0].paused == "maintenance"
    assert values(backend) == {1: "a2"}
    db.resume(listener)
    db.drain()
    assert (values(backend), db.fresh(listener).fresh) == ({1: "a3"}, 1)


# -- adding again ----------------------------------------------------------------------------------------


def test_a_choice_that_is_none_is_refused(backend):
    backend.create("docs", {"body": str, "n": int})
    with pytest.raises(ConfigError, match="'pinned' or 'latest'"):
        Listener(model=version("1"), key="body", select=backend.query("docs"), follow="newest")  # type: ignore[arg-type]


def test_changing_only_whether_it_follows_calls_nothing(backend, db, elsewhere, calls):
    create_docs(backend, *"ab")
    add(backend, db, version("1"))
    db.listen()
    db.drain()
    calls.clear()
    add(backend, db, version("1"), follow="latest")
    db.drain()
    assert (calls, db.listeners()[0].follow) == ([], "latest")
    elsewhere.add(version("2"))
    db.drain()
    calls.clear()
    pinned = add(backend, db, version("1"))
    db.drain()
    assert (calls, values(backend), pinned.model.version) == ([], {1: "a2", 2: "b2"}, 1)
    elsewhere.add(version("3"))
    db.drain()
    (status,) = db.listeners()
    assert (calls, status.follow, status.model_version) == ([], "pinned", 1)
    assert db.fresh(pinned).fresh == 2


def test_adding_it_again_with_the_newest_version_changes_nothing(backend, db, elsewhere, calls):
    follow(backend, db, "a")
    elsewhere.add(version("2"))
    db.drain()
    calls.clear()
    again = add(backend, db, version("2"), follow="latest")
    db.drain()
    assert (again.version, calls, db.listeners()[0].is_sweeping) == (1, [], False)
    again = add(backend, db, version("2", max_attempts=9), follow="latest")
    assert (again.version, db.load("model", "m").max_attempts, db.load("model", "m").version) == (1, 9, 1)


def test_adding_it_again_with_an_older_version_does_not_go_back(backend, db, elsewhere, calls):
    follow(backend, db, "a")
    elsewhere.add(version("2"))
    db.drain()
    calls.clear()
    again = add(backend, db, version("1"), follow="latest")
    db.drain()
    assert (again.version, again.model.version, again.model.suffix) == (1, 1, "2")
    assert (calls, values(backend), elsewhere.load("model", "m").version) == ([], {1: "a2"}, 1)


def test_older_content_that_is_stored_again_is_the_newest_version(backend, db, elsewhere):
    follow(backend, db, "a")
    elsewhere.add(version("2"))
    db.drain()
    elsewhere.add(version("1"))
    db.drain()
    assert (values(backend), db.listeners()[0].model_version) == ({1: "a1"}, 2)


def test_a_model_that_is_newer_than_what_is_stored_becomes_the_newest_for_all(backend, db, elsewhere):
    follow(backend, db, "a")
    add(backend, db, version("1"), output="other", follow="latest")
    changed = add(backend, elsewhere, version("2"), follow="latest")
    assert (changed.version, changed.model.version) == (1, 1)
    db.drain()
    assert (values(backend), values(backend, "other")) == ({1: "a2"}, {1: "a2"})


def test_adding_it_where_the_newest_version_cannot_be_loaded_says_what_to_do(backend, db, elsewhere):
    create_docs(backend, "a")
    for number, needs in (("1", ""), ("2", "a part")):
        elsewhere.add(version(number, needs=needs))
    ABSENT_PARTS["a part"] = ComponentError
    with pytest.raises(ComponentError, match=r"version 1 of model 'm'.*db\.add\(model\)"):
        add(backend, db, version("1"), follow="latest")
    assert db.listeners() == []


@pytest.mark.unmigrated
def test_the_plan_of_a_listener_that_follows_changes_nothing(backend, db, elsewhere):
    follow(backend, db, "a")
    elsewhere.add(version("2"))
    db.drain()
    again = Listener(model=version("1"), key="body", select=backend.query("docs"), output="loud", follow="latest")
    assert db.plan(again).statements
    assert elsewhere.load("model", "m").version == 1


def test_a_removed_listener_that_is_added_again_follows_again(backend, db, elsewhere):
    listener = follow(backend, db, "a", sweep_every_s=0)
    other = elsewhere.listen()
    db.remove("listener", listener.identifier)
    add(backend, db, version("1"))
    db.drain()
    db.remove("listener", listener.identifier)
    removed_at = time.monotonic()
    wait_until(lambda: other.followed_at > removed_at)
    add(backend, db, version("1"), follow="latest")
    elsewhere.add(version("2"))
    db.drain()
    assert values(backend) == {1: "a2"}
