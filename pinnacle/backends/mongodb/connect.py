"""Opens a MongoDB or mongomock database; importing this module is what first loads the driver."""

from __future__ import annotations

import threading
from typing import Any
from urllib.parse import unquote, urlsplit

from pinnacle.base.errors import ConfigError, MissingPlugin, PinnacleError, UnsupportedTable

try:
    import pymongo
except ImportError as error:
    raise MissingPlugin("pymongo", "pinnacle[mongodb]", purpose="MongoDB") from error

from bson.binary import UuidRepresentation
from bson.codec_options import CodecOptions, DatetimeConversion
from pymongo.errors import PyMongoError

from pinnacle.backends.mongodb.backend import MongoBackend
from pinnacle.backends.mongodb.wire.errors import driver_errors
from pinnacle.backends.mongodb.wire.mongomock_wire import MemoryWire
from pinnacle.backends.mongodb.wire.wire import ServerWire
from pinnacle.backends.protocol import Backend, Capability
from pinnacle.base.settings import Settings

SELECTION_TIMEOUT_MS = 10_000
MIN_WIRE_VERSION = 13
"""MongoDB 5.0: computed projections, and ``$expr`` comparisons by index."""

_mongomock_clients: dict[str, Any] = {}
_lock = threading.Lock()


def connect(target: Any, settings: Settings | None = None) -> Backend:
    """A backend for a URL (``mongodb://host/app``, ``mongomock://name``) or a Database object.

    ``settings`` are taken as every opener takes them; none of them applies here.

    Raises MissingPlugin, ConfigError for a URL without a database's name, and
    ConnectionLost when no server answers.
    """
    if not isinstance(target, str):
        is_mock = type(target).__module__.partition(".")[0] == "mongomock"
        return _open_memory(target) if is_mock else _open_server(target, owns_client=False)
    if target.partition("://")[0] == "mongomock":
        return _open_memory(_mongomock_database(target))
    return _open_server(_server_database(target), owns_client=True)


def _mongomock_database(url: str) -> Any:
    """The in-process database of that name: the same data for every caller of this process."""
    try:
        import mongomock
    except ImportError as error:
        raise MissingPlugin("mongomock", "pinnacle[mongomock]", purpose="mongomock:// databases") from error
    name = unquote(urlsplit(url).netloc or urlsplit(url).path.strip("/"))
    if not name:
        raise ConfigError("name the in-process database, as in mongomock://test")
    with _lock:
        client = _mongomock_clients.setdefault(name, mongomock.MongoClient())
    return client[name]


def _server_database(url: str) -> Any:
    options: dict[str, Any] = {"appname": "pinnacle"}
    if "serverselectiontimeoutms" not in url.lower():
        options["serverSelectionTimeoutMS"] = SELECTION_TIMEOUT_MS
    try:
        client: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(url, **options)
    except (PyMongoError, ValueError) as error:
        raise ConfigError(f"not a usable MongoDB URL ({error}); write mongodb://host:port/database") from error
    try:
        return client.get_default_database()
    except PyMongoError as error:
        client.close()
        raise ConfigError("the MongoDB URL names no database; write mongodb://host:port/database") from error


def _open_server(database: Any, *, owns_client: bool) -> Backend:
    server = server_name(database)
    try:
        with driver_errors(server):
            hello = database.command("hello")
    except PinnacleError:
        if owns_client:
            database.client.close()
        raise
    if hello["maxWireVersion"] < MIN_WIRE_VERSION:
        raise UnsupportedTable(f"the server at {server} is older than MongoDB 5.0, the oldest that pinnacle works on")
    capabilities = {Capability.DOCUMENTS, Capability.MANY_PROCESSES}
    if "setName" in hello or hello.get("msg") == "isdbgrid":
        capabilities.add(Capability.TRANSACTIONS)
    codec = database.codec_options.with_options(
        document_class=dict,
        unicode_decode_error_handler="surrogateescape",
        datetime_conversion=DatetimeConversion.DATETIME_AUTO,
    )
    return MongoBackend(
        ServerWire(database, codec), name="mongodb", server=server, capabilities=frozenset(capabilities),
        owns_client=owns_client,
    )  # fmt: skip


def _open_memory(database: Any) -> Backend:
    codec: CodecOptions[dict[str, Any]] = CodecOptions(uuid_representation=UuidRepresentation.STANDARD)
    return MongoBackend(
        MemoryWire(database, codec), name="mongomock", server=f"mongomock://{database.name}",
        capabilities=frozenset({Capability.DOCUMENTS}), owns_client=False,
    )  # fmt: skip


def server_name(database: Any) -> str:
    """The hosts that a client was told to use, for messages; never its user or password."""
    hosts = sorted(f"{host}:{port}" for host, port in database.client.nodes)
    seeds = sorted(f"{host}:{port}" for host, port in database.client.topology_description.server_descriptions())
    return ",".join(hosts or seeds) or "its hosts"
