"""Two processes that train one model together, as a program: ``python -m plugins.transformers.tests.fit_pairs JOBS``.

JOBS is a list as JSON of url, base, name and the step at which the first of the two kills itself, if any. The
libraries are imported once, and each process is a fork with the environment that torchrun gives; where one ends badly
the other is ended, as torchrun does it. How they ended is printed, a list a job.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import warnings

from pinnacle_transformers.trainers import Watcher

from plugins.transformers.tests.fit_kills import before
from plugins.transformers.tests.fits import TRAIN_ROWS, fitted, stored
from tests.servers import free_port

OPTIONS = {
    "max_steps": 4, "per_device_train_batch_size": 4, "save_strategy": "steps", "logging_steps": 3, "save_steps": 2,
    "validation_fraction": 0.2, "metrics": ["exact_match"],
}  # fmt: skip


def train(url, base, name, dies_at=None):
    """What each of the two does."""
    warnings.simplefilter("ignore")
    if os.environ["RANK"] == "0":
        before(Watcher, "on_step_end", lambda watcher, args, state, control: state.global_step == dies_at)
    db, select = stored(url, TRAIN_ROWS)
    return (db, *fitted(db, select, base, name, **OPTIONS))


def main():
    gc.freeze()
    ends = []
    for job in json.loads(sys.argv[1]):
        port = free_port()
        pair = [forked(job, rank, port) for rank in (0, 1)]
        ended = {}
        while len(ended) < len(pair):
            child, status = os.wait()
            ended[child] = os.waitstatus_to_exitcode(status)
            if ended[child]:
                for other in set(pair) - ended.keys():
                    os.kill(other, signal.SIGTERM)
        ends.append([ended[child] for child in pair])
    print(json.dumps(ends))


def forked(job, rank, port):
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
        os.environ.update({name: str(value) for name, value in own.items()} | {"MASTER_ADDR": "127.0.0.1"})
        train(**job)
        status = 0
    finally:
        os._exit(status)


if __name__ == "__main__":
    main()
