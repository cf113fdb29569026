"""Calls mnemod at a fixed rate, with a retry policy, until standard input ends; then fails if any call did.

Usage: load.py ADDRESS CALLS_PER_SECOND. It needs the Python client package alone. Prints the number of calls and the slowest one.
"""

from __future__ import annotations

import collections
import concurrent.futures
import json
import select
import sys
import time

import grpc
from mnemo.v1 import generation_pb2, generation_pb2_grpc

CHANNELS = 8
POLICY = {
    "maxAttempts": 5,
    "initialBackoff": "0.1s",
    "maxBackoff": "2s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}


def main() -> int:
    address, rate = sys.argv[1], float(sys.argv[2])
    config = json.dumps({"methodConfig": [{"name": [{}], "retryPolicy": POLICY}]})
    options = [("grpc.service_config", config), ("grpc.use_local_subchannel_pool", 1)]
    stubs = [generation_pb2_grpc.GenerationStub(grpc.insecure_channel(address, options=options)) for _ in range(CHANNELS)]
    outcomes: collections.Counter[str] = collections.Counter()
    slowest = 0.0

    def call(stub: generation_pb2_grpc.GenerationStub) -> tuple[str, float]:
        began = time.monotonic()
        request = generation_pb2.GenerateRequest(prompt="Once")
        request.sampling.max_tokens = 2
        try:
            events = list(stub.Generate(request, timeout=60))
            outcome = "ok" if events and events[-1].HasField("final") else "no final event"
        except grpc.RpcError as error:
            outcome = f"{error.code().name}: {error.details()}"
        return outcome, time.monotonic() - began

    with concurrent.futures.ThreadPoolExecutor(512) as pool:
        running = []
        due = time.monotonic()
        while not select.select([sys.stdin], [], [], max(0.0, due - time.monotonic()))[0]:
            due += 1 / rate
            running.append(pool.submit(call, stubs[len(running) % CHANNELS]))
        for done in running:
            outcome, seconds = done.result()
            outcomes[outcome] += 1
            slowest = max(slowest, seconds)
    print(f"{len(running)} calls, the slowest took {slowest:.1f} s: {dict(outcomes)}")
    return 0 if set(outcomes) == {"ok"} else 1


if __name__ == "__main__":
    sys.exit(main())
