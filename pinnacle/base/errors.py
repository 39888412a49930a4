"""Every error pinnacle raises, in one tree.

`HttpError` and `Unreadable`, which plug-ins raise, are outside of it: they say what came back
from a provider, and the engine makes one of these of them.

::

    PinnacleError
    ├── ConfigError            the call or the settings are wrong; change them
    │   ├── UnknownField       a field or column that is not there (near names offered)
    │   ├── UnsupportedQuery   a query predict cannot work on
    │   ├── UnsupportedTable   a table without a usable key, a view, a read-only database
    │   └── ModelUnavailable   weights, a package or a device that a local model needs and cannot have
    ├── NotFound               no such component, version, output or artifact
    ├── Conflict               something else owns the name, or still depends on it
    │   └── OutputTypeConflict an existing column has another type
    ├── ComponentError         a component that cannot be stored or loaded
    │   ├── UntrustedReference code that this process may not import
    │   └── NotAuthenticated   a stored record that is not as a process with the secret signed it
    ├── ModelError             the model failed
    │   ├── OutputTypeMismatch a value that does not fit its output type
    │   ├── OutputCountMismatch a batch call gave too few or too many outputs
    │   ├── InvalidAnswer      a language model's answer does not fit its schema or choices
    │   ├── NoAnswer           the provider answered, and it is no answer: empty, declined, an error
    │   │   └── AnswerCut      it ended at the limit of tokens
    │   ├── ContextOverflow    an input longer than the model's context window
    │   ├── ProviderRefused    the provider answered that it will not take this request
    │   │   ├── AccountRefused takes none: a wrong key, no such model, nothing left to spend
    │   │   └── ParameterRefused takes none with a keyword that all rows are sent with
    │   └── ProviderUnavailable no answer was to be had from the provider (retryable)
    ├── TrainingError          a fit that cannot go on: no rows, memory, disk, a loss that is no number
    ├── BudgetReached          the next call would cost more than the budget leaves
    ├── BackendError           the database failed
    │   ├── ConnectionLost     the connection dropped (retryable)
    │   ├── DatabaseReplaced   another file is where the open one was
    │   ├── TableLost          a table of pinnacle's was dropped by hand (retryable: it is made again)
    │   └── RowRejected        the database refused one value (a constraint, a length)
    ├── NotDrained             work was still waiting when the time was over (retryable)
    └── MissingPlugin          a third-party package is not installed
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from pinnacle.base.near import near_names
from pinnacle.base.redaction import redacted


class PinnacleError(Exception):
    """Root of the tree; ``retryable`` says whether the same call may succeed later.

    ``halts_prediction``: it is about a whole prediction and no row's fault: nothing more is asked, and what is in
    flight is kept.
    """

    retryable: ClassVar[bool] = False
    halts_prediction: ClassVar[bool] = False

    def __init__(self, *args: Any) -> None:
        super().__init__(*(redacted(told) if isinstance(told, str) else told for told in args))


def halts_prediction(error: BaseException) -> bool:
    """Whether an error is about a whole prediction, and no row's fault."""
    return isinstance(error, PinnacleError) and error.halts_prediction


class ConfigError(PinnacleError):
    """The call or the settings are wrong."""


class UnknownField(ConfigError):
    """A named field does not exist; ``near`` holds the closest names that do."""

    def __init__(self, field: str, where: str, known: Iterable[str]) -> None:
        self.field, self.where = field, where
        known = sorted(known)
        self.near = near_names(field, known)
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


class ModelUnavailable(ConfigError):
    """A model that cannot be loaded in this process. It is no row's fault: a prediction stops, and a listener rests."""

    halts_prediction = True


class NotFound(PinnacleError):
    """No such component, version, output or artifact."""


class Conflict(PinnacleError):
    """Something else owns the name, or still depends on what would be removed; ``outputs``: which outputs do."""

    def __init__(self, message: str, *, outputs: Sequence[str] = ()) -> None:
        self.outputs = tuple(outputs)
        super().__init__(message)


class OutputTypeConflict(Conflict):
    """An existing column or field has another type than the model's output."""


class ComponentError(PinnacleError):
    """A component cannot be stored, or not be loaded in this process."""


class UntrustedReference(ComponentError):
    """A stored reference names code that this process may not import."""


class NotAuthenticated(ComponentError):
    """A stored record is not as a process with the secret signed it, and nothing of it is used; ``record`` names it."""

    def __init__(self, record: str, why: str) -> None:
        self.record, self.why = record, why
        super().__init__(
            f"{record} is not authenticated: {why}; see what the database holds and sign it with: pinnacle trust URL"
        )


