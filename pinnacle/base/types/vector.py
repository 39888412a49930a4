"""Vectors of float32: a BLOB on SQLite, pgvector's type on PostgreSQL, BSON's binary vector on MongoDB."""

from __future__ import annotations

import dataclasses
import functools
import struct
from collections.abc import Sequence
from typing import Any

from pinnacle.base.errors import ConfigError, MissingPlugin, OutputTypeMismatch
from pinnacle.base.types.output_type import OutputType
from pinnacle.base.types.storage import BsonField, PackedArray, PostgresColumn, SqliteColumn, converted

BSON_SUBTYPE, _FLOAT32_VECTOR = 9, b"\x27\x00"


@dataclasses.dataclass(frozen=True)
class Vector(OutputType):
    """A float32 vector of ``dim`` finite numbers; read back as a numpy array of shape (dim,)."""

    dim: int
    name = "vector"

    def __post_init__(self) -> None:
        if isinstance(self.dim, bool) or not isinstance(self.dim, int) or self.dim < 1:
            raise ConfigError(f"Vector(dim) takes a positive whole number, not {self.dim!r}")

    def check(self, value: Any) -> Any:
        np = numpy()
        try:
            array = np.asarray(value)
        except (TypeError, ValueError) as error:
            raise self.misfit(value, str(error)) from None
        if array.dtype.kind not in "fiu":
            raise self.misfit(value, f"its numbers are {array.dtype}")
        if array.shape != (self.dim,):
            raise self.misfit(value, f"its shape is {array.shape}, not ({self.dim},)")
        with np.errstate(over="ignore"):
            array = array.astype(np.float32, copy=False)
        if not np.isfinite(array).all():
            raise self.misfit(value, "it holds NaN or an infinity")
        return array

    def check_all(self, values: Sequence[Any]) -> tuple[Sequence[Any], dict[int, OutputTypeMismatch]]:
        np = numpy()
        shape = (self.dim,)
        if values and all(isinstance(v, np.ndarray) and v.dtype == np.float32 and v.shape == shape for v in values):
            if np.isfinite(np.stack(values)).all():
                return values, {}
        return super().check_all(values)

    def __str__(self) -> str:
        return f"vector({self.dim})"

    def on_sqlite(self) -> SqliteColumn:
        import sqlalchemy as sa

        column = converted(sa.LargeBinary(), _to_blob, _from_blob)
        return SqliteColumn(type=column, strict="BLOB", adopts=(sa.LargeBinary,))

    def on_postgres(self) -> PostgresColumn:
        from pgvector.sqlalchemy import VECTOR

        return PostgresColumn(
            type=pg_vector(self.dim), adopts=(VECTOR,), unfit=self._unfit_on_postgres, pack=self._pack,
            extension="vector", is_hashed_as_text=True,
        )  # fmt: skip

    def _unfit_on_postgres(self, found: Any) -> str:
        dim = getattr(found, "dim", None)
        return "" if dim in (None, self.dim) else f"of {dim} numbers"

    def _pack(self, vectors: Sequence[Any], oid: int) -> PackedArray:
        return pack(vectors, self.dim, oid)

    def on_mongodb(self) -> BsonField:
        from bson.binary import Binary

        def to_binary(value: Any) -> Any:
            return Binary(vector_bytes(value), BSON_SUBTYPE)

        return BsonField(types=("binData",), encode=to_binary, is_ours=self._is_ours)

    def _is_ours(self, value: Any) -> bool:
        return is_float_vector(value) and len(value) == len(_FLOAT32_VECTOR) + 4 * self.dim


@functools.cache
def numpy() -> Any:
    """The numpy module; MissingPlugin where it is not installed."""
    try:
        import numpy as np
    except ImportError as error:
        raise MissingPlugin("numpy", "numpy", purpose="vector outputs") from error
    return np


def _to_blob(value: Any) -> Any:
    return numpy().asarray(value, dtype="<f4").tobytes()


def _from_blob(value: Any) -> Any:
    return numpy().frombuffer(value, dtype="<f4")


def is_float_vector(value: Any) -> bool:
    """Whether ``value`` is BSON's binary vector of float32, known by its shape."""
    return isinstance(value, bytes) and getattr(value, "subtype", 0) == BSON_SUBTYPE and value[:2] == _FLOAT32_VECTOR


def vector_of(value: bytes) -> Any:
    """The float32 numpy array in a BSON binary vector."""
    np = numpy()
    return np.frombuffer(value, dtype="<f4", offset=len(_FLOAT32_VECTOR)).astype(np.float32)


def vector_bytes(array: Any) -> bytes:
    """The payload of a BSON binary vector (subtype 9): element type, padding, little-endian float32."""
    return _FLOAT32_VECTOR + bytes(array.astype("<f4", copy=False).tobytes())


def pack(vectors: Sequence[Any], dim: int, oid: int) -> PackedArray:
    """All of ``vectors`` (float32 of shape (dim,), or None) as one binary array of the type ``oid``.

    The format is that of array_recv: dimensions, null flag, element type, length, lower
    bound, then each element's byte count and vector_recv's dim, zero, big-endian floats.
    """
    np = numpy()
    has_nulls = any(vector is None for vector in vectors)
    header = struct.pack(">iiIii", 1, int(has_nulls), oid, len(vectors), 1)
    element = np.dtype([("bytes", ">i4"), ("dim", ">i2"), ("unused", ">i2"), ("values", ">f4", (dim,))])
    if not has_nulls:
        packed = np.zeros(len(vectors), element)
        packed["bytes"], packed["dim"], packed["values"] = 4 + 4 * dim, dim, np.stack(vectors)
        return PackedArray(header + packed.tobytes())
    parts = [header]
    for vector in vectors:
        if vector is None:
            parts.append(struct.pack(">i", -1))
        else:
            parts.append(struct.pack(">ihh", 4 + 4 * dim, dim, 0) + np.asarray(vector, ">f4").tobytes())
    return PackedArray(b"".join(parts))


def pg_vector(dim: int | None) -> Any:
    """pgvector's ``vector(dim)`` for SQLAlchemy, read back as a float32 numpy array of shape (dim,)."""
    return _pg_vector()(dim)


@functools.cache
def _pg_vector() -> Any:
    import sqlalchemy as sa
    from pgvector.sqlalchemy import VECTOR

    class PgVector(VECTOR):
        cache_ok = True

        def result_processor(self, dialect: sa.Dialect, coltype: Any) -> Any:
            return _from_text

    return PgVector


def _from_text(value: Any) -> Any:
    if value is None:
        return None
    text = value if isinstance(value, str) else str(value)
    return numpy().array(text.strip("[]").split(","), dtype="float32")
