"""The catalogue while others change what it holds: what is acknowledged stays, what is gone is gone."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.stored import new, open_catalogue, voice
from voice_server.control.packages import Packages
from voice_server.core.errors import Conflict, UnknownVoice
from voice_server.core.voices import Sample, Voice
from voice_server.storage import voice_files, voice_rows

pytestmark = pytest.mark.anyio


async def test_what_another_process_deleted_is_not_brought_back(tmp_path: Path) -> None:
    async with open_catalogue(tmp_path) as mine, open_catalogue(tmp_path) as other:
        await mine.create(voice(), [new()])
        await other.refresh()
        await other.delete("maya")
        with pytest.raises(UnknownVoice):
            await mine.update("maya", description="whose files are gone")
        with pytest.raises(UnknownVoice):
            await mine.add_sample("maya", new("late"))
    async with open_catalogue(tmp_path) as catalogue:
        assert "maya" not in catalogue
    assert not any((tmp_path / "voices").rglob("*"))


async def test_what_another_process_added_outlives_a_change_made_here(tmp_path: Path) -> None:
    async with open_catalogue(tmp_path) as mine, open_catalogue(tmp_path) as other:
        await mine.create(voice(), [new("a")])
        await other.refresh()
        await other.add_sample("maya", new("b"))
        await other.update("maya", language="de")
        assert (await mine.update("maya", description="here")).language == "de"
        await mine.add_sample("maya", new("c"))
        await mine.remove_sample("a")
    async with open_catalogue(tmp_path) as catalogue:
        there = catalogue.get("maya")
        assert [sample.id for sample in there.samples] == ["b", "c"]
        assert (there.language, there.description) == ("de", "here")


async def test_of_two_that_take_one_name_at_once_one_is_refused(tmp_path: Path) -> None:
    async with open_catalogue(tmp_path) as catalogue:
        await catalogue.create(voice("a", "A"))
        await catalogue.create(voice("b", "B"))
        told = await asyncio.gather(
            catalogue.update("a", name="Ren\u00e9", is_name_unique=True),
            catalogue.update("b", name="Rene\u0301", is_name_unique=True),
            catalogue.create(voice("c", "REN\u00c9"), is_name_unique=True),
            return_exceptions=True,
        )
        assert sorted(type(one).__name__ for one in told) == ["Conflict", "Conflict", "Voice"]
        assert isinstance(await catalogue.update("a", name="A2", is_name_unique=True), Voice)


async def test_a_voice_made_and_deleted_during_a_refresh_stays_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = voice_rows.load

    async with open_catalogue(tmp_path) as catalogue:

        async def slowly(*args: Any) -> list[Voice]:
            await catalogue.create(voice(), [new()])
            found = await load(*args)
            await catalogue.delete("maya")
            return found

        monkeypatch.setattr(voice_rows, "load", slowly)
        await catalogue.refresh()
        assert "maya" not in catalogue


async def test_closing_waits_for_a_change_whose_caller_went_away(tmp_path: Path) -> None:
    async with open_catalogue(tmp_path) as catalogue:
        write, begun, go_on = catalogue._files.write, threading.Event(), threading.Event()

        def slowly(*args: Any) -> tuple[Sample, ...]:
            begun.set()
            assert go_on.wait(60)
            return write(*args)

        catalogue._files.write = slowly  # type: ignore[method-assign]
        creating = asyncio.create_task(catalogue.create(voice(), [new()]))
        assert await asyncio.to_thread(begun.wait, 60)
        creating.cancel()
        await asyncio.wait([creating])
        closing = asyncio.create_task(catalogue.close())
        await asyncio.wait([closing], timeout=0.1)
        go_on.set()
        await closing
        assert "maya" in catalogue
    async with open_catalogue(tmp_path) as catalogue:
        assert "maya" in catalogue


async def test_a_voice_that_is_only_lent_is_neither_changed_nor_deleted(tmp_path: Path) -> None:
    recording = tmp_path / "session.wav"
    recording.write_bytes(b"of a session")
    sample = Sample(id="lent", path=str(recording), sha256="")
    lent = dataclasses.replace(voice("lent"), samples=(sample,))
    async with open_catalogue(tmp_path / "data") as catalogue:
        with catalogue.lent(lent):
            with pytest.raises(UnknownVoice):
                await catalogue.delete("lent")
            with pytest.raises(UnknownVoice):
                await catalogue.update("lent", description="stored?")
            assert catalogue.get("lent") == lent
            with pytest.raises(Conflict):
                await catalogue.create(voice("lent"))
    assert recording.exists()


async def test_a_folder_that_went_with_its_last_recording_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, robbed = voice_files.write_together, []

    def rob(folder: Path, files: Mapping[str, bytes]) -> None:
        if not robbed:
            robbed.append(folder)
            folder.rmdir()  # as who gives back the last recording of a deleted voice of this id
        write(folder, files)

    monkeypatch.setattr(voice_files, "write_together", rob)
    async with open_catalogue(tmp_path) as catalogue:
        made = await catalogue.create(voice(), [new()])
    assert robbed
    assert Path(made.samples[0].path).exists()


async def test_of_two_imports_at_once_that_skip_what_is_there_one_is_skipped(
    tmp_path: Path,
) -> None:
    async with open_catalogue(tmp_path) as catalogue:
        packages = Packages(catalogue)
        both = await asyncio.gather(
            packages.add(voice(), [new("a")], "skip"), packages.add(voice(), [new("b")], "skip")
        )
        assert sorted(done.is_new for done in both) == [False, True]
        assert all(done.voice == catalogue.get("maya") for done in both)
