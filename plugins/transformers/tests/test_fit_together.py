"""Two processes of torchrun train one model together: one run, one new version, and both end with it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from plugins.transformers.tests.fits import TRAIN_ROWS, distance, stored, told, weights

SCRIPT = """
import json, sys
from plugins.transformers.tests.fit_pairs import train
from plugins.transformers.tests.fits import told, weights

_, llm, run = train(*sys.argv[1:])
told = json.dumps([run.version, run.status, llm.version, told(llm), sorted(weights(llm))])
print("ended " + told, flush=True)
"""


def run(*arguments, cwd=None):
    return subprocess.run(
        [sys.executable, "-m", *map(str, arguments)], capture_output=True, text=True, timeout=600, cwd=cwd,
        env={**os.environ, "PYTHONPATH": ":".join(filter(None, sys.path))},
    )  # fmt: skip


def together(tmp_path, url, base, name):
    """What two processes of torchrun said at their end."""
    (tmp_path / "script.py").write_text(SCRIPT)
    pair = ("torch.distributed.run", "--nproc_per_node", "2", "--standalone", tmp_path / "script.py")
    done = run(*pair, url, base, name, cwd=tmp_path)
    said = [json.loads(line.partition("ended ")[2]) for line in done.stdout.splitlines() if "ended " in line]
    assert (len(said), done.returncode) == (2, 0), done.stderr[-6000:]
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
    _, url, db, _ = joint
    job = {"url": url, "base": str(base), "name": "killed"}
    done = run("plugins.transformers.tests.fit_pairs", json.dumps([{**job, "dies_at": 3}, job]))
    (first, second), again = json.loads(done.stdout or "[[0, 0], []]")
    assert (first, second != 0, again) == (-signal.SIGKILL, True, [0, 0]), done.stderr[-6000:]
    killed, whole = db.load("run", "killed"), db.load("run", "joint")
    assert (killed.status, killed.resumed) == ("done", 1)
    assert distance(weights(db.load("model", "killed")), weights(db.load("model", "joint"))) <= 1e-5
    logged = [[entry["loss"] for entry in run.series() if "loss" in entry] for run in (killed, whole)]
    assert logged[0] == pytest.approx(logged[1], abs=1e-5)
