"""One peer in a process of its own: loads the model, then answers requests for measurements on standard input, a JSON object a line.

`peers.py NAME MODEL.gguf THREADS` with NAME llama.cpp, llama.cpp-fa or openvino. A request is {"kind": "prefill", "tokens": N} or
{"kind": "decode", "batch": B, "context": N, "tokens": T}; the answer is {"seconds": S, "tokens": N}, with the
tokens processed. Prompts are ids drawn from a seed that changes with every request, so that no cache of prefixes can help.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import sys
import time
from typing import Any

CONTEXT = 8448


def prompt(count: int, seed: int) -> list[int]:
    """Ids of ordinary words: the measured vocabularies have no control token from 1,000 to 20,000."""
    return random.Random(seed).choices(range(1000, 20000), k=count)


class LlamaCpp:
    def __init__(self, model: str, threads: int, flash_attention: bool):
        import llama_cpp
        import numpy

        self.api, self.numpy = llama_cpp, numpy
        llama_cpp.llama_backend_init()
        self._quiet = llama_cpp.llama_log_callback(lambda level, text, data: None)
        llama_cpp.llama_log_set(self._quiet, ctypes.c_void_p(0))
        self.model = llama_cpp.llama_model_load_from_file(model.encode(), llama_cpp.llama_model_default_params())
        self.vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        self.threads, self.flash = threads, flash_attention
        self.context: Any = None
        self.sequences = 0

    def _open(self, sequences: int, tokens: int) -> None:
        """A context for that many sequences; a large one is slower, so each measurement has its own."""
        if self.context is not None:
            self.api.llama_free(self.context)
        parameters = self.api.llama_context_default_params()
        parameters.n_ctx = sequences * ((tokens + 255) // 256 * 256)
        parameters.n_batch = parameters.n_ubatch = 512
        parameters.n_seq_max = sequences
        parameters.n_threads = parameters.n_threads_batch = self.threads
        parameters.flash_attn_type = 1 if self.flash else 0
        self.context = self.api.llama_init_from_model(self.model, parameters)
        if not self.context:
            raise RuntimeError("llama.cpp made no context")
        self.sequences = sequences

    def _decode(self, rows: list[tuple[int, int, int, bool]]) -> None:
        """rows: token, position, sequence, and whether it needs logits."""
        batch = self.api.llama_batch_init(len(rows), 0, 1)
        batch.n_tokens = len(rows)
        for i, (token, position, sequence, wanted) in enumerate(rows):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, position, 1, wanted
            batch.seq_id[i][0] = sequence
        if self.api.llama_decode(self.context, batch) != 0:
            raise RuntimeError("llama_decode failed")
        self.api.llama_batch_free(batch)

    def _best(self, row: int) -> int:
        logits = self.api.llama_get_logits_ith(self.context, row)
        return int(self.numpy.ctypeslib.as_array(logits, shape=(self.vocabulary,)).argmax())

    def _prefill(self, ids: list[int], sequence: int) -> int:
        for begin in range(0, len(ids), 512):
            part = ids[begin : begin + 512]
            last = begin + len(part) == len(ids)
            self._decode([(t, begin + i, sequence, last and i + 1 == len(part)) for i, t in enumerate(part)])
        return self._best(-1)

    def prefill(self, tokens: int, seed: int) -> float:
        self._open(1, tokens + 8)
        self._prefill(prompt(8, seed + 1), 0)
        self.api.llama_memory_clear(self.api.llama_get_memory(self.context), True)
        ids = prompt(tokens, seed)
        began = time.perf_counter()
        self._prefill(ids, 0)
        return time.perf_counter() - began

    def decode(self, batch: int, context: int, tokens: int, seed: int) -> float:
        self._open(batch, context + tokens + 1)
        last = [self._prefill(prompt(context, seed + i), i) for i in range(batch)]
        began = time.perf_counter()
        for step in range(tokens):
            self._decode([(last[i], context + step, i, True) for i in range(batch)])
            last = [self._best(i) for i in range(batch)]
        return time.perf_counter() - began


class OpenVino:
    def __init__(self, model: str, threads: int):
        import numpy
        import openvino
        import openvino_genai

        self.api, self.numpy, self.tensor = openvino_genai, numpy, openvino.Tensor
        self.model, self.threads = model, threads
        self.requests = 0
        self.pipeline: Any = None
        self.chunked: bool | None = None
        self._open(chunked=True)

    def _open(self, chunked: bool) -> None:
        """Makes the pipeline: prompts in chunks of 512 beside decoding sequences, or whole and before any decoding."""
        if chunked == self.chunked:
            return
        self.pipeline = None
        scheduler = self.api.SchedulerConfig()
        scheduler.cache_size = 4
        scheduler.enable_prefix_caching = False
        scheduler.dynamic_split_fuse = chunked
        scheduler.max_num_batched_tokens = 512 if chunked else CONTEXT
        self.pipeline = self.api.ContinuousBatchingPipeline(self.model, scheduler, "CPU", {"INFERENCE_NUM_THREADS": self.threads})
        self.chunked = chunked

    def _run(self, prompts: list[list[int]], tokens: int) -> tuple[float, float]:
        """Seconds from the start to the moment at which every prompt has its first token, and from there to the end. Tokens
        from before that moment do not count: the second time is scaled up to all tokens asked for."""
        settings = self.api.GenerationConfig()
        settings.max_new_tokens = settings.min_new_tokens = tokens
        settings.ignore_eos = True
        settings.do_sample = False
        began = time.perf_counter()
        handles = []
        for ids in prompts:
            self.requests += 1
            ids_tensor = self.tensor(self.numpy.array([ids], dtype=self.numpy.int64))
            handles.append(self.pipeline.add_request(self.requests, ids_tensor, settings))
        made = [0] * len(handles)
        first, before = began, 0
        while self.pipeline.has_non_finished_requests():
            self.pipeline.step()
            for i, handle in enumerate(handles):
                if handle.can_read():
                    made[i] += sum(len(output.generated_ids) for output in handle.read().values())
            if first == began and all(made):
                first, before = time.perf_counter(), sum(made)
        seconds = time.perf_counter() - first
        wanted = len(prompts) * (tokens - 1)
        return first - began, seconds * wanted / (sum(made) - before) if wanted else seconds

    def prefill(self, tokens: int, seed: int) -> float:
        self._open(chunked=True)
        return sum(self._run([prompt(tokens, seed)], 1))

    def decode(self, batch: int, context: int, tokens: int, seed: int) -> float:
        """All decode together from the first token on: short prompts share one step, longer ones come before all decoding."""
        self._open(chunked=batch * context <= 512)
        return self._run([prompt(context, seed + i) for i in range(batch)], tokens + 1)[1]


def main() -> None:
    name, model, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
    # Output of libraries must not mix with the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    peer: Any = OpenVino(model, threads) if name == "openvino" else LlamaCpp(model, threads, name.endswith("-fa"))
    print(json.dumps({"ready": name}), file=answers, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        if asked["kind"] == "prefill":
            seconds = peer.prefill(asked["tokens"], asked["seed"])
        else:
            seconds = peer.decode(asked["batch"], asked["context"], asked["tokens"], asked["seed"])
        print(json.dumps({"seconds": seconds}), file=answers, flush=True)


if __name__ == "__main__":
    main()
