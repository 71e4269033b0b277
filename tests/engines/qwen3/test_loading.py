"""Every way a checkpoint can be wrong has its own words, and is found before it is loaded."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager

import pytest
import torch
from qwen3_engine import loading, package
from qwen3_engine.engine import Engine
from qwen3_engine.options import EngineOptions, language_name
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from voice_worker import hub
from voice_worker.backend import BackendError, Voice
from voice_worker.devices import choose_device


@contextmanager
def refused(code):
    with pytest.raises(BackendError) as caught:
        yield caught
    assert caught.value.code == code


@pytest.fixture
def copy(checkpoints, tmp_path):
    return shutil.copytree(checkpoints["custom_voice"], tmp_path / "copy")


def edit(path, **changes):
    value = json.loads(path.read_text())
    path.write_text(json.dumps({**value, **changes}))


def edit_within(path, names, value):
    whole = config = json.loads(path.read_text())
    for name in names[:-1]:
        config = config[name]
    config[names[-1]] = value
    path.write_text(json.dumps(whole))


@pytest.mark.parametrize("name", loading.REQUIRED)
def test_a_missing_file_is_named(copy, name):
    (copy / name).unlink()
    with refused("model_incomplete") as failure:
        loading.inspect(copy)
    assert name in str(failure.value)


@pytest.mark.parametrize("folder", [".", "speech_tokenizer"])
@pytest.mark.parametrize("is_link", [False, True])
def test_missing_weights_are_noticed(copy, folder, is_link):
    (copy / folder / "model.safetensors").unlink()
    if is_link:
        (copy / folder / "model.safetensors").symlink_to(copy / "gone")
    with refused("model_incomplete"):
        loading.inspect(copy)


@pytest.mark.parametrize("folder", [".", "speech_tokenizer"])
def test_weights_in_several_files_are_read_where_all_are_there(copy, folder):
    path = copy / folder / "model.safetensors"
    weights = load_file(path)
    path.unlink()
    index = {}
    for number in (1, 2):
        names = sorted(weights)[number - 1 :: 2]
        shard = path.with_name(f"model-{number}-of-2.safetensors")
        save_file({name: weights[name] for name in names}, shard, metadata={"format": "pt"})
        index |= dict.fromkeys(names, shard.name)
    listed = path.with_name("model.safetensors.index.json")
    listed.write_text(json.dumps({"metadata": {}, "weight_map": index}))
    assert load(copy).slots == 4
    shard.unlink()
    with refused("model_incomplete") as failure:
        loading.inspect(copy)
    assert f"has no {shard.relative_to(copy)}" in str(failure.value)
    listed.write_text("{}")
    with refused("model_incomplete") as failure:
        loading.inspect(copy)
    assert listed.name in str(failure.value)


def test_damaged_weights_are_noticed(copy):
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with refused("model_incomplete") as failure:
        Engine.load(EngineOptions.from_map({"model": str(copy), "device": "cpu"}))
    assert str(copy) in str(failure.value)
    assert "fetch" in str(failure.value)


@pytest.mark.parametrize(
    "name",
    [
        "generation_config.json",
        "tokenizer_config.json",
        "preprocessor_config.json",
        "vocab.json",
        "merges.txt",
        "tokenizer.json",
        "speech_tokenizer/config.json",
        "speech_tokenizer/preprocessor_config.json",
    ],
)
@pytest.mark.parametrize(
    "bytes_",
    [b"", b"\xff\xfe\x00", b"[1, 2]", b'{"version": "1.0", "mod'],
    ids=["empty", "binary", "list", "cut"],
)
def test_a_damaged_file_is_named(copy, name, bytes_):
    (copy / name).write_bytes(bytes_)
    with refused("model_incomplete") as failure:
        loading.inspect(copy)
    assert name in str(failure.value)


def load(directory, **more):
    options = {"model": str(directory), "device": "cpu", **more}
    return Engine.load(EngineOptions.from_map(options))


def test_weights_of_something_else_are_not_filled_up_with_noise(copy):
    shutil.copy(copy / "speech_tokenizer" / "model.safetensors", copy / "model.safetensors")
    with refused("model_incomplete") as failure:
        load(copy)
    assert "have no talker." in str(failure.value)


def test_a_tokenizer_that_may_be_left_out_is_read_where_it_is_whole(copy):
    whole = load(copy).parts.text
    tokenizer = AutoTokenizer.from_pretrained(copy).backend_tokenizer
    (copy / "tokenizer.json").write_text("{}")
    with refused("model_incomplete") as failure:
        load(copy)
    assert "delete it" in str(failure.value)
    tokenizer.save(str(copy / "tokenizer.json"))
    assert load(copy).parts.text.tokens("hello world") == whole.tokens("hello world")


@pytest.mark.parametrize(
    ("number", "folder", "name"),
    [
        (math.nan, ".", "talker.model.layers.1.mlp.down_proj.weight"),
        (math.inf, ".", "talker.code_predictor.model.codec_embedding.14.weight"),
        (
            -math.inf,
            "speech_tokenizer",
            "decoder.quantizer.rvq_rest.vq.layers.3._codebook.embedding_sum",
        ),
        (math.nan, "speech_tokenizer", "encoder.encoder.layers.0.conv.bias"),
    ],
    ids=["talker", "predictor", "decoder", "encoder"],
)
def test_a_weight_that_is_no_number_is_named_and_not_spoken_with(copy, number, folder, name):
    path = copy / folder / "model.safetensors"
    weights = load_file(path)
    weights[name].view(-1)[-1] = number
    save_file(weights, path, metadata={"format": "pt"})
    with refused("model_incomplete") as failure:
        load(copy)
    assert f"{name} in {copy / folder} holds NaN or infinity as float32" in str(failure.value)


def test_weights_that_a_dtype_cannot_hold_are_named_with_another_dtype(copy):
    path = copy / "model.safetensors"
    weights = load_file(path)
    weights["talker.codec_head.weight"][0] = 1e5
    save_file(weights, path, metadata={"format": "pt"})
    assert load(copy).slots == 4
    with refused("model_incomplete") as failure:
        load(copy, dtype="float16")
    assert "set option 'dtype' to bfloat16" in str(failure.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tts_pad_token_id": 10**7}, "tts_pad_token_id is 10000000"),
        ({"tts_eos_token_id": None}, "tts_eos_token_id is no number"),
        ({"tts_bos_token_id": "x"}, "tts_bos_token_id is no number"),
        ({"talker_config": {"codec_eos_token_id": 9999}}, "codec_eos_token_id is 9999"),
        ({"talker_config": {"spk_id": {"ryan": -1}}}, "ryan is -1"),
        ({"talker_config": {"spk_id": {}}}, "no speakers"),
        ({"talker_config": {"spk_id": None}}, "could not be loaded"),
        ({"talker_config": {"num_hidden_layers": 3}}, "have no talker.model.layers.2"),
        ({"talker_config": {"num_hidden_layers": 1}}, "hold talker.model.layers.1"),
        ({"talker_config": {"num_hidden_layers": 0}}, "hold talker.model.layers.0"),
        ({"talker_config": {"hidden_size": "64"}}, "could not be loaded"),
        ({"talker_config": {"hidden_size": 128}}, "could not be loaded"),
        ({"talker_config": "small"}, "could not be loaded"),
        ({"talker_config": {"spk_id": {"ryan": "x"}}}, "spk_id of ryan is no number"),
    ],
)
def test_a_configuration_that_does_not_fit_the_weights_is_refused(copy, changes, words):
    path = copy / "config.json"
    config = json.loads(path.read_text())
    for name, value in changes.items():
        config[name] = {**config[name], **value} if isinstance(value, dict) else value
    path.write_text(json.dumps(config))
    with refused("model_incomplete") as failure:
        load(copy)
    assert words in str(failure.value)


@pytest.mark.parametrize("folder", [".", "speech_tokenizer"])
def test_weights_of_a_type_that_cannot_be_computed_with_are_refused(copy, folder):
    path = copy / folder / "model.safetensors"
    weights = {name: tensor.to(torch.float8_e4m3fn) for name, tensor in load_file(path).items()}
    save_file(weights, path, metadata={"format": "pt"})
    with refused("model_incomplete") as failure:
        load(copy)
    assert "Float8" in str(failure.value)


def test_a_processor_of_another_kind_is_refused(copy):
    edit(copy / "preprocessor_config.json", processor_class="x")
    with refused("model_incomplete") as failure:
        load(copy)
    assert "could not be loaded" in str(failure.value)


@pytest.mark.parametrize(
    ("folder", "names", "words"),
    [
        ("speech_tokenizer", ("decoder_config", "num_quantizers"), "its codec reads 8"),
        (".", ("talker_config", "num_code_groups"), "talker makes 8 codes"),
        (".", ("talker_config", "code_predictor_config", "num_code_groups"), "code predictor 8"),
    ],
)
def test_parts_that_count_codebooks_differently_are_refused(copy, folder, names, words):
    edit_within(copy / folder / "config.json", names, 8)
    with refused("model_incomplete") as failure:
        load(copy)
    assert words in str(failure.value)


def test_a_codec_of_fewer_layers_than_its_weights_is_refused(copy):
    path = copy / "speech_tokenizer" / "config.json"
    edit_within(path, ("decoder_config", "num_hidden_layers"), 1)
    with refused("model_incomplete") as failure:
        load(copy)
    assert "hold decoder.pre_transformer.layers.1" in str(failure.value)


def test_what_a_configuration_says_beside_the_matter_is_overlooked(copy):
    edit(copy / "config.json", invented=1)
    (copy / "notes.json").write_text("[1, 2]")
    assert load(copy).slots == 4


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "qwen2"}, "qwen2"),
        ({"tokenizer_type": "qwen3_tts_tokenizer_25hz"}, "12Hz"),
        ({"tts_model_type": "singing"}, "singing"),
    ],
)
def test_another_model_is_told_apart(copy, changes, words):
    edit(copy / "config.json", **changes)
    with refused("wrong_model") as failure:
        loading.inspect(copy)
    assert words in str(failure.value)


def test_a_configuration_that_is_no_json_is_named(copy):
    (copy / "config.json").write_text("{")
    with refused("model_incomplete") as failure:
        loading.inspect(copy)
    assert "config.json" in str(failure.value)


def test_a_hub_name_without_network_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with refused("model_missing") as failure:
        loading.locate("Qwen/Qwen3-TTS-12Hz-0.6B-Base")
    assert "hf download Qwen/Qwen3-TTS-12Hz-0.6B-Base --local-dir" in str(failure.value)


def test_a_name_that_no_hub_can_have_is_refused():
    with refused("model_missing"):
        loading.locate("-x/..")


def test_a_hub_name_in_the_cache_needs_no_network(checkpoints, monkeypatch, tmp_path):
    """The cache's own layout: refs name a commit, snapshots hold its files."""
    root = tmp_path / "models--Qwen--Qwen3-TTS-12Hz-0.6B-Base"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text("abc123")
    shutil.copytree(checkpoints["base"], root / "snapshots" / "abc123")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    found = loading.locate("Qwen/Qwen3-TTS-12Hz-0.6B-Base")
    assert loading.inspect(found).kind == "base"


