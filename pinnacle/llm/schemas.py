"""Answers with a form: a JSON Schema (of a Pydantic model, say) or a list of choices."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from pinnacle.base.distribution import with_extra
from pinnacle.base.errors import ConfigError, InvalidAnswer, MissingPlugin
from pinnacle.components.json_schema import properties_of, refuse_foreign_references
from pinnacle.components.source import is_schema_class
from pinnacle.llm.reading import choice_in, fenced, objects, read_json, wholes, without_thoughts

CHOICE = "choice"


class AnswerForm:
    """What an answer must be, how a model is told, and how its text becomes a value.

    Answers are validated by the Pydantic class, where there is one; else by JSON Schema, and what an object
    lacks gets the default that the schema has for it. Values are plain JSON either way; of ``choices`` one string.
    ``is_strict``: an answer is the value and nothing else; by default it is found among thoughts and prose too.
    """

    def __init__(
        self, schema: Mapping[str, Any], choices: Sequence[str] | None, pydantic: Any = None, *, is_strict: bool = False
    ) -> None:
        self.schema, self._choices, self._pydantic, self._is_strict = schema, choices, pydantic, is_strict

    @property
    def instruction(self) -> str:
        """The form in words, for models that have no other way to be told."""
        if self._choices is not None:
            return f"Answer with exactly one of these, and nothing else: {', '.join(self._choices)}"
        return (
            "Answer with one JSON object that fits this JSON Schema, and nothing else:\n"
            f"{json.dumps(self.schema, ensure_ascii=False)}"
        )

    @cached_property
    def output_schema(self) -> Mapping[str, Any]:
        """The schema of the values that `parse` gives: a Pydantic class may write otherwise than it reads."""
        return self.schema if self._pydantic is None else self._pydantic.model_json_schema(mode="serialization")

    def parse(self, text: str) -> Any:
        """The value in an answer; InvalidAnswer with what is wrong, for the model to read."""
        if self._choices is not None:
            chosen = self._chosen(text)
            return self._value(text)[CHOICE] if chosen is None else chosen
        return self._value(text)

    def _chosen(self, text: str) -> str | None:
        choices = self._choices or ()
        return (text if text in choices else None) if self._is_strict else choice_in(text, choices)

    def _value(self, text: str) -> Any:
        """The value of a text that is JSON; else of the one JSON in it that fits, in a fence or among prose."""
        error = None
        for whole in [text.strip()] if self._is_strict else wholes(text):
            value, error = self._read(whole)
            if error is None:
                return value
            if isinstance(error, InvalidAnswer):  # it is JSON, and what is within it is not the answer
                raise error
        told: Exception | None = None
        for found in () if self._is_strict else (fenced(text), objects(text)):
            read = [self._read(part) for part in found if self._is_meant(part)]
            if fits := [value for value, wrong in read if wrong is None]:
                if any(value != fits[0] for value in fits):
                    raise InvalidAnswer(f"it holds {len(fits)} answers that differ")
                return fits[0]
            misfits = [wrong for _, wrong in read if isinstance(wrong, InvalidAnswer)]
            told = misfits[0] if len(misfits) == 1 and told is None else told
        raise self._unusable(text, told, error)

    def _read(self, text: str) -> tuple[Any, Exception | None]:
        """A text's value; or what is wrong: InvalidAnswer where it is JSON that does not fit."""
        try:
            value = read_json(text)
        except (ValueError, RecursionError) as error:
            return None, error
        try:
            return self._validated(value), None
        except InvalidAnswer as error:
            return None, error

    def _is_meant(self, text: str) -> bool:
        """Whether JSON within a text may be the answer: an object with some property of the schema, or a list."""
        try:
            value = read_json(text)
        except (ValueError, RecursionError):
            return False
        known = {*properties_of(self.schema), *getattr(self._pydantic, "model_fields", ())}
        return isinstance(value, list) or (isinstance(value, dict) and not known.isdisjoint(value))

    def _unusable(self, text: str, misfit: Exception | None, error: Exception | None) -> Exception:
        if self._choices is not None:
            return InvalidAnswer(f"{text.strip()[:80]!r} is none of {', '.join(map(repr, self._choices))}")
        if not self._is_strict and text.strip() and not without_thoughts(text).strip():
            return InvalidAnswer("it holds thoughts and no answer after them")
        return misfit or InvalidAnswer(f"it is not JSON: {error}")

    def _validated(self, value: Any) -> Any:
        if self._pydantic is not None:
            try:
                return self._pydantic.model_validate_json(json.dumps(value)).model_dump(mode="json", by_alias=True)
            except ValueError as error:  # pydantic's ValidationError is one
                raise InvalidAnswer(str(error)) from error
        try:
            misfit = _jsonschema().exceptions.best_match(self._validator.iter_errors(value))
        except RecursionError:
            raise InvalidAnswer("it is nested too deep to be checked") from None
        if misfit is not None:
            raise InvalidAnswer(f"at {misfit.json_path}: {misfit.message}") from misfit
        return _with_defaults(value, self.schema)

    @cached_property
    def _validator(self) -> Any:
        """Checks values by the schema, and fetches nothing for it."""
        import referencing

        return _validator_class(self.schema)(self.schema, registry=referencing.Registry())

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_validator"}


