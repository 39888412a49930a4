"""Removes a component, and with a model the outputs and runs that it has made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pinnacle.backends.protocol import Backend
from pinnacle.base.errors import Conflict
from pinnacle.catalog.catalog import Catalog
from pinnacle.catalog.history import History
from pinnacle.components.listener import Listener
from pinnacle.components.model import Model
from pinnacle.components.run import Run
from pinnacle.runtime.listeners import Listeners


@dataclass(frozen=True)
class Removal:
    """See `remove`; each kind of component knows what goes with it."""

    backend: Backend
    catalog: Catalog
    history: History
    listeners: Listeners

    def remove(
        self, kind: str, identifier: str, version: int | None, *, outputs: Literal["refuse", "keep", "drop"]
    ) -> None:
        """See `Database.remove`."""
        if kind == Listener.kind:
            self.listeners.remove(identifier, version)
        elif kind == Run.kind:
            self.history.remove(identifier, version)
        elif kind == Model.kind:
            self._remove_model(identifier, version, outputs)
        else:
            self.catalog.check_removable(kind, identifier, version)
            self.catalog.remove(kind, identifier, version)

    def _remove_model(self, identifier: str, version: int | None, outputs: str) -> None:
        made = [info for info in self.backend.outputs.of(identifier) if version in (None, info.version)]
        self.catalog.check_removable(Model.kind, identifier, version)
        self.history.check_idle(identifier)
        if made and outputs == "refuse":
            named = ", ".join(f"{info.table}.{info.name}" for info in made)
            raise Conflict(
                f"model {identifier!r} keeps {named}; pass outputs='keep' to leave the values and forget how they were "
                "made, or outputs='drop' to drop them too",
                outputs=[f"{info.table}.{info.name}" for info in made],
            )
        for info in made:
            self.backend.outputs.forget(info.id, drop_column=outputs == "drop")
        self.catalog.remove(Model.kind, identifier, version)
        if not self.catalog.versions(Model.kind, identifier):
            self.history.remove_unused(identifier)
