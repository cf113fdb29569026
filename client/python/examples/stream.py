"""Streams one answer to the terminal: stream.py [--address HOST:PORT] QUESTION. Ctrl-C cancels it."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys

import mnemo


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", default="127.0.0.1:50051")
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("question")
    arguments = parser.parse_args()

    with mnemo.Client(arguments.address) as client:
        events = client.stream(
            messages=[mnemo.Message("user", arguments.question)],
            max_tokens=arguments.max_tokens,
            temperature=0,
        )
        try:
            # Every exit of the block closes the generator, which cancels the request.
            with contextlib.closing(events):
                for event in events:
                    if isinstance(event, mnemo.Delta):
                        print(event.text, end="", flush=True)
                    elif isinstance(event, mnemo.Final):
                        print(f"\n[{event.finish_reason}, {event.usage.completion_tokens} tokens]", file=sys.stderr)
        except mnemo.MnemoError as error:
            print(f"\nstream.py: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            return 130
        except BrokenPipeError:
            # The reader has gone. Python would write the rest at its end, and report an error.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 141
    return 0


if __name__ == "__main__":
    sys.exit(main())
