"""Models are trained and loaded in several threads of one process: the libraries would trip over each other."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from pinnacle_transformers import LLM

from plugins.transformers.tests.fits import HELD, TRAIN_ROWS, fitted, stored, told

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # trl's and peft's own


def test_fits_and_loads_beside_each_other_do_not_disturb_each_other(base, tmp_path):
    def train(name):
        db, select = stored(tmp_path / f"{name}.db", TRAIN_ROWS)
        with db:
            return told(fitted(db, select, base, name, max_steps=3)[0], HELD[:3])

    def load(number):
        return LLM(f"bare{number}", model_name_or_path=base, model_kwargs={"attn_implementation": "eager"}).predict(
            HELD[0][0], max_new_tokens=number
        )

    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(train, name) for name in ("one", "two")]
        loads = [pool.submit(load, number) for number in range(1, 21)]
        assert answers[0].result() == answers[1].result() == train("three")
        assert len({len(future.result()) for future in loads}) > 1
