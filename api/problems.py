"""Every way in which a request can be refused: one table, served under `/problems/{code}`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from shortft_core.errors import ShortFTError


@dataclass(frozen=True, slots=True)
class ProblemKind:
    """One row of the table."""

    status: int
    title: str
    remedy: str


PROBLEMS: Final[Mapping[str, ProblemKind]] = {
    "malformed": ProblemKind(400, "Malformed request", "Send well-formed JSON or multipart data."),
    "too_deep": ProblemKind(
        400, "JSON is nested too deeply", "No body of this service needs more than 64 levels."
    ),
    "unauthenticated": ProblemKind(
        401,
        "An API key is needed",
        "Send `Authorization: Bearer sft_…` or `X-API-Key: sft_…`; keys are made with "
        "`shortft keys create`.",
    ),
    "forbidden": ProblemKind(
        403, "The key does not open this", "Use a key with the scope that the detail names."
    ),
    "untrusted_host": ProblemKind(
        403,
        "The request names another host or origin",
        "Without API keys the service answers this machine alone, under localhost.",
    ),
    "not_found": ProblemKind(
        404, "There is no such thing", "Check the id; those of other projects are not visible."
    ),
    "method_not_allowed": ProblemKind(
        405, "The path knows other methods", "The `Allow` header lists them."
    ),
    "not_acceptable": ProblemKind(
        406, "No such representation", "The detail lists what `Accept` may name."
    ),
    "invalid_state": ProblemKind(
        409,
        "Not in this state",
        "`current_status` says where it is, `allowed_actions` what may be asked of it.",
    ),
    "in_use": ProblemKind(
        409, "It is in use", "Wait for the job in `job_id`, or cancel it; then delete it."
    ),
    "no_report": ProblemKind(
        409, "There is no report yet", "It is written when the job has succeeded."
    ),
    "idempotency_key_in_flight": ProblemKind(
        409, "The first request is still being answered", "Repeat the request a little later."
    ),
    "name_taken": ProblemKind(409, "The name is taken", "Choose another name."),
    "gone": ProblemKind(410, "No longer stored", "The row remains, its bytes were deleted."),
    "payload_too_large": ProblemKind(
        413, "The body is too large", "The detail states the limit; the operator may raise it."
    ),
    "unsupported_media_type": ProblemKind(
        415, "The body has another type", "Send `Content-Type: application/json`."
    ),
    "range_not_satisfiable": ProblemKind(
        416, "The range lies outside", "`Content-Range` states the size."
    ),
    "invalid_request": ProblemKind(
        422, "The request has mistakes", "`errors` lists all of them by their JSON pointers."
    ),
    "invalid_value": ProblemKind(
        422, "A value cannot be used", "`param` names the field, the detail the remedy."
    ),
    "unknown_name": ProblemKind(
        422, "A name is not in the catalog", "The detail lists the nearest known names."
    ),
    "no_legal_plan": ProblemKind(
        422, "No legal chain exists", "Change steps, segments or the shortcut as the detail says."
    ),
    "model_not_available_offline": ProblemKind(
        422,
        "Files are missing, and downloads are switched off",
        "Put the named files into the cache folder, or let the service download.",
    ),
    "idempotency_key_reused": ProblemKind(
        422, "The key came with another body before", "Use a new Idempotency-Key."
    ),
    "quota_exceeded": ProblemKind(
        429,
        "Too many unfinished jobs or generations",
        "`limit` and `used` say how many; wait or cancel some.",
    ),
    "rate_limited": ProblemKind(
        429, "Too many requests", "Wait as long as `Retry-After` says."
    ),
    "too_many_streams": ProblemKind(
        429, "Too many open event streams", "Close one, or read `/jobs/{id}/events`."
    ),
    "internal": ProblemKind(
        500, "The service failed", "Report the `request_id`: the log of the service has the cause."
    ),
    "unavailable": ProblemKind(
        503, "The database is busy or away", "Repeat the request after `Retry-After` seconds."
    ),
}  # fmt: skip


@dataclass(eq=False)
class ProblemError(ShortFTError):
    """A refusal that only the HTTP interface knows; its code is a row of the table."""

    code: str
    detail: str
    param: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further members of the answer."""

    def __post_init__(self) -> None:
        super().__init__(self.code, self.detail, self.param, self.headers, self.extra)

    def __str__(self) -> str:
        return self.detail
