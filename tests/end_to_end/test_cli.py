"""cli.py as a person runs it: real processes, real workers, the tone engine."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
import tomllib
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.end_to_end.cli_process import ROOT, environment, run_cli
from voice_server.cli.app import main

# Several processes each, which a busy machine starts slowly.
pytestmark = pytest.mark.timeout(400)


def seconds_of(path: Path) -> float:
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 24_000)
        assert any(file.readframes(file.getnframes()))
        return file.getnframes() / file.getframerate()


def test_a_text_becomes_a_file_and_its_figures_are_told(tmp_path: Path) -> None:
    path = tmp_path / "out.wav"
    done = run_cli(
        tmp_path, "--backend", "tone", "--text", "Hello there. World.", "--output", str(path)
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "RTF" in done.stdout
    assert f"written to {path}" in done.stdout
    assert seconds_of(path) > 0.1


def test_tokens_are_streamed_and_shown_with_what_they_lead_to(tmp_path: Path) -> None:
    flags = ["--stream-tokens", "--token-delay", "0.001", "--pool-size", "2", "--no-play"]
    done = run_cli(tmp_path, "--backend", "tone", *flags, "--text", "One two three. Four five.")
    assert done.returncode == 0, done.stderr
    assert "'One two three.'" in done.stdout
    assert "'Four five.'" in done.stdout
    assert "first sound" in done.stdout
    assert "after token 1" in done.stdout


def test_streaming_without_a_text_says_a_sample(tmp_path: Path) -> None:
    done = run_cli(tmp_path, "--stream-tokens", "--token-delay", "0", "--no-play")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("generating") >= 2


def test_what_another_program_prints_is_spoken(tmp_path: Path) -> None:
    done = run_cli(tmp_path, "--no-play", stdin="From a pipe. And more.\n")
    assert done.returncode == 0, done.stderr
    assert "'From a pipe.'" in done.stdout


def test_a_disk_that_is_full_is_told_in_one_line(tmp_path: Path) -> None:
    for ending in ("wav", "mp3"):
        path = tmp_path / f"full.{ending}"
        path.symlink_to("/dev/full")
        done = run_cli(tmp_path, "--no-play", "--text", "Hello there.", "--output", str(path))
        assert done.returncode == 2
        reason = "cannot be written: No space left on device"
        assert done.stderr == f"error: --output {path} › {reason}\n"
        assert "written to" not in done.stdout


@pytest.mark.parametrize(
    ("output", "ends_as"),
    [
        ("&-", (0, "")),
        ("/dev/full", (1, "error: the output cannot be written: No space left on device\n")),
    ],
    ids=["closed", "full"],
)
def test_an_output_that_takes_nothing_ends_without_a_traceback(
    tmp_path: Path, output: str, ends_as: tuple[int, str]
) -> None:
    done = subprocess.run(
        ["sh", "-c", f'exec "$0" cli.py backends list >{output}', sys.executable],
        stderr=subprocess.PIPE, text=True, timeout=150, cwd=ROOT, env=environment(tmp_path),
    )  # fmt: skip
    assert (done.returncode, done.stderr) == ends_as


def test_an_empty_pipe_says_a_sample_and_says_that_it_does(tmp_path: Path) -> None:
    done = run_cli(tmp_path, "--stream-tokens", "--no-play", stdin="")
    assert done.returncode == 0, done.stderr
    assert "standard input is empty" in done.stderr
    assert done.stdout.count("generating") >= 2


def test_options_reach_the_engine(tmp_path: Path) -> None:
    slow, quick = tmp_path / "slow.wav", tmp_path / "quick.wav"
    say = ["--text", "A sentence of a certain length."]
    assert run_cli(tmp_path, *say, "--output", str(slow), "--opt", "speed=0.5").returncode == 0
    assert run_cli(tmp_path, *say, "--output", str(quick), "--opt", "speed=2").returncode == 0
    assert seconds_of(slow) > 2 * seconds_of(quick)


def test_voices_are_listed_by_flag_and_by_command(tmp_path: Path) -> None:
    by_flag = run_cli(tmp_path, "--backend", "tone", "--list-voices")
    by_command = run_cli(tmp_path, "voices", "--backend", "tone")
    assert by_flag.returncode == by_command.returncode == 0
    assert by_flag.stdout == by_command.stdout
    assert "builtin\ttone" in by_flag.stdout


def test_a_dropped_recording_is_a_voice_and_a_bad_one_is_named_with_the_reason(
    tmp_path: Path,
) -> None:
    sample = tmp_path / "samples" / "alice.wav"
    sample.parent.mkdir()
    done = run_cli(tmp_path, "--text", "A recording. " * 60, "--output", str(sample))
    assert done.returncode == 0, done.stderr
    (sample.parent / "broken.mp3").write_text("this is not sound")
    listed = run_cli(tmp_path, "voices")
    assert "alice\t" in listed.stdout
    assert "broken.mp3: " in listed.stderr
    spoken = run_cli(tmp_path, "--voice", "alice", "--text", "Hello there.", "--output",
                     str(tmp_path / "cloned.wav"))  # fmt: skip
    assert spoken.returncode == 0, spoken.stderr


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--text", "x", "--voice", "nobody"], "no voice 'nobody'"),
        (["--text", "x", "--opt", "sped=1"], "did you mean 'speed'?"),
        (["--text", "x", "--output", "x.doc"], "expected a name that ends in .wav"),
    ],
)
def test_what_the_engine_refuses_is_one_line_with_the_remedy(
    tmp_path: Path, flags: list[str], told: str
) -> None:
    done = run_cli(tmp_path, "--no-play", *flags)
    assert done.returncode == 2
    assert told in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--text", "x", "--backend", "tnoe"], "did you mean 'tone'?"),
        (["--text", "x", "--opt", "speed"], "expected name=value"),
        (["--text", "x", "--pool-size", "0"], "expected an integer from 1 to 256"),
        (["--text", "  "], "expected something to say"),
        (["--text", "x", "--language", "??"], "language: expected a tag"),
        (["voices", "--backend", "tnoe"], "did you mean 'tone'?"),
        (["backends", "install", "tnoe"], "did you mean 'tone'?"),
        (["backends", "install", "tone"], "names an interpreter"),
        (["backends", "check", "tone", "tnoe"], "did you mean 'tone'?"),
        (["backends", "restart", "tone", "--url", "http://127.0.0.1:9"], "no server answers there"),
        (["backends", "restart", "tone", "--url", "x"], "expected something like http://"),
    ],
)
def test_a_mistake_is_one_line_with_the_remedy(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    told: str,
) -> None:
    for name, value in environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["cli.py", *flags])
    with pytest.raises(SystemExit) as caught:
        main()
    said = capsys.readouterr()
    assert caught.value.code == 2
    assert told in said.err
    assert [line for line in said.err.splitlines() if line.startswith("error: ")] == [
        said.err.splitlines()[-1]
    ]


def test_a_broken_configuration_is_told_by_file_and_key(tmp_path: Path) -> None:
    (tmp_path / "backends.yaml").write_text("default: tone\nbackends: {tone: {workers: x}}\n")
    done = run_cli(tmp_path, "--text", "x")
    assert done.returncode == 2
    assert (
        "backends.yaml › backends.tone.workers › expected an integer from 1 to 256" in done.stderr
    )


def test_an_engine_that_fails_is_an_error_and_a_status(tmp_path: Path) -> None:
    done = run_cli(tmp_path, "--backend", "chaos", "--text", "raise", "--no-play")
    assert done.returncode == 1
    assert "error: " in done.stderr


def test_without_anything_to_do_it_shows_its_help(tmp_path: Path) -> None:
    done = run_cli(tmp_path)
    assert done.returncode == 2
    assert "--stream-tokens" in done.stdout


@pytest.mark.parametrize(
    "command", ["", "backends", "backends install", "backends restart", "voices", "serve", "demo"]
)
def test_every_command_explains_itself(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["cli.py", *command.split(), "--help"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    assert "Usage: " in shown
    assert "--help" in shown


@pytest.mark.parametrize("command", ["", "serve"])
def test_the_version_is_told_even_beside_other_flags(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    argv = ["cli.py", *command.split(), "--version", "--backend", "nonesuch"]
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 0
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert capsys.readouterr().out == f"Voice Server {project['version']}\n"


def test_backends_are_listed_with_their_state(tmp_path: Path) -> None:
    (tmp_path / "backends.yaml").write_text(
        "default: tone\nbackends:\n"
        f"  tone: {{python: {sys.executable}}}\n"
        "  espeak: {auto_install: true, venv: nowhere}\n"
        "  babble: {venv: nowhere}\n"
        "  chaos: {hidden: true}\n"
        "  missing:\n"
    )
    done = run_cli(tmp_path, "backends", "list")
    lines = {line.split("\t")[0]: line for line in done.stdout.splitlines()}
    assert set(lines) == {"tone (default)", "espeak", "babble", "missing"}
    assert "\tinstalled\t" in lines["tone (default)"]
    assert "installs itself on first use" in lines["espeak"]
    assert "run `cli.py backends install babble`" in lines["babble"]
    assert "there is no adapter" in lines["missing"]
    assert "chaos" in run_cli(tmp_path, "backends", "list", "--all").stdout


def test_checking_a_backend_speaks_with_it(tmp_path: Path) -> None:
    done = run_cli(tmp_path, "backends", "check", "tone")
    assert done.returncode == 0, done.stderr
    for word in ("adapter", "greets", "loads", "speaks", "RTF"):
        assert word in done.stdout


def test_checking_a_backend_that_is_not_installed_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "backends.yaml").write_text("default: tone\nbackends: {tone: {venv: nowhere}}\n")
    done = run_cli(tmp_path, "backends", "check", "tone")
    assert done.returncode == 1
    assert "run `cli.py backends install tone`" in done.stderr
    # Nobody is there to be asked, so that speaking does not install it either.
    spoken = run_cli(tmp_path, "--text", "x")
    assert spoken.returncode == 1
    assert "run `cli.py backends install tone`" in spoken.stderr


def test_ctrl_c_stops_the_speech_and_leaves_no_worker(tmp_path: Path) -> None:
    command = [sys.executable, "cli.py", "--backend", "chaos", "--stream-tokens", "--no-play"]
    with subprocess.Popen(
        [*command, "--token-delay", "0", "--text", "slow. " * 200], cwd=ROOT,
        env=environment(tmp_path), stdout=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        while "generating" not in (line := process.stdout.readline()):
            assert line, "it ended too soon"
        workers = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    assert "interrupted" in out
    assert process.returncode == 130
    assert workers
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert not alive


class Terminal:
    """A person at a terminal."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.screen = ""

    def type(self, text: str) -> None:
        os.write(self._descriptor, text.encode())

    def wait_for(self, text: str, seconds: float = 120.0) -> str:
        """Wait until the text appears; gives what was shown up to it, without escape codes."""
        deadline = time.monotonic() + seconds
        while text not in self.screen:
            assert time.monotonic() < deadline, f"no {text!r} in {self.screen[-2000:]!r}"
            if select.select([self._descriptor], [], [], 0.2)[0]:
                try:
                    data = os.read(self._descriptor, 65_536)
                except OSError:  # the program has closed its end
                    data = b""
                assert data or text in self.screen, f"it ended: {self.screen[-2000:]!r}"
                shown = data.decode(errors="replace")
                # A real terminal answers when it is asked where its cursor is.
                if "\x1b[6n" in shown:
                    os.write(self._descriptor, b"\x1b[1;1R")
                self.screen += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]", "", shown)
        before, _, self.screen = self.screen.partition(text)
        return before


