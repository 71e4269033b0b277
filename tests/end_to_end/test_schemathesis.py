"""Requests made of the OpenAPI document, right and wrong ones, are answered as it says.

Schemathesis makes them: for every operation some that the document allows and some that it does
not, always the same ones.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.config import (
    ChecksConfig,
    NotAServerErrorConfig,
    ProjectConfig,
    ProjectsConfig,
)
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.end_to_end.conftest import PATIENCE, Server, running
from tests.recordings import wav
from voice_server.web.app import DOORS
from voice_server.web.openapi import document

KEY = {"X-API-Key": "the only key"}
ALLOWED, WRONG = schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
PATHS = document(route for door in DOORS for route in door.routes())["paths"]
OPERATIONS = {
    f"{method.upper()} {path}": operation
    for path, item in PATHS.items()
    for method, operation in item.items()
}
# Whatever is not a query or a body is text of any kind, which cannot be wrong.
CAN_BE_WRONG = [
    label
    for label, operation in OPERATIONS.items()
    if "requestBody" in operation
    or any(p["in"] == "query" for p in operation.get("parameters", ()))
]
# The tone backend neither designs voices nor writes down speech.
REFUSED = (
    "POST /api/v1/tts/design",
    "POST /transcribe",
    "POST /openai/v1/audio/transcriptions",
)

# What is set to something that exists, and what to something usual.
NAMING = {"profile_id", "voice_id", "voice", "items", "backend", "language", "model", "model_id"}
RECORDINGS = {"file", "audio", "audio_file", "audio_sample", "clip", "files"}
PLAIN = {
    "text": "Hello.",
    "input": "Hello.",
    "transcript": "Hello.",
    "message": {"type": "voice-request", "text": "Hello.", "sampleRate": 8_000},
    "language_code": "en",
    "response_format": "wav",
    "response_text": "Hello.",
    "sample_text": "Hello.",
    "voice_name": "Somebody",
    "tags": "",
    "consent": "",
    "format": "wav",
    "sample_rate": 24_000,
    "seed": 1,
    "instructions": None,
    "model_size": "",
}

# What is better left out, where it may be.
OPTIONAL = {"output_format", "encoding", "container", "bit_rate", "callback", "speed"}

generated = settings(
    max_examples=15,
    phases=[Phase.generate],
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server for these tests alone. It has a key, or the first that is made would shut us out."""
    folder = tmp_path_factory.mktemp("described")
    with running(folder, "tone", api_key=KEY["X-API-Key"]) as server:
        server.wait_ready()
        yield server


@pytest.fixture(scope="module")
def described(own: Server) -> schemathesis.BaseSchema:
    # What cannot be done now, such as writing down speech without a transcriber, is a 503. It is
    # no mistake of the server as long as it is documented, which another check finds out.
    checks = ChecksConfig(
        not_a_server_error=NotAServerErrorConfig(expected_statuses=["2xx", "3xx", "4xx", "503"])
    )
    projects = ProjectsConfig(default=ProjectConfig(checks=checks))
    return schemathesis.openapi.from_url(
        f"{own.url}/openapi.json",
        config=schemathesis.Config(seed=1, projects=projects),
        headers=KEY,
        timeout=PATIENCE,
    )


@pytest.fixture
def http(own: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=own.url, headers=KEY, timeout=PATIENCE) as client:
        yield client
        # What unloads the model must not make the others' server unready.
        assert client.post("/models/load").status_code == 200


