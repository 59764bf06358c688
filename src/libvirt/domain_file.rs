//! `/etc/virtfs-mediator/libvirt/DOMAIN.toml`: which views a domain gets, and as whom its QEMU runs.
//! Root's own word, and the only one about that: what others may write is refused.

use std::fmt;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::cli::{CacheOption, DataOption};
use crate::error::{Class, Error, Result};
use crate::identity::{self, Ids};
use crate::view_name;

/// Where the files lie.
pub(crate) const DIRECTORY: &str = "/etc/virtfs-mediator/libvirt";
/// The link, named as the emulator, by which `<emulator>` leads to the wrapper.
pub(crate) const EMULATORS: &str = "/usr/lib/virtfs-mediator/emulators";
/// The wrapper itself, however it is called.
pub(crate) const WRAPPER: &str = "virtfs-mediator-qemu";

/// Each has processes of its own.
const VIEWS_MAX: usize = 64;
/// More than that is no file of ours.
const LONGEST: u64 = 256 * 1024;

/// What root says of one domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DomainFile {
    /// Its name; the file's own.
    pub(crate) domain: String,
    /// Its uuid, in lower case.
    pub(crate) uuid: String,
    /// What the wrapper becomes.
    pub(crate) emulator: PathBuf,
    /// As `--audit`, for all views: `stderr`, `journald`, or the absolute path of a file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) audit: Vec<String>,
    /// A wall that this kernel lacks ends the start.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) require_confinement: bool,
    /// As whom QEMU runs: the domain's static DAC label.
    pub(crate) client: Client,
    /// Its views; at least one.
    #[serde(rename = "view", default)]
    pub(crate) views: Vec<View>,
}

/// A user and a group. Host ids.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Client {
    pub(crate) user: Id,
    pub(crate) group: Id,
}

/// A number, or a name that the host knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "a number or a name")]
pub(crate) enum Id {
    Number(u32),
    Name(String),
}

/// One view of a domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct View {
    /// Its name (`virtfs-mediator status NAME`).
    pub(crate) name: String,
    /// The directory: the `<source dir=...>` of a `<filesystem>`.
    pub(crate) export: PathBuf,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) policy: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) data: Option<DataOption>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cache: Option<CacheOption>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) readonly: bool,
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl Client {
    /// The numbers.
    ///
    /// # Errors
    ///
    /// Configuration: unknown to the host, or root.
    pub(crate) fn ids(&self) -> Result<Ids> {
        identity::client(Some(&format!("{}:{}", self.user, self.group)))
    }
}

/// Where the file of a domain lies.
///
/// # Errors
///
/// As [`checked_name`].
pub(crate) fn path_of(domain: &str) -> Result<PathBuf> {
    Ok(Path::new(DIRECTORY).join(format!("{}.toml", checked_name(domain)?)))
}

/// A domain's name becomes a file's name in root's directories, and a word of commands.
///
/// # Errors
///
/// Configuration: it is none that could.
pub(crate) fn checked_name(domain: &str) -> Result<&str> {
    let fits = !domain.is_empty()
        && domain.len() <= 200
        && !domain.starts_with(['.', '-'])
        && domain
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
    if fits {
        return Ok(domain);
    }
    Err(config(
        format!(
            "the domain name '{}' cannot be used",
            domain.chars().take(64).collect::<String>().escape_debug()
        ),
        "a domain with views has a name of 1 to 200 letters, digits, '_', '-' or '.', not starting \
         with '.' or '-' (`virsh domrename`)",
    ))
}

impl DomainFile {
    /// Reads a domain's file; `None` if it has none.
    ///
    /// # Errors
    ///
    /// Configuration: a mistake, with its line; or others than root may write to the file or to a
    /// directory above it.
    pub(crate) fn read(domain: &str) -> Result<Option<Self>> {
        Self::read_in(Path::new(DIRECTORY), domain)
    }

