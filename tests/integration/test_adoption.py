"""Folders as other servers leave them, taken into a real catalogue."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from server.voice_manager import VoiceManager
from server.voice_packager import VoicePackager
from tests.end_to_end.cli_process import run_cli
from tests.recordings import wav
from tests.stored import open_catalogue
from tests.unit.test_manifest import DOCUMENTED
from voice_server.control.adoption import Refused, adopt
from voice_server.control.packages import Packages
from voice_server.core.errors import RequestError
from voice_server.storage.catalogue import Catalogue

pytestmark = pytest.mark.anyio

PROFILE = "9f0c1ef2-0000-4a6b-8d1c-2f8f5a3b7c11"


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[tuple[Catalogue, Packages]]:
    async with open_catalogue(folder / "ours") as catalogue:
        yield catalogue, Packages(catalogue)


async def adopted(packages: Packages, folder: Path, *options: str) -> tuple[list[str], list[str]]:
    """The ids of what was taken over and of what was refused."""
    taken, refused = [], []
    async for done in adopt(packages, folder, *options):
        if isinstance(done, Refused):
            refused.append(done.id)
        else:
            taken.append(done.voice.id)
    return taken, refused


def put(path: Path, content: bytes | str | dict[str, Any] | list[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content))


def packaged_layout(folder: Path) -> None:
    """voices/ of the server whose packages are documented."""
    put(folder / "maya_cloned" / "ref.wav", wav(3, 180))
    put(folder / "maya_cloned" / "meta.json", DOCUMENTED)
    put(folder / "plain" / "ref.wav", wav(3, 210))
    put(folder / "catalog.json", [{"voice_id": "plain", "name": "Plain", "ref_text": "Hi."}])


def lifecycle_layout(folder: Path) -> None:
    """audio/ of the server that saves previews."""
    put(folder / "voices" / "nova" / "source.wav", wav(3, 250))
    put(folder / "voices" / "nova" / "transcription.txt", "Hello, this is my voice.\n")
    told = {"voice_id": "nova", "name": "Nova", "description": "Warm", "created_at": 1_770_000_000}
    put(folder / "voices" / "nova" / "metadata.json", told)
    put(folder / "voices" / "nova" / "embedding.json", {"prompt": [0.5] * 8})
    put(folder / "uploads" / "abc" / "source.wav", wav(3, 100))


def profiles_layout(folder: Path) -> None:
    """data/ of the server with profiles, with a sample's path as on the machine it comes from."""
    put(folder / "profiles" / PROFILE / "first.wav", wav(3, 180))
    put(folder / "profiles" / PROFILE / "second.wav", wav(3, 220))
    with closing(sqlite3.connect(folder / "voicebox.db")) as connection, connection:
        connection.execute(
            "CREATE TABLE profiles (id, name, description, language, created_at, updated_at)"
        )
        connection.execute(
            "CREATE TABLE profile_samples (id, profile_id, audio_path, reference_text)"
        )
        at = "2024-01-01 10:00:00.123456"
        rows = [(PROFILE, "My Voice", None, "en", at, at), ("lost", "Lost", "", "zh", at, at)]
        connection.executemany("INSERT INTO profiles VALUES (?, ?, ?, ?, ?, ?)", rows)
        samples = [
            ("first", PROFILE, f"/home/them/data/profiles/{PROFILE}/first.wav", "First sample"),
            ("second", PROFILE, None, "Second sample"),
            ("gone", "lost", "data/profiles/lost/gone.wav", "x"),
        ]
        connection.executemany("INSERT INTO profile_samples VALUES (?, ?, ?, ?)", samples)


async def test_the_folder_of_the_package_document(tmp_path: Path) -> None:
    packaged_layout(tmp_path / "voices")
    async with opened(tmp_path) as (catalogue, packages):
        assert await adopted(packages, tmp_path / "voices") == (["maya_cloned", "plain"], [])
        maya = catalogue.get("maya_cloned")
        assert (maya.name, maya.display_name, maya.kind) == ("Maya", "Maya (Cloned)", "cloned")
        assert (maya.source, maya.created_at) == ("voice_design", "2026-02-15T00:00:00Z")
        assert maya.samples[0].transcript == DOCUMENTED["ref_text"]
        plain = catalogue.get("plain")
        assert (plain.name, plain.samples[0].transcript) == ("Plain", "Hi.")
        # Again, from the folder above: what is there is not doubled unless that is asked for.
        assert await adopted(packages, tmp_path) == ([], ["maya_cloned", "plain"])
        assert await adopted(packages, tmp_path, "skip") == (["maya_cloned", "plain"], [])
        assert await adopted(packages, tmp_path, "rename") == (["maya_cloned_2", "plain_2"], [])
        assert catalogue.get("plain_2").name == "Plain (2)"


