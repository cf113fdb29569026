#!/bin/bash
# The units of a node beside mnemod.service: meters, a second model, a worker and a memory service of their own. MNEMO_PACKAGES holds
# the packages mnemo and mnemo-client, MNEMO_MODEL is a GGUF file of a few hundred kilobytes.
set -euo pipefail

units='mnemo-energy.service mnemod.service mnemod@second.service mnemo-worker@one.service mnemo-memory@one.service'

fail() {
  echo "FAILED: $*"
  # shellcheck disable=SC2086
  systemctl status --no-pager -n 5 $units || true
  # shellcheck disable=SC2046,SC2086
  journalctl --no-pager -o short-precise $(printf -- '-u %s ' $units) | tail -n 60 || true
  exit 1
}

is_active() { systemctl is-active --quiet "$1"; }

# Waits up to 20 s until a command succeeds.
wait_for() {
  local tries
  for ((tries = 0; tries < 200; ++tries)); do
    if "$@"; then return 0; fi
    sleep 0.1
  done
  return 1
}

generate() {
  local address=$1
  shift
  mnemo generate -a "$address" --wait --connect-timeout 20s --temperature 0 "$@" </dev/null
}

# The sum of a metric's samples that match a pattern, of the daemon that exposes on a port; empty when there are none.
metric() {
  python3 - "$1" "$2" <<'PYTHON'
import re, sys, urllib.request

text = urllib.request.urlopen(f"http://127.0.0.1:{sys.argv[1]}/metrics", timeout=10).read().decode()
values = [float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if re.search(sys.argv[2], line)]
print(f"{sum(values):.9g}" if values else "", end="")
PYTHON
}

# 1. Installed, and nothing is configured: the enabled units of a name that nobody configured are skipped.
# The kernel's powercap tree is this test's own: one package of 40 W, as root alone may read it.
mount -t tmpfs -o mode=755 tmpfs /sys/class
zone=/sys/class/powercap/intel-rapl:0
mkdir -p "$zone"
echo package-0 >"$zone/name"
echo 262143328850 >"$zone/max_energy_range_uj"
cat >/root/counter.py <<'PYTHON'
import os, sys, time

zone = sys.argv[1]
begin = time.monotonic()
while not os.path.exists("/root/freeze"):
    with open(zone + "/new", "w", opener=lambda path, flags: os.open(path, flags, 0o400)) as file:
        file.write(f"{int((time.monotonic() - begin) * 40e6)}\n")
    os.rename(zone + "/new", zone + "/energy_uj")
    time.sleep(0.03)
PYTHON
python3 /root/counter.py "$zone" &
counter=$!
wait_for test -e "$zone/energy_uj" || fail "no counter"
[ "$(stat -c '%U %a' "$zone/energy_uj")" = "root 400" ] || fail "the counter can be read: $(stat -c '%U %a' "$zone/energy_uj")"