    /// The names of all domains that have a file, sorted; whether they can be read is not looked at.
    ///
    /// # Errors
    ///
    /// Configuration: the directory cannot be listed.
    pub(crate) fn names() -> Result<Vec<String>> {
        let entries = match std::fs::read_dir(DIRECTORY) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(config(format!("{DIRECTORY}: {error}"), "")),
        };
        let mut names: Vec<String> = entries
            .filter_map(|entry| {
                let name = entry.ok()?.file_name().into_string().ok()?;
                let domain = name.strip_suffix(".toml")?;
                checked_name(domain).ok().map(ToOwned::to_owned)
            })
            .collect();
        names.sort();
        Ok(names)
    }

    fn read_in(directory: &Path, domain: &str) -> Result<Option<Self>> {
        let path = directory.join(format!("{}.toml", checked_name(domain)?));
        let Some(text) = roots_own(directory, &path)? else {
            return Ok(None);
        };
        let file = Self::parse(&text).map_err(|error| error.within(&path))?;
        if file.domain != domain {
            return Err(config(
                format!("{}: it is about domain '{}'", path.display(), file.domain),
                "the file's name is DOMAIN.toml: rename it, or change `domain`",
            ));
        }
        Ok(Some(file))
    }

    /// Understands a text.
    fn parse(text: &str) -> std::result::Result<Self, Mistake> {
        let mut file: Self = toml::from_str(text).map_err(|error| Mistake {
            line: error
                .span()
                .map(|span| text.get(..span.start).unwrap_or(text).matches('\n').count() + 1),
            what: error.message().to_owned(),
        })?;
        file.uuid.make_ascii_lowercase();
        file.check().map_err(|error| Mistake {
            line: None,
            what: error.to_string(),
        })?;
        Ok(file)
    }

    /// What serde cannot know.
    ///
    /// # Errors
    ///
    /// Configuration: the first mistake.
    pub(crate) fn check(&self) -> Result<()> {
        checked_name(&self.domain)?;
        if !is_uuid(&self.uuid) {
            return Err(config(
                format!("`uuid` is '{}'", self.uuid.escape_debug()),
                "it is what `virsh domuuid` tells: 36 hexadecimal digits and '-'",
            ));
        }
        plain("emulator", &self.emulator)?;
        if self.emulator.starts_with(EMULATORS) || self.emulator.ends_with(WRAPPER) {
            return Err(config(
                format!("`emulator` is {}, the wrapper", self.emulator.display()),
                "name what the wrapper becomes, such as /usr/bin/qemu-system-x86_64",
            ));
        }
        for sink in &self.audit {
            if sink != "stderr" && sink != "journald" && !sink.starts_with('/') {
                return Err(config(
                    format!("`audit` names '{}'", sink.escape_debug()),
                    "use \"stderr\", \"journald\", or the absolute path of a file",
                ));
            }
        }
        if self.views.is_empty() {
            return Err(config("there is no `[[view]]`", "name one export at least"));
        }
        if self.views.len() > VIEWS_MAX {
            return Err(config(
                format!("there are {} views", self.views.len()),
                format!("a domain may have {VIEWS_MAX}"),
            ));
        }
        for (index, view) in self.views.iter().enumerate() {
            view.check()?;
            for earlier in self.views.iter().take(index) {
                if earlier.name == view.name {
                    return Err(config(
                        format!("two views are called '{}'", view.name),
                        "choose another name for one",
                    ));
                }
                let (one, other) = (&earlier.export, &view.export);
                if one.starts_with(other) || other.starts_with(one) {
                    return Err(config(
                        format!(
                            "the views of {} and {} would cover each other",
                            one.display(),
                            other.display()
                        ),
                        "share the upper directory alone",
                    ));
                }
            }
        }
        Ok(())
    }

    /// Writes the file, whole or not at all, and makes the directory if need be.
    ///
    /// # Errors
    ///
    /// Configuration: it says what cannot be, or cannot be written.
    pub(crate) fn write(&self) -> Result<PathBuf> {
        self.write_in(Path::new(DIRECTORY))
    }

    fn write_in(&self, directory: &Path) -> Result<PathBuf> {
        self.check()?;
        let path = directory.join(format!("{}.toml", self.domain));
        let failed = |error: &dyn fmt::Display| config(format!("{}: {error}", path.display()), "");
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(directory)
            .map_err(|error| failed(&error))?;
        let text = self.text()?;
        let mut fresh = tempfile::Builder::new()
            .prefix(".domain-")
            .permissions(std::fs::Permissions::from_mode(0o644))
            .tempfile_in(directory)
            .map_err(|error| failed(&error))?;
        fresh
            .write_all(text.as_bytes())
            .and_then(|()| fresh.as_file().sync_all())
            // The umask may have taken some of it.
            .and_then(|()| {
                let mode = std::fs::Permissions::from_mode(0o644);
                fresh.as_file().set_permissions(mode)
            })
            .map_err(|error| failed(&error))?;
        fresh.persist(&path).map_err(|error| failed(&error.error))?;
        Ok(path)
    }

    /// The text of the file.
    ///
    /// # Errors
    ///
    /// Configuration: a path that TOML has no way to write (it is not UTF-8).
    pub(crate) fn text(&self) -> Result<String> {
        toml::to_string(self)
            .map_err(|error| config(format!("the file of '{}': {error}", self.domain), ""))
    }

    /// Removes a domain's file; tells whether there was one.
    ///
    /// # Errors
    ///
    /// Configuration: it cannot be removed.
    pub(crate) fn remove(domain: &str) -> Result<bool> {
        let path = path_of(domain)?;
        match std::fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(config(format!("{}: {error}", path.display()), "")),
        }
    }
}

