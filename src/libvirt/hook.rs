//! What libvirt calls before a domain starts and after it has ended (hooks(5) of libvirt, `qemu`).
//!
//! It never calls back: libvirtd holds the domain meanwhile, and would wait for us as we for it. What
//! it prints on stderr before it fails is what virsh shows.

use std::ffi::OsStr;
use std::io::Read as _;
use std::os::fd::{AsFd as _, AsRawFd as _};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, send, setsockopt, socket,
    sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike as _};

use crate::error::{Class, Error, Result};
use crate::libvirt::armed;
use crate::libvirt::domain_file::{self, DIRECTORY, DomainFile, View};
use crate::libvirt::domain_xml::DomainXml;
use crate::libvirt::qemu_conf::QemuConf;
use crate::plan;
use crate::serve::PING;
use crate::serve::protocol::{SOCKET, YES};

/// More than libvirt ever writes.
const LONGEST: u64 = 16 * 1024 * 1024;
/// How long the service may take to say that it is there; systemd may have to start it.
const SERVICE_MS: u16 = 10_000;

/// Judges one call.
///
/// # Errors
///
/// Configuration, mount: why the domain must not start.
pub(crate) fn hook(name: &OsStr, operation: &OsStr, suboperation: &OsStr) -> Result<()> {
    match (operation.to_str(), suboperation.to_str()) {
        (Some("prepare"), Some("begin")) => {
            prepare(name, &read_xml()?).map_err(|error| about(name, &error))
        }
        (Some("release"), Some("end")) => release(name).map_err(|error| about(name, &error)),
        _ => Ok(()),
    }
}

/// Lets a domain of ours attach if all that its views rest on is so; other domains pass.
fn prepare(name: &OsStr, text: &str) -> Result<()> {
    let checked = name
        .to_str()
        .map_or_else(|| domain_file::checked_name("?"), domain_file::checked_name);
    let xml = match DomainXml::parse(text) {
        Ok(xml) => xml,
        // Not ours to judge, unless it is one of ours.
        Err(error) if text.contains("virtfs-mediator") || has_file(&checked) => return Err(error),
        Err(_) => return Ok(()),
    };
    let file = match checked {
        Ok(name) => DomainFile::read(name)?,
        Err(error) if xml.is_ours() => return Err(error),
        Err(_) => return Ok(()),
    };
    match file {
        None if xml.is_ours() => Err(config(
            format!(
                "its <emulator> is virtfs-mediator's, but there is no {DIRECTORY}/{}.toml",
                name.display()
            ),
            "`virtfs-mediator libvirt enable` writes it",
        )),
        None => Ok(()),
        Some(file) => {
            plan::require_root()?;
            agree(&file, &xml)?;
            refuse_shared_client(&file)?;
            await_service()?;
            armed::arm(&file)
        }
    }
}

fn has_file(checked: &Result<&str>) -> bool {
    checked
        .as_ref()
        .is_ok_and(|name| domain_file::path_of(name).is_ok_and(|path| path.exists()))
}

/// Every domain's end takes back what its start was given.
fn release(name: &OsStr) -> Result<()> {
    match name.to_str().map(domain_file::checked_name) {
        Some(Ok(name)) => armed::disarm(name).map(|_was_armed| ()),
        Some(Err(_)) | None => Ok(()),
    }
}

/// The domain's file and its XML must say the same.
fn agree(file: &DomainFile, xml: &DomainXml) -> Result<()> {
    let path = domain_file::path_of(&file.domain)?;
    let path = path.display();
    if xml.name != file.domain || xml.uuid != file.uuid {
        return Err(config(
            format!(
                "{path} is about {} ({}), the XML about {} ({})",
                file.domain,
                file.uuid,
                xml.name.escape_debug(),
                xml.uuid.escape_debug()
            ),
            "is it left of an earlier domain of that name? `virtfs-mediator libvirt disable` removes it",
        ));
    }
    if !xml.is_ours() {
        return Err(config(
            format!(
                "there is {path}, but <emulator> is not virtfs-mediator's: it would have no views"
            ),
            "`virtfs-mediator libvirt enable` sets it; without views, remove the file (`... disable`)",
        ));
    }
    xml.refuse_managed_reservations()?;
    let (wanted, found) = (file.client.ids()?, xml.client()?);
    if (wanted.uid, wanted.gid) != (found.uid, found.gid) {
        return Err(config(
            format!(
                "its DAC label says {}:{}, {path} says {}:{}",
                found.uid, found.gid, wanted.uid, wanted.gid
            ),
            enable(file),
        ));
    }
    let unviewed = xml
        .shares
        .iter()
        .filter(|share| share.passthrough)
        .find(|share| file.views.iter().all(|view| view.export != share.source));
    if let Some(share) = unviewed {
        return Err(config(
            format!(
                "its <filesystem> of {} has no view in {path}",
                share.source.display()
            ),
            enable(file),
        ));
    }
    let unshared = |view: &&View| {
        let mut shares = xml.shares.iter().filter(|share| share.passthrough);
        shares.all(|share| share.source != view.export)
    };
    let unused = file.views.iter().find(unshared);
    if let Some(view) = unused {
        return Err(config(
            format!(
                "view '{}' of {path} is of {}, which no <filesystem> with accessmode='passthrough' shares",
                view.name,
                view.export.display()
            ),
            "remove one of them, or give both the same directory",
        ));
    }
    Ok(())
}

