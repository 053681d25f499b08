"""The guides show requests that the service takes, and tables that the code makes."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
from pydantic import TypeAdapter

from api.schemas.generations import GenerationRequest
from api.schemas.jobs import JobChange
from api.schemas.prompt_sets import NewPromptSet
from shortft_core import catalog
from shortft_core.spec import AlignSpec, JobSpec
from store.api_keys import Scope
from tests.docker import compose, guide_tables, settings_table

API: Final = guide_tables.DOCUMENT.read_text(encoding="utf-8")
OPERATIONS: Final = settings_table.DOCUMENT.read_text(encoding="utf-8")
SECURITY: Final = (compose.ROOT / "docs" / "security.md").read_text(encoding="utf-8")
BLOCK: Final = re.compile(r"^```\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BODIES: Final[dict[str, TypeAdapter[Any]]] = {
    "/jobs": TypeAdapter(JobSpec),
    "/jobs/validate": TypeAdapter(JobSpec),
    "/jobs/{job_id}": TypeAdapter(JobChange),
    "/generate": TypeAdapter(GenerationRequest),
    "/prompt-sets": TypeAdapter(NewPromptSet),
}
PLACEHOLDER: Final = re.compile(r"\{\w+\}")


def _commands(document: str, program: str) -> Iterator[list[str]]:
    for block in BLOCK.findall(document):
        for words in _lines(block):
            if words[:1] == [program]:
                yield words[1:]


def _lines(block: str) -> Iterator[list[str]]:
    """Command lines; a quoted argument may span several."""
    waiting = ""
    for line in block.replace("\\\n", " ").splitlines():
        waiting += f"{line}\n"
        try:
            words = shlex.split(waiting, comments=True)
        except ValueError:
            continue
        waiting = ""
        yield words


def _request(words: list[str]) -> tuple[str, str, str | None]:
    """Method, path as the document names it, and JSON body."""
    url = next(word for word in words if word.startswith("$SHORTFT/"))
    path = urlsplit(url.removeprefix("$SHORTFT")).path
    body = words[words.index("--json") + 1] if "--json" in words else None
    method = words[words.index("-X") + 1] if "-X" in words else None
    sends = body is not None or "-F" in words
    return (method or ("POST" if sends else "GET")).lower(), path, body


def _template(method: str, path: str) -> str | None:
    known = {name for verb, name in guide_tables.operations() if verb == method}
    if path in known:
        return path
    fitting = (
        name for name in known if re.fullmatch(PLACEHOLDER.sub("[^/]+", name), path) is not None
    )
    return next(fitting, None)


REQUESTS: Final = [_request(words) for words in _commands(API, "curl")]


def test_the_guide_shows_most_of_the_interface() -> None:
    shown = {(method, _template(method, path)) for method, path, _ in REQUESTS}
    assert len(shown) > 20


@pytest.mark.parametrize(("method", "path", "body"), REQUESTS)
def test_every_request_of_the_guide_has_a_route(method: str, path: str, body: str | None) -> None:
    template = _template(method, path)
    assert template is not None, f"{method} {path}"
    if body is not None:
        parsed = BODIES[template].validate_python(json.loads(body))
        if isinstance(parsed, AlignSpec):
            assert catalog.resolve(parsed).rewards


def test_the_tables_of_the_guide_are_what_the_code_says() -> None:
    assert guide_tables.replace(API) == API, "run `python -m tests.docker.guide_tables`"


def test_the_tables_of_settings_are_what_the_code_says() -> None:
    stale = settings_table.replace(OPERATIONS) != OPERATIONS
    assert not stale, "run `python -m tests.docker.settings_table`"
    assert settings_table.written(OPERATIONS).count("\n| `") > 30


def test_every_setting_says_what_it_is() -> None:
    silent = [
        name
        for settings in settings_table.CLASSES.values()
        for name, field in settings.model_fields.items()
        if not field.description
    ]
    assert silent == []


@pytest.mark.parametrize("scope", list(Scope))
def test_every_scope_is_explained(scope: Scope) -> None:
    assert f"| `{scope}` |" in SECURITY


def test_what_is_open_without_a_key_is_said() -> None:
    found = {
        path for (_, path), about in guide_tables.operations().items() if "security" not in about
    }
    (said,) = re.findall(r"Open without a key are (.*?): none of them", SECURITY, re.DOTALL)
    named = set(re.findall(r"`(/[\w./…]+)`", said)) - {"/docs", "/openapi.json"}
    assert {path.replace("{code}", "…") for path in found} == named


def test_volumes_of_secrets_are_explained() -> None:
    secrets = [name for name in compose.load()["volumes"] if name.endswith("-secrets")]
    assert [name for name in secrets if f"| `{name}` |" not in SECURITY] == []


@pytest.mark.parametrize("document", [OPERATIONS, SECURITY], ids=["operations", "security"])
def test_services_and_volumes_that_commands_name_exist(document: str) -> None:
    services, named = compose.services(), 0
    volumes = set(compose.load()["volumes"])
    for words in _commands(document, "docker"):
        mounted = {word.partition(":")[0] for word in words if word.startswith("shortft_")}
        assert {name.removeprefix("shortft_") for name in mounted} <= volumes
        if words[0] == "compose":
            named += any(word in services for word in words)
            hidden = [word for word in words if re.fullmatch(r"(worker|api|init|migrate)\S*", word)]
            assert set(hidden) <= set(services)
    assert named >= (document is OPERATIONS)
