"""Opens the way to a server, or to an in-process database of mongomock."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import unquote, urlsplit

import pymongo
from bson.codec_options import CodecOptions
from pymongo.errors import PyMongoError

from pinnacle.backends.mongodb.wire.encoding import FORGIVING, with_uuids
from pinnacle.backends.mongodb.wire.errors import driver_errors
from pinnacle.backends.mongodb.wire.mongomock_wire import MongomockWire
from pinnacle.backends.mongodb.wire.server_wire import ServerWire
from pinnacle.backends.mongodb.wire.wire import Wire
from pinnacle.backends.protocol import Capability
from pinnacle.base import forks
from pinnacle.base.distribution import with_extra
from pinnacle.base.errors import ConfigError, MissingPlugin, PinnacleError, UnsupportedTable
from pinnacle.base.urls import password_of

SELECTION_TIMEOUT_MS = 10_000
MIN_WIRE_VERSION = 13
"""MongoDB 5.0: computed projections, and ``$expr`` comparisons by index."""

_mongomock_clients: dict[str, Any] = {}
_lock = forks.lock()


def open_wire(target: Any, application: str = "pinnacle") -> Wire:
    """The wire for a URL (``mongodb://host/app``, ``mongomock://name``) or a Database object.

    Raises MissingPlugin, ConfigError for a URL without a database's name, and
    ConnectionLost when no server answers.
    """
    if not isinstance(target, str):
        is_mock = type(target).__module__.partition(".")[0] == "mongomock"
        return _mongomock_wire(target) if is_mock else _server_wire(target)
    if target.partition("://")[0] == "mongomock":
        return _mongomock_wire(_mongomock_database(target))
    reopen = partial(_server_database, target, application)
    return _server_wire(reopen(), reopen)


def _mongomock_database(url: str) -> Any:
    """The in-process database of that name: the same data for every caller of this process."""
    try:
        import mongomock
    except ImportError as error:
        raise MissingPlugin("mongomock", with_extra("mongomock"), purpose="mongomock:// databases") from error
    name = unquote(urlsplit(url).netloc or urlsplit(url).path.strip("/"))
    if not name:
        raise ConfigError("name the in-process database, as in mongomock://test")
    with _lock:
        client = _mongomock_clients.setdefault(name, mongomock.MongoClient())
    return client[name]


def _server_database(url: str, application: str) -> Any:
    options: dict[str, Any] = {} if "appname=" in url.lower() else {"appname": application}
    if "serverselectiontimeoutms" not in url.lower():
        options["serverSelectionTimeoutMS"] = SELECTION_TIMEOUT_MS
    try:
        client: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(url, **options)
    except (PyMongoError, ValueError) as error:
        told = "what the driver says of it may hold its password" if password_of(url) else str(error)
        raise ConfigError(f"not a usable MongoDB URL ({told}); write mongodb://host:port/database") from (
            None if password_of(url) else error
        )
    try:
        return client.get_default_database()
    except PyMongoError as error:
        client.close()
        raise ConfigError("the MongoDB URL names no database; write mongodb://host:port/database") from error


def _server_wire(database: Any, reopen: Callable[[], Any] | None = None) -> Wire:
    server = server_name(database)
    try:
        with driver_errors(server):
            hello = database.command("hello")
    except PinnacleError:
        if reopen is not None:
            database.client.close()
        raise
    if hello["maxWireVersion"] < MIN_WIRE_VERSION:
        raise UnsupportedTable(f"the server at {server} is older than MongoDB 5.0, the oldest that pinnacle works on")
    capabilities = {Capability.DOCUMENTS, Capability.MANY_PROCESSES}
    if "setName" in hello or hello.get("msg") == "isdbgrid":
        capabilities.add(Capability.TRANSACTIONS)
    codec = with_uuids(database.codec_options).with_options(**FORGIVING)
    return ServerWire(database, codec, server, frozenset(capabilities), reopen)


def _mongomock_wire(database: Any) -> Wire:
    return MongomockWire(database, with_uuids(CodecOptions(**FORGIVING)), f"mongomock://{database.name}")


def server_name(database: Any) -> str:
    """The hosts that a client was told to use, for messages; never its user or password."""
    hosts = sorted(f"{host}:{port}" for host, port in database.client.nodes)
    seeds = sorted(f"{host}:{port}" for host, port in database.client.topology_description.server_descriptions())
    return ",".join(hosts or seeds) or "its hosts"
