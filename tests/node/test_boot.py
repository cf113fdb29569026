"""boot.sh itself: a real systemd, the script's output and status, and nothing left on the machine."""

from __future__ import annotations

import pathlib
import subprocess
import uuid

import nodes


def script(folder: pathlib.Path, text: str) -> pathlib.Path:
    path = folder / "script.sh"
    path.write_text("#!/bin/bash\n" + text)
    return path


def mounts() -> list[str]:
    return sorted(line.split()[4] for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines())


def test_a_script_runs_under_systemd_and_hands_back_its_status(tmp_path: pathlib.Path) -> None:
    mark = f'{uuid.uuid4()} "quoted" \\ $HOME'
    done = nodes.boot(
        script(
            tmp_path,
            """
            echo "mark: $MNEMO_MARK"
            echo "first process: $(cat /proc/1/comm)"
            echo "user: $(systemd-run --wait --pipe --quiet -p DynamicUser=yes -p User=someone -p PrivateDevices=yes -p ProtectSystem=strict id -un)"
            journalctl --quiet -n 1 >/dev/null && echo "journal: there"
            echo an error >&2
            exit 7
            """,
        ),
        60,
        MNEMO_MARK=mark,
    )
    assert done.returncode == 7, done.stdout
    assert done.stdout.splitlines() == [f"mark: {mark}", "first process: systemd", "user: someone", "journal: there", "an error"]


def test_a_node_leaves_nothing(tmp_path: pathlib.Path) -> None:
    name = f"mnemo-node-{uuid.uuid4()}"
    before = mounts()
    done = nodes.boot(
        script(tmp_path, f"touch /etc/{name} /tmp/{name} /dev/shm/{name} && useradd --system {name[:20]} && exec -a {name} sleep 0.1"), 60
    )
    assert done.returncode == 0, done.stdout
    assert not any(pathlib.Path(folder, name).exists() for folder in ("/etc", "/tmp", "/dev/shm"))
    assert name[:20] not in pathlib.Path("/etc/passwd").read_text()
    assert mounts() == before


def test_a_script_that_does_not_end_is_ended(tmp_path: pathlib.Path) -> None:
    name = f"mnemo-node-{uuid.uuid4()}"
    done = nodes.boot(script(tmp_path, f"echo begun; exec -a {name} sleep 1000"), 10)
    assert done.returncode == nodes.TOO_LONG, done.stdout
    assert done.stdout.startswith("begun\n") and "longer than 10 s" in done.stdout
    assert subprocess.run(["pgrep", "-f", name], capture_output=True).returncode == 1


def test_a_missing_script_is_told(tmp_path: pathlib.Path) -> None:
    done = nodes.boot(tmp_path / "absent.sh", 10)
    assert done.returncode == 2 and "absent.sh: no such script" in done.stdout
