"""What an error in a trainer means for its job: a code of the interface, and whether to retry."""

from __future__ import annotations

import errno
from typing import Final

from shortft_core.errors import (
    ArtifactError,
    DivergedError,
    MissingWeightsError,
    PromptError,
    UserError,
    WeightsError,
)
from worker.children.memory import is_out_of_memory
from worker.protocol import Ended, ExitCode

_BY_CLASS: Final[tuple[tuple[type[BaseException], str, ExitCode], ...]] = (
    # A download may succeed the next time; that the name is right was checked when it was asked.
    (MissingWeightsError, "model_not_found", ExitCode.FAILED),
    (WeightsError, "model_not_found", ExitCode.REFUSED),
    (PromptError, "dataset_error", ExitCode.REFUSED),
    (UserError, "invalid_config", ExitCode.REFUSED),
    (DivergedError, "nan_loss", ExitCode.REFUSED),
    (ArtifactError, "storage_error", ExitCode.FAILED),
)
_STORAGE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES})
_JUDGES: Final = ("rewards", "evaluation.held_out")


def ending_of(error: Exception) -> Ended:
    """The last line of a trainer that ended with this error."""
    code, exit_code = _classify(error)
    text = str(error) or type(error).__name__
    return Ended(code=exit_code, error_code=code, error_message=text)


def _classify(error: Exception) -> tuple[str, ExitCode]:
    if isinstance(error, WeightsError) and error.field.startswith(_JUDGES):
        return "reward_error", _exit_code(error)
    for kind, code, exit_code in _BY_CLASS:
        if isinstance(error, kind):
            return code, exit_code
    if isinstance(error, OSError) and error.errno in _STORAGE:
        return "storage_error", ExitCode.FAILED
    if is_out_of_memory(error):
        # Something else may have taken it: the next attempt may succeed.
        return "out_of_memory", ExitCode.FAILED
    return "internal", ExitCode.FAILED


def _exit_code(error: WeightsError) -> ExitCode:
    return ExitCode.FAILED if isinstance(error, MissingWeightsError) else ExitCode.REFUSED
