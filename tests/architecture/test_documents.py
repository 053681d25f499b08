"""The documents name only what exists: links, make targets, commands, catalog entries."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from typer.main import get_command

from shortft_core import catalog
from shortft_core.spec import AlignSpec

GUIDES: Final = ("README.md", "CONTRIBUTING.md")
LINK: Final = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING: Final = re.compile(r"^#+ (.+)$", re.MULTILINE)
CODE: Final = re.compile(r"^```\w*\n(.*?)^```$|`([^`\n]+)`", re.MULTILINE | re.DOTALL)
TARGET: Final = re.compile(r"^([a-z][\w-]*):", re.MULTILINE)


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _commands(text: str, program: str) -> Iterator[list[str]]:
    """Words after `program` in every code block and span of a document."""
    for block, span in CODE.findall(text):
        for line in (block or span).replace("\\\n", " ").splitlines():
            # Lines of a longer shell command may hold half a quotation.
            if line.split()[:1] == [program]:
                yield shlex.split(line, comments=True)[1:]


def _anchors(document: Path) -> set[str]:
    headings = HEADING.findall(_read(document))
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


def _is_broken(document: Path, link: str) -> bool:
    path, _, anchor = link.partition("#")
    target = (document.parent / path).resolve() if path else document
    return not target.exists() or (bool(anchor) and anchor not in _anchors(target))


def test_relative_links_resolve(document: Path) -> None:
    links = [link for link in LINK.findall(_read(document)) if "://" not in link]
    assert [link for link in links if _is_broken(document, link)] == []


@pytest.mark.parametrize("guide", GUIDES)
def test_make_targets_exist(root: Path, guide: str) -> None:
    named = 0
    for words in _commands(_read(root / guide), "make"):
        folder = words[1] if words[:1] == ["-C"] else "."
        wanted = {word for word in words[2 * (folder != ".") :] if "=" not in word}
        assert wanted <= set(TARGET.findall(_read(root / folder / "Makefile")))
        named += 1
    assert named > 0


@pytest.mark.parametrize("guide", GUIDES)
def test_commands_and_options_exist(root: Path, guide: str) -> None:
    from shortft_core.cli import app

    for words in filter(None, _commands(_read(root / guide), "shortft")):
        command: Any = get_command(app)
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words.pop(0)]
        assert not hasattr(command, "commands"), f"{command.name}: no such command {words}"
        known = {"--help", *(option for p in command.params for option in p.opts)}
        assert {word for word in words if word.startswith("-")} <= known


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _summaries(head: str, table: Mapping[str, Any]) -> str:
    rows = [(f"`{name}`", entry.summary) for name, entry in table.items()]
    return _table((head, "what it is"), rows)


def _rewards() -> str:
    rows = [
        (f"`{name}`", entry.summary, ", ".join(f"`{source}`" for source in entry.weights) or "none")
        for name, entry in catalog.REWARDS.items()
    ]
    return _table(("reward", "what it is", "weights"), rows)


@pytest.mark.parametrize(
    "table",
    [
        pytest.param(_summaries("base model", catalog.BASE_MODELS), id="base models"),
        pytest.param(_summaries("method", catalog.METHODS), id="methods"),
        pytest.param(_rewards(), id="rewards"),
    ],
)
def test_readme_tables_equal_the_catalog(root: Path, table: str) -> None:
    assert table in _read(root / "README.md"), f"README.md needs this table:\n{table}"


def test_the_index_lists_each_decision(root: Path) -> None:
    folder = root / "docs" / "decisions"
    index = _read(folder / "README.md")
    listed = [name for name in LINK.findall(index) if name[:4].isdigit()]
    assert listed == sorted(path.name for path in folder.glob("[0-9]*.md"))


def test_each_decision_has_its_four_parts(root: Path) -> None:
    for path in (root / "docs" / "decisions").glob("[0-9]*.md"):
        headings = HEADING.findall(_read(path))
        assert headings[1:] == ["Status", "Context", "Decision", "Consequences"], path.name


def test_readme_job_is_a_job(root: Path) -> None:
    block = re.search(r"^```yaml\n(.*?)^```$", _read(root / "README.md"), re.MULTILINE | re.DOTALL)
    assert block is not None
    job = catalog.resolve(AlignSpec.model_validate(yaml.safe_load(block[1])))
    assert job.base_model.name == "shapes"
