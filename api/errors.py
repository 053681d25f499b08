"""Every error leaves as `application/problem+json`, whoever raised it."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match

from api.mistakes import mistakes_of
from api.problems import PROBLEMS, ProblemError
from api.schemas.problems import MEDIA_TYPE, Mistake
from shortft_core.errors import (
    ArtifactError,
    MissingWeightsError,
    PlanError,
    ShortFTError,
    UnknownNameError,
    UserError,
)
from store.errors import (
    BusyError,
    InUseError,
    InvalidStateError,
    KeyInFlightError,
    KeyReusedError,
    LostCommitError,
    NameTakenError,
    NotFoundError,
    QuotaExceededError,
)

_LOG: Final = logging.getLogger(__name__)
_RETRY_SECONDS: Final = {"unavailable": 2, "idempotency_key_in_flight": 1, "quota_exceeded": 30}
_CODES: Final[Mapping[type[ShortFTError], str]] = {
    NotFoundError: "not_found",
    InvalidStateError: "invalid_state",
    InUseError: "in_use",
    NameTakenError: "name_taken",
    QuotaExceededError: "quota_exceeded",
    KeyReusedError: "idempotency_key_reused",
    KeyInFlightError: "idempotency_key_in_flight",
    BusyError: "unavailable",
    LostCommitError: "unavailable",
    ArtifactError: "gone",
    MissingWeightsError: "model_not_available_offline",
    PlanError: "no_legal_plan",
    UnknownNameError: "unknown_name",
    UserError: "invalid_value",
}
_HTTP_CODES: Final[Mapping[int, str]] = {
    400: "malformed", 404: "not_found", 405: "method_not_allowed", 406: "not_acceptable",
    413: "payload_too_large", 415: "unsupported_media_type", 416: "range_not_satisfiable",
}  # fmt: skip


def install(app: FastAPI) -> None:
    """Makes the application answer known errors as problems; `limits` answers all others."""
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(ShortFTError, _on_ours)
    for kind in (DBAPIError, PoolTimeoutError):
        app.add_exception_handler(kind, _on_database)


def problem(
    scope: Mapping[str, Any],
    code: str,
    detail: str,
    *,
    param: str | None = None,
    errors: Sequence[Mistake] = (),
    extra: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The answer to a request that is refused with a code of the table."""
    kind = PROBLEMS[code]
    body = {
        "type": f"/problems/{code}",
        "title": kind.title,
        "status": kind.status,
        "detail": detail,
        "instance": scope["path"],
        "code": code,
        "param": param,
        "request_id": scope.get("state", {}).get("request_id", ""),
        "errors": [mistake.model_dump() for mistake in errors],
        **(extra or {}),
    }
    wait = {"Retry-After": str(_RETRY_SECONDS[code])} if code in _RETRY_SECONDS else {}
    # ASCII: a request may hold half a surrogate pair, which UTF-8 cannot write.
    return Response(
        json.dumps(body, allow_nan=False),
        status_code=kind.status,
        media_type=MEDIA_TYPE,
        headers={**wait, **(headers or {})},
    )


def path_of(scope: Mapping[str, Any]) -> str:
    """The path of a request for the log: quoted, so that it cannot write lines of its own."""
    return quote(scope["path"], safe="/:@", errors="backslashreplace")


def unexpected(scope: Mapping[str, Any], error: Exception) -> Response:
    """The answer to a fault of ours: its cause goes into the log, never into the answer."""
    _LOG.error("%s %s failed", scope["method"], path_of(scope), exc_info=error)
    return problem(scope, "internal", "The service failed; its log has the cause.")


async def early(request: Request, error: Exception) -> Response:
    """The answer to an error that no handler saw, because it came before any route."""
    if isinstance(error, HTTPException):
        return await _on_http(request, error)
    if isinstance(error, ShortFTError):
        return await _on_ours(request, error)
    return await _on_database(request, error)


async def _on_ours(request: Request, error: Exception) -> Response:
    if isinstance(error, ProblemError):
        return problem(
            request.scope,
            error.code,
            error.detail,
            param=error.param,
            extra=error.extra,
            headers=error.headers,
        )
    code = next((_CODES[kind] for kind in type(error).__mro__ if kind in _CODES), None)
    if code is None:
        return unexpected(request.scope, error)
    detail = _without_keys(error) if code == "gone" else str(error)
    param = error.field if isinstance(error, UserError | NameTakenError) else None
    return problem(request.scope, code, detail, param=param, extra=_members(error))


def _without_keys(error: Exception) -> str:
    """The store's message names a key, which is nobody's business; the log keeps it."""
    _LOG.warning("an object is missing: %s", error)
    return "The bytes are no longer stored."


def _members(error: Exception) -> dict[str, Any]:
    if isinstance(error, InvalidStateError):
        return {"current_status": error.status, "allowed_actions": list(error.allowed)}
    if isinstance(error, InUseError):
        return {"job_id": error.job_id}
    if isinstance(error, QuotaExceededError):
        return {"limit": error.limit, "used": error.used}
    if isinstance(error, UnknownNameError):
        return {"known": list(error.known)}
    return {}


async def _on_validation(request: Request, error: Exception) -> Response:
    refused = cast("RequestValidationError", error)
    found = list(refused.errors())
    if found[0]["type"] == "json_invalid":
        detail = f"the body is no JSON: {found[0]['ctx']['error']} at byte {found[0]['loc'][1]}"
        return problem(request.scope, "malformed", detail)
    if isinstance(refused.body, bytes) and refused.body:
        given = request.headers.get("content-type") or "nothing"
        return problem(
            request.scope, "unsupported_media_type", f"{given} was sent, not application/json"
        )
    mistakes, params = mistakes_of(found, refused.body)
    more = f" ({len(mistakes) - 1} more in `errors`)" if len(mistakes) > 1 else ""
    detail = f"{params[0]}: {mistakes[0].message}{more}"
    return problem(request.scope, "invalid_request", detail, param=params[0], errors=mistakes)


async def _on_http(request: Request, error: Exception) -> Response:
    refused = cast("HTTPException", error)
    code = _HTTP_CODES.get(refused.status_code)
    if code is None:
        return unexpected(request.scope, error)
    headers = dict(refused.headers or {})
    detail = str(refused.detail)
    if code == "method_not_allowed":
        headers["Allow"] = ", ".join(_methods(request))
        detail = f"{request.method} is not among {headers['Allow']}"
    return problem(request.scope, code, detail, headers=headers)


async def _on_database(request: Request, error: Exception) -> Response:
    """A database that is away or full is a matter of time; any other error is a fault of ours."""
    if not isinstance(error, OperationalError | InterfaceError | PoolTimeoutError):
        return unexpected(request.scope, error)
    _LOG.error("the database failed: %s", error)
    return problem(request.scope, "unavailable", "The database is busy or away.")


def _methods(request: Request) -> list[str]:
    """All methods of a path: each route knows its own alone."""
    found: set[str] = set()
    for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"):
        scope = {**request.scope, "method": method}
        if any(route.matches(scope)[0] is Match.FULL for route in request.app.router.routes):
            found.add(method)
    return sorted(found)
