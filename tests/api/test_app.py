from __future__ import annotations

import json
import socket

import pytest
from pydantic import SecretStr
from starlette.testclient import TestClient

from api.app import create_app
from api.settings import ApiSettings
from migrations.run import downgrade
from shortft_core.errors import UserError
from store.api_keys import is_well_formed
from store.engine import open_database
from store.settings import StoreSettings
from tests.api.conftest import SPEC
from tests.api.process import run, serving

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
def test_keys_are_made_on_the_command_line_and_open_the_service(stack: StoreSettings) -> None:
    refused = run(stack, SHORTFT_HOST="0.0.0.0")  # noqa: S104
    assert refused.returncode == 1
    assert "shortft keys create" in refused.stderr
    made = run(stack, "keys", "create", "--name", "ci", "--scopes", "jobs:read, jobs:write")
    key = made.stdout.strip()
    assert is_well_formed(key), made.stderr
    listed = run(stack, "keys", "list")
    assert key[-4:] in listed.stdout
    assert key not in listed.stdout
    wrong = run(stack, "keys", "create", "--name", "x", "--scopes", "root")
    assert (wrong.returncode, "unknown scope 'root'" in wrong.stderr) == (1, True)
    with serving(stack, SHORTFT_HOST="0.0.0.0", SHORTFT_LOG_FORMAT="json") as server:  # noqa: S104
        with server.client() as client:
            assert client.get("/jobs").status_code == 401
            headers = {"Authorization": f"Bearer {key}", "X-Request-ID": "mine-7"}
            assert client.get("/jobs", headers=headers).json()["data"] == []
            key_id = next(word for word in listed.stdout.split() if word.startswith("key_"))
            assert run(stack, "keys", "revoke", key_id).returncode == 0
            assert client.get("/jobs", headers=headers).status_code == 401
        lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    mine = [line for line in lines if line.get("request_id") == "mine-7"]
    assert [(line["message"], line["status"]) for line in mine] == [
        ("GET /jobs 200", 200),
        ("GET /jobs 401", 401),
    ]
    assert key not in str(lines)


@sqlite
def test_a_real_server_refuses_what_is_too_large_or_torn(stack: StoreSettings) -> None:
    with serving(stack, SHORTFT_MAX_BODY_MB="0.01") as server:
        port = int(server.url.rsplit(":", 1)[1])
        head = b"POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
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
            assert client.post("/jobs", json=SPEC).status_code == 202
        assert "Traceback" not in server.log.read_text()
