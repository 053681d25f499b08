"""Errors of a trainer as codes of the interface."""

from __future__ import annotations

import errno

import pytest
import torch

from shortft_core.errors import (
    ArtifactError,
    DivergedError,
    MissingWeightsError,
    PlanError,
    PromptError,
    UnknownNameError,
    WeightsError,
)
from worker.children.endings import ending_of
from worker.protocol import ExitCode

REFUSED, FAILED = ExitCode.REFUSED, ExitCode.FAILED


@pytest.mark.parametrize(
    ("error", "code", "exit_code"),
    [
        (UnknownNameError("method.type", "shortf", ["shortft"]), "invalid_config", REFUSED),
        (PlanError("method.steps", "no plan", "Take 50"), "invalid_config", REFUSED),
        (PromptError("prompts", "empty", "Give one"), "dataset_error", REFUSED),
        (WeightsError("base_model", "no pipeline", "Give one"), "model_not_found", REFUSED),
        (MissingWeightsError("base_model", "offline", "Fetch it"), "model_not_found", FAILED),
        (WeightsError("rewards.0", "wrong keys", "Give others"), "reward_error", REFUSED),
        (DivergedError("the loss is nan"), "nan_loss", REFUSED),
        (ArtifactError("torn"), "storage_error", FAILED),
        (OSError(errno.ENOSPC, "No space left on device"), "storage_error", FAILED),
        (OSError(errno.ECONNRESET, "reset"), "internal", FAILED),
        (torch.OutOfMemoryError("CUDA out of memory"), "out_of_memory", FAILED),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "out_of_memory", FAILED),
        (RuntimeError("shapes differ"), "internal", FAILED),
        (ZeroDivisionError(), "internal", FAILED),
    ],
)
def test_each_error_has_a_code(error: Exception, code: str, exit_code: ExitCode) -> None:
    ended = ending_of(error)
    assert (ended.error_code, ended.code) == (code, exit_code)
    assert ended.error_message == (str(error) or "ZeroDivisionError")
