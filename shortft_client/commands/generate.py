"""`shortft generate --server`: pictures of a service, saved as files here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from shortft_client.answers import Generation, Image
from shortft_client.call import given
from shortft_client.client import Client
from shortft_client.errors import ClientError

_MOST_IMAGES: Final = 16
"""Of one request."""
_PATIENCE_SECONDS: Final = 3600.0


class NotMadeError(ClientError):
    """A generation ended without pictures."""

    def __init__(self, generation_id: str, status: str, cause: str) -> None:
        super().__init__(generation_id, status, cause)
        self.generation_id = generation_id
        self.status = status
        self.cause = cause

    def __str__(self) -> str:
        return f"{self.generation_id} {self.status}: {self.cause}"


def generate(
    server: str, out: Path, *, prompts: list[str], seeds: list[int], **fields: Any
) -> None:
    """Makes one picture per prompt and seed, and saves them; raises ClientError."""
    console = Console()
    with Client(server) as client:
        for start in range(0, len(prompts), _MOST_IMAGES):
            part = slice(start, start + _MOST_IMAGES)
            made = client.generate(
                prompts=prompts[part],
                seeds=seeds[part],
                timeout_seconds=_PATIENCE_SECONDS,
                **given(fields),
            )
            for warning in finished(made).warnings:
                console.print(f"warning: {warning}", highlight=False)
            for path in save(client, made, out, first=start):
                console.print(str(path), soft_wrap=True, highlight=False)


def finished(made: Generation) -> Generation:
    """The same, if it succeeded; raises NotMadeError."""
    if made.status != "succeeded":
        cause = made.error.message if made.error is not None else "no cause is known"
        raise NotMadeError(made.id, made.status, cause)
    return made


def save(client: Client, made: Generation, out: Path, *, first: int = 0) -> Iterator[Path]:
    """Writes the pictures one by one; those of the base model are beside the tuned ones."""
    out.mkdir(parents=True, exist_ok=True)
    for image in made.images:
        path = out / _name(image, first)
        path.write_bytes(client.images.read(image.id))
        yield path


def _name(image: Image, first: int) -> str:
    base = "-base" if image.kind == "base" else ""
    ending = image.media_type.rpartition("/")[2]
    return f"{first + image.pair_index:04d}-{image.seed}{base}.{ending}"
