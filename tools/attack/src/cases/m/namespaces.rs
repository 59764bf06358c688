//! New namespaces, which open kernel code that only root could reach before.

use virtfs_mediator::attack::Wall;

use super::{Prepared, all_but_seccomp, case, everywhere, seccomp_alone};
use crate::case::{Attempt, Case};
use crate::task::Plant;
use crate::trial::{PRODUCT, PROXY, ROOT, ROOT_IN_CHROOT, Setting, UID, only, without};

pub(crate) const CASES: &[Case] = &[
    case(
        13,
        "unshare-user",
        "unshare of a user namespace",
        "seccomp; no namespace can be made in the mediator's",
        |_| user("unshare-user"),
    ),
    case(
        13,
        "clone-user",
        "clone into a user namespace",
        "seccomp; no namespace can be made in the mediator's",
        |_| user("clone-user"),
    ),
    case(
        13,
        "clone3-user",
        "clone3 into a user namespace",
        "seccomp (ENOSYS); no namespace can be made in the mediator's",
        |_| user("clone3-user"),
    ),
    case(
        13,
        "unshare-mount",
        "unshare of a mount namespace",
        "user namespace; seccomp; capabilities",
        |_| everywhere(&root_only(), |_| Prepared::new("unshare-mount")),
    ),
    case(
        13,
        "setns",
        "setns to a namespace by a leaked descriptor",
        "user namespace; seccomp; close_range",
        |_| {
            everywhere(&root_only(), |_| {
                let mut prepared = Prepared::new("setns")?;
                prepared.task.plant = Some(Plant::Open("/proc/self/ns/uts".into()));
                Ok(prepared)
            })
        },
    ),
];

/// In a chroot no user namespace can be made (user_namespaces(7)), so that the weaker arrangements
/// are stopped too; where the root directory is the host's, or pivoted, nothing stops it.
fn user(act: &'static str) -> Result<Vec<Attempt>, String> {
    let settings = [
        ROOT_IN_CHROOT,
        UID,
        PROXY,
        ROOT,
        only("user namespace alone", &[Wall::UserNamespace]),
        only(
            "namespace limits alone",
            &[Wall::UserNamespace, Wall::NamespaceLimits],
        ),
        seccomp_alone(),
        without(
            "all walls but seccomp and namespace limits",
            &[Wall::Seccomp, Wall::NamespaceLimits],
        ),
        all_but_seccomp(),
        PRODUCT,
    ];
    everywhere(&settings, |_| Prepared::new(act))
}

fn root_only() -> [Setting; 7] {
    [
        ROOT_IN_CHROOT,
        UID,
        PROXY,
        without(
            "all walls but seccomp, close_range and self-test",
            &[Wall::Seccomp, Wall::Descriptors, Wall::DescriptorTest],
        ),
        seccomp_alone(),
        all_but_seccomp(),
        PRODUCT,
    ]
}
