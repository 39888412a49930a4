"""What somebody tries who may write pinnacle's tables: what is changed, and what the operator must be told."""

from __future__ import annotations

import base64
import hashlib
import json
import pickle
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.security.scene import VICTIM

Path_ = Sequence[str | int]
ESCAPES = "\x1b]0;title\x07\x1b[2Jall is well\nListeners (0) forged line\x9b5m"
MARK = "code-ran"


def lay_decoys(folder: Path) -> None:
    """Write modules that nobody meant; each leaves a mark when it is imported."""
    elsewhere(folder).mkdir()
    for place, name in ((folder, "setup"), (folder, "__main__"), (elsewhere(folder), "evil_neighbour")):
        (place / f"{name}.py").write_text(f"open({str(folder / MARK)!r}, 'w').close()\n")


def elsewhere(folder: Path) -> Path:
    """A folder of Python's path that is not where the operator works."""
    return folder.with_name(f"{folder.name}-elsewhere")


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return open, (str(self.path), "w")


@dataclass(frozen=True)
class Edit:
    """One value of one of pinnacle's records, at ``path`` inside its JSON, becomes ``value``."""

    table: str
    where: str
    column: str
    value: Any
    path: Path_ = ()

    def make(self, file: Path) -> None:
        with closing(sqlite3.connect(file)) as raw, raw:
            for rowid, old in raw.execute(
                f"SELECT rowid, {self.column} FROM {self.table} WHERE {self.where}"
            ).fetchall():
                new = json.dumps(changed(json.loads(old), self.path, self.value)) if self.path else self.value
                raw.execute(f"UPDATE {self.table} SET {self.column} = ? WHERE rowid = ?", (new, rowid))


def changed(content: Any, path: Path_, value: Any) -> Any:
    """``content`` with another value at a path."""
    first, *rest = path
    if isinstance(content, dict):
        return {**content, first: changed(content.get(first), rest, value) if rest else value}
    new = changed(content[first], rest, value) if rest else value
    return [new if i == first else each for i, each in enumerate(content)]


def field(identifier: str, *path: str | int, to: Any, kind: str = "model") -> Edit:
    """A field of a component's stored body."""
    where = f"kind = '{kind}' AND identifier = '{identifier}'"
    return Edit("pinnacle_component", where, "body", to, ("fields", *path))


def listens(*path: str, to: Any) -> Edit:
    """A field of the victim's, which is a listener."""
    return field(VICTIM, *path, to=to, kind="listener")


def select(*path: str, to: Any) -> Edit:
    return listens("select", *path, to=to)


def of_listener(column: str, to: Any) -> Edit:
    return Edit("pinnacle_listener", f"identifier = '{VICTIM}'", column, to)


def of_component(identifier: str, column: str, to: Any, kind: str = "model") -> Edit:
    return Edit("pinnacle_component", f"kind = '{kind}' AND identifier = '{identifier}'", column, to)


def of_output(column: str, to: Any) -> Edit:
    return Edit("pinnacle_output", "name = 'loud'", column, to)


@dataclass(frozen=True)
class Attack:
    """``seen``: what the operator must be told, wherever; None where nothing need be: it changes nothing."""

    name: str
    changes: Sequence[Edit | Callable[[Path], None]]
    seen: str | None = None


def nested(depth: int) -> Any:
    """A list in a list in a list."""
    return [nested(depth - 1)] if depth else []


def function(reference: str) -> Sequence[Edit]:
    """The victim's model names other code, of which the digest is not known."""
    stored = {"reference": reference, "digest": None, "local": False, "form": 2, "parts": [], "text": ""}
    return [field("shout", "function", "@function", to=stored)]


def class_of(reference: str) -> Sequence[Edit]:
    """The same for its class."""
    return [of_component("tail", "type", reference)]


def pickled(file: Path) -> None:
    """The victim's model is said to be local code, of which a pickle is there."""
    content = pickle.dumps(Bomb(file.parent / MARK))
    sha256 = hashlib.sha256(content).hexdigest()
    with closing(sqlite3.connect(file)) as raw, raw:
        raw.execute(
            "INSERT INTO pinnacle_artifact (sha256, size, key) VALUES (?, ?, ?)", (sha256, len(content), sha256)
        )
        raw.execute("INSERT INTO pinnacle_artifact_chunk VALUES (?, 0, ?)", (sha256, content))
    stored = {"reference": "__main__:f", "digest": "0", "local": True, "form": 2, "parts": [], "text": ""}
    field("shout", "function", "@function", to=stored).make(file)
    Edit("pinnacle_component", "identifier = 'shout'", "body", {"__main__:f#0": sha256}, ("pickles",)).make(file)
    field("tail", "suffix", to={"@pickle": sha256}).make(file)


INJECTION = 'x"; DROP TABLE users; --'

