"""The runtime of segment backends in real processes: speech, faults, cancel, resume, the end."""

import os
import signal
import subprocess
import sys
import time
import wave
import zlib
from pathlib import Path

import numpy as np
import pytest

from tests.integration.raw_worker import PATIENCE, ROOT, RawWorker
from voice_worker import messages as m
from voice_worker.lifeline import STACK_DUMP_SIGNAL
from voice_worker.protocol import RemoteProtocolError
from voice_worker.wire import info_from_map


@pytest.fixture(scope="module")
def tone():
    with RawWorker("tone") as worker:
        yield worker


@pytest.fixture(scope="module")
def chaos():
    """One worker for all tests that it should survive."""
    with RawWorker("chaos") as worker:
        yield worker


class Numbers:
    """Job numbers that no two tests of a module share."""

    last = 0


@pytest.fixture
def job():
    Numbers.last += 1
    return Numbers.last * 1000


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def write_tone(path: Path, hertz: float, *, harmonics: int = 6, seconds: float = 1.0) -> None:
    t = np.arange(int(24_000 * seconds)) / 24_000
    voiced = sum(np.sin(2 * np.pi * hertz * n * t) / n for n in range(1, harmonics + 1))
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(24_000)
        file.writeframes((voiced / np.abs(voiced).max() * 20_000).astype("<i2").tobytes())


def pitch(pcm: bytes) -> float:
    """Hertz of the strongest bin; padded, so that bins are a quarter of a hertz wide."""
    samples = np.frombuffer(pcm, "<i2").astype(float)
    amplitudes = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), 96_000))
    return float(np.argmax(amplitudes) / 4)


def test_it_greets_and_says_what_it_can_do(tone):
    assert tone.hello.pid == tone.process.pid
    assert tone.hello.backend == "tone"
    info = info_from_map(tone.ready.info)
    assert info.clones
    assert [speaker.id for speaker in info.speakers] == ["low", "high"]


def test_tone_speaks_24_khz_with_exact_words(tone, job):
    speech = tone.speak(job, "one two  three", voice={"speaker": "high"})
    per_word = round(22_050 * 0.05) / 22_050 * 24_000
    assert speech.done.samples == len(speech.pcm) // 2 == round(3 * per_word)
    assert speech.words == [
        [start, end, round(n * per_word), round((n + 1) * per_word)]
        for n, (start, end) in enumerate([(0, 3), (4, 7), (9, 14)])
    ]
    assert pitch(speech.pcm) == pytest.approx(440, rel=0.02)
    assert set(speech.done.timing) == {"first", "total"}


def test_words_come_before_the_sound_that_ends_them(tone, job):
    sent = 0
    for message in tone.speak(job, "a b c d e").messages:
        if isinstance(message, m.Words):
            assert all(word[3] > sent for word in message.words)
        elif isinstance(message, m.Audio):
            assert message.offset == sent
            sent += len(message.pcm) // 2


def test_the_seed_does_not_matter_to_a_backend_without_chance(tone, job):
    assert tone.speak(job, "x y", seed=1).pcm == tone.speak(job + 1, "x y", seed=2**62).pcm


def test_text_without_words_is_done_at_once(tone, job):
    assert tone.speak(job, " \n\0 ").words[0][:2] == [2, 3]
    assert tone.speak(job + 1, "").done.samples == 0


@pytest.mark.parametrize("hertz", [60, 97.3, 220, 523.25, 1000])
@pytest.mark.parametrize("harmonics", [1, 6])
def test_tone_clones_a_sample_by_its_pitch(tone, job, tmp_path, hertz, harmonics):
    write_tone(tmp_path / "v.wav", hertz, harmonics=harmonics)
    voice = {"samples": [{"path": str(tmp_path / "v.wav")}], "digest": f"{job}"}
    tone.send(m.Prepare(job, voice))
    assert tone.get() == m.Prepared(job)
    (tmp_path / "v.wav").unlink()  # the prompt is cached: nobody reads the file again
    speech = tone.speak(job, "aaa", voice=voice, params={"speed": 0.25})
    assert pitch(speech.pcm) == pytest.approx(hertz, rel=0.01, abs=1.0)


