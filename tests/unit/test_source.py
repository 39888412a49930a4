"""Source digests: the same in every process, different when the code is."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import threading

import pytest

from pinnacle import Model
from pinnacle.components.source import FunctionSource, describe

MODULE = """
from pinnacle import Model, model

@model
def f(text: str, among=frozenset({"a", "b", "c", "d"}), table={"x": {1, 2}}) -> bool:
    return text in among or text in {"e", "f", "g"}

class C(Model):
    words = {"one", "two", "three"}
    limit = 3

    @property
    def half(self) -> float:
        return self.limit / 2

    def predict_one(self, text: str) -> bool:
        return text in self.words

untold = eval("lambda text, among=frozenset({'p', 'q', 'r'}): text in {'s', 't', 'u'}")
"""


def digests(path, seed: str) -> str:
    code = (
        "from pinnacle.components.source import FunctionSource as S; import module_of_test as m; "
        "print(m.f.source.digest, m.C.class_source.digest, S(m.untold).digest)"
    )
    environment = {**os.environ, "PYTHONPATH": ":".join([str(path), *sys.path]), "PYTHONHASHSEED": seed}
    return subprocess.run(
        [sys.executable, "-c", code], check=True, env=environment, capture_output=True, text=True
    ).stdout


def test_digests_are_the_same_in_every_process(tmp_path):
    (tmp_path / "module_of_test.py").write_text(MODULE)
    assert digests(tmp_path, "1") == digests(tmp_path, "2")


@pytest.mark.parametrize(("old", "new"), [("limit = 3", "limit = 4"), ("/ 2", "/ 3"), ('"three"', '"four"')])
def test_any_change_in_a_class_changes_its_digest_alone(tmp_path, old, new):
    (tmp_path / "module_of_test.py").write_text(MODULE)
    before = digests(tmp_path, "1").split()
    (tmp_path / "module_of_test.py").write_text(MODULE.replace(old, new) + "# longer than before")
    after = digests(tmp_path, "1").split()
    assert after[1] != before[1]
    assert (after[0], after[2]) == (before[0], before[2])


def test_a_base_class_counts_and_pinnacles_own_do_not():
    class Base(Model):
        step = 1

    class OtherBase(Model):
        step = 2

    derived = [type("Derived", (base,), {"__module__": __name__}) for base in (Base, Base, OtherBase)]
    first, second, third = (each.class_source.digest for each in derived)
    assert first == second != third


def test_partials_and_methods_and_callables_are_told_apart():
    class Adder:
        def __init__(self, n: int) -> None:
            self.n = n

        def __call__(self, x: int) -> int:
            return x + self.n

        def add(self, x: int) -> int:
            return x + self.n

    def add(x: int, n: int) -> int:
        return x + n

    def digest(function) -> str:
        return FunctionSource(function).digest

    assert digest(functools.partial(add, n=1)) == digest(functools.partial(add, n=1))
    assert digest(functools.partial(add, n=1)) != digest(functools.partial(add, n=2))
    assert digest(Adder(1)) == digest(Adder(1))
    assert digest(len) != digest(max)
    assert digest(Adder(1).add) == digest(Adder(1).add)


def test_a_closure_that_holds_itself_has_a_digest():
    def outer():
        def inner(n: int) -> int:
            return inner(n - 1) if n else 0

        return inner

    assert FunctionSource(outer()).digest == FunctionSource(outer()).digest
    cycle: list[object] = [1]
    cycle.append(cycle)
    assert describe(cycle) == describe(cycle)


def test_what_cannot_be_pickled_counts_by_its_type():
    assert describe(threading.Lock()) == describe(threading.Lock()) != describe(threading.Event())


def test_equal_values_of_other_types_differ():
    assert len({str(describe(value)) for value in (1, 1.0, True, "1", b"1")}) == 5
    assert describe({"a": 1, "b": 2}) == describe({"b": 2, "a": 1})
