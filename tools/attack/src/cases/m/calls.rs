//! System calls that nobody needs who serves files, one case each; see [`crate::acts`] for the
//! arguments, which take no effect on the host.

use virtfs_mediator::attack::Wall;

use super::{Prepared, all_but_seccomp, case, everywhere, seccomp_alone};
use crate::case::{Attempt, Case};
use crate::trial::{PRODUCT, PROXY, ROOT_IN_CHROOT, UID, only};

macro_rules! calls {
    ($($id:literal: $what:literal, $stopped_by:literal;)*) => {
        &[$(case(16, $id, $what, $stopped_by, |_| plain($id)),)*]
    };
}

pub(crate) const CASES: &[Case] = calls! {
    "mount": "mount", "user namespace; capabilities; seccomp";
    "umount": "umount2", "user namespace; capabilities; seccomp";
    "fsopen": "fsopen", "user namespace; capabilities; seccomp";
    "pivot-root": "pivot_root", "user namespace; capabilities; seccomp";
    "reboot": "reboot", "user namespace; capabilities; seccomp";
    "settimeofday": "settimeofday", "user namespace; capabilities; seccomp";
    "adjtimex": "adjtimex", "user namespace; capabilities; seccomp";
    "sethostname": "sethostname", "user namespace; capabilities; seccomp";
    "swapon": "swapon", "user namespace; capabilities; seccomp";
    "acct": "acct", "user namespace; capabilities; seccomp";
    "kexec-load": "kexec_load", "user namespace; capabilities; seccomp";
    "init-module": "init_module", "user namespace; capabilities; seccomp";
    "quotactl": "quotactl_fd of another user", "user namespace; capabilities; seccomp";
    "fanotify": "fanotify_init", "user namespace; capabilities; seccomp";
    "add-key": "add_key", "seccomp";
    "keyctl": "keyctl", "seccomp";
    "bpf": "bpf", "seccomp; capabilities";
    "io-uring": "io_uring_setup", "seccomp";
    "userfaultfd": "userfaultfd", "seccomp";
    "perf": "perf_event_open", "seccomp; capabilities";
    "raw-socket": "a raw socket", "seccomp; user namespace; capabilities";
    "packet-socket": "a packet socket", "seccomp; user namespace; capabilities";
    "mknod-char": "mknod of a character device", "user namespace; capabilities; Landlock; seccomp";
    "mknod-block": "mknod of a block device", "user namespace; capabilities; Landlock; seccomp";
    "mknod-zero": "mknod of the device 0:0", "Landlock; seccomp";
    "mlock": "mlock of a page", "limits; seccomp";
    "mmap-exec": "mmap with PROT_EXEC", "seccomp";
    "mprotect-exec": "mprotect with PROT_EXEC", "seccomp";
    "memfd": "memfd_create", "seccomp";
    "dumpable": "prctl(PR_SET_DUMPABLE)", "seccomp";
    "personality": "personality(READ_IMPLIES_EXEC)", "seccomp";
    "fork": "another process", "seccomp";
    "setuid": "setresuid to another user", "capabilities; seccomp";
    "setgid": "setresgid to another group", "capabilities; seccomp";
    "setgroups": "setgroups to root's", "capabilities; seccomp";
    "capset": "capset of CAP_SYS_ADMIN", "capabilities; seccomp";
};

fn plain(act: &str) -> Result<Vec<Attempt>, String> {
    let mut settings = vec![ROOT_IN_CHROOT, UID, PROXY];
    settings.push(only(
        "user namespace alone",
        &[Wall::Root, Wall::UserNamespace],
    ));
    settings.push(only(
        "four capabilities and own ids alone",
        &[Wall::Root, Wall::Ids, Wall::Capabilities],
    ));
    if act.starts_with("mknod") {
        settings.push(only("Landlock alone", &[Wall::Root, Wall::Landlock]));
    }
    if act == "mlock" {
        settings.push(only(
            "limits and capabilities alone",
            &[Wall::Limits, Wall::Capabilities],
        ));
    }
    settings.extend([seccomp_alone(), all_but_seccomp(), PRODUCT]);
    everywhere(&settings, |_| Prepared::new(act))
}
