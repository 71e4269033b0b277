"""The bodies of refusals, as each vendor's reference documents them; errors.py fills them."""

from __future__ import annotations

from pydantic import BaseModel


class OpenAIError(BaseModel):
    """https://platform.openai.com/docs/guides/error-codes"""

    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIProblem(BaseModel):
    """A refusal as OpenAI's clients read it."""

    error: OpenAIError


class ElevenLabsDetail(BaseModel):
    """https://elevenlabs.io/docs/eleven-api/resources/errors"""

    status: str
    message: str
    request_id: str


class ElevenLabsProblem(BaseModel):
    """A refusal as ElevenLabs' clients read it."""

    detail: ElevenLabsDetail


class ElevenLabsField(BaseModel):
    """A field, and what is wrong with it."""

    loc: list[str]
    msg: str
    type: str


class ElevenLabsInvalid(BaseModel):
    """What is wrong with the fields of a request."""

    detail: list[ElevenLabsField]


class DeepgramProblem(BaseModel):
    """https://developers.deepgram.com/docs/errors"""

    err_code: str
    err_msg: str
    request_id: str


class CartesiaProblem(BaseModel):
    """https://docs.cartesia.ai/api-reference/errors"""

    error_code: str
    title: str
    message: str
    request_id: str


class PlainProblem(BaseModel):
    """What telephone platforms write into their logs."""

    error: str
    code: str
