"""Reads what goes into prompts from the database: context, and few-shot examples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pinnacle.backends.protocol import Backend, Capability
from pinnacle.base.errors import ConfigError, UnknownField


def with_queries(
    backend: Backend, parameters: Mapping[str, Any], context_select: Any, context_key: Any, example_keys: Any
) -> dict[str, Any]:
    """``parameters`` with ``context`` and ``examples`` read by their queries, where these were given.

    A context query gives one text a row: its column or field ``context_key``, else its first column. Examples
    are (input, answer) pairs: the fields ``example_keys``, else the first two columns.
    """
    found = dict(parameters)
    if context_select is not None:
        if "context" in found:
            raise ConfigError("context= and context_select= are two ways to give one thing; pass one of them")
        keys = None if context_key is None else (context_key,)
        found["context"] = [_text(value) for (value,) in _read(backend, context_select, keys, 1, "context_key")]
    elif context_key is not None:
        raise ConfigError("context_key= names the field of context_select=, which was not given")
    if backend.owns(found.get("examples")):
        pairs = _read(backend, found["examples"], example_keys, 2, "example_keys")
        found["examples"] = [[_text(asked), _text(answered)] for asked, answered in pairs]
    elif example_keys is not None:
        raise ConfigError("example_keys= names the fields of examples= that is a query, which was not given")
    return found


def _read(backend: Backend, query: Any, keys: Any, count: int, option: str) -> list[tuple[Any, ...]]:
    """So many values a row, NULLs left out."""
    if keys is not None and (len(keys) != count or not all(isinstance(key, str) for key in keys)):
        raise ConfigError(f"{option}= names {count} field{'s' if count > 1 else ''} of the query, not {keys!r}")
    if not backend.owns(query):
        raise ConfigError(f"{type(query).__name__} is no query of this database")
    if Capability.SQL in backend.capabilities:
        rows = _of_columns(backend.execute(query), keys, count)
    else:
        if keys is None:
            raise ConfigError(f"pass {option}=, the fields to read of each document")
        documents = list(backend.execute(query))
        rows = [tuple(_at(document, key) for key in keys) for document in documents]
        for position, key in enumerate(keys):
            if documents and all(row[position] is None for row in rows):
                raise UnknownField(key, "each of the query's documents", documents[0].unpack())
    return [row for row in rows if all(value is not None for value in row)]


def _of_columns(result: Any, keys: Any, count: int) -> list[tuple[Any, ...]]:
    names = list(result.keys())
    if keys is None:
        if len(names) < count:
            raise ConfigError(f"the query gives {len(names)} column, and {count} are needed")
        return [tuple(row[:count]) for row in result]
    for key in keys:
        if key not in names:
            raise UnknownField(key, "the query's result", names)
    positions = [names.index(key) for key in keys]
    return [tuple(row[i] for i in positions) for row in result]


def _at(document: Any, path: str) -> Any:
    value = document.unpack()
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else str(value)
