"""pgvector columns as numpy arrays, and whole batches of vectors as one binary parameter."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from pgvector.sqlalchemy import VECTOR
from psycopg.adapt import Dumper
from psycopg.pq import Format

from pinnacle.base.types import numpy


class PgVector(VECTOR):
    """``vector(dim)``, read back as a float32 numpy array of shape (dim,)."""

    cache_ok = True

    def result_processor(self, dialect: sa.Dialect, coltype: Any) -> Any:
        def process(value: Any) -> Any:
            if value is None:
                return None
            text = value if isinstance(value, str) else str(value)
            return numpy().array(text.strip("[]").split(","), dtype="float32")

        return process


class PackedVectors(bytes):
    """A ``vector[]`` in PostgreSQL's binary array format."""


def pack(vectors: Sequence[Any], dim: int, vector_oid: int) -> PackedVectors:
    """All of ``vectors`` (float32 of shape (dim,), or None) as one binary array.

    The format is that of array_recv: dimensions, null flag, element type, length, lower
    bound, then each element's byte count and vector_recv's dim, zero, big-endian floats.
    """
    np = numpy()
    has_nulls = any(vector is None for vector in vectors)
    header = struct.pack(">iiIii", 1, int(has_nulls), vector_oid, len(vectors), 1)
    element = np.dtype([("bytes", ">i4"), ("dim", ">i2"), ("unused", ">i2"), ("values", ">f4", (dim,))])
    if not has_nulls:
        packed = np.zeros(len(vectors), element)
        packed["bytes"], packed["dim"], packed["values"] = 4 + 4 * dim, dim, np.stack(vectors)
        return PackedVectors(header + packed.tobytes())
    parts = [header]
    for vector in vectors:
        if vector is None:
            parts.append(struct.pack(">i", -1))
        else:
            parts.append(struct.pack(">ihh", 4 + 4 * dim, dim, 0) + np.asarray(vector, ">f4").tobytes())
    return PackedVectors(b"".join(parts))


def packed_dumper(array_oid: int) -> type[Dumper]:
    """A psycopg dumper that sends `PackedVectors` as they are, typed as ``vector[]``."""

    class PackedDumper(Dumper):
        oid = array_oid
        format = Format.BINARY

        def dump(self, obj: PackedVectors) -> bytes:
            return bytes(obj)

    return PackedDumper
