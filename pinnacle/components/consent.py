"""Whether a component may run code that this process did not bring: what comes from a database consents to nothing."""

from __future__ import annotations

from pinnacle.base.errors import ModelUnavailable
from pinnacle.components.component import Component, origin_of


def is_stored(component: Component) -> bool:
    """Whether a component comes from a database, or was made of one that does; `dataclasses.replace` is no consent."""
    return origin_of(component) is not None


def may_run_code(component: Component) -> bool:
    """Whether a component may run code from beside its weights: it was constructed here, or the process allows it."""
    return (origin := origin_of(component)) is None or origin.may_run_code


def refuse_code(component: Component, what: str) -> ModelUnavailable:
    """The error for a component from a database that asks for ``what``, and may not."""
    return ModelUnavailable(
        f"{component.kind} {component.identifier!r} asks for {what}, which can run code or send data "
        "elsewhere, and what is stored in a database consents to neither: if you trust all who may write there, name "
        f"the {component.kind} in PINNACLE_ALLOW_REMOTE_CODE; or construct it in this process"
    )
