"""Attach AI models to the database you already have. Names resolve when first used; importing loads nothing."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pinnacle.base.batches import BatchAnswers as BatchAnswers
    from pinnacle.base.document import Document as Document
    from pinnacle.base.errors import AccountRefused as AccountRefused
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
    from pinnacle.base.errors import NotDrained as NotDrained
    from pinnacle.base.errors import NotFound as NotFound
    from pinnacle.base.errors import OutputCountMismatch as OutputCountMismatch
    from pinnacle.base.errors import OutputTypeConflict as OutputTypeConflict
    from pinnacle.base.errors import OutputTypeMismatch as OutputTypeMismatch
    from pinnacle.base.errors import PinnacleError as PinnacleError
    from pinnacle.base.errors import ProviderRefused as ProviderRefused
    from pinnacle.base.errors import ProviderUnavailable as ProviderUnavailable
    from pinnacle.base.errors import RowRejected as RowRejected
    from pinnacle.base.errors import TrainingError as TrainingError
    from pinnacle.base.errors import UnknownField as UnknownField
    from pinnacle.base.errors import UnsupportedQuery as UnsupportedQuery
    from pinnacle.base.errors import UnsupportedTable as UnsupportedTable
    from pinnacle.base.errors import UntrustedReference as UntrustedReference
    from pinnacle.base.loading import loading_lock as loading_lock
    from pinnacle.base.loop import run_coroutine as run_coroutine
    from pinnacle.base.metering import Usage as Usage
    from pinnacle.base.settings import Settings as Settings
    from pinnacle.base.types import Datetime as Datetime
    from pinnacle.base.types import Json as Json
    from pinnacle.base.types import OutputType as OutputType
    from pinnacle.base.types import Vector as Vector
    from pinnacle.base.usage import UsageRow as UsageRow
    from pinnacle.components.artifact import Artifact as Artifact
    from pinnacle.components.artifact import folder_artifacts as folder_artifacts
    from pinnacle.components.artifact import unpack as unpack
    from pinnacle.components.component import Component as Component
    from pinnacle.components.component import learned as learned
    from pinnacle.components.component import operational as operational
    from pinnacle.components.component import resolved_secret as resolved_secret
    from pinnacle.components.component import secret as secret
    from pinnacle.components.configuration import TrainingConfiguration as TrainingConfiguration
    from pinnacle.components.dataset import Dataset as Dataset
    from pinnacle.components.folder import folder_fingerprint as folder_fingerprint
    from pinnacle.components.function import FunctionModel as FunctionModel
    from pinnacle.components.function import model as model
    from pinnacle.components.listener import Listener as Listener
    from pinnacle.components.model import CallStyle as CallStyle
    from pinnacle.components.model import Model as Model
    from pinnacle.components.run import Checkpoint as Checkpoint
    from pinnacle.components.run import Run as Run
    from pinnacle.components.side import Side as Side
    from pinnacle.db import Database as Database
    from pinnacle.db import pinnacle as pinnacle
    from pinnacle.llm.base import BaseLLM as BaseLLM
    from pinnacle.llm.base import BaseLLMAPI as BaseLLMAPI
    from pinnacle.llm.base import BaseLLMModel as BaseLLMModel
    from pinnacle.llm.embeddings import EmbedModel as EmbedModel
    from pinnacle.llm.embeddings import cos_sim as cos_sim
    from pinnacle.llm.hosted import HostedModel as HostedModel
    from pinnacle.llm.http import HttpClient as HttpClient
    from pinnacle.llm.overflow import PromptCut as PromptCut
    from pinnacle.llm.prices import Price as Price
    from pinnacle.llm.prices import listed_price as listed_price
    from pinnacle.llm.requests import Reply as Reply
    from pinnacle.llm.requests import Request as Request
    from pinnacle.llm.sending import Answered as Answered
    from pinnacle.llm.sending import Unreadable as Unreadable
    from pinnacle.runtime.training import DataFacts as DataFacts
    from pinnacle.runtime.training import SavedWeights as SavedWeights
    from pinnacle.runtime.training import Start as Start
    from pinnacle.runtime.training import TrainingJob as TrainingJob

_NAMES_BY_MODULE = {
    "pinnacle.base.batches": ("BatchAnswers",),
    "pinnacle.base.document": ("Document",),
    "pinnacle.base.errors": (
        "AccountRefused", "BackendError", "BudgetReached", "ComponentError", "ConfigError", "Conflict",
        "ConnectionLost", "ContextOverflow", "InvalidAnswer", "MissingPlugin", "ModelError", "ModelUnavailable",
        "NotDrained", "NotFound", "OutputCountMismatch", "OutputTypeConflict", "OutputTypeMismatch", "PinnacleError",
        "ProviderRefused", "ProviderUnavailable", "RowRejected", "TrainingError", "UnknownField", "UnsupportedQuery",
        "UnsupportedTable", "UntrustedReference",
    ),
    "pinnacle.base.loading": ("loading_lock",),
    "pinnacle.base.loop": ("run_coroutine",),
    "pinnacle.base.metering": ("Usage",),
    "pinnacle.base.settings": ("Settings",),
    "pinnacle.base.types": ("Datetime", "Json", "OutputType", "Vector"),
    "pinnacle.base.usage": ("UsageRow",),
    "pinnacle.components.artifact": ("Artifact", "folder_artifacts", "unpack"),
    "pinnacle.components.component": ("Component", "learned", "operational", "resolved_secret", "secret"),
    "pinnacle.components.configuration": ("TrainingConfiguration",),
    "pinnacle.components.dataset": ("Dataset",),
    "pinnacle.components.folder": ("folder_fingerprint",),
    "pinnacle.components.function": ("FunctionModel", "model"),
    "pinnacle.components.listener": ("Listener",),
    "pinnacle.components.model": ("CallStyle", "Model"),
    "pinnacle.components.run": ("Checkpoint", "Run"),
    "pinnacle.components.side": ("Side",),
    "pinnacle.llm.base": ("BaseLLM", "BaseLLMAPI", "BaseLLMModel"),
    "pinnacle.llm.embeddings": ("EmbedModel", "cos_sim"),
    "pinnacle.llm.hosted": ("HostedModel",),
    "pinnacle.llm.http": ("HttpClient",),
    "pinnacle.llm.overflow": ("PromptCut",),
    "pinnacle.llm.prices": ("Price", "listed_price"),
    "pinnacle.llm.requests": ("Reply", "Request"),
    "pinnacle.llm.sending": ("Answered", "Unreadable"),
    "pinnacle.runtime.training": ("DataFacts", "SavedWeights", "Start", "TrainingJob"),
    "pinnacle.db": ("Database", "pinnacle"),
}  # fmt: skip
_MODULE_OF = {name: module for module, names in _NAMES_BY_MODULE.items() for name in names}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("pinnacle")
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'pinnacle' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULE_OF])
