"""What is secret is taken out of what is told, however it is spelt, cut or wrapped."""

from __future__ import annotations

import base64
import json
import re
from urllib.parse import quote, quote_plus

import pytest

from pinnacle.base import redaction
from pinnacle.base.batches import BatchAnswers
from pinnacle.base.errors import NotFound, ProviderRefused
from pinnacle.base.limits import MAX_MESSAGE, MAX_TRACEBACK
from pinnacle.base.rows import Failure

KEY = 'sk-proj-4f9aX7/q2+Lm "ü\n' + "Z81tRw0bYc"
SPELLINGS = {
    "plain": str, "repr": repr, "ascii": ascii, "json": json.dumps, "url": lambda key: quote(key, safe=""),
    "url_lower": lambda key: re.sub("%..", lambda found: found[0].lower(), quote(key, safe="")), "form": quote_plus,
    "bytes": lambda key: repr(key.encode()), "hex": lambda key: key.encode().hex(),
    "json_unicode": lambda key: json.dumps(key, ensure_ascii=False),
    **{
        f"basic_{user}": lambda key, user=user: base64.b64encode(f"{user}:{key}".encode()).decode()
        for user in ("", "u", "us", "use")
    },
    "base64_before": lambda key: base64.b64encode(f"{key}:x".encode()).decode(),
}  # fmt: skip


@pytest.fixture(autouse=True)
def known(monkeypatch):
    monkeypatch.setattr(redaction, "_known", type(redaction._known)())
    redaction.know(KEY)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_secret_is_hidden_in_every_spelling(spelling):
    written = SPELLINGS[spelling](KEY)
    told = redaction.redacted(f"it said <{written}> twice: {written}")
    assert told.count("[key]") == 2
    for start in range(len(written) - 7):
        piece = written[start : start + 8]
        assert piece not in told, piece


@pytest.mark.parametrize("cut", [slice(None, 20), slice(0, 27), slice(14, None)])
def test_a_secret_of_which_a_part_was_cut_off_is_hidden_too(cut):
    assert redaction.redacted(f"no such key: {KEY[cut]}") == "no such key: [key]"


def test_what_is_short_or_a_word_is_left():
    redaction.know("short")
    redaction.know_password("postgres")
    redaction.know_password("postgres1")
    assert redaction.redacted("a short postgresql, postgres1!") == "a short postgresql, [key]!"


def test_no_more_is_known_than_can_be_looked_for(monkeypatch):
    monkeypatch.setattr(redaction, "MOST_KNOWN", 3)
    for number in range(5):
        redaction.know(f"secret number {number}")
    assert list(redaction._known) == [f"secret number {number}" for number in (2, 3, 4)]


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("postgresql://u:p@ss@host/db is down", "postgresql://[key]@host/db is down"),
        ("mongodb://u:p/ss@h,h2/db", "mongodb://[key]@h,h2/db"),
        ("('http://u:pw@proxy:1', 3)", "('http://[key]@proxy:1', 3)"),
        ("https://host:80/path and mail@example.com", "https://host:80/path and mail@example.com"),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
    ],
)
def test_the_password_of_a_url_is_hidden(said, told):
    assert redaction.redacted(said) == told


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("host=h password=abc dbname=d", "host=h password=[key] dbname=d"),
        ("password='a \\' b' user=u", "password=[key] user=u"),
        ('FATAL: password authentication failed for user "me"', 'FATAL: password authentication failed for user "me"'),
    ],
)
def test_a_driver_says_no_password(said, told):
    assert redaction.without_password(said) == told


def test_an_error_is_hidden_with_all_that_it_came_from_and_holds():
    class Told(Exception):
        def __init__(self, text):
            super().__init__(text, 3)
            self.body = {"said": [text]}

    inner, outer = Told(KEY), Told("fine")
    inner.add_note(f"note {KEY}")
    outer.__cause__, outer.__context__ = ExceptionGroup("many", [inner, ValueError(KEY)]), inner
    redaction.hide(outer)
    assert inner.args == ("[key]", 3)
    assert inner.body == {"said": ["[key]"]}
    assert inner.__notes__ == ["note [key]"]
    assert str(outer.__cause__.exceptions[1]) == "[key]"
    assert outer.args == ("fine", 3)


def test_a_row_that_is_set_aside_is_told_without_it_where_its_message_is_cut():
    failure = Failure(
        key=(1,), witness=None, error="E", message="x" * (MAX_MESSAGE - 10) + KEY, traceback=KEY + "y" * MAX_TRACEBACK,
        attempts=1,
    )  # fmt: skip
    assert KEY[:8] not in failure.message
    assert KEY[-8:] not in failure.traceback
    assert len(failure.message) <= MAX_MESSAGE


def test_every_error_of_pinnacle_is_told_without_it():
    assert str(NotFound(f"no {KEY}")) == str(ProviderRefused(f"no {KEY}", status=400)) == "no [key]"
    assert BatchAnswers(failure=f"no {KEY}").failure == "no [key]"
