"""From what a user passes to what a model is sent: resolve, context, template, dialog, guard."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from pinnacle.base.errors import ConfigError
from pinnacle.llm.overflow import Counter, fitted
from pinnacle.llm.requests import ROLES, Message, Request, is_dialog
from pinnacle.llm.schemas import AnswerForm
from pinnacle.llm.templates import CONTEXT, INPUT, Template, shown

EXAMPLES = "examples"


class Prompted(Counter, Protocol):
    """What is read of a language model to make its prompts; `BaseLLM` says what the fields mean."""

    identifier: str
    prompt_template: str
    prompt_func: Callable[..., Any] | None
    system_prompt: str | None
    system_role: Literal["system", "developer"]
    examples: Any
    inference_kwargs: dict[str, Any]
    overflow: Literal["cut", "error"]
    form: AnswerForm | None

    def token_limit(self) -> int | None: ...

    def quoted(self, text: str) -> str: ...


@dataclass(frozen=True)
class Prompting:
    """How one model's prompts are made; built once from its fields."""

    template: Template
    function: Callable[..., Any] | None
    function_names: frozenset[str]
    opening: tuple[Message, ...]
    instruction: str | None
    schema: Mapping[str, Any] | None

    def request(self, model: Prompted, value: Any, given: Mapping[str, Any]) -> Request:
        """What is sent for one input and the keywords given with it.

        ConfigError for an input that is neither text nor a dialog, or a place of the
        template that nothing fills.
        """
        context = joined_context(given.get(CONTEXT))
        if context is not None:
            self.require_place(CONTEXT)
        named = {name: item for name, item in given.items() if name not in (CONTEXT, EXAMPLES)}
        shots = [_quoted(model, message) for message in _shots(given.get(EXAMPLES))]
        opening = (*self.opening, *shots)
        asked, used = self._called(value, named, context)
        places = {name: named[name] for name in self.template.names if name in named}
        sent = {name: item for name, item in named.items() if name not in places and name not in used}
        parameters = {**model.inference_kwargs, **sent}
        dialog = asked if is_dialog(asked) else None
        if dialog is not None and not self.template.is_plain and not _ends_with_text(dialog):
            raise ConfigError(
                f"prompt_template {self.template.text!r} is filled with the last message of a dialog, "
                "and that is no text of the user's"
            )
        text = _text_of(asked) if dialog is None else _last_text(dialog)
        is_made = self.function is not None and dialog is None and isinstance(value, str)

        def build(text: str, context: str | None, dropped: int = 0) -> Request:
            if is_made:  # what is cut is what prompt_func is given, and not what it makes of it
                text = _text_of(self._called(text, named, context)[0])
            values = {**places, INPUT: text, **({} if context is None else {CONTEXT: context})}
            quoted = {name: model.quoted(shown(item)) for name, item in values.items()}
            prompt = quoted[INPUT] if self.template.is_plain else self.template.fill(quoted)
            if self.instruction is not None:
                prompt = f"{prompt}\n\n{self.instruction}"
            content: str | list[Message] = prompt
            if dialog is not None:
                turns = [_quoted(model, message) for message in _without_first(dialog, dropped)]
                content = [*opening, *_with_last_text(turns, prompt)]
            elif opening:
                content = [*opening, {"role": "user", "content": prompt}]
            return Request(content, parameters, self.schema)

        window = model.token_limit()
        cut = value if is_made else text
        if window is None:
            return build(cut, context)
        droppable = 0 if dialog is None else sum(_is_droppable(message) for message in dialog[:-1])
        return fitted(
            build, cut, context, model, droppable=droppable, window=window, overflow=model.overflow,
            model=model.identifier,
        )  # fmt: skip

    def check(self, model: str, named: Iterable[str]) -> None:
        """ConfigError where a place of the template or a keyword of ``prompt_func`` is filled by none of ``named``."""
        given = set(named)
        if CONTEXT in given:
            self.require_place(CONTEXT)
        for wanted, what in (
            (self.template.names - {INPUT}, f"prompt_template {self.template.text!r} has the place"),
            (_names_of(self.function, required=True), "prompt_func takes the keyword"),
        ):
            for name in sorted(wanted - given):
                raise ConfigError(
                    f"model {model!r}: {what} {name}, and nothing fills it: pass {name}=, or a field as "
                    f"X={{'input': ..., {name!r}: ...}}"
                )

    def check_values(self, given: Mapping[str, Any]) -> None:
        """ConfigError for a context or for examples that are none."""
        joined_context(given.get(CONTEXT))
        _shots(given.get(EXAMPLES))

    def names(self) -> frozenset[str]:
        """The keywords that go into prompts and are not sent."""
        return (self.template.names | self.function_names | {CONTEXT, EXAMPLES}) - {INPUT}

    def require_place(self, name: str) -> None:
        """ConfigError where neither the template nor ``prompt_func`` has a place for what was given."""
        if name not in self.template.names | self.function_names:
            raise ConfigError(
                f"{name}= was given, and prompt_template {self.template.text!r} has no {{{name}}} for it to go to: "
                f"put one in, or let prompt_func take {name}"
            )

    def _called(self, value: Any, named: Mapping[str, Any], context: str | None) -> tuple[Any, frozenset[str]]:
        """What ``prompt_func`` makes of an input, and the keywords that went to it."""
        if self.function is None:
            return value, frozenset()
        arguments = {name: named[name] for name in self.function_names if name in named}
        if CONTEXT in self.function_names and context is not None:
            arguments[CONTEXT] = context
        return self.function(value, **arguments), frozenset(arguments)


