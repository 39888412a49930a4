"""Listeners that follow their models: which of them are behind, and what each is like once it has moved on."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from pinnacle.base.errors import ComponentError, MissingPlugin
from pinnacle.base.listeners import ListenerRecord
from pinnacle.base.rows import Record
from pinnacle.catalog.catalog import Catalog, component_named
from pinnacle.components.listener import Listener
from pinnacle.components.model import Model


@dataclass(frozen=True)
class Standing:
    """The model that a registered listener computes with, in which version, and whether it follows that."""

    model: str
    version: int
    is_following: bool


class Standings:
    """Where the listeners of one database stand beside the newest versions of their models.

    What a version of a listener says is looked up once, and the newest versions of all
    models that are followed in one query.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._known: dict[int, tuple[str, int, Standing]] = {}

    def standing(self, record: ListenerRecord) -> Standing | None:
        """What the version in the registry computes with; None where the catalog has it no longer, or none that may be
        used, of which whoever loads it is told."""
        identifier, version, found = self._known.get(record.output, (None, None, None))
        if (identifier, version) != (record.identifier, record.version):
            stored = self._catalog.store.get(Listener.kind, record.identifier, record.version)
            if stored is None:
                return None
            try:
                found = _standing_in(stored)
            except ComponentError:
                return None
            self._known[record.output] = (record.identifier, record.version, found)
        return found

    def keep_only(self, outputs: Collection[int]) -> None:
        """Forget listeners that were removed: another may come under the name, and begin at version 0 again."""
        for output in self._known.keys() - outputs:
            self._known.pop(output, None)

    def behind(self, records: Collection[ListenerRecord]) -> dict[int, int]:
        """The newest version of its model for each listener that follows it and is at an older one, by output."""
        standings = {record.output: self.standing(record) for record in records}
        following = {output: found for output, found in standings.items() if found is not None and found.is_following}
        newest = self._newest({found.model for found in following.values()})
        news = {output: newest.get(found.model, found.version) for output, found in following.items()}
        return {output: version for output, version in news.items() if version > following[output].version}

    def moved(self, record: ListenerRecord, version: int, here: Listener | None) -> tuple[Listener, bool] | None:
        """A registered listener with its model in ``version``, and whether parts of it are pickled.

        ``here``: the listener as this process added it, if it did. None for one that does not
        follow any more. Raises what loading a component raises.
        """
        stored = self._catalog.record(Listener.kind, record.identifier, record.version)
        if not (standing := _standing_in(stored)).is_following:
            return None
        model = self._load(standing.model, version)
        listener: Listener = here or self._catalog.load_with(model, stored)  # type: ignore[assignment]
        return replace(listener, model=model), bool(stored.body.get("pickles"))

    def model_for(self, listener: Listener, registered: ListenerRecord | None) -> Model | None:
        """The stored model that a listener is to have that is about to be added; None where its own is to be stored.

        One that follows gets the newest version, and one that followed until now the version
        that it has got to, in the place of a model that is stored, as it is now, in an older
        version: being added takes no listener back.
        """
        model: Model | None = listener.model
        wanted = None if model is None else self._wanted(listener, model.identifier, registered)
        if model is None or wanted is None or (held := self._catalog.version_of(model)) is None:
            return None
        if held >= wanted:
            model.version = held
            return model
        try:
            return self._load(model.identifier, wanted)
        except (ComponentError, MissingPlugin) as error:
            raise ComponentError(
                f"the listener is to compute with version {wanted} of model {model.identifier!r}, not with version "
                f"{held} that it was given, and that cannot be loaded here: {error}; to go back to the one that was "
                "given, make it the newest with db.add(model)"
            ) from error

    def _wanted(self, listener: Listener, model: str, registered: ListenerRecord | None) -> int | None:
        """The version of its model that a listener is not to fall behind, where there is one."""
        if listener.is_following:
            return self._newest({model}).get(model)
        standing = None if registered is None else self.standing(registered)
        if standing is None or not standing.is_following or standing.model != model:
            return None
        return standing.version

    def _newest(self, models: Collection[str]) -> dict[str, int]:
        return self._catalog.newest(Model.kind, models) if models else {}

    def _load(self, identifier: str, version: int) -> Model:
        found: Model = self._catalog.load(Model.kind, identifier, version)  # type: ignore[assignment]
        return found


def _standing_in(stored: Record) -> Standing:
    fields = stored.body["fields"]
    _, model, version = component_named(fields.get("model"))
    return Standing(model, version, fields.get("follow") == "latest")
