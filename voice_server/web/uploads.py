"""What the doors that take a file have in common."""

from __future__ import annotations

from starlette.datastructures import UploadFile

from voice_server.audio.decode import Limits
from voice_server.web.operations import FORM_ROOM, file_too_large

MAX_RECORDING = Limits().max_bytes
MAX_UPLOAD = MAX_RECORDING + FORM_ROOM


async def read_upload(file: UploadFile, limit: int = MAX_RECORDING) -> bytes:
    """The bytes of an uploaded file. Raises TooLarge."""
    data = await file.read(limit + 1)
    if len(data) > limit:
        raise file_too_large(limit)
    return data
