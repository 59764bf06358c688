# shellcheck shell=bash
# Stock libvirt under systemd, on the installed package. Sourced by tools/packaging/check.

try_libvirt() {
  try "libvirt: install it (from the mirror)" libvirt_is_installed
  boot || die "the Debian in $root does not boot"
  try "libvirt: a machine starts on its view" domain_starts
  try "libvirt: the service restarts, crashes; the machine does not see it" service_may_end
  try "libvirt: an upgrade, a removal leave the machine alone" upgrade_leaves_domain
  try "libvirt: disable puts the domain back" domain_is_put_back
  try "libvirt: other domains start, with the package and without" other_domain_starts
  power_off
}

# Nothing has our name any more, neither files nor users; libvirt's own files change with each start, and man
# keeps pages. (QEMU has a virtfs-proxy-helper.)
nothing_of_ours() {
  local left
  left=$(
    cd "$root"
    find . -xdev \( -path ./proc -o -path ./sys -o -path ./dev -o -path ./run -o -path ./tmp \) -prune -o \
      -name '*virtfs-*' ! -name 'virtfs-proxy-helper*' -print |
      { grep -vE '^\./(root|var/log|var/cache/man|var/lib/(dpkg|systemd))/' || true; }
    grep -H virtfs etc/passwd etc/group etc/shadow etc/gshadow || true
  )
  [ -z "$left" ] || { echo "$left" && return 1; }
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

define() { # NAME DEVICES
  cat >"$root/root/$1.xml" <<END
<domain type='qemu'><name>$1</name><memory unit='MiB'>64</memory>
<os><type arch='x86_64' machine='pc'>hvm</type></os>
<devices><emulator>/usr/bin/qemu-system-x86_64</emulator>$2</devices></domain>
END
  inside virsh define "/root/$1.xml"
}

domain_starts() {
  mkdir -p "$root/srv/web"
  define web "<filesystem type='mount' accessmode='passthrough'><source dir='/srv/web'/><target dir='share'/></filesystem>"
  inside virsh dumpxml --inactive web >"$out/web.xml"
  inside virtfs-mediator libvirt enable web --yes
  inside virsh start web
  says web-share inside virtfs-mediator list
  says "fuse.virtfs-mediator" inside sh -c 'cat "/proc/$(cat /run/libvirt/qemu/web.pid)/mountinfo"'
  fails_inside grep fuse.virtfs-mediator /proc/1/mountinfo
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
  # Removed by mistake, too, and installed again.
  says "domain web still needs this package" inside dpkg --remove virtfs-mediator
  [ "$(inside virsh domstate web)" = running ]
  says "fuse.virtfs-mediator" inside sh -c 'cat "/proc/$(cat /run/libvirt/qemu/web.pid)/mountinfo"'
  inside dpkg -i /root/virtfs-mediator.deb
  runs
  inside virsh destroy web
  views() { inside virtfs-mediator list | grep web-share; }
  soon not views
  inside virsh start web
  inside virsh destroy web
}

domain_is_put_back() {
  inside virtfs-mediator libvirt disable web --yes
  inside virsh dumpxml --inactive web | diff "$out/web.xml" -
  rm "$out/web.xml"
  fails_inside getent passwd virtfs-web
  inside virsh undefine web
}

other_domain_starts() {
  define other ""
  inside virsh start other
  inside virsh destroy other
  # Removed and not purged: the hook, a configuration file, stays.
  inside dpkg --remove virtfs-mediator
  [ -e "$root/etc/libvirt/hooks/qemu.d/virtfs-mediator" ]
  inside virsh start other
  inside virsh destroy other
  inside dpkg --purge virtfs-mediator
  [ ! -e "$root/etc/libvirt/hooks/qemu.d/virtfs-mediator" ]
  inside virsh undefine other
  # Nothing is left of it, and of a domain that was enabled.
  nothing_of_ours
  runtime_is_clean
}
