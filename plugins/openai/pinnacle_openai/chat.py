"""OpenAI: chat completions of any service that speaks OpenAI's API."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import openai

from pinnacle import (
    AccountRefused,
    ConfigError,
    NoAnswer,
    ProviderRefused,
    ProviderUnavailable,
    Usage,
)
from pinnacle.plugin import (
    Answered,
    BaseLLMAPI,
    BatchAnswers,
    HttpError,
    Reply,
    Request,
    Verdict,
    chat_reply,
    error_object,
    operational,
    run_coroutine,
    sane_counts,
    told_text,
    verdict_on,
)
from pinnacle_openai import batches
from pinnacle_openai.service import OpenAIService
from pinnacle_openai.settings import split, warn_of_misspelt

T = TypeVar("T")

BATCH_RETRIES, BATCH_LIMIT_S = 4, 3600.0
ENGINE_WORDS = frozenset({"messages", "model", "stream", "stream_options"})


@dataclasses.dataclass
class OpenAI(OpenAIService, BaseLLMAPI):
    """A chat model of OpenAI, or of any service that speaks its API.

    ``OpenAI().predict("1+1=")`` asks gpt-3.5-turbo. Any ``model_name`` goes to the service as it is. Keywords of
    `predict` and ``inference_kwargs`` are sent with each request (``temperature``, ``max_tokens``, ...). ``cost``: by
    default as the offline list of the ``genai-prices`` package has it for the service, and ``batch_price_factor`` of
    that in ``mode="batch"``. For the address and the key see `OpenAIService`, for limits and retries `HostedModel`,
    for prompts `BaseLLM`.
    """

    takes_schema: ClassVar[bool] = True
    _: dataclasses.KW_ONLY
    model_name: str = "gpt-3.5-turbo"
    batch_price_factor: float = operational(0.5)

    def __post_init__(self) -> None:
        if not isinstance(self.model_name, str) or not self.model_name:
            raise ConfigError(f"model_name is the name of a model, not {self.model_name!r}")
        self.settle_address()
        super().__post_init__()
        _refuse_engine_words({*self.inference_kwargs, *split(self.inference_kwargs)[1].body})
        self._refuses_schema = False

    def check_arguments(self, positional: int, named: Sequence[str]) -> None:
        super().check_arguments(positional, named)
        _refuse_engine_words(set(named) - self.prompting.names())

    def check_parameters(self, parameters: Mapping[str, Any]) -> None:
        super().check_parameters(parameters)
        _refuse_engine_words(split(parameters)[1].body)
        warn_of_misspelt({**self.inference_kwargs, **parameters})

    def make_request(self, value: Any, given: Mapping[str, Any]) -> Request:
        request = super().make_request(value, given)
        _refuse_engine_words({*request.parameters, *split(request.parameters)[1].body})
        return request

    async def apredict_one(self, value: Any, /, **kwargs: Any) -> Any:
        try:
            return await super().apredict_one(value, **kwargs)
        except ProviderRefused as error:
            if self.form is None or not _is_about_format(error.__cause__):
                raise
        self._refuses_schema = True  # from now on the prompt tells of the schema
        return await super().apredict_one(value, **kwargs)

    async def _call(self, request: Request) -> Answered[Reply]:
        parameters, options = self.beside(request.parameters)
        body = self._body(dataclasses.replace(request, parameters=parameters))
        answer, headers = await self.wire().post("/chat/completions", body, options)
        try:
            reply = chat_reply(answer, takes_calls=bool(request.parameters.get("tools")))
        except NoAnswer as error:  # the provider charges for these too
            error.billed = self.usage_of(request, Reply(told_text(answer), *sane_counts(answer)))
            raise
        return Answered(reply, self.usage_of(request, reply), headers)

    # -- batches -----------------------------------------------------------------------------------

    def submit_batch(self, requests: Mapping[str, tuple[Any, Mapping[str, Any]]], token: str) -> str:
        endpoint = self._batch_endpoint()
        bodies = {name: self._line(self.make_request(value, given)) for name, (value, given) in requests.items()}
        return run_coroutine(self._with_client(lambda client: batches.submit(client, bodies, token, endpoint)))

    def find_batch(self, token: str) -> str | None:
        return run_coroutine(self._with_client(lambda client: batches.find(client, token)))

    def fetch_batch(self, batch: str) -> BatchAnswers | None:
        """The answers of a batch; an answer that does not fit its form is that row's error, and not asked for again."""
        found = run_coroutine(self._with_client(lambda client: batches.fetch(client, batch, self.max_answer_bytes)))
        if found is None:
            return None
        outputs: dict[str, Any] = {}
        errors: dict[str, Exception] = {}
        unanswered: set[str] = set()
        usage = Usage(calls=1)
        for line in found.lines:
            usage += self._batch_usage(*sane_counts(line.body))
            try:
                outputs[line.name] = self._output_of_line(line)
            except ProviderUnavailable:
                unanswered.add(line.name)
            except Exception as error:  # the unit of work: one row's answer, beside which the others are kept
                errors[line.name] = error
        return BatchAnswers(
            outputs=outputs, errors=errors, usage=usage, failure=found.failure,
            unanswered=unanswered if found.is_whole else None,
        )  # fmt: skip

    def _output_of_line(self, line: batches.Line) -> Any:
        """What one line of a batch is, by the same table as an answer to a live call; ProviderUnavailable for what is
        to be asked again."""
        label = f"model {self.identifier!r}"
        if line.is_unanswered:
            raise ProviderUnavailable(f"{label}: {line.error}")
        if line.status >= 400:
            told = error_object(line.body) or line.error or f"HTTP {line.status}"
            refusal = HttpError(line.status, told, {}, line.body)
            if verdict_on(refusal, has_served=True) in (Verdict.THROTTLED, Verdict.OUTAGE, Verdict.ACCOUNT):
                raise ProviderUnavailable(f"{label}: {told}")
            raise ProviderRefused(f"{label}: {told}", status=line.status) from refusal
        if line.error is not None:
            raise ProviderRefused(f"{label}: {line.error}")
        if line.body is None:
            raise NoAnswer("the line of its answer in the results of the batch cannot be read")
        return self.output_of(chat_reply(line.body, takes_calls=True))

    def _batch_usage(self, read: int | None, written: int | None) -> Usage:
        cost = self.price.of(read or 0, written or 0) * self.batch_price_factor if self.price is not None else 0.0
        return Usage(input_tokens=read or 0, output_tokens=written or 0, cost=cost)

    async def _with_client(self, use: Callable[[openai.AsyncOpenAI], Awaitable[T]]) -> T:
        """What ``use`` makes of the library's client, which tries again by itself; its errors as pinnacle's."""
        try:
            async with asyncio.timeout(BATCH_LIMIT_S), self.files_client(max_retries=BATCH_RETRIES) as client:
                return await use(client)
        except TimeoutError as error:
            told = f"model {self.identifier!r}: no end of a request about a batch after {BATCH_LIMIT_S:g} s"
            raise ProviderUnavailable(told) from error
        except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
            raise self.hidden(AccountRefused(f"model {self.identifier!r}: {error}")) from self.hidden(error)
        except (openai.APIConnectionError, openai.InternalServerError, openai.RateLimitError) as error:
            raise self.hidden(ProviderUnavailable(f"model {self.identifier!r}: {error}")) from self.hidden(error)
        except openai.APIStatusError as error:
            raise self.hidden(ProviderRefused(f"model {self.identifier!r}: {error}")) from self.hidden(error)

    # -- bodies ------------------------------------------------------------------------------------

    def _batch_endpoint(self) -> str:
        """The path of a batch's requests. ConfigError where the service has no batches."""
        found = self.azure()
        endpoint = batches.ENDPOINT if found is None else found.endpoint
        if endpoint is None:
            raise ConfigError(f"model {self.identifier!r}: {self.base_url!r} has no batches; leave mode= out")
        return endpoint

    def _line(self, request: Request) -> dict[str, Any]:
        """A request's body in a batch, whose headers and query are those of the whole."""
        parameters, options = split(request.parameters)
        if options.headers or options.query:
            name = "extra_headers" if options.headers else "extra_query"
            raise ConfigError(
                f"model {self.identifier!r}: {name}= is for one request, and a batch is one file; pass "
                "client_kwargs={'default_headers': ..., 'default_query': ...}"
            )
        return {**self._body(dataclasses.replace(request, parameters=parameters)), **options.body}

    def _body(self, request: Request) -> dict[str, Any]:
        body = {"model": self.model_name, "messages": request.messages, **request.parameters}
        if request.response_schema is None:
            return body
        if self._refuses_schema:
            return {**body, "messages": self._told_in_words(request)}
        schema = {"name": "answer", "schema": dict(request.response_schema)}
        return {**body, "response_format": {"type": "json_schema", "json_schema": schema}}

    def _told_in_words(self, request: Request) -> list[dict[str, Any]]:
        instruction = self.form.instruction if self.form is not None else ""
        return [*request.messages, {"role": self.system_role, "content": instruction}]


def _refuse_engine_words(names: Iterable[str]) -> None:
    if wrong := sorted(ENGINE_WORDS.intersection(names)):
        raise ConfigError(f"a keyword cannot set {wrong[0]!r}: it is made from the model's other fields")


def _is_about_format(error: BaseException | None) -> bool:
    told = str(getattr(error, "body", ""))
    return getattr(error, "status", None) in (400, 404, 422) and ("response_format" in told or "json_schema" in told)
