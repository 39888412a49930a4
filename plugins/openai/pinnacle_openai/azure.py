"""Azure's addresses: deployments by their path and a version of the API (classic), or OpenAI's own paths (v1)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote, urlsplit

from pinnacle import ConfigError

AZURE_KEY = "env:AZURE_OPENAI_API_KEY"
HOSTS = (
    ".openai.azure.com", ".openai.azure.us", ".openai.azure.cn", ".cognitiveservices.azure.com",
    ".services.ai.azure.com",
)  # fmt: skip
DEPLOYMENTS = "/openai/deployments/"
TASKS = ("/chat/completions", "/embeddings")


@dataclass(frozen=True)
class Azure:
    """Where a deployment is asked: ``url`` for its requests, and ``files_url`` with ``endpoint`` for batches of them.

    Both are None where the service has no batches.
    """

    url: str
    files_url: str | None
    endpoint: str | None


@lru_cache(maxsize=256)
def azure_of(base_url: str | None, api_version: str | None, model: str, *, is_versioned: bool = False) -> Azure | None:
    """Azure's address, which its host or an ``api_version`` tells; None for all other services.

    ``is_versioned``: the query has a version of the user's own. ConfigError where the address leaves open which API
    is meant.
    """
    parts = urlsplit(base_url or "")
    is_known = (parts.hostname or "").endswith(HOSTS)
    if base_url is None or not (is_known or api_version is not None):
        if api_version is not None:
            raise ConfigError("api_version= is for Azure, and needs base_url='https://NAME.openai.azure.com'")
        return None
    url = base_url.rstrip("/")
    for task in TASKS:  # the address as Azure's pages show it, with what is asked for
        url = url.removesuffix(task)
    path = urlsplit(url).path
    if path.endswith("/v1"):
        return Azure(url, url, "/v1/chat/completions")
    if api_version is None and not is_versioned:
        raise ConfigError(
            f"base_url={base_url!r} is Azure's, and does not say which API: give it the path /openai/v1, or "
            "api_version= for a deployment that is asked by its path"
        )
    if path.endswith("/models"):
        return Azure(url, None, None)
    root, found, _ = f"{url}/".partition(DEPLOYMENTS)
    root = root.rstrip("/").removesuffix("/openai")
    asked = url if found else f"{root}{DEPLOYMENTS}{quote(model, safe='')}"
    return Azure(asked, f"{root}/openai", "/chat/completions")
