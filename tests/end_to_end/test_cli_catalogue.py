"""``cli.py voices …`` and ``cli.py keys …``, alone and beside a running server."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

from tests.end_to_end.catalogue_server import pitch_in, serving
from tests.end_to_end.cli_process import run_cli, wait_for
from tests.recordings import wav


def said(folder: Path, *flags: str, status: int = 0) -> list[str]:
    done = run_cli(folder, *flags)
    assert done.returncode == status, done.stderr
    return (done.stdout if status == 0 else done.stderr).splitlines()


def test_a_voice_is_cloned_shown_exported_deleted_and_imported(tmp_path: Path) -> None:
    (tmp_path / "me.wav").write_bytes(wav())
    recording = str(tmp_path / "me.wav")
    assert said(tmp_path, "voices", "clone", "My Voice", recording, "--transcript", "Hi.") == [
        "my_voice"
    ]
    assert said(tmp_path, "voices", "list")[0].startswith("my_voice\tMy Voice\tcloned")
    shown = said(tmp_path, "voices", "show", "My Voice")
    assert "name\tMy Voice" in shown
    assert "  says\tHi." in shown
    (package,) = said(tmp_path, "voices", "export", "--output", str(tmp_path / "out"))
    assert "exists already" in said(tmp_path, "voices", "import", package, status=2)[0]
    assert said(tmp_path, "voices", "import", package, "--on-conflict", "rename") == ["my_voice_2"]
    assert said(tmp_path, "voices", "delete", "my_voice", "my_voice_2") == [
        "my_voice",
        "my_voice_2",
    ]
    assert said(tmp_path, "voices", "import", package) == ["my_voice"]
    for wrong in (
        ("voices", "show", "nobody"),
        ("voices", "import", str(tmp_path / "none.zip")),
        ("voices", "import", recording),
        ("voices", "clone", "X", str(tmp_path / "none.wav")),
        ("voices", "clone", "X", recording, "--language", "the english"),
        ("keys", "create", "me", "--scope", "root"),
        ("keys", "revoke", "nothing"),
    ):
        assert said(tmp_path, *wrong, status=2)[0].startswith("error: ")


def test_a_dropped_voice_is_shown_and_exported_and_removed_with_its_file(tmp_path: Path) -> None:
    samples = tmp_path / "samples"
    samples.mkdir()
    (samples / "Nova.wav").write_bytes(wav())
    (samples / "broken.wav").write_bytes(b"no sound")
    assert [line.split("\t")[:3] for line in said(tmp_path, "voices", "list")] == [
        ["nova", "Nova", "dropped"]
    ]
    assert "kind\tdropped" in said(tmp_path, "voices", "show", "nova")
    (package,) = said(tmp_path, "voices", "export", "nova", "--output", str(tmp_path / "out"))
    assert Path(package).is_file()
    assert said(tmp_path, "voices", "delete", "nova", status=2) == [
        "error: voice 'nova' is a file in the samples folder; change or remove the file"
    ]
    (samples / "Nova.wav").unlink()
    assert said(tmp_path, "voices", "list") == []
    for command in ("show", "export", "delete"):
        [problem] = said(tmp_path, "voices", command, "nova", status=2)
        assert "`cli.py voices list`" in problem
        assert "GET /" not in problem


def test_a_bad_package_among_others_is_named_and_costs_none_of_them(tmp_path: Path) -> None:
    (tmp_path / "me.wav").write_bytes(wav())
    out = tmp_path / "out"
    for name in ("a", "c"):
        said(tmp_path, "voices", "clone", name, str(tmp_path / "me.wav"))
    first, last = said(tmp_path, "voices", "export", "a", "c", "--output", str(out))
    (out / "b.voicepkg.zip").write_bytes(b"PK, but no more than that")
    said(tmp_path, "voices", "delete", "a", "c")
    for places in ([str(out)], [first, str(tmp_path / "none.zip"), last]):
        done = run_cli(tmp_path, "voices", "import", *places, "--on-conflict", "replace")
        assert done.returncode == 1
        assert done.stdout.split() == ["a", "c"]
        [problem] = done.stderr.splitlines()
        assert "b.voicepkg.zip › " in problem or "none.zip › " in problem


def test_a_voice_that_cannot_be_packed_is_named_and_costs_no_other_its_export(
    tmp_path: Path,
) -> None:
    (tmp_path / "me.wav").write_bytes(wav())
    for name in ("a", "b", "c"):
        said(tmp_path, "voices", "clone", name, str(tmp_path / "me.wav"))
    for recording in (tmp_path / "data" / "voices" / "b").glob("*.wav"):
        os.truncate(recording, 129 * 2**20)
    out = tmp_path / "out"
    done = run_cli(tmp_path, "voices", "export", "--output", str(out))
    assert done.returncode == 1
    assert sorted(Path(line).name[0] for line in done.stdout.split()) == ["a", "c"]
    [problem] = done.stderr.splitlines()
    assert problem.startswith("error: b › a voice package has at most 128 MB")
    assert sorted(path.name[0] for path in out.iterdir()) == ["a", "c"]
    [problem] = said(tmp_path, "voices", "export", "b", "--output", str(out), status=2)
    assert "at most 128 MB" in problem


def test_a_recording_may_come_through_a_pipe_and_a_bad_folder_is_told(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.wav"
    os.mkfifo(pipe)
    writing = threading.Thread(target=pipe.write_bytes, args=[wav()], daemon=True)
    writing.start()
    assert said(tmp_path, "voices", "clone", "me", str(pipe)) == ["me"]
    writing.join(60)
    for place in ("/dev/null", "/proc/nothing"):
        [problem] = said(tmp_path, "voices", "export", "--output", place, status=2)
        assert problem.startswith(f"error: --output {place} › cannot be written: ")


def test_a_cloned_voice_is_spoken_from_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "me.wav").write_bytes(wav(3, 222))
    said(tmp_path, "voices", "clone", "My Voice", str(tmp_path / "me.wav"))
    for name in ("my_voice", "My Voice"):
        sound = tmp_path / f"{name}.wav"
        said(
            tmp_path,
            *("--voice", name, "--text", "One two three four.", "--output", str(sound)),
        )
        assert abs(pitch_in(sound.read_bytes()) - 222) < 12
    assert any(line.startswith("my_voice\t") for line in said(tmp_path, "voices", "-b", "tone"))


def test_a_running_server_takes_over_what_the_command_line_changes(tmp_path: Path) -> None:
    (tmp_path / "me.wav").write_bytes(wav(3, 222))
    with serving(tmp_path) as server:
        said(tmp_path, "voices", "clone", "Late", str(tmp_path / "me.wav"))
        wait_for(lambda: server.curl(server.url("/profiles/late"))[0] == 200)
        assert abs(server.heard_by_tts("late") - 222) < 12
        said(tmp_path, "voices", "delete", "late")
        wait_for(lambda: server.curl(server.url("/profiles/late"))[0] == 404)
        (secret,) = said(tmp_path, "keys", "create", "me", "--scope", "speak")
        wait_for(lambda: server.curl(server.url("/profiles"))[0] == 401)
        shown = ("-H", f"X-API-Key: {secret}")
        status, body = server.curl(server.url("/profiles"), *shown)
        assert (status, json.loads(body)) == (200, [])
        key_id = said(tmp_path, "keys", "list")[0].split("\t")[0]
        said(tmp_path, "keys", "revoke", key_id)
        wait_for(lambda: server.curl(server.url("/profiles"))[0] == 200)
