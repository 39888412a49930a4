"""Whatever is changed of what pinnacle keeps, nothing is done that was not meant, and every error is pinnacle's."""

from __future__ import annotations

import subprocess
import sys

from tests.security.watch import REPOSITORY

MUTATIONS = 50


def test_no_value_of_any_record_has_a_process_do_what_was_not_meant():
    """With a secret and without, in a process of its own, which is watched."""
    command = [sys.executable, "-m", "tests.security.fuzz", "--mutations", str(MUTATIONS), "--seed", "14"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.count(": 0 with a fault")) == (0, 2), done.stdout + done.stderr
