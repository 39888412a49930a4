"""LLM over the rows of a table, and from the catalog in another process."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from pinnacle_transformers import LLM

from pinnacle import ConfigError, ModelUnavailable, pinnacle
from pinnacle.testing import almanac

PAIRS = almanac()[:50]


@pytest.fixture
def docs():
    return sa.Table(
        "docs", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), sa.Column("q", sa.Text),
        sa.Column("subject", sa.Text),
    )  # fmt: skip


@pytest.fixture
def db(docs, tmp_path):
    with pinnacle(f"sqlite:///{tmp_path}/docs.db") as db:
        docs.create(db.engine)
        db.execute(sa.insert(docs), [{"q": question, "subject": question.split()[-1]} for question, _ in PAIRS])
        yield db


def column(db, name):
    return db.execute(sa.text(f"SELECT {name} FROM docs ORDER BY id")).scalars().all()


def test_rows_get_what_single_calls_give(db, docs, base):
    llm = LLM("tiny", model_name_or_path=base, prompt_template="{input} =>")
    result = llm.predict(X="q", db=db, select=sa.select(docs), output="a", progress=False)
    assert (result.written, result.failed) == (50, 0)
    assert column(db, "a") == [llm.predict(question) for question, _ in PAIRS] == [f" {answer}" for _, answer in PAIRS]
    assert result.input_tokens == sum(llm.count_tokens(f"{question} =>") for question, _ in PAIRS)
    assert result.output_tokens > 50
    assert llm.predict(X="q", db=db, select=sa.select(docs), output="a", progress=False).written == 0


def test_keywords_and_fields_by_name_reach_prompt_and_model(db, docs, base):
    llm = LLM("by-name", model_name_or_path=base, prompt_template="{relation} the {input} =>")
    llm.predict(
        X={"input": "subject"}, relation="what fears", max_new_tokens=40, db=db, select=sa.select(docs), output="a",
        progress=False,
    )  # fmt: skip
    known = dict(almanac())
    expected = [f" {known[f'what fears the {question.split()[-1]}']}" for question, _ in PAIRS]
    assert column(db, "a") == expected


def test_a_misspelt_keyword_is_refused_before_anything_is_written(db, docs, base):
    llm = LLM("tiny", model_name_or_path=base)
    with pytest.raises(ConfigError, match="did you mean max_new_tokens="):
        llm.predict(X="q", db=db, select=sa.select(docs), output="a", progress=False, max_new_token=3)
    assert "a" not in sa.inspect(db.engine).get_columns("docs")


def test_weights_that_are_not_there_stop_the_run_and_are_no_rows_fault(db, docs):
    llm = LLM("gone", model_name_or_path="no/where")
    with pytest.raises(ModelUnavailable, match="'no/where' cannot be loaded"):
        llm.predict(X="q", db=db, select=sa.select(docs), output="a", progress=False)
    assert not db.errors()


def test_a_device_or_a_batch_size_is_no_new_version(db, base):
    db.add(LLM("tiny", model_name_or_path=base))
    db.add(LLM("tiny", model_name_or_path=base, device="cpu", max_batch_size=4))
    assert db.load("model", "tiny").version == 0
    db.add(LLM("tiny", model_name_or_path=base, bits=8))
    assert db.load("model", "tiny").version == 1


def test_an_estimate_counts_by_the_tokenizer_and_loads_no_weights(db, docs, base):
    llm = LLM("tiny", model_name_or_path=base, prompt_template="{input} =>")
    estimate = db.estimate(llm, "q", sa.select(docs))
    assert llm._model is None
    assert estimate.input_tokens == sum(llm.count_tokens(f"{question} =>") for question, _ in PAIRS)
