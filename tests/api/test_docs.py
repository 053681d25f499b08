from __future__ import annotations

import re
from pathlib import Path

import pytest

import api as api_package
from tests.api.conftest import Api, problem

SQLITE = pytest.mark.parametrize("stack", ["sqlite"], indirect=True)
ADDRESS = re.compile(r'(?:src|href)="([^"]+)"')


@SQLITE
def test_the_page_and_all_it_names_are_served_from_here(api: Api) -> None:
    for page in ("/docs", "/v1/docs"):
        answer = api.client.get(page)
        assert answer.headers["content-type"].startswith("text/html")
        named = ADDRESS.findall(answer.text)
        assert len(named) == 5
        for address in named:
            assert "//" not in address
            if address != "openapi.json":
                found = api.client.get(f"{page.removesuffix('docs')}{address}")
                assert found.status_code == 200, address
                assert found.headers["content-security-policy"].startswith("default-src 'none'")


@SQLITE
def test_nothing_but_the_page_s_files_is_served(api: Api) -> None:
    for name in ("docs.html", "..%2fapp.py", "%2e%2e/app.py", "swagger-ui", "LICENSE", "%00"):
        problem(api.client.get(f"/docs/{name}"), 404, "not_found")


def test_the_licence_lies_beside_the_files() -> None:
    folder = Path(str(api_package.__file__)).parent / "assets" / "swagger-ui"
    assert "Apache License" in (folder / "LICENSE").read_text(encoding="utf-8")
    assert "SmartBear" in (folder / "NOTICE").read_text(encoding="utf-8")
    assert (folder / "swagger-ui-bundle.js.LICENSE.txt").stat().st_size > 1000
