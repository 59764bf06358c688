# shellcheck shell=bash
# The units of the package, under systemd as pid 1. Sourced by tools/packaging/check.

try_units() {
  try "units: systemd-analyze verify" units_verify
  try "units: the system is up, the socket listens" system_is_up
  try "units: a view starts, tells so, serves" view_starts
  try "units: a view is reloaded" view_is_reloaded
  try "units: a view whose mediator dies comes back" view_comes_back mediator
  try "units: a view whose launcher dies comes back" view_comes_back launcher
  try "units: a view takes options from NAME.env" view_takes_options
  try "units: a policy with a mistake is told once" mistake_is_told
  try "units: a virtual machine" machine_runs
  try "units: removal leaves what runs alone" removal_leaves_what_runs
}

units_verify() {
  local told
  told=$(inside systemd-analyze verify virtfs-mediator@web.service virtfs-mediator-vm@web.service \
    virtfs-mediator.socket virtfs-mediator.service 2>&1)
  [ -z "$told" ] || { echo "$told" && return 1; }
}

system_is_up() {
  local state
  state=$(inside systemctl is-system-running) || true
  [ "$state" = running ] || { inside systemctl --failed --no-pager && return 1; }
  says enabled inside systemctl is-enabled virtfs-mediator.socket
  says active inside systemctl is-active virtfs-mediator.socket
  [ "$(inside stat -c '%U %a %F' /run/virtfs-mediator-attach.sock)" = "root 666 socket" ]
}

property() { inside systemctl show --property="$2" --value "$1"; }

view_starts() {
  mkdir -p "$root/srv/web"
  chown 61234:61234 "$root/srv/web"
  cat >"$root/etc/virtfs-mediator/web.toml" <<'END'
export = "/srv/web"
client = { user = 61234 }
default = "allow"
END
  inside systemctl start virtfs-mediator@web
  [ "$(property virtfs-mediator@web StatusText)" = "serving web (/srv/web) for 61234:61234" ]
  says "active (running)" inside systemctl status --no-pager virtfs-mediator@web
  # Every wall stands under the unit's own.
  local walls
  walls=$(inside virtfs-mediator status web)
  not grep -E 'DOWN|unknown' <<<"$walls"
  inside virtfs-mediator enter web -- sh -c 'echo a >/srv/web/a && chown 1:2 /srv/web/a'
  [ "$(stat -c %u:%g "$root/srv/web/a")" = 1:2 ]
  # On the host of the service, nothing is mounted.
  fails_inside grep -q fuse.virtfs-mediator /proc/1/mountinfo
}

view_is_reloaded() {
  sed -i 's/^default.*/&\nreadonly = true/' "$root/etc/virtfs-mediator/web.toml"
  inside systemctl reload virtfs-mediator@web
  refuses 1 "Read-only file system" inside virtfs-mediator enter web -- touch /srv/web/b
  # A mistake changes nothing.
  echo 'nonsense = 1' >>"$root/etc/virtfs-mediator/web.toml"
  fails_inside systemctl reload virtfs-mediator@web
  says "web.toml:5:1: unknown key" inside journalctl --no-pager -u virtfs-mediator@web
  says active inside systemctl is-active virtfs-mediator@web
  sed -i '$d' "$root/etc/virtfs-mediator/web.toml"
  sed -i '/readonly/d' "$root/etc/virtfs-mediator/web.toml"
  inside systemctl reload virtfs-mediator@web
  inside virtfs-mediator enter web -- touch /srv/web/b
}

# The one kind of process that has these four capabilities.
mediators() { inside sh -c 'grep -l "^CapEff:.000000000000001b" /proc/[0-9]*/status' | cut -d/ -f3; }

# Processes end while they are looked at: grep's own status says nothing.
no_mediators() {
  inside true
  local found
  found=$(mediators || true)
  [ -z "$found" ]
}

process_of() {
  if [ "$1" = launcher ]; then
    property virtfs-mediator@web MainPID
  else
    mediators
  fi
}

view_comes_back() {
  local before pid
  before=$(property virtfs-mediator@web NRestarts)
  pid=$(process_of "$1")
  [[ $pid =~ ^[0-9]+$ ]]
  inside sh -c "kill -9 $pid"
  restarted() { [ "$(property virtfs-mediator@web NRestarts)" -gt "$before" ]; }
  soon restarted
  soon inside systemctl is-active virtfs-mediator@web
  inside virtfs-mediator enter web -- touch "/srv/web/after-$1"
  [ "$1" != mediator ] ||
    says "view web: its mediator ended (signal 9)" inside journalctl --no-pager -u virtfs-mediator@web
}

view_takes_options() {
  echo 'OPTIONS=--data mediated --audit journald --require-confinement' >"$root/etc/virtfs-mediator/web.env"
  printf '[[rule]]\npath = "/secret"\naction = "deny"\n' >>"$root/etc/virtfs-mediator/web.toml"
  inside systemctl restart virtfs-mediator@web
  refuses 1 "Permission denied" inside virtfs-mediator enter web -- touch /srv/web/secret
  soon says VIRTFS_PATH=/secret inside journalctl --no-pager --output=export VIRTFS_VIEW=web
  says "asked: mediated" inside virtfs-mediator status web
  inside systemctl stop virtfs-mediator@web
  [ "$(property virtfs-mediator@web Result)" = success ]
  empty_inside /run/virtfs-mediator
  rm "$root/etc/virtfs-mediator/web.env"
}

mistake_is_told() {
  echo 'default = "allow"' >"$root/etc/virtfs-mediator/bad.toml"
  fails_inside systemctl start virtfs-mediator@bad
  says "names no export" property virtfs-mediator@bad StatusText
  [ "$(property virtfs-mediator@bad ExecMainStatus)" = 78 ]
  [ "$(property virtfs-mediator@bad NRestarts)" = 0 ]
  inside systemctl reset-failed virtfs-mediator@bad
  rm "$root/etc/virtfs-mediator/bad.toml"
}

# A stock QEMU whose processor stands still: it opens its share and waits.
machine_runs() {
  local qemu
  cat >"$root/etc/virtfs-mediator/vm/web.env" <<'END'
CLIENT=61234
EXPORT=/srv/web=/etc/virtfs-mediator/web.toml
QEMU=qemu-system-x86_64 -S -accel tcg -display none -virtfs local,path=/srv/web,mount_tag=share,security_model=passthrough
END
  inside systemctl start virtfs-mediator-vm@web
  says "serving web (/srv/web) for 61234:61234" property virtfs-mediator-vm@web StatusText
  qemu() { inside sh -c 'grep -l "^qemu-system" /proc/[0-9]*/comm' | cut -d/ -f3; }
  soon qemu
  qemu=$(qemu)
  says "0000000000000000" inside sed -n 's/^CapEff://p' "/proc/$qemu/status"
  fails_inside grep -z NOTIFY_SOCKET "/proc/$qemu/environ"
  inside systemctl stop virtfs-mediator-vm@web
  [ "$(property virtfs-mediator-vm@web Result)" = success ]
  not qemu
}

removal_leaves_what_runs() {
  inside systemctl start virtfs-mediator@web
  says "view web still runs" inside dpkg --remove virtfs-mediator
  [ "$(inside systemctl is-active virtfs-mediator.socket)" != active ]
  [[ $(mediators) =~ ^[0-9]+$ ]]
  # Its unit is known as long as it runs.
  inside systemctl stop virtfs-mediator@web
  no_mediators
  empty_inside /run/virtfs-mediator
  rm -r "$root"/etc/virtfs-mediator/web.toml "$root"/etc/virtfs-mediator/vm/web.env
}
