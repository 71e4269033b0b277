"""The form of a request, whole: what was broken off, or is no form, is refused, not forgotten."""

from __future__ import annotations

from typing import Any

from starlette.datastructures import FormData
from starlette.formparsers import FormParser, MultiPartException, MultiPartParser
from starlette.requests import Request

from voice_server.core.errors import InvalidRequest, RequestError

MULTIPART = "multipart/form-data"
URLENCODED = "application/x-www-form-urlencoded"


class _WholeForm(MultiPartParser):
    """Starlette's parser, which takes the end of the body for the end of the form."""

    is_whole = False

    def on_end(self) -> None:
        self.is_whole = True


async def read_form(request: Request) -> FormData:
    """The form of the request; close it when its files are read.

    Raises RequestError (``bad_request``) for a form that is damaged or does not end, and
    InvalidRequest for a body of another type.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == MULTIPART:
        parser = _WholeForm(request.headers, request.stream())
        try:
            form = await parser.parse()
        except MultiPartException as exc:
            raise _damaged(exc.message) from None
        if not parser.is_whole:
            await form.close()
            raise _damaged("it ends before its last boundary")
        return form
    if kind == URLENCODED:
        return await FormParser(request.headers, request.stream()).parse()
    if kind and await request.body():
        raise InvalidRequest(f"expected a form, got {kind[:80]}; send the fields as {MULTIPART}")
    return FormData()


def fields(form: FormData) -> dict[str, Any]:
    """The fields of a form; one that comes several times is a list."""
    found = {name: form.getlist(name) for name in form}
    return {name: some[0] if len(some) == 1 else some for name, some in found.items()}


def _damaged(why: str) -> RequestError:
    return RequestError(
        f"the form cannot be read: {why.rstrip('.')}; send all of it again as {MULTIPART}",
        code="bad_request",
    )
