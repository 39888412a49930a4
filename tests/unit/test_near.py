"""Which names a misspelt one may stand for."""

from __future__ import annotations

import pytest

from pinnacle.base.near import did_you_mean, near_names


@pytest.mark.parametrize(
    ("name", "known", "near"),
    [("modle", ["model", "tool"], ["model"]), ("modl", ["model", "tool"], ["model"]), ("SHOUT", ["shout"], ["shout"]),
     ("docs.shout", ["docs.body__shout"], ["docs.body__shout"]), ("zzz", ["shout"], []), ("", ["a"], []),
     ("m3", ["m1", "m2", "mx4"], []), ("titel", ["tile", "title"], ["title"])],
)  # fmt: skip
def test_near_names_are_like_it_and_about_as_near_as_the_nearest(name, known, near):
    assert near_names(name, known) == near


def test_long_lists_are_cut():
    known = [f"{n:03d}" for n in range(12)]
    assert did_you_mean("x", known, none="").endswith("'009' and 2 more")
    assert did_you_mean("x", [], none="there is none") == "there is none"
