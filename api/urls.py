"""Addresses in answers: one rule for all, so that a client can follow any of them as it stands."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Annotated, Any, Final

from fastapi import Depends, Request

VERSION: Final = "/v1"
"""Where everything is served a second time, for clients that want to stay with this version."""


@dataclass(frozen=True, slots=True)
class Urls:
    """How one request's caller reaches paths: the public address, and the version it asks for."""

    base: str

    def of(self, path: str) -> str:
        """The address of a path; the path alone where no public address is configured."""
        return f"{self.base}{path}"


def unversioned(path: str) -> str:
    """The path of a request without the version."""
    return path.removeprefix(VERSION) if path.startswith(f"{VERSION}/") else path


def mount_version(scope: MutableMapping[str, Any]) -> None:
    """Makes the version a prefix that routes do not see, as a proxy's would be."""
    if unversioned(scope["path"]) != scope["path"]:
        scope["root_path"] = scope.get("root_path", "") + VERSION


async def urls_of(request: Request) -> Urls:
    """The addresses of a request's answer."""
    return urls_for(request)


def urls_for(request: Request) -> Urls:
    """The same where no dependency reaches."""
    public: str = request.app.state.service.settings.public_url or ""
    # Not `request.url`, which a host that is no host breaks.
    asked: str = request.scope["path"]
    return Urls(f"{public.rstrip('/')}{VERSION if unversioned(asked) != asked else ''}")


AnyUrls = Annotated[Urls, Depends(urls_of)]
"""Parameter of a route: the addresses of its answer."""
