"""An async model over documents: mongomock here; with mongodb://host/name the same lines run on a server.

Needs: pip install 'pinnacle-ai[mongomock]'
Run: python examples/documents_in_process.py
"""

from __future__ import annotations

import asyncio

from pinnacle import model, pinnacle
from pinnacle.backends.mongodb import Collection
from pinnacle.base.document import Document


@model(concurrency=8)
async def sentiment(text: str) -> dict[str, object]:
    """Stands for a call to a slow service: up to eight are in flight at once."""
    await asyncio.sleep(0.01)
    words = text.lower().split()
    return {"label": "good" if "good" in words else "bad", "words": len(words)}


def main() -> None:
    reviews = Collection("reviews")
    with pinnacle("mongomock://shop") as db:
        texts = ["a good book", "not worth it", "good value and good service"]
        db.execute(reviews.insert_many([Document({"_id": n, "review": {"text": t}}) for n, t in enumerate(texts)]))

        result = sentiment.predict(X="review.text", db=db, select=reviews.find())
        print(f"{result.written} written")
        for row in db.execute(reviews.find()):
            print(row.unpack()["_id"], row.outputs("review.text", "sentiment"))

        db.execute(reviews.update_one({"_id": 1}, {"$set": {"review.text": "good after all"}}))
        again = sentiment.predict(X="review.text", db=db, select=reviews.find())
        print(f"after one edit: {again.computed} computed, {again.fresh} already fresh")


if __name__ == "__main__":
    main()

# Prints:
# 3 written
# 0 {'label': 'good', 'words': 3}
# 1 {'label': 'bad', 'words': 3}
# 2 {'label': 'good', 'words': 5}
# after one edit: 1 computed, 2 already fresh
