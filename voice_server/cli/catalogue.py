"""``cli.py voices list|show|export|import|delete|clone``: the catalogue from the command line.

They work on the data folder, also while a server runs on it, which takes the change over within
a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from voice_server.cli.console import errors_told, note, print_table, tell_error, warn
from voice_server.cli.voices import app

if TYPE_CHECKING:
    from voice_server.control.packages import Imported, Packages
    from voice_server.core.voices import Voice
    from voice_server.storage.catalogue import Catalogue

T = TypeVar("T")
commands = app
VoiceId = Annotated[str, typer.Argument(help="Its id, or its name.", metavar="VOICE")]


@commands.command("list")
def list_() -> None:
    """List the voices that were made: cloned, designed, imported, dropped as a file."""
    with errors_told():

        async def listed(catalogue: Catalogue, _: Packages) -> list[tuple[str, ...]]:
            return [
                (v.id, v.name, v.kind, v.language, str(len(v.samples)), v.created_at[:19])
                for v in catalogue.voices()
            ]

        rows = _run(listed)
        print_table(("voice", "name", "kind", "language", "samples", "created"), rows)


@commands.command()
def show(voice: VoiceId) -> None:
    """Show everything that is known of a voice."""
    with errors_told():

        async def shown(catalogue: Catalogue, _: Packages) -> list[tuple[str, str]]:
            found = _found(catalogue, voice)
            names = [
                *("id", "name", "display_name", "kind", "description", "language", "source"),
                *("design", "design_language", "casting_notes", "model_used", "owner"),
                *("created_at", "updated_at"),
            ]
            rows = [(name, str(getattr(found, name))) for name in names if getattr(found, name)]
            if found.tags:
                rows.append(("tags", ", ".join(found.tags)))
            for number, sample in enumerate(found.samples, 1):
                rows.append(
                    (f"sample {number}", f"{sample.duration:.1f} s, {sample.loudness} LUFS")
                )
                rows.append(("  says", sample.transcript or "(no transcript)"))
                rows += [("  warning", text) for text in sample.notes]
            return rows

        print_table(("", ""), _run(shown))


@commands.command()
def export(
    voices: Annotated[
        list[str] | None, typer.Argument(help="Which; none is all of them.", metavar="VOICE…")
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the packages.")
    ] = Path(),
) -> None:
    """Write voices as packages, NAME.voicepkg.zip.

    Of several, what cannot be packed is told, and the rest is.
    """
    with errors_told():
        from voice_server.core.errors import ConfigError, VoiceServerError
        from voice_server.core.manifest import SUFFIX
        from voice_server.storage.atomic import write_atomic

        async def exported(catalogue: Catalogue, packages: Packages) -> int:
            wanted = [_found(catalogue, name) for name in voices or ()] or list(catalogue.voices())
            refused = 0
            try:
                await asyncio.to_thread(output.mkdir, parents=True, exist_ok=True)
                for voice in wanted:
                    path = output / f"{voice.id}{SUFFIX}"
                    try:
                        package = await packages.pack(voice.id)
                    except VoiceServerError as exc:
                        if len(wanted) == 1:
                            raise
                        refused += 1
                        tell_error(f"{voice.id} › {exc}")
                        continue
                    await asyncio.to_thread(write_atomic, path, package)
                    typer.echo(str(path))
            except OSError as exc:
                raise ConfigError(
                    f"--output {output} › cannot be written: {exc.strerror}"
                ) from None
            return refused

        if _run(exported):
            raise typer.Exit(1)


@commands.command("import")
def import_(
    places: Annotated[
        list[Path],
        typer.Argument(
            help="Packages, or folders: of packages, or where another server keeps its voices.",
            metavar="FILE…",
        ),
    ],
    on_conflict: Annotated[
        str, typer.Option(help="For an id that is taken: error, skip, rename or replace.")
    ] = "error",
) -> None:
    """Take packages, or the voices of another server, into the catalogue.

    Each voice is taken whole or not at all. Of several, what cannot be taken is told, and the
    rest is; nothing in a folder is changed.
    """
    with errors_told():
        from voice_server.control.adoption import Refused, adopt
        from voice_server.core.errors import VoiceServerError
        from voice_server.core.manifest import MAX_PACKAGE_BYTES, SUFFIX

        def tell(done: Imported, origin: Path) -> None:
            typer.echo(done.voice.id)
            if not done.is_new:
                note(f"{origin}: {done.voice.id} was there already")

        async def imported(_: Catalogue, packages: Packages) -> int:
            refused = 0
            for place in places:
                files = sorted(place.glob(f"*{SUFFIX}")) if place.is_dir() else [place]
                for file in files:
                    try:
                        data = await asyncio.to_thread(_read, file, MAX_PACKAGE_BYTES)
                        tell(await packages.unpack(data, on_conflict), file)
                    except VoiceServerError as exc:
                        if places == [file]:
                            raise
                        refused += 1
                        tell_error(f"{file} › {exc}")
                if files:
                    continue
                try:
                    async for done in adopt(packages, place, on_conflict):
                        if isinstance(done, Refused):
                            refused += 1
                            tell_error(f"{place} › {done.id} › {done.error}")
                        else:
                            tell(done, place)
                except VoiceServerError as exc:
                    if len(places) == 1:
                        raise
                    refused += 1
                    tell_error(exc)
            return refused

        if _run(imported, is_change=True):
            raise typer.Exit(1)


@commands.command()
def delete(voices: Annotated[list[str], typer.Argument(metavar="VOICE…")]) -> None:
    """Delete voices with their recordings."""
    with errors_told():

        async def deleted(catalogue: Catalogue, _: Packages) -> None:
            for name in voices:
                typer.echo((await catalogue.delete(_found(catalogue, name).id)).id)

        _run(deleted, is_change=True)


@commands.command()
def clone(
    name: Annotated[str, typer.Argument(help="What the voice is called.")],
    file: Annotated[Path, typer.Argument(help="A recording, audio or video.")],
    transcript: Annotated[str | None, typer.Option(help="What is said in it.")] = None,
    description: Annotated[str, typer.Option(help="What it is like.")] = "",
    language: Annotated[str, typer.Option(help="Language tag, such as pt-BR.")] = "",
) -> None:
    """Make a voice of a recording."""
    with errors_told():
        from voice_server.audio.decode import Limits
        from voice_server.control.cloning import Cloned, Cloning
        from voice_server.core.wire import parse_config

        parse_config({"language": language or None})  # Raises RequestError.

        async def cloned(catalogue: Catalogue, _: Packages) -> Cloned:
            return await Cloning(catalogue).clone(
                await asyncio.to_thread(_read, file, Limits().max_bytes),
                name=name,
                transcript=transcript,
                description=description,
                language=language,
                source="clone",
            )

        made = _run(cloned, is_change=True)
        typer.echo(made.voice.id)
        for warning in made.quality.warnings:
            warn(warning)
        if made.transcript_note:
            note(made.transcript_note)


def _found(catalogue: Catalogue, name: str) -> Voice:
    """The voice of this id or name. Raises UnknownVoice."""
    from voice_server.core.errors import UnknownVoice

    try:
        return catalogue.find(name)
    except UnknownVoice:
        raise UnknownVoice(
            f"no voice {name[:80]!r} was made or dropped here; `cli.py voices list` lists those, "
            "and `cli.py voices` what is built into an engine too"
        ) from None


def _read(file: Path, limit: int) -> bytes:
    """What the file or pipe holds, and no more than a byte beyond ``limit``. Raises NotFound."""
    from voice_server.core.errors import NotFound

    try:
        with open(file, "rb") as source:
            return source.read(limit + 1)
    except OSError as exc:
        raise NotFound(f"{file}: {exc.strerror}") from None


def _run(work: Callable[[Catalogue, Packages], Awaitable[T]], *, is_change: bool = False) -> T:
    """Do ``work`` on the catalogue that the settings name; tell a running server of a change."""
    from voice_server.cli.logs import configure_logging
    from voice_server.config import load_config
    from voice_server.control.dropped import DroppedVoices
    from voice_server.control.packages import Packages
    from voice_server.control.signing import Signer
    from voice_server.storage.stamp import Stamp
    from voice_server.web.control import catalogue_of

    settings = load_config().settings
    configure_logging("ERROR")  # `cli.py voices` tells which dropped files cannot be a voice

    async def opened() -> T:
        catalogue = catalogue_of(settings)
        await catalogue.load()
        dropped = DroppedVoices(settings.voice_samples_dir, catalogue)
        dropped.start()
        try:
            await dropped.scanned.wait()
            signing_key = settings.package_signing_key
            packages = Packages(
                catalogue,
                signer=Signer.from_file(signing_key) if signing_key else None,
                trusted=settings.package_trusted_keys,
            )
            return await work(catalogue, packages)
        finally:
            if is_change:
                await asyncio.to_thread(Stamp(catalogue.data_dir).touch)
            await dropped.stop()
            await catalogue.close()

    return asyncio.run(opened())
