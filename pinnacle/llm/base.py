"""Language models as pinnacle models: what all of them share, and the bases that users subclass.

Every way to ask one is the same pipeline: resolve -> context -> template -> prepare ->
guard (`prompts`) -> call (`sending`: limit, retry, record) -> process (`schemas`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, ClassVar, Literal

from pinnacle.base import forks
from pinnacle.base.answers import CutText
from pinnacle.base.errors import (
    AnswerCut,
    ConfigError,
    InvalidAnswer,
    ModelError,
    NoAnswer,
    OutputCountMismatch,
    halts_prediction,
)
from pinnacle.base.metering import Usage
from pinnacle.base.outages import is_outage
from pinnacle.base.types import Json, OutputType, Text
from pinnacle.components.calls import Named
from pinnacle.components.component import operational
from pinnacle.components.model import CallStyle, declared_output_type
from pinnacle.llm.hosted import HostedModel
from pinnacle.llm.metered import MeteredModel, check_whole
from pinnacle.llm.overflow import estimated_cut, estimated_tokens, most_output, tokens_of
from pinnacle.llm.prompts import Prompting, prompting
from pinnacle.llm.requests import Reply, Request, as_reply, is_dialog
from pinnacle.llm.schemas import AnswerForm, answer_form
from pinnacle.llm.sending import Answered

CHOICE_FORM_TOKENS = 8
"""What the JSON around a choice takes."""


@dataclasses.dataclass
class BaseLLM(MeteredModel):
    """What all language models share. Subclass `BaseLLMAPI` or `BaseLLMModel`.

    A string gives a string, a list of strings a list in order; a list of message dicts is one
    dialog and gives one string. ``prompt_template``: text with ``{input}``, and optionally ``{context}`` and
    names of keywords. ``prompt_func``: a function of the input and of the keywords it names, whose
    result goes into the template. ``system_prompt`` goes before all, as a message of ``system_role``.
    ``examples``: (input, answer) pairs. Keywords that neither names are sent to the model; ``inference_kwargs`` are
    sent with every call, and `predict`'s win.
    ``output_schema`` (a Pydantic model, or a JSON Schema) or ``choices`` give the answer a form: an answer that
    does not fit is asked for again, ``max_reasks`` times. It may stand after thoughts (``<think>``), in a fence, or
    among prose, unless ``strict_answers=True`` wants it and nothing else. ``context_window``: tokens that prompt and
    answer may have together; longer input is cut with a warning, or refused with ``overflow="error"``.
    """

    purpose: ClassVar[str | None] = "GENERIC_COMPLETION"
    takes_row_keywords: ClassVar[bool] = True
    takes_schema: ClassVar[bool] = False
    """Whether the interface takes a JSON Schema; where it does not, the prompt tells of it."""

    _: dataclasses.KW_ONLY
    prompt_template: str = "{input}"
    prompt_func: Callable[..., Any] | None = None
    system_prompt: str | None = None
    system_role: Literal["system", "developer"] = "system"
    examples: Any = None
    inference_kwargs: dict[str, Any] = dataclasses.field(default_factory=dict)
    output_schema: Any = None
    choices: list[str] | None = None
    max_reasks: int = 2
    strict_answers: bool = False
    context_window: int | None = None
    overflow: Literal["cut", "error"] = "cut"

    def __post_init__(self) -> None:
        self.form: AnswerForm | None = answer_form(self.output_schema, self.choices, is_strict=self.strict_answers)
        if isinstance(self.output_schema, Mapping):
            self.output_schema = dict(self.output_schema)
        super().__post_init__()
        _check_fields(self)
        self.prompting  # noqa: B018 - what cannot work is refused now

    @cached_property
    def prompting(self) -> Prompting:
        return prompting(self, is_told_by_schema=self.takes_schema)

    def holds_many(self, value: Any) -> bool:
        return isinstance(value, list) and not is_dialog(value)

    def resolved_output_type(self) -> OutputType:
        if isinstance(self.output_type, OutputType):
            return self.output_type
        return Json() if self.form is not None and self.choices is None else Text()

    def told_output_type(self) -> OutputType | None:
        return declared_output_type(self)

    def check_arguments(self, positional: int, named: Sequence[str]) -> None:
        if positional != 1:
            raise ConfigError(
                f"model {self.identifier!r} reads one input and any keywords: for several fields pass X as a dict, "
                "{'input': ..., 'name': ...}, with the names in prompt_template or prompt_func"
            )
        self.prompting.check(self.identifier, named)

    def check_parameters(self, parameters: Mapping[str, Any]) -> None:
        self.prompting.check_values(parameters)

    def count_tokens(self, text: str) -> int:
        """Tokens in a text: here estimated, one for three bytes; models with a tokenizer count."""
        return estimated_tokens(text)

    def cut_text(self, text: str, tokens: int) -> str:
        """The beginning of a text, of at most so many tokens."""
        return estimated_cut(text, tokens)

    def count_request(self, request: Request) -> int:
        """Tokens of everything that is sent; models that know their chat format count that too."""
        return tokens_of(request, self)

    def token_limit(self) -> int | None:
        """Tokens that prompt and answer may have together; None where that is not known."""
        return self.context_window

    def length_of(self, value: Any) -> int | None:
        return len(value) if isinstance(value, str) else None

    def quoted(self, text: str) -> str:
        """A row's text as it goes into a prompt; models that read control tokens in it mark them as text."""
        return text

    def make_request(self, value: Any, given: Mapping[str, Any]) -> Request:
        """What is sent for one input and the keywords given with it.

        Extended by models that send less, more or otherwise; ConfigError for what cannot be sent.
        """
        return self.prompting.request(self, value, given)

    def process(self, reply: Reply) -> Any:
        """The output that an answer is; InvalidAnswer where it does not fit the form that was asked for."""
        if self.form is None:
            return reply.text
        try:
            return self.form.parse(reply.text)
        except InvalidAnswer as error:
            raise InvalidAnswer(f"model {self.identifier!r}: its answer cannot be used: {error}") from error

    def ask_again(self, request: Request, reply: Reply, error: InvalidAnswer) -> Request:
        """What is sent after an answer that does not fit: the dialog goes on with what is wrong with it."""
        form = "" if self.form is None else f"\n{self.form.instruction}"
        return request.followed_by(
            {"role": "assistant", "content": reply.text},
            {"role": "user", "content": f"{error}{form}"},
        )

    def tokens_expected(self, value: Any, given: Mapping[str, Any]) -> tuple[int, int | None]:
        """Tokens that an input would send, and those its answer may have at most; None where nothing limits it."""
        request = self.make_request(value, given)
        most = most_output(request)
        if most is None and self.choices is not None:
            most = max(map(self.count_tokens, self.choices)) + CHOICE_FORM_TOKENS
        return self.count_request(request), most


