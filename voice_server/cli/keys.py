"""``cli.py keys``: who may use the server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from voice_server.cli.console import errors_told, note, print_table

if TYPE_CHECKING:
    from voice_server.storage.keyring import Key, Keyring

app = typer.Typer(help="Look after the API keys.", no_args_is_help=True)
T = TypeVar("T")


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Whose it is, for people.")],
    scope: Annotated[
        list[str] | None,
        typer.Option(help="speak, voices or admin; may be repeated.", show_default="speak"),
    ] = None,
    rate: Annotated[str, typer.Option(help="Such as 60/minute.", show_default="no limit")] = "",
) -> None:
    """Make a key and print it, this once. From the first one on, every request needs one."""
    with errors_told():

        async def created(keyring: Keyring) -> tuple[str, Key]:
            return await keyring.create(name, scope or ["speak"], rate)

        secret, key = _run(created, is_change=True)
        typer.echo(secret)
        note(f"key {key.id} for {', '.join(sorted(key.scopes))}; it cannot be shown again")


@app.command("list")
def list_() -> None:
    """List the keys, without their secrets."""
    with errors_told():

        async def listed(keyring: Keyring) -> list[Key]:
            return keyring.all()

        rows = [
            (key.id, key.name, ", ".join(sorted(key.scopes)), key.rate, key.created_at[:19])
            for key in _run(listed)
        ]
        print_table(("key", "name", "scopes", "rate", "created"), rows)


@app.command()
def revoke(key: Annotated[str, typer.Argument(help="Its id.")]) -> None:
    """Take a key away; a running server refuses it within a second."""
    with errors_told():

        async def revoked(keyring: Keyring) -> Key:
            return await keyring.revoke(key)

        note(f"{_run(revoked, is_change=True).name} has no key any more")


def _run(work: Callable[[Keyring], Awaitable[T]], *, is_change: bool = False) -> T:
    from voice_server.config import load_config
    from voice_server.storage.keyring import Keyring
    from voice_server.storage.stamp import Stamp
    from voice_server.web.control import catalogue_of

    settings = load_config().settings

    async def opened() -> T:
        catalogue = catalogue_of(settings)
        await asyncio.to_thread(catalogue.data_dir.mkdir, parents=True, exist_ok=True)
        keyring = Keyring(catalogue.database)
        await keyring.load()
        try:
            return await work(keyring)
        finally:
            if is_change:
                await asyncio.to_thread(Stamp(catalogue.data_dir).touch)
            await catalogue.database.close()

    return asyncio.run(opened())
