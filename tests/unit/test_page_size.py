"""How many rows are read at once."""

from __future__ import annotations

import pytest

from pinnacle import model
from pinnacle.base.rows import Page
from pinnacle.runtime.page_size import PageSize


def page(rows: int, text: str = "text") -> Page:
    numbers = list(range(rows))
    return Page(
        keys=numbers, inputs=[text] * rows, identities=numbers, witnesses=numbers, read=rows, fresh=0, set_aside=0,
        last=rows,
    )  # fmt: skip


@pytest.mark.parametrize(("options", "fills"), [({"batch": True}, 8 * 50), ({}, 8 * 4)])
def test_pages_grow_until_they_fill_the_places_of_a_model_that_is_called_many_at_once(options, fills):
    size = PageSize(model(lambda x: x, identifier="m", output_type=str, concurrency=8, **options), 50)
    for _ in range(4):
        size.after_read(page(size.rows), 0.001)
        size.after_room()
    assert size.rows == fills


def test_pages_do_not_grow_beyond_what_is_read_quickly_and_fits_into_memory():
    many = model(lambda x: x, identifier="m", output_type=str, concurrency=8, batch=True)
    slow, large = PageSize(many, 50), PageSize(many, 50)
    for _ in range(4):
        slow.after_read(page(slow.rows), 10.0)
        slow.after_room()
        large.after_read(page(large.rows, "x" * 1_000_000), 0.001)
        large.after_room()
    assert (slow.rows, large.rows <= 16) == (10, True)
