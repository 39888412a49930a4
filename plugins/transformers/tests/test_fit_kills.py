"""A fit whose process is killed goes on, when it is asked for again, and ends as one that never was."""

from __future__ import annotations

import logging
import shutil

import pytest

from plugins.transformers.tests.fit_kills import SAVE_STEPS, STEPS, killed, options_of
from plugins.transformers.tests.fits import ASKED, TRAIN_ROWS, distance, fitted, load_file, stored, weights

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")

KILLS = {
    # kind, moment, where it goes on, whether the output folder is gone by then
    "lora-between": ("lora", "between_saves", 3, False),
    "lora-stored": ("lora", "while_a_checkpoint_is_stored", 3, False),
    "lora-folder-gone": ("lora", "after_the_last_step", 8, True),
    "full-written": ("full", "while_a_folder_is_written", 3, False),
    "full-stored": ("full", "while_a_checkpoint_is_stored", 3, True),
    "full-registered": ("full", "while_the_version_is_registered", 8, False),
    "qlora": ("qlora", "between_saves", 3, False),
    "epochs": ("epochs", "after_the_last_step", 8, False),
    "best": ("best", "after_the_last_step", 8, True),
    "disk": ("disk", "while_a_folder_is_written", 3, False),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("kills")


def asked(folder, base, name):
    """One fit, as it is asked for before and after it was killed."""
    options = {**options_of(KILLS[name][0]), "output_dir": str(folder / f"{name}-out")}
    return {"url": f"sqlite:///{folder / name}.db", "rows": TRAIN_ROWS, "base": str(base), "identifier": "killed",
            "X": ASKED, "options": options}  # fmt: skip


def run(job):
    db, select = stored(job["url"], job["rows"])
    with db:
        llm, run = fitted(db, select, job["base"], job["identifier"], X=job["X"], **job["options"])
        return llm, run, {checkpoint.step for checkpoint in run.checkpoints()}, run.series()


@pytest.fixture(scope="module")
def kills(base, folder):
    jobs = [{**asked(folder, base, name), "moment": moment} for name, (_, moment, _, _) in KILLS.items()]
    killed([*jobs, {**asked(folder, base, "lora-between"), "url": left_alone(folder), "moment": "between_saves"}])


def left_alone(folder):
    """Where a killed fit is not asked for again, but another one."""
    return f"sqlite:///{folder}/left.db"


@pytest.fixture(scope="module")
def uninterrupted(base, folder):
    """The weights of a fit of each kind that nobody killed, and its metrics."""
    kinds = {}

    def of(kind):
        if kind not in kinds:
            options = {**options_of(kind), "output_dir": str(folder / f"{kind}-whole")}
            job = {
                **asked(folder, base, "lora-between"),
                "url": f"sqlite:///{folder}/{kind}-whole.db",
                "options": options,
            }
            llm, _, steps, series = run(job)
            kinds[kind] = (final(llm, options), steps, series)
        return kinds[kind]

    return of


def final(llm, options):
    if options.get("log_to_db", True):
        return weights(llm)
    return load_file(f"{options['output_dir']}/adapter_model.safetensors")


@pytest.mark.parametrize("name", KILLS)
@pytest.mark.usefixtures("kills")
def test_a_killed_fit_ends_as_if_it_had_not_been(base, folder, uninterrupted, caplog, name):
    kind, _, goes_on_from, is_folder_gone = KILLS[name]
    job = asked(folder, base, name)
    if is_folder_gone:
        shutil.rmtree(job["options"]["output_dir"])
    with caplog.at_level(logging.WARNING):
        llm, after, steps, series = run(job)
    expected, expected_steps, expected_series = uninterrupted(kind)
    assert distance(final(llm, job["options"]), expected) <= 1e-5
    assert (after.status, after.resumed, after.version, llm.version) == ("done", 1, 0, 0)
    assert steps == expected_steps
    assert [pytest.approx(entry, rel=1e-4, abs=1e-5) for entry in untimed(expected_series)] == untimed(series)
    if kind != "disk":
        assert f"goes on from its checkpoint at step {goes_on_from}" in caplog.text
        assert steps >= {STEPS} if kind != "best" else steps
        assert SAVE_STEPS in steps
    assert len(llm.predict("what eats the heron =>", max_new_tokens=4)) > 0
    with stored(job["url"], [])[0] as db:
        assert db.load("model", "killed").predict("what eats the heron =>", max_new_tokens=4) == llm.predict(
            "what eats the heron =>", max_new_tokens=4
        )


def untimed(series):
    """The metrics without the times that were measured."""
    return [
        {name: value for name, value in entry.items() if not name.endswith(("_runtime", "_per_second"))}
        for entry in series
    ]


@pytest.mark.usefixtures("kills")
def test_another_fit_does_not_go_on_from_a_killed_one(base, folder):
    job = asked(folder, base, "lora-between")
    db, select = stored(left_alone(folder), job["rows"])
    with db:
        _, after = fitted(db, select, base, "killed", **{**job["options"], "max_steps": 2, "seed": 3})
        assert (after.version, after.resumed) == (1, 0)
        assert db.load("run", "killed", version=0).status == "interrupted"
        assert db.load("model", "killed").version == 0
