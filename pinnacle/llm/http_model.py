"""What models that are asked over HTTP share: how they connect, and how much of an answer is read."""

from __future__ import annotations

import dataclasses
import os
import ssl
from collections.abc import Mapping
from typing import Any

from pinnacle.base.destinations import Destination, server_of, setting_for
from pinnacle.base.errors import ConfigError, ModelUnavailable
from pinnacle.components.component import operational
from pinnacle.llm.certificates import tls_context
from pinnacle.llm.hosted import HostedModel
from pinnacle.llm.http import MAX_ANSWER_BYTES, HttpClient
from pinnacle.llm.metered import check_whole


@dataclasses.dataclass
class HttpModel(HostedModel):
    """A hosted model behind HTTP, whose requests go through the proxies that the environment names.

    ``ca_file``: a PEM file with the only authorities to trust; by default SSL_CERT_FILE or SSL_CERT_DIR, else the
    machine's. ``client_certificate``: a PEM file with certificate and key, or a pair of files. ``max_answer_bytes``:
    of one answer, unpacked; a longer one is that row's error.
    """

    _: dataclasses.KW_ONLY
    connect_timeout_s: float = operational(10.0)
    max_answer_bytes: int = operational(MAX_ANSWER_BYTES)
    ca_file: str | None = operational(None)
    client_certificate: Any = operational(None)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole("max_answer_bytes", self.max_answer_bytes)
        if not 0 < self.connect_timeout_s < float("inf"):
            raise ConfigError(f"connect_timeout_s is a number of seconds above 0, not {self.connect_timeout_s!r}")
        if self.ca_file is not None and not isinstance(self.ca_file, str):
            raise ConfigError(f"ca_file is the path of a PEM file, not {self.ca_file!r}")
        files = self.client_certificate
        if isinstance(files, list):
            self.client_certificate = files = tuple(files)
        if files is not None and not isinstance(files, str) and not _is_pair(files):
            raise ConfigError(f"client_certificate is the path of a PEM file, or a pair of such, not {files!r}")

    def destination(self) -> Destination:
        """The server of ``base_url`` or ``api_url``, where a class has one of these; else its own code."""
        urls = (getattr(self, name, None) for name in ("base_url", "api_url"))
        url = next((url for url in urls if isinstance(url, str) and url), None)
        return super().destination() if url is None else server_of(url)

    def secret_names(self) -> set[str]:
        """Also the files: a certificate opens doors, and a path says which file of this machine is read."""
        return super().secret_names() | set(self._files())

    def tls_context(self) -> ssl.SSLContext:
        """For a client of one's own what `http_client` uses; ModelUnavailable for a file that is not allowed."""
        self._check_files()
        return tls_context(self.ca_file, self.client_certificate)

    def _files(self) -> list[str]:
        pair = self.client_certificate
        return [file for file in (self.ca_file, *(pair if _is_many(pair) else [pair])) if isinstance(file, str)]

    def _check_files(self) -> None:
        for file in self._files():
            if self.granted is None or file == os.environ.get("SSL_CERT_FILE"):
                continue
            if not self.granted.allows(file, there := self.destination()):
                raise ModelUnavailable(
                    f"model {self.identifier!r} was loaded from the database, which alone does not decide which files "
                    f"of this machine are read: set {setting_for(file, there)} in this process if {file} is meant"
                )

    def http_client(
        self, headers: Mapping[str, str] | None = None, query: Mapping[str, str] | None = None
    ) -> HttpClient:
        """A client as these settings say, for an account's headers and query.

        Of a model that was loaded, one that asks no server but the one that its secrets are allowed for.
        """
        bound = None if self.granted is None else self.destination()
        self._check_files()
        return HttpClient(
            self.connect_timeout_s, headers or {}, query or {}, self.max_answer_bytes, self.ca_file,
            self.client_certificate, bound if bound is not None and bound.is_server else None,
        )  # fmt: skip


def _is_many(files: Any) -> bool:
    return isinstance(files, (list, tuple))


def _is_pair(files: Any) -> bool:
    return isinstance(files, tuple) and len(files) == 2 and all(isinstance(file, str) for file in files)
