"""Signs what is stored of definitions with a secret of the process, and tells what is not as it was signed.

Who may write pinnacle's tables cannot sign. What they change, copy to another name or put in is refused before a class
is looked up, a file is opened or SQL is made of it. What they delete, and a record put back that was signed for the
same place before, no signature can tell.
"""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pinnacle.base.errors import ConfigError, NotAuthenticated
from pinnacle.base.secret_file import SecretFile, missing, usual_path
from pinnacle.base.settings import NO_SECRET_FILE, Settings
from pinnacle.base.told import logger

FORM = "1"
MIN_SECRET = 16

log = logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Sealed:
    """A stored record as it is signed.

    ``table``: the one that it is in. ``name``: what people call it. ``fields``: all that is signed of it, its place
    among them, as plain values. ``mac``: the signature that is stored beside it.
    """

    table: str
    name: str
    fields: Mapping[str, Any]
    mac: Any

    @property
    def content(self) -> bytes:
        """The one text of its table and fields. ValueError or the like for what none that was signed could have."""
        found = [self.table, dict(self.fields)]
        return json.dumps(found, sort_keys=True, ensure_ascii=True, separators=(",", ":"), allow_nan=False).encode()


@dataclass(frozen=True)
class Key:
    """One secret. ``mark`` tells it from others and tells nothing of it."""

    secret: bytes = field(repr=False)

    @cached_property
    def mark(self) -> str:
        return hmac.digest(self.secret, b"pinnacle key", "sha256").hex()[:8]

    def signature(self, record: Sealed) -> str:
        content = b"pinnacle record\n" + record.content
        return f"{FORM}:{self.mark}:{hmac.digest(self.secret, content, 'sha256').hex()}"


class Seal:
    """What one process signs with and checks by, for one database: secrets, of which the first signs.

    Without secrets and without a file nothing is signed, and all is taken as it is.
    """

    def __init__(self, secrets: str | None = None, file: SecretFile | None = None) -> None:
        self._keys = [] if secrets is None else keys_of(secrets, "PINNACLE_SECRET")
        self._file = file if secrets is None else None

    @classmethod
    def of(cls, settings: Settings, *, is_embedded: bool) -> Seal:
        """As the settings say: ``PINNACLE_SECRET``, else a file of that; a database that is embedded has a file of its
        own accord."""
        named = settings.secret_file
        if settings.secret is not None or named == NO_SECRET_FILE:
            return cls(settings.secret)
        if named is not None:
            file = SecretFile(named, may_make=False)
            if not file.can_be_had():
                raise missing(named)
            return cls(file=file)
        path = usual_path() if is_embedded else None
        usual = None if path is None else SecretFile(path, may_make=True)
        if usual is None or not usual.can_be_had():
            if is_embedded:
                log.warning("no secret can be kept in %s: definitions are not authenticated", path or "a home")
            return cls()
        return cls(file=usual)

    @property
    def is_on(self) -> bool:
        """Whether there is a secret, or a place for one."""
        return bool(self._keys) or self._file is not None

    @property
    def source(self) -> str:
        """Where the secret is from."""
        return "PINNACLE_SECRET" if self._file is None else str(self._file.path)

    def sign(self, record: Sealed) -> str | None:
        """The signature of a record; None where nothing is signed."""
        if not self.is_on:
            return None
        return self._known(make=True)[0].signature(record)

    def refusal(self, record: Sealed) -> NotAuthenticated | None:
        """Why nothing of a record is to be used; None where it is as it was signed, or nothing is."""
        if not self.is_on:
            return None
        why = self._why_not(record)
        return None if why is None else NotAuthenticated(record.name, why)

    def is_latest(self, record: Sealed) -> bool:
        """Whether the secret that signs now has signed a record, and none before it."""
        keys = self._known()
        return bool(keys) and _is_signed(record, keys[0])

    def _why_not(self, record: Sealed) -> str | None:
        if record.mac in (None, ""):
            return "it is not signed: it was made by a process without the secret, or before definitions were signed"
        keys = self._known()
        if any(_is_signed(record, key) for key in keys):
            return None
        if any(str(record.mac).startswith(f"{FORM}:{key.mark}:") for key in keys):
            return "it has been changed, or moved from elsewhere, since it was signed"
        return f"it was signed with another secret than the one of this process ({self.source})"

    def _known(self, *, make: bool = False) -> Sequence[Key]:
        if not self._keys and self._file is not None:
            found = self._file.read_or_make() if make else self._file.read()
            self._keys = [] if found is None else keys_of(found, str(self._file.path))
        return self._keys


NO_SEAL = Seal()
"""Signs nothing, and takes all as it is."""


def _is_signed(record: Sealed, key: Key) -> bool:
    try:
        expected = key.signature(record)
    except (TypeError, ValueError, RecursionError):  # what no record has that was ever signed
        return False
    return hmac.compare_digest(expected.encode(), str(record.mac).encode("utf-8", "replace"))


def keys_of(text: str, source: str) -> list[Key]:
    """The secrets in a text, with commas or white space between them, the one that signs first."""
    found = [part for part in re.split(r"[\s,]+", text) if part]
    if not found or any(len(part) < MIN_SECRET for part in found):
        raise ConfigError(
            f"{source} holds one secret, or several with commas between them, each of {MIN_SECRET} characters or more; "
            "make one: python -c 'import secrets; print(secrets.token_hex(32))'"
        )
    return [Key(part.encode("utf-8", "surrogatepass")) for part in found]
