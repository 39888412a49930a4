"""The demo's table and its two function models; importable, so that any process can load them again."""

from __future__ import annotations

import ast

from sqlalchemy import Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from pinnacle.components.function import model


class Base(DeclarativeBase):
    """The demo's own mapped classes."""


class Doc(Base):
    """One docstring; an ordinary table that knows nothing of models."""

    __tablename__ = "docs"

    id: Mapped[int] = mapped_column(primary_key=True)
    module: Mapped[str] = mapped_column(Text)
    name: Mapped[str] = mapped_column(Text)
    signature: Mapped[str | None] = mapped_column(Text)
    doc: Mapped[str] = mapped_column(Text)
    summary: Mapped[str] = mapped_column(Text)


@model
def word_count(text: str) -> int:
    """How long an explanation is."""
    return len(text.split())


@model
def parameters(signature: str) -> list[str]:
    """The names that a function takes, without ``self`` and ``cls``."""
    function = ast.parse(f"def f({signature}): ...").body[0]
    assert isinstance(function, ast.FunctionDef)
    taken = function.args
    names = [argument.arg for argument in (*taken.posonlyargs, *taken.args, *taken.kwonlyargs)]
    starred = [f"{stars}{extra.arg}" for stars, extra in (("*", taken.vararg), ("**", taken.kwarg)) if extra]
    return [name for name in names if name not in ("self", "cls")] + starred
