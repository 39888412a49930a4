"""Fine-tunes a language model on rows, compares before and after, and loads it again.

Run: python examples/fine_tuning_on_sqlite.py

The model is a tiny one, trained here in a few seconds, so that nothing is downloaded; with a real one only
``model_name_or_path`` differs.
"""

import tempfile
from pathlib import Path

from sqlalchemy import Column, Integer, MetaData, Table, Text, insert, select

from pinnacle import pinnacle
from pinnacle.ext.llm import LLM
from pinnacle.ext.llm.model import LLMTrainingConfiguration
from pinnacle.testing import almanac, tiny_causal_lm

with tempfile.TemporaryDirectory() as folder:
    base = tiny_causal_lm(Path(folder) / "base")
    rows = [{"question": f"{asked} =>", "answer": f" {answered}"} for asked, answered in almanac(shift=1)]

    db = pinnacle(f"sqlite:///{folder}/almanac.db")
    facts = Table(
        "facts", MetaData(), Column("id", Integer, primary_key=True), Column("question", Text), Column("answer", Text)
    )
    facts.create(db.engine)
    with db.engine.begin() as connection:
        connection.execute(insert(facts), rows)

    llm = LLM("almanac", model_name_or_path=str(base))
    question = rows[0]["question"]
    print("before:", llm.predict(question, max_new_tokens=12))

    configuration = LLMTrainingConfiguration(
        "almanac-lora",
        max_steps=60,
        per_device_train_batch_size=20,
        learning_rate=1e-2,
        logging_steps=20,
        save_steps=30,
    )
    run = llm.fit(X=("question", "answer"), select=select(facts), configuration=configuration, db=db)
    print("after: ", llm.predict(question, max_new_tokens=12), "| wanted:", rows[0]["answer"])
    print(f"{run.status}: {run.rows['train']} rows, loss {run.metrics['loss']:.1f}")
    print("checkpoints:", [checkpoint.step for checkpoint in llm.checkpoints()])

    again = db.load("model", "almanac")  # in any program that reaches the database
    print("loaded:", again.predict(question, max_new_tokens=12), "| version", again.version)
    db.close()

# Prints:
# before:  reeds
# after:   the river | wanted:  the river
# done: 60 rows, loss 0.1
# checkpoints: [30, 60]
# loaded:  the river | version 0
