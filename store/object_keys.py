"""Where each kind of object lies in the store: prefixes that end in "/".

Whatever an attempt writes lies under its lease token, so two attempts never write the same key.
"""

from __future__ import annotations

import re
import secrets
from typing import Final

_TOKEN: Final = re.compile(r"(?:/|\.)t(\d+)/")
_STATE: Final = "state.safetensors"
_ADAPTER: Final = "adapter/"
JOBS: Final = "jobs/"
GENERATIONS: Final = "generations/"
UPLOADS: Final = "uploads/"
PROBES: Final = "probes/"


def job_prefix(job_id: str) -> str:
    """Everything of a job."""
    return f"{JOBS}{job_id}/"


def checkpoint_prefix(job_id: str, update: int, token: int) -> str:
    """The folder of one checkpoint."""
    return f"{job_prefix(job_id)}checkpoints/{update:06d}.t{token}/"


def best_prefix(job_id: str, update: int, token: int) -> str:
    """The adapter folder of an update that was the best so far."""
    return f"{job_prefix(job_id)}best/{update:06d}.t{token}/"


def samples_prefix(job_id: str, token: int) -> str:
    """The pictures of an attempt's evaluations: another GPU makes other ones, of the base too."""
    return f"{job_prefix(job_id)}samples/t{token}/"


def prompts_prefix(job_id: str) -> str:
    """The job's own copies of uploaded prompt sets, which no row names."""
    return f"{job_prefix(job_id)}prompts/"


def trajectories_prefix(job_id: str) -> str:
    """What a distillation has recorded so far, which no row names."""
    return f"{job_prefix(job_id)}trajectories/"


def artifacts_prefix(job_id: str, token: int) -> str:
    """The files of a job's result."""
    return f"{job_prefix(job_id)}artifacts/t{token}/"


def generation_prefix(generation_id: str, token: int) -> str:
    """The pictures that a generation made."""
    return f"{GENERATIONS}{generation_id}/t{token}/"


def upload_prefix(generation_id: str) -> str:
    """The pictures that a caller uploaded to be scored."""
    return f"{UPLOADS}{generation_id}/"


def probe_key() -> str:
    """Where it is tried whether objects can be written; a new one each time."""
    return f"{PROBES}{secrets.token_hex(8)}"


def checkpoint_state(prefix: str) -> str:
    """The key that a checkpoint's row names."""
    return f"{prefix}{_STATE}"


def checkpoint_folder(object_key: str) -> str:
    """The folder of the checkpoint whose row names `object_key`."""
    return object_key.rpartition("/")[0] + "/"


def checkpoint_adapter(object_key: str) -> str:
    """The adapter folder of that checkpoint."""
    return checkpoint_folder(object_key) + _ADAPTER


def token_of(key: str) -> int | None:
    """The lease token under which an object was written; None where it lies under none."""
    found = _TOKEN.search(key)
    return int(found[1]) if found else None
