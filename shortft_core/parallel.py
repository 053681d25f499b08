"""One run on several devices: accelerate averages the gradients, the main process decides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn

from shortft_core.device import choose_device
from shortft_core.methods import Batch, Method, Outcome

_Decided = TypeVar("_Decided")


def choose_accelerator() -> tuple[Accelerator, torch.device]:
    """This process's part of the run and its device: one of several under `accelerate launch`."""
    device = choose_device()
    # The models are placed and given their precision by their loaders, whatever accelerate's own
    # environment asks for: it only joins the processes.
    accelerator = Accelerator(
        cpu=device.type == "cpu", device_placement=False, mixed_precision="no"
    )
    return accelerator, accelerator.device if accelerator.num_processes > 1 else device


def is_main_process() -> bool:
    """Whether this is the process that evaluates, saves and speaks."""
    return bool(PartialState().is_main_process)


class MethodLoss(nn.Module):
    """A method's loss as the module that accelerate prepares.

    It holds the trained branches of one stage: data parallel looks at a module's parameters once,
    so a stage change needs a new one.
    """

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method
        self.trained = nn.ParameterList(
            parameter
            for branch in method.trained_branches()
            for parameter in method.bank.parameters(branch)
        )

    def forward(self, batch: Batch) -> Outcome:
        """The outcome of the batch; its loss carries the gradient."""
        return self.method.loss(batch)


def decide(accelerator: Accelerator, value: _Decided) -> _Decided:
    """What the main process found, in every process."""
    if accelerator.num_processes == 1:
        return value
    found: list[_Decided] = broadcast_object_list([value])
    return found[0]


def any_process(accelerator: Accelerator, flag: bool) -> bool:  # noqa: FBT001 - the only argument
    """Whether one of the processes says so."""
    if accelerator.num_processes == 1:
        return flag
    told = torch.tensor(float(flag), device=accelerator.device)
    return bool(accelerator.reduce(told, "sum").item())


def gathered(accelerator: Accelerator, values: Sequence[Tensor]) -> Tensor:
    """The values [B] of all batches of all processes, joined."""
    joined = torch.cat(list(values))
    if accelerator.num_processes == 1:
        return joined
    everywhere: Tensor = accelerator.gather(joined)
    return everywhere
