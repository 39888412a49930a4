"""Takes what this process knows to be secret out of what is told, however it is spelt; and tells what looks like one.

A service may repeat the key that it was sent, and a driver the password in its URL.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import takewhile
from typing import Any
from urllib.parse import quote, quote_plus

HIDDEN = "[key]"
SHORTEST = 8
"""What is shorter is no secret, and could stand in any text."""

MOST_KNOWN = 1000

SECRET_WORDS = frozenset({
    "auth", "authorization", "apikey", "bearer", "cookie", "credential", "credentials", "jwt", "key", "pass", "passwd",
    "password", "secret", "sig", "signature", "token",
})  # fmt: skip
SECRET_FIELDS = frozenset({
    "access_token", "api_key", "apikey", "auth_token", "authorization", "password", "secret", "secret_key", "token",
})  # fmt: skip
SECRET_VALUE = re.compile(r"(?i)^(bearer|basic|token)\s|^(sk|pk|gh[a-z]|xox[a-z]|hf|tok|glpat|AKIA|eyJ)[-_A-Z0-9]{8,}")
LONGEST_PLAIN = 24
"""A value that is longer and of one piece, letters and digits mixed, is taken for a secret too."""

URL_PASSWORD = re.compile(r"(://)[^\s'\"<>]{0,500}@")
WORD_PASSWORD = re.compile(
    r"(?i)\b((?:password|passwd|pwd)\s*[=:]\s*)('(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|[^\s;,&)]+)"
)

_known: OrderedDict[str, None] = OrderedDict()


def know(secret: str) -> None:
    """Have a secret taken out of all that is told from now on."""
    if len(secret) >= SHORTEST and secret not in _known:
        _known[secret] = None
        while len(_known) > MOST_KNOWN:
            _known.popitem(last=False)


def know_password(password: str) -> None:
    """The same of a password, unless it is a word that may stand in any text: those are known by where they stand."""
    if not password.isalpha():
        know(password)


def redacted(text: str) -> str:
    """Text without what is known to be secret, in the usual spellings of it, and without the passwords of URLs."""
    for secret in list(_known):
        spellings = _spellings(secret)
        for spelling in spellings:
            text = text.replace(spelling, HIDDEN)
        text = _without_parts(text, spellings)
    if "@" in text:
        text = URL_PASSWORD.sub(_without_password, text)
    return text


def without_password(text: str) -> str:
    """What a driver says, without the password of a URL or of a list of ``password=...``."""
    return WORD_PASSWORD.sub(rf"\1{HIDDEN}", redacted(text))


def hide(error: BaseException) -> None:
    """Redact an error's message and fields, and those of the errors that it came from."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        current = waiting.pop()
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        current.args = tuple(map(_without_any, current.args))
        for name, value in list(vars(current).items()):
            if (hidden := _without_any(value)) is not value:
                setattr(current, name, hidden)
        waiting += [current.__cause__, current.__context__]
        if isinstance(current, BaseExceptionGroup):
            waiting += current.exceptions


def _without_any(value: Any) -> Any:
    """Text, and plain lists and dicts of it, redacted; the same object where there is nothing to hide."""
    if isinstance(value, str):
        return value if (hidden := redacted(value)) == value else hidden
    if type(value) is list:
        items = [_without_any(item) for item in value]
        return value if all(new is old for new, old in zip(items, value, strict=True)) else items
    if type(value) is dict:
        found = {name: _without_any(item) for name, item in value.items()}
        return value if all(found[name] is value[name] for name in value) else found
    return value


def _without_parts(text: str, spellings: Iterable[str]) -> str:
    """Text without what was cut: a secret's beginning or end, of half of it or more."""
    found = sorted(span for spelling in spellings if len(spelling) >= 2 * SHORTEST for span in _parts(text, spelling))
    told, done = "", 0
    for start, end in found:
        told += text[done:start] + HIDDEN if start > done or not done else ""
        done = max(done, end)
    return told + text[done:]


def _parts(text: str, secret: str) -> Iterator[tuple[int, int]]:
    """Where the first or the last half of a secret is, and as much of the rest as is there."""
    half = (len(secret) + 1) // 2
    start = text.find(secret[:half])
    while start >= 0:
        end = start + _begin_alike(text[start : start + len(secret)], secret)
        yield start, end
        start = text.find(secret[:half], end)
    end = text.find(secret[-half:])
    while end >= 0:
        end += half
        yield end - _begin_alike(text[max(0, end - len(secret)) : end][::-1], secret[::-1]), end
        end = text.find(secret[-half:], end)


def _begin_alike(one: str, other: str) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


@lru_cache(maxsize=MOST_KNOWN)
def _spellings(secret: str) -> tuple[str, ...]:
    """How a secret may be written: the longest first, so that no shorter one leaves a rest of it."""
    raw = secret.encode("utf-8", "surrogatepass")
    quoted = {quote(raw, safe=""), quote(raw), quote_plus(raw)}
    plain = {secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1], html.escape(secret)}
    written = {repr(secret)[1:-1], repr(raw)[2:-1], ascii(secret)[1:-1], raw.hex()}
    lower = {re.sub("%..", lambda found: found[0].lower(), text) for text in quoted}
    spelt = plain | written | quoted | lower | set(_base64s(raw))
    return tuple(sorted((text for text in spelt if len(text) >= SHORTEST), key=len, reverse=True))


def _base64s(raw: bytes) -> Iterator[str]:
    """What is left of a secret in base64, whatever stands before and after it, such as a user's name."""
    for before in range(3):
        start, end = -(-before * 8 // 6), (before + len(raw)) * 8 // 6
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            yield encode(bytes(before) + raw + bytes(2)).decode()[start:end]


def _without_password(found: re.Match[str]) -> str:
    return found[0] if ":" not in found[0][len(found[1]) :] else f"{found[1]}{HIDDEN}@"


def literal_in(fields: Any) -> str | None:
    """The name of a field, however deep, that holds a secret itself: by its usual name, or by the look of it."""
    if isinstance(fields, (list, tuple)):
        return next(filter(None, map(literal_in, fields)), None)
    if not isinstance(fields, Mapping):
        return None
    for name, value in fields.items():
        is_text = isinstance(value, str) and bool(value) and not value.startswith("env:")
        if is_text and (str(name).lower() in SECRET_FIELDS or SECRET_VALUE.search(value)):
            return str(name)
        if (found := literal_in(value)) is not None:
            return found
    return None


def is_likely_secret(name: str, value: str) -> bool:
    """Whether a header's or a query's value may open a door, by its name or its look."""
    words = re.split(r"[^a-z0-9]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower())
    if SECRET_WORDS.intersection(words) or SECRET_VALUE.search(value):
        return True
    pieces = re.findall(r"[A-Za-z0-9_+=-]+", value)
    return any(len(piece) > LONGEST_PLAIN and _is_mixed(piece) for piece in pieces)


def _is_mixed(piece: str) -> bool:
    return any(c.isdigit() for c in piece) and any(c.isalpha() for c in piece)
