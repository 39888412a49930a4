"""VllmAPI: the plain server of vLLM, asked over HTTP."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar
from urllib.parse import parse_qsl, urlsplit

from pinnacle import ConfigError, NoAnswer
from pinnacle.plugin import Answered, BaseLLMAPI, HttpClient, HttpModel, Reply, Request, error_object, is_likely_secret
from pinnacle_vllm.sampling import near, sorted_out


class ParameterDropped(UserWarning):
    """A keyword is no sampling parameter of vLLM, and was not sent."""


@dataclasses.dataclass
class VllmAPI(HttpModel, BaseLLMAPI):
    """A model behind vLLM's plain server (``python -m vllm.entrypoints.api_server``).

    Posts ``{"prompt": ..., sampling parameters}`` to ``api_url`` exactly as it is, and reads ``{"text": [...]}``, the
    first of it. Keywords that are no sampling parameters are dropped with a warning. The server knows no dialogs: one
    is sent as text, a line ``role: content`` for each message, ending with ``assistant:``. That server puts the prompt
    before its answer: ``strip_prompt=True`` takes it off again. ``api_key`` is sent as a bearer token. For limits and
    retries see `HostedModel`, for connections `HttpModel`, for prompts `BaseLLM`; vLLM's OpenAI-compatible server is
    asked by `OpenAI`.
    """

    unshared: ClassVar[tuple[str, ...]] = (*BaseLLMAPI.unshared, "_http")

    _: dataclasses.KW_ONLY
    api_url: str = ""
    strip_prompt: bool = False

    def __post_init__(self) -> None:
        parts = urlsplit(self.api_url) if isinstance(self.api_url, str) else None
        if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"api_url is the address to post to, http://... or https://..., not {self.api_url!r}")
        if parts.username or parts.password:
            raise ConfigError("api_url holds a password, and would be stored with it; pass api_key= instead")
        if any(is_likely_secret(name, value) for name, value in parse_qsl(parts.query)):
            raise ConfigError("api_url holds what looks like a secret, and would be stored with it; pass api_key=")
        super().__post_init__()

    def provider(self) -> str:
        """The address without its path: all models of one server share its limits."""
        parts = urlsplit(self.api_url)
        return f"{parts.scheme}://{parts.netloc}"

    @cached_property
    def _http(self) -> HttpClient:
        key = self.key()
        return self.http_client({} if key is None else {"authorization": f"Bearer {key}"})

    def make_request(self, value: Any, given: Mapping[str, Any]) -> Request:
        """As for every model, in one text, and with sampling parameters only."""
        request = super().make_request(value, given)
        parameters, dropped = sorted_out(request.parameters)
        if dropped:
            warnings.warn(
                f"model {self.identifier!r}: {', '.join(sorted(dropped))}: no sampling parameter of vLLM, and not sent"
                f"{near(dropped)}", ParameterDropped, stacklevel=2,
            )  # fmt: skip
        return dataclasses.replace(request, parameters=parameters)

    async def _call(self, request: Request) -> Answered[Reply]:
        prompt = request.content if isinstance(request.content, str) else _as_text(request.content)
        answer, headers = await self._http.post(self.api_url, {"prompt": prompt, **request.parameters})
        text = _first_text(answer)
        reply = Reply(text.removeprefix(prompt) if self.strip_prompt else text)
        if not reply.text.strip():
            raise NoAnswer("the answer has no text")
        return Answered(reply, self.usage_of(request, reply), headers)


def _as_text(dialog: list[dict[str, Any]]) -> str:
    """A line for each message, and the beginning of the line that is asked for."""
    lines = [f"{message['role']}: {_content(message)}" for message in dialog]
    return "\n".join([*lines, "assistant:"])


def _content(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if not isinstance(content, str):
        raise ConfigError(f"VllmAPI sends text, and the content of a message of {message['role']!r} is none")
    return content


def _first_text(answer: Any) -> str:
    """The first of the texts; NoAnswer where there is none."""
    if told := error_object(answer):
        raise NoAnswer(f"the server answered with an error: {told}")
    texts = answer.get("text") if isinstance(answer, Mapping) else None
    if not isinstance(texts, list) or not texts or not isinstance(texts[0], str):
        raise NoAnswer('the answer is not {"text": [...]} with text in it')
    return texts[0]
