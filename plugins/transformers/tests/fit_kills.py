"""Fits that are killed with SIGKILL at a given moment; as a program, one after the other, each in its own process.

``python -m plugins.transformers.tests.fit_kills JOBS``: JOBS is a list as JSON of url, base, identifier, moment and
options of `fits.fitted`. The libraries are imported once, and every fit is a fork.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import warnings

import datasets  # noqa: F401  what a fit needs is imported once, before the forks
import peft  # noqa: F401
import transformers.models.llama.modeling_llama  # noqa: F401
from pinnacle_transformers import trainers, training  # noqa: F401

from pinnacle.catalog.catalog import Catalog
from pinnacle.components.run import Checkpoint
from pinnacle.runtime.recorder import RunRecorder
from plugins.transformers.tests.fits import fitted, stored

SAVE_STEPS, STEPS = 3, 8


def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)


def before(owner, name, is_now, then=die):
    """Do something in the place of a method where a moment has come."""
    method = getattr(owner, name)

    def instead(self, *args, **kwargs):
        return then(self, *args) if is_now(self, *args) else method(self, *args, **kwargs)

    setattr(owner, name, instead)


def between_saves():
    before(trainers.Watcher, "on_step_end", lambda watcher, args, state, control: state.global_step == 5)


def while_a_folder_is_written():
    before(trainers.WatchedSFT, "_save_rng_state", lambda trainer, folder: trainer.state.global_step == 6)


def while_a_checkpoint_is_stored():
    before(Catalog, "put", lambda catalog, component, step: isinstance(component, Checkpoint) and step == 6)


def after_the_last_step():
    before(RunRecorder, "finish", lambda *args: True)


def while_the_version_is_registered():
    before(RunRecorder, "chosen", lambda *args: True)


MOMENTS = {
    f.__name__: f
    for f in (
        between_saves, while_a_folder_is_written, while_a_checkpoint_is_stored, after_the_last_step,
        while_the_version_is_registered,
    )
}  # fmt: skip


def options_of(kind):
    """How each kind of fit is trained; steps of 3, 6 and the last are checkpoints, 3 between two entries of the log."""
    common = {"max_steps": STEPS, "save_strategy": "steps", "save_steps": SAVE_STEPS, "logging_steps": 2}
    own = {
        "lora": {},
        "full": {"use_lora": False, "learning_rate": 5e-3},
        "epochs": {"max_steps": -1, "num_train_epochs": 2, "per_device_train_batch_size": 12},
        "best": {
            "validation_fraction": 0.2, "eval_strategy": "steps", "eval_steps": SAVE_STEPS,
            "load_best_model_at_end": True, "metric_for_best_model": "loss", "greater_is_better": True,
            "save_total_limit": 2,
        },
        "disk": {"log_to_db": False},
        "dpo": {"method": "dpo"},
        "qlora": {"bits": 4},
    }  # fmt: skip
    return {**common, **own[kind]}


def killed(jobs):
    """Run jobs in a process of their own; all of them must have been killed."""
    done = subprocess.run(
        [sys.executable, "-m", __name__, json.dumps(jobs, default=str)], capture_output=True, text=True, timeout=600,
        env={**os.environ, "PYTHONPATH": ":".join(filter(None, sys.path))},
    )  # fmt: skip
    assert json.loads(done.stdout or "[]") == [-signal.SIGKILL] * len(jobs), done.stderr[-3000:]


def main():
    gc.freeze()  # what was imported is no garbage, and is looked through at the end of each fit
    ends = []
    for job in json.loads(sys.argv[1]):
        child = os.fork()
        if child == 0:
            warnings.simplefilter("ignore")
            try:
                MOMENTS[job["moment"]]()
                db, select = stored(job["url"], job["rows"])
                fitted(db, select, job["base"], job["identifier"], X=job["X"], **job["options"])
            finally:
                os._exit(1)
        ends.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    print(json.dumps(ends))


if __name__ == "__main__":
    main()
