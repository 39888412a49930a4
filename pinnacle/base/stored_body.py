"""A component's body as a database has it: read when something of it is first asked for, and only if it may be used."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

from pinnacle.base.errors import ComponentError


class StoredBody(Mapping[str, Any]):
    """The JSON object in ``text``. ``refusal``, where there is one, is raised in its place; ComponentError with its
    ``name`` where the text is no such object. What stands beside a body that is broken can so be listed."""

    def __init__(self, name: str, text: Any, refusal: ComponentError | None = None) -> None:
        self._name, self._text, self._refusal = name, text, refusal

    def __getitem__(self, key: str) -> Any:
        return self._read[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read)

    def __len__(self) -> int:
        return len(self._read)

    @cached_property
    def _read(self) -> Mapping[str, Any]:
        if self._refusal is not None:
            raise self._refusal
        try:
            found = json.loads(self._text)
        except (TypeError, ValueError, RecursionError) as error:
            raise self._broken() from error
        if not isinstance(found, dict) or not isinstance(found.get("fields"), dict):
            raise self._broken()
        return found

    def _broken(self) -> ComponentError:
        return ComponentError(f"{self._name} is broken, for what is stored of it is no component; remove it")
