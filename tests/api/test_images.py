from __future__ import annotations

from store.models import Generation
from tests.api.conftest import Api, problem
from tests.api.works import png, serve


def finished(api: Api) -> str:
    """Address of the only picture of a generation."""
    api.client.post("/generate", json={"prompt": "a red circle"})
    generation: Generation = serve(api, pictures=[png(shade=5)])
    found = api.client.get(f"/generations/{generation.id}").json()
    url: str = found["images"][0]["url"]
    return url


def test_bytes_with_what_caches_need(api: Api) -> None:
    url = finished(api)
    answer = api.client.get(url)
    assert answer.content == png(shade=5)
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["cache-control"].startswith("private")
    assert answer.headers["x-content-type-options"] == "nosniff"
    name = f"{url.rpartition('/')[2]}.png"
    assert answer.headers["content-disposition"] == f'inline; filename="{name}"'
    saved = api.client.get(f"{url}?download=true")
    assert saved.headers["content-disposition"] == f'attachment; filename="{name}"'
    etag = answer.headers["etag"]
    for known in (etag, f'"x", W/{etag}', "*"):
        again = api.client.get(url, headers={"If-None-Match": known})
        assert (again.status_code, again.content) == (304, b"")
    assert api.client.get(url, headers={"If-None-Match": '"x"'}).status_code == 200


def test_headers_are_told_without_the_picture(api: Api) -> None:
    url = finished(api)
    whole, head = api.client.get(url), api.client.head(url)
    assert (head.status_code, head.content) == (200, b"")
    for name in ("content-length", "content-type", "etag", "cache-control"):
        assert head.headers[name] == whole.headers[name], name
    assert api.client.head(url, headers={"If-None-Match": head.headers["etag"]}).status_code == 304


def test_bytes_that_were_deleted_or_changed_are_gone(api: Api) -> None:
    url = finished(api)
    (key,) = [key for key in api.service.objects.list("generations/") if key.endswith(".png")]
    api.service.objects.write(key, png(shade=6))
    problem(api.client.get(url), 410, "gone")
    api.service.objects.delete(key)
    assert key not in problem(api.client.get(url), 410, "gone")["detail"]
    assert api.client.head(url).status_code == 410


def test_pictures_are_never_public(api: Api) -> None:
    url = finished(api)
    api.key()
    problem(api.client.get(url), 401, "unauthenticated")
