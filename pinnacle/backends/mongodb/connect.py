"""Opens a MongoDB or mongomock database; importing this module is what first loads the driver."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from pinnacle.base.distribution import with_extra
from pinnacle.base.errors import MissingPlugin

if find_spec("pymongo") is None:
    in_process = f"MongoDB (mongomock:// databases take {with_extra('mongomock')})"
    raise MissingPlugin("pymongo", with_extra("mongodb"), purpose=in_process)

from pinnacle.backends.mongodb.backend import MongoBackend
from pinnacle.backends.mongodb.wire.opening import open_wire
from pinnacle.backends.protocol import Backend
from pinnacle.base.seal import Seal
from pinnacle.base.settings import Settings


def connect(target: Any, settings: Settings | None = None) -> Backend:
    """A backend for a URL (``mongodb://host/app``, ``mongomock://name``) or a Database object.

    Of ``settings`` only ``application`` and the secret apply here.

    Raises MissingPlugin, ConfigError for a URL without a database's name, and
    ConnectionLost when no server answers.
    """
    chosen = settings or Settings()
    return MongoBackend(open_wire(target, chosen.application), Seal.of(chosen, is_embedded=False))
