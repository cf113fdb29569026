#!/bin/bash
# The life of the packages on a node. MNEMO_PACKAGES holds folders 1 and 2 with two versions, MNEMO_MODEL is a GGUF file.
set -euo pipefail

fail() {
  echo "FAILED: $*"
  systemctl status --no-pager mnemod.service || true
  journalctl --no-pager -u mnemod.service | tail -n 40 || true
  exit 1
}

# Files of the system, without those that dpkg, systemd and others keep for themselves.
files() {
  find /etc /usr /var /opt /srv /home /boot \( -path /var/lib/dpkg -o -path /var/log/journal -o -path /var/lib/systemd -o -path /var/cache \
    -o -path /var/lib/logrotate -o -path /var/tmp -o -path /etc/.pwd.lock \) -prune -o -print | LC_ALL=C sort
}

generate() {
  mnemo generate --wait --connect-timeout 30s --max-tokens "${1:-16}" --temperature 0 "Once upon a time" </dev/null
}

install_version() {
  dpkg "${@:2}" -i "$MNEMO_PACKAGES/$1"/*.deb >/root/dpkg-output 2>&1 || { cat /root/dpkg-output; fail "dpkg -i of version $1"; }
}

is_active() { systemctl is-active --quiet "$1"; }

# The packages' own needs are already on the machine; dpkg, not apt, says so.
files >/root/before

# 1. Installed and not configured: skipped, not failed.
install_version 1
is_active mnemo.target || fail "mnemo.target does not run"
! is_active mnemod.service || fail "mnemod runs without a model"
! systemctl is-failed --quiet mnemod.service || fail "mnemod failed while it is not configured"
[ "$(systemctl show -P Result mnemod.service)" = exec-condition ] || fail "mnemod was not skipped by its condition"
systemctl is-enabled --quiet mnemod.service || fail "mnemod is not enabled"
[ "$(stat -c '%U:%G %a' /var/lib/mnemo/models)" = "mnemo:mnemo 755" ] || fail "the folder of models: $(stat -c '%U:%G %a' /var/lib/mnemo/models)"
[ "$(systemctl is-system-running)" != degraded ] || fail "a unit failed: $(systemctl --failed --no-legend)"

# 2. Configured: it serves.
cp "$MNEMO_MODEL" /var/lib/mnemo/models/model.gguf
chown mnemo:mnemo /var/lib/mnemo/models/model.gguf
sed -i -e 's#^  path: ""#  path: /var/lib/mnemo/models/model.gguf#' -e 's/^  kv_cache_bytes: .*/  kv_cache_bytes: 67108864/' \
  -e 's/^  services: 2/  services: 0/' -e 's/^  placement: .*/  placement: inline/' -e 's/^  count: 2/  count: 1/' -e 's/^  context_tokens: 0/  context_tokens: 512/' \
  -e 's/^  index_bytes: .*/  index_bytes: 67108864/' -e 's#^log:#log:\n  file: /var/log/mnemo/mnemod.log\n  level: debug#' /etc/mnemo/node.yaml
cp /etc/mnemo/node.yaml /root/edited.yaml
systemctl start mnemod.service || fail "mnemod does not start"
answer=$(generate) || fail "no answer"
[ -n "$answer" ] || fail "an empty answer"
for pid in $(cat /sys/fs/cgroup/mnemo.slice/mnemod.service/cgroup.procs); do
  [ "$(stat -c %U "/proc/$pid")" = mnemo ] || fail "process $pid does not run as mnemo"
  grep -q '^CapEff:\s*0*$' "/proc/$pid/status" || fail "process $pid has capabilities"
done

# READY=1 comes when a worker serves, so the first call after a start needs no waiting.
systemctl restart mnemod.service || fail "mnemod does not restart"
mnemo generate --max-tokens 4 "Once" </dev/null >/dev/null || fail "no answer right after READY=1"

# A stopped mnemod misses its watchdog: systemd ends it and starts it again.
mkdir -p /run/systemd/system/mnemod.service.d
printf '[Service]\nWatchdogSec=2\nTimeoutAbortSec=1\n' >/run/systemd/system/mnemod.service.d/quick.conf
systemctl daemon-reload
systemctl restart mnemod.service
sleep 5
[ "$(systemctl show -P NRestarts mnemod.service)" = 0 ] || fail "the watchdog ended a daemon that works"
stopped=$(systemctl show -P MainPID mnemod.service)
kill -STOP "$stopped"
for ((tries = 0; tries < 150; ++tries)); do
  if [ "$(systemctl show -P NRestarts mnemod.service)" != 0 ] && is_active mnemod.service; then break; fi
  sleep 0.1
done
[ "$(systemctl show -P NRestarts mnemod.service)" = 1 ] || fail "a stopped mnemod was not restarted"
[ "$(generate)" = "$answer" ] || fail "another answer after the watchdog"
rm -r /run/systemd/system/mnemod.service.d
systemctl daemon-reload

# A crash of a worker: a report with a backtrace, no core, and mnemod goes on.
worker=$(pgrep -u mnemo -x mnemo-worker)
kill -SEGV "$worker"
for ((tries = 0; tries < 100; ++tries)); do
  [ -e "/proc/$worker" ] || break
  sleep 0.1
done
[ "$(generate)" = "$answer" ] || fail "another answer after a worker's crash"
grep -q '"process":"worker0".*"build_id":"[0-9a-f]*","backtrace":\["' /var/log/mnemo/mnemod.log || fail "no report of the crash"
[ -z "$(find / -xdev -name 'core*' -type f -size +1M -newer /root/edited.yaml -not -path '/proc/*' 2>/dev/null)" ] || fail "a core was left"
# The journal of the unit is JSON, whoever prints a line.
journalctl -o cat _SYSTEMD_UNIT=mnemod.service | python3 -c 'import json, sys; [json.loads(line) for line in sys.stdin if line.strip()]' ||
  fail "lines that are no JSON: $(journalctl -o cat _SYSTEMD_UNIT=mnemod.service | grep -v '^{' | head -n 3)"

# 3. logrotate under load: the log's lines before, between and after are whole, in order, each once. The log begins anew, with one request.
systemctl stop mnemod.service
rm /var/log/mnemo/*
systemctl start mnemod.service || fail "mnemod does not start for the rotation"
[ "$(generate)" = "$answer" ] || fail "another answer before the rotation"
while :; do
  generate 4 >/dev/null 2>&1
  echo answered >>/root/requests
done &
load=$!
for turn in 1 2 3; do
  sleep 1
  logrotate -f /etc/logrotate.d/mnemo || fail "logrotate, turn $turn"
done
sleep 1
kill "$load"
wait "$load" 2>/dev/null || true
systemctl stop mnemod.service
[ "$(find /var/log/mnemo -name 'mnemod.log*' | wc -l)" = 4 ] || fail "rotated files: $(ls /var/log/mnemo)"
python3 - <<'PYTHON' || fail "lines were lost or doubled"
import collections, glob, gzip, json, sys

names = sorted(glob.glob("/var/log/mnemo/mnemod.log*"), key=lambda name: -int((name.removesuffix(".gz").split(".log")[1] or ".0")[1:]))
lines = []
counts = []
for name in names:
    with (gzip.open if name.endswith(".gz") else open)(name, "rt") as file:
        text = file.read()
    assert text.endswith("\n") or not text, f"{name} ends in the middle of a line"
    counts.append(len(text.splitlines()))
    lines += [json.loads(line) for line in text.splitlines()]
assert all(counts), f"a file without lines: {dict(zip(names, counts))}"
events = collections.defaultdict(collections.Counter)
for line in lines:
    if "request_id" in line:
        events[line["request_id"]][line["message"].split(" ")[0] + line["process"]] += 1
assert len(events) > 20, f"only {len(events)} requests are in the log"
kinds = collections.Counter(tuple(sorted(found.items())) for found in events.values())
# Each request writes the same lines. One that was cut off at the end of the load may lack some.
usual, number = kinds.most_common(1)[0]
# One request came before the load, and the last of the load was not waited for.
sent = len(open("/root/requests").readlines()) + 1
assert sent <= len(events) <= sent + 1, f"{sent} requests were answered, {len(events)} are in the log"
print(f"{len(lines)} lines in {counts}, {len(events)} requests, {number} with {dict(usual)}")
assert number >= len(events) - 1, kinds
PYTHON

# 4. Upgrade: the edited conffile stays, and the running service is the new one.
systemctl start mnemod.service || fail "mnemod does not start again"
before=$(systemctl show -P MainPID mnemod.service)
install_version 2 --force-confdef --force-confold
cmp /root/edited.yaml /etc/mnemo/node.yaml || fail "the edited conffile was replaced"
is_active mnemod.service || fail "mnemod does not run after the upgrade"
[ "$(systemctl show -P MainPID mnemod.service)" != "$before" ] || fail "mnemod was not restarted by the upgrade"
[ "$(generate)" = "$answer" ] || fail "another answer after the upgrade"
[ "$(dpkg-query -W -f '${Version}' mnemo)" = "$(dpkg-deb -f "$MNEMO_PACKAGES"/2/mnemo_*.deb Version)" ] || fail "the version after the upgrade"
dpkg --verify mnemo | grep -v node.yaml && fail "files differ from the package"

# A unit that the administrator disabled stays so.
systemctl disable --quiet mnemod.service 2>/dev/null
install_version 2 --force-confdef --force-confold
! systemctl is-enabled --quiet mnemod.service || fail "the upgrade enabled a disabled unit"
systemctl enable --quiet mnemod.service 2>/dev/null

# 5. Python client of the package.
/usr/bin/python3 - <<'PYTHON' || fail "the Python client"
import mnemo

with mnemo.Client("127.0.0.1:50051") as client:
    text = "".join(event.text for event in client.stream(prompt="Once upon a time", max_tokens=4, temperature=0) if isinstance(event, mnemo.Delta))
assert text, "no text"
PYTHON

# 6. Remove: stopped, configuration and models are there.
dpkg -r mnemo mnemo-client mnemo-dev mnemo-monitoring >/root/dpkg-output 2>&1 || { cat /root/dpkg-output; fail "dpkg -r"; }
! pgrep -u mnemo >/dev/null || fail "processes of mnemo are left: $(pgrep -a -u mnemo)"
[ ! -e /usr/bin/mnemod ] || fail "mnemod is still there"
cmp /root/edited.yaml /etc/mnemo/node.yaml || fail "removal took the configuration"
[ -f /var/lib/mnemo/models/model.gguf ] || fail "removal took the model"

# 7. Purge: nothing is left but the model, its folder and the users.
dpkg -P mnemo mnemo-client mnemo-dev mnemo-monitoring >/root/dpkg-output 2>&1 || { cat /root/dpkg-output; fail "dpkg -P"; }
grep -q 'models in /var/lib/mnemo/models are kept' /root/dpkg-output || fail "purge does not say that models are kept"
files >/root/after
left=$(LC_ALL=C comm -13 /root/before /root/after | grep -vxE '/etc/(passwd|group|shadow|gshadow)-' || true)
[ "$left" = "$(printf '%s\n' /var/lib/mnemo /var/lib/mnemo/models /var/lib/mnemo/models/model.gguf)" ] || fail "left after purge: $left"
getent passwd mnemo >/dev/null || fail "the user who owns the models is gone"
[ -z "$(systemctl list-unit-files --no-legend 'mnemo*')" ] || fail "units are left: $(systemctl list-unit-files --no-legend 'mnemo*')"
echo purged
