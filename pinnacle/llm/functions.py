"""Language models and embedders that a user's own function calls."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from pinnacle.llm.base import BaseLLMAPI
from pinnacle.llm.hosted import ByFunction


@dataclasses.dataclass
class FunctionLLM(ByFunction, BaseLLMAPI):
    """A language model that ``fn(model, prompt, **kwargs)`` calls. Made by `Model.from_function`.

    ``fn`` returns the text, or (text, (input tokens, output tokens)); for the rest see `ByFunction`.
    """

    def _generator(self) -> Callable[..., Any]:
        return self.bound()
