import json
from http import HTTPStatus

import pytest

from gateway.configuration.settings import Settings
from gateway.server.generations import Generations
from gateway.server.pages import file_of, page_for, unless_known, web_root
from provider.interface import AbstractLLMInterface, Health, ModelInfo
from provider.scripted import ScriptedProvider
from tests.support.servers import get, running


class Loading(ScriptedProvider):
    """A provider that is not ready yet."""

    def health(self):
        return Health(ready=False, reason="loading the model")

    def models(self):
        return [ModelInfo("big/model", None)]


def test_the_page_and_its_parts_are_served():
    generations = Generations(ScriptedProvider(), Settings())
    paths = {path.relative_to(web_root()) for path in web_root().rglob("*.*")}
    served = {path for path in paths if path.parts[0] not in {"adapters", "npm"}}
    assert {path.parts[0] for path in served} >= {"client.js", "index.html", "shell", "chat"}
    for path in served:
        if path.suffix in {".html", ".css", ".js", ".svg", ".png"}:
            page = page_for(f"/{path}", generations)
            assert page.status is HTTPStatus.OK
            assert page.body == (web_root() / path).read_bytes()
    assert (
        page_for("/", Generations(ScriptedProvider(), Settings())).body
        == (web_root() / "index.html").read_bytes()
    )
    assert page_for("/client.js", Generations(ScriptedProvider(), Settings())).type.startswith(
        "text/javascript"
    )


@pytest.mark.parametrize(
    "path",
    [
        "/nope",
        "/../pyproject.toml",
        "/.gitignore",
        "//etc/passwd",
        "/a/b.js",
        "/client",
        "",
        "/chat",
        "/chat/",
        "/shell/../client.js",
        "/npm/package.json",
        "/adapters/react.js",
    ],
)
def test_what_is_not_there_is_404(path):
    assert (
        page_for(path, Generations(ScriptedProvider(), Settings())).status is HTTPStatus.NOT_FOUND
    )


def test_health_and_readiness_are_two_things():
    assert page_for("/healthz", Generations(Loading(), Settings())).status is HTTPStatus.OK
    ready = page_for("/readyz", Generations(Loading(), Settings()))
    assert (ready.status, ready.body) == (HTTPStatus.SERVICE_UNAVAILABLE, b"loading the model\n")
    assert page_for("/readyz", Generations(ScriptedProvider(), Settings())).status is HTTPStatus.OK


def test_models_come_in_openais_list_form():
    listed = json.loads(page_for("/v1/models", Generations(Loading(), Settings())).body)
    assert listed["object"] == "list"
    assert [(m["id"], m["object"]) for m in listed["data"]] == [("big/model", "model")]


def test_the_protocol_is_served_as_it_stands():
    page = page_for("/protocol", Generations(ScriptedProvider(), Settings()))
    assert page.body.startswith(b"# The mlx-gateway protocol")
    assert page.type.startswith("text/markdown")


def test_every_page_forbids_what_it_does_not_need():
    headers = page_for("/", Generations(ScriptedProvider(), Settings())).headers()
    assert "default-src 'self'" in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_the_scripted_provider_is_behind_the_interface():
    assert issubclass(Loading, AbstractLLMInterface)


@pytest.mark.parametrize("path", ["/", "/client.js", "/asyncapi.json", "/protocol"])
def test_what_stays_the_same_is_made_once(path):
    generations = Generations(ScriptedProvider(), Settings())
    page = page_for(path, generations)
    assert page_for(path, generations) is page
    tag = page.headers()["ETag"]
    known = unless_known(page, [f'"other", {tag}'])
    assert (known.status, known.body) == (HTTPStatus.NOT_MODIFIED, b"")
    assert known.headers()["ETag"] == tag
    assert unless_known(page, ['"other"']) is page
    assert unless_known(page, []) is page


def test_in_development_files_are_read_anew(tmp_path):
    generations = Generations(ScriptedProvider(), Settings(dev=True))
    assert page_for("/client.js", generations) is not page_for("/client.js", generations)
    file = tmp_path / "a.js"
    for text in ("1", "2"):
        file.write_text(text)
        assert file_of("a.js", tmp_path).body == text.encode()
    file.unlink()
    (tmp_path / "secret.txt").write_text("x")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "c.css").write_text("2")
    assert file_of("b/c.css", tmp_path).type == "text/css; charset=utf-8"
    for name in ("a.js", "secret.txt", "b", "b/", "b//c.css", "../a.js", "/etc/passwd", ""):
        assert file_of(name, tmp_path) is None
    assert page_for("/nope", generations).status is HTTPStatus.NOT_FOUND


def test_two_gateways_have_each_their_own_description():
    pages = [
        page_for("/asyncapi.json", Generations(ScriptedProvider(), Settings(port=port)))
        for port in (1001, 1002)
    ]
    assert b"127.0.0.1:1001" in pages[0].body
    assert b"127.0.0.1:1002" in pages[1].body


def test_what_changes_is_never_said_to_be_known():
    for path in ("/healthz", "/readyz", "/metrics", "/v1/models"):
        page = page_for(path, Generations(ScriptedProvider(), Settings()))
        assert unless_known(page, ["*"]) is page


@pytest.mark.parametrize("path", ["/" + "a" * 4000, "//[", "/" + "a/" * 2000 + ".js"])
async def test_a_path_of_any_length_and_form_is_404(path):
    async with running(ScriptedProvider()) as gateway:
        assert (await get(gateway, path))[0] == HTTPStatus.NOT_FOUND


async def test_a_file_that_the_client_has_is_not_sent_again():
    async with running(ScriptedProvider()) as gateway:
        status, body, headers = await get(gateway, "/client.js")
        assert (status, len(body)) == (200, int(headers["Content-Length"]))
        status, body, _ = await get(gateway, "/client.js", **{"If-None-Match": headers["ETag"]})
        assert (status, body) == (HTTPStatus.NOT_MODIFIED, b"")
