"""The catalog of outputs: which model fills which field of which collection, in which version.

One document of ``pinnacle_output`` an output; its bookkeeping is in ``pinnacle_state_<id>``,
one document a row, under the row's own ``_id``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from pinnacle.backends.mongodb.query import Collection, Find, Query
from pinnacle.backends.mongodb.target.locations import check_location, require_side, require_type
from pinnacle.backends.mongodb.target.places import forget_place, is_made, is_proven, say_place
from pinnacle.backends.mongodb.target.records import info_of, infos_of
from pinnacle.backends.mongodb.target.side_collection import VALUE, SideCollection
from pinnacle.backends.mongodb.target.source import MongoSource
from pinnacle.backends.mongodb.wire.stored_collection import StoredCollection
from pinnacle.backends.mongodb.wire.wire import Wire
from pinnacle.base.document import MISSING, OUTPUTS_FIELD, StoredAt, default_output_path
from pinnacle.base.errors import BackendError, Conflict
from pinnacle.base.refusals import no_output, not_proven, require_newest, require_owner, require_same_items
from pinnacle.base.rows import Fields, Key, OutputInfo, OutputSpec
from pinnacle.base.told import logger
from pinnacle.base.types import Items

log = logger(__name__)

REGISTRY, STATE_PREFIX, COUNTERS = "pinnacle_output", "pinnacle_state_", "pinnacle_migration"


def state_table(output: int) -> str:
    """The collection of one output's bookkeeping."""
    return f"{STATE_PREFIX}{output}"