class Existing:
    """What is in the server, made when it is first asked for, as requests name it."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http
        self._cached: dict[str, Any] = {
            **dict.fromkeys(("name", "backend", "model", "model_id"), "tone"),
            "language": "en",
        }

    def __getitem__(self, name: str) -> Any:
        if name not in self._cached:
            self._cached[name] = getattr(self, f"_{name}")()
        return self._cached[name]

    def _made(self, path: str, **request: Any) -> dict[str, Any]:
        answer = self._http.post(path, **request)
        assert answer.is_success, answer.text
        made: dict[str, Any] = answer.json()
        return made

    def _profile_without_sample(self) -> str:
        made = self._made("/profiles", json={"name": f"Somebody {secrets.token_hex(8)}"})
        return str(made["id"])

    def _sample_id(self) -> str:
        path = f"/profiles/{self['profile_without_sample']}/samples"
        files, data = {"file": ("recording.wav", self["recording"])}, {"reference_text": "Hello."}
        return str(self._made(path, files=files, data=data)["id"])

    def _profile_id(self) -> str:
        assert self["sample_id"]
        return str(self["profile_without_sample"])

    def _voice_id(self) -> str:
        return str(self["profile_id"])

    def _voice(self) -> str:
        return str(self["profile_id"])

    def _project_id(self) -> str:
        return str(self._made("/projects", json={"name": "Project"})["id"])

    def _items(self) -> list[dict[str, Any]]:
        return [self["item"]]

    def _item(self) -> dict[str, Any]:
        return {"profile_id": self["voice_id"], "text": "Hello."}

    def _generation_id(self) -> str:
        return str(self._made("/generate", json=self["item"])["id"])

    def _batch_id(self) -> str:
        return str(self._made("/generate/batch", json={"items": self["items"]})["batch_id"])

    def _job_id(self) -> str:
        form = {"voice_id": self["voice_id"], "response_text": "Hello."}
        return self._http.post("/preview-from-voice", data=form).headers["X-Job-Id"]

    def _key_id(self) -> str:
        return str(self._made("/keys", json={"name": "another"})["id"])

    def _recording(self) -> bytes:
        return wav()

    def _package(self) -> bytes:
        return self._http.get(f"/api/v1/tts/voices/{self['voice_id']}/package").content

    def put_into(self, case: schemathesis.Case, is_plain: bool) -> None:
        """Let a request name what exists, where it names anything.

        ``is_plain``: let it ask for nothing strange either, so that it can be done.
        """
        for name in case.path_parameters:
            case.path_parameters[name] = self[name]
        for values in (case.query, case.body):
            if not isinstance(values, dict):
                continue
            for name in values.keys() & NAMING:
                values[name] = self[name]
            for name in values.keys() & RECORDINGS:
                file = self["package" if case.path.endswith("/import") else "recording"]
                values[name] = [file] if name == "files" else file
            for name in values.keys() & PLAIN.keys() if is_plain else ():
                values[name] = PLAIN[name]
            for name in values.keys() & OPTIONAL if is_plain else ():
                del values[name]
            if is_plain and case.method == "POST" and "name" in values:
                values["name"] = f"Name {secrets.token_hex(8)}"
            if is_plain and case.path.endswith("/clone") and "voice_id" in values:
                del values["voice_id"]


def ask(own: Server, case: schemathesis.Case) -> int:
    """The status of the answer, which must be as the document says."""
    answer = case.call_and_validate(own.url, headers=KEY, checks=CHECKS, timeout=PATIENCE)
    return int(answer.status_code)


def test_these_are_all_the_operations(described: schemathesis.BaseSchema) -> None:
    assert {result.ok().label for result in described.get_all_operations()} == set(OPERATIONS)


@pytest.mark.parametrize("label", OPERATIONS)
def test_what_the_document_allows_is_answered_as_it_says(
    own: Server, http: httpx.Client, described: schemathesis.BaseSchema, label: str
) -> None:
    operation = described.find_operation_by_label(label)
    assert operation is not None
    existing = Existing(http)
    statuses = set()

    @generated
    @given(
        case=operation.as_strategy(ALLOWED), change=st.sampled_from(("none", "existing", "plain"))
    )
    def each(case: schemathesis.Case, change: str) -> None:
        if change != "none":
            existing.put_into(case, is_plain=change == "plain")
        statuses.add(ask(own, case))

    each()
    # Otherwise nothing but refusals was compared with the document.
    assert statuses & {200, 201, 202} or label in REFUSED, statuses


@pytest.mark.parametrize("label", CAN_BE_WRONG)
def test_what_it_does_not_allow_is_answered_as_it_says_too(
    own: Server, http: httpx.Client, described: schemathesis.BaseSchema, label: str
) -> None:
    operation = described.find_operation_by_label(label)
    assert operation is not None

    @generated
    @given(case=operation.as_strategy(WRONG))
    def each(case: schemathesis.Case) -> None:
        ask(own, case)

    each()


@pytest.mark.parametrize("path", ["/history", "/projects", "/profiles"])
def test_a_page_beyond_what_a_database_counts_is_refused(http: httpx.Client, path: str) -> None:
    assert http.get(path, params={"offset": 2**63 - 1}).status_code == 200
    assert http.get(path, params={"offset": 2**63}).status_code == 422
