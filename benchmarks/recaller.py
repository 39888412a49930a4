"""Models asked in a process of its own: ``python -m benchmarks.recaller URL QUESTIONS``.

QUESTIONS is a JSON file with prompts by the model that is asked; prints the answers, likewise.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from pinnacle import pinnacle

NEW_TOKENS = 12


def main(url: str, questions: str) -> None:
    asked: dict[str, list[str]] = json.loads(Path(questions).read_text())
    with pinnacle(url) as db:
        answers = {
            model: [db.load("model", model).predict(prompt, max_new_tokens=NEW_TOKENS) for prompt in prompts]
            for model, prompts in asked.items()
        }
    print(json.dumps(answers))


if __name__ == "__main__":
    main(*sys.argv[1:])