@dataclass(frozen=True)
class OutputRegistry:
    """See `Outputs`, all of it but `forget`. The outputs of one database."""

    wire: Wire

    def all(self) -> list[OutputInfo]:
        return self._where({})

    def of(self, model: str) -> list[OutputInfo]:
        return self._where({"model": model})

    def on(self, table: str) -> list[OutputInfo]:
        """The outputs of a collection's documents, oldest first."""
        return self._where({"collection": table})

    def get(self, output: int) -> OutputInfo:
        entry = self._registry.find_one({"_id": output})
        if entry is None:
            raise no_output(output)
        return info_of(entry)

    def find(self, entity: Any, fields: Fields, model: str) -> OutputInfo | None:
        """The newest output of ``model`` on ``fields`` of a collection, given by name, Collection or query."""
        found = self._where({"collection": _table_of(entity), "model": model})
        return next((info for info in reversed(found) if info.fields == fields), None)

    def column(self, entity: Any, info: OutputInfo) -> str:
        """The output's path, as filters and projections take it; of a side output the one in its collection."""
        return VALUE if info.side else info.name

    def rows(self, info: OutputInfo) -> Find:
        return Collection(info.table).find()

    def holds(self, table: str, path: str) -> bool:
        """Whether a path of a collection is an output's field, or within one."""
        fields = [info for info in self.on(table) if info.side is None]
        return any(f"{path}.".startswith(f"{info.name}.") for info in fields)

    def locator(self, table: str) -> Locator:
        """What documents of ``table`` ask for their outputs' places."""
        return Locator(self, table)

    def plan(self, source: MongoSource, spec: OutputSpec) -> list[str]:
        """What `bind` would do; raises what it would raise."""
        path = spec.name or default_output_path(spec.fields, spec.model)
        existing = self._checked(source, spec, path)
        if existing is None:
            is_side = isinstance(spec.type, Items)
            place = f"collection {path!r} beside {source.table!r}" if is_side else f"field {path!r} of {source.table!r}"
            return [
                f"insert into {REGISTRY}: {place} holds {spec.type} outputs "
                f"of model {spec.model!r} version {spec.version}",
                f"create collection {STATE_PREFIX}<id>",
                *(SideCollection(self.wire, source.table, path).statements() if is_side else ()),
            ]
        if existing.version < spec.version:
            return [f"update {REGISTRY}: raise output {existing.id} from version {existing.version} to {spec.version}"]
        return []

    def bind(self, source: MongoSource, spec: OutputSpec, *, create: bool) -> OutputInfo:
        """The output for ``spec``, registered if it is new; an unregistered one has id 0."""
        path = spec.name or default_output_path(spec.fields, spec.model)
        existing = self._checked(source, spec, path)
        if not create:
            unmade = OutputInfo.unmade(source.table, replace(spec, name=path), created_column=True)
            return replace(unmade, id=existing.id, created_column=existing.created_column) if existing else unmade
        if existing is None:
            existing = self._register(source, spec, path)
        elif not is_proven(self.wire, existing):
            say_place(self.wire, existing, made=False)
        self.wire.create(state_table(existing.id))
        if existing.side is not None:
            self.side_of(existing).create()
        self._raise_version(existing, spec)
        return self.get(existing.id)

    def foreign(self, source: MongoSource, spec: OutputSpec) -> int:
        """Values in the output's field, null apart, as long as nothing is recorded of it."""
        if isinstance(spec.type, Items):
            return 0
        path = spec.name or default_output_path(spec.fields, spec.model)
        existing = next((info for info in self.on(source.table) if info.name == path), None)
        check_location(source, path, ())  # what no field can be called no query can ask for
        if existing is not None and self.wire.collection(state_table(existing.id)).find_one({}) is not None:
            return 0
        # A list with a null in it is, as a condition, taken for null.
        held = [{path: {"$ne": None}}, {f"{path}.0": {"$exists": True}}]
        return self.wire.collection(source.table).count({"$or": held})

    def remove(self, output: int) -> None:
        """Take an output out of the registry and drop its bookkeeping."""
        self.wire.collection(state_table(output)).drop()
        forget_place(self.wire, output)
        self._registry.delete_one({"_id": output})

    def is_made(self, info: OutputInfo) -> bool:
        """Whether pinnacle made the field or side collection of an output, and not only its registry says so."""
        is_ours = info.created_column and is_made(self.wire, info)
        if info.created_column and not is_ours:
            log.warning("%s.%s stays: nothing proves that pinnacle made it", info.table, info.name)
        return is_ours

    def clear_values(self, info: OutputInfo) -> None:
        """Unset the output's field in every document, and the parents in ``_outputs`` that this leaves empty;
        drop a side collection."""
        if info.side is not None:
            self.side_of(info).drop()
            return
        collection = self.wire.collection(info.table)
        collection.update_many({info.name: {"$exists": True}}, {"$unset": {info.name: ""}})
        parents = info.name.split(".")[:-1] if info.name.startswith(f"{OUTPUTS_FIELD}.") else []
        for depth in range(len(parents), 0, -1):
            parent = ".".join(parents[:depth])
            collection.update_many({parent: {}}, {"$unset": {parent: ""}})

    def side_of(self, info: OutputInfo) -> SideCollection:
        """The collection of a side output."""
        return SideCollection(self.wire, info.table, info.name)

    def items_of(self, info: OutputInfo, key: Key) -> Any:
        """The values of a side output for one document; MISSING where nothing was computed."""
        found = self.side_of(info).values(key)
        if not found and self.wire.collection(state_table(info.id)).find_one({"_id": key, "f": None}) is None:
            return MISSING
        return found

    def _where(self, condition: Mapping[str, Any]) -> list[OutputInfo]:
        return infos_of(self._registry.find(condition, sort=[("_id", 1)]))

    @property
    def _registry(self) -> StoredCollection:
        return self.wire.collection(REGISTRY)

    def _checked(self, source: MongoSource, spec: OutputSpec, path: str) -> OutputInfo | None:
        """The registered output at ``path``, after every check that can refuse ``spec``."""
        others = self.on(source.table)
        existing = next((info for info in others if info.name == path), None)
        is_side = isinstance(spec.type, Items)
        if existing is not None:
            require_owner(existing, spec)
            if not spec.adopt and not is_proven(self.wire, existing):
                raise not_proven(existing)
            if is_side or existing.side:
                require_same_items(existing, spec)
        if is_side:
            require_side(self.wire, source.table, path, is_ours=existing is not None)
        else:
            fields = [info.name for info in others if info.name != path and info.side is None]
            check_location(source, path, fields)
            if existing is None or existing.type != spec.type:
                require_type(self.wire, source.table, path, spec.type)
        return existing

    def _register(self, source: MongoSource, spec: OutputSpec, path: str) -> OutputInfo:
        made = path.startswith(f"{OUTPUTS_FIELD}.") or isinstance(spec.type, Items)
        made = made or not self.wire.collection(source.table).has_field(path)
        entry = {
            "_id": self._next_id(), "collection": source.table, "path": path, "model": spec.model,
            "version": spec.version, "type": spec.type.to_json(),
            "fields": {"paths": list(spec.fields.paths), "arguments": _listed(spec.fields.arguments)},
            "created": made, "released": 0, "locked_until": None,
        }  # fmt: skip
        info = info_of(entry)
        say_place(self.wire, info, made=made)
        if self._registry.insert_new(entry):
            return info
        forget_place(self.wire, info.id)
        won = self._checked(source, spec, path)  # another process was faster
        if won is None:
            raise Conflict(f"another process made and removed the output in {path!r} of {source.table!r} just now")
        return won

    def _next_id(self) -> int:
        """Ids are never used twice: a prediction that still holds a removed output must not meet another's rows."""
        last = {"_id": "last output id"}
        entry = self.wire.collection(COUNTERS).update_and_get(last, {"$inc": {"value": 1}}, upsert=True)
        if entry is None:
            raise BackendError("MongoDB gave no number to the new output")
        number, highest = int(entry["value"]), self._highest_id()
        if number > highest:
            return number
        self.wire.collection(COUNTERS).update_one(last, {"$max": {"value": highest}})  # the counter was dropped by hand
        return self._next_id()

    def _highest_id(self) -> int:
        """The highest number that an output has, or that something of one is left of."""
        newest = list(self._registry.find({}, {"_id": 1}, sort=[("_id", -1)], limit=1))
        left = (re.fullmatch(r"pinnacle_(?:state|work|place)_(\d+)", name) for name in self.wire.names())
        return max([*(entry["_id"] for entry in newest), *(int(match[1]) for match in left if match)], default=0)

    def _raise_version(self, existing: OutputInfo, spec: OutputSpec) -> None:
        change = {"version": spec.version, "type": spec.type.to_json()}
        self._registry.update_one({"_id": existing.id, "version": {"$lte": spec.version}}, {"$set": change})
        require_newest(existing, spec.version, self.version_of(existing.id))

    def version_of(self, output: int) -> int | None:
        """The newest version that fills an output; None where it is gone."""
        entry = self._registry.find_one({"_id": output}, {"version": 1})
        return None if entry is None else int(entry["version"])


@dataclass
class Locator:
    """Finds outputs' places for the documents of one result; asks the database once."""

    outputs: OutputRegistry
    table: str
    _known: list[OutputInfo] | None = None

    def __call__(self, fields: Fields, model: str) -> list[StoredAt]:
        if self._known is None:
            self._known = self.outputs.on(self.table)
        return list(self._places(self._known, fields, model))

    def _places(self, known: list[OutputInfo], fields: Fields, model: str) -> Iterator[StoredAt]:
        for info in reversed(known):
            if info.model == model and info.fields == fields:
                fetch = partial(self.outputs.items_of, info) if info.side else None
                yield StoredAt(info.name, info.type.stored.on_mongodb().decode, fetch)


def _table_of(entity: Any) -> str:
    if isinstance(entity, Collection):
        return entity.name
    return entity.collection if isinstance(entity, Query) else str(entity)


def _listed(values: tuple[str, ...] | None) -> list[str] | None:
    return None if values is None else list(values)
