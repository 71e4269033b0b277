"""Every way a checkpoint or an option can be wrong has its own words, within seconds."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from model import FILES, REPO, WEIGHTS, find, load
from options import Options, styled
from safetensors.torch import load_file, save_file
from speech import Style

from voice_worker import BackendError, hub


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


@pytest.fixture
def empty_cache(monkeypatch, tmp_path):
    """A hub's cache with nothing in it; the network is asked for nothing."""
    cache = tmp_path / "cache"
    cache.mkdir()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.file_download.constants.HF_HUB_CACHE", str(cache))
    return cache


def refusal(model, code):
    with pytest.raises(BackendError) as caught:
        load(str(model), torch.device("cpu"))
    assert caught.value.code == code
    return str(caught.value)


@pytest.mark.parametrize("name", [*FILES, WEIGHTS])
def test_a_missing_file_is_named_with_the_command_that_fetches_all(copy, name):
    (copy / name).unlink()
    said = refusal(copy, "model_missing")
    assert name in said
    assert f"hf download {REPO} --local-dir {copy}" in said


def test_a_missing_part_of_the_weights_is_named(copy):
    (copy / WEIGHTS).rename(copy / "model-00001-of-00002.safetensors")
    parts = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-2.safetensors"}}
    (copy / f"{WEIGHTS}.index.json").write_text(json.dumps(parts))
    assert "model-2.safetensors" in refusal(copy, "model_missing")


@pytest.mark.parametrize("content", [b"", b"nonsense", None])
def test_damaged_weights_are_noticed(copy, content):
    weights = copy / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-1000] if content is None else content)
    assert str(copy) in refusal(copy, "model_incomplete")


def test_a_weight_that_is_missing_is_not_made_up(copy):
    weights = load_file(copy / WEIGHTS)
    del weights["model.diffusion_head.cond_proj.weight"]
    save_file(weights, copy / WEIGHTS, metadata={"format": "pt"})
    assert "model.diffusion_head.cond_proj.weight" in refusal(copy, "model_incomplete")


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"model_type": "qwen2"}, "bad_option", "'qwen2'"),
        ({"text_config": None}, "bad_option", "Microsoft's own format"),
        (None, "model_incomplete", "no JSON"),
    ],
)
def test_another_model_is_told_apart(copy, changes, code, words):
    config = json.loads((copy / "config.json").read_text())
    kept = {k: v for k, v in {**config, **(changes or {})}.items() if v is not None}
    (copy / "config.json").write_text("{" if changes is None else json.dumps(kept))
    assert words in refusal(copy, code)


@pytest.mark.parametrize("model", ["/nowhere/at/all", "./nowhere", "~/nowhere-at-all", "word"])
def test_a_folder_that_is_not_there_is_named(model):
    assert model in refusal(model, "model_missing")


def test_a_hub_name_without_a_network_says_what_to_download_where(empty_cache, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "_is_reachable", lambda: False)
    said = refusal(REPO, "model_missing")
    assert "no network" in said
    assert f"hf download {REPO} --local-dir FOLDER" in said
    assert "options.model" in said


def test_what_the_cache_holds_whole_is_taken_without_a_network(empty_cache, folder):
    home = empty_cache / f"models--{REPO.replace('/', '--')}"
    commit = "0" * 40
    shutil.copytree(folder, home / "snapshots" / commit)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(commit)
    assert find(REPO) == home / "snapshots" / commit
    (home / "snapshots" / commit / WEIGHTS).unlink()
    assert "all of" in refusal(REPO, "model_missing")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"colour": 1}, "no option 'colour'"),
        ({"device": "tpu"}, "auto, cpu or cuda"),
        ({"dtype": "int8"}, "float32 or bfloat16"),
        ({"threads": 0}, "1 to 64"),
        ({"threads": True}, "1 to 64"),
        ({"model": 3}, "a folder"),
        ({"guidance_scale": 9}, "from 1 to 5"),
        ({"guidance_scale": "2"}, "from 1 to 5"),
        ({"diffusion_steps": 1}, "from 2 to 50"),
        ({"diffusion_steps": 4.0}, "whole number"),
        ({"diffusion_steps": True}, "whole number"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(given, words):
    with pytest.raises(BackendError, match=words) as failure:
        Options.from_map(given)
    assert failure.value.code == "bad_option"


def test_options_of_the_file_are_defaults_of_a_connection():
    chosen = Options.from_map({"guidance_scale": 2, "diffusion_steps": 20})
    assert chosen.style == Style(2.0, 20)
    assert styled(chosen.style, {}) == Style(2.0, 20)
    assert styled(chosen.style, {"diffusion_steps": 5}) == Style(2.0, 5)


def test_bfloat16_speaks_as_well(folder):
    from speech import speak
    from voices import Voices

    model = load(str(folder), torch.device("cpu"), "bfloat16")
    Voices(model)
    assert next(speak(model, None, "Hello.", 1, Style())).dtype == "float32"
