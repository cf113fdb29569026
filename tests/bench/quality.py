"""Cost of sparse attention in quality, through a running daemon.

Each text is scored teacher-forced: the tokens before --decoded are prefilled (dense), the last --decoded are fed one a step through the
method under test (output.decode_from). Their perplexity, exp(-mean log P(token)), is compared with dense decoding's in the same run.
There are two texts: one that goes on ("plain"), and one whose last --decoded tokens repeat a passage --back tokens earlier ("repeat").
A method that loses distant tokens fails on the second.

    quality.py --model M.gguf --text TEXT [--tokens 8192] [--decoded 1024] [--budgets 512,1024,2048] [--methods token_topk:2,cascade,...]
"""

from __future__ import annotations

import math
import pathlib
import sys
from typing import Any

import scored_texts

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "e2e"))
import harness  # noqa: E402

METHODS = {
    "token_topk:2": ("ATTENTION_METHOD_TOKEN_TOPK", 2),
    "token_topk:4": ("ATTENTION_METHOD_TOKEN_TOPK", 4),
    "token_topk:8": ("ATTENTION_METHOD_TOKEN_TOPK", 8),
    "cascade": ("ATTENTION_METHOD_CASCADE", None),
    "page_bound": ("ATTENTION_METHOD_PAGE_BOUND", None),
    "block_mean": ("ATTENTION_METHOD_BLOCK_MEAN", None),
}


def perplexity(daemon: harness.Daemon, ids: list[int], decoded: int, attention: Any) -> float:
    first = len(ids) - decoded
    request = harness.request(ids, max_tokens=0)
    request.output.prompt_logprobs = 0
    request.output.prompt_logprobs_from = first
    request.output.decode_from = first - 1
    request.attention.CopyFrom(attention)
    scored = daemon.generate(request, timeout=1200).check_ok().prompt
    assert len(scored) == decoded, (len(scored), decoded)
    return math.exp(-sum(token.logprob for token in scored) / decoded)


def main() -> None:
    parser = scored_texts.options(__doc__, METHODS)
    parser.add_argument("--set", action="append", default=[], help="KEY=VALUE of the configuration, repeatable")
    arguments = parser.parse_args()
    texts = scored_texts.texts_of(arguments)
    budgets = [int(b) for b in arguments.budgets.split(",")]
    settings = dict(value.split("=", 1) for value in arguments.set)
    pb = harness.pb
    with harness.Daemon(pathlib.Path(arguments.model), settings=settings) as daemon:
        for name in arguments.texts.split(","):
            dense = perplexity(daemon, texts[name], arguments.decoded, pb.Attention(method=pb.ATTENTION_METHOD_DENSE))
            print(f"{name}: {arguments.tokens} tokens, the last {arguments.decoded} decoded; perplexity of dense {dense:.4f}\n")
            print("| method | " + " | ".join(str(b) for b in budgets) + " |\n|---|" + "---|" * len(budgets))
            for method in arguments.methods.split(","):
                number, bits = METHODS[method]
                row = []
                for budget in budgets:
                    attention = pb.Attention(method=number, token_budget=budget)
                    if bits is not None:
                        attention.key_bits = bits
                    row.append(100 * (perplexity(daemon, texts[name], arguments.decoded, attention) / dense - 1))
                print(f"| {method} | " + " | ".join(f"{change:+.2f} %" for change in row) + " |", flush=True)
            print()


if __name__ == "__main__":
    main()
