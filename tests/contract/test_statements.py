"""The statements that pinnacle puts together of many pieces, as each SQL database is given them.

They stand in `tests/golden/`, a file a duty, for people to read. Where a change of theirs is
meant, renew them with `make renew` and look at the difference.
"""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

import pytest

from pinnacle.backends.protocol import Capability
from pinnacle.base.listeners import Watch
from pinnacle.base.rows import Failure, Fields, OutputBatch, OutputSpec
from pinnacle.base.types import Text
from tests.statements import readable, recorded

GOLDEN = Path(__file__).parent.parent / "golden"
RENEWS = bool(os.environ.get("PINNACLE_RENEW_GOLDEN"))
SPEC = OutputSpec(name="loud", type=Text(), model="shout", version=0, fields=Fields.of("body"))

pytestmark = pytest.mark.requires(Capability.SQL)


class Listened:
    """A table of three rows with an output and the capture of its changes."""

    def __init__(self, backend, below, watch):
        backend.create("docs", {"body": str, "n": int})
        self.backend, self.below, self.name = backend, below, below.name
        below.migrate()
        self.source = below.resolve(backend.query("docs"), SPEC.fields)
        self.output_plan = below.plan(self.source, SPEC)
        self.target = below.bind(self.source, SPEC)
        below.listeners.register(self.target.info.id, "docs.loud", 0)
        self.feed = below.feed(self.target, (), watch)
        self.feed.install()
        backend.insert("docs", *({"body": text, "n": 1} for text in "abc"))

    def claimed(self):
        self.feed.fold()
        return self.feed.claim("owner", 10, 60.0)

    def written(self):
        claim = self.claimed()
        page = self.target.reread(claim.keys)
        self.target.write(OutputBatch(keys=page.keys, outputs=["A", "B", "C"], witnesses=page.witnesses))
        return claim


@pytest.fixture
def listened(backend):
    with closing(backend.below()) as below:
        yield Listened(backend, below, Watch(clears=True))


def check(name, duty, statements):
    """Compare with the golden file; made anew where they are to be renewed."""
    file = GOLDEN / name / f"{duty}.sql"
    text = "".join(f"{statement};\n\n" for statement in statements).rstrip() + "\n"
    if RENEWS:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    assert text == file.read_text(), f"{file.name} differs; see the head of {Path(__file__).name}"


def test_the_capture_of_changes(listened):
    """An output's column and bookkeeping; then outbox, work, and the triggers with ``on_change="clear"``."""
    check(listened.name, "capture", map(readable, [*listened.output_plan, *listened.feed.plan()]))


def test_the_fold_of_the_outbox(listened):
    with recorded(listened.name) as statements:
        assert listened.feed.fold() == 3
    check(listened.name, "fold", statements)


def test_a_claim(listened):
    listened.feed.fold()
    with recorded(listened.name) as statements:
        assert len(listened.feed.claim("owner", 10, 60.0).keys) == 3
    check(listened.name, "claim", statements)


def test_the_page_of_claimed_rows(listened):
    claim = listened.claimed()
    with recorded(listened.name) as statements:
        assert len(listened.target.reread(claim.keys).keys) == 3
    check(listened.name, "claimed_page", statements)


def test_the_write_back_where_inputs_are_unchanged(listened):
    page = listened.target.reread(listened.claimed().keys)
    with recorded(listened.name) as statements:
        assert not listened.target.write(OutputBatch(keys=page.keys, outputs=["A", "B", "C"], witnesses=page.witnesses))
    check(listened.name, "write_back", statements)


def test_the_end_of_a_claim(listened):
    claim = listened.written()
    with recorded(listened.name) as statements:
        listened.feed.finish(claim, [0, 2], [1])
    check(listened.name, "finish", statements)


def test_the_page_that_leaves_out_what_is_fresh(listened):
    listened.written()
    with recorded(listened.name) as statements:
        page = listened.target.read(None, 2)
        assert (page.fresh, list(page.keys)) == (2, [])
        listened.target.read(page.last, 2)
    check(listened.name, "fresh_page", statements)


def test_rows_set_aside(listened):
    page = listened.target.reread(listened.claimed().keys)
    failed = Failure(
        key=page.keys[0], witness=page.witnesses[0], error="ValueError", message="bad", traceback="", attempts=3
    )
    with recorded(listened.name) as statements:
        listened.target.fail([failed])
    check(listened.name, "set_aside", statements)


def test_the_golden_files_are_those_of_the_tests():
    """None is left of a test that is gone."""
    duties = {"capture", "fold", "claim", "claimed_page", "write_back", "finish", "fresh_page", "set_aside"}
    assert {file.relative_to(GOLDEN).as_posix() for file in GOLDEN.glob("*/*")} == {
        f"{name}/{duty}.sql" for name in ("sqlite", "postgresql") for duty in duties
    }
