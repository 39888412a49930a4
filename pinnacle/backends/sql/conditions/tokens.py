"""The words of a condition's SQL, as ``sa.text`` takes it: a parameter is ``:p0``, any other colon has a backslash."""

from __future__ import annotations

import re
from typing import NamedTuple

from pinnacle.backends.sql.conditions.grammar import binding
from pinnacle.base.errors import UnsupportedQuery

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<string>'(?:[^']|'')*')
    | "(?P<quoted>(?:[^"]|"")+)"
    | :(?P<param>p\d+)\b
    | (?P<number>(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)(?![\w$])
    | (?P<word>[^\W\d][\w$]*)
    | (?P<mark>\\:\\:|\\:|[(),.\[\]])
    | (?P<operator>[-+*/<>=~!@#%^&|?]+)
    )""",
    re.VERBOSE,
)
_ESCAPES = re.compile(r"\s*[uU]&['\"]")
_END = re.compile(r"\s*\Z")


class Token(NamedTuple):
    """``kind``: string, quoted, param, number, word, mark or operator."""

    kind: str
    text: str
    position: int

    @property
    def keyword(self) -> str:
        """The token as a key word; empty where it is none."""
        return self.text.upper() if self.kind == "word" else ""


def tokens(text: str) -> list[Token]:
    """All words of a condition. UnsupportedQuery naming where something else begins."""
    found, position = [], 0
    while not _END.match(text, position):
        match = None if _ESCAPES.match(text, position) else _TOKEN.match(text, position)
        if match is None or match.lastgroup is None:
            raise refused_near(text, position)
        value = match.group(match.lastgroup)
        position = match.end()
        if match.lastgroup == "operator":
            if "--" in value or "/*" in value:
                raise UnsupportedQuery("the select holds a comment; leave it out")
            while len(value) > 1 and value[-1] in "+-" and binding(value) is None:  # a sign of what comes next
                value, position = value[:-1], position - 1
        found.append(Token(match.lastgroup, _plain(match.lastgroup, value), match.start(match.lastgroup)))
    return found


def _plain(kind: str, value: str) -> str:
    if kind == "string":
        return value[1:-1].replace("''", "'").replace("\\:", ":")
    if kind == "quoted":
        return value.replace('""', '"').replace("\\:", ":")
    return value.replace("\\:", ":") if kind == "mark" else value


def refused_near(text: str, position: int) -> UnsupportedQuery:
    """What is said of SQL that no tree is made of."""
    piece = text[position : position + 40].strip().replace("\\:", ":") or text[-40:]
    return UnsupportedQuery(f"the select cannot be stored from {piece!r} on")


def same_words(text: str, other: str, *, folds: bool) -> bool:
    """Whether two conditions are the same but for their layout; ``folds``: whether the case of quoted names counts."""
    return _normal(text, folds) == _normal(other, folds)


def _normal(text: str, folds: bool) -> list[tuple[str, str]]:
    found = []
    for token in tokens(text):
        if token.kind == "word" or (token.kind == "quoted" and not folds):
            found.append(("name", token.text.lower()))
        else:
            found.append(("name" if token.kind == "quoted" else token.kind, token.text))
    return found