@dataclasses.dataclass
class BaseLLMAPI(BaseLLM, HostedModel):
    """A language model behind an interface. Subclass it and write ``_generate(self, prompt, **kwargs)``.

    ``_generate`` is a function or a coroutine function. It gets the templated string, or the
    messages of a dialog, and what is to be sent as keywords; it returns the answer, or (answer,
    (input tokens, output tokens)), and raises NoAnswer where the provider answered without one. ``on_length``: an
    answer that ended at the limit of tokens is that row's error (``"error"``), or stored, counted in the result as
    ``cut``, and asked for again where it is needed again (``"keep"``). For limits, price and key see `HostedModel`.
    """

    _: dataclasses.KW_ONLY
    on_length: Literal["error", "keep"] = operational("error")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.on_length not in ("error", "keep"):
            raise ConfigError(f"on_length= is 'error' or 'keep', not {self.on_length!r}")

    @property
    def call_style(self) -> CallStyle:
        return CallStyle.ASYNC

    def _generate(self, prompt: Any, **kwargs: Any) -> Any:
        """The answer to one prompt; written by subclasses."""
        raise NotImplementedError(f"{type(self).__name__} does not say how it generates")

    async def apredict_one(self, value: Any, /, **kwargs: Any) -> Any:
        request = self.make_request(value, kwargs)
        for left in range(self.max_reasks, -1, -1):
            reply = await self.send(
                partial(self._answered, request), self.expected_cost(request), self.limit_s(request.parameters),
                parameters=request.parameter_names,
            )  # fmt: skip
            try:
                return self.output_of(reply)
            except InvalidAnswer as error:
                if not left:
                    self.hidden(error)
                    raise
                request = self.ask_again(request, reply, error)
        return None

    def output_of(self, reply: Reply) -> Any:
        """What an answer is stored as, where it is one; AnswerCut for one that was cut and is not to be kept."""
        self._refuse_cut(reply)
        output = self.process(reply)
        return CutText(output) if reply.is_cut and isinstance(output, str) else output

    def _refuse_cut(self, reply: Reply) -> None:
        if reply.is_cut and (self.on_length == "error" or self.form is not None):
            raise AnswerCut(
                f"the answer was cut at its limit of tokens, with finish_reason {reply.finish_reason!r}: allow more, "
                "or keep such answers by on_length='keep'",
                finish_reason=reply.finish_reason,
            )

    def _generator(self) -> Callable[..., Any]:
        """What is called with a prompt and keywords."""
        return self._generate

    async def _answered(self, request: Request) -> Answered[Reply]:
        """One request that brings an answer; NoAnswer, billed, where it brings none."""
        answered: Answered[Reply] | None = None
        try:
            answered = await self._call(request)
            self._refuse_cut(answered.value)
        except NoAnswer as error:
            if error.billed is None:
                error.billed = self.usage_of(request, Reply("")) if answered is None else answered.usage
            raise
        return answered

    async def _call(self, request: Request) -> Answered[Reply]:
        """One request, with what it cost. Subclasses that see headers override this."""
        reply = as_reply(await self.called(self._generator(), request.content, **request.parameters))
        return Answered(reply, self.usage_of(request, reply))

    def usage_of(self, request: Request, reply: Reply) -> Usage:
        """Tokens and cost of one answer: as the provider counted, else by `count_tokens` where there is a price."""
        price = self.price
        if price is None:
            return Usage(input_tokens=reply.input_tokens or 0, output_tokens=reply.output_tokens or 0)
        read = self.count_request(request) if reply.input_tokens is None else reply.input_tokens
        written = self.count_tokens(reply.text) if reply.output_tokens is None else reply.output_tokens
        return Usage(input_tokens=read, output_tokens=written, cost=price.of(read, written, reply.cached_tokens))

    def expected_cost(self, request: Request) -> float:
        """What a request may cost, by estimate: its own tokens, and for the answer as many as it allows at most."""
        if self.price is None:
            return 0.0
        return self.price.of(self.count_request(request), most_output(request) or 0)


