"""Answers with a form: a JSON Schema (of a Pydantic model, say) or a list of choices."""

from __future__ import annotations

import copy
import json
import string
from collections.abc import Mapping, Sequence
from typing import Any

from pinnacle.base.distribution import with_extra
from pinnacle.base.errors import ConfigError, InvalidAnswer, MissingPlugin
from pinnacle.components.source import is_schema_class

CHOICE = "choice"


class AnswerForm:
    """What an answer must be, how a model is told, and how its text becomes a value.

    Answers are validated by the Pydantic class, where there is one; else by JSON Schema, and what an object
    lacks gets the default that the schema has for it. Values are plain JSON either way; of ``choices`` one string.
    """

    def __init__(self, schema: Mapping[str, Any], choices: Sequence[str] | None, pydantic: Any = None) -> None:
        self.schema, self._choices, self._pydantic = schema, choices, pydantic

    @property
    def instruction(self) -> str:
        """The form in words, for models that have no other way to be told."""
        if self._choices is not None:
            return f"Answer with exactly one of these, and nothing else: {', '.join(self._choices)}"
        return (
            "Answer with one JSON object that fits this JSON Schema, and nothing else:\n"
            f"{json.dumps(self.schema, ensure_ascii=False)}"
        )

    def parse(self, text: str) -> Any:
        """The value in an answer; InvalidAnswer with what is wrong, for the model to read."""
        bare = _without_fence(text)
        if self._choices is not None and (chosen := self._chosen(text, bare)) is not None:
            return chosen
        try:
            value = json.loads(bare, parse_constant=_no_json)
        except ValueError as error:
            raise InvalidAnswer(self._not_a_choice(text) if self._choices else f"it is not JSON: {error}") from None
        value = self._validated(value)
        return value[CHOICE] if self._choices is not None else value

    def _chosen(self, *texts: str) -> str | None:
        """A choice given as plain text: as it is written, or where capitals, quotes and full stops alone differ."""
        choices = self._choices or ()
        if written := [text for text in texts if text in choices]:
            return written[0]
        likely = [choice for choice in choices if _folded(choice) in map(_folded, texts)]
        return likely[0] if len(likely) == 1 else None

    def _not_a_choice(self, text: str) -> str:
        return f"{text.strip()[:80]!r} is none of {', '.join(map(repr, self._choices or ()))}"

    def _validated(self, value: Any) -> Any:
        if self._pydantic is not None:
            try:
                return self._pydantic.model_validate_json(json.dumps(value)).model_dump(mode="json", by_alias=True)
            except ValueError as error:  # pydantic's ValidationError is one
                raise InvalidAnswer(str(error)) from error
        jsonschema = _jsonschema()
        try:
            jsonschema.validate(value, self.schema)
        except jsonschema.ValidationError as error:
            raise InvalidAnswer(f"at {error.json_path}: {error.message}") from error
        return _with_defaults(value, self.schema)


def answer_form(output_schema: Any, choices: Any) -> AnswerForm | None:
    """The form that a model's fields ask for; None for free text. ConfigError for what is neither."""
    if output_schema is not None and choices is not None:
        raise ConfigError("output_schema= and choices= exclude each other; a choice is a schema with an enum")
    if choices is not None:
        return _form_of_choices(choices)
    if output_schema is None:
        return None
    if is_schema_class(output_schema):
        return AnswerForm(output_schema.model_json_schema(), None, output_schema)
    if isinstance(output_schema, Mapping) and output_schema:
        return AnswerForm(dict(output_schema), None)
    raise ConfigError(f"output_schema is a Pydantic model or a JSON Schema as a dict, not {output_schema!r}")


def _form_of_choices(choices: Any) -> AnswerForm:
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
    return AnswerForm(schema, list(choices))


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


def _folded(text: str) -> str:
    return text.strip(_AROUND).casefold()


_AROUND = string.whitespace + "\"'`."


def _no_json(constant: str) -> None:
    """NaN and infinities, which Python's reader takes and databases do not."""
    raise ValueError(f"{constant} is no JSON")


def _without_fence(text: str) -> str:
    """The text inside a Markdown code fence, which models put around JSON unasked."""
    bare = text.strip()
    if not (bare.startswith("```") and bare.endswith("```") and len(bare) > 6):
        return bare
    first, _, rest = bare[3:-3].partition("\n")
    return rest.strip() if first.strip().isalpha() or not first.strip() else bare[3:-3].strip()


def _jsonschema() -> Any:
    try:
        import jsonschema
    except ImportError as error:
        raise MissingPlugin("jsonschema", with_extra("structured"), purpose="output_schema= as a dict") from error
    return jsonschema
