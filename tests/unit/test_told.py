"""What is told: no control character of others, no line that looks like ours, no secret."""

from __future__ import annotations

import ast
import logging
import warnings
from pathlib import Path

import pytest
from click.testing import CliRunner

import pinnacle
from pinnacle import ConfigError
from pinnacle.base import redaction
from pinnacle.base.told import PlainFormatter, logger, plain, plain_lines
from pinnacle.cli import main
from pinnacle.cli.metrics import ListenerCollector
from pinnacle.runtime.plan import Plan
from pinnacle.runtime.progress import ProgressLine, progress_bar
from pinnacle.runtime.result import PredictResult

KEY = "sk-told-4f9aX7q2LmZ81tRw0bYc"
HOSTILE = "a\x1b]0;title\x07\x1b[2J\x9b5m\r\n2026 WARNING forged\u202egnp.exe\u2066\u2028\x00\x7f"


def is_clean(told: str) -> bool:
    return all(letter.isprintable() or letter == "\n" for letter in told) and "\n2026" not in told


@pytest.fixture(autouse=True)
def known(monkeypatch):
    monkeypatch.setattr(redaction, "_known", type(redaction._known)())
    redaction.know(KEY)


def test_one_function_escapes_all_that_is_no_plain_letter():
    told = plain(HOSTILE)
    assert told.isprintable()
    assert told.encode().decode("unicode_escape").encode("latin-1", "ignore")[:2] == b"a\x1b"
    assert plain("Grüße, 世界 ✓") == "Grüße, 世界 ✓"
    assert plain_lines("a\n\tb\x1b") == "a\n    b\\x1b"


def logged(*args, error=None, formatter=logging.Formatter):
    record = logging.LogRecord("pinnacle.x", logging.WARNING, "", 0, "listener %s: %s", args, error)
    for each in logger("pinnacle.tests_of_told").filters:
        each(record)
    return formatter("%(levelname)s %(message)s").format(record)


@pytest.mark.parametrize("formatter", [logging.Formatter, PlainFormatter])
def test_a_record_is_one_line_and_its_traceback_is_indented(formatter):
    try:
        raise ValueError(f"{HOSTILE} {KEY}")
    except ValueError as error:
        told = logged(HOSTILE, error, error=(ValueError, error, error.__traceback__), formatter=formatter)
    assert is_clean(told)
    first, *others = told.split("\n")
    assert first.startswith("WARNING listener a\\x1b")
    assert all(line.startswith("  ") for line in others)
    assert KEY not in told
    assert "[key]" in told


def test_records_of_other_libraries_are_told_alike_by_the_worker():
    record = logging.LogRecord("aiohttp", logging.WARNING, "", 0, f"{HOSTILE}{KEY}", None, None)
    told = PlainFormatter("%(message)s").format(record)
    assert told.isprintable()
    assert KEY not in told


def test_every_logger_of_pinnacle_is_such_a_one():
    root = Path(pinnacle.__file__).parent
    made = [
        str(path)
        for path in root.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr == "getLogger"
    ]
    assert made == [str(root / "base" / "told.py")]


class Terminal:
    """What was written to one."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return True


def test_progress_and_results_tell_names_plainly(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with progress_bar(HOSTILE, lambda: 2, shown=True) as move:
        move(1)
    line = ProgressLine(HOSTILE, is_shown=True)
    line.move(1, 1)
    assert "\x1b]0" not in terminal.text
    assert "\u202e" not in terminal.text
    assert is_clean(str(PredictResult(HOSTILE)))
    assert is_clean(str(PredictResult(HOSTILE, dry_run=True)))


@pytest.mark.parametrize("error", [ConfigError(f"{HOSTILE} {KEY}"), ValueError(f"{HOSTILE} {KEY}")])
def test_the_command_line_tells_errors_plainly(monkeypatch, error, capsys):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr("pinnacle.db.pinnacle", fail)
    result = CliRunner().invoke(main, ["status", "sqlite:///none.db"])
    told = result.output
    if isinstance(error, ValueError):
        import sys

        sys.excepthook(type(error), error, error.__traceback__)
        told = capsys.readouterr().err
    assert result.exit_code == 1
    assert "2026 WARNING forged" in told
    assert is_clean(told)
    assert KEY not in told


def test_the_command_line_tells_warnings_plainly(monkeypatch):
    monkeypatch.setattr("sys.excepthook", None)
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    CliRunner().invoke(main, ["status", "sqlite:///none.db"])
    told = warnings.formatwarning(UserWarning(f"{HOSTILE} {KEY}"), UserWarning, "a.py", 1)
    assert "UserWarning: a" in told
    assert is_clean(told)
    assert told.count("\n") == 1
    assert KEY not in told


def test_figures_have_plain_labels(monkeypatch):
    class Listener:
        identifier, output, pending, lag_s, failed, processed = HOSTILE, "o", 0, 0.0, 0, 0

    class Handle:
        def listeners(self):
            return [Listener]

        def usage(self):
            return []

    labels = {v for f in ListenerCollector(Handle()).collect() for s in f.samples for v in s.labels.values()}
    assert labels == {plain(HOSTILE)}


def test_a_plan_keeps_its_lines_and_nothing_else(monkeypatch):
    assert plain_lines(Plan([f"ADD COLUMN {HOSTILE}"], None)).count("\n") == HOSTILE.count("\n")
