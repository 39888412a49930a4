"""Looks through what is stored for what is not signed, and signs it once somebody has looked at it."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from dataclasses import dataclass

from pinnacle.backends.protocol import Seals
from pinnacle.base.errors import ConfigError, Conflict
from pinnacle.base.seal import Sealed

OLD_SECRET = "it was signed with a secret that signs no more"


@dataclass(frozen=True)
class Doubt:
    """A stored record that is not signed as it is to be, and why; ``before``: the one of its kind and name that was
    signed last, of an older version."""

    record: Sealed
    why: str
    before: Sealed | None = None

    @property
    def name(self) -> str:
        return self.record.name

    def shown(self) -> list[str]:
        """What it says, line by line; where an older version is signed, what differs from that."""
        if self.why == OLD_SECRET:
            return []
        now = _lines(self.record)
        if self.before is not None:
            differs = difflib.unified_diff(_lines(self.before), now, "signed before", "stored now", lineterm="", n=1)
            now = list(differs)
        return now


class Trust:
    """What one database holds, as this process's secret sees it. No class is looked up and no file opened for it."""

    def __init__(self, seals: Seals) -> None:
        self._seals = seals

    def doubts(self) -> list[Doubt]:
        """All records that this process would refuse, and those that another secret signed than the first.

        ConfigError without a secret, with which none is refused.
        """
        seal, found, sound = self._seals.seal, list[Doubt](), dict[str, Sealed]()
        if not seal.is_on:
            raise ConfigError("this process has no secret to know signatures by; give it one, by PINNACLE_SECRET")
        for record in self._seals.records():
            name = repr((record.fields.get("kind"), record.fields.get("identifier")))  # which may be no texts
            refusal = seal.refusal(record)
            if refusal is not None:
                found.append(Doubt(record, refusal.why, sound.get(name)))
                continue
            sound[name] = record
            if not seal.is_latest(record):
                found.append(Doubt(record, OLD_SECRET))
        return found

    def sign(self, doubts: Iterable[Doubt]) -> None:
        """Sign records as they were looked at. Conflict that names those that were not signed, once all others are."""
        left = [doubt.name for doubt in doubts if not self._signed(doubt.record)]
        if left:
            raise Conflict(
                f"not signed: {', '.join(left)}: changed while it was looked at, or no definition that pinnacle made; "
                "look again"
            )

    def _signed(self, record: Sealed) -> bool:
        try:
            return self._seals.put(record)
        except (TypeError, ValueError, RecursionError):  # it holds what no record has that was ever signed
            return False


def _lines(record: Sealed) -> list[str]:
    """A record's content, readable; what is JSON text in it laid out."""
    content = {name: _read(value) for name, value in record.fields.items()}
    try:
        return json.dumps(content, indent=1, sort_keys=True, default=str).splitlines()
    except (TypeError, ValueError, RecursionError):  # shown as it stands
        return [repr(dict(record.fields))]


def _read(value: object) -> object:
    try:
        return json.loads(value) if isinstance(value, str) and value[:1] == "{" else value
    except (ValueError, RecursionError):  # shown as it stands
        return value
