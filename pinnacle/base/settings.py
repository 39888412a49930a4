"""Settings read from the environment, once, when `pinnacle()` opens a database."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Literal

from pinnacle.base.destinations import VARIABLE, Grants
from pinnacle.base.errors import ConfigError
from pinnacle.base.near import meant_by
from pinnacle.base.redaction import know

NO_SECRET_FILE: Literal["off"] = "off"


@dataclass(frozen=True)
class Settings:
    """What can be tuned without code; every field is read from ``PINNACLE_<FIELD>``.

    ``lease_ttl_s``: seconds after which a silent owner's lease on rows is void.
    ``write_target_s``: how long one write transaction may take; its size adapts.
    ``outage_patience_s``: how long a predict waits for a provider, or for its database, that does not answer.
    ``cache_ttl_s``: how long answers of hosted models are kept, so that they are not paid for twice; 0 keeps none.
    ``trusted_modules``: if set, the only modules (and their submodules) that components
    may be loaded from; by default those that lie where the process was started, or are imported already.
    ``allow_remote_code``: whether stored models may run code from beside their weights: all, none, or those named.
    ``cache_dir``: where artifacts are unpacked for libraries that need files.
    ``application``: what the connections that pinnacle opens call themselves.
    ``url``: the database where none is named.
    ``may_create``: whether a database file, or an embedded server's directory, that is not there is made.
    ``secret``: what definitions are signed with, of 16 characters or more; or several with commas between them, of
    which the first signs and all are known.
    ``secret_file``: a file that holds it in place of that; ``"off"``: no file, not even the one that embedded databases
    have. Where neither is given both are the environment's, also of settings that are made in code.
    ``secrets``: where stored components may send what environment variables hold, as ``NAME@host``; where it is not
    given it is the environment's, too.
    """

    lease_ttl_s: float = 15.0
    write_target_s: float = 0.02
    trusted_modules: tuple[str, ...] | None = None
    allow_remote_code: bool | tuple[str, ...] = False
    outage_patience_s: float = 120.0
    cache_ttl_s: float = 30 * 86400.0
    cache_dir: Path = field(default_factory=lambda: Path.home() / ".cache" / "pinnacle")
    application: str = "pinnacle"
    url: str | None = field(default=None, repr=False)
    may_create: bool = True
    secret: str | None = field(default=None, repr=False)
    secret_file: Path | Literal["off"] | None = None
    secrets: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        """ConfigError for what is no number of seconds, be it from code or from the environment."""
        if self.secret is None and self.secret_file is None:
            object.__setattr__(self, "secret", os.environ.get("PINNACLE_SECRET") or None)
            object.__setattr__(self, "secret_file", _secret_file(os.environ))
        for name, variable in _SECONDS.items():
            value = getattr(self, name)
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
            may_be_zero = name == "cache_ttl_s"
            if not is_number or not (0 < value < math.inf or (value == 0 and may_be_zero)):
                least = "of 0 or more" if may_be_zero else "above 0"
                raise ConfigError(f"{name} ({variable}) is a number of seconds {least}, not {value!r}")
            if value > (most := _MOST_S.get(name, LONGEST_S)):
                raise ConfigError(f"{name} ({variable}) is a number of seconds of at most {most:,.0f}, not {value!r}")
        self.grants  # noqa: B018 - what says nothing is refused now
        for secret in _items(self.secret or ""):
            know(secret)

    @cached_property
    def grants(self) -> Grants:
        """``secrets``, read."""
        return Grants.of(_items(os.environ.get(VARIABLE, "")) if self.secrets is None else self.secrets)

    def allows_code_of(self, identifier: str) -> bool:
        """Whether a stored component of this name may run code from beside its weights."""
        allowed = self.allow_remote_code
        return allowed if isinstance(allowed, bool) else identifier in allowed

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Settings:
        env = os.environ if environment is None else environment
        _warn_of_misspelt(env)
        chosen: dict[str, object] = {
            name: _number(env[variable]) for name, variable in _SECONDS.items() if variable in env
        }
        if allowed := env.get("PINNACLE_ALLOW_REMOTE_CODE", "").strip():
            chosen["allow_remote_code"] = _truth_or_names(allowed)
        chosen |= {name: _items(env[variable]) for name, variable in _LISTS.items() if variable in env}
        chosen |= {name: env[variable] for name, variable in _TEXTS.items() if env.get(variable)}
        if "PINNACLE_CACHE_DIR" in env:
            chosen["cache_dir"] = Path(env["PINNACLE_CACHE_DIR"])
        chosen["secret_file"] = _secret_file(env)
        if "PINNACLE_MAY_CREATE" in env:
            chosen["may_create"] = _truth("PINNACLE_MAY_CREATE", env["PINNACLE_MAY_CREATE"])
        return cls(**chosen)  # type: ignore[arg-type]


_SECONDS = {
    name: f"PINNACLE_{name.upper()}" for name in ("lease_ttl_s", "write_target_s", "outage_patience_s", "cache_ttl_s")
}
LONGEST_S = 1e9
_MOST_S = {"lease_ttl_s": 86_400.0, "write_target_s": 60.0}
"""Beyond these a row whose owner died waits for days, and users wait for a write."""

_LISTS = {"trusted_modules": "PINNACLE_TRUSTED_MODULES", "secrets": VARIABLE}
_TEXTS = {"application": "PINNACLE_APPLICATION", "url": "PINNACLE_URL", "secret": "PINNACLE_SECRET"}


def _warn_of_misspelt(env: Mapping[str, str]) -> None:
    """A variable that nothing reads, and whose name is like that of one which is read."""
    known = {field.name.upper() for field in fields(Settings)} | {"FAILPOINTS", "FAILPOINTS_SEED"}
    for name in env:
        mine = name.removeprefix("PINNACLE_")
        if mine != name and (meant := meant_by(mine, known)):
            warnings.warn(f"nothing reads {name}; is PINNACLE_{meant} meant?", stacklevel=3)


def _secret_file(env: Mapping[str, str]) -> Path | Literal["off"] | None:
    named = env.get("PINNACLE_SECRET_FILE")
    if not named:
        return None
    return NO_SECRET_FILE if named == NO_SECRET_FILE else Path(named)


def _items(raw: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in raw.split(",") if item.strip())


_TRUTHS = {"0": False, "1": True, "false": False, "true": True}


def _truth(name: str, raw: str) -> bool:
    if (truth := _TRUTHS.get(raw.lower())) is None:
        raise ConfigError(f"{name} is True or False, not {raw!r}")
    return truth


def _truth_or_names(raw: str) -> bool | tuple[str, ...]:
    """A truth, or the names between commas."""
    truth = _TRUTHS.get(raw.lower())
    return _items(raw) if truth is None else truth


def _number(raw: str) -> float | str:
    """The number that a text says; the text where it says none, to be told of."""
    try:
        return float(raw)
    except ValueError:
        return raw
