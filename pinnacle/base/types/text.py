"""Text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pinnacle.base.errors import OutputTypeMismatch
from pinnacle.base.types.output_type import OutputType
from pinnacle.base.types.storage import BsonField, PostgresColumn, SqliteColumn


class Text(OutputType):
    """Unicode text, without NUL characters or lone surrogates (no database takes all of them)."""

    name, annotations, is_cached = "str", (str,), True

    def check_all(self, values: Sequence[Any]) -> tuple[Sequence[Any], dict[int, OutputTypeMismatch]]:
        if set(map(type, values)) == {str}:
            whole = "".join(values)
            if "\x00" not in whole and (whole.isascii() or encodes(whole)):
                return values, {}
        return super().check_all(values)

    def check(self, value: Any) -> str:
        if not isinstance(value, str):
            raise self.misfit(value)
        if "\x00" in value:
            raise self.misfit(value, "text with a NUL character")
        if not encodes(value):
            raise self.misfit(value, "text with a lone surrogate")
        return value if type(value) is str else str.__str__(value)

    def on_sqlite(self) -> SqliteColumn:
        import sqlalchemy as sa

        return SqliteColumn(type=sa.Text(), strict="TEXT", adopts=(sa.String,), unfit=_refused_enum)

    def on_postgres(self) -> PostgresColumn:
        import sqlalchemy as sa

        return PostgresColumn(type=sa.Text(), adopts=(sa.String,), unfit=_refused_enum_or_char)

    def on_mongodb(self) -> BsonField:
        return BsonField(types=("string",))


def encodes(text: str) -> bool:
    """Whether text has a UTF-8 form: lone surrogates have none."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _refused_enum(found: Any) -> str:
    import sqlalchemy as sa

    return "an enum takes only its own values" if isinstance(found, sa.Enum) else ""


def _refused_enum_or_char(found: Any) -> str:
    import sqlalchemy as sa

    return "it pads with blanks" if isinstance(found, sa.CHAR) else _refused_enum(found)