def test_several_samples_make_one_voice(tone, job, tmp_path):
    for hertz in (200, 300):
        write_tone(tmp_path / f"{hertz}.wav", hertz)
    samples = [{"path": str(tmp_path / f"{hertz}.wav"), "transcript": "la"} for hertz in (200, 300)]
    voice = {"samples": samples, "digest": f"{job}"}
    assert pitch(tone.speak(job, "a", voice=voice, params={"speed": 0.25}).pcm) == pytest.approx(
        250, rel=0.01
    )


def test_a_sample_that_cannot_be_used_is_a_typed_error(tone, job, tmp_path):
    noise = np.random.default_rng(1).integers(-9000, 9000, 24_000).astype("<i2")
    with wave.open(str(tmp_path / "noise.wav"), "wb") as file:
        file.setparams((1, 2, 24_000, 0, "NONE", ""))
        file.writeframes(noise.tobytes())
    for name, says in (("noise.wav", "no clear pitch"), ("absent.wav", "cannot read absent.wav")):
        voice = {"samples": [{"path": str(tmp_path / name)}], "digest": f"{job}{name}"}
        failed = tone.speak(job, "a", voice=voice).failed
        assert failed.code == "bad_sample"
        assert says in failed.error
        tone.send(m.Prepare(job, voice))
        failed = tone.get()
        assert isinstance(failed, m.Failed)
        assert (failed.request, failed.code) == (job, "bad_sample")
        job += 1


@pytest.mark.parametrize(
    ("fields", "code", "says"),
    [
        ({"params": {"speed": 9}}, "bad_option", "from 0.25 to 4"),
        ({"params": {"speed": True}}, "bad_option", "from 0.25 to 4"),
        ({"voice": {"speaker": "nobody"}}, "unknown_voice", "low or high"),
        ({"voice": {"samples": "x"}}, "synthesis_failed", "voice.samples must be a list"),
        ({"voice": {"speaker": 5}}, "synthesis_failed", "voice.speaker must be a string"),
    ],
)
def test_bad_input_costs_its_job_only(tone, job, fields, code, says):
    failed = tone.speak(job, "a", **fields).failed
    assert failed.code == code
    assert says in failed.error
    assert tone.speak(job + 1, "a").done


def test_prints_and_imports_do_not_reach_the_pipe(chaos, job):
    assert chaos.speak(job, "print imports word").done.samples == 3 * 240
    for text in ("library banner on stdout", "raw write to fd 1", "printf from C", "x" * 5000):
        chaos.wait_for_stderr(text)


def test_ten_megabytes_on_stderr_stall_nothing(chaos, job):
    quiet = chaos.speak(job, "flood word").pcm
    assert quiet == chaos.speak(job + 1, "flood word").pcm
    assert chaos.stderr.count("noise") > 1_000_000


@pytest.mark.parametrize(
    ("word", "code", "says"),
    [
        ("raise", "synthesis_failed", "ValueError: model said no"),
        ("refuse", "unsupported_language", "no such language here"),
        ("oom", "out_of_memory", "4 TB wanted"),
        ("cudaoom", "out_of_memory", "CUDA out of memory"),
        ("sysexit", "synthesis_failed", "asked the process to exit"),
    ],
)
def test_a_failure_is_typed_and_leaves_the_worker_usable(chaos, job, word, code, says):
    speech = chaos.speak(job, f"before {word} after")
    assert len(speech.pcm) == 480
    assert speech.failed.code == code
    assert says in speech.failed.error
    assert "misdeeds.py" in speech.failed.detail
    assert chaos.speak(job + 1, "fine").done


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("exit", 7),
        ("kill", -signal.SIGKILL),
        ("segfault", -signal.SIGSEGV),
        ("abort", -signal.SIGABRT),
        ("cudalost", 75),
    ],
)
def test_death_in_a_job_is_the_end_of_the_pipe(word, status):
    with RawWorker("chaos") as worker:
        worker.send(m.Synthesize(1, 1, f"hello {word}", {}))
        with pytest.raises(RemoteProtocolError, match="it ended while ready"):
            list(worker.job(1))
        assert worker.wait() == status
        if word in ("segfault", "abort", "cudalost"):
            assert "backend.py" in worker.stderr


