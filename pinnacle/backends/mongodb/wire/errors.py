"""Driver errors become pinnacle's, here and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from bson.errors import BSONError, InvalidBSON
from pymongo.errors import (
    ConnectionFailure,
    DocumentTooLarge,
    DuplicateKeyError,
    ExecutionTimeout,
    PyMongoError,
    WriteConcernError,
    WriteError,
)

from pinnacle.base.errors import BackendError, ConnectionLost, PinnacleError, RowRejected, UnsupportedTable

NAMESPACE_EXISTS, DUPLICATE_KEY = 48, 11000
_NOT_PERMITTED = {13, 31, 8000}
_STEPPING_DOWN = {91, 189, 10107, 11600, 11602, 13435, 13436}
_VALUE_REFUSED = {2, 14, 15, 16, 28, 40, 52, 54, 55, 56, 57, 59, 66, 121, 10334, 17280, 17419}
"""Server codes that speak of one document's value: its size, depth, type, path or validation rule."""

NOT_BSON = (BSONError, UnicodeError, OverflowError, RecursionError)
"""What the driver raises for a value that it cannot encode or decode."""


class DuplicateKey(RowRejected):
    """A document was to be inserted whose key, or what a unique index is over, is there already."""


class Undecodable(RowRejected):
    """A document cannot be decoded."""


class TookTooLong(BackendError):
    """A statement was not done within the time it was given."""


@contextmanager
def driver_errors(server: str) -> Iterator[None]:
    """Raise what the driver raises within as BackendError's kin, naming the server and never a password."""
    try:
        yield
    except (PyMongoError, *NOT_BSON) as error:
        raise translated(error, server) from error


def refused(error: Exception, kind: type[RowRejected] = RowRejected) -> RowRejected:
    """The error for a value that cannot be kept, or read."""
    return kind(f"MongoDB refused a value: {_brief(error)}")


def translated(error: Exception, server: str) -> PinnacleError:
    """The error of pinnacle's tree for one of the driver's."""
    if isinstance(error, ConnectionFailure) or _is_stepping_down(error):
        return ConnectionLost(
            f"no connection to MongoDB at {server}; what was committed is kept. Check that it runs and is "
            f"reachable, then run the same call again ({_brief(error)})"
        )
    code = getattr(error, "code", None)
    if code in _NOT_PERMITTED:
        return UnsupportedTable(f"the user of this connection may not do that at {server}: {_brief(error)}")
    if isinstance(error, InvalidBSON):
        return Undecodable(f"a document that MongoDB returned cannot be decoded: {_brief(error)}")
    if isinstance(error, (DocumentTooLarge, WriteError, *NOT_BSON)) or code in _VALUE_REFUSED:
        is_duplicate = isinstance(error, DuplicateKeyError) or code == DUPLICATE_KEY
        return refused(error, DuplicateKey if is_duplicate else RowRejected)
    name = type(error).__name__
    kind = TookTooLong if isinstance(error, ExecutionTimeout) else BackendError
    return kind(f"MongoDB at {server} refused or failed ({name}, code {code}): {_brief(error)}")


def _is_stepping_down(error: Exception) -> bool:
    """Whether the server gives up being the primary, or stops: another, or the same, takes the statement soon."""
    return getattr(error, "code", None) in _STEPPING_DOWN or (
        isinstance(error, PyMongoError) and error.has_error_label("RetryableWriteError")
    )


def raise_concern_error(reply: Mapping[str, Any], server: str) -> None:
    """Raise for a write that was not acknowledged as it was asked for, because the primary stepped down meanwhile: it
    may be undone. The reply says ``ok: 1`` even then."""
    concern = reply.get("writeConcernError", {})
    if concern.get("code") in _STEPPING_DOWN:
        with driver_errors(server):
            raise WriteConcernError(str(concern.get("errmsg")), concern["code"], dict(concern))


def raise_write_error(errors: Sequence[Mapping[str, Any]], server: str) -> None:
    """Raise the first of the ``writeErrors`` in a command's reply, which says ``ok: 1`` even then."""
    for error in errors[:1]:
        with driver_errors(server):
            raise WriteError(str(error.get("errmsg")), error.get("code"), error)


def _brief(error: Exception) -> str:
    return str(error).split(", full error:")[0].split(", Timeout:")[0][:500]
