from __future__ import annotations

import json
import socket

import pytest
from pydantic import SecretStr
from starlette.testclient import TestClient
from typer.testing import Result

from api.app import create_app
from api.commands import keys_app
from api.settings import ApiSettings
from migrations.run import downgrade
from shortft_core.errors import UserError
from store.api_keys import is_well_formed
from store.engine import open_database
from store.settings import StoreSettings
from tests.api.conftest import SPEC
from tests.api.process import Server, environment, invoke, run, serving
from tests.servers.processes import wait_until

sqlite = pytest.mark.parametrize("stack", ["sqlite"], indirect=True)


@sqlite
def test_an_application_needs_the_tables_of_its_version(stack: StoreSettings) -> None:
    database = open_database(stack.database_address())
    downgrade(database.engine)
    database.close()
    app = create_app(ApiSettings(), stack)
    with pytest.raises(UserError, match="shortft migrate"), TestClient(app):
        pass
    ended = run(stack)
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1
    assert "shortft migrate" in ended.stderr


@sqlite
def test_an_application_needs_a_secret(stack: StoreSettings) -> None:
    app = create_app(ApiSettings(), stack.model_copy(update={"secret_key": SecretStr("short")}))
    with pytest.raises(UserError, match="SHORTFT_SECRET_KEY"), TestClient(app):
        pass


@sqlite
def test_keys_made_on_the_command_line_open_a_server_that_refuses_the_large_and_torn(
    stack: StoreSettings,
) -> None:
    refused = run(stack, SHORTFT_HOST="0.0.0.0")  # noqa: S104
    assert refused.returncode == 1
    assert "shortft keys create" in refused.stderr
    made = run(stack, "keys", "create", "--name", "ci", "--scopes", "jobs:read, jobs:write")
    key = made.stdout.strip()
    assert is_well_formed(key), made.stderr
    listed = _keys(stack, "list")
    assert key[-4:] in listed.stdout
    assert key not in listed.stdout
    wrong = _keys(stack, "create", "--name", "x", "--scopes", "root")
    assert "unknown scope 'root'" in str(wrong.exception)
    settings = {"SHORTFT_LOG_FORMAT": "json", "SHORTFT_MAX_BODY_MB": "0.01"}
    with serving(stack, SHORTFT_HOST="0.0.0.0", **settings) as server:  # noqa: S104
        with server.client() as client:
            assert client.get("/jobs").status_code == 401
            headers = {"Authorization": f"Bearer {key}", "X-Request-ID": "mine-7"}
            assert client.get("/jobs", headers=headers).json()["data"] == []
            _refuses_what_is_too_large_or_torn(server, key)
            key_id = next(word for word in listed.stdout.split() if word.startswith("key_"))
            assert _keys(stack, "revoke", key_id).exit_code == 0
            silent = {"Authorization": headers["Authorization"]}
            # The service may know a key for a second longer.
            wait_until(lambda: client.get("/jobs", headers=silent).status_code == 401)
            assert client.get("/jobs", headers=headers).status_code == 401
        lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    mine = [line for line in lines if line.get("request_id") == "mine-7"]
    assert [(line["message"], line["status"]) for line in mine] == [
        ("GET /jobs 200", 200),
        ("GET /jobs 401", 401),
    ]
    assert key not in str(lines)


def _keys(stack: StoreSettings, *arguments: str) -> Result:
    """`python -m api keys …` without a process of its own."""
    return invoke(keys_app, *arguments, env=environment(stack))


def _refuses_what_is_too_large_or_torn(server: Server, key: str) -> None:
    port = int(server.url.rsplit(":", 1)[1])
    head = b"POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    head += f"Authorization: Bearer {key}\r\n".encode()
    chunk = b"1000\r\n" + b" " * 0x1000 + b"\r\n"
    chunked = head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 4
    declared = head + b"Content-Length: 99999999999\r\n\r\n"
    for request in (chunked, declared):
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            connection.sendall(request)
            answer = connection.recv(65536)
        assert answer.startswith(b"HTTP/1.1 413"), answer
        assert b"application/problem+json" in answer
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(head + b"Content-Length: 100\r\n\r\n{")
    with server.client() as client:
        made = client.post("/jobs", json=SPEC, headers={"Authorization": f"Bearer {key}"})
        assert made.status_code == 202
    assert "Traceback" not in server.log.read_text()
