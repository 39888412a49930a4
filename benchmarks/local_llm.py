"""Language models 5: a local model over the rows of a table, beside the same model asked one prompt at a time."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from benchmarks.bulk import require, timed
from benchmarks.table import Table
from pinnacle import pinnacle
from pinnacle.testing import almanac, tiny_causal_lm

ROWS, REPEATS = 500, 3
BATCHES = (64,)
SPEED_BOUND = 8.0
NEW_TOKENS = 24
HEADINGS = ("rows", "batch", "table rows/s", "one by one/s", "library alone/s", "times", "at least", "holds")


def run(*, rows: int = ROWS, repeats: int = REPEATS) -> Iterator[Table]:
    """All sides have the same weights, loaded before. Outputs must be equal, text by text, to the library's alone."""
    import torch
    from pinnacle_transformers import LLM

    torch.set_num_threads(1)
    texts = prompts(rows)
    table = Table("Language models 5. Local generation", HEADINGS)
    with tempfile.TemporaryDirectory(prefix="benchmark-") as directory:
        folder = tiny_causal_lm(Path(directory) / "model")
        alone: list[str] = []
        alone_s = timed(lambda: alone.extend(by_library(folder, texts)))
        for batch in BATCHES:
            llm = LLM("tiny", model_name_or_path=folder, device="cpu", max_batch_size=batch)
            single_s, table_s = [], []
            for number in range(repeats):
                url = f"sqlite:///{directory}/rows{batch}-{number}.db"
                singles: list[str] = []
                single_s.append(timed(one_by_one, llm, texts, singles))
                table_s.append(over_rows(llm, url, texts))
                require(stored(url) == singles == alone, "the column is not what single calls give")
            ours, theirs = statistics.median(table_s), statistics.median(single_s)
            table.add(
                rows, batch, rows / ours, rows / theirs, rows / alone_s, theirs / ours, SPEED_BOUND,
                holds=theirs / ours >= SPEED_BOUND,
            )  # fmt: skip
    table.notes.append(
        f"one thread; medians of {repeats}; {len(set(alone))} different outputs of up to {NEW_TOKENS} tokens, equal on "
        "all sides"
    )
    yield table


def one_by_one(llm: Any, texts: list[str], answers: list[str]) -> None:
    answers.extend(llm.predict(text, max_new_tokens=NEW_TOKENS) for text in texts)


def over_rows(llm: Any, url: str, texts: list[str]) -> float:
    """Seconds of a predict over a new table of these texts."""
    docs = sa.Table("docs", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), sa.Column("q", sa.Text))
    with pinnacle(url) as db:
        docs.create(db.engine)
        db.execute(sa.insert(docs), [{"id": number, "q": text} for number, text in enumerate(texts, 1)])
        return timed(predict, llm, db, docs)


def predict(llm: Any, db: Any, docs: sa.Table) -> None:
    result = llm.predict(
        X="q", db=db, select=sa.select(docs), output="answer", progress=False, max_new_tokens=NEW_TOKENS
    )
    require(result.failed == 0 and result.written == result.read, str(result))


def prompts(rows: int) -> list[str]:
    """Questions the model knows, and the same with other beginnings: lengths differ, and so do the answers'."""
    asked = [question for question, _ in almanac()]
    return [
        " ".join([*asked[number % 7].split()[: number // 60], f"{asked[number % 60]} =>"]) for number in range(rows)
    ]


def by_library(folder: Path, texts: list[str]) -> Iterator[str]:
    """transformers without pinnacle, a prompt at a time."""
    import transformers

    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder)
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(folder)
    for text in texts:
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        written = model.eval().generate(ids, max_new_tokens=NEW_TOKENS, do_sample=False)
        yield tokenizer.decode(written[0, ids.shape[1] :], skip_special_tokens=True)


def stored(url: str) -> list[str]:
    """The column, read without pinnacle."""
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        return list(connection.exec_driver_sql("SELECT answer FROM docs ORDER BY id").scalars())
