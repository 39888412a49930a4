"""Queries at rest: those of datasets as they are stored, and those of runs as their lineage tells of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from pinnacle.backends.protocol import Backend
from pinnacle.base.errors import ComponentError, UnsupportedQuery
from pinnacle.base.rows import Fields
from pinnacle.catalog.bodies import MAX_INLINE_BYTES
from pinnacle.components.dataset import Dataset

NO_FIELDS = Fields(())


def stored_dataset(backend: Backend, dataset: Dataset) -> Dataset:
    """The dataset as it is stored: its select as plain values, its fields by the database's names.

    Raises what `Backend.resolve` raises where the query or the fields cannot be read.
    """
    source = backend.resolve(dataset.select, NO_FIELDS if dataset.X is None else Fields.of(dataset.X), checked=True)
    select = dict(dataset.select) if isinstance(dataset.select, Mapping) else backend.freeze(source, limited=True)
    return dataclasses.replace(dataset, select=select, X=None if dataset.X is None else source.fields.to_json())


def told_query(backend: Backend, select: Any, fields: Fields) -> dict[str, Any]:
    """A query as plain values; its text where it cannot be stored."""
    if isinstance(select, Mapping):
        return dict(select)
    try:
        told = backend.freeze(backend.resolve(select, fields), limited=True)
    except (UnsupportedQuery, ComponentError):
        return {"text": str(select)}
    is_large = any(isinstance(value, bytes) and len(value) > MAX_INLINE_BYTES for value in told.values())
    return {"text": str(select)} if is_large else told