fn enable(file: &DomainFile) -> String {
    format!(
        "virtfs-mediator libvirt enable {}, or make them the same by hand",
        file.domain
    )
}

/// A user of its own is the wall between a domain's QEMU and the others'.
fn refuse_shared_client(file: &DomainFile) -> Result<()> {
    let own = file.client.ids()?;
    let refused = |who: &str, cure: &str| {
        Err(config(
            format!("{who} uid {} as well", own.uid),
            format!(
                "each domain with views needs a user of its own: otherwise one's QEMU reaches the \
                 other's views through /proc{cure}"
            ),
        ))
    };
    if QemuConf::read()?.shared_uid() == Some(own.uid) {
        return refused("every domain without a label of its own runs as", "");
    }
    // What its file says by now is for its next start.
    if let Some(other) = armed::another_of(&file.domain, own.uid)? {
        return refused(
            &format!("domain '{other}', which runs, is of"),
            &format!("; if it does not run, remove {}/*/{other}.json", armed::RUN),
        );
    }
    for other in DomainFile::names()? {
        if other == file.domain {
            continue;
        }
        // A broken file of another domain is told when that one starts.
        let ids = DomainFile::read(&other)
            .ok()
            .flatten()
            .and_then(|other| other.client.ids().ok());
        if ids.is_some_and(|ids| ids.uid == own.uid) {
            return refused(&format!("domain '{other}' runs as"), "");
        }
    }
    Ok(())
}

/// A start that is let through finds the service there.
///
/// # Errors
///
/// Mount: it is not.
pub(crate) fn await_service() -> Result<()> {
    let failed = |why: &dyn std::fmt::Display| {
        Error::new(
            Class::Mount,
            format!("{SOCKET}: {why}"),
            "start the service (systemctl enable --now virtfs-mediator.socket)",
        )
    };
    let flags = SockFlag::SOCK_CLOEXEC;
    let connection = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)
        .and_then(|fd| {
            // connect(2) waits as long while others queue before us (unix(7)).
            let limit = TimeVal::milliseconds(SERVICE_MS.into());
            setsockopt(&fd, sockopt::SendTimeout, &limit)?;
            connect(fd.as_raw_fd(), &UnixAddr::new(SOCKET)?).map(|()| fd)
        })
        .map_err(|errno| {
            if errno == Errno::EAGAIN {
                failed(&"the service does not answer")
            } else {
                failed(&errno.desc())
            }
        })?;
    send(connection.as_raw_fd(), PING, MsgFlags::MSG_NOSIGNAL)
        .map_err(|errno| failed(&errno.desc()))?;
    let mut fds = [PollFd::new(connection.as_fd(), PollFlags::POLLIN)];
    if nix::poll::poll(&mut fds, PollTimeout::from(SERVICE_MS)) == Ok(0) {
        return Err(failed(&"the service does not answer"));
    }
    let mut answer = [0; 16];
    match recv(connection.as_raw_fd(), &mut answer, MsgFlags::MSG_DONTWAIT) {
        Ok(count)
            if answer
                .get(..count)
                .is_some_and(|answer| answer.starts_with(YES)) =>
        {
            Ok(())
        }
        Ok(_) => Err(failed(&"what listens there is not the service")),
        Err(errno) => Err(failed(&errno.desc())),
    }
}

fn read_xml() -> Result<String> {
    let mut text = Vec::new();
    std::io::stdin()
        .take(LONGEST)
        .read_to_end(&mut text)
        .map_err(|error| Error::step(Class::Configuration, "read(the domain's XML)", error))?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// virsh shows many lines of many programs: each of ours says which domain it is about.
fn about(name: &OsStr, error: &Error) -> Error {
    let name = name.to_string_lossy();
    let name: String = name.chars().take(64).collect();
    let what = format!("domain '{}': {}", name.escape_debug(), error.what());
    Error::new(error.class(), what, error.advice())
}

fn config(what: impl Into<String>, cure: impl Into<String>) -> Error {
    Error::new(Class::Configuration, what, cure)
}