dpkg -i "$MNEMO_PACKAGES"/*.deb >/root/dpkg-output 2>&1 || { cat /root/dpkg-output; fail "dpkg -i"; }
for unit in mnemod@absent.service mnemo-worker@absent.service mnemo-memory@absent.service; do
  systemctl enable --quiet --now "$unit" 2>/dev/null || fail "$unit fails while it is not configured"
  [ "$(systemctl show -P ActiveState "$unit")" = inactive ] || fail "$unit was not skipped"
  systemctl disable --quiet "$unit" 2>/dev/null
done
printf 'model:\n  path: ""\n' >/etc/mnemo/empty.yaml
systemctl start mnemod@empty.service || fail "mnemod@empty fails while it is not configured"
# systemd forgets an instance that does not run, with its result.
journalctl -o cat UNIT=mnemod@empty.service | grep -q "Skipped due to 'exec-condition'" || fail "mnemod@empty was not skipped by its condition"
# A configuration with an error is never skipped: the unit fails, and the journal names file, line and field.
printf 'model:\n  path: /a\nengine:\n  max_running: 0\n' >/etc/mnemo/broken.yaml
! systemctl start mnemod@broken.service 2>/dev/null || fail "mnemod@broken starts"
systemctl stop mnemod@broken.service
journalctl -o cat _SYSTEMD_UNIT=mnemod@broken.service | grep -q '/etc/mnemo/broken.yaml:4:.*engine.max_running' ||
  fail "the journal does not tell the error: $(journalctl -o cat _SYSTEMD_UNIT=mnemod@broken.service)"
systemctl reset-failed
is_active mnemo-energy.service || fail "mnemo-energy does not run"
[ "$(systemctl is-system-running)" != degraded ] || fail "a unit failed: $(systemctl --failed --no-legend)"

# 2. Configured, as the units' comments and the documents say.
models=/var/lib/mnemo/models
install -o mnemo -g mnemo -m 644 "$MNEMO_MODEL" "$models/model.gguf"
cat >/etc/mnemo/node.yaml <<YAML
model: {path: $models/model.gguf}
workers: {count: 0, addresses: ["unix:/run/mnemo-worker/one/worker.sock"]}
attention: {dense_layers: 0}
memory: {services: 0}
log: {format: json}
YAML
cat >/etc/mnemo/second.yaml <<YAML
server: {listen: "127.0.0.1:50052", metrics_listen: "127.0.0.1:9466"}
model: {path: $models/model.gguf}
workers: {count: 1}
cpu: {threads: 1}
engine: {kv_cache_bytes: 16777216}
memory: {services: 0}
log: {format: json, file: /var/log/mnemo/second.log}
YAML
cat >/etc/mnemo/worker-one.yaml <<YAML
model: {path: $models/model.gguf}
cpu: {threads: 1}
engine: {kv_cache_bytes: 16777216}
attention: {dense_layers: 0}
memory: {addresses: ["unix:/run/mnemo-memory/one/data.sock"]}
YAML
echo 'MNEMO_MEMORY_OPTIONS=--memory-bytes=67108864 --threads=1 --metrics-listen=127.0.0.1:9465' >/etc/mnemo/memory-one.env
for unit in mnemod@second.service mnemo-worker@one.service mnemo-memory@one.service; do
  systemctl enable --quiet "$unit" 2>/dev/null || fail "$unit cannot be enabled"
done
before_uj=$(<"$zone/energy_uj")
systemctl start mnemo.target || fail "mnemo.target does not start"
# shellcheck disable=SC2086
for unit in $units; do
  wait_for is_active "$unit" || fail "mnemo.target did not start $unit"
done

# 3. It answers, both daemons the same; the worker works with its memory service.
attached() { [ "$(metric 9464 '^mnemo_memory_service_attached')" = 1 ]; }
wait_for attached || fail "the worker is not attached to the memory service"
prompt=$(seq -s ' ' 1 400)
answer=$(generate 127.0.0.1:50051 --max-tokens 24 --json "$prompt" | python3 -c 'import json, sys; print(json.load(sys.stdin)["token_ids"])') || fail "no answer"
second=$(generate 127.0.0.1:50052 --max-tokens 24 --json "$prompt" | python3 -c 'import json, sys; print(json.load(sys.stdin)["token_ids"])') || fail "no answer of the second model"
[[ -n "$answer" && "$answer" = "$second" ]] || fail "two answers: $answer, $second"
generate 127.0.0.1:50051 --max-tokens 24 --attention token_topk --budget 128 --placement memory-service --json "$prompt" >/root/sparse.json ||
  fail "no answer with the memory service"
python3 -c '
import json
steps = {step["step"]: step for step in json.load(open("/root/sparse.json"))["memory_steps"]}
assert steps and any("one" in str(step) for step in steps.values()), steps' || fail "the memory service computed no step: $(cat /root/sparse.json)"
[ "$(metric 9465 '^mnemo_memory_service_operations_total.*status="ok"')" -gt 0 ] || fail "the memory service counted no operation"
[ "$(metric 9464 '^mnemo_memory_fallbacks_total')" = 0 ] || fail "a request fell back: $(metric 9464 '^mnemo_memory_fallbacks_total')"

# 4. Processes: users and capabilities, as the kernel has them.
check_processes() {
  local unit=$1 user=$2 capabilities=$3 pid kind
  local group
  group=$(systemctl show -P ControlGroup "$unit")
  [ -n "$(cat "/sys/fs/cgroup$group/cgroup.procs")" ] || fail "$unit has no process"
  while read -r pid; do
    [ "$(stat -c %U:%G "/proc/$pid")" = "$user:mnemo" ] || fail "process $pid of $unit runs as $(stat -c %U:%G "/proc/$pid")"
    for kind in CapInh CapPrm CapEff CapBnd CapAmb; do
      grep -q "^$kind:.$capabilities\$" "/proc/$pid/status" || fail "process $pid of $unit: $(grep "^$kind" "/proc/$pid/status")"
    done
    grep -q '^NoNewPrivs:.1$' "/proc/$pid/status" || fail "process $pid of $unit may gain privileges"
    grep -q '^Seccomp:.2$' "/proc/$pid/status" || fail "process $pid of $unit has no filter of system calls"
    [ "$(awk '/^Max core file size/ {print $5 $6}' "/proc/$pid/limits")" = 00 ] || fail "process $pid of $unit may leave a core"
  done <"/sys/fs/cgroup$group/cgroup.procs"
}
# CAP_DAC_READ_SEARCH is bit 2, CAP_PERFMON bit 38.
check_processes mnemo-energy.service mnemo-energy 0000004000000004
for unit in mnemod.service mnemod@second.service mnemo-worker@one.service mnemo-memory@one.service; do
  check_processes "$unit" mnemo 0000000000000000
done

# 5. Joules. User mnemo cannot read the counter, nobody cannot reach the socket, and mnemod counts what the tree says.
! setpriv --reuid=mnemo --regid=mnemo --clear-groups cat "$zone/energy_uj" >/dev/null 2>&1 || fail "user mnemo reads the counter itself"
python3 - <<'PYTHON' || fail "the socket's permissions"
import os, pwd, socket

def connect(name):
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    user = pwd.getpwnam(name)
    os.setgroups([]), os.setgid(user.pw_gid), os.setuid(user.pw_uid)
    try:
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET).connect("/run/mnemo-energy/meters.sock")
    except PermissionError:
        os._exit(13)
    os._exit(0)

assert connect("mnemo") == 0
assert connect("nobody") == 13
PYTHON
counts_joules() { [ -n "$(metric 9464 '^mnemo_energy_joules_total[{].*device="cpu0".*source="rapl"')" ]; }
wait_for counts_joules || fail "mnemod counts no joules"
[ "$(metric 9464 '^mnemo_energy_meter_up[{].*source="rapl"')" = 1 ] || fail "the meter is down"
ready_uj=$(<"$zone/energy_uj")
generate 127.0.0.1:50051 --max-tokens 64 --json "$prompt" >/root/energy.json || fail "no answer"
touch /root/freeze
wait "$counter"
last_uj=$(<"$zone/energy_uj")
# Between the start of mnemod and the end of the counter lie the joules that it counts; readings are rounded to 0.1 J.
counted_all() {
  python3 - "$(metric 9464 '^mnemo_energy_joules_total[{]')" "$before_uj" "$ready_uj" "$last_uj" <<'PYTHON'
import sys

counted, before, ready, last = float(sys.argv[1]), *(int(text) / 1e6 for text in sys.argv[2:])
sys.exit(not last - ready - 0.2 <= counted <= last - before + 0.2)
PYTHON
}
wait_for counted_all || fail "$(metric 9464 '^mnemo_energy_joules_total[{]') J are counted; the counter went from $before_uj over $ready_uj to $last_uj uJ"
python3 -c '
import json
energy = json.load(open("/root/energy.json"))["energy"]
assert energy and "model" not in json.dumps(energy), energy' || fail "the answer has no energy: $(cat /root/energy.json)"

# 6. Device nodes: a rule of the unit opens the one it names, and no other. Nodes without a driver tell the two refusals apart:
# EPERM is the rule's, ENXIO comes after it.
open_device() {
  python3 - "$1" "$2" <<'PYTHON'
import errno, os, sys

with open(f"/sys/fs/cgroup{sys.argv[1]}/cgroup.procs", "w") as file:
    file.write(str(os.getpid()))
try:
    os.open(sys.argv[2], os.O_RDWR)
except OSError as error:
    print(errno.errorcode[error.errno])
PYTHON
}
mknod /dev/allowed c 240 0
mknod /dev/other c 241 0
[ "$(open_device / /dev/other)" = ENXIO ] || fail "the device node has a driver: $(open_device / /dev/other)"
for unit in mnemo-worker@one.service mnemo-memory@one.service; do
  group=$(systemctl show -P ControlGroup "$unit")
  [ "$(open_device "$group" /dev/allowed)" = EPERM ] || fail "$unit reaches a device that no rule names: $(open_device "$group" /dev/allowed)"
  for class in nvidia nvidiactl nvidia-uvm drm kfd xclmgmt; do
    systemctl show -P DeviceAllow "$unit" | grep -q "^char-$class rw" || fail "$unit has no rule for $class"
  done
  mkdir -p "/run/systemd/system/$unit.d"
  printf '[Service]\nDeviceAllow=/dev/allowed rw\n' >"/run/systemd/system/$unit.d/device.conf"
done
systemctl daemon-reload
for unit in mnemo-worker@one.service mnemo-memory@one.service; do
  systemctl restart "$unit" || fail "$unit does not restart"
  group=$(systemctl show -P ControlGroup "$unit")
  [ "$(open_device "$group" /dev/allowed)" = ENXIO ] || fail "$unit does not reach a device that its rule names: $(open_device "$group" /dev/allowed)"
  [ "$(open_device "$group" /dev/other)" = EPERM ] || fail "$unit reaches a device that no rule names: $(open_device "$group" /dev/other)"
done
for unit in mnemod.service mnemod@second.service mnemo-energy.service; do
  group=$(systemctl show -P ControlGroup "$unit")
  [ "$(open_device "$group" /dev/allowed)" = EPERM ] || fail "$unit reaches a device: $(open_device "$group" /dev/allowed)"
done
# mnemod takes the worker again, and the worker its memory service.
wait_for attached || fail "the worker is not attached again"
generate 127.0.0.1:50051 --max-tokens 4 Once >/dev/null || fail "no answer after a restart of the worker"

# 7. Exposure, in tenths.
check_exposure() {
  systemd-analyze security --no-pager --threshold="$2" "$1" >/root/exposure || fail "the exposure of $1 is over $2 tenths: $(tail -n 1 /root/exposure)"
}
for unit in mnemod.service mnemod@second.service; do check_exposure "$unit" 15; done
for unit in mnemo-worker@one.service mnemo-memory@one.service mnemo-energy.service; do check_exposure "$unit" 20; done

# 8. The target stops all units and starts them again.
stopped() { [ "$(systemctl show -P ActiveState "$1")" = inactive ]; }
# The target's own end is not the units' end: they drain.
systemctl stop mnemo.target
# shellcheck disable=SC2086
for unit in $units; do
  wait_for stopped "$unit" || fail "mnemo.target did not stop $unit: $(systemctl show -P Result "$unit")"
done
[ -z "$(pgrep -u mnemo,mnemo-energy)" ] || fail "processes are left: $(pgrep -a -u mnemo,mnemo-energy)"
left=$(find /run/mnemo* ! -type d)
[ -z "$left" ] || fail "files are left in /run: $left"
systemctl start mnemo.target || fail "mnemo.target does not start again"
# shellcheck disable=SC2086
for unit in $units; do
  wait_for is_active "$unit" || fail "mnemo.target did not start $unit again"
done
generate 127.0.0.1:50051 --max-tokens 24 --json "$prompt" >/root/again.json || fail "no answer after the target's restart"
[ "$(python3 -c 'import json; print(json.load(open("/root/again.json"))["token_ids"])')" = "$answer" ] || fail "another answer after the target's restart"
systemctl stop mnemo.target
# shellcheck disable=SC2086
for unit in $units; do
  wait_for stopped "$unit" || fail "mnemo.target did not stop $unit again"
done

# 9. The journal of the units is JSON, whichever process prints a line.
# shellcheck disable=SC2086
for unit in $units; do
  journalctl -o cat "_SYSTEMD_UNIT=$unit" >"/root/journal"
  [ -s /root/journal ] || [ "$unit" = mnemod@second.service ] || fail "$unit has no line in the journal"
  python3 -c '
import json
for line in open("/root/journal"):
    assert line.startswith("{"), line
    json.loads(line)' || fail "$unit writes lines that are no JSON"
done
[ -s /var/log/mnemo/second.log ] || fail "mnemod@second has no log"
[ "$(systemctl is-system-running)" != degraded ] || fail "a unit failed: $(systemctl --failed --no-legend)"
echo "all units worked"
