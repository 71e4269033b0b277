"""How requests are checked and errors answered, without a server."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Literal

import pytest
from pydantic import Field
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from voice_server.core import errors as e
from voice_server.web.errors import answer, answer_error, error_of
from voice_server.web.operations import Body, Content, Operation, Upload, check, check_json
from voice_server.web.speech import SpeechRequest

TEXT = Content(("text/plain",), "words")


class Wanted(Body):
    name: str = Field(max_length=5)
    kind: Literal["a", "b"] = "a"
    count: int | None = Field(default=None, ge=1)
    ratio: float = 1.0


class Uploaded(Body):
    file: Upload
    note: str = ""


def mistake(body: str) -> e.VoiceServerError:
    with pytest.raises(e.RequestError) as caught:
        check_json(Wanted, body.encode())
    return caught.value


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("{}", "name › this field is missing"),
        ('{"name": 5}', "name › expected text, got 5"),
        ('{"name": null}', "name › expected text, got null"),
        ('{"name": "abcdef"}', "name › expected at most 5 characters"),
        ('{"name": "x", "kind": "c"}', 'kind › expected one of a, b, got "c"'),
        ('{"name": "x", "count": 0}', "count › expected an integer ≥ 1, got 0"),
        ('{"name": "x", "count": "1"}', 'count › expected an integer ≥ 1, got "1"'),
        ('{"name": "x", "ratio": NaN}', "ratio › expected a finite number"),
        ('{"name": "x", "coumt": 1}', "coumt › unknown field; did you mean 'count'?"),
        ('{"kind": "c"}', 'name › this field is missing; kind › expected one of a, b, got "c"'),
        ("[]", "expected a map, got []"),
    ],
)
def test_a_wrong_field_is_named_with_what_was_expected(body: str, says: str) -> None:
    error = mistake(body)
    assert (error.status, error.code) == (422, "invalid_request")
    assert says in str(error)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ('{"text": "x", "format": {"kbps": 8}}', "format.kbps › unknown field; known: bitrate, "),
        ('{"text": "x", "format": {"sample_rate": "x"}}', "format.sample_rate › expected an int"),
    ],
)
def test_a_field_of_what_may_be_a_name_or_a_map_is_told_too(body: str, says: str) -> None:
    with pytest.raises(e.RequestError) as caught:
        check_json(SpeechRequest, body.encode())
    assert says in str(caught.value)


def test_a_long_value_is_not_told_back_whole() -> None:
    assert len(str(mistake(json.dumps({"name": "x", "count": "y" * 10_000})))) < 200


def test_a_query_is_text_and_is_read_as_what_it_means() -> None:
    assert check(Wanted, {"name": "x", "count": "7", "ratio": "0.5"}).count == 7


# -- through an application ----------------------------------------------------------------------


async def greet(request: Request, body: Wanted) -> Response:
    """Greet somebody."""
    return PlainTextResponse(f"hello {body.name}")


async def keep(request: Request, form: Uploaded) -> Response:
    """Keep a file."""
    content = await form.file.read()
    return PlainTextResponse(f"{form.file.filename} {len(content)} {form.note}")


def call(operation: Operation, body: bytes, content_type: str = "") -> tuple[int, str]:
    """The status and body of the answer; the body comes in small pieces."""
    app = Starlette(routes=[operation], exception_handlers={e.VoiceServerError: answer_error})

    class Speech:
        class metrics:
            class refused:
                @staticmethod
                def labels(code: str) -> Any:
                    class Counter:
                        def inc(self) -> None: ...

                    return Counter()

    app.state.speech = Speech
    pieces = [body[i : i + 100] for i in range(0, len(body), 100)] or [b""]
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        piece = pieces.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(pieces)}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/it",
        "raw_path": b"/it",
        "root_path": "",
        "scheme": "http",
        "query_string": b"",
        "headers": [(b"content-type", content_type.encode())],
    }
    asyncio.run(app(scope, receive, send))
    return sent[0]["status"], b"".join(m.get("body", b"") for m in sent).decode()


def test_a_body_is_checked_before_the_handler_sees_it() -> None:
    operation = Operation("POST", "/it", greet, tag="t", body=Wanted, answers={200: TEXT})
    assert call(operation, b'{"name": "Maya"}') == (200, "hello Maya")
    assert call(operation, b'{"name": 1}')[0] == 422
    assert operation.summary == "Greet somebody."


@pytest.mark.parametrize(("length", "status"), [(990, 422), (2_000, 413), (1_000_000, 413)])
def test_a_body_has_a_limit(length: int, status: int) -> None:
    operation = Operation(
        *("POST", "/it", greet), tag="t", body=Wanted, answers={200: TEXT}, max_body=1_000
    )
    body = json.dumps({"name": "x" * (length - 12)}).encode()
    assert call(operation, body)[0] == status


def test_a_form_may_hold_a_file() -> None:
    operation = Operation("POST", "/it", keep, tag="t", form=Uploaded, answers={200: TEXT})
    body = (
        b"--B\r\nContent-Disposition: form-data; name=note\r\n\r\nwell\r\n"
        b'--B\r\nContent-Disposition: form-data; name=file; filename="a.wav"\r\n\r\n'
        + b"\0" * 500
        + b"\r\n--B--\r\n"
    )
    form = "multipart/form-data; boundary=B"
    assert call(operation, body, form) == (200, "a.wav 500 well")
    status, problem = call(operation, body.replace(b"name=file", b"name=fiel"), form)
    assert status == 422
    assert "file › this field is missing" in json.loads(problem)["detail"]
    small = Operation(
        *("POST", "/it", keep), tag="t", form=Uploaded, answers={200: TEXT}, max_body=300
    )
    assert call(small, body, form)[0] == 413


@pytest.mark.parametrize(
    "end", [b"\r\n--B--\r\n", b"\r\n--B--", b"\r\n--B--\r\nwhat follows is no part"]
)
def test_a_form_that_was_broken_off_is_refused_wherever_that_was(end: bytes) -> None:
    operation = Operation("POST", "/it", keep, tag="t", form=Uploaded, answers={200: TEXT})
    form = "multipart/form-data; boundary=B"
    whole = (
        b'--B\r\nContent-Disposition: form-data; name=file; filename="a.wav"\r\n\r\nsound'
        b"\r\n--B\r\nContent-Disposition: form-data; name=note\r\n\r\nwell"
    )
    assert call(operation, whole + end, form) == (200, "a.wav 5 well")
    for length in range(len(whole) + len(b"\r\n--B")):
        status, problem = call(operation, (whole + end)[:length], form)
        assert (status, json.loads(problem)["code"]) == (400, "bad_request")
        assert "send all of it again" in json.loads(problem)["detail"]


@pytest.mark.parametrize(
    ("body", "content_type", "status", "says"),
    [
        (b'{"file": "a"}', "application/json", 422, "expected a form, got application/json; send"),
        (b"RIFF", "audio/wav", 422, "send the fields as multipart/form-data"),
        (b"RIFF", "multipart/form-data", 400, "Missing boundary"),
        (b"note=x", "Application/x-www-form-urlencoded; charset=utf-8", 422, "file › this field"),
        (b"", "application/json", 422, "file › this field is missing"),
    ],
)
def test_what_is_no_form_is_told_what_a_form_is(
    body: bytes, content_type: str, status: int, says: str
) -> None:
    operation = Operation("POST", "/it", keep, tag="t", form=Uploaded, answers={200: TEXT})
    answered, problem = call(operation, body, content_type)
    assert answered == status
    assert says in json.loads(problem)["detail"]


def test_two_files_in_the_place_of_one_are_counted() -> None:
    operation = Operation("POST", "/it", keep, tag="t", form=Uploaded, answers={200: TEXT})
    part = b'--B\r\nContent-Disposition: form-data; name=file; filename="a.wav"\r\n\r\nsound\r\n'
    _, problem = call(operation, part * 2 + b"--B--\r\n", "multipart/form-data; boundary=B")
    assert "file › expected one file, got 2" in json.loads(problem)["detail"]


# -- errors --------------------------------------------------------------------------------------


def tree(cls: type[e.VoiceServerError] = e.VoiceServerError) -> list[type[e.VoiceServerError]]:
    return [cls, *(found for child in cls.__subclasses__() for found in tree(child))]


@pytest.mark.parametrize("cls", [c for c in tree() if c.__module__ == e.__name__])
def test_an_error_message_of_a_turn_has_the_status_of_its_error(
    cls: type[e.VoiceServerError],
) -> None:
    message = {"type": "error", "msg": "why", "code": cls.code, "retryable": cls.retryable}
    found = error_of(message)
    assert (found.status, found.code, str(found)) == (cls.status, cls.code, "why")
    body = json.loads(bytes(answer(found).body))
    assert body == {"detail": "why", "code": cls.code, "retryable": cls.retryable}


@pytest.mark.parametrize(
    ("code", "status"),
    [("bad_option", 400), ("unsupported_language", 400), ("out_of_memory", 503), ("own", 502)],
)
def test_a_code_of_a_backends_own_has_a_status_too(code: str, status: int) -> None:
    message = {"type": "error", "msg": "why", "code": code, "retryable": False}
    assert (error_of(message).status, error_of(message).code) == (status, code)


def test_a_time_to_come_back_is_told_in_whole_seconds() -> None:
    error = e.BusyError("later")
    error.retry_after = 1.2
    assert answer(error).headers["retry-after"] == "2"
    error.retry_after = 0.05
    assert answer(error).headers["retry-after"] == "1"
