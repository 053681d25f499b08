"""The generation process: it keeps models warm, and answers batches one after another.

It reads orders from stdin and reports on stdout; see `worker/generate/messages.py`.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from typing import BinaryIO, Final

from pydantic import ValidationError

from worker.children.lifeline import die_with_parent
from worker.children.wire import Wire
from worker.generate.messages import ORDERS, Answer, Batch, Done, Preload, Ready, Working

MOST_AT_ONCE: Final = 16
"""Pictures that run through the model together, where the memory of an accelerator suffices."""
MOST_ON_CPU: Final = 4
"""More are hardly faster there, and memory that ends kills the process: nothing can be halved."""
_LOG: Final = logging.getLogger(__name__)


def main(arguments: Sequence[str]) -> None:
    """Serves until its input ends."""
    wire = Wire.take_stdout()
    die_with_parent()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--memory-mb", type=int, default=8192)
    parser.add_argument("--batch-size", type=int)
    options = parser.parse_args(arguments)
    serve(wire, sys.stdin.buffer, options.memory_mb << 20, options.batch_size)


def serve(wire: Wire, orders: BinaryIO, memory_bytes: int, batch_size: int | None) -> None:
    """Carries out every order of a stream; a line that is no order is logged and passed over."""
    # Only now: the parent shall see the process live while libraries load.
    from shortft_core.cli.quiet import silence_libraries
    from shortft_core.device import choose_device
    from worker.children.batches import Batches
    from worker.children.pipelines import Pipelines

    silence_libraries()
    device = choose_device()
    pipelines = Pipelines(device, memory_bytes)
    most = batch_size or (MOST_ON_CPU if device.type == "cpu" else MOST_AT_ONCE)

    def answer(answer: Answer) -> None:
        wire.send(answer.model_dump(mode="json"))

    def alive(message: str) -> None:
        wire.send(Working(message=message).model_dump(mode="json"))

    batches = Batches(pipelines=pipelines, batch_size=most, answer=answer, alive=alive)
    wire.send(Ready(device=str(device)).model_dump(mode="json"))
    for line in orders:
        order = _order(line)
        if isinstance(order, Preload):
            batches.preload(order.base_model)
        elif isinstance(order, Batch):
            batches.run(order)
            wire.send(Done(batch=order.id).model_dump(mode="json"))


def _order(line: bytes) -> Batch | Preload | None:
    try:
        order = ORDERS.validate_json(line)
        return order if isinstance(order, Preload) else order.read()
    except ValidationError:
        _LOG.exception("this line is no order")
        return None


if __name__ == "__main__":
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
    main(sys.argv[1:])
