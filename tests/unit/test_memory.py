"""The memory of a prediction: bounded, and right about what it knows."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pinnacle.runtime.memory import OutputMemory, bytes_of


def test_what_was_put_is_found():
    memory = OutputMemory()
    memory.put(["a", "b"], [1, None])
    assert (memory.get("a"), memory.get("b"), memory.get("c")) == ((True, 1), (True, None), (False, None))


def test_new_and_different_inputs_are_told_at_once():
    memory = OutputMemory()
    memory.put(["a"], [1])
    assert memory.knows_none_of(["b", "c"])
    assert not memory.knows_none_of(["b", "a"])
    assert not memory.knows_none_of(["b", "b"])


@given(st.lists(st.lists(st.integers(0, 50), unique=True, max_size=10), max_size=30), st.integers(2, 30))
def test_it_never_lies_and_never_grows_beyond_its_bound(portions, bound):
    memory = OutputMemory(max_entries=bound)
    for portion in portions:
        memory.put(portion, [f"out {n}" for n in portion])
        assert len(memory._young) + len(memory._old) <= max(bound, 2 * 10)
        assert all(memory.get(n) == (True, f"out {n}") for n in portion)
    for n in range(51):
        hit, output = memory.get(n)
        assert output == (f"out {n}" if hit else None)


def test_the_last_half_of_what_fits_is_known():
    memory = OutputMemory(max_entries=100)
    for n in range(1000):
        memory.put([n], [n])
    assert all(memory.get(n)[0] for n in range(950, 1000))
    assert not memory.get(100)[0]


def test_large_outputs_are_forgotten_sooner():
    memory = OutputMemory(max_bytes=100_000)
    for n in range(100):
        memory.put([n], ["x" * 10_000])
    assert sum(memory.get(n)[0] for n in range(100)) <= 10


def test_sizes_are_of_the_right_order():
    assert 1_000_000 <= bytes_of(["x" * 10_000] * 100) <= 2_000_000
    assert bytes_of([]) == 0
    assert bytes_of([{"a": ["x" * 1000]}]) > 1000
