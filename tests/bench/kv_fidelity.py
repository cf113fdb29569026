"""Precision that the KV cache costs, beside the rounding of the weights: the measurement behind
`engine.kv_type: auto` (`DefaultKvType` in server/model/model_config.cc).

    kv_fidelity.py --model FILE.gguf --text TEXT [--tokens 384] [--widen 2] [--key-bias 0] [--types F16,Q8_0,...]

A "true" model is made of the file: dequantised, and every value of a matrix moved at random within half a step of its own
block of 32. Values on the grid of one format would round to it without an error. Norms and biases stay.

- Rounding of the weights: the true model with its matrices rounded to each format, against the true one, both in float32
  with a float32 cache (device reference).
- KV cache: the true model on device cpu with F16 weights and a cache of each type, against the same weights in float32 with a
  float32 cache. The F16 cache's figure holds the CPU device's own rounding too.

Figures are the mean absolute difference of the log-probability of the text's next token, and the mean KL divergence.
This script rounds formats that the gguf package cannot write, over rows laid end to end, since few small models have rows of
whole blocks of 256.

--widen N makes heads of N times as many dimensions that compute the same function. A head's key and value get those of the
next heads beside them, its query zeros, and the output matrix zero columns. A row of the cache thus holds N heads with
one scale. A rotated pair i goes to pair N * i, whose frequency is the same. --key-bias B adds a bias to the keys: B in the
slowest pair of each head and B / 4 in the next.
"""

from __future__ import annotations

import argparse
import pathlib
import subprocess
import tempfile
from collections.abc import Callable, Iterator

import gguf
import numpy as np
import scored_texts

ROWS = 32
LEVELS = {"Q4_0": 15, "Q4_1": 15, "Q4_K": 15, "Q5_0": 31, "Q5_1": 31, "Q5_K": 31, "Q6_K": 63, "Q8_0": 255, "BF16": 255, "F16": 2047}
TYPES = ["F16", "BF16", "Q8_0", "Q6_K", "Q5_1", "Q5_0", "Q5_K", "Q4_1", "Q4_0", "Q4_K"]
Weights = dict[str, np.ndarray]


def dithered(weights: np.ndarray, type_name: str, random: np.random.Generator) -> np.ndarray:
    if type_name not in LEVELS:
        return weights
    blocks = weights.reshape(-1, 32)
    step = (blocks.max(1, keepdims=True) - blocks.min(1, keepdims=True)) / LEVELS[type_name]
    return (blocks + step * (random.random(blocks.shape, np.float32) - 0.5)).reshape(weights.shape).astype(np.float32)


def half(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float16).astype(np.float32)


