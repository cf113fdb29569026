"""Health from outside: live apart from ready, answered while the engine is stopped, without flapping during a short restart."""

from __future__ import annotations

import os
import pathlib
import signal
import threading
import time
from collections.abc import Iterator

import grpc
import pytest
from harness import Daemon, health_pb2, request, scrape, wait_for

Response = health_pb2.HealthCheckResponse


class Watch:
    """All that Watch tells, with the time of each."""

    def __init__(self, daemon: Daemon, service: str):
        self.call = daemon.health.Watch(health_pb2.HealthCheckRequest(service=service))
        self.states: list[int] = []
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()
        wait_for("a first state", lambda: self.states)

    def _read(self) -> None:
        try:
            for message in self.call:
                self.states.append(message.status)
        except grpc.RpcError:
            pass

    def end(self) -> list[int]:
        self.call.cancel()
        self.thread.join(10)
        return self.states


def kill_worker(daemon: Daemon) -> None:
    os.kill(daemon.status().workers[0].pid, signal.SIGKILL)


@pytest.fixture
def flapping(tiny: pathlib.Path) -> Iterator[Daemon]:
    with Daemon(tiny, settings={"server.health_grace_ms": 20_000}) as daemon:
        yield daemon


def test_a_short_restart_does_not_flap(flapping: Daemon) -> None:
    watch = Watch(flapping, "ready")
    for _ in range(3):
        kill_worker(flapping)
        # The call waits for the new worker.
        flapping.generate(request([1, 2, 3])).check_ok()
    assert watch.end() == [Response.SERVING]
    assert "mnemo_ready 1" in scrape(flapping.metrics_address)


def test_a_long_loss_is_told_once_and_live_stays(tiny: pathlib.Path) -> None:
    settings = {"server.health_grace_ms": 200, "workers.restart_backoff_ms": 3000, "workers.restart_backoff_max_ms": 3000}
    with Daemon(tiny, settings=settings) as daemon:
        ready, live = Watch(daemon, "ready"), Watch(daemon, "live")
        kill_worker(daemon)
        wait_for("NOT_SERVING", lambda: not daemon.serving("ready"))
        assert daemon.serving("live") and not daemon.serving("")
        assert "mnemo_ready 0" in scrape(daemon.metrics_address)
        wait_for("SERVING again", lambda: daemon.serving("ready"), 30)
        assert ready.end() == [Response.SERVING, Response.NOT_SERVING, Response.SERVING]
        assert live.end() == [Response.SERVING]


def test_a_stopped_worker_does_not_delay_health(tiny: pathlib.Path) -> None:
    """The engine is dead: health answers from memory, and tells so once the worker counts as hung."""
    settings = {"workers.hang_timeout_ms": 2000, "server.health_grace_ms": 0, "workers.restart_backoff_ms": 3000, "workers.restart_backoff_max_ms": 3000}
    with Daemon(tiny, settings=settings) as daemon:
        os.kill(daemon.status().workers[0].pid, signal.SIGSTOP)
        answers = 0
        end = time.monotonic() + 60
        while daemon.serving("ready"):
            answers += 1
            assert time.monotonic() < end, "a dead engine is still SERVING"
            time.sleep(0.01)
        assert answers > 20, "health waited for the engine"
        assert daemon.serving("live")
        wait_for("SERVING again", lambda: daemon.serving("ready"), 60)


def test_unknown_services_are_named(flapping: Daemon) -> None:
    with pytest.raises(grpc.RpcError) as error:
        flapping.health.Check(health_pb2.HealthCheckRequest(service="liveness"), timeout=5)
    assert error.value.code() == grpc.StatusCode.NOT_FOUND
    assert "ready, live" in error.value.details()
