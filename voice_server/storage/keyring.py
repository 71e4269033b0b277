"""API keys: what each may do, and how often. Only the hash of a key is kept.

A key is 256 random bits, so that its SHA-256 needs neither salt nor slowness. All keys are in
memory: a request is checked without waiting for anything.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from voice_server.core.errors import NotFound, RequestError
from voice_server.storage.database import Database
from voice_server.storage.quick import read_quickly
from voice_server.storage.timestamps import now

SCOPES = ("speak", "voices", "admin")
TICKET_SECONDS = 60.0
_MAX_TICKETS = 10_000


@dataclass(frozen=True, slots=True)
class Key:
    """A key without its secret. ``admin`` among ``scopes`` means all of them. ``rate`` is such as
    ``60/minute``, "" for no limit.
    """

    id: str
    name: str
    scopes: frozenset[str]
    rate: str
    created_at: str

    def may(self, scope: str) -> bool:
        """Whether the key is good for this scope; "" asks for nothing but a key."""
        return not scope or scope in self.scopes or "admin" in self.scopes


class Keyring:
    """The keys of one database, and the tickets of this process."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._keys: dict[str, Key] = {}
        # What is read must not undo a change made meanwhile: a revoked key would be good again.
        self._changing = asyncio.Lock()
        self._tickets: dict[str, tuple[Key, float]] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, secret: bytes) -> Key | None:
        """The key whose secret this is."""
        return self._keys.get(hashlib.sha256(secret).hexdigest())

    def all(self) -> list[Key]:
        """Every key, oldest first."""
        return sorted(self._keys.values(), key=lambda key: (key.created_at, key.id))

    async def load(self) -> None:
        """Read the keys, again if somebody else changed them."""
        async with self._changing:
            tables = await asyncio.to_thread(read_quickly, self._database.url, "SELECT * FROM keys")
            if tables is not None:
                rows: Collection[Mapping[str, Any]] = tables[0]
            else:
                from sqlalchemy import select

                from voice_server.storage.schema import keys as table

                async with self._database.read() as connection:
                    found = (await connection.execute(select(table))).mappings().all()
                rows = [dict(row) for row in found]
            self._keys = {row["sha256"]: _key(row) for row in rows}

    async def create(
        self, name: str, scopes: Collection[str] = ("speak",), rate: str = ""
    ) -> tuple[str, Key]:
        """A new key: its secret, which nobody can read again, and what is kept of it.

        Raises RequestError for an unknown scope or a rate that is none.
        """
        unknown = sorted(set(scopes) - set(SCOPES))
        if unknown or not scopes:
            raise RequestError(
                f"scopes › expected some of {', '.join(SCOPES)}"
                + (f", not {unknown[0][:40]!r}" if unknown else ""),
                code="bad_scope",
            )
        if rate:
            await asyncio.to_thread(parse_rate, rate)
        from voice_server.storage.schema import keys as table

        secret = f"vs_{secrets.token_urlsafe(32)}"
        row = {
            "id": uuid.uuid4().hex[:12],
            "name": name,
            "sha256": hashlib.sha256(secret.encode()).hexdigest(),
            "scopes": sorted(set(scopes)),
            "rate": rate,
            "created_at": now(),
        }
        async with self._changing:
            async with self._database.write() as connection:
                await connection.execute(table.insert(), row)
            self._keys[str(row["sha256"])] = key = _key(row)
        return secret, key

    async def revoke(self, key_id: str) -> Key:
        """Take a key away, with its tickets. Raises NotFound."""
        from voice_server.storage.schema import keys as table

        async with self._changing:
            for digest, key in self._keys.items():
                if key.id == key_id:
                    async with self._database.write() as connection:
                        await connection.execute(table.delete().where(table.c.id == key_id))
                    del self._keys[digest]
                    return key
        raise NotFound(f"key {key_id[:40]!r} not found; list them", code="unknown_key")

    def issue_ticket(self, key: Key) -> str:
        """A word that opens one WebSocket within 60 s, for browsers, which can send no header."""
        at = time.monotonic()
        if len(self._tickets) >= _MAX_TICKETS:
            self._tickets = {t: v for t, v in self._tickets.items() if v[1] > at}
            while len(self._tickets) >= _MAX_TICKETS:
                del self._tickets[next(iter(self._tickets))]
        ticket = secrets.token_urlsafe(32)
        self._tickets[ticket] = key, at + TICKET_SECONDS
        return ticket

    def take_ticket(self, ticket: str) -> Key | None:
        """The key that the ticket stands for, once; None if it is used, old, or its key revoked."""
        key, until = self._tickets.pop(ticket, (None, 0.0))
        if key is None or time.monotonic() > until:
            return None
        is_master = key.id == MASTER.id
        return key if is_master or key in self._keys.values() else None


MASTER = Key("master", "VOICE_SERVER_API_KEY", frozenset({"admin"}), "", "")
"""The key of the settings, which may do everything."""


def parse_rate(rate: str) -> Any:
    """``60/minute`` as the library ``limits`` has it. Imports that. Raises RequestError."""
    import limits

    try:
        return limits.parse(rate)
    except ValueError:
        raise RequestError(
            f"rate › expected such as 60/minute or 5/second, not {rate[:40]!r}", code="bad_rate"
        ) from None


def _key(row: Mapping[str, Any]) -> Key:
    return Key(
        id=row["id"],
        name=row["name"],
        scopes=frozenset(row["scopes"]),
        rate=row["rate"],
        created_at=row["created_at"],
    )
