"""The text rows that are worked on: seeded, all different, about a hundred characters each."""

from __future__ import annotations

import random
from collections.abc import Iterator

WORDS = """
the of and a to in is you that it he was for on are with as his they at be this from have or by one had not but what
all were when we there can an your which their said if do will each about how up out them then she many some database
column model output query value worker batch commit ledger façade naïve Straße 東京 данные
"""


def bodies(count: int) -> Iterator[str]:
    """``count`` texts of 8 to 28 words, each ending with its own number."""
    source, words = random.Random(20_000), WORDS.split()
    for number in range(count):
        yield f"{' '.join(source.choices(words, k=source.randint(8, 28)))} {number}"
