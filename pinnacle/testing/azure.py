"""Azure's addresses on the fake server: deployments by their path, its own header for the key."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pinnacle.testing.answers import Refuse

if TYPE_CHECKING:
    from aiohttp import web

DEPLOYMENT = re.compile("/openai/deployments/[^/]+(?=/)")
V1, CLASSIC = "/openai/v1/", "/openai/"


def as_openai(request: web.BaseRequest) -> str:
    """OpenAI's path for one of Azure's; any other path as it is. Refuse for a deployment without ``api-version``."""
    path = request.path
    if path.startswith(V1):
        return path.removeprefix("/openai")
    if not path.startswith(CLASSIC):
        return path
    if "api-version" not in request.query:
        raise Refuse(404, "Resource not found", code="404")
    return f"/v1{DEPLOYMENT.sub('', path)}" if DEPLOYMENT.match(path) else f"/v1/{path.removeprefix(CLASSIC)}"


def key_of(request: web.BaseRequest) -> str | None:
    """The key of a request: Azure's header on its paths, a bearer's token on all."""
    own = request.headers.get("api-key") if request.path.startswith(CLASSIC) else None
    return own or (request.headers.get("Authorization") or "").removeprefix("Bearer ")
