"""Voice packages, good and hostile, from bytes to bytes."""

from __future__ import annotations

import io
import json
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_server.core.archive import read_archive, write_archive
from voice_server.core.errors import Conflict, RequestError, TooLarge
from voice_server.core.manifest import read_package, write_package
from voice_server.core.voices import Sample, Voice

ANY = re.compile(r"[a-z./]+")
DOCUMENTED = {
    "format_version": 1,
    "voice_id": "maya_cloned",
    "name": "Maya",
    "display_name": "Maya (Cloned)",
    "voice_type": "cloned",
    "description": "Young woman, warm and expressive, slight vulnerability",
    "ref_text": "Oh my god, do you see this?",
    "ref_duration_s": 3.0,
    "ref_sample_rate": 24000,
    "source": "voice_design",
    "design_description": "Young woman, warm and expressive, slight vulnerability",
    "design_language": "English",
    "created_at": "2026-02-15T00:00:00Z",
    "casting_notes": "",
    "model_used": "Qwen3-TTS-12Hz-1.7B-Base",
    "package_created_at": "2026-02-23T22:00:00Z",
}
WAV = b"RIFF....WAVE" + bytes(100)


def zipped(files: dict[str, bytes | str], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def package(meta: dict[str, Any] | bytes | None = None, **files: bytes) -> bytes:
    body = meta if isinstance(meta, bytes) else json.dumps(DOCUMENTED if meta is None else meta)
    return zipped({"meta.json": body, "ref.wav": WAV, **files})


def voice(samples: int = 2, **more: Any) -> Voice:
    made = [
        Sample(f"s{i}", f"/s{i}.wav", "00", f"Text {i}.", 3.5, 44_100, -20.5, ("short",))
        for i in range(samples)
    ]
    values: dict[str, Any] = {
        "id": "maya",
        "name": "Máya 声",
        "kind": "cloned",
        "samples": tuple(made),
        "language": "en-GB",
        "tags": ("warm", "female"),
        "consent": {"by": "Maya", "at": "2026-01-01"},
        "created_at": "2026-02-15T00:00:00Z",
        "updated_at": "2026-02-23T22:00:00.123456Z",
        "owner": "key 7",
    }
    return Voice(**{**values, **more})


def test_the_documented_package_is_read_with_every_field() -> None:
    read = read_package(package())
    assert read.voice == Voice(
        id="maya_cloned",
        name="Maya",
        kind="cloned",
        display_name="Maya (Cloned)",
        description=str(DOCUMENTED["description"]),
        source="voice_design",
        design=str(DOCUMENTED["design_description"]),
        design_language="English",
        model_used="Qwen3-TTS-12Hz-1.7B-Base",
        created_at="2026-02-15T00:00:00Z",
        updated_at="2026-02-23T22:00:00Z",
    )
    assert read.samples[0].wav == WAV
    assert read.samples[0].transcript == "Oh my god, do you see this?"


def test_what_is_written_has_every_documented_field_and_file() -> None:
    data = write_package(voice(), [WAV, WAV + b"2"])
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [
            "meta.json",
            "ref.wav",
            "ref_transcript.txt",
            "samples/02.wav",
        ]
        meta = json.loads(archive.read("meta.json"))
        assert archive.read("ref_transcript.txt") == b"Text 0."
    assert DOCUMENTED.keys() <= meta.keys()
    assert meta["ref_text"] == "Text 0."
    assert meta["package_created_at"] == "2026-02-23T22:00:00.123456Z"
    assert "key 7" not in json.dumps(meta)


def test_writing_and_reading_loses_nothing() -> None:
    read = read_package(write_package(voice(), [WAV, WAV + b"2"]))
    assert read.voice == voice(samples=0, owner="")
    assert [s.wav for s in read.samples] == [WAV, WAV + b"2"]
    assert [s.transcript for s in read.samples] == ["Text 0.", "Text 1."]
    assert (read.samples[1].sample_rate, read.samples[1].loudness) == (44_100, -20.5)
    assert read.samples[1].notes == ("short",)


def test_the_same_voice_makes_the_same_bytes() -> None:
    assert write_package(voice(), [WAV, WAV]) == write_package(voice(), [WAV, WAV])


def test_a_designed_voice_needs_no_recording() -> None:
    designed = voice(samples=0, kind="designed", design="A warm old man")
    read = read_package(write_package(designed, []))
    assert (read.voice.kind, read.voice.design, read.samples) == ("designed", "A warm old man", ())


def test_a_profile_without_a_recording_yet_is_packed_and_read() -> None:
    read = read_package(write_package(voice(samples=0), []))
    assert (read.voice, read.samples) == (voice(samples=0, owner=""), ())


def test_a_dropped_voice_is_packed_as_a_cloned_one_and_a_speaker_not_at_all() -> None:
    assert read_package(write_package(voice(1, kind="dropped"), [WAV])).voice.kind == "cloned"
    with pytest.raises(Conflict, match="built into"):
        write_package(voice(0, kind="builtin", backend="espeak"), [])


def test_the_transcript_file_serves_when_the_field_is_empty() -> None:
    meta = {**DOCUMENTED, "ref_text": ""}
    read = read_package(package(meta, **{"ref_transcript.txt": "Grüße.\n".encode()}))
    assert read.samples[0].transcript == "Grüße."


def test_unknown_fields_of_later_versions_are_ignored() -> None:
    assert read_package(package({**DOCUMENTED, "mood": ["x"]})).voice.name == "Maya"


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("format_version", None, "format_version › a whole number|format_version › .*missing"),
        ("format_version", 2, "reads version 1, not 2"),
        ("format_version", "1", "whole number"),
        ("voice_id", None, "voice_id › the field is missing"),
        ("voice_id", "../../etc", "not a voice id"),
        ("voice_id", 7, "voice_id › the field is missing|voice_id › text"),
        ("name", "", "name › not empty"),
        ("name", "x" * 201, "name › at most 200"),
        ("name", "a\0b", "without NUL"),
        ("name", "\ud800", "surrogates"),
        ("voice_type", "stolen", "'cloned' or 'designed'"),
        ("description", ["x"], "description › text"),
        ("description", "x" * 20_001, "at most 20000"),
        ("ref_duration_s", "long", "ref_duration_s › a number"),
        ("ref_sample_rate", -1, "ref_sample_rate › a whole number"),
        ("created_at", "yesterday", "a time such as"),
        ("voice_server", [], "voice_server › an object"),
        ("voice_server", {"tags": "x"}, "tags › a list"),
        ("voice_server", {"tags": [1]}, "tags › 0 › text"),
        ("voice_server", {"consent": {"a": float("nan")}}, "NaN"),
        ("voice_server", {"consent": {"a": "\0"}}, "NUL"),
        ("voice_server", {"samples": [{"file": 1}]}, "samples › 0 › file"),
        ("voice_server", {"sha256": {"ref.wav": "00"}}, "checksum differs"),
        ("voice_server", {"sha256": {"samples/09.wav": "00"}}, "09.wav › the file is missing"),
    ],
)
def test_each_wrong_field_is_named(field: str, value: object, says: str) -> None:
    meta: dict[str, Any] = {**DOCUMENTED, field: value}
    if value is None:
        del meta[field]
    with pytest.raises(RequestError, match=says):
        read_package(package(meta))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (zipped({"ref.wav": WAV}), "meta.json › the file is missing"),
        (zipped({"meta.json": json.dumps(DOCUMENTED)}), "ref.wav › the file is missing"),
        (package(b"{"), "meta.json › JSON"),
        (
            zipped({"meta.json": b"[" * 100_000, "ref.wav": WAV}, zipfile.ZIP_STORED),
            "meta.json › JSON",
        ),
        (package(b"[]"), "a JSON object"),
        (package(b"\xff\xfe"), "UTF-8"),
        (package(b'{"a":"' + b"x" * (1 << 20) + b'"}'), "unpack to more|at most 1 MB"),
        (
            zipped(
                {
                    "meta.json": json.dumps(
                        {**DOCUMENTED, "voice_type": "designed", "design_description": ""}
                    )
                }
            ),
            "a designed voice needs its description",
        ),
        (b"", "no ZIP"),
        (b"PK\x05\x06", "no ZIP"),
        (b"not a zip at all" * 100, "no ZIP"),
        (package()[:-10], "no ZIP|damaged"),
        (package() + b"tail", "damaged"),
    ],
)
def test_each_broken_package_is_refused_with_the_reason(data: bytes, says: str) -> None:
    with pytest.raises((RequestError, TooLarge), match=says):
        read_package(data)


