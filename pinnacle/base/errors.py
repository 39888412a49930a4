"""Every error pinnacle raises, in one tree.

::

    PinnacleError
    ├── ConfigError            the call or the settings are wrong; change them
    │   ├── UnknownField       a field or column that is not there (near names offered)
    │   ├── UnsupportedQuery   a query predict cannot work on
    │   └── UnsupportedTable   a table without a usable key, a view, a read-only database
    ├── NotFound               no such component, version, output or artifact
    ├── Conflict               something else owns the name, or still depends on it
    │   └── OutputTypeConflict an existing column has another type
    ├── ComponentError         a component that cannot be stored or loaded
    │   └── UntrustedReference code that this process may not import
    ├── ModelError             the model failed
    │   ├── OutputTypeMismatch a value that does not fit its output type
    │   └── OutputCountMismatch a batch call gave too few or too many outputs
    ├── BackendError           the database failed
    │   ├── ConnectionLost     the connection dropped (retryable)
    │   └── RowRejected        the database refused one value (a constraint, a length)
    ├── NotDrained             work was still waiting when the time was over (retryable)
    └── MissingPlugin          a third-party package is not installed
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any, ClassVar


class PinnacleError(Exception):
    """Root of the tree; ``retryable`` says whether the same call may succeed later."""

    retryable: ClassVar[bool] = False


class ConfigError(PinnacleError):
    """The call or the settings are wrong."""


class UnknownField(ConfigError):
    """A named field does not exist; ``near`` holds the closest names that do."""

    def __init__(self, field: str, where: str, known: Iterable[str]) -> None:
        self.field, self.where = field, where
        known = sorted(known)
        self.near = get_close_matches(field, known, n=3, cutoff=0.5)
        hint = (
            f"did you mean {' or '.join(map(repr, self.near))}?"
            if self.near
            else f"it has {', '.join(map(repr, known)) or 'no fields'}."
        )
        super().__init__(f"{where} has no field {field!r}; {hint}")


class UnsupportedQuery(ConfigError):
    """A query that has no single table of keyed rows behind it."""


class UnsupportedTable(ConfigError):
    """A table, view or database whose rows pinnacle cannot write outputs to."""


class NotFound(PinnacleError):
    """No such component, version, output or artifact."""


class Conflict(PinnacleError):
    """Something else owns the name, or still depends on what would be removed."""


class OutputTypeConflict(Conflict):
    """An existing column or field has another type than the model's output."""


class ComponentError(PinnacleError):
    """A component cannot be stored, or not be loaded in this process."""


class UntrustedReference(ComponentError):
    """A stored reference names code that this process may not import."""


class ModelError(PinnacleError):
    """A model call failed; ``keys`` are the rows it was made for."""

    def __init__(self, message: str, *, keys: Sequence[Any] = ()) -> None:
        self.keys = tuple(keys)
        super().__init__(message)


class OutputTypeMismatch(ModelError):
    """A model's value does not fit the declared output type."""


class OutputCountMismatch(ModelError):
    """A batch call returned another number of outputs than it was given inputs."""


class BackendError(PinnacleError):
    """The database refused or failed; the driver's error is the cause."""


class ConnectionLost(BackendError):
    """The connection dropped; what was committed is kept."""

    retryable = True


class RowRejected(BackendError):
    """The database refused a value: a constraint, a length, a user's trigger."""


class NotDrained(PinnacleError):
    """Listeners had work waiting when the time was over; a worker may still do it."""

    retryable = True


class MissingPlugin(PinnacleError):
    """A third-party package is needed and not installed."""

    def __init__(self, package: str, install: str, *, purpose: str = "") -> None:
        self.package, self.install = package, install
        reason = f" for {purpose}" if purpose else ""
        super().__init__(f"{package} is needed{reason} and not installed; run: pip install '{install}'")
