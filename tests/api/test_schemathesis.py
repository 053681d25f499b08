"""What the interface promises in its document holds for requests that nobody thought of."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any, Final

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.api.conftest import Api, Opened
from tests.api.works import adapter, serve

pytestmark = [
    pytest.mark.parametrize("stack", ["sqlite"], indirect=True),
    # Its own code warns of what its libraries will change.
    pytest.mark.filterwarnings("default"),
]
EXAMPLES: Final = 4
CHECKS: Final = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
ELSEWHERE: Final = {
    "/jobs/{job_id}/events/stream": "it does not end by itself; its own tests read it",
    "/jobs/{job_id}/metrics": "schemathesis turns `prefixItems` into `items`, and refuses that",
}
"""Path -> why it is not asked here."""


def furnished(api: Api) -> dict[str, str]:
    """One of each resource, by the name of its path parameter."""
    made = adapter(api)
    api.client.post("/generate", json={"prompt": "a"})
    generation = serve(api)
    found = api.client.get(f"/generations/{generation.id}").json()
    prompts = api.client.post("/prompt-sets", json={"name": "n", "prompts": ["a"]}).json()
    return {
        "job_id": api.submit()["id"],
        "adapter_id": made.id,
        "generation_id": generation.id,
        "image_id": found["images"][0]["id"],
        "prompt_set_id": prompts["id"],
        "name": "symmetry",
        "code": "not_found",
    }


def operations(api: Api) -> Iterator[Any]:
    """Those of the document."""
    schema = schemathesis.openapi.from_dict(api.app.openapi())
    for found in schema.get_all_operations():
        operation: Any = found
        operation = operation.ok()
        if operation.path not in ELSEWHERE:
            yield operation


def faults(api: Api, operation: Any, known: dict[str, str], key: dict[str, str]) -> set[str]:
    """How answers of one operation differ from the document."""
    found: set[str] = set()
    answered = 0

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy())
    def ask(case: Any) -> None:
        nonlocal answered
        answered += 1
        if answered % 2:
            case.path_parameters = {
                name: known.get(name, value) for name, value in case.path_parameters.items()
            }
        options = case.as_transport_kwargs(base_url="http://localhost")
        options["headers"] = {**options["headers"], **key}
        sent: Any = requests.Request(**options).prepare()
        answer = api.client.request(
            sent.method, sent.url, content=sent.body or b"", headers=dict(sent.headers)
        )
        try:
            case.validate_response(answer, checks=CHECKS)
        except BaseExceptionGroup as group:
            told = [f"{type(fault).__name__}: {fault}" for fault in group.exceptions]
            found.update(told)

    ask()
    assert answered > 0
    return found


def test_answers_are_as_the_document_says(open_api: Opened) -> None:
    api = open_api(requests_per_minute=1_000_000, most_open_jobs=1_000_000)
    known = furnished(api)
    key = api.key()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = {
            operation.label: faults(api, operation, known, key) for operation in operations(api)
        }
    assert len(found) > 40
    told = [f"{label}: {fault}" for label, differing in found.items() for fault in differing]
    assert not told, "\n".join(told)
