"""Listeners: what keeps an output fresh as rows change."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Literal

from pinnacle.base.errors import ConfigError
from pinnacle.base.rows import Fields
from pinnacle.components.component import Component, check_identifier, operational
from pinnacle.components.model import Model

CHOICES = {"on_change": ("keep", "clear"), "unmatched": ("keep", "clear"), "follow": ("pinned", "latest")}


@dataclasses.dataclass
class Listener(Component):
    """Keeps ``model``'s output fresh over the rows of ``select``, whoever changes them.

    ``key`` takes what ``X`` of `predict` takes, and may be called ``X``. ``model`` may be the name of a
    stored one. ``output``: the column's name, by default
    ``{key}__{model}``. ``parameters``: keywords for the model. ``on_change``: what
    happens to the old value when an input changes: kept until the new one is written, or
    cleared in the user's own transaction.
    ``unmatched``: the same for rows that the select no longer matches. ``notify``: wake
    workers with a NOTIFY a statement on PostgreSQL; without it they poll. By default yes,
    but where the server allows prepared transactions, which it refuses after a NOTIFY.
    ``replicated``: capture changes that a logical replication applies as well.
    ``sweep_every_s``: seconds between background sweeps, 0 for none. The identifier is by
    default the output's place, ``table.column``, known once the listener is added.

    ``follow``: "pinned" keeps to the version of the model that the listener was added with.
    With "latest" any running worker moves it, within seconds, to each newer version that is
    stored under the model's identifier, by whichever process, as if it was added again with
    that. A version that cannot be loaded where the worker runs, or does not fit the output, is
    shown as the listener's error, and the one before works on. Added with a model that is
    stored, but is not the newest, such a listener gets the newest in its place.

    ``adopt``: values that stand where the output goes and that pinnacle did not write may be
    overwritten; without it adding the listener is refused.
    """

    kind: ClassVar[str] = "listener"

    identifier: str = ""
    _: dataclasses.KW_ONLY
    model: Any = None
    key: Any = None
    select: Any = None
    output: Any = None
    parameters: dict[str, Any] = dataclasses.field(default_factory=dict)
    on_change: Literal["keep", "clear"] = "keep"
    unmatched: Literal["keep", "clear"] = "keep"
    notify: bool | None = None
    replicated: bool = False
    sweep_every_s: float = 3600.0
    follow: Literal["pinned", "latest"] = "pinned"
    adopt: bool = operational(False)
    X: dataclasses.InitVar[Any] = None

    def __post_init__(self, X: Any) -> None:  # noqa: N803
        if self.identifier:
            check_identifier(self.identifier)
        if not isinstance(self.model, Model) and not (isinstance(self.model, str) and self.model):
            raise ConfigError(f"a listener needs model=, a model or the name of a stored one, not {self.model!r}")
        if X is not None and self.key is not None:
            raise ConfigError("X= and key= are two names of one thing; pass one of them")
        self.key = X if self.key is None else self.key
        if self.key is None or self.select is None:
            raise ConfigError("a listener needs key= (the field or fields to read) and select= (the rows)")
        self.key = Fields.of(self.key).to_json()
        for name, (default, other) in CHOICES.items():
            if getattr(self, name) not in (default, other):
                raise ConfigError(f"{name}= is {default!r} or {other!r}, not {getattr(self, name)!r}")
        if not 0 <= self.sweep_every_s < float("inf"):
            raise ConfigError(f"sweep_every_s is a number of seconds from 0, not {self.sweep_every_s!r}")

    @property
    def is_following(self) -> bool:
        """Whether it moves to each new version of its model by itself."""
        return self.follow == "latest"
