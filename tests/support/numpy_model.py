"""Tiny random models written with the gguf package, and their logits in float64: an oracle that shares no code with ours.

The forward pass is written from the papers: RMSNorm (Zhang and Sennrich 2019), RoPE (Su et al. 2021) with linear scaling of
positions (Chen et al. 2023), grouped-query attention (Ainslie et al. 2023), gated feed-forward networks (Shazeer 2020). The additions of
Llama, Qwen and Gemma 3 are from their definitions.
"""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import gguf
import numpy as np

VOCABULARY = 260


@dataclasses.dataclass
class Network:
    """The network that the oracle computes. A test gives it apart from the keys that it writes."""

    architecture: str = "llama"
    layers: int = 2
    dim: int = 64
    ffn_dim: int = 96
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 16
    eps: float = 1e-5
    theta: float = 10000.0
    theta_local: float | None = None  # sliding-window layers, without scaling; None: as the others
    positions_divided_by: float = 1.0
    rotary_dims: int | None = None
    window: int = 0
    windowed: list[bool] | None = None  # None: all layers if there is a window
    scale: float | None = None
    bias: bool = False

    @property
    def gemma3(self) -> bool:
        return self.architecture == "gemma3"

    @property
    def qk_norm(self) -> bool:
        return self.architecture in ("qwen3", "gemma3")


def weights_of(network: Network, seed: int = 3) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    q_dim, kv_dim = network.heads * network.head_dim, network.kv_heads * network.head_dim
    weights: dict[str, np.ndarray] = {}

    def matrix(name: str, rows: int, cols: int, gain: float = 1.0) -> None:
        weights[name] = (random.standard_normal((rows, cols)) * gain / np.sqrt(cols)).astype(np.float32)

    def vector(name: str, cols: int, mean: float = 1.0) -> None:
        weights[name] = (mean + 0.3 * random.standard_normal(cols)).astype(np.float32)

    matrix("token_embd.weight", VOCABULARY, network.dim, 2.0)
    vector("output_norm.weight", network.dim)
    for layer in range(network.layers):
        at = f"blk.{layer}."
        vector(at + "attn_norm.weight", network.dim)
        matrix(at + "attn_q.weight", q_dim, network.dim, 2.0)
        matrix(at + "attn_k.weight", kv_dim, network.dim, 2.0)
        matrix(at + "attn_v.weight", kv_dim, network.dim)
        matrix(at + "attn_output.weight", network.dim, q_dim, 2.0)
        if network.bias or network.architecture == "qwen2":
            for part, size in (("q", q_dim), ("k", kv_dim), ("v", kv_dim)):
                vector(f"{at}attn_{part}.bias", size, 0.0)
        if network.qk_norm:
            vector(at + "attn_q_norm.weight", network.head_dim)
            vector(at + "attn_k_norm.weight", network.head_dim)
        vector(at + "ffn_norm.weight", network.dim)
        matrix(at + "ffn_gate.weight", network.ffn_dim, network.dim)
        matrix(at + "ffn_up.weight", network.ffn_dim, network.dim)
        matrix(at + "ffn_down.weight", network.dim, network.ffn_dim)
        if network.gemma3:
            vector(at + "post_attention_norm.weight", network.dim)
            vector(at + "post_ffw_norm.weight", network.dim)
    return weights


def norm(x: np.ndarray, weight: np.ndarray, eps: float) -> np.ndarray:
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight.astype(np.float64)


