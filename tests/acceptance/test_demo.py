"""`pinnacle demo` in a short form: the real model, the real kill, fewer rows."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing

from click.testing import CliRunner

from pinnacle.cli import main
from pinnacle.demo.docstrings import read_module, read_standard_library
from pinnacle.demo.models import parameters, word_count

ROWS = 1500


def test_the_demo_survives_its_kill_and_answers_its_question(tmp_path, capfd):
    path = tmp_path / "demo.db"
    answer = CliRunner().invoke(main, ["demo", str(path), "--rows", str(ROWS)], catch_exceptions=False)
    assert answer.exit_code == 0, answer.output
    assert "nothing lost" in answer.output
    assert "Failed to load" not in capfd.readouterr().err
    with closing(sqlite3.connect(path)) as connection:
        counts = connection.execute("SELECT count(*), count(words), count(takes), count(embedding) FROM docs")
        rows, words, takes, embeddings = counts.fetchone()
        signatures = connection.execute("SELECT count(signature) FROM docs").fetchone()[0]
        sizes = connection.execute("SELECT DISTINCT typeof(embedding), length(embedding) FROM docs").fetchall()
        longest = connection.execute("SELECT words, doc FROM docs ORDER BY words DESC LIMIT 1").fetchone()
    assert rows == words == embeddings == ROWS + 2
    assert takes == signatures
    assert sizes == [("blob", 384 * 4)]
    assert longest[0] == len(longest[1].split())
    command, *arguments = answer.output.splitlines()[-1].split()
    assert shutil.which(command)
    assert CliRunner().invoke(main, arguments).exit_code == 0


def test_the_demo_overwrites_no_file(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("precious")
    answer = CliRunner().invoke(main, ["demo", str(path)])
    assert answer.exit_code == 1
    assert "overwrites nothing" in answer.output
    assert path.read_text() == "precious"


def test_docstrings_come_with_their_names_and_signatures(tmp_path):
    source = tmp_path / "sample.py"
    source.write_text(
        '"""A module.\n\nMore of it."""\n'
        "class Box:\n"
        '    """A  box\n    of things."""\n'
        "    def put(self, thing, /, *, twice=False):\n"
        '        """Put it in."""\n'
        "    def silent(self): ...\n"
        "if True:\n"
        "    async def wait(*jobs, **options):\n"
        '        """Wait for jobs."""\n'
    )
    found = [(d.name, d.signature, d.summary) for d in read_module(source, "sample")]
    assert found == [
        ("sample", None, "A module."),
        ("Box", None, "A box of things."),
        ("Box.put", "self, thing, /, *, twice=False", "Put it in."),
        ("wait", "*jobs, **options", "Wait for jobs."),
    ]


def test_the_standard_library_gives_thousands_of_rows_and_the_models_take_them_all():
    docs = read_standard_library()
    assert len(docs) > 5000
    assert all(word_count(doc.doc) > 0 for doc in docs)
    assert sum(len(parameters(doc.signature)) for doc in docs if doc.signature is not None) > 5000


def test_parameters_are_the_names_a_caller_passes():
    assert parameters("self, thing, /, *rest, twice=False, **options") == ["thing", "twice", "*rest", "**options"]
    assert parameters("") == []
