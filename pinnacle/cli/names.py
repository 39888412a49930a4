"""Names that an option takes: one that nothing goes by is an error, not an empty answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pinnacle.base.errors import NotFound
from pinnacle.base.near import did_you_mean

if TYPE_CHECKING:
    from pinnacle.db import Database


def check_model(db: Database, name: str | None) -> None:
    """NotFound for a model that is neither stored, nor has outputs or costs left from when it was."""
    if name is None:
        return
    known = {*db.show("model"), *(output.model for output in db.outputs()), *(row.model for row in db.usage())}
    if name not in known:
        hint = did_you_mean(name, known, none="there is none yet: db.add(...) stores one")
        raise NotFound(f"there is no model {name!r}; {hint}")
