"""The small BPE vocabulary that the text towers of `shapes` share, as `CLIPTokenizer` files."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Final

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from shortft_core.oracle.scene import COLOR_NAMES, KINDS, RELATIONS, SIZE_NAMES

WORDS: Final = (*KINDS, *COLOR_NAMES, *SIZE_NAMES, *RELATIONS, "a", "an", "on", "background")
MAX_LENGTH: Final = 32
SPECIALS: Final = ("<|startoftext|>", "<|endoftext|>")


def build() -> CLIPTokenizer:
    """Every word of the grammar is one token; other text falls back to bytes, never to unknown."""
    merges = _merges()
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *map("".join, merges), *SPECIALS]
    return CLIPTokenizer(
        vocab={token: index for index, token in enumerate(dict.fromkeys(tokens))},
        merges=merges,
        model_max_length=MAX_LENGTH,
    )


def _merges() -> list[tuple[str, str]]:
    """BPE merges that make one token of each word, learned by the tokenizers library."""
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(vocab_size=1000, end_of_word_suffix="</w>", show_progress=False)
    tokenizer.train_from_iterator([" ".join(WORDS)] * 2, trainer)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "tokenizer.json")
        tokenizer.save(str(path))
        merges = json.loads(path.read_text(encoding="utf-8"))["model"]["merges"]
    return [(first, second) for first, second in merges]
