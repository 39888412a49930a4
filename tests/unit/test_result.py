"""What a prediction says of rows that it leaves."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from pinnacle.runtime.result import PredictResult
from pinnacle.runtime.scope import Scope


def test_what_is_left_over_is_named_for_what_it_is():
    scope: Any = SimpleNamespace(
        later=[1, 2, 3], unanswered={2, 3, 9}, result=PredictResult("docs.out", read=4, fresh=1)
    )
    Scope.leave(scope)
    result = scope.result
    assert (result.changed, result.unanswered, result.settled) == (1, 2, 4)
    assert "1 changed meanwhile, 2 without an answer of the provider" in str(result)
