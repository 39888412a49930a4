"""Sums of usage, and how entries are put into a cache and when it is trimmed, without a database."""

from __future__ import annotations

import json

from pinnacle import UsageRow
from pinnacle.base import limits
from pinnacle.base.usage import TrimSchedule, merged, newest_first, portions, utc_day


def test_adding_two_rows_adds_every_counter():
    def counted(n):
        return UsageRow(
            day="2026-11-20", model="m", output="t.c", calls=n, failed=n + 1, retried=n + 2, input_tokens=n + 3,
            output_tokens=n + 4, cached=n + 5, cost=n / 4,
        )  # fmt: skip

    assert counted(1) + counted(10) == UsageRow(
        day="2026-11-20",
        model="m",
        output="t.c",
        calls=11,
        failed=13,
        retried=15,
        input_tokens=17,
        output_tokens=19,
        cached=21,
        cost=2.75,
    )


def test_merged_rows_are_in_the_order_of_their_keys():
    keys = [("2026-11-20", "b", ""), ("2026-11-20", "a", "t.c"), ("2026-11-19", "z", ""), ("2026-11-20", "b", "")]
    rows = merged(UsageRow(day=day, model=model, output=output, calls=1) for day, model, output in keys)
    assert [(row.key, row.calls) for row in rows] == [(key, keys.count(key)) for key in sorted(set(keys))]
    assert [row.key for row in newest_first(rows)] == [keys[1], keys[0], keys[2]]


def test_days_are_of_utc():
    assert (utc_day(0), utc_day(86_399.9), utc_day(1_764_547_200)) == ("1970-01-01", "1970-01-01", "2025-12-01")


def test_portions_hold_all_entries_in_order_and_are_bounded_in_number_and_size():
    small = {number.to_bytes(16, "big"): str(number) for number in range(2_500)}
    assert [len(portion) for portion in portions(small)] == [1000, 1000, 500]
    assert [entry for portion in portions(small) for entry in portion] == sorted(small.items())
    large = {number.to_bytes(16, "big"): json.dumps("ä" * 3_000_000, ensure_ascii=False) for number in range(3)}
    assert [len(portion) for portion in portions(large)] == [1, 1, 1]
    assert list(portions({})) == []


def test_a_cache_is_trimmed_at_the_first_put_and_after_every_so_many_entries(monkeypatch):
    monkeypatch.setattr(limits, "TRIM_EVERY", 10)
    trims = TrimSchedule()
    assert [trims.due(put) for put in (1, 9, 1, 5, 30)] == [22, 0, 20, 0, 70]
