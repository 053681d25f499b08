"""The page that documents and tries the interface; all of it is served from here."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, Response

from api.problems import ProblemError

router = APIRouter(include_in_schema=False)
_ASSETS: Final[Traversable] = files("api") / "assets"
_TYPES: Final[Mapping[str, tuple[str, str]]] = {
    "docs.js": ("docs.js", "text/javascript"),
    "swagger-ui-bundle.js": ("swagger-ui/swagger-ui-bundle.js", "text/javascript"),
    "swagger-ui.css": ("swagger-ui/swagger-ui.css", "text/css"),
    "favicon-32x32.png": ("swagger-ui/favicon-32x32.png", "image/png"),
}
"""Name in the address -> file and type; nothing else is served."""
# Swagger UI sets style attributes, and keeps its icons in data URLs.
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_HEADERS: Final = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


@router.get("/docs", response_class=HTMLResponse)
def show_docs() -> HTMLResponse:
    """The page; it asks no other host for anything."""
    page = (_ASSETS / "docs.html").read_text(encoding="utf-8")
    return HTMLResponse(page, headers=_HEADERS)


@router.get("/docs/{name}")
def read_docs_asset(name: str) -> Response:
    """A script, style or picture of the page."""
    if name not in _TYPES:
        raise ProblemError("not_found", f"the page has no file {name}")
    path, media_type = _TYPES[name]
    headers = {**_HEADERS, "Cache-Control": "public, max-age=3600"}
    return Response((_ASSETS / path).read_bytes(), 200, headers, media_type)
