"""Keeps the libraries' own progress bars off the terminal that ours is drawn on."""

from __future__ import annotations


def silence_libraries() -> None:
    """Turns off the progress bars and advice of transformers and diffusers; imports both."""
    from diffusers.utils import logging as diffusers_logging
    from huggingface_hub.utils.tqdm import enable_progress_bars
    from transformers.utils import logging as transformers_logging

    for logging in (diffusers_logging, transformers_logging):
        logging.disable_progress_bar()
        logging.set_verbosity_error()
    # transformers turns the hub's bars off with its own, but a download has to be seen.
    enable_progress_bars()
