"""Who may write pinnacle's tables gains nothing in the processes that read them, and the user's work goes on."""

from __future__ import annotations

import re

import pytest

from tests.security.attacks import ATTACKS, DEFINITIONS, MARK, Edit, lay_decoys


def attack(town, case) -> None:
    lay_decoys(town.folder)
    for change in case.changes:
        change.make(town.path) if isinstance(change, Edit) else change(town.path)
    town.operate()
    assert not (town.folder / MARK).exists()
    assert town.faults == []


@pytest.mark.parametrize("case", ATTACKS, ids=lambda case: case.name)
def test_without_a_secret_nothing_is_done_that_was_not_meant(town, case):
    attack(town, case)
    if case.seen is not None:
        assert re.search(case.seen, town.told)


@pytest.mark.parametrize("is_signed", [True])
@pytest.mark.parametrize("case", DEFINITIONS[::5], ids=lambda case: case.name)
def test_with_a_secret_a_definition_that_was_changed_is_refused(town, case, is_signed):
    attack(town, case)
    assert "is not authenticated" in town.told