def test_a_download_that_was_interrupted_goes_on(checkpoints, monkeypatch, tmp_path):
    """What the cache holds of it is no reason to refuse, nor to be content."""
    whole, begun = checkpoints["base"], tmp_path / "begun"
    shutil.copytree(whole, begun, ignore=shutil.ignore_patterns("*.safetensors"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "_is_reachable", lambda: True)
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download",
        lambda repo, revision=None, local_files_only=False: str(
            begun if local_files_only else whole
        ),
    )
    assert loading.locate("Qwen/Qwen3-TTS-12Hz-0.6B-Base") == whole


def test_devices_are_checked(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == "cpu"
    assert choose_device("cpu") == "cpu"
    for wanted in ("cuda", "cuda:1"):
        with refused("no_cuda") as failure:
            choose_device(wanted)
        assert "device: cpu" in str(failure.value)
    for wanted in ("gpu", "cuda:x", "cpu:1", ""):
        with refused("bad_option"):
            choose_device(wanted)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("cuda:1") == "cuda:1"
    with refused("no_cuda"):
        choose_device("cuda:2")


def test_the_dtype_follows_the_device():
    assert loading.choose_dtype("auto", torch.device("cpu")) == torch.float32
    assert loading.choose_dtype("auto", torch.device("cuda")) == torch.bfloat16
    assert loading.choose_dtype("float16", torch.device("cpu")) == torch.float16


def test_too_little_memory_is_known_before_loading(checkpoints, monkeypatch):
    checkpoint = loading.inspect(checkpoints["base"])
    cpu = torch.device("cpu")
    assert loading.available_memory(cpu) > 10**6
    monkeypatch.setattr(loading, "available_memory", lambda _device: checkpoint.bytes // 2)
    with refused("out_of_memory") as failure:
        loading.check_memory(checkpoint, cpu, torch.bfloat16)
    assert "0.6B" in str(failure.value)


def test_memory_that_ends_while_loading_is_no_fault_of_the_files(copy, monkeypatch):
    wrapper = package.import_package().Qwen3TTSModel
    monkeypatch.setattr(wrapper, "from_pretrained", lambda *_, **__: torch.empty(2**50))
    with refused("out_of_memory") as failure:
        load(copy)
    assert "0.6B" in str(failure.value)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"model": ""},
        {"model": "x", "modle": 1},
        {"model": "x", "slots": 0},
        {"model": "x", "slots": "many"},
        {"model": "x", "max_length": 10},
        {"model": "x", "codec_group": 9},
        {"model": "x", "memory_fraction": 2},
        {"model": "x", "dtype": "int8"},
        {"model": "x", "graphs": "yes"},
        {"model": "x", "pipelined": "yes"},
        {"model": "x", "device": 0},
        {"model": "x", "speaker": 5},
        {"model": "x", "design": 5},
        {"model": "x", "frames_per_token": float("nan")},
    ],
)
def test_an_option_out_of_range_is_refused(options):
    with refused("bad_option"):
        EngineOptions.from_map(options)