def rotated(x: np.ndarray, network: Network, theta: float, divisor: float) -> np.ndarray:
    """x: [positions, heads, head_dim]."""
    dims = network.rotary_dims or network.head_dim
    angles = np.arange(len(x))[:, None] / divisor * theta ** (-2.0 * np.arange(dims // 2) / dims)
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
    out = x.copy()
    # GGUF has the rows of Llama permuted so that the two of a pair are neighbours.
    first, second = (slice(0, dims, 2), slice(1, dims, 2)) if network.architecture == "llama" else (slice(0, dims // 2), slice(dims // 2, dims))
    out[..., first] = x[..., first] * cos - x[..., second] * sin
    out[..., second] = x[..., first] * sin + x[..., second] * cos
    return out


def log_probabilities(network: Network, weights: dict[str, np.ndarray], ids: list[int]) -> np.ndarray:
    """[positions, vocabulary]."""
    w = {name: values.astype(np.float64) for name, values in weights.items()}
    count, group = len(ids), network.heads // network.kv_heads
    windowed = network.windowed or [network.window > 0] * network.layers
    distance = np.arange(count)[:, None] - np.arange(count)[None]
    x = w["token_embd.weight"][ids] * (np.sqrt(network.dim) if network.gemma3 else 1.0)
    for layer in range(network.layers):
        at = f"blk.{layer}."

        def project(part: str, heads: int, at: str = at) -> np.ndarray:
            return (h @ w[f"{at}attn_{part}.weight"].T + w.get(f"{at}attn_{part}.bias", 0.0)).reshape(count, heads, network.head_dim)

        h = norm(x, w[at + "attn_norm.weight"], network.eps)
        q, k, v = project("q", network.heads), project("k", network.kv_heads), project("v", network.kv_heads)
        if network.qk_norm:
            q, k = norm(q, w[at + "attn_q_norm.weight"], network.eps), norm(k, w[at + "attn_k_norm.weight"], network.eps)
        local = windowed[layer] and network.theta_local is not None
        theta = network.theta_local if local and network.theta_local else network.theta
        divisor = 1.0 if local else network.positions_divided_by
        q, k = rotated(q, network, theta, divisor), rotated(k, network, theta, divisor)
        scores = np.einsum("ihd,jhd->hij", q, np.repeat(k, group, 1)) * (network.scale or network.head_dim**-0.5)
        visible = (distance >= 0) & ((distance < network.window) | (not windowed[layer]))
        scores = np.where(visible, scores, -np.inf)
        share = np.exp(scores - scores.max(-1, keepdims=True))
        share /= share.sum(-1, keepdims=True)
        out = np.einsum("hij,jhd->ihd", share, np.repeat(v, group, 1)).reshape(count, -1) @ w[at + "attn_output.weight"].T
        x = x + (norm(out, w[at + "post_attention_norm.weight"], network.eps) if network.gemma3 else out)
        h = norm(x, w[at + "ffn_norm.weight"], network.eps)
        gate, up = h @ w[at + "ffn_gate.weight"].T, h @ w[at + "ffn_up.weight"].T
        if network.gemma3:
            gate = 0.5 * gate * (1 + np.tanh(np.sqrt(2 / np.pi) * (gate + 0.044715 * gate**3)))
        else:
            gate = gate / (1 + np.exp(-gate))
        out = (gate * up) @ w[at + "ffn_down.weight"].T
        x = x + (norm(out, w[at + "post_ffw_norm.weight"], network.eps) if network.gemma3 else out)
    logits = norm(x, w["output_norm.weight"], network.eps) @ w["token_embd.weight"].T
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def keys_of(network: Network) -> dict[str, Any]:
    """The keys that every file needs, without the architecture's name."""
    keys: dict[str, Any] = {
        "block_count": network.layers,
        "context_length": 512,
        "embedding_length": network.dim,
        "feed_forward_length": network.ffn_dim,
        "attention.head_count": network.heads,
        "attention.head_count_kv": network.kv_heads,
        "attention.key_length": network.head_dim,
        "attention.value_length": network.head_dim,
        "attention.layer_norm_rms_epsilon": network.eps,
        "rope.freq_base": network.theta,
    }
    if network.window:
        keys["attention.sliding_window"] = network.window
    return keys


def add_value(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value) if value >= 0 else writer.add_int32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)


def byte_level_tokens() -> list[str]:
    """GPT-2's alphabet: printable Latin-1 stands for itself, other bytes for U+0100 and on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


def tokenizer_keys() -> dict[str, Any]:
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": [*byte_level_tokens(), "<|im_start|>", "<|im_end|>", "<|endoftext|>", "!!"],
        "tokenizer.ggml.token_type": [1] * 256 + [3] * 3 + [1],
        "tokenizer.ggml.merges": ["! !"],
        "tokenizer.ggml.eos_token_id": 257,
    }


def write(path: pathlib.Path, network: Network, weights: dict[str, np.ndarray], keys: dict[str, Any], *, without: tuple[str, ...] = ()) -> pathlib.Path:
    """`keys`: those of the architecture by their short names, others in full; they replace the usual ones."""
    usual = {f"{network.architecture}.{key}": value for key, value in keys_of(network).items()}
    whole = ("general.", "tokenizer.", "split.", network.architecture + ".")
    changed = {key if key.startswith(whole) else f"{network.architecture}.{key}": value for key, value in keys.items()}
    writer = gguf.GGUFWriter(path, network.architecture)
    for key, value in {**usual, **tokenizer_keys(), **changed}.items():
        if key.removeprefix(network.architecture + ".") not in without:
            add_value(writer, key, value)
    for name, values in weights.items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
