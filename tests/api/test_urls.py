"""All addresses of answers follow one rule."""

from __future__ import annotations

import re
from typing import Any, Final

import pytest

from store import results
from store.results import NewArtifact
from tests.api.conftest import Api, Opened
from tests.api.test_results import store
from tests.api.works import adapter, serve

pytestmark = pytest.mark.parametrize("stack", ["sqlite"], indirect=True)
PUBLIC: Final = "https://shortft.example/base"


def addresses(content: Any) -> list[str]:
    """Every value of a `url` or of `urls`, however deep."""
    if isinstance(content, list):
        return [found for item in content for found in addresses(item)]
    if not isinstance(content, dict):
        return []
    own = [content["url"]] if "url" in content else []
    own += list(content["urls"].values()) if "urls" in content else []
    return own + [found for item in content.values() for found in addresses(item)]


def answers(api: Api, version: str) -> list[str]:
    """The addresses in answers of every kind, `Location` and `Link` among them."""
    client, found = api.client, []
    made = client.post(f"{version}/prompt-sets", json={"name": "x", "prompts": ["a"]})
    found.append(made.headers["location"])
    tuned = adapter(api)
    api.submit()
    lease = api.claim().lease
    stored = store(api, "jobs/x/artifacts/t1/weights", b"data")
    files = [NewArtifact(kind="branch_1", filename="a", stored=stored)]
    api.database.transact(lambda session: results.succeed(session, lease, files))
    again = client.post(f"{version}/jobs/{lease.row_id}/rerun")
    made = client.post(f"{version}/generate", json={"prompt": "a"})
    done = serve(api)
    found += [again.headers["location"], made.headers["location"]]
    listed = client.get(f"{version}/jobs?limit=1")
    found.append(re.sub(r"<(.*)>.*", r"\1", listed.headers["link"]))
    for path in (
        f"/jobs/{lease.row_id}",
        f"/jobs/{lease.row_id}/artifacts",
        f"/generations/{done.id}",
        f"/adapters/{tuned.id}",
    ):
        here = addresses(client.get(f"{version}{path}").json())
        assert here, path
        found += here
    return found + addresses(again.json()) + addresses(made.json())


@pytest.mark.parametrize("version", ["", "/v1"])
@pytest.mark.parametrize("public", [None, PUBLIC, f"{PUBLIC}/"])
def test_addresses_have_the_public_address_and_the_asked_version(
    open_api: Opened, version: str, public: str | None
) -> None:
    api = open_api(public_url=public)
    base = (PUBLIC if public else "") + version
    rest = r"/(jobs|generations|images|adapters|prompt-sets)[/?]"
    found = answers(api, version)
    assert len(found) > 25
    for url in found:
        assert re.match(re.escape(base) + rest, url), url
    for url in found:
        path = url.removeprefix(PUBLIC)
        if not path.endswith(("/cancel", "/stream", "/report")):
            assert api.client.get(path).status_code == 200, path