def test_a_speaker_the_model_does_not_have_is_refused_at_load(checkpoints):
    options = {"model": str(checkpoints["custom_voice"]), "device": "cpu", "speaker": "nobody"}
    with refused("bad_option"):
        Engine.load(EngineOptions.from_map(options))


@pytest.mark.parametrize(
    ("tag", "name"),
    [
        ("en-GB", "english"),
        ("ZH_cn", "chinese"),
        ("german", "german"),
        (None, "auto"),
        ("", "auto"),
    ],
)
def test_languages_go_by_tag_or_name(tag, name):
    assert language_name(tag) == name


@pytest.mark.parametrize("kind", ["base", "custom_voice", "voice_design"])
def test_every_kind_loads_and_says_what_it_can_do(checkpoints, kind):
    options = {"model": str(checkpoints[kind]), "device": "cpu", "slots": 1}
    engine = Engine.load(EngineOptions.from_map(options))
    assert engine.voices.kind == kind
    assert engine.defaults.temperature == 0.9
    if kind != "base":
        assert engine.prepare(Voice()).length >= 8


@pytest.mark.parametrize(
    "model", ["base", "./models/base", "models/base", "/nowhere/base", "config.json"]
)
def test_a_directory_that_is_not_there_is_named_as_it_was_looked_for(tmp_path, monkeypatch, model):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.json").touch()
    monkeypatch.setattr(hub, "_is_reachable", lambda: False)
    with refused("model_missing") as failure:
        loading.locate(model)
    assert str(tmp_path / model) in str(failure.value)


