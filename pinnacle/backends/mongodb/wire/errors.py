"""Driver errors become pinnacle's, here and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bson.errors import BSONError
from pymongo.errors import (
    ConnectionFailure,
    DocumentTooLarge,
    OperationFailure,
    PyMongoError,
    WriteError,
)

from pinnacle.base.errors import BackendError, ConnectionLost, PinnacleError, RowRejected, UnsupportedTable

NAMESPACE_NOT_FOUND, NAMESPACE_EXISTS, DUPLICATE_KEY = 26, 48, 11000
_NOT_PERMITTED = {13, 31, 8000}
_VALUE_REFUSED = {2, 14, 15, 16, 28, 40, 52, 54, 55, 56, 57, 59, 66, 121, 10334, 17280, 17419}
"""Server codes that speak of one document's value: its size, depth, type, path or validation rule."""


@contextmanager
def driver_errors(server: str) -> Iterator[None]:
    """Raise what the driver raises within as BackendError's kin, naming the server and never a password."""
    try:
        yield
    except (PyMongoError, BSONError) as error:
        raise translated(error, server) from error


def translated(error: Exception, server: str) -> PinnacleError:
    """The error of pinnacle's tree for one of the driver's."""
    if isinstance(error, ConnectionFailure):
        return ConnectionLost(
            f"no connection to MongoDB at {server}; what was committed is kept. Check that it runs and is "
            f"reachable, then run the same call again ({_brief(error)})"
        )
    code = getattr(error, "code", None)
    if code in _NOT_PERMITTED:
        return UnsupportedTable(f"the user of this connection may not do that at {server}: {_brief(error)}")
    if isinstance(error, (DocumentTooLarge, BSONError, WriteError)) or code in _VALUE_REFUSED:
        return RowRejected(f"MongoDB refused a value: {_brief(error)}")
    name = type(error).__name__
    return BackendError(f"MongoDB at {server} refused or failed ({name}, code {code}): {_brief(error)}")


def raise_write_errors(reply: dict[str, object]) -> None:
    """Raise the first error of a write command's reply, which says ``ok: 1`` even then."""
    errors = reply.get("writeErrors")
    if isinstance(errors, list) and errors:
        raise WriteError(str(errors[0].get("errmsg")), errors[0].get("code"), errors[0])


def is_duplicate(error: PyMongoError) -> bool:
    """Whether a write failed because its key was there already."""
    return isinstance(error, OperationFailure) and error.code == DUPLICATE_KEY


def _brief(error: Exception) -> str:
    return str(error).split(", full error:")[0].split(", Timeout:")[0][:500]