# -- the archive -------------------------------------------------------------------------------------


def test_an_archive_comes_back_and_zipfile_agrees() -> None:
    contents = {"a": b"x" * 5_000, "b/c": b"", "d": bytes(range(256))}
    data = write_archive(contents)
    assert read_archive(data, ANY) == contents
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == contents


@given(
    st.dictionaries(st.text("abc", min_size=1), st.binary(max_size=2_000), max_size=8),
    st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]),
)
def test_what_zipfile_writes_is_read(contents: dict[str, bytes], method: int) -> None:
    assert read_archive(zipped(dict(contents), method), ANY) == contents


@given(st.binary(max_size=400), st.data())
def test_mutated_archives_are_read_or_refused(noise: bytes, data: st.DataObject) -> None:
    whole = bytearray(zipped({"a": b"hello" * 20, "b": b"x" * 300}))
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at : at + len(noise)] = noise
    contents = {}
    try:
        contents = read_archive(bytes(whole), ANY)
    except (RequestError, TooLarge):
        return
    assert sum(map(len, contents.values())) <= 1_000


def patched(central: Callable[[bytearray, int], None], local: bool = False) -> bytes:
    """A good archive whose first directory entry (or header) was changed in place."""
    whole = bytearray(zipped({"a": b"hello" * 50, "b": b"x" * 300}))
    at = whole.find(b"PK\x03\x04" if local else b"PK\x01\x02")
    central(whole, at)
    return bytes(whole)


