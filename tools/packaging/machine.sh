# shellcheck shell=bash
# The Debian of tools/packaging/check, as a directory and as a booted system. Sourced.

# What nspawn's own list of system calls lacks and a host has: Landlock, keyrings.
calls="landlock_create_ruleset landlock_add_rule landlock_restrict_self keyctl add_key request_key"
nspawn=(systemd-nspawn --quiet --register=no --keep-unit --private-network --resolv-conf=off --timezone=off
  --link-journal=no --bind=/dev/fuse --system-call-filter="$calls")
leader=

# in_directory COMMAND...: in the root directory, where nothing else runs.
in_directory() { "${nspawn[@]}" --pipe --directory="$root" -- "$@" </dev/null; }

# inside COMMAND...: in the booted system.
inside() { nsenter --target "$leader" --all -- "$@"; }

boot() {
  local pid end=$((SECONDS + 60))
  "${nspawn[@]}" --console=pipe --kill-signal=SIGRTMIN+3 --directory="$root" --boot \
    >"$out/boot.log" 2>&1 </dev/null &
  pid=$!
  until leader=$(pgrep --parent $pid --exact systemd); do
    kill -0 $pid 2>/dev/null && [ $SECONDS -lt $end ] || { cat "$out/boot.log" && return 1; }
    sleep 0.05
  done
  # Not before its bus listens.
  until inside systemctl is-system-running --wait >/dev/null 2>&1 || inside test -S /run/dbus/system_bus_socket; do
    [ $SECONDS -lt $end ] || { cat "$out/boot.log" && return 1; }
    sleep 0.05
  done
  inside systemctl is-system-running --wait >/dev/null || true
  machine=$pid
}

power_off() {
  [ -n "$leader" ] || return 0
  # systemd(1): SIGRTMIN+4 starts poweroff.target.
  kill -s RTMIN+4 "$leader" 2>/dev/null || true
  leader=
  wait "$machine" || true
}
