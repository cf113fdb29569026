"""Time that rendering a chat's template adds to the first token: the same token ids, sent as a chat and as ids, in turns.

    chat_latency.py [--model M.gguf] [--pairs 1500]

Without a model a tiny one is served, whose own time is short. Figures are medians. The last one is the median of the paired differences
and includes tokenizing the chat.
"""

from __future__ import annotations

import argparse
import pathlib
import statistics
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "e2e"))
import harness  # noqa: E402
from harness import Daemon, pb  # noqa: E402

WARM_UP = 100


def first_token_ms(daemon: Daemon, request: pb.GenerateRequest) -> float:
    began = time.perf_counter()
    call = daemon.generation.Generate(request)
    while not next(call).HasField("delta"):
        pass
    took = time.perf_counter() - began
    for _ in call:
        pass
    return took * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model")
    parser.add_argument("--pairs", type=int, default=1500)
    arguments = parser.parse_args()
    chat = pb.Chat(messages=[pb.Chat.Message(role="user", content="Why is the sky blue?")])
    sampling = pb.Sampling(max_tokens=1, temperature=0, ignore_eos=True)
    with tempfile.TemporaryDirectory() as folder:
        model = pathlib.Path(arguments.model) if arguments.model else harness.tiny_model(pathlib.Path(folder) / "tiny.gguf")
        with Daemon(model) as daemon:
            ids = daemon.generation.Tokenize(pb.TokenizeRequest(chat=chat)).ids
            as_chat = pb.GenerateRequest(chat=chat, sampling=sampling)
            as_ids = pb.GenerateRequest(token_ids=pb.TokenIds(ids=ids), sampling=sampling)
            pairs = [(first_token_ms(daemon, as_chat), first_token_ms(daemon, as_ids)) for _ in range(arguments.pairs + WARM_UP)]
    chats, others = zip(*pairs[WARM_UP:])
    added = statistics.median(a - b for a, b in pairs[WARM_UP:])
    print(f"time to first token: chat {statistics.median(chats):.3f} ms, ids {statistics.median(others):.3f} ms, the chat adds {added:.3f} ms")


if __name__ == "__main__":
    main()
