"""A URL's password is told by nobody: not when it is refused, not when the database cannot be reached."""

from __future__ import annotations

import logging
import traceback

import pytest
from click.testing import CliRunner

from pinnacle import ModelUnavailable, PinnacleError, pinnacle
from pinnacle.base import redaction
from pinnacle.base.settings import Settings
from pinnacle.base.urls import check_url, password_of
from pinnacle.cli import main
from pinnacle.llm.proxies import proxy_of

BROKEN = [
    "postgresql://u:p@ssw0rd9@host/db", "mongodb://u:p/ssw0rd9@h/db", "mongodb://u:12/ssw0rd9@h/db",
    "postgresql://u:p?ssw0rd9@host/db", "postgresql://u:p#ssw0rd9@host/db", "postgresql://u:p%ssw0rd9@host/db",
    "mongodb+srv://u@corp:ssw0rd9@h/db", "postgresql+psycopg://u:x:y@ssw0rd9@host/db",
]  # fmt: skip
SOUND = [
    "postgresql://u:p%40ssw0rd9@host:5432/db", "mongodb://u:p%2Fssw0rd9@a:1,b:2/db?x=me@y", "postgresql://host/db?user=a@b",
    "sqlite:////home/me@work/a.db", "postgresql://u@host/db", "postgresql://u:pass@[::1]:5432/db", "mongomock://a",
    "postgresql://postgres:@/postgres?host=/tmp/a@b", "docs.db",
]  # fmt: skip


@pytest.fixture(autouse=True)
def known(monkeypatch):
    monkeypatch.setattr(redaction, "_known", type(redaction._known)())


def told(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)) + repr(error) + repr(vars(error))


@pytest.mark.parametrize("url", BROKEN)
def test_a_url_that_is_badly_escaped_is_refused_and_not_shown(url, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    with pytest.raises(PinnacleError, match="is not escaped, and is not repeated here: write @ as %40") as refused:
        pinnacle(url)
    monkeypatch.setenv("PINNACLE_URL", url)
    result = CliRunner().invoke(main, ["status"])
    assert result.exit_code == 1
    assert "ssw0rd9" not in told(refused.value) + result.output + caplog.text
    monkeypatch.setenv("HTTPS_PROXY", f"http://{url.partition('://')[2]}")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with pytest.raises(ModelUnavailable, match="proxy in the environment") as unusable:
        proxy_of("https://api.openai.com/v1")
    assert "ssw0rd9" not in told(unusable.value)


@pytest.mark.parametrize("url", SOUND)
def test_one_that_is_not_is_taken_and_its_password_known(url):
    check_url(url)
    assert redaction.redacted("it said p@ssw0rd9, p/ssw0rd9") == (
        "it said [key], p/ssw0rd9" if "%40" in url else "it said p@ssw0rd9, [key]" if "%2F" in url
        else "it said p@ssw0rd9, p/ssw0rd9"
    )  # fmt: skip


@pytest.mark.parametrize("scheme", ["postgresql", "mongodb"])
@pytest.mark.parametrize("password", ["Xq7-secret-of-tests", "secretword", "s3"])
def test_a_database_that_is_away_is_told_without_its_password(scheme, password, caplog):
    caplog.set_level(logging.DEBUG)
    url = f"{scheme}://someone:{password}@127.0.0.1:1/db"
    url += "?serverSelectionTimeoutMS=50" if scheme == "mongodb" else "?connect_timeout=2"
    with pytest.raises(PinnacleError) as away, pinnacle(url, settings=Settings(outage_patience_s=0.05)) as db:
        db.outputs()
    said = told(away.value) + caplog.text
    assert f":{password}@" not in said
    assert f"={password}" not in said
    assert password not in said or len(password) < 8


def test_what_a_driver_says_of_a_url_with_a_password_is_not_repeated():
    url = "mongodb://u:ssw0rd9@h:port/db"
    with pytest.raises(PinnacleError, match="not a usable MongoDB URL") as refused:
        pinnacle(url)
    assert "ssw0rd9" not in told(refused.value)


def test_the_command_line_says_where_a_password_is_seen():
    result = CliRunner().invoke(main, ["status", "mongodb://u:ssw0rd9@127.0.0.1:1/db?serverSelectionTimeoutMS=50"])
    assert "A list of processes shows the password of that URL: set PINNACLE_URL instead" in result.output
    assert "ssw0rd9" not in result.output
    assert password_of("mongodb://h/db") == ""