def put(offset: int, fmt: str, value: int) -> Callable[[bytearray, int], None]:
    def change(whole: bytearray, at: int) -> None:
        struct.pack_into(fmt, whole, at + offset, value)

    return change


def overlapping() -> bytes:
    """Both directory entries point to the first file: the overlap that zipfile accepts."""
    whole = bytearray(zipped({"a": b"hello" * 50, "b": b"hello" * 50}, zipfile.ZIP_STORED))
    second = whole.rfind(b"PK\x01\x02")
    struct.pack_into("<I", whole, second + 42, 0)
    whole[whole.find(b"PK\x03\x04") + 30] = ord("b")
    whole[whole.find(b"PK\x01\x02") + 46] = ord("b")
    whole[second + 46] = ord("b")
    return bytes(whole)


def bomb(ratio: int) -> bytes:
    return zipped({"a": bytes(ratio * 10_000)})


def lying(size: int) -> bytes:
    """Claims to be small in both headers, and unpacks to much more."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(bytes(50_000_000)) + packer.flush()
    local = struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 8, 0, 0x21, 0, len(packed), size, 1, 0)
    central = struct.pack(
        "<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 8, 0, 0x21, 0, len(packed), size, 1, 0, 0, 0, 0, 0, 0
    )
    body = local + b"a" + packed
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, len(central) + 1, len(body), 0)
    return body + central + b"a" + end


def symlink() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        info = zipfile.ZipInfo("a")
        info.create_system = 3
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    return buffer.getvalue()


HOSTILE: dict[str, bytes] = {
    **{
        f"name {name!r}": zipped({name: b"x"})
        for name in (
            "../a",
            "..",
            "/etc/passwd",
            "C:/a",
            "a\\b",
            "..\\a",
            "a/../../b",
            "./a",
            "a//b/",
            "samples/../meta.json",
            "A",
            "a b",
            "a\nb",
            "é",
            "samples/a.wav.exe",
            "meta.json ",
            "__MACOSX/meta.json",
            ".DS_Store",
            "ref.wav/",
            "samples/x/y.wav",
            "META.JSON",
        )
    },
    "a NUL in a name": patched(lambda w, at: w.__setitem__(at + 46, 0)),
    "a name that differs in the header": patched(lambda w, at: w.__setitem__(at + 30, 99), True),
    "case twins": zipped({"samples/a.wav": b"1", "samples/A.wav": b"2"}),
    "overlapping entries": overlapping(),
    "a ratio beyond 100": bomb(1_000),
    "a lying small size": lying(10_000),
    "a lying zero size": lying(0),
    "a symlink": symlink(),
    "a device": patched(put(38, "<I", 0o060666 << 16)),
    "65 entries": zipped({f"samples/{i}.wav": b"" for i in range(65)}),
    "encryption": patched(put(8, "<H", 1)),
    "encryption in the header": patched(put(6, "<H", 1), True),
    "an unknown method": patched(put(10, "<H", 14)),
    "another method in the header": patched(put(8, "<H", 0), True),
    "a huge packed size": patched(put(20, "<I", 0x7FFFFFFF)),
    "a ZIP64 size": patched(put(20, "<I", 0xFFFFFFFF)),
    "a ZIP64 offset": patched(put(42, "<I", 0xFFFFFFFF)),
    "an offset beyond the end": patched(put(42, "<I", 1_000_000)),
    "a huge name": patched(put(28, "<H", 60_000)),
    "a huge extra field": patched(put(30, "<H", 60_000)),
    "a wrong checksum": patched(put(16, "<I", 1)),
    "a wrong checksum in the header": patched(put(14, "<I", 1), True),
    "another disk": patched(put(34, "<H", 1)),
    "a smaller size": patched(put(24, "<I", 10)),
    "a larger size": patched(put(24, "<I", 300)),
    "a size in the header": patched(put(22, "<I", 9), True),
    "no header": patched(lambda w, at: w.__setitem__(at, 0), True),
    "no directory": patched(lambda w, at: w.__setitem__(at, 0)),
    "a prefix before it": b"MZ" + zipped({"meta.json": b"{}"}),
    "two ends": zipped({"meta.json": b"{}"}) + zipped({"meta.json": b"{}"}),
}


def test_there_are_as_many_hostile_archives_as_were_promised() -> None:
    assert len(HOSTILE) >= 50


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_archive_is_refused(name: str) -> None:
    with pytest.raises((RequestError, TooLarge)) as caught:
        read_package(HOSTILE[name])
    assert caught.value.code in ("bad_package", "package_too_large")


def test_names_are_matched_before_anything_is_unpacked() -> None:
    with pytest.raises(RequestError, match="no voice package has"):
        read_package(zipped({"x": bytes(1_000)}, zipfile.ZIP_STORED))


def test_the_size_of_everything_together_is_limited() -> None:
    data = zipped({"a": bytes(600), "b": bytes(600)})
    with pytest.raises(TooLarge):
        read_archive(data, ANY, max_unpacked=1_000)
