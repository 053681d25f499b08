"""Who asks: an API key, or this machine itself while no key exists."""

from __future__ import annotations

import re
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Final
from urllib.parse import urlsplit

from fastapi import Depends, Request
from fastapi.security.utils import get_authorization_scheme_param

from api.loopback import is_loopback
from api.problems import ProblemError
from api.service import AnyService, Service
from api.urls import unversioned
from store import api_keys
from store.api_keys import Scope
from store.jobs import DEFAULT_PROJECT

SECURITY_SCHEMES: Final[Mapping[str, Mapping[str, str]]] = {
    "apiKey": {
        "type": "http",
        "description": "An API key of this service, `sft_…`.",
        "scheme": "bearer",
    },
    "apiKeyHeader": {
        "type": "apiKey",
        "description": "The same key.",
        "in": "header",
        "name": "X-API-Key",
    },
}
"""How the document says that a key is shown. The gate reads the headers, before any route."""
_CHALLENGE: Final = {"WWW-Authenticate": 'Bearer realm="shortft"'}
_OPEN: Final = re.compile(
    r"/(healthz|readyz|version|metrics|openapi\.json|docs(/[^/]*)?|problems/[^/]*)"
)
"""Paths that ask nobody who they are."""
_MAKE_ONE: Final = "make a key on the machine of the service with `shortft keys create`"


@dataclass(frozen=True, slots=True)
class Caller:
    """On whose behalf a request is answered."""

    project: str
    api_key_id: str | None
    """None while no key exists."""
    scopes: frozenset[Scope]
    most_open_jobs: int | None
    """Unfinished jobs that it may have; None without a key."""

    @property
    def name(self) -> str:
        """What limits are counted under."""
        return self.api_key_id or "local"

    def may(self, scope: Scope) -> bool:
        """Whether the key opens this."""
        return scope in self.scopes or Scope.ADMIN in self.scopes


_EVERYTHING: Final = frozenset(Scope)


async def admit(request: Request) -> None:
    """Notes on whose behalf a request is answered, by its headers alone: its body is not read yet.

    Open paths have no caller. Raises ProblemError 401 or 403 for a caller that is unknown.
    """
    if not is_open(request.scope["path"]):
        request.state.caller = await _caller(request, request.app.state.service)


def is_open(path: str) -> bool:
    """Whether a path is answered whoever asks."""
    return _OPEN.fullmatch(unversioned(path)) is not None


async def reads_figures(request: Request, service: AnyService) -> str | None:
    """The project whose jobs the figures may name, None for all of them.

    The token, where an operator has set one, is no API key: it opens nothing else. Raises
    ProblemError 401 or 403 for whoever may not read the figures of the service.
    """
    token = service.settings.metrics_token
    if token is not None:
        shown = _bearer(request)
        if secrets.compare_digest(shown.encode(), token.get_secret_value().encode()):
            return None
    if token is not None and not await service.key_watch.keys_exist():
        detail = "the token of the metrics is needed"
        raise ProblemError("unauthenticated", detail, headers=_CHALLENGE)
    caller = await _caller(request, service)
    if not caller.may(Scope.ADMIN):
        raise ProblemError("forbidden", f"the key has no scope {Scope.ADMIN}")
    return caller.project


async def _caller(request: Request, service: Service) -> Caller:
    shown = _shown(request)
    if shown is None:
        return await _without_key(request, service)
    if not api_keys.is_well_formed(shown):
        raise ProblemError("unauthenticated", "the API key is mistyped", headers=_CHALLENGE)
    found = await service.key_watch.find(shown)
    if found is None:
        raise ProblemError(
            "unauthenticated", "the API key is unknown, expired or revoked", headers=_CHALLENGE
        )
    service.key_uses.note(found.id)
    return Caller(
        project=found.project,
        api_key_id=found.id,
        scopes=frozenset(map(Scope, found.scopes)),
        most_open_jobs=service.settings.most_open_jobs,
    )


def _shown(request: Request) -> str | None:
    return _bearer(request) or request.headers.get("x-api-key") or None


def _bearer(request: Request) -> str:
    scheme, shown = get_authorization_scheme_param(request.headers.get("authorization"))
    return shown if scheme.lower() == "bearer" else ""


def requires(scope: Scope) -> Callable[..., Awaitable[Caller]]:
    """A dependency: the caller, who has this scope and requests left.

    It raises ProblemError 401, 403 or 429.
    """

    async def checked(service: AnyService, request: Request) -> Caller:
        caller: Caller = request.state.caller
        if not caller.may(scope):
            raise ProblemError("forbidden", f"the key has no scope {scope}")
        limits = service.rate_limits
        # The gate writes them, whatever the answer will be.
        request.state.headers = limits.headers(await limits.count(caller.name))
        return caller

    return checked


Reader = Annotated[Caller, Depends(requires(Scope.JOBS_READ))]
"""Parameter of a route: a caller that may read jobs."""
Writer = Annotated[Caller, Depends(requires(Scope.JOBS_WRITE))]
"""Parameter of a route: a caller that may make and change jobs."""
Generator = Annotated[Caller, Depends(requires(Scope.GENERATE))]
"""Parameter of a route: a caller that may generate and score images."""
Admin = Annotated[Caller, Depends(requires(Scope.ADMIN))]
"""Parameter of a route: a caller that may do everything."""


async def _without_key(request: Request, service: Service) -> Caller:
    """This machine is served until the first key is made; pages of other origins never are."""
    if await service.key_watch.keys_exist():
        raise ProblemError("unauthenticated", "the request has no API key", headers=_CHALLENGE)
    if request.client is None or not is_loopback(request.client.host):
        detail = f"without API keys only this machine is served: {_MAKE_ONE}"
        raise ProblemError("unauthenticated", detail, headers=_CHALLENGE)
    origin = request.headers.get("origin")
    for url in (f"//{request.headers.get('host', '')}", *([origin] if origin else [])):
        if not is_loopback(_host_of(url)):
            detail = f"without API keys the service answers to localhost alone: {_MAKE_ONE}"
            raise ProblemError("untrusted_host", detail)
    return Caller(DEFAULT_PROJECT, None, _EVERYTHING, None)


def _host_of(url: str) -> str:
    """Empty where there is none, or none that could be read."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
