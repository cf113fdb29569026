"""Relevancy and top-k of one query over many keys, beside faiss in one run. mnemo's memory device scans 2-, 4- and 8-bit keys, faiss
signed 8-bit codes exactly (IndexScalarQuantizer, QT_8bit_direct_signed), both with the same threads. faiss scans one query on
one thread, so it is measured a second time with the keys in as many shards as there are threads (IndexShards).

The programs take turns, one at a time, --rounds times; the best round of each counts, since noise only slows down. The bandwidth
that the threads read from memory is measured in the same run. Recall is the share of the float32 top-k.

    PEERS_PYTHON=python-with-faiss relevancy.py [--tokens 1000000] [--dim 128] [--k 64 2048] [--keys keys.npy] [--json]

The peer: `pip install faiss-cpu numpy`. Keys and queries are Gaussian unless --keys names an array [tokens, dim] of float32.

With --model it measures recall on a model's own keys and queries instead, without the peer and without timing. Queries of the last
1,024 of 8,192 tokens of --text (every 16th) scan the tokens before them, in each layer but the first two. As in token_topk, a KV
head's queries rank together, by the maximum of their scores, each less its best. Recall is the share of the k tokens that float32 ranks best
that way. Mass is the query group's attention that the selected tokens hold, relative to the k tokens that hold most.

    relevancy.py --model M.gguf --text TEXT [--k 512 1024] [--skip-layers 2]
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import Any

import scored_texts

PROGRAM = scored_texts.BIN / "mnemo_relevancy_speed"
FORMATS = {"codes2": 2, "codes4": 4, "codes8": 8}
QUERIES = 16


def faiss_seconds(index: Any, query: Any, k: int, repeats: int) -> float:
    best = float("inf")
    for n in range(repeats):
        start = time.perf_counter()
        index.search(query[n % len(query)][None], k)
        best = min(best, time.perf_counter() - start)
    return best


class Mnemo:
    def __init__(self, keys: pathlib.Path, queries: pathlib.Path, tokens: int, dim: int, threads: int, heads: int = 1, group: int = 1):
        command = [str(PROGRAM), "--keys", str(keys), "--queries", str(queries), "--tokens", str(tokens), "--dim", str(dim)]
        command += ["--heads", str(heads), "--group", str(group), "--threads", str(threads), "--formats", *FORMATS]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def ask(self, line: str) -> dict[str, Any]:
        assert self.process.stdin is not None and self.process.stdout is not None
        print(line, file=self.process.stdin, flush=True)
        return dict(json.loads(self.process.stdout.readline()))

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def recall_of_model(options: argparse.Namespace) -> dict[str, Any]:
    import numpy as np

    bench = PROGRAM.parent
    ids = scored_texts.tokens_of(options.model, options.text, options.tokens)
    found: dict[tuple[str, int], list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        command = [bench / "mnemo_logits_dump", "--model", options.model, "--attention", folder, "--threads", str(options.threads)]
        shape = json.loads(subprocess.run(command, input=" ".join(map(str, ids)).encode(), stdout=subprocess.PIPE, check=True).stdout)
        heads, group, dim = shape["kv_heads"], shape["group"], shape["head_dim"]
        for layer in shape["layers"][options.skip_layers :]:
            files = [pathlib.Path(folder) / name for name in (f"keys.{layer}", f"queries.{layer}", "ids")]
            keys = np.fromfile(files[0], np.float32).reshape(heads, shape["tokens"], dim)
            queries = np.fromfile(files[1], np.float32).reshape(shape["queries"], heads, group, dim)
            below = np.einsum("nhgd,htd->nhgt", queries, keys, optimize=True) / np.float32(dim**0.5)
            below -= below.max(-1, keepdims=True)
            rank = below.max(2)
            mass = np.exp(below)
            mass = (mass / mass.sum(-1, keepdims=True)).sum(2)
            mnemo = Mnemo(files[0], files[1], shape["tokens"], dim, options.threads, heads, group)
            for k in options.k:
                best = np.argsort(-rank, axis=-1, kind="stable")[..., :k]
                most = np.sort(mass, axis=-1)[..., -k:].sum(-1)
                for name in FORMATS:
                    mnemo.ask(f"ids {name} {k} {files[2]}")
                    chosen = np.fromfile(files[2], np.uint32).reshape(shape["queries"], heads, k).astype(np.int64)
                    hit = np.zeros(rank.shape, bool)
                    np.put_along_axis(hit, chosen, True, -1)
                    recall = np.take_along_axis(hit, best, -1).mean()
                    held = (np.take_along_axis(mass, chosen, -1).sum(-1) / most).mean()
                    found.setdefault((name, k), []).append((float(recall), float(held)))
                held = (np.take_along_axis(mass, best, -1).sum(-1) / most).mean()
                found.setdefault(("float32", k), []).append((1.0, float(held)))
            mnemo.close()
    rows = []
    for (name, k), layers in found.items():
        recalls, masses = zip(*layers)
        label = "float32" if name == "float32" else f"{FORMATS[name]} bits"
        mean = {"recall": sum(recalls) / len(layers), "least_recall": min(recalls), "mass": sum(masses) / len(layers), "least_mass": min(masses)}
        rows.append({"name": label, "k": k, **mean})
    return {**shape, "rows": rows}


def run(options: argparse.Namespace) -> dict[str, Any]:
    import faiss
    import numpy as np

    random = np.random.default_rng(options.seed)
    if options.keys:
        keys = np.ascontiguousarray(np.load(options.keys), dtype=np.float32)
        keys = keys[: len(keys) // 64 * 64]
    else:
        keys = random.standard_normal((options.tokens // 64 * 64, options.dim), dtype=np.float32)
    tokens, dim = keys.shape
    queries = random.standard_normal((QUERIES, dim), dtype=np.float32)
    best = np.argsort(-(keys @ queries.T), axis=0, kind="stable")[: max(options.k)].T

    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        files = [pathlib.Path(folder) / name for name in ("keys", "queries", "ids")]
        keys.tofile(files[0])
        queries.tofile(files[1])
        mnemo = Mnemo(files[0], files[1], tokens, dim, options.threads)
        faiss.omp_set_num_threads(options.threads)
        step = np.abs(keys).max() / 127
        codes = np.round(keys / step).astype(np.float32)
        del keys

        # faiss takes queries as such bytes too: each query gets the scale that uses their whole range.
        query_codes = np.round(queries * (127 / np.abs(queries).max(axis=1, keepdims=True))).astype(np.float32)

        def flat(part: Any) -> Any:
            index = faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_8bit_direct_signed, faiss.METRIC_INNER_PRODUCT)
            index.add(part)
            return index

        whole = flat(codes)
        shards = faiss.IndexShards(dim, True, True)
        parts = [flat(part) for part in np.array_split(codes, options.threads)]
        for part in parts:
            shards.add_shard(part)
        del codes
        result: dict[str, Any] = {"tokens": tokens, "dim": dim, "threads": options.threads, "rows": []}
        bandwidth = []
        for k in options.k:
            for name in FORMATS:
                mnemo.ask(f"ids {name} {k} {files[2]}")
                ids = np.fromfile(files[2], dtype=np.uint32).reshape(QUERIES, k)
                hits = sum(len(np.intersect1d(a, b[:k])) for a, b in zip(ids, best))
                result["rows"].append({"name": f"mnemo, {FORMATS[name]} bits", "k": k, "recall": hits / (QUERIES * k)})
            found = whole.search(query_codes, k)[1]
            recall = sum(len(np.intersect1d(a, b[:k])) for a, b in zip(found, best)) / (QUERIES * k)
            peers = [
                {"name": name, "k": k, "recall": recall, "seconds": float("inf"), "bytes": tokens * dim}
                for name in ("faiss, 8 bits", "faiss, shards")
            ]
            rows = result["rows"][-len(FORMATS) :]
            for _ in range(options.rounds):
                bandwidth.append(mnemo.ask("bandwidth")["bytes_per_second"])
                for row, name in zip(rows, FORMATS):
                    answer = mnemo.ask(f"time {name} {k} {options.repeats}")
                    row["seconds"] = min(row.get("seconds", float("inf")), answer["least_us"] * 1e-6)
                    row["bytes"] = answer["bytes"]
                for peer, index in zip(peers, (whole, shards)):
                    peer["seconds"] = min(peer["seconds"], faiss_seconds(index, query_codes, k, options.repeats))
            result["rows"] += peers
            for row in [*rows, *peers]:
                row["times_faiss"] = peers[0]["seconds"] / row["seconds"]
                row["times_shards"] = peers[1]["seconds"] / row["seconds"]
        mnemo.close()
    result["bytes_per_second"] = max(bandwidth)
    for row in result["rows"]:
        row["of_bandwidth"] = row["bytes"] / row["seconds"] / result["bytes_per_second"]
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, help="1,000,000; with --model 8,192, the queries' 1,024 included")
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--k", type=int, nargs="+", help="64 2048; with --model 512 1024")
    parser.add_argument("--model", help="GGUF file: recall on its own keys, with --text")
    parser.add_argument("--text", help="UTF-8 text")
    parser.add_argument("--skip-layers", type=int, default=2, help="full-attention layers that stay dense, with --model")
    parser.add_argument("--keys", help="array of float32 [tokens, dim] in a .npy file")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scratch", help="folder for the keys while it runs (4 bytes an element)")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    options.tokens = options.tokens or (8192 if options.model else 1_000_000)
    options.k = options.k or ([512, 1024] if options.model else [64, 2048])
    if options.model:
        if not options.text:
            parser.error("--model needs --text")
        found = recall_of_model(options)
        if options.json:
            print(json.dumps(found))
            return
        print(f"{found['tokens']:,} keys, {found['queries']} queries, layers {found['layers'][options.skip_layers :]}; means over layers, least layer")
        for row in sorted(found["rows"], key=lambda row: (row["k"], row["name"])):
            print(f"{row['name']:8} k {row['k']:5}  recall {row['recall']:.4f} {row['least_recall']:.4f}  mass {row['mass']:.4f} {row['least_mass']:.4f}")
        return
    python = os.environ.get("PEERS_PYTHON")
    if python and os.path.realpath(python) != os.path.realpath(sys.executable):
        sys.exit(subprocess.run([python, *sys.argv]).returncode)
    result = run(options)
    if options.json:
        print(json.dumps(result))
        return
    print(f"{result['tokens']:,} keys of {result['dim']} dims, {result['threads']} threads,", end=" ")
    print(f"memory read at {result['bytes_per_second'] / 1e9:.1f} GB/s")
    for row in result["rows"]:
        print(
            f"{row['name']:16} k {row['k']:5}  {row['seconds'] * 1e3:8.3f} ms  {row['times_faiss']:5.2f} x faiss  {row['times_shards']:5.2f} x shards  "
            f"{row['of_bandwidth']:4.0%} of bandwidth  recall {row['recall']:.4f}"
        )


if __name__ == "__main__":
    main()
