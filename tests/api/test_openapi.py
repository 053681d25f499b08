from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

import pytest

from api.app import create_app
from api.openapi import COMMITTED, as_text
from api.schemas.jobs import JOB_EXAMPLE, JobObject
from api.settings import ApiSettings
from shortft_core.spec import AlignSpec
from store.settings import StoreSettings

VERBS: Final = ("get", "post", "put", "patch", "delete")


@pytest.fixture(scope="module")
def text() -> str:
    """The document of this version."""
    return as_text(create_app(ApiSettings(), StoreSettings()))


@pytest.fixture(scope="module")
def document(text: str) -> dict[str, Any]:
    """The same, parsed."""
    found: dict[str, Any] = json.loads(text)
    return found


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Path, verb and content of each operation."""
    for path, item in document["paths"].items():
        for verb in VERBS:
            if verb in item:
                yield path, verb, item[verb]


def test_the_committed_document_is_that_of_the_code(text: str) -> None:
    assert COMMITTED.read_text(encoding="utf-8") == text, "run `.venv/bin/python -m api openapi`"


def test_operations_have_names_that_clients_can_use(document: dict[str, Any]) -> None:
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(names) == len(set(names))
    assert all(re.fullmatch(r"[a-z]+([A-Z][a-z0-9]*)*", name) for name in names), names
    assert {"createJob", "listJobs", "retrieveJob", "cancelJob", "streamJobEvents"} <= set(names)
    assert not [path for path in document["paths"] if path.startswith("/v1")]


def test_every_operation_lists_its_refusals(document: dict[str, Any]) -> None:
    for path, verb, operation in operations(document):
        refusals = {
            status: answer for status, answer in operation["responses"].items() if status >= "400"
        }
        assert {"401", "422", "429", "500", "503"} <= set(refusals), (path, verb)
        if path == "/readyz":
            del refusals["503"]  # it says what is not ready
        for answer in refusals.values():
            schema = answer["content"]["application/problem+json"]["schema"]
            assert schema == {"$ref": "#/components/schemas/Problem"}, (path, verb)


def test_every_reference_leads_somewhere(text: str, document: dict[str, Any]) -> None:
    found = set(re.findall(r'"#/components/schemas/([^"]+)"', text))
    assert found == found & set(document["components"]["schemas"])
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_the_stream_is_described_as_one(document: dict[str, Any]) -> None:
    stream = document["paths"]["/jobs/{job_id}/events/stream"]["get"]
    assert set(stream["responses"]["200"]["content"]) == {"text/event-stream"}


def test_keys_are_described_and_asked_for(document: dict[str, Any]) -> None:
    schemes = document["components"]["securitySchemes"]
    assert schemes["apiKey"]["scheme"] == "bearer"
    assert schemes["apiKeyHeader"]["name"] == "X-API-Key"
    assert document["paths"]["/jobs"]["post"]["security"]


def test_a_job_can_be_sent_as_the_document_shows_it(document: dict[str, Any]) -> None:
    body = document["paths"]["/jobs"]["post"]["requestBody"]
    assert body["required"] is True
    (example,) = body["content"]["application/json"]["schema"]["examples"]
    assert AlignSpec.model_validate(example).name == "mirror"
    assert JobObject.model_validate(JOB_EXAMPLE).model_dump(mode="json") == JOB_EXAMPLE
