"""What your own tests can use: a fake OpenAI-compatible server, and language models that train in seconds."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pinnacle.testing.answers import Refuse as Refuse
    from pinnacle.testing.answers import unit_vector as unit_vector
    from pinnacle.testing.faults import Faults as Faults
    from pinnacle.testing.process import ServerProcess as ServerProcess
    from pinnacle.testing.record import Received as Received
    from pinnacle.testing.server import FakeOpenAI as FakeOpenAI
    from pinnacle.testing.tiny import almanac as almanac
    from pinnacle.testing.tiny import tiny_adapter as tiny_adapter
    from pinnacle.testing.tiny import tiny_causal_lm as tiny_causal_lm

_MODULE_OF = {
    "FakeOpenAI": "pinnacle.testing.server",
    "Faults": "pinnacle.testing.faults",
    "Received": "pinnacle.testing.record",
    "Refuse": "pinnacle.testing.answers",
    "ServerProcess": "pinnacle.testing.process",
    "almanac": "pinnacle.testing.tiny",
    "tiny_adapter": "pinnacle.testing.tiny",
    "tiny_causal_lm": "pinnacle.testing.tiny",
    "unit_vector": "pinnacle.testing.answers",
}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'pinnacle.testing' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULE_OF])
