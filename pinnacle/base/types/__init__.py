"""Output types: what a model's value must be before a backend may store it, and how each database keeps it.

A value that does not fit raises; nothing is coerced. The few exact equivalents that
Python itself treats as one type are accepted: numpy scalars for their Python kin, and
an int where a float is declared (PEP 484) when the float holds it exactly.

A type is one class in one file, here or in any package::

    class Money(OutputType):
        \"\"\"An amount, kept as text.\"\"\"

        name, annotations = "money", (Decimal,)

        def check(self, value):
            if not isinstance(value, Decimal) or not value.is_finite():
                raise self.misfit(value)
            return value

        def on_sqlite(self):
            column = converted(sqlalchemy.Text(), str, Decimal)
            return SqliteColumn(type=column, strict="TEXT", adopts=(sqlalchemy.String,))

        def on_postgres(self):
            column = converted(sqlalchemy.Text(), str, Decimal)
            return PostgresColumn(type=column, adopts=(sqlalchemy.String,))

        def on_mongodb(self):
            return BsonField(types=("string",), encode=str, decode=Decimal)

A package names it as an entry point, ``money = "my_package:Money"`` in the group
``pinnacle.types``; a program of its own calls ``register_output_type(Money)``. Models that
read such an output as their input get it as the column's type reads it; on MongoDB as the
driver does.
"""

from __future__ import annotations

from pinnacle.base.types.boolean import Boolean
from pinnacle.base.types.bytes import Bytes
from pinnacle.base.types.datetime import Datetime
from pinnacle.base.types.float import Float
from pinnacle.base.types.integer import INT64, Integer
from pinnacle.base.types.items import Items
from pinnacle.base.types.json import Json, dump_json
from pinnacle.base.types.output_type import OutputType
from pinnacle.base.types.registry import output_type_from_json, output_type_of, register_output_type
from pinnacle.base.types.storage import BsonField, PackedArray, PostgresColumn, SqlColumn, SqliteColumn, converted
from pinnacle.base.types.text import Text
from pinnacle.base.types.vector import Vector, is_float_vector, numpy, pg_vector, vector_bytes, vector_of

__all__ = [
    "Boolean",
    "BsonField",
    "Bytes",
    "Datetime",
    "Float",
    "INT64",
    "Integer",
    "Items",
    "Json",
    "OutputType",
    "PackedArray",
    "PostgresColumn",
    "SqlColumn",
    "SqliteColumn",
    "Text",
    "Vector",
    "converted",
    "dump_json",
    "is_float_vector",
    "numpy",
    "output_type_from_json",
    "output_type_of",
    "pg_vector",
    "register_output_type",
    "vector_bytes",
    "vector_of",
]