def answer_form(output_schema: Any, choices: Any, *, is_strict: bool = False) -> AnswerForm | None:
    """The form that a model's fields ask for; None for free text. ConfigError for what is neither."""
    if output_schema is not None and choices is not None:
        raise ConfigError("output_schema= and choices= exclude each other; a choice is a schema with an enum")
    if choices is not None:
        return _form_of_choices(choices, is_strict=is_strict)
    if output_schema is None:
        return None
    if is_schema_class(output_schema):
        schema = output_schema.model_json_schema()
        refuse_foreign_references(schema)
        return AnswerForm(schema, None, output_schema, is_strict=is_strict)
    if isinstance(output_schema, Mapping) and output_schema:
        _check_schema(output_schema)
        return AnswerForm(dict(output_schema), None, is_strict=is_strict)
    raise ConfigError(f"output_schema is a Pydantic model or a JSON Schema as a dict, not {output_schema!r}")


def _form_of_choices(choices: Any, *, is_strict: bool) -> AnswerForm:
    is_listed = isinstance(choices, (list, tuple)) and bool(choices)
    if not is_listed or not all(isinstance(choice, str) and choice.strip() for choice in choices):
        raise ConfigError(f"choices is a list of strings to choose from, not {choices!r}")
    folded = [choice.casefold() for choice in choices]
    if len(set(folded)) < len(folded):
        raise ConfigError(f"choices {list(choices)!r} holds two that differ by capitals at most")
    schema = {
        "type": "object", "properties": {CHOICE: {"type": "string", "enum": list(choices)}},
        "required": [CHOICE], "additionalProperties": False,
    }  # fmt: skip
    return AnswerForm(schema, list(choices), is_strict=is_strict)


def _with_defaults(value: Any, schema: Mapping[str, Any]) -> Any:
    """An object with the defaults of the properties it lacks; of the outermost object alone."""
    properties = schema.get("properties")
    if not isinstance(value, dict) or not isinstance(properties, Mapping):
        return value
    defaults = {
        name: copy.deepcopy(about["default"])
        for name, about in properties.items()
        if name not in value and isinstance(about, Mapping) and "default" in about
    }
    return value | defaults


def _check_schema(schema: Mapping[str, Any]) -> None:
    """ConfigError for a schema that is none, or refers to anything but itself."""
    refuse_foreign_references(schema)
    try:
        jsonschema = _jsonschema()
    except MissingPlugin:  # told when an answer is to be checked
        return
    try:
        checks = _validator_class(schema)
        checks.check_schema(schema, format_checker=checks.FORMAT_CHECKER)
    except jsonschema.SchemaError as error:
        raise ConfigError(f"output_schema is no JSON Schema: at {error.json_path}: {error.message}") from error


def _validator_class(schema: Mapping[str, Any]) -> Any:
    """What checks by the draft that a schema names; by the newest where that is not known."""
    jsonschema = _jsonschema()
    draft = {"$schema": schema["$schema"]} if isinstance(schema.get("$schema"), str) else {}
    return jsonschema.validators.validator_for(draft, default=jsonschema.Draft202012Validator)


def _jsonschema() -> Any:
    try:
        import jsonschema
    except ImportError as error:
        raise MissingPlugin("jsonschema", with_extra("structured"), purpose="output_schema= as a dict") from error
    return jsonschema
