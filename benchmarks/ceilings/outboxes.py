"""The leanest outbox by hand: a trigger that appends the keys of inserted rows, and no more."""

from __future__ import annotations

POSTGRES_TABLE = "CREATE TABLE outbox (id bigserial, key integer)"
POSTGRES_TRIGGER = (
    "CREATE TRIGGER capture AFTER INSERT ON docs REFERENCING NEW TABLE AS rows "
    "FOR EACH STATEMENT EXECUTE FUNCTION capture()"
)
SQLITE = (
    "CREATE TABLE outbox (id INTEGER PRIMARY KEY, key INTEGER)",
    "CREATE TRIGGER capture AFTER INSERT ON docs BEGIN INSERT INTO outbox (key) VALUES (new.id); END",
)


def postgres(*, notifies: bool) -> tuple[str, ...]:
    """A statement trigger with a transition table; with ``notifies`` it also wakes who listens."""
    wake = "NOTIFY outbox; " if notifies else ""
    body = f"BEGIN INSERT INTO outbox (key) SELECT id FROM rows; {wake}RETURN NULL; END"
    function = f"CREATE FUNCTION capture() RETURNS trigger LANGUAGE plpgsql AS $$ {body} $$"
    return POSTGRES_TABLE, function, POSTGRES_TRIGGER


WAYS: dict[str, dict[str, tuple[str, ...]]] = {
    "sqlite": {"by hand": SQLITE},
    "postgres": {"by hand": postgres(notifies=False), "and NOTIFY": postgres(notifies=True)},
}
