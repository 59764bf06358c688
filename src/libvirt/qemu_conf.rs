//! `/etc/libvirt/qemu.conf`: what of it decides whether a domain's QEMU can have views.

use std::path::Path;

use crate::error::{Class, Error, Result};
use crate::libvirt::settings::{Settings, Value};

/// Where libvirt reads it.
pub(crate) const FILE: &str = "/etc/libvirt/qemu.conf";

/// What it says, or libvirt's default where it says nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct QemuConf {
    /// Every QEMU gets a mount namespace of its own.
    pub(crate) namespaces: bool,
    /// libvirt gives files to the domain's user.
    pub(crate) dynamic_ownership: bool,
    /// It remembers whose they were.
    pub(crate) remember_owner: bool,
    /// The user of domains without a label, if it is named here.
    pub(crate) user: Option<String>,
    /// The group of domains without a label, if it is named here.
    pub(crate) group: Option<String>,
}

impl QemuConf {
    /// Reads the file; without one, defaults hold.
    ///
    /// # Errors
    ///
    /// Configuration: it cannot be read, or not understood.
    pub(crate) fn read() -> Result<Self> {
        match std::fs::read_to_string(FILE) {
            Ok(text) => Self::parse(&text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Self::parse(""),
            Err(error) => Err(wrong(&error)),
        }
    }

    fn parse(text: &str) -> Result<Self> {
        let settings = Settings::parse(text)
            .map_err(|line| wrong(&format!("line {line} is not what libvirt understands")))?;
        let flag = |key: &str, default: bool| match settings.get(key) {
            Some(Value::Number(number)) => !number.trim_start_matches(['+', '-', '0']).is_empty(),
            Some(_) | None => default,
        };
        let word = |key: &str| match settings.get(key) {
            Some(Value::Text(text)) => Some(text.clone()),
            Some(Value::Number(number)) => Some(number.clone()),
            Some(_) | None => None,
        };
        let is_mount = |value: &Value| matches!(value, Value::Text(text) if text == "mount");
        let namespaces = match settings.get("namespaces") {
            Some(Value::List(list)) => list.iter().any(is_mount),
            Some(other) => is_mount(other),
            None => true,
        };
        Ok(Self {
            namespaces,
            dynamic_ownership: flag("dynamic_ownership", true),
            remember_owner: flag("remember_owner", true),
            user: word("user"),
            group: word("group"),
        })
    }

    /// The uid that domains without a label share, if it can be told.
    pub(crate) fn shared_uid(&self) -> Option<u32> {
        let name = self.user.as_deref();
        // Debian's and Fedora's, in this order, where nothing is said.
        let names = name.map_or_else(|| vec!["libvirt-qemu", "qemu"], |name| vec![name]);
        names.into_iter().find_map(|name| {
            let number = name.strip_prefix('+').unwrap_or(name).parse().ok();
            number.or_else(|| {
                let user = nix::unistd::User::from_name(name).ok()??;
                Some(user.uid.as_raw())
            })
        })
    }

    /// The gid that domains without a label share, if it can be told.
    pub(crate) fn shared_gid(&self) -> Option<u32> {
        let name = self.group.as_deref();
        let names = name.map_or_else(|| vec!["libvirt-qemu", "qemu"], |name| vec![name]);
        names.into_iter().find_map(|name| {
            let number = name.strip_prefix('+').unwrap_or(name).parse().ok();
            number.or_else(|| {
                let group = nix::unistd::Group::from_name(name).ok()??;
                Some(group.gid.as_raw())
            })
        })
    }

    /// A view needs a QEMU in a mount namespace of its own.
    ///
    /// # Errors
    ///
    /// Configuration: libvirt makes none.
    pub(crate) fn refuse_without_namespaces(&self) -> Result<()> {
        if self.namespaces {
            return Ok(());
        }
        Err(Error::new(
            Class::Configuration,
            format!(
                "{FILE} has `namespaces` without \"mount\": QEMU would run in the host's own mount \
                 namespace, and every other process would see its views"
            ),
            "take the line out, or write namespaces = [ \"mount\" ], and restart libvirtd",
        ))
    }
}

fn wrong(what: &dyn std::fmt::Display) -> Error {
    let what = what.to_string();
    let what = what.trim_end();
    Error::new(
        Class::Configuration,
        format!("{}: {what}", Path::new(FILE).display()),
        "look at that line",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_hold_where_nothing_is_said() {
        let conf = QemuConf::parse("# user = \"x\"\n").unwrap();
        assert!(conf.namespaces && conf.dynamic_ownership && conf.remember_owner);
        assert_eq!((conf.user, conf.group), (None, None));
    }

    #[test]
    fn settings_are_read_as_libvirt_writes_them() {
        let text = "user = \"+64055\"\ngroup=\"kvm\" # old\ndynamic_ownership = 0\n\
                    remember_owner = 0\nnamespaces = [ ]\ncgroup_device_acl = [\n  \"/dev/null\",\n]\n";
        let conf = QemuConf::parse(text).unwrap();
        assert!(!conf.namespaces && !conf.dynamic_ownership && !conf.remember_owner);
        assert_eq!(conf.shared_uid(), Some(64055));
        assert!(conf.refuse_without_namespaces().is_err());
        for on in ["namespaces = [ \"mount\" ]", "namespaces = \"mount\""] {
            assert!(QemuConf::parse(on).unwrap().namespaces);
        }
    }

    #[test]
    fn mistake_is_told_with_its_line() {
        let error = QemuConf::parse("user = \"x\"\nspice_password = \"secret\n")
            .unwrap_err()
            .to_string();
        assert!(error.contains(FILE) && error.contains("line 2"), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }

    #[test]
    fn line_that_is_appended_does_not_count_as_for_libvirt() {
        let conf = QemuConf::parse("user = \"one\"\nuser = \"two\"\n").unwrap();
        assert_eq!(conf.user.as_deref(), Some("one"));
    }
}
