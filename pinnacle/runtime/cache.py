"""Answers that were paid for, kept in the database: an input that was answered once is not paid for again.

An entry goes by the inputs, the model and its version, and the keywords. It is committed
before the output is written, so that neither a crash nor a row that changed meanwhile loses it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

from pinnacle.backends.protocol import Backend
from pinnacle.base.encoding import identity_digest
from pinnacle.base.rows import OutputInfo
from pinnacle.base.types import OutputType, dump_json
from pinnacle.components.model import Model


class ResultCache:
    """The kept answers of one model under one set of keywords."""

    def __init__(self, backend: Backend, kind: OutputType, scope: str, ttl_s: float) -> None:
        self._backend, self._kind, self._ttl_s = backend, kind, ttl_s
        self._key = blake2b(scope.encode(), digest_size=32).digest()

    @classmethod
    def of(cls, backend: Backend, model: Model, info: OutputInfo, ttl_s: float) -> ResultCache | None:
        """The cache for a prediction; None for models that cost nothing, and where nothing is to be kept."""
        if not model.is_paid or ttl_s <= 0 or not info.type.is_cached:
            return None
        scope = json.dumps([model.identifier, info.version, info.parameters, info.fields.to_json(), str(info.type)])
        return cls(backend, info.type, scope, ttl_s)

    def get(self, identities: Sequence[Any]) -> list[Any]:
        """The kept answer for each input, in order; None where there is none."""
        digests = [identity_digest(identity, key=self._key) for identity in identities]
        found = self._backend.ledger.cached(digests)
        return [self._read(found[digest]) if digest in found else None for digest in digests]

    def put(self, identities: Sequence[Any], outputs: Sequence[Any]) -> None:
        """Keep answers; committed when it returns."""
        entries = {
            identity_digest(identity, key=self._key): dump_json(output)
            for identity, output in zip(identities, outputs, strict=True)
            if output is not None
        }
        self._backend.ledger.cache(entries, self._ttl_s)

    def _read(self, text: str) -> Any:
        return self._kind.check(json.loads(text))