CODE = [
    *(
        Attack(f"a function that is {reference}", function(reference), "model 'shout'|shout")
        for reference in (
            "os:system", "subprocess:Popen", "antigravity:x", "json.tool:main", "setup:model", "evil_neighbour:model",
            "__main__:model", "os;import evil:x", "../evil:x", "pinnacle.cli:main", "pinnacle.testing.__main__:main",
            "pinnacle.demo.story:run", "tests.models:note", "tests.models:CALLS", "builtins:exec", "",
            "tests.models:shout.__class__.__init__", "evil_neighbour.deep:x", "tests.kill_job:main",
        )
    ),
    *(
        Attack(f"a class that is {reference}", class_of(reference), "tail")
        for reference in (
            "os:system", "setup:Model", "evil_neighbour:Model", "pinnacle.components.listener:Listener",
            "pinnacle.testing.__main__:Main", "NoSuchPlugin", "FunctionModel", "builtins:type", "tests.models:json",
            "pinnacle.components.component:Component",
        )
    ),
    Attack("pickled code", [pickled], "pickle|Pickle|local|not authenticated"),
    Attack("a Pydantic class that is os:system", [field("tail", "output_type", to={"@schema_class": {
        "reference": "os:system", "digest": "0", "local": False, "schema": {}}})], "tail"),
]  # fmt: skip

VALUES: list[Attack] = [
    Attack(f"a field that is {tag} of {str(content)[:20]!r}", [field("tail", "suffix", to={tag: content})], "tail")
    for tag, content in (
        ("@evil", 1), ("@int", "9" * 5000), ("@int", "__import__('os')"), ("@float", "os.system('x')"),
        ("@decimal", "x"), ("@datetime", "now"), ("@datetime", ["2020-01-01", 7]), ("@bytes", "not base 64 \x00"),
        ("@text", "//8="), ("@complex", "x"), ("@uuid", "x"), ("@timedelta", [10**30]), ("@tuple", 7),
        ("@dict", [[{"@dict": []}, 1]]), ("@set", [{"@dict": []}]), ("@output_type", {"type": "os:system"}),
        ("@component", {"kind": "model", "identifier": "tail", "version": 0}), ("@component", 7),
        ("@artifact", {"sha256": "../../evil", "size": "x"}), ("@function", {"reference": 7}),
    )
]  # fmt: skip

BODIES = [
    Attack("a body that is no JSON", [of_component("tail", "body", "{")], "tail"),
    Attack("a body that is a list", [of_component("tail", "body", "[]")], "tail"),
    Attack("a body that is a number", [of_component("tail", "body", 7)], "tail"),
    Attack("a body without fields", [of_component("tail", "body", "{}")], "tail"),
    Attack("a body that is nested deeply", [of_component("tail", "body", '{"fields": ' + "[" * 100_000)], "tail"),
    Attack("a field that is nested deeply", [field("tail", "suffix", to=nested(900))], "tail"),
    Attack("a body of bytes that are no text", [of_component("tail", "body", b"\xff\xfe\x00")], "tail"),
    Attack("a name that steers a terminal", [of_component("tail", "identifier", ESCAPES)], "not authenticated|tail"),
    Attack("a class that steers a terminal", class_of(ESCAPES), "tail"),
    Attack("a kind that is no text", [of_component("tail", "kind", b"\xff\xfe")], None),
    Attack("a version that is no number", [of_component("tail", "version", "x")], "tail|x"),
    Attack("a listener of its own model", [listens("model", "@component", "identifier", to=INJECTION)], "docs.loud"),
    Attack("a listener that holds itself", [listens("model", to={"@component": {
        "kind": "listener", "identifier": VICTIM, "version": 0}})], "docs.loud"),
    Attack("a listener without a model", [listens("model", to=None)], "docs.loud"),
    Attack("a listener that sweeps all the time", [listens("sweep_every_s", to="x")], "docs.loud"),
]  # fmt: skip

SELECTS = [
    *(
        Attack(f"a condition that is {text!r}", [select("where", to=text)], "docs.loud")
        for text in (
            "1 = 1; DROP TABLE users", "load_extension('evil') IS NULL", "(SELECT role FROM users LIMIT 1) = 'admin'",
            "1 = 1) OR writefile('evil', 'x') IS NOT (1", "docs.n = :p0 --", "docs.n = :no_such",
        )
    ),
    *(
        Attack(f"a select whose {path} is {to!r}", [select(path, to=to)], "docs.loud")
        for path, to in (
            ("table", "users"), ("table", INJECTION), ("table", "pinnacle_component"), ("table", "sqlite_master"),
            ("table", 7), ("schema", "other"), ("schema", INJECTION), ("schema", 7), ("reads", ["role"]),
            ("reads", [INJECTION]), ("parameters", {"p0": {"@function": "os:system"}}),
            ("parameters", [1]), ("readings", {"body": {"type": "os:system"}}), ("readings", {"body": 7}),
            ("readings", {"body": {"form": "code", "module": "os", "name": "system"}}), ("where", 7),
            ("where", {"call": "load_extension", "args": []}), ("where", {"op": "DROP", "args": []}),
        )
    ),
    Attack("a select that is no mapping", [listens("select", to="SELECT * FROM users")], "docs.loud"),
    Attack("a key that is another column", [listens("key", to="role")], "docs.loud"),
    Attack("a key that is SQL", [listens("key", to=INJECTION)], "docs.loud"),
    Attack("an output that is another column", [listens("output", to="body")], "docs.loud"),
    Attack("an output that is a table of the user's", [listens("output", to={"@side": "users"})], "docs.loud"),
]  # fmt: skip

