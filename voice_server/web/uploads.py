"""What the doors that take a file have in common."""

from __future__ import annotations

from starlette.datastructures import UploadFile

from voice_server.audio.decode import Limits
from voice_server.web.operations import FORM_ROOM, file_too_large

MAX_RECORDING = Limits().max_bytes
MAX_UPLOAD = MAX_RECORDING + FORM_ROOM


async def read_upload(file: UploadFile) -> bytes:
    """The bytes of an uploaded recording. Raises TooLarge."""
    data = await file.read(MAX_RECORDING + 1)
    if len(data) > MAX_RECORDING:
        raise file_too_large(MAX_RECORDING)
    return data
