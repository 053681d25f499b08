from __future__ import annotations

import hashlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from shortft_core.download import fetch
from shortft_core.errors import MissingWeightsError, WeightsError
from shortft_core.settings import settings

BODY = b"a red circle\n" * 20_000
SHA256 = hashlib.sha256(BODY).hexdigest()
OTHER_SHA256 = "0" * 64


class Site:
    """A real server on the loopback address whose answers a test may change."""

    def __init__(self) -> None:
        self.body = BODY
        self.announced_length: int | None = None
        self.requests: list[str] = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.requests.append(self.path)
                if self.path == "/moved":
                    self.send_response(302)
                    self.send_header("Location", "/file")
                    self.end_headers()
                elif self.path == "/file":
                    self.send_response(200)
                    self.send_header("Content-Length", str(site.announced_length or len(site.body)))
                    self.end_headers()
                    self.wfile.write(site.body)
                else:
                    self.send_error(404)

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def url(self, path: str = "/file") -> str:
        return f"http://127.0.0.1:{self.server.server_port}{path}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.close()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("SHORTFT_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("SHORTFT_OFFLINE", "0")
    settings.cache_clear()
    yield tmp_path
    settings.cache_clear()


def test_a_file_is_fetched_once_and_verified(site: Site, cache: Path) -> None:
    path = fetch(site.url(), name="prompts/set.txt", sha256=SHA256)
    assert path == cache / "prompts" / "set.txt"
    assert path.read_bytes() == BODY
    assert fetch(site.url(), name="prompts/set.txt", sha256=SHA256) == path
    assert site.requests == ["/file"]


def test_redirects_are_followed(site: Site) -> None:
    assert fetch(site.url("/moved"), name="file", sha256=SHA256).read_bytes() == BODY


def test_bytes_other_than_announced_by_the_catalog_are_not_kept(site: Site, cache: Path) -> None:
    with pytest.raises(WeightsError, match=f"{SHA256}, not {OTHER_SHA256}") as caught:
        fetch(site.url(), name="file", sha256=OTHER_SHA256)
    assert not isinstance(caught.value, MissingWeightsError)
    assert list(cache.iterdir()) == []


def test_an_unknown_hash_is_recorded_and_binds_from_then_on(site: Site, cache: Path) -> None:
    path = fetch(site.url(), name="file", sha256=None)
    assert (cache / "file.sha256").read_text(encoding="ascii").strip() == SHA256
    path.unlink()
    site.body = b"changed upstream"
    with pytest.raises(WeightsError, match=f"not {SHA256}"):
        fetch(site.url(), name="file", sha256=None)
    assert not path.exists()
    site.body = BODY
    assert fetch(site.url(), name="file", sha256=None).read_bytes() == BODY


@pytest.mark.parametrize("sha256", [SHA256, None], ids=["known", "recorded"])
def test_a_cached_file_that_changed_is_refused(site: Site, sha256: str | None) -> None:
    path = fetch(site.url(), name="file", sha256=sha256)
    path.write_bytes(BODY + b"x")
    with pytest.raises(WeightsError, match="the cached file") as caught:
        fetch(site.url(), name="file", sha256=sha256)
    assert str(path) in caught.value.remedy


def test_a_file_put_there_by_hand_is_recorded(site: Site, cache: Path) -> None:
    (cache / "file").write_bytes(BODY)
    assert fetch(site.url(), name="file", sha256=None) == cache / "file"
    assert (cache / "file.sha256").read_text(encoding="ascii").strip() == SHA256
    assert site.requests == []


def test_a_download_that_breaks_off_leaves_nothing(site: Site, cache: Path) -> None:
    site.announced_length = len(BODY) + 1
    with pytest.raises(MissingWeightsError, match="could not be downloaded"):
        fetch(site.url(), name="file", sha256=None)
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("url", ["/absent", "http://127.0.0.1:9/file", "http://[bad"])
def test_an_unreachable_file_is_named_with_the_remedy(site: Site, cache: Path, url: str) -> None:
    address = site.url(url) if url.startswith("/") else url
    with pytest.raises(MissingWeightsError) as caught:
        fetch(address, name="prompts/set.txt", sha256=SHA256)
    assert caught.value.field == "prompts/set.txt"
    assert address in caught.value.remedy
    assert str(cache / "prompts" / "set.txt") in caught.value.remedy


def test_offline_nothing_is_asked_for(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = fetch(site.url(), name="kept", sha256=SHA256)
    monkeypatch.setenv("SHORTFT_OFFLINE", "1")
    settings.cache_clear()
    with pytest.raises(MissingWeightsError, match="downloads are switched off"):
        fetch(site.url(), name="file", sha256=SHA256)
    assert fetch(site.url(), name="kept", sha256=SHA256) == kept
    assert len(site.requests) == 1
