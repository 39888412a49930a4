"""Attach AI models to the database you already have: what a user's program writes.

`pinnacle` opens a database. Models, listeners and datasets are declared with the names here, answers and runs come back
as them, and errors are caught by them. What only the author of a plug-in needs is in `pinnacle.plugin`, every language
model class in `pinnacle.ext.llm`. Names resolve when first used; importing loads nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from pinnacle.base.distribution import DISTRIBUTION
from pinnacle.base.lazy import LazyNames

if TYPE_CHECKING:
    from pinnacle.base.document import Document as Document
    from pinnacle.base.errors import AccountRefused as AccountRefused
    from pinnacle.base.errors import AnswerCut as AnswerCut
    from pinnacle.base.errors import BackendError as BackendError
    from pinnacle.base.errors import BudgetReached as BudgetReached
    from pinnacle.base.errors import ComponentError as ComponentError
    from pinnacle.base.errors import ConfigError as ConfigError
    from pinnacle.base.errors import Conflict as Conflict
    from pinnacle.base.errors import ConnectionLost as ConnectionLost
    from pinnacle.base.errors import ContextOverflow as ContextOverflow
    from pinnacle.base.errors import InvalidAnswer as InvalidAnswer
    from pinnacle.base.errors import MissingPlugin as MissingPlugin
    from pinnacle.base.errors import ModelError as ModelError
    from pinnacle.base.errors import ModelUnavailable as ModelUnavailable
    from pinnacle.base.errors import NoAnswer as NoAnswer
    from pinnacle.base.errors import NotAuthenticated as NotAuthenticated
    from pinnacle.base.errors import NotDrained as NotDrained
    from pinnacle.base.errors import NotFound as NotFound
    from pinnacle.base.errors import OutputCountMismatch as OutputCountMismatch
    from pinnacle.base.errors import OutputTypeConflict as OutputTypeConflict
    from pinnacle.base.errors import OutputTypeMismatch as OutputTypeMismatch
    from pinnacle.base.errors import ParameterRefused as ParameterRefused
    from pinnacle.base.errors import PinnacleError as PinnacleError
    from pinnacle.base.errors import ProviderRefused as ProviderRefused
    from pinnacle.base.errors import ProviderUnavailable as ProviderUnavailable
    from pinnacle.base.errors import RowRejected as RowRejected
    from pinnacle.base.errors import TrainingError as TrainingError
    from pinnacle.base.errors import UnknownField as UnknownField
    from pinnacle.base.errors import UnsupportedQuery as UnsupportedQuery
    from pinnacle.base.errors import UnsupportedTable as UnsupportedTable
    from pinnacle.base.errors import UntrustedReference as UntrustedReference
    from pinnacle.base.metering import Usage as Usage
    from pinnacle.base.settings import Settings as Settings
    from pinnacle.base.types import Datetime as Datetime
    from pinnacle.base.types import Json as Json
    from pinnacle.base.types import Vector as Vector
    from pinnacle.base.usage import UsageRow as UsageRow
    from pinnacle.components.component import Component as Component
    from pinnacle.components.dataset import Dataset as Dataset
    from pinnacle.components.function import FunctionModel as FunctionModel
    from pinnacle.components.function import model as model
    from pinnacle.components.listener import Listener as Listener
    from pinnacle.components.model import Model as Model
    from pinnacle.components.run import Checkpoint as Checkpoint
    from pinnacle.components.run import Run as Run
    from pinnacle.components.side import Side as Side
    from pinnacle.db import Database as Database
    from pinnacle.db import pinnacle as pinnacle
    from pinnacle.llm.embeddings import cos_sim as cos_sim
    from pinnacle.llm.overflow import PromptCut as PromptCut
    from pinnacle.llm.prices import Price as Price

    __version__: str

_NAMES = LazyNames(__name__, {
    "pinnacle.base.document": ("Document",),
    "pinnacle.base.errors": (
        "AccountRefused", "AnswerCut", "BackendError", "BudgetReached", "ComponentError", "ConfigError", "Conflict",
        "ConnectionLost", "ContextOverflow", "InvalidAnswer", "MissingPlugin", "ModelError", "ModelUnavailable",
        "NoAnswer", "NotAuthenticated", "NotDrained", "NotFound", "OutputCountMismatch", "OutputTypeConflict",
        "OutputTypeMismatch", "ParameterRefused", "PinnacleError", "ProviderRefused", "ProviderUnavailable",
        "RowRejected", "TrainingError", "UnknownField", "UnsupportedQuery", "UnsupportedTable", "UntrustedReference",
    ),
    "pinnacle.base.metering": ("Usage",),
    "pinnacle.base.settings": ("Settings",),
    "pinnacle.base.types": ("Datetime", "Json", "Vector"),
    "pinnacle.base.usage": ("UsageRow",),
    "pinnacle.components.component": ("Component",),
    "pinnacle.components.dataset": ("Dataset",),
    "pinnacle.components.function": ("FunctionModel", "model"),
    "pinnacle.components.listener": ("Listener",),
    "pinnacle.components.model": ("Model",),
    "pinnacle.components.run": ("Checkpoint", "Run"),
    "pinnacle.components.side": ("Side",),
    "pinnacle.db": ("Database", "pinnacle"),
    "pinnacle.llm.embeddings": ("cos_sim",),
    "pinnacle.llm.overflow": ("PromptCut",),
    "pinnacle.llm.prices": ("Price",),
})  # fmt: skip

if not TYPE_CHECKING:  # a type checker knows the names above, and no others
    __all__ = _NAMES.public()

    def __getattr__(name: str) -> Any:
        if name == "__version__":
            return importlib.import_module("importlib.metadata").version(DISTRIBUTION)
        return _NAMES.resolve(name)


def __dir__() -> list[str]:
    return _NAMES.listed()
