"""The bytes of generated pictures; for whoever may generate, never public."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response

from api.auth import Generator
from api.conditional import IfNoneMatch, is_known
from api.openapi import refusals
from api.pictures import SUFFIXES
from api.schemas.generations import ImageId
from api.service import AnyService
from shortft_core.errors import ArtifactError
from store import generations
from store.models import Image

router = APIRouter(tags=["generations"])
_BINARY: Final = {"schema": {"type": "string", "format": "binary"}}


@router.head("/images/{image_id}", include_in_schema=False)
@router.get(
    "/images/{image_id}",
    response_class=Response,
    responses={
        200: {"description": "The picture.", "content": dict.fromkeys(SUFFIXES, _BINARY)},
        304: {"description": "The caller has it already."},
        **refusals(404, 410),
    },
)
def retrieve_image(
    request: Request,
    service: AnyService,
    caller: Generator,
    image_id: ImageId,
    download: Annotated[  # noqa: FBT002  a query parameter
        bool, Query(description="Whether a browser saves it instead of showing it.")
    ] = False,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """The bytes of a picture; they never change."""
    with service.database.read() as session:
        image = generations.image(session, image_id, caller.project)
    headers = _headers(image, download=download)
    if is_known(headers["ETag"], if_none_match):
        return Response(None, 304, headers)
    if request.method == "HEAD":
        if not service.objects.exists(image.object_key):
            raise ArtifactError(f"there is no picture {image.object_key}")
        length = {"Content-Length": str(image.size_bytes)}
        return Response(None, 200, {**headers, **length}, image.media_type)
    data = service.objects.read(image.object_key, sha256=image.sha256)
    return Response(data, 200, headers, image.media_type)


def _headers(image: Image, *, download: bool) -> dict[str, str]:
    name = f"{image.id}.{SUFFIXES.get(image.media_type, 'bin')}"
    return {
        "ETag": f'"{image.sha256}"',
        "Cache-Control": "private, max-age=31536000, immutable",
        "Content-Disposition": f'{"attachment" if download else "inline"}; filename="{name}"',
        "X-Content-Type-Options": "nosniff",
    }