class ModelError(PinnacleError):
    """A model call failed; ``keys`` are the rows it was made for.

    ``is_final``: the same input would fail again, and is not tried again.
    """

    is_final: ClassVar[bool] = False
    billed: Any = None
    """What the call cost all the same, as a `Usage`, where that is known."""

    tries: int = 1
    """How often it was asked for."""

    def __init__(self, message: str, *, keys: Sequence[Any] = ()) -> None:
        self.keys = tuple(keys)
        super().__init__(message)


class OutputTypeMismatch(ModelError):
    """A model's value does not fit the declared output type."""


class OutputCountMismatch(ModelError):
    """A batch call returned another number of outputs than it was given inputs."""


class InvalidAnswer(ModelError):
    """A language model's answer does not fit the schema or the choices it was asked for."""

    is_final = True


class NoAnswer(ModelError):
    """The provider answered, and what it answered is no answer: no text, a refusal, an error, half a sentence.

    Asked for ``max_attempts`` times, each of which is billed. ``finish_reason`` is the provider's, where it told one.
    """

    is_final = True

    def __init__(self, message: str, *, finish_reason: str | None = None, keys: Sequence[Any] = ()) -> None:
        self.finish_reason = finish_reason
        super().__init__(message, keys=keys)


class AnswerCut(NoAnswer):
    """An answer ended at the limit of tokens; the same request would be cut again, and is not sent again."""


class ContextOverflow(ModelError):
    """An input does not fit the model's context window, and was not to be cut."""

    is_final = True


class ProviderRefused(ModelError):
    """The provider will not take this request, however often it is sent; ``status`` is its HTTP status, if any."""

    is_final = True

    def __init__(self, message: str, *, status: int | None = None, keys: Sequence[Any] = ()) -> None:
        self.status = status
        super().__init__(message, keys=keys)


class AccountRefused(ProviderRefused):
    """The provider takes no request of this kind: a wrong key, no permission, no such model, nothing left to spend.

    It is no row's fault: a prediction stops, and a listener rests.
    """

    halts_prediction = True


class ParameterRefused(ProviderRefused):
    """The provider refused the first rows of a prediction for one ``parameter`` that all are sent with: it stops."""

    halts_prediction = True

    def __init__(
        self, message: str, *, parameter: str = "", status: int | None = None, keys: Sequence[Any] = ()
    ) -> None:
        self.parameter = parameter
        super().__init__(message, status=status, keys=keys)


class ProviderUnavailable(ModelError):
    """The provider could not be reached, or was too busy for as long as was waited.

    ``was_sent``: this request was itself sent, and met no answer.
    """

    retryable = True
    was_sent: bool = False


class TrainingError(PinnacleError):
    """A fit cannot go on; its run is marked as failed, and its checkpoints are kept."""


class BudgetReached(PinnacleError):
    """A prediction stopped because its next call would have cost more than its budget leaves."""

    halts_prediction = True


class BackendError(PinnacleError):
    """The database refused or failed; the driver's error is the cause."""


class ConnectionLost(BackendError):
    """The connection dropped; what was committed is kept."""

    retryable = True


class DatabaseReplaced(BackendError):
    """The file that is open is not at its path any more: nothing is written to what others cannot see.

    Opening the database again opens what is there now; ``path`` is where.
    """

    halts_prediction = True

    def __init__(self, message: str, *, path: str) -> None:
        self.path = path
        super().__init__(message)


class TableLost(BackendError):
    """A table of pinnacle's was dropped by hand; the next call makes it again, empty. ``table`` is its name."""

    retryable = True

    def __init__(self, table: str) -> None:
        self.table = table
        super().__init__(
            f"pinnacle's table {table} is gone: it was dropped by hand, perhaps by a migration tool that removes what "
            "it does not know. Call again: it is made again, empty, and what that means is logged"
        )


class RowRejected(BackendError):
    """The database refused a value: a constraint, a length, a user's trigger."""


class NotDrained(PinnacleError):
    """Listeners had work waiting when the time was over; a worker may still do it."""

    retryable = True


class MissingPlugin(PinnacleError):
    """A third-party package is needed and not installed."""

    halts_prediction = True

    def __init__(self, package: str, install: str, *, purpose: str = "") -> None:
        self.package, self.install = package, install
        reason = f" for {purpose}" if purpose else ""
        super().__init__(f"{package} is needed{reason} and not installed; run: pip install '{install}'")
