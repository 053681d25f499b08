"""`python -m worker KIND`: one worker of this machine."""

from __future__ import annotations

import argparse
import logging
import sys
from typing import get_args

from shortft_core.errors import UserError
from store.settings import store_settings
from worker.process import Kind, WorkerProcess
from worker.settings import worker_settings


def main(arguments: list[str]) -> int:
    """Runs a worker until it is told to stop; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m worker", description=__doc__)
    parser.add_argument("kind", choices=get_args(Kind), help="what the worker does")
    parser.add_argument("--slots", type=int, default=1, help="pieces of work at once")
    given = parser.parse_args(arguments)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    try:
        settings = store_settings()
        process = WorkerProcess(given.kind, given.slots, settings, worker_settings())
    except UserError as error:
        parser.exit(2, f"{error}\n")
    from worker.app import serve

    return serve(process, given.slots, settings)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
