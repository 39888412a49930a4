"""The group of all commands, and how a command gets its database."""

from __future__ import annotations

import functools
import importlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pinnacle.base.distribution import DISTRIBUTION
from pinnacle.base.errors import PinnacleError
from pinnacle.base.redaction import redacted
from pinnacle.base.settings import Settings
from pinnacle.base.told import plain, plain_traceback
from pinnacle.base.urls import password_of

if TYPE_CHECKING:
    from pinnacle.db import Database

URL_VARIABLE = "PINNACLE_URL"
SQLITE_SUFFIXES = (".db", ".sqlite", ".sqlite3")
URL_HELP = """URL names the database: sqlite:///file.db or a plain path to a SQLite file,
postgresql://user@host/name, postgresql+embedded:///dir or mongodb://host/name. Without one
it is what PINNACLE_URL says, so that no password stands in a list of processes."""


class Commands(click.Group):
    """Prints pinnacle's own errors as one line, without a traceback, and exits with 1."""

    def invoke(self, ctx: click.Context) -> Any:
        sys.excepthook, warnings.formatwarning = show_uncaught, told_warning
        try:
            return super().invoke(ctx)
        except PinnacleError as error:
            raise click.ClickException(plain(redacted(str(error)))) from error
        except click.NoSuchOption as error:
            if error.option_name != "--import":
                raise
            told = "--import MODULE goes before the command: pinnacle --import MODULE COMMAND ..."
            raise click.UsageError(told, ctx=error.ctx) from error


def show_uncaught(kind: type[BaseException], error: BaseException, *rest: object) -> None:
    """An error that is none of pinnacle's, with its traceback: what it quotes is escaped, and holds no secret."""
    click.echo(plain_traceback(error), err=True)


def told_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """A warning on one line: a library may quote what is stored in it."""
    return f"{category.__name__}: {plain(redacted(str(message)))}\n"


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name=DISTRIBUTION)
@click.option(
    "--import", "modules", multiple=True, metavar="MODULE",
    help="Import a module first: that of models that are installed, or of your mapped classes, for columns that they "
    "read. May be given again.",
)  # fmt: skip
def main(modules: tuple[str, ...]) -> None:
    """Attach AI models to the database you already have.

    Models are registered and run from Python: db.add(model), then
    model.predict(X="body", db=db, select=...). These commands show what pinnacle
    keeps in a database, and prepare or clean it.

    Modules of your own models are imported from the working directory.
    """
    # Python itself does this for `python -m`, and not for an installed script.
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    for module in modules:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            way = "start from the folder that holds it, or add that folder to PYTHONPATH"
            raise click.ClickException(f"--import {module}: {error}; {way}") from error
        except ImportError as error:
            raise click.ClickException(f"--import {module}: {error}") from error


def database_command(*names: str, optional: int = 0, name: str | None = None) -> Callable[[Callable[..., None]], Any]:
    """Make a command of a function of a URL and of words called ``names``, of which the last may be optional."""
    required = len(names) - optional
    words = [f"[{each}]" if place >= required else each for place, each in enumerate(names)]

    def wrap(function: Callable[..., None]) -> Any:
        @click.argument("words", nargs=-1, metavar=" ".join(["[URL]", *words]))
        @functools.wraps(function)
        def command(words: tuple[str, ...], **options: Any) -> None:
            url, given = _split(words)
            if url in words and password_of(url):
                click.echo(f"A list of processes shows the password of that URL: set {URL_VARIABLE} instead.", err=True)
            if not required <= len(given) <= len(names):
                told = plain(redacted(repr(given)))
                raise click.UsageError(f"after the database {' '.join(names) or 'nothing'} is expected, not {told}")
            function(url, *given, *[None] * (len(names) - len(given)), **options)

        return main.command(name, epilog=URL_HELP)(command)

    return wrap


def _split(words: Sequence[str]) -> tuple[str, list[str]]:
    """The database and the words after it."""
    usual = Settings.from_environment().url
    if words and (not usual or _is_database(words[0])):
        return words[0], list(words[1:])
    if not usual:
        raise click.UsageError(f"name the database: a URL or the path of a SQLite file, or {URL_VARIABLE}")
    return usual, list(words)


def _is_database(word: str) -> bool:
    return "://" in word or Path(word).suffix in SQLITE_SUFFIXES or Path(word).is_file()


@contextmanager
def opened(url: str, application: str = "pinnacle command") -> Iterator[Database]:
    """The database behind a URL or a path; the commands never create one by a misspelt name."""
    from pinnacle.db import pinnacle

    url = url if "://" in url else f"sqlite:///{url}"
    settings = replace(Settings.from_environment(), application=application, may_create=False)
    with closing(pinnacle(url, settings=settings)) as db:
        yield db
