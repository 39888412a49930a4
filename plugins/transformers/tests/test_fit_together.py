"""Two processes of torchrun train one model together: one run, one new version, and both end with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from plugins.transformers.tests.fits import TRAIN_ROWS, stored, told, weights

SCRIPT = """
import json, sys, warnings
warnings.simplefilter("ignore")
from plugins.transformers.tests.fits import TRAIN_ROWS, fitted, stored, told, weights
url, base = sys.argv[1:]
db, select = stored(url, TRAIN_ROWS)
llm, run = fitted(
    db, select, base, "joint", max_steps=4, per_device_train_batch_size=4, save_strategy="steps",
    save_steps=2, validation_fraction=0.2, metrics=["exact_match"],
)
told = json.dumps([run.version, run.status, llm.version, told(llm), sorted(weights(llm))])
print("ended " + told, flush=True)
"""


@pytest.mark.timeout(300)
def test_processes_that_train_together_end_with_one_model(base, tmp_path):
    url = f"sqlite:///{tmp_path}/rows.db"
    db, _ = stored(url, TRAIN_ROWS)
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone",
         str(tmp_path / "script.py"), url, str(base)],
        capture_output=True, text=True, timeout=280, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": ":".join(filter(None, sys.path))},
    )  # fmt: skip
    ends = [json.loads(line.partition("ended ")[2]) for line in done.stdout.splitlines() if "ended " in line]
    assert done.returncode == 0, done.stderr[-6000:]
    assert len(ends) == 2
    assert ends[0] == ends[1]
    with db:
        llm, run = db.load("model", "joint"), db.load("run", "joint")
        assert (run.version, llm.version, run.status, run.device) == (0, 0, "done", "2 x cpu")
        assert (run.rows, run.step) == ({"train": 36, "valid": 9}, 4)
        assert [checkpoint.step for checkpoint in run.checkpoints()] == [2, 4]
        assert ends[0] == [0, "done", 0, told(llm), sorted(weights(llm))]
