"""Events of a worker's own outputs are told from those of others by their number, whatever their order."""

from __future__ import annotations

import pytest

from pinnacle.backends.mongodb.target.own_writes import OwnWrites

OUTPUT = 7


@pytest.fixture
def own() -> OwnWrites:
    """Told of by a process that reads the changes."""
    made = OwnWrites()
    made.begin_era(is_reading=True)
    return made


def write(own: OwnWrites, *keys: object, met: tuple[object, ...] = (), is_exact: bool = True) -> set[object]:
    """Write some rows; the events of ``met`` come while the command runs. The rows that need another look."""
    with own.of(OUTPUT, keys) as begun:
        assert all(own.meet(OUTPUT, key) for key in met)
        begun.is_exact = is_exact
    return begun.disturbed


def test_as_many_events_as_writes_are_ours_and_one_more_is_not(own):
    assert write(own, 1, 2) == set()
    assert write(own, 1) == set()
    assert [own.meet(OUTPUT, 1) for _ in range(3)] == [True, True, False]
    assert [own.meet(OUTPUT, 2) for _ in range(2)] == [True, False]


def test_an_event_that_is_met_before_the_command_has_ended_is_not_awaited_any_more(own):
    assert write(own, 1, 2, met=(1,)) == set()
    assert not own.meet(OUTPUT, 1)
    assert own.meet(OUTPUT, 2)


def test_two_events_of_one_row_while_the_command_runs_ask_for_another_look(own):
    assert write(own, 1, 2, met=(1, 1)) == {1}


def test_events_of_a_command_that_may_have_changed_nothing_are_never_awaited(own):
    assert write(own, 1, 2, met=(1,), is_exact=False) == {1}
    assert not own.meet(OUTPUT, 2)


def test_a_command_that_fails_leaves_nothing_awaited(own):
    with pytest.raises(OSError, match="gone"), own.of(OUTPUT, [1]):
        raise OSError("gone")
    assert not own.meet(OUTPUT, 1)


def test_other_rows_and_other_outputs_are_not_concerned(own):
    write(own, 1)
    assert not own.meet(OUTPUT, 2)
    assert not own.meet(OUTPUT + 1, 1)


def test_nothing_is_awaited_across_a_change_of_the_reader(own):
    write(own, 1)
    own.begin_era(is_reading=True)
    assert not own.meet(OUTPUT, 1)


def test_a_command_that_was_under_way_when_the_reader_changed_is_not_awaited(own):
    with own.of(OUTPUT, [1, 2]) as begun:
        assert own.meet(OUTPUT, 2)
        own.begin_era(is_reading=True)
        begun.is_exact = True
    assert begun.disturbed == {2}
    assert not own.meet(OUTPUT, 1)


def test_where_another_process_reads_nothing_is_awaited():
    own = OwnWrites()
    assert write(own, 1) == set()
    assert not own.meet(OUTPUT, 1)
