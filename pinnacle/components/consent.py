"""Whether a component may run code that this process did not bring: what comes from a database consents to nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pinnacle.base.errors import ModelUnavailable

if TYPE_CHECKING:
    from pinnacle.components.component import Component

_CONSENT = "_stored_may_run_code"
"""Set on components that were loaded; those that were constructed here are as their author wrote them."""


def mark_stored(component: Component, *, may_run_code: bool) -> None:
    """Say, before its fields are set, that a component is a database's, and whether the process lets it run code."""
    vars(component)[_CONSENT] = may_run_code


def keep_origin(component: Component, of: Component) -> None:
    """Have a component that was made of another be trusted no further than that."""
    if is_stored(of):
        mark_stored(component, may_run_code=may_run_code(of))
        vars(component)["granted"] = of.granted


def is_stored(component: Component) -> bool:
    """Whether a component comes from a database, and was not constructed in this process."""
    return _CONSENT in vars(component)


def may_run_code(component: Component) -> bool:
    """Whether a component may run code from beside its weights: it was constructed here, or the process allows it."""
    return bool(vars(component).get(_CONSENT, True))


def refuse_code(component: Component, what: str) -> ModelUnavailable:
    """The error for a component from a database that asks for ``what``, and may not."""
    return ModelUnavailable(
        f"{component.kind} {component.identifier!r} asks for {what}, which can run code or send data "
        "elsewhere, and what is stored in a database consents to neither: if you trust all who may write there, name "
        f"the {component.kind} in PINNACLE_ALLOW_REMOTE_CODE; or construct it in this process"
    )
