"""Filters of MongoDB at rest: operators that compare and compute are kept, code is not."""

from __future__ import annotations

import pytest

from pinnacle import UnsupportedQuery
from pinnacle.backends.mongodb.target.filters import check_filter

CODE = {"body": "return true", "args": [], "lang": "js"}


@pytest.mark.parametrize(
    "condition",
    [
        {},
        {"lang": "en", "n": {"$gt": 1, "$not": {"$in": [1, None]}}},
        {"$or": [{"a.b": {"$exists": True}}, {"$nor": [{"c": {"$regex": "^x", "$options": "i"}}]}]},
        {"tags": {"$elemMatch": {"$eq": "x"}}, "place": {"$geoWithin": {"$centerSphere": [[1, 2], 3]}}},
        {"$expr": {"$gt": [{"$size": {"$ifNull": ["$tags", []]}}, {"$literal": {"$where": 1}}]}},
        {"$text": {"$search": "x"}, "$comment": "why", "$jsonSchema": {"required": ["a"]}},
    ],
)
def test_filters_are_kept(condition):
    check_filter(condition)


@pytest.mark.parametrize(
    ("condition", "name"),
    [
        ({"$where": "sleep(1000)"}, "$where"),
        ({"$and": [{"a": 1}, {"$nor": [{"$where": "1"}]}]}, "$where"),
        ({"a": {"$elemMatch": {"$where": "1"}}}, "$where"),
        ({"$expr": {"$function": CODE}}, "$function"),
        ({"$expr": {"$and": [{"$eq": ["$a", {"$cond": [{"$function": CODE}, 1, 2]}]}]}}, "$function"),
        ({"$expr": {"$let": {"vars": {"x": {"$function": CODE}}, "in": "$$x"}}}, "$function"),
        ({"$or": [{"$expr": {"$accumulator": CODE}}]}, "$accumulator"),
        ({"a": {"$expr": {"$function": CODE}}}, "$function"),
        ({"$lookup": {"from": "others"}}, "$lookup"),
        ({"$expr": {"$out": "x"}}, "$out"),
        ({"$expr": {"$lt": [{"$rand": {}}, 0.5]}}, "$rand"),
        ({"$sampleRate": 0.5}, "$sampleRate"),
        ({"a": {"$newOperator": 1}}, "$newOperator"),
    ],
)
def test_what_runs_code_or_is_not_known_is_refused_by_name(condition, name):
    with pytest.raises(UnsupportedQuery, match=rf"\{name}"):
        check_filter(condition)


def test_chance_may_choose_for_a_sample():
    check_filter({"$sampleRate": 0.5, "$expr": {"$lt": [{"$rand": {}}, 0.5]}}, by_chance=True)
    with pytest.raises(UnsupportedQuery, match=r"\$function"):
        check_filter({"$expr": {"$function": CODE}}, by_chance=True)


def test_what_is_nested_without_end_is_refused():
    deep: dict = {"a": 1}
    for _ in range(100_000):
        deep = {"$and": [deep]}
    with pytest.raises(UnsupportedQuery, match="nested"):
        check_filter(deep)