def scale_and_min(blocks: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
    """Fit of x ~ scale * q + low, 0 <= q <= top, low <= 0: the best by least squares of a few steps around (max - min) / top."""
    low = np.minimum(blocks.min(1, keepdims=True), 0)
    reach = np.maximum(blocks.max(1, keepdims=True) - low, 1e-12)
    best_scale, best_low = reach / top, low
    best = np.full_like(low, np.inf)
    for shift in np.arange(-1.0, 1.01, 0.1):
        q = np.clip(np.rint((blocks - low) * ((top + shift) / reach)), 0, top)
        mean_q, mean_x = q.mean(1, keepdims=True), blocks.mean(1, keepdims=True)
        spread = np.maximum(((q - mean_q) ** 2).mean(1, keepdims=True), 1e-12)
        scale = ((q - mean_q) * (blocks - mean_x)).mean(1, keepdims=True) / spread
        offset = np.minimum(mean_x - scale * mean_q, 0)
        scale = np.where(offset == 0, (q * blocks).sum(1, keepdims=True) / np.maximum((q * q).sum(1, keepdims=True), 1e-12), scale)
        error = ((scale * q + offset - blocks) ** 2).sum(1, keepdims=True)
        better = (error < best) & (scale > 0)
        best, best_scale, best_low = (np.where(better, new, old) for new, old in ((error, best), (scale, best_scale), (offset, best_low)))
    return best_scale, best_low


def rounded_k(values: np.ndarray, top: int) -> np.ndarray:
    """Q4_K and Q5_K: eight blocks of 32 with scales and minima of 6 bits, and two factors of 16 bits for the 256."""
    blocks = values.reshape(-1, 32)
    scale, low = (x.reshape(-1, 8, 1) for x in scale_and_min(blocks, top))
    factor, low_factor = half(scale.max(1, keepdims=True) / 63), half((-low).max(1, keepdims=True) / 63)
    scale = factor * np.clip(np.rint(scale / np.maximum(factor, 1e-12)), 0, 63)
    low = low_factor * np.clip(np.rint(-low / np.maximum(low_factor, 1e-12)), 0, 63)
    q = np.clip(np.rint((values.reshape(-1, 8, 32) + low) / np.maximum(scale, 1e-12)), 0, top)
    return (scale * q - low).astype(np.float32)


def rounded_q6_k(values: np.ndarray) -> np.ndarray:
    """Sixteen blocks of 16 with scales of 8 bits, values of 6 bits around 0."""
    blocks = values.reshape(-1, 16, 16)
    at = np.abs(blocks).argmax(2)[..., None]
    extreme = np.take_along_axis(blocks, at, 2)
    best, best_scale = np.full_like(extreme, np.inf), extreme
    for shift in np.arange(-1.0, 1.01, 0.1):
        q = np.clip(np.rint(blocks * (-(32 + shift) / np.where(extreme == 0, 1e-12, extreme))), -32, 31)
        scale = (q * blocks).sum(2, keepdims=True) / np.maximum((q * q).sum(2, keepdims=True), 1e-12)
        error = ((scale * q - blocks) ** 2).sum(2, keepdims=True)
        best_scale, best = np.where(error < best, scale, best_scale), np.minimum(error, best)
    factor = half(np.abs(best_scale).max(1, keepdims=True) / 127)
    scale = factor * np.clip(np.rint(best_scale / np.maximum(factor, 1e-12)), -128, 127)
    q = np.clip(np.rint(blocks / np.where(scale == 0, 1e-12, scale)), -32, 31)
    return (scale * q).astype(np.float32)


def rounded(values: np.ndarray, type_name: str) -> np.ndarray:
    """The values as the format gives them back."""
    flat = values.reshape(-1)
    if type_name == "F16":
        return half(values)
    block = 256 if type_name.endswith("_K") else 32
    padded = np.concatenate([flat, np.zeros(-len(flat) % block, np.float32)])
    if type_name == "Q6_K":
        result = rounded_q6_k(padded)
    elif type_name.endswith("_K"):
        result = rounded_k(padded, LEVELS[type_name])
    else:
        kind = gguf.GGMLQuantizationType[type_name]
        result = gguf.quants.dequantize(gguf.quants.quantize(padded.reshape(-1, block), kind), kind)
    return result.reshape(-1)[: len(flat)].reshape(values.shape)


class Model:
    def __init__(self, path: str, widen: int, key_bias: float):
        self.reader = gguf.GGUFReader(path)
        self.architecture = self.reader.fields["general.architecture"].contents()
        random = np.random.default_rng(1)
        self.weights: Weights = {}
        for tensor in self.reader.tensors:
            values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
            self.weights[tensor.name] = values if values.ndim == 1 else dithered(values, tensor.tensor_type.name, random)
        self.vocabulary = len(self.weights["token_embd.weight"])
        self.heads, self.kv_heads = self.key("attention.head_count"), self.key("attention.head_count_kv")
        self.head_dim = self.key("attention.key_length", self.key("embedding_length") // self.heads)
        self.changed: dict[str, int | float] = {}
        if key_bias:
            self.add_key_bias(key_bias)
        if widen > 1:
            self.widen(widen)

    def key(self, name: str, fallback: int | None = None) -> int:
        field = self.reader.fields.get(f"{self.architecture}.{name}")
        return fallback if field is None and fallback is not None else field.contents()

    def add_key_bias(self, size: float) -> None:
        bias = np.zeros((self.kv_heads, self.head_dim), np.float32)
        bias[:, -2:], bias[:, -4:-2] = size, size / 4
        for layer in range(self.key("block_count")):
            self.weights[f"blk.{layer}.attn_k.bias"] = bias.reshape(-1)
            for part, heads in (("q", self.heads), ("v", self.kv_heads)):
                self.weights[f"blk.{layer}.attn_{part}.bias"] = np.zeros(heads * self.head_dim, np.float32)

    def widen(self, times: int) -> None:
        assert self.architecture == "llama", "rotated pairs are neighbours in no other architecture"
        old, new = self.head_dim, self.head_dim * times
        group = self.heads // self.kv_heads

        def spread(values: np.ndarray, heads: int, alone: bool) -> np.ndarray:
            """Moves pair i of a head to pair times * i, those of the next heads between them."""
            pairs = values.reshape(heads, old // 2, 2, -1)
            out = np.zeros((heads, old // 2, times, 2, pairs.shape[-1]), np.float32)
            for at in range(1 if alone else times):
                out[:, :, at] = np.roll(pairs, -at, axis=0)
            return out.reshape((heads * new, -1) if values.ndim > 1 else -1)

        for layer in range(self.key("block_count")):
            for kind in ("weight", "bias"):
                for part, heads in (("q", self.heads), ("k", self.kv_heads), ("v", self.kv_heads)):
                    name = f"blk.{layer}.attn_{part}.{kind}"
                    if name in self.weights:
                        self.weights[name] = spread(self.weights[name], heads, part == "q")
            name = f"blk.{layer}.attn_output.weight"
            self.weights[name] = np.ascontiguousarray(spread(np.ascontiguousarray(self.weights[name].T), self.heads, True).T)
        assert group * self.kv_heads == self.heads
        self.changed = {"attention.key_length": new, "attention.value_length": new, "rope.dimension_count": new, "attention.scale": old**-0.5}
        self.head_dim = new

    def write(self, path: pathlib.Path, weights: Weights, f16: bool) -> None:
        writer = gguf.GGUFWriter(path, self.architecture)
        for name, field in self.reader.fields.items():
            short = name.removeprefix(self.architecture + ".")
            if not name.startswith("GGUF.") and name != "general.architecture" and short not in self.changed:
                writer.add_key_value(name, field.contents(), field.types[0], field.types[-1] if len(field.types) > 1 else None)
        for short, value in self.changed.items():
            (writer.add_float32 if isinstance(value, float) else writer.add_uint32)(f"{self.architecture}.{short}", value)
        for name, values in weights.items():
            writer.add_tensor(name, values.astype(np.float16) if f16 and values.ndim > 1 else values)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def rows_of(path: pathlib.Path, ids: list[int], vocabulary: int, *options: str) -> Iterator[np.ndarray]:
    """Log-probabilities, [rows, vocabulary] in float32."""
    command = [str(scored_texts.BIN / "mnemo_logits_dump"), "--model", str(path), "--threads", "2", *options]
    with subprocess.Popen(["nice", "-n", "10", *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(" ".join(map(str, ids)).encode())
        process.stdin.close()
        for begin in range(0, len(ids), ROWS):
            count = min(ROWS, len(ids) - begin)
            logits = np.frombuffer(process.stdout.read(4 * count * vocabulary), np.float32).reshape(count, vocabulary)
            shifted = logits - logits.max(1, keepdims=True)
            yield shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    assert process.returncode == 0


def compare(name: str, ids: list[int], want: list[np.ndarray], found: Iterator[np.ndarray]) -> None:
    differences, divergences = [], []
    for begin, (own, other) in enumerate(zip(want, found)):
        following = ids[begin * ROWS + 1 : begin * ROWS + 1 + len(own)]
        at = (np.arange(len(following)), following)
        differences.append(np.abs(own[at] - other[at]))
        divergences.append((np.exp(own) * (own - other)).sum(1))
    print(f"| {name} | {np.concatenate(differences).mean():.5f} | {np.concatenate(divergences).mean():.6f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--text", required=True)
    parser.add_argument("--tokens", type=int, default=384)
    parser.add_argument("--widen", type=int, default=1)
    parser.add_argument("--key-bias", type=float, default=0.0)
    parser.add_argument("--tables", action="store_true", help="round the embedding and output tables too; else the matrices of layers alone")
    parser.add_argument("--types", default=",".join(TYPES), help="formats of weights; empty: the KV cache alone")
    arguments = parser.parse_args()
    ids = scored_texts.tokens_of(arguments.model, arguments.text, arguments.tokens)
    model = Model(arguments.model, arguments.widen, arguments.key_bias)
    matrices = [name for name, values in model.weights.items() if values.ndim > 1 and (arguments.tables or name.startswith("blk."))]
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.gguf"

        def run(weights: Weights, *options: str, f16: bool = False) -> Iterator[np.ndarray]:
            model.write(path, weights, f16)
            return rows_of(path, ids, model.vocabulary, *options)

        def with_matrices(change: Callable[[np.ndarray], np.ndarray]) -> Weights:
            return {**model.weights, **{name: change(model.weights[name]) for name in matrices}}

        print(f"{model.architecture}, heads of {model.head_dim}, {len(ids)} positions\n")
        print("| | mean abs. difference of logprob | KL |\n|---|---|---|")
        if arguments.types:
            true = list(run(model.weights, "--device", "reference"))
            for name in arguments.types.split(","):
                compare(f"weights {name}", ids, true, run(with_matrices(lambda values: rounded(values, name)), "--device", "reference"))
        halves = with_matrices(half)
        want = list(run(halves, "--device", "reference"))
        for kv_type in ("f16", "q8"):
            compare(f"KV cache {kv_type}", ids, want, run(halves, "--device", "cpu", "--kv-type", kv_type, f16=True))


if __name__ == "__main__":
    main()
