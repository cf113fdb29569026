"""Metadata keys of model files, one by one: logits against NumPy in float64 (tests/support/numpy_model.py). Every key that
the gguf package knows is read, refused by name, or in docs/MODELS.md as one that decides nothing."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
import subprocess
import sys
from typing import Any

import gguf
import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests" / "support"))
import numpy_model  # noqa: E402
from numpy_model import Network  # noqa: E402

BIN = pathlib.Path(os.environ.get("MNEMO_BIN", ROOT / "build" / "release" / "bin"))
IDS = [int(i) for i in np.random.default_rng(5).integers(0, 256, 90)]
ARCHITECTURES = ("llama", "qwen2", "qwen3", "gemma3")
TOLERANCE = {"reference": 5e-4, "cpu": 0.05}  # float32 throughout; activations and cache of fewer bits


def network_of(architecture: str, **changes: Any) -> Network:
    network = Network(architecture=architecture)
    if architecture == "gemma3":
        network = dataclasses.replace(network, layers=4, window=24, theta=1e6, theta_local=10000.0, windowed=[True] * 4)
    return dataclasses.replace(network, **changes)


def run(path: pathlib.Path, device: str) -> subprocess.CompletedProcess[bytes]:
    command = [str(BIN / "mnemo_logits_dump"), "--model", str(path), "--device", device]
    return subprocess.run(command, input=" ".join(map(str, IDS)).encode(), capture_output=True, timeout=60)


def found(path: pathlib.Path, device: str = "reference") -> np.ndarray:
    done = run(path, device)
    assert done.returncode == 0, done.stderr.decode()
    logits = np.frombuffer(done.stdout, np.float32).reshape(len(IDS), -1).astype(np.float64)
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def refusal(path: pathlib.Path) -> str:
    done = run(path, "reference")
    assert done.returncode == 1 and not done.stdout, f"the file was taken, or the program died: {done.returncode}"
    return done.stderr.decode()


def check(path: pathlib.Path, network: Network, weights: dict[str, np.ndarray], otherwise: Network | None) -> None:
    """`otherwise`: the network of a reader that does not know the key."""
    want = numpy_model.log_probabilities(network, weights, IDS)
    if otherwise is not None:
        assert np.abs(want - numpy_model.log_probabilities(otherwise, weights, IDS)).max() > 0.2, "the key decides nothing in this model"
    for device, tolerance in TOLERANCE.items():
        assert np.abs(found(path, device) - want).max() < tolerance, device


# Keys written, keys left out, and the network's difference from its usual form; for every architecture.
EVERYWHERE: dict[str, tuple[dict[str, Any], tuple[str, ...], dict[str, Any]]] = {
    "factor without a type": ({"rope.scaling.factor": 4.0}, (), {"positions_divided_by": 4.0}),
    "linear and its factor": ({"rope.scaling.type": "linear", "rope.scaling.factor": 3.0}, (), {"positions_divided_by": 3.0}),
    "the factor's old name": ({"rope.scale_linear": 5.0}, (), {"positions_divided_by": 5.0}),
    "linear and the factor's old name": ({"rope.scaling.type": "linear", "rope.scale_linear": 6.0}, (), {"positions_divided_by": 6.0}),
    "the new name wins": ({"rope.scaling.factor": 2.0, "rope.scale_linear": 5.0}, (), {"positions_divided_by": 2.0}),
    "base of frequencies": ({"rope.freq_base": 300.0}, (), {"theta": 300.0}),
    "partial rotation": ({"rope.dimension_count": 8}, (), {"rotary_dims": 8}),
    "epsilon": ({"attention.layer_norm_rms_epsilon": 0.25}, (), {"eps": 0.25}),
    "attention's scale": ({"attention.scale": 0.7}, (), {"scale": 0.7}),
    "window": ({"attention.sliding_window": 9}, (), {"window": 9}),
}
# The same where the key changes nothing.
UNCHANGED: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "factor of 0": ({"rope.scaling.factor": 0.0}, ()),
    "linear by 0": ({"rope.scaling.type": "linear", "rope.scaling.factor": 0.0}, ()),
    "scaling none": ({"rope.scaling.type": "none", "rope.scaling.factor": 4.0}, ()),
    "parameters of yarn without it": ({"rope.scaling.original_context_length": 128, "rope.scaling.finetuned": True, "rope.scaling.attn_factor": 1.0}, ()),
    "arrays of equal figures": ({"attention.head_count": "heads", "attention.head_count_kv": "kv_heads", "feed_forward_length": "ffn_dim"}, ()),
    "scale of 0": ({"attention.scale": 0.0}, ()),
    "no experts, no caps": ({"expert_count": 0, "expert_used_count": 0, "attn_logit_softcapping": 0.0, "final_logit_softcapping": 0.0}, ()),
    "scales that are none": ({"logit_scale": 1.0, "residual_scale": 0.0, "attention.causal": True, "use_parallel_residual": False}, ()),
    "keys that decide nothing": ({"vocab_size": 777, "pooling_type": 3, "attention.layer_norm_epsilon": 0.5, "general.file_type": 1}, ()),
    "whole rotation": ({"rope.dimension_count": 16}, ()),
    "heads by width": ({}, ("attention.key_length", "attention.value_length")),
    "no scaling of any kind": ({}, ("rope.dimension_count",)),
}


def with_arrays(keys: dict[str, Any], network: Network) -> dict[str, Any]:
    return {key: [getattr(network, value)] * network.layers if value in ("heads", "kv_heads", "ffn_dim") else value for key, value in keys.items()}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("case", EVERYWHERE)
def test_a_key_that_decides_numbers(tmp_path: pathlib.Path, architecture: str, case: str) -> None:
    keys, without, changes = EVERYWHERE[case]
    usual = network_of(architecture)
    if architecture == "gemma3":  # one layer in two sees everything, with the base and the scaling that are not of the window
        usual = dataclasses.replace(usual, windowed=[True, False, True, False])
        keys = {"attention.sliding_window_pattern": 2, **keys}
    network = dataclasses.replace(usual, **changes)
    weights = numpy_model.weights_of(network)
    path = numpy_model.write(tmp_path / "m.gguf", network, weights, keys, without=without)
    check(path, network, weights, usual)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("case", UNCHANGED)
def test_a_key_that_changes_nothing(tmp_path: pathlib.Path, architecture: str, case: str) -> None:
    keys, without = UNCHANGED[case]
    network = network_of(architecture)
    weights = numpy_model.weights_of(network)
    path = numpy_model.write(tmp_path / "m.gguf", network, weights, with_arrays(keys, network), without=without)
    check(path, network, weights, None)


def test_defaults_of_what_is_absent(tmp_path: pathlib.Path) -> None:
    for architecture in ("llama", "qwen2", "qwen3"):
        network = network_of(architecture, kv_heads=4)
        weights = numpy_model.weights_of(network)
        without = ("rope.freq_base", "attention.head_count_kv", "attention.key_length", "attention.value_length")
        check(numpy_model.write(tmp_path / f"{architecture}.gguf", network, weights, {}, without=without), network, weights, None)


def test_biases_of_llama(tmp_path: pathlib.Path) -> None:
    network = network_of("llama", bias=True)
    weights = numpy_model.weights_of(network)
    check(numpy_model.write(tmp_path / "m.gguf", network, weights, {}), network, weights, None)


GEMMA3: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "pattern of 2": ({"attention.sliding_window_pattern": 2}, {"windowed": [True, False, True, False]}),
    "pattern of 1": ({"attention.sliding_window_pattern": 1}, {"windowed": [False] * 4}),
    "pattern as bools": ({"attention.sliding_window_pattern": [False, True, True, False]}, {"windowed": [False, True, True, False]}),
    "pattern as figures": ({"attention.sliding_window_pattern": [1, 0, 0, 1]}, {"windowed": [True, False, False, True]}),
    "base of the window's layers": ({"rope.freq_base_swa": 200.0}, {"theta_local": 200.0}),
}


@pytest.mark.parametrize("case", GEMMA3)
def test_windows_of_gemma3(tmp_path: pathlib.Path, case: str) -> None:
    keys, changes = GEMMA3[case]
    network = network_of("gemma3", **changes)
    weights = numpy_model.weights_of(network)
    check(numpy_model.write(tmp_path / "m.gguf", network, weights, keys), network, weights, network_of("gemma3"))


def test_no_layer_of_gemma3_sees_everything(tmp_path: pathlib.Path) -> None:
    network = network_of("gemma3", layers=7, windowed=[True] * 7)
    weights = numpy_model.weights_of(network)
    six = dataclasses.replace(network, windowed=[True] * 5 + [False, True])
    check(numpy_model.write(tmp_path / "zero.gguf", network, weights, {"attention.sliding_window_pattern": 0}), network, weights, six)
    check(numpy_model.write(tmp_path / "absent.gguf", six, weights, {}), six, weights, network)


# Refused files, and the words that the message must have.
REFUSED: dict[str, tuple[str, dict[str, Any], tuple[str, ...], tuple[str, ...]]] = {
    "yarn": ("qwen2", {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0}, (), ("qwen2.rope.scaling.type", "yarn", "linear")),
    "longrope": ("llama", {"rope.scaling.type": "longrope"}, (), ("llama.rope.scaling.type", "longrope")),
    "linear without a factor": ("qwen3", {"rope.scaling.type": "linear"}, (), ("qwen3.rope.scaling.factor", "missing")),
    "negative factor": ("llama", {"rope.scaling.factor": -2.0}, (), ("llama.rope.scaling.factor", "-2")),
    "attn_factor": ("llama", {"rope.scaling.attn_factor": 1.2}, (), ("llama.rope.scaling.attn_factor", "1.2", "only 1")),
    "yarn_ext_factor": ("llama", {"rope.scaling.yarn_ext_factor": 1.0}, (), ("llama.rope.scaling.yarn_ext_factor",)),
    "not causal": ("qwen3", {"attention.causal": False}, (), ("qwen3.attention.causal", "only true")),
    "values of another size": ("llama", {"attention.value_length": 8}, (), ("llama.attention.value_length", "16")),
    "values without keys": ("llama", {"attention.value_length": 32}, ("attention.key_length",), ("llama.attention.value_length",)),
    "unequal layers": ("llama", {"feed_forward_length": [96, 64]}, (), ("llama.feed_forward_length", "96", "64")),
    "array of other layers": ("llama", {"attention.head_count_kv": [2, 2, 2]}, (), ("llama.attention.head_count_kv", "3 entries for 2 layers")),
    "no epsilon": ("llama", {"attention.layer_norm_epsilon": 1e-5}, ("attention.layer_norm_rms_epsilon",), ("llama.attention.layer_norm_rms_epsilon", "missing")),
    "gemma3's base": ("gemma3", {}, ("rope.freq_base",), ("gemma3.rope.freq_base", "missing")),
    "gemma3's window": ("gemma3", {}, ("attention.sliding_window",), ("gemma3.attention.sliding_window", "missing")),
    "pattern of another length": ("gemma3", {"attention.sliding_window_pattern": [1, 0]}, (), ("sliding_window_pattern", "2 entries for 4 layers")),
    "pattern of other figures": ("gemma3", {"attention.sliding_window_pattern": [1, 0, 2, 1]}, (), ("sliding_window_pattern", "entry 2")),
    "pattern elsewhere": ("llama", {"attention.sliding_window_pattern": 2}, (), ("llama.attention.sliding_window_pattern",)),
    "scale of the embedding": ("gemma3", {"embedding_scale": 1.0}, (), ("gemma3.embedding_scale",)),
    "experts": ("llama", {"expert_count": 8}, (), ("llama.expert_count", "is 8")),
    "soft cap": ("gemma3", {"final_logit_softcapping": 30.0}, (), ("gemma3.final_logit_softcapping", "is 30")),
    "a key of tomorrow": ("llama", {"attention.twist": 0.5}, (), ("llama.attention.twist", "is 0.5")),
    "a text of tomorrow": ("llama", {"attention.kind": "ring"}, (), ("llama.attention.kind", "'ring'")),
    "an adapter": ("llama", {"general.type": "adapter"}, (), ("general.type", "'adapter'", "'model'")),
    "old blocks": ("llama", {"general.quantization_version": 1}, (), ("general.quantization_version", "is 1")),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_by_name(tmp_path: pathlib.Path, case: str) -> None:
    architecture, keys, without, named = REFUSED[case]
    network = network_of(architecture)
    message = refusal(numpy_model.write(tmp_path / "m.gguf", network, numpy_model.weights_of(network), keys, without=without))
    assert all(part in message for part in named), message


def known_keys(architecture: str) -> list[str]:
    """Every key of a model that the gguf package has a name for."""

    def walk(holder: type) -> list[str]:
        names = []
        for name, value in vars(holder).items():
            if isinstance(value, str) and not name.startswith("_"):
                names.append(value)
            elif isinstance(value, type):
                names += walk(value)
        return names

    keys = gguf.constants.Keys
    groups = (keys.LLM, keys.Attention, keys.Rope, keys.SSM, keys.KDA, keys.WKV, keys.PosNet, keys.ConvNext, keys.Classifier, keys.ShortConv)
    names = [name.format(arch=architecture, dense="dense_2") for group in groups for name in walk(group)]
    assert len(names) > 100
    return names


def documented(section: str) -> list[str]:
    text = (ROOT / "docs" / "MODELS.md").read_text()
    part = text.split(f"\n## {section}\n", 1)[1].split("\n## ", 1)[0]
    return re.findall(r"^\| `([^`]+)`", part, re.MULTILINE)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_no_known_key_is_ignored_in_silence(tmp_path: pathlib.Path, architecture: str) -> None:
    network = network_of(architecture)
    weights = numpy_model.weights_of(network)
    read = documented("Keys that are read")
    no_effect = documented("Keys that are warned of") + documented("Keys that decide nothing")
    untouched = found(numpy_model.write(tmp_path / "plain.gguf", network, weights, {}))
    taken = []
    for key in known_keys(architecture):
        short = key.removeprefix(architecture)
        path = numpy_model.write(tmp_path / "m.gguf", network, weights, {key: 0.375})
        done = run(path, "reference")
        if done.returncode != 0:
            assert key in done.stderr.decode(), f"{key}: {done.stderr.decode()}"
            continue
        taken.append(short)
        if short in no_effect:
            assert np.array_equal(found(path), untouched), f"{key} is documented as without effect"
        else:
            assert short in read, f"{key} was taken and is in no list"
    assert {".vocab_size", ".pooling_type", ".attention.scale"} <= set(taken)