def test_more_room_than_there_is_for_turns_is_refused_with_the_remedy(copy, monkeypatch):
    def fail(*_args):
        # What torch 2.13 raises on a CPU.
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 68")

    monkeypatch.setattr("qwen3_engine.engine.Slots", fail)
    with refused("out_of_memory") as failure:
        load(copy)
    assert "fewer 'slots'" in str(failure.value)


def test_settings_that_the_model_recommends_are_checked_and_may_be_left_out(copy):
    edit(copy / "generation_config.json", temperature=None, top_k=None)
    assert load(copy).defaults.temperature == 0.9
    edit(copy / "generation_config.json", temperature="hot")
    with refused("model_incomplete") as failure:
        load(copy)
    assert "generation_config.json: temperature must be" in str(failure.value)


def test_a_language_that_the_checkpoint_does_not_name_is_not_claimed(copy):
    about = json.loads((copy / "config.json").read_text())
    about["talker_config"]["codec_language_id"] = {"english": 80, "german": 81}
    (copy / "config.json").write_text(json.dumps(about))
    engine = load(copy)
    assert engine.voices.languages == ["en", "de"]
    with refused("unsupported_language"):
        engine.admit(1, Voice(), {"language": "fr"}, 0)


@pytest.mark.parametrize("which", ["moved", "larger", "controls"])
def test_the_tokenizer_of_another_model_is_noticed(copy, which):
    vocabulary = json.loads((copy / "vocab.json").read_text())
    if which == "moved":
        vocabulary = {name: number + 5000 for name, number in vocabulary.items()}
    elif which == "larger":
        vocabulary |= {f"zz{number}": number for number in range(len(vocabulary), 6000)}
    else:
        edit(copy / "config.json", im_start_token_id=5)
    (copy / "vocab.json").write_text(json.dumps(vocabulary))
    with refused("model_incomplete") as failure:
        Engine.load(EngineOptions.from_map({"model": str(copy), "device": "cpu"}))
    assert "belongs to another model" in str(failure.value)


