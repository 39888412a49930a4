"""The tortured collection on MongoDB: documents, a user's commands, and a read with pinnacle's verdict on its bytes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any
from unittest.mock import patch

import bson
import pymongo
from pymongo.client_session import ClientSession

from benchmarks.torture_models import LANGUAGE
from benchmarks.torture_verdict import Look, Row
from benchmarks.torture_writer import MANY, Change
from pinnacle.backends.mongodb import Collection
from pinnacle.backends.open import open_backend
from pinnacle.base.rows import OutputInfo, OutputSpec
from pinnacle.base.settings import Settings
from pinnacle.db import Database

EVERYTHING = 1_000_000
TOGGLED = {"$cond": [{"$eq": ["$lang", "en"]}, "de", "en"]}


class RolledBack(Exception):
    """Ends a transaction that was to be undone."""


def everything() -> Any:
    return Collection("tickets").find()


def in_language(language: str) -> Any:
    return Collection("tickets").find({"lang": language})


def create(url: str, texts: Sequence[str]) -> None:
    with pymongo.MongoClient[Any](url) as client:
        rows = [{"_id": key, **fresh(text, "en" if key % 3 else "de")} for key, text in enumerate(texts, 1)]
        client.get_default_database().tickets.insert_many(rows)


def fresh(text: str, language: str) -> dict[str, Any]:
    return {"body": text, "lang": language, "votes": 0}


class MongoWrites:
    """See `Writes`. A transaction that meets another is run again, as the manual says it must."""

    def __init__(self, url: str) -> None:
        self._client = pymongo.MongoClient[Any](url)
        self._tickets = self._client.get_default_database().tickets

    def run(self, changes: Sequence[Change], *, commits: bool, pause_s: float) -> list[str]:
        if commits and len(changes) == 1 and changes[0].kind != "move" and not pause_s:
            return [body for body in self._run(changes[0], None) if body is not None]

        def work(session: ClientSession) -> list[str]:
            found = [body for change in changes for body in self._run(change, session) if body is not None]
            time.sleep(pause_s)
            if not commits:
                raise RolledBack
            return found

        with self._client.start_session() as session:
            try:
                return session.with_transaction(work)
            except RolledBack:
                return []

    def empty(self) -> None:
        self._tickets.delete_many({})

    def _run(self, change: Change, session: ClientSession | None) -> list[str | None]:
        """One command, or two; the bodies of documents whose outputs it took away."""
        which, tickets = {"_id": change.key}, self._tickets
        match change.kind:
            case "insert":
                tickets.insert_one({"_id": change.to, **fresh(change.text, change.language)}, session=session)
            case "delete":
                tickets.delete_one(which, session=session)
            case "upsert":
                row = fresh(change.text, change.language)
                tickets.replace_one(which, row, upsert=True, session=session)
            case "many":
                keys = {"_id": {"$gte": change.key, "$lt": change.key + MANY}}
                body = {"$concat": [change.text, " ", {"$toString": "$_id"}]}
                tickets.update_many(keys, [{"$set": {"body": body}}], session=session)
            case "replace":
                return self._replace(which, session)
            case "move":
                return self._move(change, session)
            case _:
                return self._update(change, session)
        return []

    def _update(self, change: Change, session: ClientSession | None) -> list[str | None]:
        text = change.text
        updates: dict[str, Any] = {
            "update": {"$set": {"body": text}},
            "noop": [{"$set": {"body": "$body"}}],
            "unrelated": {"$inc": {"votes": 1}},
            "null": {"$set": {"body": None}},
            "language": [{"$set": {"lang": TOGGLED}}],
            "overwrite summary": {"$set": {"summary": text}},
            "blank summary": {"$unset": {"summary": True}},
            "overwrite headline": {"$set": {"headline": text}},
            "save old": {"$set": {"body": text, "summary": text, "headline": text}},
        }
        found = self._tickets.find_one_and_update({"_id": change.key}, updates[change.kind], session=session)
        takes_away = change.kind in ("language", "overwrite summary", "blank summary", "overwrite headline")
        return [found["body"]] if found and takes_away else []

    def _replace(self, which: dict[str, Any], session: ClientSession | None) -> list[str | None]:
        """Save a document as a program does that knows nothing of its outputs."""
        found = self._tickets.find_one(which, {"body": 1, "lang": 1, "votes": 1}, session=session)
        if found is None or not self._tickets.replace_one(which, found, session=session).matched_count:
            return []
        return [found["body"]]

    def _move(self, change: Change, session: ClientSession | None) -> list[str | None]:
        """A key cannot be changed: the document is deleted and inserted again under another."""
        found = self._tickets.find_one_and_delete({"_id": change.key}, session=session)
        if found is None:
            return []
        self._tickets.insert_one({**found, "_id": change.to}, session=session)
        return [found["body"]]


class MongoSight:
    """One listener's documents and pinnacle's verdict on the very bytes of them that it hashed."""

    def __init__(self, url: str, output: str, language: str | None) -> None:
        self._backend: Any = open_backend(url, Settings())
        info: OutputInfo = next(info for info in self._backend.outputs.all() if info.name == output)
        source = self._backend.resolve(in_language(language) if language else everything(), info.fields)
        spec = OutputSpec(name=info.name, type=info.type, model=info.model, version=info.version, fields=info.fields)
        self._target, self._is_filtered = self._backend.bind(source, spec, create=False), language is not None

    def look(self) -> Look:
        wire, seen = self._target._wire, list[bytes]()
        read = wire.rows

        def rows(*arguments: Any) -> list[bytes]:
            found: list[bytes] = read(*arguments)
            seen.extend(found)
            return found

        with patch.object(wire, "rows", rows):
            page = self._target.read(None, EVERYTHING)
        found = {row["_id"]: self._row(row.get("i0"), row.get("o")) for row in bson.decode_all(b"".join(seen))}
        return Look(self._unmatched() | found, set(page.keys), page.read, page.set_aside)

    def _row(self, source: Any, output: Any) -> Row:
        return Row(None, LANGUAGE, source, output) if self._is_filtered else Row(source, LANGUAGE, output, None)

    def _unmatched(self) -> dict[Any, Row]:
        """Documents that are not selected and have an output still."""
        if not self._is_filtered:
            return {}
        condition = {"lang": {"$ne": LANGUAGE}, "headline": {"$ne": None}}
        return {row["_id"]: row_of(row) for row in self._backend.engine.tickets.find(condition)}

    def orphans(self) -> list[Any]:
        return list(self._target.orphans(None, None, selected=True))

    def close(self) -> None:
        self._backend.close()


def row_of(row: dict[str, Any]) -> Row:
    return Row(row.get("body"), row["lang"], row.get("summary"), row.get("headline"))


def leftovers(db: Database) -> dict[str, int]:
    """What must be 0 once nothing is left to do, by name."""
    kept = [n for n in db.engine.list_collection_names() if n.startswith("pinnacle_work_") or n == "pinnacle_lease"]
    return {name: int(db.engine[name].count_documents({})) for name in kept}


def final_rows(db: Database) -> dict[Any, Row]:
    return {row["_id"]: row_of(row) for row in db.engine.tickets.find()}
