"""Prompt sets: reading, identity, and the split into training and evaluation."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import Final, Literal
from urllib.parse import urlsplit

from shortft_core.download import fetch
from shortft_core.errors import PromptError, UnknownNameError, WeightsError
from shortft_core.prompt_sets import PROMPT_SETS, PromptSetEntry
from shortft_core.spec import PromptSource

Format = Literal["lines", "csv", "tsv", "json", "jsonl"]
FORMATS: Final[dict[str, Format]] = {
    ".txt": "lines",
    ".csv": "csv",
    ".tsv": "tsv",
    ".json": "json",
    ".jsonl": "jsonl",
}
DEFAULT_COLUMN: Final = "prompt"
EVALUATION_SHARE: Final = 0.1

_Numbered = tuple[int, str]
"""A line (JSON: item) counted from 1, and the text found there."""


@dataclass(frozen=True, slots=True)
class PromptSet:
    """Prompts in file order, one space between words; nothing is dropped without being named."""

    prompts: tuple[str, ...]
    sha256: str
    """Hash of the prompts as a UTF-8 text file with one per line, whatever file they came from."""
    duplicates: tuple[int, ...] = ()
    """Lines that repeat an earlier prompt; kept, unless the set was read as distinct."""
    empties: tuple[int, ...] = ()
    """Lines without a prompt; left out."""

    def warnings(self) -> tuple[str, ...]:
        """One sentence for each oddity a user should know of."""
        found = {"repeat an earlier prompt": self.duplicates, "are empty": self.empties}
        return tuple(
            f"{len(lines)} {what}: {_some(lines)}" for what, lines in found.items() if lines
        )


def load(source: PromptSource, *, field: str = "prompts") -> PromptSet:
    """The prompts that a specification asks for; raises PromptError, or as `fetch` does."""
    everything = _load_all(source, field)
    if source.split == "all":
        return everything
    training, evaluation = split(everything)
    chosen = training if source.split == "train" else evaluation
    if not chosen.prompts:
        raise PromptError(
            field,
            f"none of the {len(everything.prompts)} prompts falls into the {source.split} split",
            "Name evaluation.prompts, or give more prompts",
        )
    return chosen


def parse(
    data: bytes,
    file_format: Format,
    *,
    column: str | None = None,
    distinct: bool = False,
    field: str = "prompts",
) -> PromptSet:
    """Prompts of a file's bytes; raises PromptError naming the line."""
    numbered = _numbered(_decode(data, field), file_format, column or DEFAULT_COLUMN, field)
    return _collect(numbered, distinct=distinct, field=field)


def split(prompts: PromptSet, share: float = EVALUATION_SHARE) -> tuple[PromptSet, PromptSet]:
    """Training and evaluation parts; each prompt's own hash decides, so repeats never straddle."""
    training = tuple(prompt for prompt in prompts.prompts if _position(prompt) >= share)
    evaluation = tuple(prompt for prompt in prompts.prompts if _position(prompt) < share)
    return (PromptSet(training, _sha256(training)), PromptSet(evaluation, _sha256(evaluation)))


def _load_all(source: PromptSource, field: str) -> PromptSet:
    if source.id is not None:
        raise PromptError(
            f"{field}.id",
            f"uploaded prompt sets such as {source.id} are known to the service only",
            "Use name, inline or path",
        )
    if source.inline is not None:
        numbered = enumerate(source.inline, start=1)
        return _collect(numbered, distinct=False, field=f"{field}.inline")
    if source.name is not None:
        return _load_named(source.name, source.column, f"{field}.name")
    return _load_path(Path(source.path or ""), source.column, f"{field}.path")


def _load_named(name: str, column: str | None, field: str) -> PromptSet:
    if name not in PROMPT_SETS:
        raise UnknownNameError(field, name, PROMPT_SETS)
    entry = PROMPT_SETS[name]
    path = _local_copy(name, entry, field)
    return parse(
        _read(path, field),
        _format(path.suffix, field),
        column=column or entry.column,
        distinct=entry.distinct,
        field=field,
    )


def _local_copy(name: str, entry: PromptSetEntry, field: str) -> Path:
    if entry.url is None:
        return Path(str(files("shortft_core"))) / "bundled" / "prompts" / (entry.bundled or name)
    suffix = PurePosixPath(urlsplit(entry.url).path).suffix
    try:
        return fetch(entry.url, name=f"prompts/{name}{suffix}", sha256=entry.sha256)
    except WeightsError as error:  # names the file; the user knows the field
        raise type(error)(field, error.problem, error.remedy) from error


def _load_path(path: Path, column: str | None, field: str) -> PromptSet:
    return parse(_read(path, field), _format(path.suffix, field), column=column, field=field)