async def test_the_folder_of_the_lifecycle_document(tmp_path: Path) -> None:
    lifecycle_layout(tmp_path / "audio")
    before = sorted(tmp_path.rglob("*"))
    async with opened(tmp_path) as (catalogue, packages):
        assert await adopted(packages, tmp_path) == (["nova"], [])
        nova = catalogue.get("nova")
        assert (nova.name, nova.description) == ("Nova", "Warm")
        assert nova.created_at == "2026-02-02T02:40:00Z"
        assert nova.samples[0].transcript == "Hello, this is my voice."
    assert set(before) <= set(tmp_path.rglob("*"))


async def test_the_folder_of_the_profile_document(tmp_path: Path) -> None:
    profiles_layout(tmp_path)
    async with opened(tmp_path) as (catalogue, packages):
        assert await adopted(packages, tmp_path) == ([PROFILE], ["lost"])
        voice = catalogue.find("My Voice")
        assert (voice.id, voice.language) == (PROFILE, "en")
        assert voice.created_at == "2024-01-01T10:00:00Z"
        assert [s.transcript for s in voice.samples] == ["First sample", "Second sample"]


async def test_a_description_without_a_recording_is_a_designed_voice(tmp_path: Path) -> None:
    told = {"name": "Old Man", "design_description": "Warm and old", "voice_type": "voice_design"}
    put(tmp_path / "catalog.json", {"voices": {"old_man": told, "nothing": {"name": "Nothing"}}})
    async with opened(tmp_path) as (catalogue, packages):
        assert await adopted(packages, tmp_path) == (["old_man"], [])
        voice = catalogue.get("old_man")
        assert (voice.kind, voice.design, voice.samples) == ("designed", "Warm and old", ())


async def test_what_cannot_be_a_voice_stops_no_other(tmp_path: Path) -> None:
    put(tmp_path / "good" / "ref.wav", wav(3, 180))
    put(tmp_path / "good" / "meta.json", "{not json")
    put(tmp_path / "text" / "ref.wav", b"not a recording, whatever its name says")
    put(tmp_path / "empty" / "ref.wav", b"")
    put(tmp_path / "NUL" / "source.wav", wav(3, 180))
    put(tmp_path / "NUL" / "metadata.json", {"name": "a\0b"})
    put(tmp_path / "Ünïcode Name" / "source.wav", wav(3, 190))
    put(tmp_path / "Ünïcode Name" / "metadata.json", {"name": 7, "created_at": "nonsense"})
    put(tmp_path / "listed" / "source.wav", wav(3, 190))
    put(tmp_path / "listed" / "metadata.json", [1, 2])
    async with opened(tmp_path) as (catalogue, packages):
        taken, refused = await adopted(packages, tmp_path)
        assert sorted(taken) == ["good", "listed"]
        assert sorted(refused) == ["NUL", "empty", "text", "Ünïcode Name"]
        assert catalogue.get("good").name == "good"


async def test_a_folder_without_voices_is_refused_with_what_is_expected(tmp_path: Path) -> None:
    put(tmp_path / "broken" / "voicebox.db", b"no database at all, but long enough to be one" * 40)
    put(tmp_path / "other" / "readme.txt", "x")
    async with opened(tmp_path) as (catalogue, packages):
        for name in ("broken", "other", "missing"):
            with pytest.raises(RequestError) as caught:
                await adopted(packages, tmp_path / name)
            assert caught.value.code == "unknown_layout"
        assert len(catalogue) == 0


def test_the_documented_manager_takes_over_the_folder_that_is_there(tmp_path: Path) -> None:
    """`VoiceManager('./voices')`, in the directory of the server that the document describes."""
    packaged_layout(tmp_path / "voices")
    manager = VoiceManager(tmp_path / "voices")
    assert {voice.id for voice in manager.list_voices()} == {"maya_cloned", "plain"}
    package = VoicePackager(manager).export_package("maya_cloned", tmp_path / "maya.voicepkg.zip")
    # What is deleted stays deleted, though the other server's file is still there.
    manager.delete_voice("maya_cloned")
    assert {voice.id for voice in manager.list_voices()} == {"plain"}
    assert (tmp_path / "voices" / "maya_cloned" / "ref.wav").is_file()
    assert VoicePackager(manager).import_package(package).display_name == "Maya (Cloned)"


def test_the_command_takes_folders_of_packages_and_of_other_servers(tmp_path: Path) -> None:
    lifecycle_layout(tmp_path / "audio")
    put(tmp_path / "audio" / "voices" / "bad" / "source.wav", b"not a recording at all")
    done = run_cli(tmp_path, "voices", "import", str(tmp_path / "audio"))
    assert (done.returncode, done.stdout) == (1, "nova\n")
    assert "audio › bad › sample 1 › " in done.stderr
    packages = str(tmp_path / "packages")
    assert run_cli(tmp_path, "voices", "export", "-o", packages).returncode == 0
    done = run_cli(tmp_path, "voices", "import", packages, "--on-conflict", "skip")
    assert (done.returncode, done.stdout) == (0, "nova\n")
    done = run_cli(tmp_path, "voices", "import", str(tmp_path / "samples"))
    assert done.returncode == 2
    assert "no voices in a layout that is known" in done.stderr