@dataclasses.dataclass
class BaseLLMModel(BaseLLM):
    """A language model inside this process. Subclass it and write ``init`` and ``_generate``.

    ``init(self)`` is called once, at the first predict. ``_generate(self, messages, **kwargs)`` gets the templated
    string, or the messages of a dialog, and returns the answer, or (answer, (input tokens, output tokens)). A model
    that is faster with many at once overrides ``_generate_batch`` too. ``max_batch_size``: inputs of one batch.
    """

    _: dataclasses.KW_ONLY
    max_batch_size: int = operational(32)

    def __post_init__(self) -> None:
        check_whole("max_batch_size", self.max_batch_size)
        if self.batch_size is None:
            self.batch_size = self.max_batch_size
        super().__post_init__()
        self._is_ready = False

    @property
    def call_style(self) -> CallStyle:
        return CallStyle.BATCH

    def init(self) -> None:
        """Load what generating needs; called once, before the first call."""

    def _generate(self, messages: Any, **kwargs: Any) -> Any:
        """The answer to one prompt; written by subclasses."""
        raise NotImplementedError(f"{type(self).__name__} does not say how it generates")

    def _generate_batch(self, prompts: list[Any], **kwargs: Any) -> Sequence[Any]:
        """The answers to many prompts that share their keywords, in order.

        An exception in an answer's place is that prompt's error, and the others keep their answers.
        """
        answers: list[Any] = []
        for prompt in prompts:
            try:
                answers.append(self._generate(prompt, **kwargs))
            except Exception as error:  # the unit of work: raising it would take the others' answers along
                answers.append(error)
                if halts_prediction(error) or is_outage(error):
                    break
        # What is no fault of the prompt is met by those after it too: they are not asked.
        return answers + answers[-1:] * (len(prompts) - len(answers))

    def predict_batch(self, inputs: list[Any], **kwargs: Any) -> list[Any]:
        self._get_ready()
        outputs: list[Any] = [None] * len(inputs)
        waiting: dict[int, Request] = {}
        for position, item in enumerate(inputs):
            try:
                waiting[position] = self.make_request(*_value_and_keywords(item, kwargs))
            except (ModelError, ConfigError) as error:
                outputs[position] = error
        for left in range(self.max_reasks, -1, -1):
            asked, waiting = waiting, {}
            for position, reply in zip(asked, self._replies(list(asked.values())), strict=True):
                outputs[position] = output = reply if isinstance(reply, Exception) else self._output_of(reply)
                if left and isinstance(reply, Reply) and isinstance(output, InvalidAnswer):
                    waiting[position] = self.ask_again(asked[position], reply, output)
        return outputs

    def _output_of(self, reply: Reply) -> Any:
        """What an answer is stored as: its output, or the error that it does not fit."""
        try:
            return self.process(reply)
        except InvalidAnswer as error:
            return error

    def _replies(self, requests: Sequence[Request]) -> list[Reply | Exception]:
        """One batch for each set of keywords; replies, or errors in their place, in the order of ``requests``."""
        groups: dict[str, list[int]] = {}
        for position, request in enumerate(requests):
            groups.setdefault(repr(sorted(request.parameters.items())), []).append(position)
        replies: dict[int, Reply | Exception] = {}
        for positions in groups.values():
            contents = [requests[i].content for i in positions]
            answers = self._generate_batch(contents, **requests[positions[0]].parameters)
            if len(answers) != len(positions):
                raise OutputCountMismatch(
                    f"model {self.identifier!r} generated {len(answers)} answers for {len(positions)} prompts"
                )
            replies |= dict(zip(positions, map(_reply_or_error, answers), strict=True))
        self._count([reply for reply in replies.values() if isinstance(reply, Reply)])
        return [replies[i] for i in range(len(requests))]

    def _count(self, replies: Sequence[Reply]) -> None:
        read = sum(reply.input_tokens or 0 for reply in replies)
        written = sum(reply.output_tokens or 0 for reply in replies)
        self.counting().settle(0.0, Usage(len(replies), 0, 0, read, written))

    def _get_ready(self) -> None:
        if not self._is_ready:
            with _getting_ready:
                if not self._is_ready:
                    self.init()
                    self._is_ready = True


