"""The only place of the workers that reads the environment."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Final, Literal

from platformdirs import user_cache_path
from pydantic import AfterValidator, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from shortft_core.settings import read_settings

_PREFIX: Final = "SHORTFT_"
Folder = Annotated[Path, AfterValidator(Path.expanduser), AfterValidator(Path.absolute)]

# What a child may know: where programs, libraries, devices and caches are, and the hub's token. No
# secret of the service, no address of a database, a broker or a bucket.
_CHILD_NAMES: Final = frozenset(
    {
        "HOME", "LANG", "LD_LIBRARY_PATH", "LOGNAME", "NO_PROXY", "PATH", "PYTHONPATH", "SHELL",
        "SSL_CERT_DIR", "SSL_CERT_FILE", "TMPDIR", "TZ", "USER", "VIRTUAL_ENV", "http_proxy",
        "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY",
        "SHORTFT_CACHE_DIR", "SHORTFT_DEVICE", "SHORTFT_OFFLINE",
    }
)  # fmt: skip
_CHILD_PREFIXES: Final = (
    "ACCELERATE_", "CUDA_", "CUBLAS_", "HF_", "LC_", "MKL_", "NCCL_", "NVIDIA_", "OMP_", "PYTORCH_",
    "TORCH", "TRITON_", "XDG_",
)  # fmt: skip


class WorkerSettings(BaseSettings):
    """How this machine's workers work; `SHORTFT_` before each name."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX,
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        use_attribute_docstrings=True,
    )

    work_dir: Folder = Field(default_factory=lambda: user_cache_path("shortft") / "work")
    """Folder for what may be lost: run folders of current attempts, downloaded adapters, locks.
    Workers of one machine share it."""
    control_seconds: float = Field(default=2.0, gt=0)
    """How often a worker looks whether its job is to be cancelled or paused."""
    grace_seconds: float = Field(default=60.0, gt=0)
    """How long a child process may take to save its work before it is killed."""
    no_progress_seconds: float = Field(default=1800.0, gt=0)
    """A trainer that neither reports nor writes a log line for so long hangs, and is killed."""
    trainer_command: tuple[str, ...] = (sys.executable, "-m", "worker.children.trainer")
    """Starts a trainer; the path of its job file is added. JSON list, such as
    `["accelerate", "launch", "--num_processes", "2", "-m", "worker.children.trainer"]`."""
    generate_memory_mb: int = Field(default=8192, ge=0)
    """How much memory the models that a generate worker keeps warm may take together."""
    generate_timeout_seconds: float = Field(default=600.0, gt=0)
    """A generation process that answers nothing for so long hangs, and is killed."""
    generate_start: Literal["with_worker", "with_request"] = "with_worker"
    """When the generation process starts: early, so that the first request finds it ready, or with
    the first request, so that a machine that only trains has its memory."""
    keep_generations_days: float | None = Field(default=None, gt=0, le=36_500)
    """Generations are deleted with their pictures so long after their end; empty keeps them."""
    generate_preload: tuple[str, ...] = ()
    """Base models of the catalog that the generation process loads first; JSON list."""


class DeviceSettings(BaseSettings):
    """What the machine says of its accelerators."""

    model_config = SettingsConfigDict(env_ignore_empty=True, extra="ignore", frozen=True)

    shortft_device: str = "auto"
    cuda_visible_devices: str | None = None


class LaunchSettings(BaseSettings):
    """What a launcher of several processes tells each of them."""

    model_config = SettingsConfigDict(env_ignore_empty=True, extra="ignore", frozen=True)

    rank: int = 0
    """0 for the process that speaks for all."""


@cache
def worker_settings() -> WorkerSettings:
    """The settings of this process, read once; raises UserError naming the variable."""
    return read_settings(WorkerSettings)


def child_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a child process: a white list of this process's, and `extra`."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in _CHILD_NAMES or name.startswith(_CHILD_PREFIXES)
    }
    # What a child logs shall be seen when it is logged.
    return {**kept, "PYTHONUNBUFFERED": "1", **(extra or {})}
