"""What is told to a terminal, a page or a log: no control character of others reaches it, and no secret.

A row, a provider or a name in the database may hold sequences that move a terminal's cursor, or line ends that
look like lines of ours.
"""

from __future__ import annotations

import logging
import traceback
from pathlib import PurePath
from typing import Any

from pinnacle.base.redaction import redacted


def plain(text: object) -> str:
    """Text on one line: control characters, line ends and what changes the direction of writing are escaped."""
    told = str(text)
    return told if told.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in told)


def plain_lines(text: object) -> str:
    """The same for a text of more lines, as ours are: statements, a traceback."""
    return "\n".join(plain(line) for line in str(text).replace("\t", "    ").split("\n"))


def plain_traceback(error: BaseException) -> str:
    """A traceback for a terminal or a log, redacted; it is indented, so that no line of it passes for another's."""
    lines = redacted("".join(traceback.format_exception(error)).rstrip("\n")).split("\n")
    return "\n".join(f"  {plain_lines(line)}" for line in lines)


def logger(name: str) -> logging.Logger:
    """The logger of a module, whose records say nothing secret and are each a line, with a traceback indented."""
    found = logging.getLogger(name)
    if _told not in found.filters:
        found.addFilter(_told)
    return found


class PlainFormatter(logging.Formatter):
    """Records of any library as lines: redacted, escaped, a traceback indented below."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the library's name
        return plain(redacted(super().formatMessage(record)))

    def formatException(self, ei: Any) -> str:  # noqa: N802
        return plain_traceback(ei[1])


def _told(record: logging.LogRecord) -> bool:
    record.args = tuple(map(_plain_argument, record.args)) if isinstance(record.args, tuple) else record.args
    error = record.exc_info[1] if record.exc_info else None
    if error is not None and not record.exc_text:
        record.exc_text = plain_traceback(error)
    return True


def _plain_argument(value: object) -> object:
    """Other values are told by their repr, which escapes."""
    return plain(redacted(str(value))) if isinstance(value, (str, BaseException, PurePath)) else value