@contextmanager
def repl(folder: Path, *flags: str) -> Iterator[tuple[Terminal, subprocess.Popen[bytes]]]:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    env = environment(folder, TERM="xterm")
    with subprocess.Popen(
        [sys.executable, "cli.py", "--repl", "--no-play", *flags],
        stdin=theirs, stdout=theirs, stderr=theirs, cwd=ROOT, env=env, start_new_session=True,
    ) as process:  # fmt: skip
        os.close(theirs)
        try:
            yield Terminal(ours), process
        finally:
            process.kill()
            os.close(ours)


def test_the_repl_speaks_sets_saves_and_leaves(tmp_path: Path) -> None:
    with repl(tmp_path, "--backend", "tone") as (terminal, process):
        terminal.wait_for("tone>")
        terminal.type("Hello there.\r")
        terminal.wait_for("s of sound in")
        terminal.type("/voice high\r")
        terminal.wait_for("voice: high")
        terminal.type("/voice nobody\r")
        terminal.wait_for("no voice 'nobody'")
        terminal.type("/opt speed=2\r")
        terminal.wait_for("options: speed=2")
        terminal.type("/opt sped=2\r")
        terminal.wait_for("did you mean 'speed'?")
        terminal.type("/opt speed=\r")
        terminal.wait_for("options: none")
        terminal.type("/sav\r")
        terminal.wait_for("did you mean '/save'?")
        terminal.type("...\r")  # says nothing: what is saved is what was said before
        terminal.wait_for("nothing to say")
        terminal.type(f"/save {tmp_path / 'said.wav'}\r")
        terminal.wait_for("written to")
        assert seconds_of(tmp_path / "said.wav") > 0.01
        terminal.type("/save said.txt\r")
        terminal.wait_for("error: /save said.txt › expected a name that ends in .wav")
        terminal.type("/help\r")
        terminal.wait_for("Esc or Ctrl-C interrupts")
        terminal.type("/backend chaos\r")
        terminal.wait_for("chaos>")
        terminal.type("/quit\r")
        assert process.wait(60) == 0
    kept = (tmp_path / "state" / "voice-server" / "history").read_text()
    assert "Hello there." in kept


