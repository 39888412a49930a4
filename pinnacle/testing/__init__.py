"""What your own tests can use: a fake OpenAI-compatible server, and language models that train in seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pinnacle.base.lazy import LazyNames

if TYPE_CHECKING:
    from pinnacle.testing.answers import Refuse as Refuse
    from pinnacle.testing.answers import unit_vector as unit_vector
    from pinnacle.testing.faults import Faults as Faults
    from pinnacle.testing.json_server import JsonServer as JsonServer
    from pinnacle.testing.process import ServerProcess as ServerProcess
    from pinnacle.testing.record import Received as Received
    from pinnacle.testing.server import FakeOpenAI as FakeOpenAI
    from pinnacle.testing.tiny import almanac as almanac
    from pinnacle.testing.tiny import tiny_adapter as tiny_adapter
    from pinnacle.testing.tiny import tiny_causal_lm as tiny_causal_lm

_NAMES = LazyNames(__name__, {
    "pinnacle.testing.answers": ("Refuse", "unit_vector"),
    "pinnacle.testing.faults": ("Faults",),
    "pinnacle.testing.json_server": ("JsonServer",),
    "pinnacle.testing.process": ("ServerProcess",),
    "pinnacle.testing.record": ("Received",),
    "pinnacle.testing.server": ("FakeOpenAI",),
    "pinnacle.testing.tiny": ("almanac", "tiny_adapter", "tiny_causal_lm"),
})  # fmt: skip

if not TYPE_CHECKING:  # a type checker knows the names above, and no others
    __all__ = _NAMES.public()

    def __getattr__(name: str) -> Any:
        return _NAMES.resolve(name)


def __dir__() -> list[str]:
    return _NAMES.listed()