def prompting(model: Prompted, *, is_told_by_schema: bool) -> Prompting:
    """How ``model``'s fields say that prompts are made. ConfigError for fields that cannot work."""
    form = model.form
    return Prompting(
        Template(model.prompt_template), model.prompt_func, _names_of(model.prompt_func),
        (*_system(model.system_prompt, model.system_role), *_shots(model.examples)),
        form.instruction if form is not None and not is_told_by_schema else None,
        form.schema if form is not None and is_told_by_schema else None,
    )  # fmt: skip


def joined_context(context: Any) -> str | None:
    """The text that fills ``{context}``: as it is, or a list of texts joined by newlines."""
    if context is None or isinstance(context, str):
        return context
    if isinstance(context, Sequence) and all(isinstance(text, str) for text in context):
        return "\n".join(context)
    raise ConfigError(f"context= is text, or a list of texts, not {context!r:.80}")


def _text_of(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, (bool, int, float)):
        return shown(value)
    if isinstance(value, dict) and value.get("role", "user") not in ROLES:
        raise ConfigError(f"a message's role is one of {', '.join(sorted(ROLES))}, not {value['role']!r}")
    raise ConfigError(
        "a language model takes text, or the messages of a dialog as a list of {'role': ..., 'content': ...}, "
        f"not {type(value).__name__}"
    )


def _quoted(model: Prompted, message: Message) -> Message:
    """A message that comes of a row, with its text as it goes into a prompt."""
    content = message.get("content")
    if isinstance(content, str):
        return {**message, "content": model.quoted(content)}
    if not isinstance(content, list):
        return message
    parts = [
        {**part, "text": model.quoted(part["text"])}
        if isinstance(part, dict) and isinstance(part.get("text"), str)
        else part
        for part in content
    ]
    return {**message, "content": parts}


def _is_droppable(message: Message) -> bool:
    return message["role"] not in ("system", "developer")


def _without_first(dialog: Sequence[Message], dropped: int) -> list[Message]:
    """The dialog without its oldest turns; what the system says stays."""
    gone = [i for i, message in enumerate(dialog[:-1]) if _is_droppable(message)][:dropped]
    return [message for i, message in enumerate(dialog) if i not in gone]


def _last_text(dialog: Sequence[Message]) -> str:
    content = dialog[-1].get("content")
    return content if isinstance(content, str) else ""


def _ends_with_text(dialog: Sequence[Message]) -> bool:
    return isinstance(dialog[-1].get("content"), str) and dialog[-1]["role"] == "user"


def _with_last_text(dialog: Sequence[Message], prompt: str) -> list[Message]:
    if not _ends_with_text(dialog):
        return list(dialog)
    return [*dialog[:-1], {**dialog[-1], "content": prompt}]


def _names_of(function: Callable[..., Any] | None, *, required: bool = False) -> frozenset[str]:
    """The keywords that a ``prompt_func`` names, beside the input: all, or those that it cannot do without."""
    if function is None:
        return frozenset()
    if not callable(function):
        raise ConfigError(f"prompt_func is a function of the input and of keywords, not {function!r}")
    parameters = list(inspect.signature(function).parameters.values())
    if not parameters or parameters[0].kind is inspect.Parameter.KEYWORD_ONLY:
        raise ConfigError("prompt_func takes the input as its first argument, and has none")
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return frozenset(p.name for p in parameters[1:] if p.kind in named and (p.default is p.empty or not required))


def _system(prompt: str | None, role: str) -> tuple[Message, ...]:
    if prompt is not None and not isinstance(prompt, str):
        raise ConfigError(f"system_prompt is text, not {prompt!r}")
    return ({"role": role, "content": prompt},) if prompt else ()


def _shots(examples: Any) -> tuple[Message, ...]:
    """Few-shot examples as turns of the dialog before the input."""
    messages: list[Message] = []
    if examples is not None and not isinstance(examples, (list, tuple)):
        raise ConfigError(
            "examples is a list of (input, answer) pairs; a query for them goes to db.predict(..., examples=query), "
            f"and this is a {type(examples).__name__}"
        )
    for example in examples or ():
        if not isinstance(example, (tuple, list)) or len(example) != 2:
            raise ConfigError(f"examples is a list of (input, answer) pairs, and {example!r:.80} is none")
        asked, answered = example
        messages += [{"role": "user", "content": str(asked)}, {"role": "assistant", "content": str(answered)}]
    return tuple(messages)