@pytest.mark.parametrize("key", ["\x1b", "\x03"], ids=["escape", "control-c"])
def test_a_key_interrupts_the_speech_and_the_repl_goes_on(tmp_path: Path, key: str) -> None:
    with repl(tmp_path, "--backend", "chaos") as (terminal, process):
        terminal.wait_for("chaos>")
        terminal.type("slow " * 60 + "and quick\r")
        terminal.wait_for("quick")  # the line is taken
        time.sleep(1.5)
        terminal.type(key)
        terminal.wait_for("interrupted")
        terminal.wait_for("chaos>")
        terminal.type("Hello.\r")
        terminal.wait_for("s of sound in")
        terminal.wait_for("chaos>")
        terminal.type("\x04")
        assert process.wait(60) == 0


def test_the_repl_asks_nothing_that_cannot_be_answered(tmp_path: Path) -> None:
    environment(tmp_path)
    with open(tmp_path / "backends.yaml", "a") as listing:
        listing.write("  babble: {venv: nowhere}\n")
    with repl(tmp_path, "--backend", "tone") as (terminal, process):
        terminal.wait_for("tone>")
        terminal.type("/backend babble\r")
        terminal.wait_for("run `cli.py backends install babble`")
        terminal.wait_for("tone>")
        terminal.type("Hello.\r")
        terminal.wait_for("s of sound in")
        terminal.type("/quit\r")
        assert process.wait(60) == 0


def test_the_repl_speaks_the_last_line_of_a_pipe_and_needs_standard_input(tmp_path: Path) -> None:
    done = run_cli(tmp_path, "--repl", "--no-play", stdin="Hello.\nWithout a line break")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("of sound in") == 2
    closed = subprocess.run(
        ["sh", "-c", 'exec "$0" cli.py --repl --no-play <&-', sys.executable],
        capture_output=True, text=True, timeout=150, cwd=ROOT, env=environment(tmp_path),
    )  # fmt: skip
    assert closed.stderr == "error: --repl › standard input is closed; use --text\n"
    assert closed.returncode == 2


def test_the_repl_completes_commands_and_voices(tmp_path: Path) -> None:
    with repl(tmp_path, "--backend", "tone") as (terminal, process):
        terminal.wait_for("tone>")
        terminal.type("/voi\t")
        terminal.wait_for("/voi")
        terminal.wait_for("ce")  # a terminal is sent what changed
        terminal.type(" hi\t")
        terminal.wait_for("gh")
        terminal.type("\r")
        terminal.wait_for("voice: high")
        terminal.wait_for("tone>")
        terminal.type("/quit\r")
        assert process.wait(60) == 0
