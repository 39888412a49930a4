"""What the author of a plug-in writes beside the names of `pinnacle`; nothing else of pinnacle is for plug-ins.

- A model behind a provider's API: `BaseLLMAPI` for language models, `EmbedModel` for vectors, `HostedModel` for what
  both share, `HttpModel` for how those over HTTP connect; `HttpClient`, its `HttpError`, `tls_context` and
  `run_coroutine` to ask, `Request`, `Reply`, `Answered` and `Unreadable` for what was asked and answered,
  `pinnacle.Usage` for what that cost, `BatchAnswers` for a provider's batch jobs, `listed_price` for what a token
  costs; `chat_reply`, `told_text`, `error_object`, `token_count` and `sane_counts` read what came,
  `pinnacle.NoAnswer` says that it is no answer, and `verdict_on` gives the `Verdict` on an error;
  `is_likely_secret` says what is not to be stored, `meant_by` what a misspelt name is for.
- A model in this process: `BaseLLMModel` or `pinnacle.Model`; `loading_lock` is held while weights are loaded.
  `BaseLLM` is what all language models share.
- What a stored model may not do unless the process allows it: `may_run_code` and `is_stored` ask, `refuse_code`
  is the error.
- The fields of either: `operational` (how it is run), `learned` (what `fit` fills in), `secret` and `resolved_secret`,
  which looks whether the process allows that secret for the component's ``destination()``: a `Destination`, made of an
  address by `server_of`; `secret_names_in` finds the variables that a value names, `setting_for` says what would allow
  one; `Artifact`, `folder_artifacts`, `unpack` and `folder_fingerprint` for files; `OutputType` and `CallStyle` to say
  what the model returns and how it is called.
- An output type: one class over `OutputType` that says how values are checked and, by `SqliteColumn`,
  `PostgresColumn` and `BsonField`, how each database keeps them (`pinnacle.base.types` has an example); found by the
  entry points of group ``pinnacle.types``, or made known by `register_output_type`.
- A model that is trained: `TrainingConfiguration`, and the `TrainingJob` that `Model.train` gets, with `Start`,
  `DataFacts` and `SavedWeights`.

A plug-in's classes are found by the entry points of its distribution, group ``pinnacle.models``. Its tests use
`pinnacle.testing`. What a user's program writes (`Model`, `Vector`, the errors) stays in `pinnacle`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pinnacle.base.lazy import LazyNames

if TYPE_CHECKING:
    from pinnacle.base.batches import BatchAnswers as BatchAnswers
    from pinnacle.base.destinations import Destination as Destination
    from pinnacle.base.destinations import server_of as server_of
    from pinnacle.base.destinations import setting_for as setting_for
    from pinnacle.base.loading import loading_lock as loading_lock
    from pinnacle.base.loop import run_coroutine as run_coroutine
    from pinnacle.base.near import meant_by as meant_by
    from pinnacle.base.redaction import is_likely_secret as is_likely_secret
    from pinnacle.base.types import BsonField as BsonField
    from pinnacle.base.types import OutputType as OutputType
    from pinnacle.base.types import PackedArray as PackedArray
    from pinnacle.base.types import PostgresColumn as PostgresColumn
    from pinnacle.base.types import SqliteColumn as SqliteColumn
    from pinnacle.base.types import converted as converted
    from pinnacle.base.types import register_output_type as register_output_type
    from pinnacle.components.artifact import Artifact as Artifact
    from pinnacle.components.artifact import folder_artifacts as folder_artifacts
    from pinnacle.components.artifact import unpack as unpack
    from pinnacle.components.component import learned as learned
    from pinnacle.components.component import operational as operational
    from pinnacle.components.component import resolved_secret as resolved_secret
    from pinnacle.components.component import secret as secret
    from pinnacle.components.component import secret_names_in as secret_names_in
    from pinnacle.components.configuration import TrainingConfiguration as TrainingConfiguration
    from pinnacle.components.consent import is_stored as is_stored
    from pinnacle.components.consent import may_run_code as may_run_code
    from pinnacle.components.consent import refuse_code as refuse_code
    from pinnacle.components.folder import folder_fingerprint as folder_fingerprint
    from pinnacle.components.model import CallStyle as CallStyle
    from pinnacle.llm.base import BaseLLM as BaseLLM
    from pinnacle.llm.base import BaseLLMAPI as BaseLLMAPI
    from pinnacle.llm.base import BaseLLMModel as BaseLLMModel
    from pinnacle.llm.certificates import tls_context as tls_context
    from pinnacle.llm.embeddings import EmbedModel as EmbedModel
    from pinnacle.llm.hosted import HostedModel as HostedModel
    from pinnacle.llm.http import HttpClient as HttpClient
    from pinnacle.llm.http import HttpError as HttpError
    from pinnacle.llm.http_model import HttpModel as HttpModel
    from pinnacle.llm.prices import listed_price as listed_price
    from pinnacle.llm.requests import Reply as Reply
    from pinnacle.llm.requests import Request as Request
    from pinnacle.llm.sending import Answered as Answered
    from pinnacle.llm.verdict import Unreadable as Unreadable
    from pinnacle.llm.verdict import Verdict as Verdict
    from pinnacle.llm.verdict import chat_reply as chat_reply
    from pinnacle.llm.verdict import error_object as error_object
    from pinnacle.llm.verdict import sane_counts as sane_counts
    from pinnacle.llm.verdict import token_count as token_count
    from pinnacle.llm.verdict import told_text as told_text
    from pinnacle.llm.verdict import verdict_on as verdict_on
    from pinnacle.runtime.training import DataFacts as DataFacts
    from pinnacle.runtime.training import SavedWeights as SavedWeights
    from pinnacle.runtime.training import Start as Start
    from pinnacle.runtime.training import TrainingJob as TrainingJob

_NAMES = LazyNames(__name__, {
    "pinnacle.base.batches": ("BatchAnswers",),
    "pinnacle.base.destinations": ("Destination", "server_of", "setting_for"),
    "pinnacle.base.loading": ("loading_lock",),
    "pinnacle.base.loop": ("run_coroutine",),
    "pinnacle.base.near": ("meant_by",),
    "pinnacle.base.redaction": ("is_likely_secret",),
    "pinnacle.base.types": (
        "BsonField", "OutputType", "PackedArray", "PostgresColumn", "SqliteColumn", "converted",
        "register_output_type",
    ),
    "pinnacle.components.artifact": ("Artifact", "folder_artifacts", "unpack"),
    "pinnacle.components.component": ("learned", "operational", "resolved_secret", "secret", "secret_names_in"),
    "pinnacle.components.configuration": ("TrainingConfiguration",),
    "pinnacle.components.consent": ("is_stored", "may_run_code", "refuse_code"),
    "pinnacle.components.folder": ("folder_fingerprint",),
    "pinnacle.components.model": ("CallStyle",),
    "pinnacle.llm.base": ("BaseLLM", "BaseLLMAPI", "BaseLLMModel"),
    "pinnacle.llm.certificates": ("tls_context",),
    "pinnacle.llm.embeddings": ("EmbedModel",),
    "pinnacle.llm.hosted": ("HostedModel",),
    "pinnacle.llm.http": ("HttpClient", "HttpError"),
    "pinnacle.llm.http_model": ("HttpModel",),
    "pinnacle.llm.prices": ("listed_price",),
    "pinnacle.llm.requests": ("Reply", "Request"),
    "pinnacle.llm.sending": ("Answered",),
    "pinnacle.llm.verdict": (
        "Unreadable", "Verdict", "chat_reply", "error_object", "sane_counts", "token_count", "told_text", "verdict_on",
    ),
    "pinnacle.runtime.training": ("DataFacts", "SavedWeights", "Start", "TrainingJob"),
})  # fmt: skip

if not TYPE_CHECKING:  # a type checker knows the names above, and no others
    __all__ = _NAMES.public()

    def __getattr__(name: str) -> Any:
        return _NAMES.resolve(name)


def __dir__() -> list[str]:
    return _NAMES.listed()
