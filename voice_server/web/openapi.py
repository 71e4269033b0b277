"""``/openapi.json``, made of the operations themselves, and ``/docs``, a page to try them with.

The page is Swagger UI, whose files come from the package ``offapi``: nothing is fetched from
anywhere else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from http import HTTPStatus
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic.json_schema import JsonSchemaMode, models_json_schema
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

from voice_server import __version__
from voice_server.core.errors import NotFound
from voice_server.web.errors import Problem
from voice_server.web.operations import Content, Operation

_REF = "#/components/schemas/{model}"
_PARAMETER = re.compile(r"\{(\w+)(?::(\w+))?\}")
_KINDS = {"int": "integer", "float": "number"}
_ABOUT = """\
Text goes in, speech comes out, while both are still being made.

The WebSockets are described in docs/protocol.md: `/stream-tokens` takes a language model's tokens,
`/stream?text=…` a whole text. A refusal or failure is `{"detail", "code", "retryable"}`, or, where
another vendor's client asks, what that vendor would answer. Vendors' operations stand here under
`/openai`, `/elevenlabs`, `/deepgram` and `/cartesia`; docs/clients says when that may be left out.
"""

Asked = tuple[Any, JsonSchemaMode]  # a model, and whether it is asked for or answered


def document(routes: Iterable[BaseRoute]) -> dict[str, Any]:
    """The OpenAPI 3.1 document of every Operation among ``routes``."""
    operations = [route for route in routes if isinstance(route, Operation)]
    models: dict[Asked, None] = dict.fromkeys([(Problem, "serialization"), *_models(operations)])
    names, schemas = models_json_schema(list(models), ref_template=_REF)
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        path = _PARAMETER.sub(r"{\1}", operation.described_path)
        paths.setdefault(path, {})[operation.method.lower()] = _described(operation, names)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Voice Server",
            "version": __version__,
            "description": _ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "tags": [{"name": tag} for tag in dict.fromkeys(op.tag for op in operations)],
        "paths": paths,
        "components": {
            "schemas": schemas.get("$defs", {}),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
        # The empty one: a server without a key asks for none.
        "security": [{"bearer": []}, {"header": []}, {}],
    }


Names = dict[Asked, dict[str, Any]]


def _models(operations: Iterable[Operation]) -> Iterable[Asked]:
    for operation in operations:
        for model in (operation.body, operation.form):
            if model is not None:
                yield model, "validation"
        for answer in operation.answers.values():
            if not isinstance(answer, Content):
                yield answer, "serialization"
        for _, model in map(operation.refused, _errors(operation)):
            if model is not None:
                yield model, "serialization"


def _described(operation: Operation, names: Names) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.operation_id,
        "summary": operation.summary,
        "tags": [operation.tag],
        "responses": _responses(operation, names),
    }
    if operation.description:
        described["description"] = operation.description
    if parameters := [*_path_parameters(operation), *_query_parameters(operation)]:
        described["parameters"] = parameters
    for model, media_type in (
        (operation.body, "application/json"),
        (operation.form, "multipart/form-data"),
    ):
        if model is not None:
            content = {media_type: {"schema": names[model, "validation"]}}
            described["requestBody"] = {"required": True, "content": content}
    if operation.is_open:
        described["security"] = []
    return described


def _path_parameters(operation: Operation) -> Iterable[dict[str, Any]]:
    for name, kind in _PARAMETER.findall(operation.path):
        schema = {"type": _KINDS.get(kind, "string")}
        if schema["type"] == "string":
            schema["minLength"] = 1  # type: ignore[assignment]
        yield {"name": name, "in": "path", "required": True, "schema": schema}


def _query_parameters(operation: Operation) -> Iterable[dict[str, Any]]:
    if operation.query is None:
        return
    schema = operation.query.model_json_schema(ref_template=_REF)
    for name, inner in schema["properties"].items():
        inner = {key: value for key, value in inner.items() if key != "title"}
        # A query has no null: what is not there is left out.
        options = [option for option in inner.pop("anyOf", []) if option != {"type": "null"}]
        if len(options) == 1:
            inner |= options[0]
        if inner.get("default", ...) is None:
            del inner["default"]
        described = {"name": name, "in": "query", "schema": inner}
        if "description" in inner:
            described["description"] = inner.pop("description")
        yield {**described, "required": name in schema.get("required", ())}


def _responses(operation: Operation, names: Names) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for status, answer in operation.answers.items():
        if isinstance(answer, Content):
            content: dict[str, Any] = {media_type: {} for media_type in answer.media_types}
            description = answer.description
        else:
            content = {"application/json": {"schema": names[answer, "serialization"]}}
            description = (answer.__doc__ or "").strip().partition("\n")[0]
        responses[str(status)] = {"description": description, "content": content}
    for status, model in map(operation.refused, _errors(operation)):
        schema = names[model or Problem, "serialization"]
        said = {"description": HTTPStatus(status).phrase}
        responses.setdefault(
            str(status), {**said, "content": {"application/json": {"schema": schema}}}
        )
    return dict(sorted(responses.items()))


def _errors(operation: Operation) -> set[int]:
    found = {403, 500, *operation.errors}
    if not operation.is_open:
        found |= {401, 429}
    if operation.query is not None:
        found.add(422)
    if operation.body is not None or operation.form is not None:
        found |= {400, 413, 422}
    return found


# -- the page ------------------------------------------------------------------------------------

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Voice Server</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/docs/swagger-ui.css">
</head>
<body>
<div id="page"></div>
<script src="/docs/swagger-ui.js"></script>
<script src="/docs/page.js"></script>
</body>
</html>
"""
_SCRIPT = """\
SwaggerUIBundle({
  url: "/openapi.json", dom_id: "#page", deepLinking: true, validatorUrl: null,
  persistAuthorization: true, presets: [SwaggerUIBundle.presets.apis], layout: "BaseLayout",
});
"""
_ASSETS = {"swagger-ui.js": "swagger_bundle.js", "swagger-ui.css": "swagger_style.css"}
# The page may talk to this server and to nobody else.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; media-src 'self' blob:; font-src 'self' data:; "
    "frame-ancestors 'none'"
)


async def openapi(request: Request) -> Response:
    """The document of this server's HTTP operations, OpenAPI 3.1."""
    state = request.app.state
    if not hasattr(state, "openapi"):
        state.openapi = document(request.app.routes)
    return JSONResponse(state.openapi)


async def docs(request: Request) -> Response:
    """A page that shows the operations and lets people try them."""
    return HTMLResponse(_PAGE, headers={"Content-Security-Policy": _POLICY})


async def asset(request: Request) -> Response:
    """A file of the page."""
    name: str = request.path_params["name"]
    if name == "page.js":
        return Response(_SCRIPT, media_type="text/javascript")
    if name not in _ASSETS:
        raise NotFound(f"/docs has no file {name[:80]!r}")
    return FileResponse(_assets() / _ASSETS[name])


@cache
def _assets() -> Path:
    """Where the package's files are. It is not imported: that would read ten megabytes."""
    spec = find_spec("offapi")
    if spec is None or not spec.submodule_search_locations:
        raise NotFound("the package offapi is not installed: pip install offapi")
    return Path(spec.submodule_search_locations[0])


def routes() -> list[BaseRoute]:
    return [
        Route("/openapi.json", openapi),
        Route("/docs", docs),
        Route("/docs/{name}", asset),
    ]