impl View {
    fn check(&self) -> Result<()> {
        view_name::checked(&self.name)?;
        plain("export", &self.export)?;
        if let Some(policy) = &self.policy {
            plain("policy", policy)?;
        }
        Ok(())
    }
}

/// What is wrong, and where in the file.
#[derive(Debug)]
struct Mistake {
    line: Option<usize>,
    what: String,
}

impl Mistake {
    fn within(self, path: &Path) -> Error {
        let place = match self.line {
            Some(line) => format!("{}, line {line}", path.display()),
            None => path.display().to_string(),
        };
        config(format!("{place}: {}", self.what), "")
    }
}

/// The text of a file that nobody but root can have written; `None` if it is not there.
fn roots_own(directory: &Path, path: &Path) -> Result<Option<String>> {
    let failed = |error: &dyn fmt::Display| config(format!("{}: {error}", path.display()), "");
    for above in [directory.parent(), Some(directory)].into_iter().flatten() {
        let stat = match rustix::fs::lstat(above) {
            Ok(stat) => stat,
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(config(format!("{}: {errno}", above.display()), "")),
        };
        let kind = FileType::from_raw_mode(stat.st_mode);
        refuse_others(above, kind == FileType::Directory, &stat)?;
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = match rustix::fs::openat(CWD, path, flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        Err(rustix::io::Errno::LOOP) => {
            return Err(failed(&"it is a symbolic link").cure("put the file itself there"));
        }
        Err(errno) => return Err(failed(&errno)),
    };
    let stat = rustix::fs::fstat(&fd).map_err(|errno| failed(&errno))?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    refuse_others(path, kind == FileType::RegularFile, &stat)?;
    let mut text = String::new();
    let read = std::fs::File::from(fd)
        .take(LONGEST + 1)
        .read_to_string(&mut text)
        .map_err(|error| failed(&error))?;
    if u64::try_from(read).is_ok_and(|read| read > LONGEST) {
        return Err(failed(&format!("it is longer than {LONGEST} bytes")));
    }
    Ok(Some(text))
}

fn refuse_others(path: &Path, right_kind: bool, stat: &rustix::fs::Stat) -> Result<()> {
    let shown = path.display();
    if !right_kind {
        return Err(config(
            format!("{shown} is neither the directory nor the plain file that it should be"),
            "",
        ));
    }
    if stat.st_uid != 0 || stat.st_mode & 0o022 != 0 {
        return Err(config(
            format!(
                "{shown} belongs to uid {} with mode {:04o}: others than root may write to it",
                stat.st_uid,
                stat.st_mode & 0o7777
            ),
            format!("chown root {shown}; chmod go-w {shown}"),
        ));
    }
    Ok(())
}

/// An absolute path without `.` and `..`, as libvirt's XML has it.
fn plain(key: &str, path: &Path) -> Result<()> {
    let absolute = path.is_absolute();
    let steps = path
        .components()
        .all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    if absolute && steps {
        return Ok(());
    }
    Err(config(
        format!("`{key}` is '{}'", path.display().to_string().escape_debug()),
        "write an absolute path without '..'",
    ))
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

fn config(what: impl Into<String>, cure: impl Into<String>) -> Error {
    Error::new(Class::Configuration, what, cure)
}

#[cfg(test)]
mod tests;
