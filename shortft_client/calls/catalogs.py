"""Requests about what a job may name, and about the service itself."""

from __future__ import annotations

import mimetypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shortft_client.answers import Adapter, Named, Prompts, PromptSet, Worker
from shortft_client.call import Call, Pages, delete, get, get_json, new_key, path, post, reader


def models() -> Pages[Named]:
    """The base models."""
    return Pages(path="/models", item=Named.model_validate)


def rewards() -> Pages[Named]:
    """The rewards."""
    return Pages(path="/rewards", item=Named.model_validate)


def methods() -> Pages[Named]:
    """The tuning methods, with the JSON schemas of their parameters."""
    return Pages(path="/methods", item=Named.model_validate)


def prompt_sets() -> Pages[PromptSet]:
    """The prompt sets, bundled and uploaded."""
    return Pages(path="/prompt-sets", item=PromptSet.model_validate)


def prompt_set(set_id: str) -> Call[PromptSet]:
    """One prompt set."""
    return get(path("prompt-sets", set_id), PromptSet)


def prompts(set_id: str, *, offset: int = 0, limit: int | None = None) -> Call[Prompts]:
    """The prompts of a set behind the first `offset`, as far as one answer goes."""
    return get(path("prompt-sets", set_id, "prompts"), Prompts, offset=offset, limit=limit)


def create_prompt_set(name: str, prompts: Sequence[str]) -> Call[PromptSet]:
    """Stores prompts under a name."""
    return post("/prompt-sets", PromptSet, {"name": name, "prompts": list(prompts)})


def upload_prompt_set(file: Path, *, name: str | None = None) -> Call[PromptSet]:
    """Stores the prompts of a file: txt, csv, tsv, json or jsonl."""
    media_type = mimetypes.guess_type(file.name)[0] or "text/plain"
    return Call(
        method="POST",
        path="/prompt-sets",
        form={"name": name or file.stem},
        files=(("file", (file.name, file.read_bytes(), media_type)),),
        headers=new_key(),
        read=reader(PromptSet),
    )


def delete_prompt_set(set_id: str) -> Call[None]:
    """Forgets an uploaded prompt set."""
    return delete(path("prompt-sets", set_id))


def adapters(**query: str | int) -> Pages[Adapter]:
    """The adapters of the project, the newest first."""
    return Pages(path="/adapters", item=Adapter.model_validate, query=query)


def adapter(adapter_id: str) -> Call[Adapter]:
    """One adapter."""
    return get(path("adapters", adapter_id), Adapter)


def workers() -> Pages[Worker]:
    """The workers that live."""
    return Pages(path="/workers", item=Worker.model_validate)


def queue() -> Call[dict[str, Any]]:
    """How much waits, and how much is being done."""
    return get_json("/queue")


def ready() -> Call[dict[str, Any]]:
    """Whether the service can work; raises ServerFaultError while it cannot."""
    return get_json("/readyz")


def version() -> Call[dict[str, Any]]:
    """The version of the service."""
    return get_json("/version")
