"""Which role a key needs for which route, where keys are needed at all; gRPC has its own table.

Open to everybody are the routes that tell whether the server is alive, what it counts, and how to use it:
probes and scrapers have no keys, and nothing of a caller or a model's answers is in them. A proxy closes
those to the outside that the outside should not see.
"""

from __future__ import annotations

from fastapi import Request

from service.api.paths import without_version
from service.api.requests import record_of
from service.api_keys import API_KEY, AUTHORIZATION, ApiKeys, Role, sent_key

# Method and path, without version or alias -> role; None for everybody.
ROLES: dict[tuple[str, str], Role | None] = {
    ("GET", "/healthz"): None,
    ("GET", "/readyz"): None,
    ("GET", "/metrics"): None,
    ("GET", "/docs"): None,
    ("GET", "/docs/docs.css"): None,
    ("GET", "/docs/docs.js"): None,
    ("GET", "/openapi.json"): None,
    ("GET", "/v1/models"): "predict",
    ("GET", "/v1/models/{name}"): "predict",
    ("GET", "/v1/models/{name}/metadata"): "predict",
    ("GET", "/v1/models/{name}/serving"): "predict",
    ("PUT", "/v1/models/{name}/serving"): "admin",
    ("POST", "/v1/models/{name}:predict"): "predict",
    ("POST", "/v1/models/{name}:confidence"): "predict",
    ("POST", "/v1/models/{name}:feedback"): "feedback",
    ("GET", "/v1/models/{name}/monitor"): "predict",
    ("GET", "/v1/models/{name}/report"): "predict",
    ("GET", "/v1/models/{name}/review"): "admin",
    ("GET", "/v1/models/{name}/review:export"): "admin",
    ("GET", "/v1/models/{name}/review/{item}"): "admin",
    ("PUT", "/v1/models/{name}/review/{item}"): "admin",
    ("DELETE", "/v1/models/{name}/review/{item}"): "admin",
    ("GET", "/v2"): "predict",
    ("GET", "/v2/"): "predict",
    ("GET", "/v2/health/live"): None,
    ("GET", "/v2/health/ready"): None,
    ("GET", "/v2/models/stats"): "predict",
    ("GET", "/v2/models/{name}"): "predict",
    ("GET", "/v2/models/{name}/ready"): "predict",
    ("GET", "/v2/models/{name}/config"): "predict",
    ("GET", "/v2/models/{name}/stats"): "predict",
    ("POST", "/v2/models/{name}/infer"): "predict",
    ("POST", "/v2/repository/index"): "admin",
    ("POST", "/v2/repository/models/{name}/load"): "admin",
    ("POST", "/v2/repository/models/{name}/unload"): "admin",
}


def role_of(method: str, path: str) -> Role | None:
    """Return the role that a route needs, by its path as FastAPI has it; "admin" for one without an entry."""
    return ROLES.get((method, without_version(path)), "admin")


async def check_key(request: Request) -> None:
    """Refuse a request whose key does not allow it, before anything else is looked at.

    Raises:
        UnknownKeyError, RoleError: it is refused.
    """
    keys: ApiKeys = request.app.state.api_keys
    if not keys.required:
        return
    role = role_of(request.method, request.scope["route"].path_format)
    if role is not None:
        sent = sent_key(request.headers.get(AUTHORIZATION), request.headers.get(API_KEY))
        key = keys.identify(sent)
        record_of(request.scope).key = key.name
        key.require(role)
