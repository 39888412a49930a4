"""Roles of PostgreSQL that tests act as."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import sqlalchemy as sa


def run_sql(url: str, *statements: str) -> list[Any]:
    """Statements by the plain driver, in one transaction; the last one's rows."""
    with psycopg.connect(url) as connection:
        for statement in statements:
            cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


@contextmanager
def role(url: str, *grants: str, options: str = "LOGIN") -> Iterator[str]:
    """The URL of a role with these grants and nothing else."""
    name = f"role_{uuid.uuid4().hex[:8]}"
    run_sql(url, f"CREATE ROLE {name} {options}", *(f"GRANT {grant} TO {name}" for grant in grants))
    yield sa.make_url(url).set(username=name).render_as_string(hide_password=False)
    run_sql(url, f"DROP OWNED BY {name} CASCADE", f"DROP ROLE {name}")


def name_of(url: str) -> str:
    """The role that a URL is of."""
    return str(sa.make_url(url).username)
