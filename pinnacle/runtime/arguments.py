"""Checks a call's arguments before anything is written, and names its keywords in one text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

from pinnacle.base.errors import ConfigError
from pinnacle.base.rows import Fields
from pinnacle.components.model import CallStyle, Model


def canonical(parameters: Mapping[str, Any]) -> str:
    """Keywords for a model as text that is equal for equal keywords: a hash of their JSON, or of their repr."""
    if not parameters:
        return ""
    text = json.dumps(parameters, sort_keys=True, default=repr)
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def check_arguments(model: Model, fields: Fields, parameters: Mapping[str, Any]) -> None:
    """Refuse arguments that the model does not take, before anything is written or called."""
    model.check_parameters(parameters)
    if model.call_style is CallStyle.BATCH and not model.takes_row_keywords:
        model.check_arguments(1, list(parameters))
    elif fields.arguments is None:
        model.check_arguments(len(fields.paths), list(parameters))
    else:
        named = [name for name in fields.arguments if name != "input"]
        if wrong := sorted(model.never_from_rows.intersection(named)):
            raise ConfigError(
                f"{wrong[0]} of model {model.identifier!r} is not taken from rows, which would say what is sent beside "
                "their text: pass it as a keyword"
            )
        model.check_arguments(len(fields.arguments) - len(named), [*named, *parameters])
