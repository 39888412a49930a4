"""Finds the classes that plug-ins offer by name, and takes the URL of a model apart."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from pinnacle.base.entry_points import entry_points
from pinnacle.base.errors import ConfigError, MissingPlugin

PROVIDERS = "pinnacle.providers"
"""Entry points by the name that stands before the ``+`` of a model's URL."""

FUNCTIONS = "pinnacle.functions"
"""Classes that `Model.from_function` and its kin make; pinnacle's own, in a room that models cannot import."""

_VARIABLE = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")


def plugin_class(group: str, name: str) -> Any:
    """The class that an entry point names; MissingPlugin naming the package that brings it."""
    for found in entry_points(group=group, name=name):
        return found.load()
    raise MissingPlugin(f"pinnacle-{name}", f"pinnacle-{name}", purpose=f"models of {name}")


def parse_model_url(url: str) -> tuple[str, dict[str, Any]]:
    """``provider+https://{KEY}@host/path;model=name`` as the provider's name and the arguments of its class."""
    if not isinstance(url, str) or "+" not in url.partition("://")[0]:
        raise _bad_url()
    provider, _, rest = url.partition("+")
    address, *settings = rest.split(";")
    given = dict(setting.partition("=")[::2] for setting in settings)
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:  # whose message may repeat the key
        raise _bad_url() from None
    is_plain = not any(sign in address for sign in "?#") and "@" not in parts.path
    if parts.scheme not in ("http", "https") or not host or not is_plain:
        raise _bad_url()
    if set(given) != {"model"} or not given["model"]:
        raise _bad_url()
    bracketed = f"[{host}]" if ":" in host else host
    place = bracketed if port is None else f"{bracketed}:{port}"
    arguments = {"base_url": urlunsplit((parts.scheme, place, parts.path, "", "")), "model_name": given["model"]}
    return provider, arguments | _key(parts.netloc.rpartition("@")[0])


def _key(text: str) -> dict[str, str]:
    """``{NAME}`` is the environment variable NAME; anything else is the key itself, which is not stored."""
    if not text:
        return {}
    if variable := _VARIABLE.fullmatch(text):
        return {"api_key": f"env:{variable[1]}"}
    if "{" in text or "}" in text:
        raise _bad_url()
    return {"api_key": unquote(text)}


def _bad_url() -> ConfigError:
    """Does not repeat the URL, which may hold a key."""
    return ConfigError(
        "a model's URL is provider+https://{KEY_VARIABLE}@host/path;model=name, "
        "as in openai+https://{OPENROUTER_KEY}@openrouter.ai/api/v1;model=google/gemini-2.0-flash"
    )
