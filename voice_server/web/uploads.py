"""What the doors that take a file have in common."""

from __future__ import annotations

from starlette.datastructures import UploadFile

from voice_server.audio.decode import Limits
from voice_server.core.errors import TooLarge

MAX_RECORDING = Limits().max_bytes
# The other fields of the form, and its own punctuation.
MAX_UPLOAD = MAX_RECORDING + 1024 * 1024


async def read_upload(file: UploadFile, limit: int = MAX_RECORDING) -> bytes:
    """The bytes of an uploaded file. Raises TooLarge."""
    data = await file.read(limit + 1)
    if len(data) > limit:
        raise TooLarge(
            f"File too large: the maximum is {limit // 2**20} MB. Compress or trim the audio",
            code="file_too_large",
        )
    return data