REGISTRY = [
    Attack("an output that is users.role", [of_output("table_name", "users"), of_output("name", "role")],
           "docs.loud|users"),
    Attack("an output that is docs.body", [of_output("name", "body")], "docs.loud|docs.body"),
    Attack("an output that is a table of its own: users", [of_output("name", "users"), of_output(
        "type", json.dumps({"items": "str"}))], "docs.loud|users"),
    Attack("an output in pinnacle's own tables", [of_output("table_name", "pinnacle_component"), of_output(
        "name", "body")], "docs.loud|pinnacle_component"),
    *(
        Attack(f"a registry whose {column} is {str(to)[:30]!r}", [of_output(column, to)], None)
        for column, to in (
            ("name", INJECTION), ("table_name", INJECTION), ("table_schema", INJECTION), ("table_schema", "other"),
            ("fields", "{"), ("fields", "7"), ("fields", json.dumps([INJECTION])), ("fields", json.dumps("role")),
            ("type", "{"), ("type", '"os:system"'), ("type", json.dumps({"type": "os:system"})), ("type", "7"),
            ("readings", "{"), ("readings", json.dumps({"body": {"type": "os:system"}})), ("version", "x"),
            ("version", 10**18), ("model", INJECTION), ("model", ESCAPES), ("name", ESCAPES), ("created_column", 7),
            ("released", "x"), ("created_at", "yesterday"), ("id", 2**31),
        )
    ),
    *(
        Attack(f"a listener whose {column} is {str(to)[:30]!r}", [of_listener(column, to)], None)
        for column, to in (
            ("identifier", INJECTION), ("identifier", ESCAPES), ("version", 7), ("version", "x"), ("shape", "{"),
            ("shape", "7"), ("position", INJECTION), ("sweep", INJECTION), ("sweep", "{"),
            ("sweep", json.dumps(["x", INJECTION])),
            ("paused", ESCAPES), ("error", ESCAPES), ("error_at", "x"), ("swept_at", "x"), ("folded_at", "x"),
            ("processed", "x"), ("output_id", 77),
        )
    ),
]  # fmt: skip

BOOKS = [
    Attack(f"{table}.{column} that is {str(to)[:30]!r}", [Edit(table, "1", column, to)])
    for table, changes in {
        "pinnacle_error": [
            ("message", ESCAPES), ("error", ESCAPES), ("key", "{"), ("key", json.dumps({"@function": "os:system"})),
            ("failed_at", "x"), ("output_id", 77),
        ],
        "pinnacle_usage": [("model", ESCAPES), ("day", ESCAPES), ("cost", "x")],
        "pinnacle_cache": [("value", "{"), ("expires_at", "x")],
        "pinnacle_lease": [("keys", "{"), ("process", ESCAPES), ("process", f"vmpid:[1]:{'9' * 40}")],
        "pinnacle_state_1": [("fingerprint", "x"), ("version", "x")],
        "pinnacle_artifact_chunk": [("data", b"[1e9, 1e9]")],
        "pinnacle_artifact": [("key", "file:///etc/passwd"), ("size", "x")],
        "pinnacle_metric": [("entry", "{"), ("entry", json.dumps({ESCAPES: ESCAPES}))],
        "pinnacle_identity": [("id", INJECTION)],
    }.items()
    for column, to in changes
]  # fmt: skip
BOOKS += [
    Attack("an artifact that would be written elsewhere", [Edit(
        "pinnacle_component", "kind = 'checkpoint'", "body",
        [["../../evil", {"@artifact": {"sha256": "0" * 64, "size": 1}}]],
        ("fields", "files", "@dict"))], None),
    Attack("a run that failed with an escape", [field("line", "error", kind="run", to=ESCAPES)], None),
    Attack("a run whose device steers a terminal", [field("line", "status", kind="run", to=ESCAPES)], None),
    Attack("weights that are others", [field("line", "weights", "@artifact", "sha256", to="0" * 64)], "line"),
    Attack("a text of base 64 that is escapes", [field("tail", "description", to={
        "@text": base64.b64encode(ESCAPES.encode()).decode()})], None),
]  # fmt: skip

DEFINITIONS = [*CODE, *VALUES[::3], *BODIES, *SELECTS]
ATTACKS = [*DEFINITIONS, *REGISTRY, *BOOKS]
