"""What every database refuses in the same words: outputs of others, newer versions, what is gone."""

from __future__ import annotations

from pinnacle.base import limits
from pinnacle.base.encoding import MAX_NAME_BYTES
from pinnacle.base.errors import (
    BackendError,
    ConfigError,
    Conflict,
    NotFound,
    OutputTypeConflict,
    RowRejected,
    UnsupportedQuery,
)
from pinnacle.base.rows import OutputInfo, OutputSpec


def require_name(name: str, given: str | None = None) -> None:
    """ConfigError for a name that not every database takes whole: a database that cuts names would take two for one.

    ``given``: the whole of what was given, of which ``name`` is a part.
    """
    shown = name if given is None else given
    if not name or "\x00" in name or any("\ud800" <= character <= "\udfff" for character in name):
        raise ConfigError(f"{shown!r} cannot be a name: none is empty, or holds a NUL or a lone surrogate")
    if (length := len(name.encode())) > MAX_NAME_BYTES:
        raise ConfigError(
            f"the name {shown!r} is too long: it takes {length} bytes as UTF-8, and databases take {MAX_NAME_BYTES}"
        )


def require_owner(existing: OutputInfo, spec: OutputSpec) -> None:
    """Conflict unless ``spec`` is of the same model on the same fields, and of no older version."""
    where = f"{existing.table}.{existing.name}"
    if existing.model != spec.model or existing.fields.to_json() != spec.fields.to_json():
        raise Conflict(
            f"{where} is already the output of model {existing.model!r} on {existing.fields.to_json()!r}; "
            "choose another place with output=, or remove that output first"
        )
    if existing.version > spec.version:
        raise Conflict(
            f"{where} was computed by version {existing.version} of model {spec.model!r}, which version "
            f"{spec.version} does not overwrite; use the newest version, or choose another place with output="
        )


def require_same_items(existing: OutputInfo, spec: OutputSpec) -> None:
    """OutputTypeConflict unless a side output is of the type that is there."""
    if existing.type != spec.type:
        raise OutputTypeConflict(
            f"{existing.name!r} holds {existing.type} and the output is {spec.type}; choose another name"
        )


def not_proven(info: OutputInfo) -> Conflict:
    """For an output whose place nothing proves to be pinnacle's, beside what its registry says."""
    where = f"{info.table}.{info.name}"
    return Conflict(
        f"pinnacle's tables say that {where} is the output of model {info.model!r}, and nothing proves that pinnacle "
        "made that place or was told to fill it: somebody may have changed these tables, and nothing is written there. "
        "If it is to be filled, say so with adopt=True, which gives up the values that are there"
    )


def other_output(listener: str, where: str) -> Conflict:
    """For a listener that is registered with an output which is not its own."""
    return Conflict(
        f"listener {listener!r} is registered with another output than {where}, which it fills: somebody may have "
        "changed pinnacle's tables; remove the listener, and add it again"
    )


def require_newest(info: OutputInfo, version: int, found: int | None) -> None:
    """Raise unless the output, whose version a write has ``found``, is there and not of a newer model."""
    where = f"{info.table}.{info.name}"
    if found is None:
        raise output_removed(where)
    if found > version:
        raise Conflict(
            f"{where} is now computed by version {found}, not {version}; what was written before is kept. Load the "
            "newest version and predict again"
        )


def input_changed_by_trigger(info: OutputInfo) -> RowRejected:
    """For a row whose input the user's own trigger changes in each write of its output: it would never be fresh."""
    return RowRejected(
        f"a trigger of {info.table} changes what the model reads whenever its output is written; leave "
        "that column out of X, or keep the output in a table of its own with Side()"
    )


def output_kept_out(info: OutputInfo) -> RowRejected:
    """For a row whose output the user's own trigger does not let into the table."""
    return RowRejected(
        f"a trigger of {info.table} keeps {info.name!r} from being written; change it, or keep the output in a table "
        "of its own with Side()"
    )


def require_listener(found: str, identifier: str) -> None:
    """Conflict unless the listener of an output is the one that is meant."""
    if found != identifier:
        raise Conflict(f"listener {found!r} keeps that output fresh already; use its identifier, or remove it first")


def foreign_side(kind: str, name: str) -> Conflict:
    """For a side output whose table or collection is there and not pinnacle's."""
    return Conflict(f"there is a {kind} {name!r} that pinnacle did not make for this output; name another in Side()")


def output_removed(where: str) -> NotFound:
    """For an output that is gone while a process fills it."""
    return NotFound(f"{where} was removed while it was being filled")


def no_output(number: int) -> NotFound:
    return NotFound(f"there is no output number {number}")


def of_another_database(given: object) -> UnsupportedQuery:
    """For a source or target that this database did not make."""
    return UnsupportedQuery(f"{type(given).__name__} is of another database")


def no_artifact(sha256: str) -> NotFound:
    return NotFound(f"artifact {sha256} is not in the database")


def artifact_removed(sha256: str) -> NotFound:
    """For a component whose artifact went before the component was there."""
    return NotFound(f"artifact {sha256} was removed by another process; add the component again")


def upload_given_up() -> BackendError:
    return BackendError(
        f"the upload of an artifact was silent for {limits.UPLOAD_TTL_S:.0f} s and given up; run it again"
    )


def unsigned_write() -> ConfigError:
    """For a process without a secret that is about to write what all who have one would refuse."""
    return ConfigError(
        "the definitions in this database are signed, and this process has no secret to sign with: others would refuse "
        "what it writes; give it theirs, by PINNACLE_SECRET"
    )