_getting_ready = forks.rlock()


def _reply_or_error(answer: Any) -> Reply | Exception:
    """An answer as a `Reply`; what is none, as the error that says so."""
    if isinstance(answer, Exception):
        return answer
    try:
        return as_reply(answer)
    except TypeError as error:
        return error


def _value_and_keywords(item: Any, kwargs: Mapping[str, Any]) -> tuple[Any, Mapping[str, Any]]:
    """A row's input and its own keywords, where X is a dict."""
    if not isinstance(item, Named):
        return item, kwargs
    return item.get("input"), {**kwargs, **{name: value for name, value in item.items() if name != "input"}}


def _check_fields(model: BaseLLM) -> None:
    if not isinstance(model.inference_kwargs, dict) or not all(
        isinstance(name, str) for name in model.inference_kwargs
    ):
        raise ConfigError(f"inference_kwargs is a dict of keywords for the model, not {model.inference_kwargs!r}")
    if model.overflow not in ("cut", "error"):
        raise ConfigError(f"overflow= is 'cut' or 'error', not {model.overflow!r}")
    if model.system_role not in ("system", "developer"):
        raise ConfigError(f"system_role is 'system' or 'developer', not {model.system_role!r}")
    if not isinstance(model.strict_answers, bool):
        raise ConfigError(f"strict_answers is True or False, not {model.strict_answers!r}")
    if model.context_window is not None:
        check_whole("context_window", model.context_window)
    if isinstance(model.max_reasks, bool) or not isinstance(model.max_reasks, int) or model.max_reasks < 0:
        raise ConfigError(f"max_reasks is a whole number from 0, not {model.max_reasks!r}")
