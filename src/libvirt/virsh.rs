//! libvirt, asked as an administrator would: through `virsh`, never through a shell.

use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::error::{Class, Error, Result};
use crate::libvirt::definition::Definition;

/// The libvirt of this host.
const CONNECTION: &str = "qemu:///system";
/// Where programs are looked for: root's own word, not the caller's.
pub(crate) const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// A domain, as the administrator named it, and what it is called by from then on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Domain {
    /// In lower case; `virsh` takes it everywhere, and it cannot be mistaken for a number or an
    /// option.
    pub(crate) uuid: String,
}

/// What is asked: its output, without the last newline.
fn ask(words: &[&str]) -> Result<String> {
    let told = command("virsh")
        .args(["--quiet", "--connect", CONNECTION])
        .args(words)
        .output()
        .map_err(|error| {
            config(
                format!("virsh: {error}"),
                "install it (libvirt-clients on Debian, libvirt-client elsewhere)",
            )
        })?;
    if told.status.success() {
        let text = String::from_utf8(told.stdout).map_err(|error| {
            config(
                format!("virsh {}: {error}", words.join(" ")),
                "the definition must be UTF-8",
            )
        })?;
        return Ok(text.trim_end().to_owned());
    }
    let said = String::from_utf8_lossy(&told.stderr);
    let said: Vec<&str> = said
        .lines()
        .map(|line| line.trim_start_matches("error: ").trim())
        .filter(|line| !line.is_empty())
        .collect();
    Err(config(
        format!("virsh {}: {}", words.join(" "), said.join("; ")),
        "",
    ))
}

/// A program with a clean environment, in the language that is understood here, with nobody to ask.
pub(crate) fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("PATH", PATH)
        .env("LC_ALL", "C")
        .current_dir("/")
        .stdin(Stdio::null());
    command
}

/// Looks a domain up by name, uuid, or the number that a running one has.
///
/// # Errors
///
/// Configuration: there is none, or libvirt does not answer.
pub(crate) fn find(typed: &str) -> Result<Domain> {
    // `domuuid` takes no uuid.
    let text = ask(&["dumpxml", "--domain", typed, "--inactive"]).map_err(|error| {
        if error.what().contains("failed to connect") {
            error.cure("start libvirtd (`systemctl start libvirtd`)")
        } else {
            error.cure("`virsh list --all` names the domains")
        }
    })?;
    Ok(Domain {
        uuid: Definition::parse(text)?.uuid,
    })
}

/// Every domain that libvirt keeps a definition of.
///
/// # Errors
///
/// Configuration: libvirt does not answer.
pub(crate) fn all() -> Result<Vec<Domain>> {
    let told = ask(&["list", "--all", "--persistent", "--uuid"])
        .map_err(|error| error.cure("start libvirtd (`systemctl start libvirtd`)"))?;
    let uuids = told.lines().map(str::trim).filter(|uuid| !uuid.is_empty());
    Ok(uuids
        .map(|uuid| Domain {
            uuid: uuid.to_ascii_lowercase(),
        })
        .collect())
}

impl Domain {
    /// The definition that the next start takes, secrets included.
    ///
    /// # Errors
    ///
    /// Configuration: libvirt does not give it.
    pub(crate) fn definition(&self) -> Result<String> {
        let flags = ["--inactive", "--security-info"];
        ask(&["dumpxml", "--domain", &self.uuid, flags[0], flags[1]])
    }

    /// What was read is what is changed: another's `virsh edit` meanwhile is not overwritten.
    ///
    /// # Errors
    ///
    /// Configuration: it is another definition by now.
    pub(crate) fn refuse_changed(&self, read: &Definition) -> Result<()> {
        if self.definition()? == read.text {
            return Ok(());
        }
        Err(config(
            format!("domain '{}' was changed meanwhile", read.name),
            "look at it again, and say this again",
        ))
    }

    /// The definition of the domain as it runs; `None` if it does not.
    ///
    /// # Errors
    ///
    /// Configuration: libvirt does not give it.
    pub(crate) fn running(&self) -> Result<Option<String>> {
        if self.state()? == "shut off" {
            return Ok(None);
        }
        ask(&["dumpxml", "--domain", &self.uuid]).map(Some)
    }

    /// As `virsh domstate` tells it: `running`, `shut off`, `paused`, ...
    ///
    /// # Errors
    ///
    /// Configuration: libvirt does not answer.
    pub(crate) fn state(&self) -> Result<String> {
        ask(&["domstate", "--domain", &self.uuid]).map(|state| state.trim().to_owned())
    }

    /// A domain without a stored definition, or with a stored memory that holds an older one,
    /// cannot be edited to any effect.
    ///
    /// # Errors
    ///
    /// Configuration: it is such a one.
    pub(crate) fn refuse_uneditable(&self, name: &str) -> Result<()> {
        let told = ask(&["dominfo", "--domain", &self.uuid])?;
        let says = |key: &str, value: &str| {
            told.lines().any(|line| {
                line.split_once(':')
                    .is_some_and(|(one, other)| one == key && other.trim() == value)
            })
        };
        if says("Persistent", "no") {
            return Err(config(
                format!("domain '{name}' is transient: libvirt keeps no definition of it"),
                "define it first (`virsh define FILE`)",
            ));
        }
        if says("Managed save", "yes") {
            return Err(config(
                format!(
                    "domain '{name}' has a managed save image, and its next start would take the \
                     definition in that, as it is"
                ),
                format!(
                    "start it and shut it down, or drop what it had in memory: virsh \
                     managedsave-remove {name}"
                ),
            ));
        }
        Ok(())
    }
}

/// Has libvirt take a definition, checked by its schema.
///
/// # Errors
///
/// Configuration: libvirt refuses it; the one it had stays.
pub(crate) fn define(xml: &str) -> Result<()> {
    let failed = |error: std::io::Error| config(format!("a file for virsh: {error}"), "");
    // 0600: it may hold passwords.
    let mut file = tempfile::Builder::new()
        .prefix("virtfs-mediator-")
        .suffix(".xml")
        .tempfile()
        .map_err(failed)?;
    file.write_all(xml.as_bytes())
        .and_then(|()| file.flush())
        .map_err(failed)?;
    let path = file.path().to_string_lossy();
    ask(&["define", "--validate", "--file", &path]).map(drop)
}

fn config(what: impl Into<String>, cure: impl Into<String>) -> Error {
    Error::new(Class::Configuration, what, cure)
}
