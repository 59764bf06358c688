# shellcheck shell=bash
# Stock libvirt under systemd, on the installed package. Sourced by tools/packaging/check.

try_libvirt() {
  try "libvirt: install it (from the mirror)" libvirt_is_installed
  boot || die "the Debian in $root does not boot"
  try "libvirt: a machine starts on its view" domain_starts
  try "libvirt: the service restarts, crashes; the machine does not see it" service_may_end
  try "libvirt: an upgrade leaves the machine alone" upgrade_leaves_domain
  try "libvirt: other domains start, with the package and without" other_domain_starts
  power_off
}

libvirt_is_installed() {
  # The one step with a network.
  systemd-nspawn --quiet --register=no --keep-unit --pipe --resolv-conf=copy-host --directory="$root" -- \
    sh -c 'apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -yq --no-install-recommends \
      libvirt-daemon-system libvirt-clients' </dev/null
  # Here, cgroups cannot be made (nspawn on a host with version 1).
  echo 'cgroup_controllers = [ ]' >>"$root/etc/libvirt/qemu.conf"
  in_directory dpkg -i /root/virtfs-mediator.deb
}

define() { # NAME EMULATOR DEVICES REST
  cat >"$root/root/$1.xml" <<END
<domain type='qemu'><name>$1</name><uuid>4dea22b3-1d52-d8f3-2516-782e98ab3fa0</uuid>
<memory unit='MiB'>64</memory><os><type arch='x86_64' machine='pc'>hvm</type></os>
<devices><emulator>$2</emulator>$3</devices>$4</domain>
END
  inside virsh define "/root/$1.xml"
}

domain_starts() {
  mkdir -p "$root/srv/web" "$root/etc/virtfs-mediator/libvirt"
  cat >"$root/etc/virtfs-mediator/libvirt/web.toml" <<'END'
domain = "web"
uuid = "4dea22b3-1d52-d8f3-2516-782e98ab3fa0"
emulator = "/usr/bin/qemu-system-x86_64"
client = { user = 2000001001, group = 2000001001 }
[[view]]
name = "web-share"
export = "/srv/web"
END
  # The domain's own user must reach libvirt's directory of it.
  chmod o+x "$root/var/lib/libvirt/qemu"
  define web /usr/lib/virtfs-mediator/emulators/qemu-system-x86_64 \
    "<filesystem type='mount' accessmode='passthrough'><source dir='/srv/web'/><target dir='share'/></filesystem>" \
    "<seclabel type='static' model='dac' relabel='yes'><label>+2000001001:+2000001001</label></seclabel>"
  inside virsh start web
  says web-share inside virtfs-mediator list
  says "fuse.virtfs-mediator" inside sh -c 'cat "/proc/$(cat /run/libvirt/qemu/web.pid)/mountinfo"'
  not inside grep fuse.virtfs-mediator /proc/1/mountinfo
}

runs() {
  [ "$(inside virsh domstate web)" = running ]
  says web-share inside virtfs-mediator list
}

service_may_end() {
  inside systemctl restart virtfs-mediator
  runs
  inside sh -c 'kill -9 "$(systemctl show -P MainPID virtfs-mediator)"'
  crashed() { [ "$(property virtfs-mediator NRestarts)" = 1 ] && inside systemctl is-active virtfs-mediator; }
  soon crashed
  runs
}

upgrade_leaves_domain() {
  inside dpkg -i /root/virtfs-mediator.deb
  runs
  inside virsh destroy web
  views() { inside virtfs-mediator list | grep web-share; }
  soon not views
  inside virsh start web
  inside virsh destroy web
  inside virsh undefine web
  rm "$root/etc/virtfs-mediator/libvirt/web.toml"
}

other_domain_starts() {
  define other /usr/bin/qemu-system-x86_64 "" ""
  inside virsh start other
  inside virsh destroy other
  # Removed and not purged: the hook, a configuration file, stays.
  inside dpkg --remove virtfs-mediator
  [ -e "$root/etc/libvirt/hooks/qemu.d/virtfs-mediator" ]
  inside virsh start other
  inside virsh destroy other
  inside dpkg --purge virtfs-mediator
  not find "$root/etc/libvirt/hooks" -name 'virtfs*' | grep .
}
