"""What counts as a change of a model's code: what it does, and not how it is written."""

from __future__ import annotations

import importlib
import itertools
import sys
import threading

import pytest

from pinnacle.components.source import FunctionSource

MODULE = '''
import functools
import threading
from typing import NamedTuple
from os.path import basename as base, join
import pinnacle
from pinnacle import Model, model

LIMIT = 3
WORDS = {"one": 1}
WORDS["two"] = 2
WORDS.update(three=3)
CALLS = []
LOCK = threading.Lock()
UNUSED = 1
if LIMIT:
    SIDE = "left"
else:
    SIDE = "right"

def louder(times):
    def wrap(function):
        @functools.wraps(function)
        def wrapped(text):
            return function(text) * times
        return wrapped
    return wrap

def inner(text):
    """Helps the helper."""
    return text[:LIMIT]  # as many

def helper(text, more=2):
    return inner(text) + SIDE * more

class Tool:
    """A class that a model uses."""
    times = 2
    def use(self, text):
        return text * self.times

@pinnacle.model(batch_size=10)
@louder(2)
def f(text: str) -> str:
    """Says it."""
    CALLS.append(text)
    with LOCK:
        note: str
        said: str = helper(text) + str(WORDS)
    return f"{said} {base(said)} " + Tool().use(said)

@model
def g(text: str) -> str:
    return text

class Base(Model):
    step = 1

class C(Base):
    """A model of its own."""
    words = ["a"]

    @property
    def half(self) -> float:
        return self.step / 2

    def predict_one(self, text: str) -> str:
        return inner(text) + str(self.half)

first, second = model(lambda text: text + "1", identifier="a"), model(lambda text: text + "2", identifier="b")
made = [model(functools.partial(helper, more=n), identifier=f"m{n}") for n in (1, 2)]
'''
EDITS = itertools.count()