def test_refusing_to_load_says_why_and_exits():
    with RawWorker("chaos", {"refuse": True}) as worker:
        assert isinstance(worker.ready, m.Failed)
        assert worker.ready.error == "RuntimeError: no GPU here"
        with pytest.raises(EOFError):
            worker.get()
        assert worker.wait() == 1


def test_dying_while_loading_is_seen():
    with RawWorker("chaos", load=False) as worker:
        worker.get()
        worker.send(m.Load({"load_exit": 9}))
        with pytest.raises(RemoteProtocolError, match="while loading"):
            worker.get()
        assert worker.wait() == 9


def test_a_backend_that_cannot_be_imported_says_so_on_stderr(tmp_path):
    (tmp_path / "backend.py").write_text("import no_such_module\n")
    with RawWorker(tmp_path / "backend.py", load=False) as worker:
        with pytest.raises(RemoteProtocolError, match="while opening"):
            worker.get()
        assert worker.wait() == 1
        assert "no_such_module" in worker.stderr


def test_cancel_takes_effect_at_the_next_chunk(chaos, job):
    chaos.send(m.Synthesize(job, 1, "slow " * 500, {}))
    assert isinstance(chaos.get(), m.Words | m.Audio)
    chaos.send(m.Cancel(job))
    done = list(chaos.job(job))[-1]
    assert isinstance(done, m.Done)
    assert done.cancelled
    assert done.samples < 500 * 240
    assert chaos.speak(job + 1, "next").pcm == chaos.speak(job + 2, "next").pcm != b""


def test_a_cancel_that_comes_too_late_is_nothing(tone, job):
    for number in range(job, job + 50):
        tone.send(m.Synthesize(number, 1, "a", {}), m.Cancel(number))
        assert isinstance(list(tone.job(number))[-1], m.Done)
    assert tone.speak(job + 50, "a").done.cancelled is False


def test_a_job_that_is_cancelled_before_its_turn_is_not_begun(chaos, job):
    chaos.send(m.Prepare(job, {}), m.Synthesize(job, 1, "slow", {}), m.Cancel(job))
    assert isinstance(chaos.get(), m.Prepared)
    assert isinstance(list(chaos.job(job))[-1], m.Done)


def test_a_ping_is_answered_while_the_model_hangs():
    with RawWorker("chaos") as worker:
        worker.send(m.Synthesize(1, 1, "hang", {}), m.Ping(77))
        assert worker.get() == m.Pong(77)


@pytest.mark.parametrize(("word", "where"), [("hang", "in hang"), ("spin", "in hold_the_lock")])
def test_a_hung_worker_shows_where_it_hangs(word, where):
    with RawWorker("chaos") as worker:
        worker.send(m.Synthesize(1, 1, f"word {word}", {}))
        while not isinstance(worker.get(), m.Audio):
            pass
        deadline = time.monotonic() + PATIENCE
        while where not in worker.stderr:  # it may not be there yet
            assert time.monotonic() < deadline, worker.stderr[-2000:]
            os.kill(worker.process.pid, STACK_DUMP_SIGNAL)
            time.sleep(0.2)
        assert worker.process.poll() is None


def test_garbage_in_the_pipe_is_found_at_once():
    with RawWorker("chaos") as worker:
        worker.send(m.Synthesize(1, 1, "garbage", {}))
        with pytest.raises(RemoteProtocolError, match="exceeds"):
            list(worker.job(1))


