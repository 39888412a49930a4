"""MongoDB and mongomock: queries, and the backend that fills fields of the user's documents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pinnacle.backends.mongodb.query import Collection

__all__ = ["Collection"]


def __getattr__(name: str) -> Any:
    if name == "Collection":
        from pinnacle.backends.mongodb.query import Collection

        return Collection
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