@pytest.fixture
def parts(tmp_path, monkeypatch):
    """The parts of the source of everything in the module, with replacements made in its text."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def parts(*edits: tuple[str, str]) -> dict[str, dict[str, str]]:
        name, text = f"code_of_test_{next(EDITS)}", MODULE
        for old, new in edits:
            assert old in text
            text = text.replace(old, new)
        (tmp_path / f"{name}.py").write_text(text)
        importlib.invalidate_caches()
        module = importlib.import_module(name)
        del sys.modules[name]
        models = {"f": module.f, "g": module.g, "first": module.first, "second": module.second, "made": module.made[0]}
        return {key: model.source.parts for key, model in models.items()} | {"C": module.C.class_source.parts}

    return parts


SAME = [
    ("# as many", "# not more than that"),
    ('"""Says it."""', '"""Says what it was given,\n    twice."""'),
    ('    """Helps the helper."""\n', ""),
    ('    """A class that a model uses."""\n', "    # a class that a model uses\n"),
    ('"""A model of its own."""', '"""Another line."""'),
    ("def helper(text, more=2):", "def helper(\n    text,\n    more=2,\n):"),
    ("text[:LIMIT]", "(text[ : LIMIT])"),
    ('"left"', "'left'"),
    ("def f(text: str) -> str:", 'def f(\n    text: "str",\n) -> "str":'),
    ("        note: str\n", ""),
    ("said: str = helper", "said = helper"),
    ("batch_size=10", "batch_size=20, concurrency=2"),
    ("UNUSED = 1", "UNUSED = 2"),
    ("\nLIMIT = 3\n", "\n\n\nBEFORE = 0\nLIMIT = 3\n"),
    ("import basename as base, join", "import (\n    basename as base,\n    dirname,\n)"),
    ("LIMIT = 3", "LIMIT: int = 3"),
]


@pytest.mark.parametrize("edit", SAME)
def test_how_code_is_written_does_not_count(parts, edit):
    assert parts(edit) == parts()


CHANGES = [
    ("LIMIT = 3", "LIMIT = 4", {"f", "C", "made"}, "LIMIT"),
    ('WORDS = {"one": 1}', 'WORDS = {"one": 2}', {"f"}, "WORDS"),
    ('["two"] = 2', '["two"] = 3', {"f"}, "WORDS"),
    ("update(three=3)", "update(three=4)", {"f"}, "WORDS"),
    ('"left"', '"top"', {"f", "made"}, "SIDE"),
    ("text[:LIMIT]", "text[-LIMIT:]", {"f", "C", "made"}, "inner"),
    ("more=2):", "more=3):", {"f", "made"}, "helper"),
    ("times = 2", "times = 3", {"f"}, "Tool"),
    ("text * self.times", "text + self.times", {"f"}, "Tool"),
    ("function(text) * times", "function(text) + times", {"f"}, "louder"),
    ("@louder(2)", "@louder(3)", {"f"}, "f"),
    ("{said} {base", "{said}, {base", {"f"}, "f"),
    ("import basename as base", "import dirname as base", {"f"}, "base"),
    ("self.step / 2", "self.step / 3", {"C"}, "C.half"),
    ("step = 1", "step = 2", {"C"}, "Base.step"),
    ('words = ["a"]', 'words = ["b"]', {"C"}, "C.words"),
    ('text + "1"', 'text + "3"', {"first"}, "<lambda>"),
    ("for n in (1, 2)", "for n in (3, 2)", {"made"}, "the arguments of its partial"),
]


@pytest.mark.parametrize(("old", "new", "changed", "name"), CHANGES)
def test_what_code_does_counts_and_is_named(parts, old, new, changed, name):
    before, after = parts(), parts((old, new))
    assert {key for key in before if before[key] != after[key]} == changed
    for key in changed:
        differing = {part for part in before[key] | after[key] if before[key].get(part) != after[key].get(part)}
        assert any(name in part for part in differing)


def test_what_a_program_does_with_its_globals_does_not_count(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "state_of_test.py").write_text(MODULE)
    module = importlib.import_module("state_of_test")
    del sys.modules["state_of_test"]
    before = FunctionSource(module.f.function).digest
    module.f.predict("hello")
    module.LOCK = threading.Lock()
    assert module.CALLS
    assert FunctionSource(module.f.function).digest == before


def test_a_file_that_is_edited_after_its_import_does_not_count(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    path = tmp_path / "edited_of_test.py"
    path.write_text(MODULE)
    module = importlib.import_module("edited_of_test")
    del sys.modules["edited_of_test"]
    before = FunctionSource(module.f.function).digest
    path.write_text("# shorter\n" + MODULE.replace("LIMIT = 3", "LIMIT = 4"))
    assert FunctionSource(module.f.function).digest == before == module.f.source.digest


def test_code_that_has_no_file_counts_by_what_it_does_and_by_its_plain_globals():
    def digest(text: str, **values: object) -> str:
        exec(text, values)
        return FunctionSource(values["f"]).digest

    text = "def h(x):\n return x * n\ndef f(x):\n return h(x) + m"
    assert digest(text, n=1, m=[]) == digest(text, n=1, m=[1])
    assert digest(text, n=1) != digest(text, n=2)
    assert digest(text) != digest(text.replace("* n", "+ n"))


def test_every_release_of_python_gives_the_same_digest():
    """As seen on 3.11, 3.12 and 3.13, whose trees differ."""
    assert FunctionSource(_known).digest == "9657584c568b84cb9ebf642e0bb7e768b31afbfff12deaa72b8394f529c9c8a8"


def _known(text: str, *rest: int, key: str = "a", **more: float) -> str:
    """Has a bit of everything."""
    table = {key: [each**2 for each in rest if each], **more}
    try:
        return f"{text!r:>{len(table)}} and {'so'} on!" if (found := table.get(key)) is None else str(found[:-1])
    except (KeyError, ValueError) as error:
        raise RuntimeError from error
