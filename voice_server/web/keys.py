"""``/keys`` and ``/tickets``: who may do what."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.routing import BaseRoute

from voice_server.control.cloning import clean_name
from voice_server.core.errors import RequestError
from voice_server.storage.keyring import MASTER, TICKET_SECONDS, Key, Keyring
from voice_server.web.operations import Body, Operation


class NewKey(Body):
    """A key to be made."""

    name: str = Field(max_length=200, description="Whose it is, for people.")
    scopes: list[Literal["speak", "voices", "admin"]] = Field(
        default=["speak"], min_length=1, description="`admin` may do everything."
    )
    rate: str = Field(
        default="", max_length=60, description="Such as `60/minute`; none is no limit."
    )


class KeyInfo(BaseModel):
    """A key, without its secret."""

    id: str
    name: str
    scopes: list[str]
    rate: str
    created_at: str


class CreatedKey(KeyInfo):
    """A new key. Its secret is shown this once."""

    key: str


class KeyList(BaseModel):
    """The keys, oldest first."""

    keys: list[KeyInfo]


class Ticket(BaseModel):
    """A word that opens one WebSocket, as `?ticket=…`."""

    ticket: str
    expires_in: float = Field(description="Seconds.")


async def create(request: Request, body: NewKey) -> CreatedKey:
    """Make a key. From the first one on, every request needs one, so that one is for an admin."""
    is_open = request.scope["state"].get("key") is None
    if is_open and "admin" not in body.scopes:
        raise RequestError(
            "scopes › expected admin for the first key: without it nobody could make another",
            code="bad_scope",
        )
    secret, key = await _keyring(request).create(clean_name(body.name), body.scopes, body.rate)
    return CreatedKey(key=secret, **_info(key).model_dump())


async def list_all(request: Request) -> KeyList:
    """List the keys."""
    return KeyList(keys=[_info(key) for key in _keyring(request).all()])


async def revoke(request: Request) -> KeyInfo:
    """Take a key away."""
    return _info(await _keyring(request).revoke(request.path_params["key_id"]))


async def ticket(request: Request) -> Ticket:
    """Get a ticket for a WebSocket: good once, within 60 seconds, for what the key may do."""
    key: Key = request.scope["state"].get("key") or MASTER
    return Ticket(ticket=_keyring(request).issue_ticket(key), expires_in=TICKET_SECONDS)


def _keyring(request: Request) -> Keyring:
    keyring: Keyring = request.app.state.keyring
    return keyring


def _info(key: Key) -> KeyInfo:
    return KeyInfo(
        id=key.id,
        name=key.name,
        scopes=sorted(key.scopes),
        rate=key.rate,
        created_at=key.created_at,
    )


def routes() -> list[BaseRoute]:
    tag = "keys"
    return [
        Operation(
            *("POST", "/keys", create),
            tag=tag,
            body=NewKey,
            answers={201: CreatedKey},
            errors=[400, 507],
        ),
        Operation("GET", "/keys", list_all, tag=tag, answers={200: KeyList}),
        Operation(
            "DELETE", "/keys/{key_id}", revoke, tag=tag, answers={200: KeyInfo}, errors=[404]
        ),
        Operation("POST", "/tickets", ticket, tag=tag, answers={200: Ticket}),
    ]
