#!/bin/bash
# boot.sh SCRIPT [SECONDS]: runs SCRIPT as root on a throw-away node with systemd as PID 1, prints what it writes, and ends with its status.
# The node is this machine's root file system under an overlay in memory, in namespaces of its own: nothing of it stays.
#   77   the machine cannot have such a node; the reason stands on standard error
#   124  the script ran longer than SECONDS (120 if not given) and the node was ended
# The script finds the variables MNEMO_* of the caller. Folders named in MNEMO_NODE_PATHS (separated by colons) that are on other file
# systems, or below /tmp and its like, are bound into the node read-only. The rest of the machine's root can be written there, without effect outside.
set -eu

skip() {
  echo "boot.sh: no node can be had here: $*" >&2
  exit 77
}

# Stage 1, on the host: what can be missing.
check_machine() {
  [ "$(id -u)" = 0 ] || skip "it needs root"
  local program
  for program in unshare setpriv pivot_root mount timeout tail pgrep; do
    command -v "$program" >/dev/null || skip "$program is not installed"
  done
  [ -x /lib/systemd/systemd ] || skip "/lib/systemd/systemd is not installed"
  unshare --pid --mount --uts --ipc --net --cgroup --fork true 2>/dev/null || skip "namespaces are not permitted"
  # An overlay cannot be the upper layer of another one everywhere, as in some containers.
  unshare --mount bash -c 'mount --make-rprivate / && mount -t tmpfs tmpfs /mnt && mkdir /mnt/{up,work,root} &&
    mount -t overlay overlay -o lowerdir=/,upperdir=/mnt/up,workdir=/mnt/work /mnt/root' 2>/dev/null ||
    skip "an overlay cannot be mounted over /"
}

# Stage 2, in a mount namespace of its own: holds the node's memory, shows its output and bounds its time.
watch_node() {
  local script=$1 seconds=$2 node status=0
  mount --make-rprivate /
  mount -t tmpfs -o mode=700 tmpfs /mnt
  mkdir /mnt/{up,work,root}
  install -m 755 "$script" /mnt/script
  touch /mnt/output /mnt/console
  setpriv --pdeathsig KILL unshare --pid --mount --uts --ipc --net --cgroup --fork --kill-child "$self" --node &
  node=$!
  if timeout "$seconds" tail -n +1 -s 0.1 --pid="$node" -f /mnt/output; then
    wait "$node" || status=$?
  else
    # The node's first process ends after all others of it, so the wait is over when nothing runs any more.
    kill -KILL "$(pgrep -P "$node")"
    wait "$node" 2>/dev/null || true
    echo "boot.sh: the script took longer than $seconds s; the node was ended. Its console:" >&2
    tail -n 20 /mnt/console >&2
    status=124
  fi
  exit "$status"
}

# The script's variables, for a unit: one NAME="VALUE" a line.
write_environment() {
  local name value
  for name in $(compgen -e MNEMO_ || true); do
    value=${!name//\\/\\\\}
    printf '%s="%s"\n' "$name" "${value//\"/\\\"}"
  done
}

write_units() {
  local units=$1/etc/systemd/system
  # Units of the machine itself do not start in the node.
  rm -f "$units"/*.wants/* "$units/default.target"
  cat > "$units/node-script.service" <<'UNIT'
[Unit]
After=basic.target
SuccessAction=exit
FailureAction=exit
[Service]
Type=oneshot
TimeoutStartSec=infinity
EnvironmentFile=/root/node-environment
Environment=HOME=/root
WorkingDirectory=/root
StandardOutput=append:/root/node-output
StandardError=append:/root/node-output
ExecStart=/bin/bash -c 'ip link set lo up && exec /root/node-script'
UNIT
  printf '[Unit]\nRequires=basic.target node-script.service\nAfter=basic.target\n' > "$units/node.target"
}

make_devices() {
  local dev=$1 name
  for name in null zero full random urandom tty; do cp -a "/dev/$name" "$dev/"; done
  mkdir "$dev/shm" "$dev/pts"
  mount -t tmpfs tmpfs "$dev/shm"
  mount -t devpts -o newinstance,ptmxmode=0666 devpts "$dev/pts"
  # Without ptmx every unit with PrivateDevices= fails with 226/NAMESPACE.
  ln -s pts/ptmx "$dev/ptmx"
  ln -s /proc/self/fd "$dev/fd"
  ln -s /proc/self/fd/0 "$dev/stdin"
  ln -s /proc/self/fd/1 "$dev/stdout"
  ln -s /proc/self/fd/2 "$dev/stderr"
  touch "$dev/console"
  mount --bind /mnt/console "$dev/console"
}

bind_other_file_systems() {
  local root=$1 path
  local -a paths
  IFS=: read -r -a paths <<< "${MNEMO_NODE_PATHS:-}"
  for path in "${paths[@]}"; do
    [ -d "$path" ] || continue
    # The node has a /run, /tmp and /dev of its own, which hide what is there.
    case $path/ in
      /run/* | /tmp/* | /dev/*) ;;
      *) [ "$(stat -c %d "$path")" != "$(stat -c %d /)" ] || continue ;;
    esac
    mkdir -p "$root$path"
    mount --bind "$path" "$root$path"
    mount -o remount,bind,ro "$root$path"
  done
}

# Stage 3, PID 1 of the namespaces: makes the node's root and becomes systemd.
become_node() {
  local root=/mnt/root name
  mount --make-rprivate /
  mount -t overlay overlay -o lowerdir=/,upperdir=/mnt/up,workdir=/mnt/work "$root"
  mount -t proc proc "$root/proc"
  mount -t sysfs sysfs "$root/sys"
  mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
  for name in run tmp dev; do mount -t tmpfs tmpfs "$root/$name"; done
  chmod 1777 "$root/tmp"
  make_devices "$root/dev"
  bind_other_file_systems "$root"
  # A policy that forbids starts is for images; here it would keep packages from starting their units.
  rm -f "$root/usr/sbin/policy-rc.d"
  write_units "$root"
  tr -d - < /proc/sys/kernel/random/uuid > "$root/etc/machine-id"
  hostname node
  cp /mnt/script "$root/root/node-script"
  write_environment > "$root/root/node-environment"
  touch "$root/root/node-output"
  mount --bind /mnt/output "$root/root/node-output"
  mkdir -p "$root/mnt/old"
  cd "$root"
  # Below a chroot systemd cannot make its units' namespaces: every sandboxed unit fails with 226/NAMESPACE.
  pivot_root . mnt/old
  umount -l /mnt/old
  rmdir /mnt/old
  mount --make-rshared /
  exec env -i container=node PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --unit=node.target --log-target=journal --show-status=no </dev/null >/dev/console 2>&1
}

case "${1:-}" in
  --node)
    become_node
    ;;
  --watch)
    self=$2
    watch_node "$3" "$4"
    ;;
  "" | -*)
    echo "usage: boot.sh SCRIPT [SECONDS]" >&2
    exit 2
    ;;
  *)
    check_machine
    self=$(readlink -f "$0")
    script=$(readlink -f "$1")
    [ -f "$script" ] || { echo "boot.sh: $1: no such script" >&2; exit 2; }
    exec unshare --mount "$self" --watch "$self" "$script" "${2:-120}"
    ;;
esac
