"""Fidelity of the fast paths: every position's distribution, teacher-forced over a real text, against float32 with the same
dequantised weights.

For each position t, P is the reference device's softmax over the whole vocabulary and Q another device's. Figures: whether the likeliest
tokens agree, |log P(next) - log Q(next)| for the token that follows in the text, KL(P || Q), and the perplexity exp(-mean log Q(next)).
llama.cpp is measured in the same run when llama-cpp-python is installed for PEERS_PYTHON (an interpreter).

    fidelity.py --model M.gguf --text TEXT [--tokens 6144] [--isa avx2 --isa avx512_vnni] [--kv-type bf16]
"""

from __future__ import annotations

import argparse
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import scored_texts

ROWS = 64

LLAMA = """
import ctypes, sys, numpy as np
import llama_cpp as api
model_path, threads, flash = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
ids = [int(x) for x in sys.stdin.read().split()]
quiet = api.llama_log_callback(lambda level, text, data: None)
api.llama_log_set(quiet, ctypes.c_void_p(0))
model = api.llama_model_load_from_file(model_path.encode(), api.llama_model_default_params())
vocabulary = api.llama_vocab_n_tokens(api.llama_model_get_vocab(model))
p = api.llama_context_default_params()
p.n_ctx, p.n_batch, p.n_ubatch, p.n_threads, p.n_threads_batch, p.flash_attn_type = (len(ids) + 255) // 256 * 256, 256, 256, threads, threads, flash
context = api.llama_init_from_model(model, p)
for begin in range(0, len(ids), 256):
    part = ids[begin:begin + 256]
    batch = api.llama_batch_init(len(part), 0, 1)
    batch.n_tokens = len(part)
    for i, t in enumerate(part):
        batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = t, begin + i, 1, True
        batch.seq_id[i][0] = 0
    assert api.llama_decode(context, batch) == 0
    sys.stdout.buffer.write(np.ctypeslib.as_array(api.llama_get_logits(context), shape=(len(part), vocabulary)).tobytes())
"""


class Source:
    """Rows of logits from a program's standard output."""

    def __init__(self, name: str, command: list[str], ids: list[int]):
        self.name = name
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(" ".join(map(str, ids)).encode())
        self.process.stdin.close()
        self.equal = self.count = 0
        self.difference = self.divergence = self.loss = 0.0

    def rows(self, count: int, vocabulary: int) -> np.ndarray:
        assert self.process.stdout is not None
        data = self.process.stdout.read(4 * count * vocabulary)
        if len(data) != 4 * count * vocabulary:
            raise RuntimeError(f"{self.name} ended early")
        logits = np.frombuffer(data, np.float32).reshape(count, vocabulary)
        shifted = logits - logits.max(axis=1, keepdims=True)
        return shifted - np.log(np.exp(shifted, dtype=np.float64).sum(axis=1, keepdims=True)).astype(np.float32)

    def add(self, reference: np.ndarray, own: np.ndarray, following: list[int]) -> None:
        self.equal += int((reference.argmax(axis=1) == own.argmax(axis=1)).sum())
        self.divergence += float((np.exp(reference, dtype=np.float64) * (reference - own)).sum())
        at = np.arange(len(following)), following
        self.difference += float(np.abs(reference[at] - own[at]).sum())
        self.loss -= float(own[at].sum())
        self.count += len(following)


def chunks(total: int) -> Iterator[tuple[int, int]]:
    for begin in range(0, total, ROWS):
        yield begin, min(ROWS, total - begin)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--text", required=True, help="UTF-8 text of at least --tokens tokens")
    parser.add_argument("--tokens", type=int, default=6144)
    parser.add_argument("--isa", action="append", help="repeatable; default: the machine's best")
    parser.add_argument("--kv-type", action="append", help="f16, bf16, q8; repeatable; default f16")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--vocabulary", type=int, default=49152)
    arguments = parser.parse_args()
    ids = scored_texts.tokens_of(arguments.model, arguments.text, arguments.tokens)

    def dump(*options: str) -> list[str]:
        return [str(scored_texts.BIN / "mnemo_logits_dump"), "--model", arguments.model, "--threads", str(arguments.threads), *options]

    reference = Source("float32", dump("--device", "reference"), ids)
    others = [
        Source(f"mnemo {isa} {kv}", dump("--isa", isa, "--kv-type", kv), ids)
        for isa in arguments.isa or ["auto"]
        for kv in arguments.kv_type or ["f16"]
    ]
    if "PEERS_PYTHON" in os.environ:
        for flash, name in ((0, "llama.cpp"), (1, "llama.cpp flash attention")):
            command = [os.environ["PEERS_PYTHON"], "-c", LLAMA, arguments.model, str(arguments.threads), str(flash)]
            others.append(Source(name, command, ids))
    total = len(ids) - 1
    for begin, count in chunks(total):
        following = ids[begin + 1 : begin + 1 + count]
        want = reference.rows(count, arguments.vocabulary)
        reference.add(want, want, following)
        for other in others:
            other.add(want, other.rows(count, arguments.vocabulary), following)
    base = np.exp(reference.loss / total)
    print(f"{total} positions of {pathlib.Path(arguments.text).name}; perplexity of float32 {base:.4f}\n")
    print("| | argmax equal | mean abs. difference of logprob | KL | perplexity |\n|---|---|---|---|---|")
    for other in others:
        change = 100 * (np.exp(other.loss / total) / base - 1)
        print(
            f"| {other.name} | {100 * other.equal / total:.2f} % | {other.difference / total:.4f} "
            f"| {other.divergence / total:.5f} | {change:+.3f} % |"
        )
    for source in (reference, *others):
        source.process.kill()


if __name__ == "__main__":
    main()
