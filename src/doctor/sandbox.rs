//! The mediator's arrangement, as far as tries need it: every id mapped in a child user namespace,
//! the mediator's ids, its four capabilities; and, for an export, its own root directory.

use std::os::fd::OwnedFd;
use std::path::Path;

use nix::sched::{CloneFlags, unshare};
use rustix::fs::{CWD, Mode, OFlags};
use serde::Serialize;
use serde::de::DeserializeOwned;
use virtfs_mediator_core::policy::Policy;

use crate::doctor::child;
use crate::error::{Class, Error, Result};
use crate::identity::Ids;
use crate::launch::mediator::Maps;
use crate::launch::sandbox::take_ids;
use crate::launch::{namespace, walls};
use crate::pipes::{await_byte, pipe};

/// Runs `act` as a mediator would, without an export.
pub(super) fn run<T: Serialize + DeserializeOwned>(
    ids: &Ids,
    act: impl FnOnce() -> Result<T>,
) -> Result<T> {
    arranged(ids, || Ok(()), |()| act())
}

/// Runs `act` as a mediator would, its root directory being the export, which `act` is handed.
pub(super) fn run_in<T: Serialize + DeserializeOwned>(
    ids: &Ids,
    export: &Path,
    act: impl FnOnce(OwnedFd) -> Result<T>,
) -> Result<T> {
    let enter = || {
        namespace::own_mounts()?;
        let tree = namespace::clone_export(&namespace::open_plain(export)?, false, false)?;
        namespace::pivot_onto(&tree)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat(CWD, "/", flags, Mode::empty()).map_err(|errno| step("open(/)", errno))
    };
    arranged(ids, enter, act)
}

fn arranged<R, T: Serialize + DeserializeOwned>(
    ids: &Ids,
    before: impl FnOnce() -> Result<R>,
    act: impl FnOnce(R) -> Result<T>,
) -> Result<T> {
    let (ask, asked) = pipe()?;
    let (answer, answered) = pipe()?;
    let maps = Maps::of(&Policy::parity(), ids)?;
    let proc = namespace::open_plain(Path::new("/proc"))?;
    child::run_beside(
        0,
        move |_pipe| {
            let value = before()?;
            unshare(CloneFlags::CLONE_NEWUSER).map_err(|errno| {
                step("unshare(CLONE_NEWUSER)", errno)
                    .cure("allow user namespaces: sysctl user.max_user_namespaces must not be 0")
            })?;
            nix::unistd::write(&asked, b"u").map_err(|errno| step("write(pipe)", errno))?;
            await_byte(&answer).map_err(|why| step("mapping ids", why))?;
            take_ids(ids)?;
            walls::reduce_to(walls::MEDIATOR)?;
            act(value)
        },
        move |child| {
            if await_byte(&ask).is_err() {
                // The child says itself what it could not do.
                return Ok(());
            }
            maps.write(&proc, child.as_raw()).map_err(|error| {
                error
                    .cure("start from the host's first user namespace, not from within a container")
            })?;
            nix::unistd::write(&answered, b"m")
                .map(|_one| ())
                .map_err(|errno| step("write(pipe)", errno))
        },
    )
    .result()
}

fn step(call: &str, why: impl std::fmt::Display) -> Error {
    Error::step(Class::Confinement, call, why)
}
