"""Packages out of a real catalogue and into another, and the documented Python calls."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import json
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.recordings import container, tone, wav
from tests.stored import open_catalogue
from tests.unit.test_manifest import DOCUMENTED, HOSTILE, zipped
from voice_server.audio.encode import encode_whole
from voice_server.control.cloning import Cloning, new_id
from voice_server.control.packages import Packages
from voice_server.control.signing import Signer
from voice_server.core.errors import Conflict, Forbidden, RequestError, TooLarge, UnknownVoice
from voice_server.core.manifest import MAX_PACKAGE_BYTES, MAX_SAMPLES, read_package
from voice_server.core.voices import Voice
from voice_server.storage.catalogue import Catalogue
from voice_worker.backend import BackendInfo

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]


@asynccontextmanager
async def opened(folder: Path, **options: Any) -> AsyncIterator[tuple[Catalogue, Packages]]:
    async with open_catalogue(folder) as catalogue:
        yield catalogue, Packages(catalogue, **options)


async def maya(catalogue: Catalogue, samples: int = 2) -> Voice:
    made = await Cloning(catalogue).clone(
        container("mp3", "libmp3lame", pitch=180),
        name="Maya",
        transcript="Hello.",
        description="wärm",
        tags=("a", "b"),
        consent={"by": "Maya"},
        language="en-GB",
    )
    for i in range(1, samples):
        sample, _, _ = await Cloning(catalogue).sample(wav(3, pitch=180 + i), f"Text {i}.")
        await catalogue.add_sample(made.voice.id, sample)
    return catalogue.get(made.voice.id)


async def test_what_no_server_would_take_is_not_exported_and_the_rest_is(tmp_path: Path) -> None:
    async with opened(tmp_path / "a") as (catalogue, packages):
        voice = await maya(catalogue)
        await Cloning(catalogue).clone(wav(3), name="Zoe")
        sample, _, _ = await Cloning(catalogue).sample(wav(3), "Again.")
        for _ in range(MAX_SAMPLES - len(voice.samples)):
            await catalogue.add_sample(voice.id, dataclasses.replace(sample, id=new_id()))
        most = await packages.pack(voice.id)
        async with opened(tmp_path / "b") as (_, others):
            assert len((await others.unpack(most)).voice.samples) == MAX_SAMPLES
        await catalogue.add_sample(voice.id, dataclasses.replace(sample, id=new_id()))
        with pytest.raises(TooLarge, match=r"at most 24 recordings.*delete some") as many:
            await packages.pack(voice.id)
        assert many.value.code == "package_too_large"
        with pytest.raises(TooLarge):
            await packages.pack_all(tmp_path / "out")
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["zoe.voicepkg.zip"]


async def test_a_voice_of_more_bytes_than_a_package_may_have_is_not_even_read(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as (catalogue, packages):
        voice = await maya(catalogue)
        os.truncate(voice.samples[0].path, MAX_PACKAGE_BYTES)  # the other one is too much, then
        with pytest.raises(TooLarge, match=r"at most 128 MB.*delete some") as large:
            await packages.pack(voice.id)
        assert large.value.code == "package_too_large"


async def test_a_recording_too_short_for_every_backend_never_becomes_a_voice(
    tmp_path: Path,
) -> None:
    patient = BackendInfo(sample_rate=24_000, clones=True, min_sample_seconds=5.0)
    swift = BackendInfo(sample_rate=24_000, clones=True)
    running = {"patient": patient}
    async with opened(tmp_path) as (catalogue, _):
        cloning = Cloning(catalogue, backends=lambda: running)
        with pytest.raises(RequestError, match="'patient' needs more than 5 s") as told:
            await cloning.clone(wav(3.0), name="Short")
        assert told.value.code == "sample_too_short"
        assert not len(catalogue)
        running["swift"] = swift
        made = await cloning.clone(wav(3.0), name="Short")
        assert any("'patient' needs" in warning for warning in made.quality.warnings)
        assert made.voice.samples[0].notes == made.quality.warnings


def on_disk(folder: Path) -> list[str]:
    return (
        sorted(p.name for p in (folder / "voices").rglob("*"))
        if (folder / "voices").exists()
        else []
    )


def documented(**changes: Any) -> bytes:
    return zipped({"meta.json": json.dumps({**DOCUMENTED, **changes}), "ref.wav": wav(3)})


async def test_export_import_export_is_the_same_to_the_byte(tmp_path: Path) -> None:
    async with opened(tmp_path / "a") as (catalogue, packages):
        voice = await maya(catalogue, samples=3)
        first = await packages.pack("maya")
        assert await packages.pack("maya") == first
    async with opened(tmp_path / "b") as (catalogue, packages):
        imported = (await packages.unpack(first)).voice
        assert await packages.pack("maya") == first
        same = dataclasses.replace(imported, samples=voice.samples)
        assert same == voice
        assert [s.transcript for s in imported.samples] == ["Hello.", "Text 1.", "Text 2."]
        assert imported.digest == voice.digest


async def test_the_documented_package_becomes_a_voice(tmp_path: Path) -> None:
    async with opened(tmp_path) as (_, packages):
        voice = (await packages.unpack(documented())).voice
        assert (voice.id, voice.display_name) == ("maya_cloned", "Maya (Cloned)")
        assert voice.samples[0].transcript == "Oh my god, do you see this?"
        exported = await packages.pack("maya_cloned")
        with zipfile.ZipFile(io.BytesIO(exported)) as archive:
            meta = json.loads(archive.read("meta.json"))
        assert {key: meta[key] for key in DOCUMENTED} == DOCUMENTED


async def test_a_reference_of_another_rate_is_converted_and_kept(tmp_path: Path) -> None:
    given = encode_whole(tone().tobytes(), "wav", 44_100)
    async with opened(tmp_path) as (_, packages):
        data = zipped({"meta.json": json.dumps(DOCUMENTED), "ref.wav": given})
        voice = (await packages.unpack(data)).voice
        assert Path(voice.samples[0].original).read_bytes() == given
        first = await packages.pack(voice.id)
        await packages.unpack(first, "replace")
        assert await packages.pack(voice.id) == first


async def test_a_renamed_voice_shares_its_name_with_nobody(tmp_path: Path) -> None:
    async with opened(tmp_path) as (catalogue, packages):
        await packages.unpack(documented(voice_id="other", name="Maya (2)"))
        for _ in range(3):
            await packages.unpack(documented(display_name=""), "rename")
        names = {voice.id: voice.name for voice in catalogue.voices()}
        assert names == {
            "other": "Maya (2)",
            "maya_cloned": "Maya",
            "maya_cloned_3": "Maya (3)",
            "maya_cloned_4": "Maya (4)",
        }
        assert catalogue.find("Maya (3)").id == "maya_cloned_3"


@pytest.mark.parametrize("on_conflict", ["error", "skip", "rename", "replace"])
async def test_an_id_that_is_taken_is_handled_as_asked(tmp_path: Path, on_conflict: str) -> None:
    async with opened(tmp_path) as (catalogue, packages):
        await packages.unpack(documented())
        before = catalogue.get("maya_cloned")
        if on_conflict == "error":
            with pytest.raises(Conflict, match="on_conflict=skip") as caught:
                await packages.unpack(documented(), on_conflict)
            assert caught.value.code == "voice_exists"
            return
        imported = await packages.unpack(documented(description="new"), on_conflict)
        match on_conflict:
            case "skip":
                assert not imported.is_new
                assert catalogue.get("maya_cloned") == before
            case "rename":
                assert imported.voice.id == "maya_cloned_2"
                assert imported.voice.name == "Maya (2)"
                assert imported.voice.display_name == "Maya (Cloned) (2)"
                assert catalogue.get("maya_cloned") == before
            case "replace":
                assert catalogue.get("maya_cloned").description == "new"
                assert not Path(before.samples[0].path).exists()
        assert len(catalogue) == (2 if on_conflict == "rename" else 1)


async def test_replacing_a_voice_while_others_delete_and_replace_it_always_ends_with_it(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as (catalogue, packages):
        for _ in range(5):
            await asyncio.gather(
                packages.unpack(documented(), "replace"), packages.unpack(documented(), "replace")
            )
            deleting, replacing = await asyncio.gather(
                catalogue.delete("maya_cloned"), packages.unpack(documented(), "replace")
            )
            assert deleting.id == replacing.voice.id
            assert Path(catalogue.get("maya_cloned").samples[0].path).exists()


async def test_an_export_beside_a_replacement_or_a_deletion_blames_no_lost_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as (catalogue, packages):
        await packages.unpack(documented())
        replaced, pack = threading.Event(), packages._pack

        def pack_late(voice: Voice) -> bytes:
            assert replaced.wait(60)
            return pack(voice)

        monkeypatch.setattr(packages, "_pack", pack_late)
        exporting = asyncio.create_task(packages.pack("maya_cloned"))
        await asyncio.sleep(0)
        await packages.unpack(documented(description="new"), "replace")
        replaced.set()
        assert read_package(await exporting).voice.description == "new"

        replaced.clear()
        await packages.unpack(documented(), "replace")
        exporting = asyncio.create_task(packages.pack("maya_cloned"))
        await asyncio.sleep(0)
        await catalogue.delete("maya_cloned")
        replaced.set()
        with pytest.raises(UnknownVoice):
            await exporting


async def test_an_import_that_is_repeated_with_skip_changes_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path) as (_, packages):
        assert (await packages.unpack(documented(), "skip")).is_new
        files = on_disk(tmp_path)
        for _ in range(3):
            assert not (await packages.unpack(documented(), "skip")).is_new
        assert on_disk(tmp_path) == files


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (
            zipped({"meta.json": json.dumps(DOCUMENTED), "ref.wav": b"not a wav" * 100}),
            "bad_package",
        ),
        (zipped({"meta.json": json.dumps(DOCUMENTED), "ref.wav": b""}), "bad_package"),
        (
            zipped(
                {"meta.json": json.dumps(DOCUMENTED), "ref.wav": wav(), "samples/02.wav": b"RIFF"}
            ),
            "bad_package",
        ),
        (documented(name=7), "bad_package"),
        (b"", "bad_package"),
    ],
)
async def test_a_bad_package_leaves_nothing(tmp_path: Path, data: bytes, code: str) -> None:
    async with opened(tmp_path) as (catalogue, packages):
        with pytest.raises(RequestError) as caught:
            await packages.unpack(data)
        assert caught.value.code == code
        assert len(catalogue) == 0
    assert on_disk(tmp_path) == []


async def test_hostile_archives_leave_nothing_anywhere(tmp_path: Path) -> None:
    async with opened(tmp_path / "data") as (catalogue, packages):
        for name, data in HOSTILE.items():
            with pytest.raises((RequestError, TooLarge)):
                await packages.unpack(data, "replace")
            assert len(catalogue) == 0, name
    assert [p.name for p in tmp_path.iterdir()] == ["data"]
    assert on_disk(tmp_path / "data") == []


async def test_a_wrong_answer_to_conflicts_and_a_huge_package_are_refused(tmp_path: Path) -> None:
    async with opened(tmp_path) as (_, packages):
        with pytest.raises(RequestError, match="error, skip, rename, replace"):
            await packages.unpack(documented(), "ask")
        with pytest.raises(TooLarge, match="at most 128"):
            await packages.unpack(bytes(129 * 1024 * 1024))


async def test_what_cannot_be_packed_says_why(tmp_path: Path) -> None:
    async with opened(tmp_path) as (catalogue, packages):
        with pytest.raises(UnknownVoice):
            await packages.pack("nobody")
        voice = await maya(catalogue, samples=1)
        Path(voice.samples[0].path).unlink()
        with pytest.raises(Conflict, match="restore its files"):
            await packages.pack("maya")


async def test_signed_packages_are_checked_and_trust_can_be_demanded(tmp_path: Path) -> None:
    signer, stranger = Signer(b"\1" * 32), Signer(b"\2" * 32)
    async with opened(tmp_path / "a", signer=signer) as (catalogue, packages):
        await maya(catalogue)
        signed = await packages.pack("maya")
        assert await packages.pack("maya") == signed
    async with opened(tmp_path / "b") as (catalogue, packages):
        unsigned_reader = await packages.unpack(signed)
        unsigned = await packages.pack(unsigned_reader.voice.id)
        with zipfile.ZipFile(io.BytesIO(signed)) as archive:
            files = {name: archive.read(name) for name in archive.namelist()}
        files["meta.json"] = files["meta.json"].replace("wärm".encode(), "kühl".encode())
        with pytest.raises(RequestError, match="signature does not fit") as caught:
            await packages.unpack(zipped(dict(files)), "rename")
        assert caught.value.code == "bad_signature"
        assert "they were changed" in str(caught.value)
    async with opened(tmp_path / "c", trusted=[signer.public_key]) as (_, packages):
        with pytest.raises(Forbidden, match="not signed"):
            await packages.unpack(unsigned)
        await packages.unpack(signed)
    async with opened(tmp_path / "d", trusted=[stranger.public_key]) as (_, packages):
        with pytest.raises(Forbidden, match="does not trust"):
            await packages.unpack(signed)


async def test_the_digest_of_a_voice_says_whether_there_is_anything_to_sync(tmp_path: Path) -> None:
    async with opened(tmp_path) as (catalogue, packages):
        voice = await maya(catalogue)
        before = packages.digest(voice)
        assert packages.digest(catalogue.get("maya")) == before
        assert packages.digest(await catalogue.update("maya", description="x")) != before


async def test_the_documented_python_calls_work_inside_an_event_loop_too(tmp_path: Path) -> None:
    documented_python_calls(tmp_path)


def documented_python_calls(tmp_path: Path) -> None:
    from server.voice_manager import VoiceManager
    from server.voice_packager import VoicePackager

    vm = VoiceManager(str(tmp_path / "voices"))
    vm.clone_voice("Maya Cloned", wav(), transcript="Hello.")
    packager = VoicePackager(vm)
    package_path = packager.export_package("maya_cloned", tmp_path / "maya.voicepkg.zip")
    with pytest.raises(Conflict):
        packager.import_package(tmp_path / "maya.voicepkg.zip")
    packages = packager.export_all(tmp_path / "backup/")
    assert [p.name for p in packages] == ["maya_cloned.voicepkg.zip"]
    with open(package_path, "rb") as f:
        package_bytes = f.read()
    assert packages[0].read_bytes() == package_bytes
    vm.delete_voice("maya_cloned")
    assert vm.list_voices() == []
    voice = packager.import_package(package_bytes)
    assert vm.get_voice("Maya Cloned") == voice
    assert packager.import_package(str(package_path), on_conflict="skip") == voice


def test_the_documented_python_calls_work(tmp_path: Path) -> None:
    documented_python_calls(tmp_path)


def test_the_demonstration_brings_every_voice_back() -> None:
    done = subprocess.run(
        [sys.executable, "demo_voice_packaging.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert "All 2 voices are back" in done.stdout