def _read(path: Path, field: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        reason = error.strerror or "it cannot be read"
        raise PromptError(field, f"{path}: {reason}", "Give a readable prompt file") from error


def _format(suffix: str, field: str) -> Format:
    if suffix.lower() not in FORMATS:
        raise PromptError(
            field,
            f"the ending {suffix!r} names no prompt format",
            f"Use one of {', '.join(FORMATS)}",
        )
    return FORMATS[suffix.lower()]


def _decode(data: bytes, field: str) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _not_utf8(field, line, f"byte 0x{data[error.start]:02x}") from error
    if "\0" in text:
        raise _not_utf8(field, text.count("\n", 0, text.index("\0")) + 1, "a zero byte")
    return text


def _not_utf8(field: str, line: int, found: str) -> PromptError:
    return PromptError(field, f"line {line} is not UTF-8 ({found})", "Save the file as UTF-8")


def _numbered(text: str, file_format: Format, column: str, field: str) -> Iterator[_Numbered]:
    match file_format:
        case "lines":
            return _lines(text)
        case "csv" | "tsv":
            return _table(text, file_format, column, field)
        case "json":
            return _json(text, column, field)
        case "jsonl":
            return _json_lines(text, column, field)


def _lines(text: str) -> Iterator[_Numbered]:
    """Universal newlines; str.splitlines would also cut at separators inside a prompt."""
    return enumerate(io.StringIO(text, newline=None), start=1)


def _table(
    text: str, file_format: Literal["csv", "tsv"], column: str, field: str
) -> Iterator[_Numbered]:
    source = io.StringIO(text, newline="")
    reader = (
        csv.reader(source, strict=True)
        if file_format == "csv"
        else csv.reader(source, delimiter="\t", quoting=csv.QUOTE_NONE)
    )
    try:
        position = _column_index(next(reader, []), column, field)
        for row in reader:
            if row and len(row) <= position:
                raise PromptError(
                    field,
                    f"line {reader.line_num} ends before column {column!r}",
                    "Give every row all columns, or quote the field that holds a separator",
                )
            yield reader.line_num, row[position] if row else ""
    except csv.Error as error:
        raise PromptError(
            field, f"line {reader.line_num}: {error}", f"Correct the {file_format.upper()} there"
        ) from error


def _column_index(header: list[str], column: str, field: str) -> int:
    """An exact match, else one that differs in upper and lower case only."""
    folded = [name.strip().casefold() for name in header]
    if column in header:
        return header.index(column)
    if column.casefold() in folded:
        return folded.index(column.casefold())
    raise PromptError(
        field,
        f"there is no column {column!r}",
        f"Set `column` to one of {', '.join(map(repr, header)) or 'the header row it lacks'}",
    )


def _json(text: str, key: str, field: str) -> Iterator[_Numbered]:
    items = _parse_json(text, 1, field)
    if not isinstance(items, list):
        raise PromptError(
            field, "the JSON is not a list", "Give a list of strings, or of objects with a prompt"
        )
    for number, item in enumerate(items, start=1):
        yield number, _text_of(item, key, f"item {number}", field)


def _json_lines(text: str, key: str, field: str) -> Iterator[_Numbered]:
    for number, line in _lines(text):
        blank = not line.strip()
        item = "" if blank else _parse_json(line, number, field)
        yield number, _text_of(item, key, f"line {number}", field)


def _parse_json(text: str, first_line: int, field: str) -> object:
    try:
        parsed: object = json.loads(text)
    except json.JSONDecodeError as error:
        line = first_line + error.lineno - 1
        raise PromptError(
            field, f"line {line} is not JSON ({error.msg})", "Correct the JSON there"
        ) from error
    except (RecursionError, ValueError) as error:
        raise PromptError(field, f"the JSON cannot be read ({error})", "Simplify it") from error
    return parsed


def _text_of(item: object, key: str, place: str, field: str) -> str:
    value = item.get(key) if isinstance(item, dict) else item
    if isinstance(value, str):
        return value
    keys = ", ".join(map(repr, item)) if isinstance(item, dict) else "none, it is no object"
    raise PromptError(
        field,
        f"{place} holds no text under {key!r}",
        f"Give strings, or set `column` to a key that holds text (its keys: {keys})",
    )


def _collect(numbered: Iterable[_Numbered], *, distinct: bool, field: str) -> PromptSet:
    prompts: list[str] = []
    duplicates, empties = [], []
    seen: set[str] = set()
    for number, text in numbered:
        prompt = _normalize(text, number, field)
        if not prompt:
            empties.append(number)
            continue
        if prompt in seen:
            duplicates.append(number)
        if not (distinct and prompt in seen):
            prompts.append(prompt)
        seen.add(prompt)
    if not prompts:
        raise PromptError(field, "there is no prompt in it", "Give at least one prompt")
    return PromptSet(tuple(prompts), _sha256(prompts), tuple(duplicates), tuple(empties))


def _normalize(text: str, number: int, field: str) -> str:
    """NFC, one space between words: what tokenizers make of it anyway."""
    prompt = " ".join(unicodedata.normalize("NFC", text).split())
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise _not_utf8(field, number, "half of a surrogate pair") from error
    return prompt


def _sha256(prompts: Iterable[str]) -> str:
    return hashlib.sha256("".join(f"{prompt}\n" for prompt in prompts).encode()).hexdigest()


def _position(prompt: str) -> float:
    """A uniform number in [0, 1) that depends on the prompt alone."""
    return int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:6], "big") / 2**48


def _some(lines: tuple[int, ...], most: int = 5) -> str:
    listed = ", ".join(map(str, lines[:most]))
    return f"lines {listed}" + (", ..." if len(lines) > most else "")
