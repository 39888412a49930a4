"""Language models and embedders that a user's own function calls."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from pinnacle.llm.base import BaseLLMAPI
from pinnacle.llm.hosted import ByFunction
from pinnacle.llm.requests import Reply, Request, as_reply
from pinnacle.llm.sending import Answered


@dataclasses.dataclass
class FunctionLLM(BaseLLMAPI, ByFunction):
    """A language model that ``fn(model, prompt, **kwargs)`` calls, async or not.

    ``fn`` returns the text, or (text, (input tokens, output tokens)). ``setup_fn(api_key)`` is called once, and
    its result is ``model.client``; ``args`` is a dict of the user's own. Made by `Model.from_function`.
    """

    _: dataclasses.KW_ONLY
    fn: Callable[..., Any]
    setup_fn: Callable[..., Any] | None = None
    args: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        self.check_functions()
        super().__post_init__()

    def _generate(self, prompt: Any, **kwargs: Any) -> Any:
        return self.fn(self, prompt, **kwargs)

    async def _call(self, request: Request) -> Answered[Reply]:
        self.client  # noqa: B018 - made before the first call, and in no thread of its own
        reply = as_reply(await self.called(self.fn, self, request.content, **request.parameters))
        return Answered(reply, self.usage_of(request, reply))
