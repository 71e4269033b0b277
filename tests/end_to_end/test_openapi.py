"""The document of the HTTP operations is true, and its page fetches nothing from anywhere."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from starlette.routing import Route

from tests.end_to_end.conftest import Server
from voice_server.web.operations import Content, Operation

VENDORS = {
    "openai": ("OpenAIProblem",),
    "elevenlabs": ("ElevenLabsProblem", "ElevenLabsInvalid"),
    "deepgram": ("DeepgramProblem",),
    "cartesia": ("CartesiaProblem",),
    "telephony": ("PlainProblem",),
}
METHODS = {"get", "post", "put", "delete", "patch"}


@pytest.fixture
def document(http: httpx.Client) -> dict[str, Any]:
    answer = http.get("/openapi.json")
    assert answer.headers["content-type"] == "application/json"
    document: dict[str, Any] = answer.json()
    return document


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            assert method in METHODS
            yield path, method, operation


def everything(value: Any) -> Iterator[Any]:
    yield value
    children = value.values() if isinstance(value, dict) else value
    if isinstance(children, list | type({}.values())):
        for child in children:
            yield from everything(child)


def test_it_is_openapi_3_1_and_holds_together(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1.")
    schemas = document["components"]["schemas"]
    references = [v["$ref"] for v in everything(document) if isinstance(v, dict) and "$ref" in v]
    assert references
    for reference in references:
        assert reference.removeprefix("#/components/schemas/") in schemas
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(names) == len(set(names))
    tags = {tag["name"] for tag in document["tags"]}
    for path, _, operation in operations(document):
        assert set(operation["tags"]) <= tags
        assert operation["summary"]
        in_path = set(re.findall(r"\{(\w+)\}", path))
        described = operation.get("parameters", [])
        assert in_path == {p["name"] for p in described if p["in"] == "path"}


def test_every_route_is_in_it(server: Server, document: dict[str, Any]) -> None:
    described = {(path, method) for path, method, _ in operations(document)}
    for route in server.app.router.routes:
        if isinstance(route, Operation):
            path = re.sub(r":\w+\}", "}", route.described_path)
            assert (path, route.method.lower()) in described
        elif isinstance(route, Route):
            assert route.path.startswith(("/openapi.json", "/docs"))


def test_every_error_has_the_one_shape_or_its_vendor_s(document: dict[str, Any]) -> None:
    for path, _, operation in operations(document):
        for status, response in operation["responses"].items():
            if status >= "400":
                [(media_type, content)] = response["content"].items()
                assert media_type == "application/json"
                name = content["schema"]["$ref"].rpartition("/")[2]
                wanted = VENDORS.get(path.split("/")[1], ("Problem", "NotYet"))
                assert name in wanted, (path, status)
    for name in ("Problem", "NotYet"):
        assert document["components"]["schemas"][name]["required"][:3] == [
            "detail",
            "code",
            "retryable",
        ]


def test_what_can_be_asked_without_more_answers_as_documented(
    server: Server, http: httpx.Client, document: dict[str, Any]
) -> None:
    asked = 0
    for route in server.app.router.routes:
        if not isinstance(route, Operation) or route.method != "GET" or "{" in route.path:
            continue
        described = document["paths"][route.described_path]["get"]["responses"]
        answer = http.get(route.described_path)
        assert str(answer.status_code) in described, route.described_path
        media_type = answer.headers["content-type"].partition(";")[0]
        assert media_type in described[str(answer.status_code)]["content"]
        model = route.answers[answer.status_code]
        if not isinstance(model, Content):
            model.model_validate_json(answer.content)
            required = set(model.model_json_schema(mode="serialization").get("required", ()))
            assert isinstance(answer.json(), list) or required <= answer.json().keys()
        asked += 1
    assert asked >= 6


@pytest.mark.parametrize(
    "body",
    [
        {"text": "Hello."},
        {"text": "Hello.", "format": "opus"},
        {"text": "Hello.", "format": {"encoding": "mulaw", "container": "wav"}},
        {"text": ""},
        {"text": 5},
        {"text": "Hello.", "voice": "nobody"},
        {"text": "raise", "backend": "chaos"},
        {"text": "oom", "backend": "chaos"},
    ],
)
def test_every_status_of_speech_is_documented(
    http: httpx.Client, document: dict[str, Any], body: dict[str, Any]
) -> None:
    answer = http.post("/tts", json=body)
    described = document["paths"]["/tts"]["post"]["responses"][str(answer.status_code)]
    assert answer.headers["content-type"].partition(";")[0] in described["content"]


def test_the_methods_of_a_path_are_told_together(http: httpx.Client) -> None:
    answer = http.patch("/profiles")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, HEAD, POST"


def test_the_page_and_its_files_come_from_here(http: httpx.Client) -> None:
    page = http.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    linked = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(linked) == 4
    for link in linked:
        assert link.startswith(("/docs/", "data:"))
        if link.startswith("/"):
            answer = http.get(link)
            assert answer.status_code == 200
            assert re.search("javascript|css", answer.headers["content-type"])
            assert len(answer.content) > 100
    assert "SwaggerUIBundle" in http.get("/docs/swagger-ui.js").text[:200_000]
    assert '"/openapi.json"' in http.get("/docs/page.js").text


@pytest.mark.parametrize("name", ["nothing.js", "__init__.py", "..%2f__init__.py", "redoc.js"])
def test_the_page_gives_nothing_else_away(http: httpx.Client, name: str) -> None:
    answer = http.get(f"/docs/{name}")
    assert (answer.status_code, json.loads(answer.text)["code"]) == (404, "not_found")
