"""Fixtures of the Qwen3-TTS suite. It runs inside the backend's own environment (see ../run)."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from tests.engines.environment import uncollected

collect_ignore_glob = uncollected("qwen_tts")


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    # Not in ./server: those tests run beside the server, where there is no torch.
    if find_spec("torch"):
        import torch

        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory):
    """Directories by kind: base (0.6B-like, no projection), custom_voice, voice_design."""
    import checkpoint

    root = tmp_path_factory.mktemp("qwen3")
    made = {}
    for kind in ("base", "custom_voice", "voice_design"):
        shape = checkpoint.Shape(projection=kind != "base", end_gain=1.35)
        made[kind] = checkpoint.write(root / kind, kind, shape)
    return made


@pytest.fixture(scope="session")
def packages(checkpoints):
    """The package's own models by kind: the reference everything is held against."""
    import torch
    from qwen3_engine.package import import_package

    package = import_package()
    return {
        kind: package.Qwen3TTSModel.from_pretrained(str(path), dtype=torch.float32)
        for kind, path in checkpoints.items()
    }


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """A CustomVoice model as small as they get, in float64: a batch cannot tip a close decision."""
    return _small(tmp_path_factory.mktemp("small"), groups=4, end_gain=1.2)


@pytest.fixture(scope="session")
def swift(tmp_path_factory):
    """Smaller still, and quick to end, for what has to be done thousands of times."""
    return _small(tmp_path_factory.mktemp("swift"), groups=2, end_gain=4.0)


def _small(directory, **shape):
    import checkpoint
    import torch
    from qwen3_engine.package import import_package

    # One stage in the codec instead of four: its exactness is proved on the published shape.
    made = checkpoint.Shape(hidden=16, layers=1, codec_hidden=4, upsample_rates=(480,), **shape)
    path = checkpoint.write(directory, "custom_voice", made)
    wrapper = import_package().Qwen3TTSModel.from_pretrained(str(path), dtype=torch.float64)
    wrapper.model.speech_tokenizer.model.double()
    return wrapper
