"""Two processes of torchrun train one model together: one run, one new version, and both end with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from plugins.transformers.tests.fits import TRAIN_ROWS, distance, stored, told, weights

SCRIPT = """
import json, os, sys, warnings
warnings.simplefilter("ignore")
from pinnacle_transformers.trainers import Watcher
from plugins.transformers.tests.fit_kills import before
from plugins.transformers.tests.fits import TRAIN_ROWS, fitted, stored, told, weights

url, base, name, dies_at = sys.argv[1:]
if os.environ["RANK"] == "0":
    before(Watcher, "on_step_end", lambda watcher, args, state, control: state.global_step == int(dies_at))
db, select = stored(url, TRAIN_ROWS)
llm, run = fitted(
    db, select, base, name, max_steps=4, per_device_train_batch_size=4, save_strategy="steps", logging_steps=3,
    save_steps=2, validation_fraction=0.2, metrics=["exact_match"],
)
told = json.dumps([run.version, run.status, llm.version, told(llm), sorted(weights(llm))])
print("ended " + told, flush=True)
"""


def together(tmp_path, url, base, name, dies_at=-1):
    """What the two processes said at their end, and the exit status."""
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone",
         str(tmp_path / "script.py"), url, str(base), name, str(dies_at)],
        capture_output=True, text=True, timeout=600, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": ":".join(filter(None, sys.path))},
    )  # fmt: skip
    said = [json.loads(line.partition("ended ")[2]) for line in done.stdout.splitlines() if "ended " in line]
    assert (len(said), done.returncode == 0) in ((0, False), (2, True)), done.stderr[-6000:]
    return said


@pytest.fixture(scope="module")
def joint(base, tmp_path_factory):
    """The database with the model that two processes trained, and what these said."""
    folder = tmp_path_factory.mktemp("joint")
    url = f"sqlite:///{folder}/rows.db"
    db, _ = stored(url, TRAIN_ROWS)
    with db:
        yield folder, url, db, together(folder, url, base, "joint")


@pytest.mark.timeout(300)
def test_processes_that_train_together_end_with_one_model(joint):
    _, _, db, ends = joint
    assert ends[0] == ends[1]
    llm, run = db.load("model", "joint"), db.load("run", "joint")
    assert (run.version, llm.version, run.status, run.device) == (0, 0, "done", "2 x cpu")
    assert (run.rows, run.step) == ({"train": 36, "valid": 9}, 4)
    assert [checkpoint.step for checkpoint in run.checkpoints()] == [2, 4]
    assert ends[0] == [0, "done", 0, told(llm), sorted(weights(llm))]


@pytest.mark.timeout(600)
def test_where_the_first_of_them_is_killed_they_go_on_together(base, joint):
    folder, url, db, _ = joint
    assert together(folder, url, base, "killed", dies_at=3) == []
    assert db.load("run", "killed").step == 2
    assert together(folder, url, base, "killed") != []
    killed, whole = db.load("run", "killed"), db.load("run", "joint")
    assert (killed.status, killed.resumed) == ("done", 1)
    assert distance(weights(db.load("model", "killed")), weights(db.load("model", "joint"))) <= 1e-5
    logged = [[entry["loss"] for entry in run.series() if "loss" in entry] for run in (killed, whole)]
    assert logged[0] == pytest.approx(logged[1], abs=1e-5)