def test_a_server_that_breaks_the_protocol_loses_the_worker():
    with RawWorker("tone") as worker:
        worker.write(b"\xff" * 8)
        with pytest.raises(RemoteProtocolError):
            worker.get()
        assert worker.wait() == 76
        assert "the server broke the protocol" in worker.stderr


def test_it_finishes_its_job_and_goes_when_asked():
    with RawWorker("chaos") as worker:
        worker.send(m.Synthesize(1, 1, "slow slow", {}), m.Shutdown())
        assert isinstance(list(worker.job(1))[-1], m.Done)
        with pytest.raises(EOFError):
            worker.get()
        assert worker.wait() == 0


def test_it_may_be_sent_away_before_it_loaded():
    with RawWorker("tone", load=False) as worker:
        worker.get()
        worker.send(m.Shutdown())
        assert worker.wait() == 0


@pytest.mark.parametrize("word", ["hang", "slow"])
def test_it_does_not_outlive_the_pipe(word):
    with RawWorker("chaos") as worker:
        worker.send(m.Synthesize(1, 1, f"word {word} " * 100, {}))
        worker.get()
        assert worker.process.stdin is not None
        worker.process.stdin.close()
        assert worker.wait() == 0


@pytest.mark.parametrize("word", ["hang", "spin"])
def test_it_does_not_outlive_a_killed_server(word):
    server = f"""
import sys, time
sys.path.insert(0, {str(ROOT)!r})
from tests.integration.raw_worker import RawWorker
from voice_worker import messages as m
worker = RawWorker("chaos")
worker.send(m.Synthesize(1, 1, "word {word}", {{}}))
worker.get()
print(worker.process.pid, flush=True)
time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", server], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
    finally:
        process.kill()
        process.wait(PATIENCE)
        process.stdout.close()
    deadline = time.monotonic() + PATIENCE
    while is_running(pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_large_chunk_becomes_messages_of_64_kib():
    with RawWorker("chaos", {"seconds_per_word": 2.0}) as worker:
        speech = worker.speak(1, "long")
        sizes = [len(x.pcm) for x in speech.messages if isinstance(x, m.Audio)]
        assert sizes == [65_536, 96_000 - 65_536]


@pytest.mark.parametrize("delivered", [1, 777, 1199, 1200, 3000, 5997])
def test_a_resumed_job_goes_on_with_the_bytes_of_the_undisturbed_one(tone, job, delivered):
    whole = tone.speak(job, "one two three four five")
    assert whole.done.samples == 5997
    resume = {"samples": delivered, "crc": zlib.crc32(whole.pcm[: 2 * delivered])}
    rest = tone.speak(job, "one two three four five", attempt=2, resume=resume)
    assert whole.pcm[: 2 * delivered] + rest.pcm == whole.pcm
    assert rest.done.samples == 5997
    assert rest.words == [word for word in whole.words if word[3] > delivered]


@pytest.mark.parametrize(("text", "samples"), [("random", 100), ("steady", 100), ("steady", 5000)])
def test_a_resume_that_cannot_be_honoured_is_said_and_nothing_sent(chaos, job, text, samples):
    speech = chaos.speak(job, text, attempt=2, resume={"samples": samples, "crc": 12345})
    assert speech.failed.code == "resume_mismatch"
    assert speech.pcm == b""
    assert speech.words == []


def test_a_misdeed_that_happens_once_does_not_happen_to_the_next_worker(tmp_path):
    options = {"state_dir": str(tmp_path)}
    with RawWorker("chaos", options) as worker:
        worker.send(m.Synthesize(1, 1, "first exitonce last", {}))
        with pytest.raises(RemoteProtocolError):
            list(worker.job(1))
        assert worker.wait() == 7
    with RawWorker("chaos", options) as worker:
        assert worker.speak(1, "first exitonce last").done.samples == 3 * 240
