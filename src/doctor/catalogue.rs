//! Everything that `doctor` can object to, as data: one row for each problem, with how it is
//! proved that the check sees it.
//!
//! Rows know nothing of this crate, so that the tests of the whole program read the same table.

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// As it should be.
    Ok,
    /// Worth knowing; nothing has to be done.
    Note,
    /// A view works, with something missing or with a risk.
    Warn,
    /// A start fails, or the guest cannot work with the view.
    Fail,
}

impl Level {
    /// As it is printed.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
        }
    }
}

/// How it is known that a check sees its problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    /// A test makes the problem real and sees it reported.
    Provoked,
    /// A test puts something in the place of what only other hosts have, and sees it reported;
    /// what it puts there.
    StandIn(&'static str),
    /// No test can make it real everywhere; why not.
    NotProvoked(&'static str),
}

/// One row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    /// `group.aspect`; with the level it names the problem.
    pub(crate) check: &'static str,
    pub(crate) level: Level,
    /// Which tests read, and the program does not.
    #[cfg_attr(not(test), allow(dead_code, reason = "only tests ask for the proof"))]
    pub(crate) proof: Proof,
}

macro_rules! problems {
    ($($(#[$doc:meta])* $name:ident: $check:literal, $level:ident, $proof:expr;)+) => {
        /// What may be wrong with a host.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Problem { $($(#[$doc])* $name,)+ }

        impl Problem {
            /// Every problem, in the order of the table.
            #[cfg(test)]
            pub(crate) const ALL: &[Self] = &[$(Self::$name,)+];

            /// Its row.
            pub(crate) const fn row(self) -> Row {
                match self {
                    $(Self::$name => Row {
                        check: $check,
                        level: Level::$level,
                        proof: $proof,
                    },)+
                }
            }
        }
    };
}

use Proof::{NotProvoked, Provoked, StandIn};

/// Reasons that several rows share.
const SETTING: &str = "a file over that of the setting, which is the host's own to change";
const MODULES: &str = "files over those by which the kernel tells of security modules";
const MOUNTS: &str = "a list of mounts that gives a tmpfs this type, which not every kernel has";
const VERSIONS: &str = "a script that prints another version";

problems! {
    /// Root is needed.
    NotRoot: "root", Fail, Provoked;

    /// Root without a capability that a start needs.
    Capabilities: "kernel.capabilities", Fail, Provoked;
    /// Older than what the project is tried on.
    OldKernel: "kernel.version", Warn, Provoked;
    /// No user namespace with every id mapped.
    UserNamespaces: "kernel.user-namespaces", Fail, Provoked;
    /// User namespaces are kept from users; a start is root's, so this does not matter.
    UsersNamespaces: "kernel.user-namespaces-of-users", Note, StandIn(SETTING);
    /// One of the other namespaces cannot be made.
    Namespaces: "kernel.namespaces", Fail, Provoked;
    /// Mounts cannot be made and attached by descriptor.
    MountApi: "kernel.mount-api", Fail, Provoked;
    /// No detached clone of a process's own `/proc/self/fd`.
    OwnDescriptors: "kernel.own-descriptors", Fail, Provoked;
    /// statx does not tell which mount a file is on.
    MountId: "kernel.mount-id", Fail, Provoked;
    /// Capabilities, securebits or no_new_privs cannot be given up for good.
    Privileges: "kernel.privileges", Fail, Provoked;
    /// No seccomp filters.
    Seccomp: "kernel.seccomp", Fail, Provoked;
    /// No Landlock.
    NoLandlock: "kernel.landlock", Warn, Provoked;
    /// A Landlock without the newer rights.
    OldLandlock: "kernel.landlock", Note,
        NotProvoked("takes an older kernel: the ABI is what one system call returns");
    /// No pidfds.
    Pidfd: "kernel.pidfd", Fail, Provoked;
    /// Descriptors cannot be closed as a range.
    CloseRange: "kernel.close-range", Fail, Provoked;

    /// /dev/fuse is not there or does not open.
    FuseDevice: "fuse.device", Fail, Provoked;
    /// The kernel does not list FUSE.
    FuseUnregistered: "fuse.registered", Warn, StandIn("a file over /proc/filesystems");
    /// A FUSE mount is refused, or the kernel does not say hello.
    FuseMount: "fuse.mount", Fail, Provoked;
    /// The protocol is too old.
    OldFuse: "fuse.protocol", Fail,
        NotProvoked("takes an older kernel: the version is the kernel's own greeting");
    /// The kernel cannot read and write files past the mediator.
    NoPassthrough: "fuse.passthrough", Note,
        NotProvoked("takes an older kernel, or one built without: it is the kernel's own greeting");
    /// fusermount3 is not installed.
    NoFusermount: "fuse.fusermount3", Warn, Provoked;
    /// fusermount3 is there without its set-user-id bit.
    PlainFusermount: "fuse.fusermount3", Note, Provoked;

    /// It cannot be told which security modules are active.
    LsmUnknown: "lsm.list", Note, StandIn(MODULES);
    /// AppArmor is active.
    AppArmor: "lsm.apparmor", Note, StandIn(MODULES);
    /// AppArmor confines whoever starts views from here.
    AppArmorConfined: "lsm.apparmor", Warn, StandIn(MODULES);
    /// SELinux is active and only logs.
    Selinux: "lsm.selinux", Note, StandIn(MODULES);
    /// SELinux is enforcing.
    SelinuxEnforcing: "lsm.selinux", Warn, StandIn(MODULES);

    /// Very few open files.
    FewFiles: "limits.files", Warn, Provoked;
    /// Fewer open files than could be used.
    SomeFiles: "limits.files", Note, Provoked;
    /// A client may type into its terminal.
    Tiocsti: "limits.tiocsti", Warn, StandIn(SETTING);
    /// Hard links to other people's files may be made.
    Hardlinks: "limits.protected-hardlinks", Warn, StandIn(SETTING);
    /// Symbolic links in sticky directories are followed, whoever made them.
    Symlinks: "limits.protected-symlinks", Warn, StandIn(SETTING);
    /// Processes of one user may trace each other.
    Ptrace: "limits.ptrace", Note, StandIn(SETTING);

    /// The mediator's user does not exist: the fixed number is used.
    NoMediatorUser: "ids.mediator", Note, Provoked;
    /// The mediator's user is unknown or root.
    BadMediator: "ids.mediator", Fail, Provoked;
    /// Nobody said who the client is.
    NoClient: "ids.client", Note, Provoked;
    /// The client is unknown or root.
    BadClient: "ids.client", Fail, Provoked;
    /// Client and mediator would be the same user.
    SameIds: "ids.distinct", Fail, Provoked;
    /// Other processes run as the mediator's user.
    MediatorNotAlone: "ids.mediator-alone", Warn, Provoked;
    /// The mediator's user lies in a range that is handed to containers.
    MediatorDelegated: "ids.mediator-delegated", Warn, Provoked;
    /// Other processes run as the client's user.
    ClientNotAlone: "ids.client-alone", Note, Provoked;
    /// A group of the client's amounts to root, or is the mediator's.
    ClientGroups: "ids.client-groups", Warn, Provoked;

    /// The policy is missing, has mistakes or is another export's.
    BadPolicy: "export.policy", Fail, Provoked;
    /// What a start refuses as an export.
    Unfit: "export.fit", Fail, Provoked;
    /// The server judges the mediator's user.
    Nfs: "export.network", Fail, StandIn(MOUNTS);
    /// Another file system with a server behind it.
    Network: "export.network", Warn, StandIn(MOUNTS);
    /// The export is itself a FUSE mount.
    Fuse: "export.fuse", Warn, Provoked;
    /// The export lies on overlayfs.
    Overlay: "export.overlay", Note, Provoked;
    /// Mounted read-only although the policy allows changes.
    ReadOnly: "export.read-only", Warn, Provoked;
    /// Set-id files that a guest makes are honoured on the host.
    SetId: "export.set-id", Warn, Provoked;
    /// A file system that takes names without regard to case.
    FoldingKind: "export.folding-kind", Warn, StandIn(MOUNTS);
    /// A directory that takes names without regard to case.
    Folding: "export.case-folding", Warn, Provoked;
    /// Other mounts show the export.
    OtherMounts: "export.other-mounts", Warn, Provoked;
    /// Others than root may rename directories above the export.
    Movable: "export.above", Warn, Provoked;
    /// The client cannot get to the export's path.
    NoWay: "export.way", Warn, Provoked;
    /// The mediator, in its sandbox, cannot list the export.
    Reach: "export.reach", Fail, Provoked;
    /// The mediator, in its sandbox, cannot give files an owner.
    Owners: "export.owners", Fail, Provoked;
    /// No user attributes.
    NoXattr: "export.user-xattr", Warn, Provoked;
    /// POSIX ACLs on the export's root.
    Acl: "export.acl", Note, Provoked;
    /// The export's root belongs to an id outside of the policy's map.
    RootUnmapped: "export.root-owner", Fail, Provoked;
    /// Files inside belong to ids outside of the policy's map.
    Unmapped: "export.unmapped", Warn, Provoked;
    /// Not everything was looked at.
    WalkCut: "export.walk", Note, Provoked;

    /// No QEMU was found.
    NoQemu: "qemu.program", Warn, Provoked;
    /// The QEMU that was named cannot be run.
    BadQemu: "qemu.program", Fail, Provoked;
    /// It does not say which version it is.
    NoVersion: "qemu.version", Warn, Provoked;
    /// Built without 9p.
    No9p: "qemu.9p", Fail, Provoked;
    /// `-sandbox on` does not work.
    NoSandbox: "qemu.sandbox", Warn, Provoked;
    /// A fault that a guest or an attacker can use.
    Fault: "qemu.faults", Warn, StandIn(VERSIONS);
    /// Something that will not work in the guest.
    Limit: "qemu.faults", Note, StandIn(VERSIONS);
    /// It still has the proxy driver.
    Proxy: "qemu.proxy", Note, StandIn(VERSIONS);
    /// The client may not use /dev/kvm.
    Kvm: "qemu.kvm", Note, Provoked;

    /// libvirt does not answer.
    NoLibvirt: "libvirt.daemon", Fail, Provoked;
    /// qemu.conf cannot be read.
    BadQemuConf: "libvirt.settings", Fail, Provoked;
    /// QEMU runs in the host's own mount namespace.
    NoMountNamespaces: "libvirt.namespaces", Fail, Provoked;
    /// Disk images stay whose they are.
    NoOwnership: "libvirt.ownership", Warn, Provoked;
    /// They are not given back.
    OwnerForgotten: "libvirt.remember-owner", Note, Provoked;
    /// libvirt has no hook of ours.
    NoHook: "libvirt.hook", Fail, Provoked;
    /// libvirtd runs since before there was one.
    HookUnknown: "libvirt.hook-known", Warn, Provoked;
    /// Nobody lays views.
    NoService: "libvirt.service", Fail, Provoked;
    /// No link by which an <emulator> could lead to the wrapper.
    NoWrapper: "libvirt.wrapper", Fail, Provoked;
    /// libvirt remembers what an older QEMU could do.
    OldKnowledge: "libvirt.emulator", Warn, Provoked;
    /// AppArmor keeps QEMU from the wrapper.
    LibvirtApparmor: "libvirt.apparmor", Warn, StandIn(MODULES);
    /// SELinux keeps QEMU from views.
    LibvirtSelinux: "libvirt.selinux", Warn, StandIn(MODULES);
    /// A domain's definition and its file differ, or one is not there.
    Drift: "libvirt.domain", Fail, Provoked;
    /// Others run as a domain's user.
    SharedUid: "libvirt.uid", Fail, Provoked;
    /// A domain's user has no account.
    NoAccount: "libvirt.account", Warn, Provoked;
    /// A domain's user cannot reach what its QEMU opens.
    Closed: "libvirt.search", Fail, Provoked;
    /// The service cannot reach a domain's export.
    ServiceClosed: "libvirt.service-search", Fail, Provoked;
    /// Others than root may rename directories above a domain's export.
    ExportMovable: "libvirt.above", Note, Provoked;
    /// Domains whose guests cannot give files owners.
    NotEnabled: "libvirt.enabled", Note, Provoked;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_and_level_name_one_problem() {
        let mut seen = std::collections::BTreeSet::new();
        for row in Problem::ALL.iter().map(|problem| problem.row()) {
            assert!(row.level > Level::Ok, "{row:?}");
            assert!(seen.insert((row.check, row.level)), "twice: {row:?}");
        }
    }

    #[test]
    fn what_is_not_provoked_for_real_has_a_reason() {
        for row in Problem::ALL.iter().map(|problem| problem.row()) {
            if let NotProvoked(why) | StandIn(why) = row.proof {
                assert!(why.len() > 20, "{row:?}");
            }
        }
    }
}