def test_a_package_that_is_not_installed_is_named_with_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "qwen_tts", None)
    with refused("not_installed") as failure:
        package.import_package()
    assert "backends install qwen3" in str(failure.value)


def test_importing_the_package_needs_none_of_what_it_stands_in_for():
    package.import_package()
    assert sys.modules["librosa"].__version__ == "0.0.0"
    with pytest.raises(RuntimeError, match="does not install"):
        sys.modules["einops"].rearrange("a b -> b a")


def test_the_package_asks_nobody_for_what_is_not_used():
    code = "from qwen3_engine.package import import_package; import_package()"
    command = [sys.executable, "-c", code]
    paths = os.pathsep.join(filter(None, sys.path))
    environment = {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_the_stand_in_filter_bank_is_the_one_the_speaker_encoder_was_trained_with():
    """Slaney filters have unit area over frequency: checked against that definition."""
    bank = package._mel(sr=24_000, n_fft=1024, n_mels=128, fmin=0, fmax=12_000)
    assert bank.shape == (128, 513)
    areas = bank.sum(1) * (24_000 / 1024)
    assert abs(areas[40:] - 1).max() < 0.1


def test_a_dtype_rounds_weights_and_leaves_rotary_frequencies_as_the_package_has_them(
    checkpoints, packages
):
    """In bfloat16 they would turn the codec's oldest keys a quarter of a radian too far."""
    checkpoint = loading.inspect(checkpoints["base"])
    loaded = loading.load(checkpoint, torch.device("cpu"), torch.bfloat16)

    def frequencies(wrapper):
        codec = wrapper.model.speech_tokenizer.model
        named = [*wrapper.model.named_buffers(), *codec.named_buffers()]
        return [value for name, value in named if name.endswith("inv_freq")]

    wanted = frequencies(packages["base"])
    assert len(wanted) > 2
    for one, other in zip(frequencies(loaded), wanted, strict=True):
        assert torch.equal(one, other)
    assert {p.dtype for p in loaded.model.parameters()} == {torch.bfloat16}
