# shellcheck shell=bash
# What runs as process 1 of a lab (src/lib.rs): `unshare --mount --pid --net ... bash lab.sh`.
#
# Everything that libvirt or the program writes goes to overlays on a tmpfs, in a mount namespace
# that nobody else has, and every process that is started ends with this one: it ends when
# whoever made it closes its standard input, or is gone.
set -euo pipefail
scratch=$1 program=$2 wrapper=$3 hook=$4

mount --make-rprivate /
mount -t proc proc /proc
mount -t tmpfs -o mode=755 virtfs-lab "$scratch"
overlay() { # /DIR
  local layers=$scratch/layers$1
  mkdir -p "$layers/upper" "$layers/work"
  mount -t overlay -o "lowerdir=$1,upperdir=$layers/upper,workdir=$layers/work" virtfs-lab "$1"
}
overlay /etc
overlay /usr

# As the package does it.
rm -rf /etc/virtfs-mediator /etc/libvirt/hooks /usr/lib/virtfs-mediator
mkdir -p /etc/virtfs-mediator /etc/libvirt/hooks/qemu.d /usr/lib/virtfs-mediator/emulators
chmod 755 /etc/virtfs-mediator
: >/usr/bin/virtfs-mediator
: >/usr/bin/virtfs-mediator-qemu
mount --bind "$program" /usr/bin/virtfs-mediator
mount --bind "$wrapper" /usr/bin/virtfs-mediator-qemu
ln -s /usr/bin/virtfs-mediator-qemu /usr/lib/virtfs-mediator/emulators/qemu-system-x86_64
install -m 755 "$hook" /etc/libvirt/hooks/qemu.d/virtfs-mediator

overlay /var
rm -rf /etc/libvirt/qemu /var/log/libvirt /var/lib/virtfs-mediator
# Files of an earlier or a real libvirtd: no guest, no network starts by itself.
rm -rf /var/lib/libvirt/qemu/* /var/cache/libvirt
mkdir -p /var/log/libvirt /var/cache/libvirt
mount -t tmpfs -o mode=755 virtfs-lab /run
mkdir -m 1777 /run/lock
# libvirtd would try it for 48 s where it is there and does not work; and what it could open, such as
# /dev/null, would have it ask all emulators again at each look.
if [ -e /dev/kvm ]; then
  : >/run/no-kvm
  mount --bind /run/no-kvm /dev/kvm
  mount -o remount,bind,ro /dev/kvm
fi
# As systemd leaves it: what is mounted here would reach every namespace made from this one.
mount --make-rshared /

cat >/etc/libvirt/libvirtd.conf <<'END'
auth_unix_rw = "none"
unix_sock_rw_perms = "0700"
log_outputs = "3:file:/var/log/libvirt/libvirtd.log"
END

echo ready
while read -r _; do :; done
