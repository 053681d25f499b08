"""The OpenAPI document: names of operations, and the refusals that each of them may answer with."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from api.auth import SECURITY_SCHEMES, is_open
from api.problems import PROBLEMS
from api.schemas.problems import MEDIA_TYPE, Problem

COMMITTED: Final = Path(__file__).with_name("openapi.json")
"""The document as it is served: working it out takes a second, in which nobody would be answered.

That it is what the code says is tested; `python -m api openapi` writes it anew."""
_FIGURES: Final = "/metrics"
_REFERENCE: Final = "#/components/schemas/Problem"
COMMON: Final = (400, 401, 403, 404, 413, 415, 422, 429, 500, 503)
"""Statuses with which any operation may refuse."""
DESCRIPTION: Final = """\
Tunes text-to-image models towards rewards, and generates with what it has tuned.

Every refusal is `application/problem+json` with a `code`. Enumerations are open: clients have to
expect values that later versions add."""


def operation_id(route: APIRoute) -> str:
    """`create_job` -> `createJob`: stable, because it is the name of the route's function."""
    first, *others = route.name.split("_")
    return first + "".join(word.capitalize() for word in others)


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route for these statuses, beside those that every route has."""
    return {
        status: {
            "description": " / ".join(
                kind.title for kind in PROBLEMS.values() if kind.status == status
            ),
            "content": {MEDIA_TYPE: {"schema": {"$ref": _REFERENCE}}},
        }
        for status in statuses
    }


def as_text(app: FastAPI) -> str:
    """The document of the routes as it is committed, so that a change of them is seen in review."""
    return json.dumps(_document(app), indent=1, ensure_ascii=False) + "\n"


def install(app: FastAPI) -> None:
    """Gives the application its document; it is read once, when first asked for."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = json.loads(COMMITTED.read_text(encoding="utf-8"))
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _document(app: FastAPI) -> dict[str, Any]:
    made = get_openapi(
        title="ShortFT",
        version=version("shortft"),
        description=DESCRIPTION,
        routes=app.routes,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
    )
    schema = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas = made.setdefault("components", {}).setdefault("schemas", {})
    schemas.update(schema.pop("$defs"))
    schemas["Problem"] = schema
    _secure(made)
    return made


def _secure(document: dict[str, Any]) -> None:
    """Writes which operations ask for a key: those that are not open, and the operator's figures.

    As dependencies of the routes these schemes would be worked out anew for each request.
    """
    document["components"]["securitySchemes"] = dict(SECURITY_SCHEMES)
    for path, operations in document["paths"].items():
        if not is_open(path) or path == _FIGURES:
            for operation in operations.values():
                operation["security"] = [{name: []} for name in SECURITY_SCHEMES]
