//! Who is measured: names, and which of them this host and this program have.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use crate::error::{Error, Result};

/// How long a view's kernel remembers: `--cache`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Cache {
    Auto,
    Exclusive,
    None,
}

impl Cache {
    const ALL: [Self; 3] = [Self::Auto, Self::Exclusive, Self::None];

    /// The option's word.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Exclusive => "exclusive",
            Self::None => "none",
        }
    }
}

/// How a view's file data goes: `--data`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Data {
    Auto,
    Passthrough,
    Mediated,
}

impl Data {
    /// The option's word.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Passthrough => "passthrough",
            Self::Mediated => "mediated",
        }
    }
}

/// One build of virtfs-mediator.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Program {
    /// `view`, or `other` for the one of `--against`.
    pub(crate) label: &'static str,
    pub(crate) path: PathBuf,
    /// What it calls itself.
    pub(crate) version: String,
    /// Whether it has `--data`; without it, data is mediated.
    pub(crate) has_data_option: bool,
}

impl Program {
    /// Asks a program what it is.
    pub(crate) fn look(label: &'static str, path: PathBuf) -> Result<Arc<Self>> {
        // Workers are started from elsewhere.
        let path = path.canonicalize().unwrap_or(path);
        let said = |arguments: &[&str]| {
            let output = Command::new(&path).args(arguments).output();
            output
                .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
                .map_err(|error| {
                    Error::Usage(format!(
                        "{} cannot be run ({error}); build it (cargo build --release -p \
                         virtfs-mediator) or name it with --mediator",
                        path.display()
                    ))
                })
        };
        let version = said(&["--version"])?.trim().to_owned();
        let has_data_option = help_has_option(&said(&["run", "--help"])?, "--data");
        Ok(Arc::new(Self {
            label,
            path,
            version,
            has_data_option,
        }))
    }

    /// The mode that a view has if nothing is said.
    pub(crate) fn default_view(self: &Arc<Self>) -> View {
        View {
            program: Arc::clone(self),
            cache: Cache::Auto,
            data: if self.has_data_option {
                Data::Auto
            } else {
                Data::Mediated
            },
        }
    }

    fn modes(self: &Arc<Self>) -> Vec<View> {
        let data: &[Data] = if self.has_data_option {
            &[Data::Auto, Data::Passthrough, Data::Mediated]
        } else {
            &[Data::Mediated]
        };
        let mut views = Vec::new();
        for &data in data {
            for cache in Cache::ALL {
                views.push(View {
                    program: Arc::clone(self),
                    cache,
                    data,
                });
            }
        }
        views
    }
}

/// Whether a help text describes an option, rather than to mention it.
fn help_has_option(help: &str, option: &str) -> bool {
    help.lines()
        .map(str::trim_start)
        .any(|line| line.split([' ', '=', ',']).next() == Some(option))
}

/// A view in one of its modes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) program: Arc<Program>,
    pub(crate) cache: Cache,
    pub(crate) data: Data,
}

impl View {
    /// The options that bring about this mode.
    pub(crate) fn options(&self) -> Vec<String> {
        let mut options = vec!["--cache".to_owned(), self.cache.word().to_owned()];
        if self.program.has_data_option {
            options.extend(["--data".to_owned(), self.data.word().to_owned()]);
        }
        options
    }
}

/// A way to a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Contender {
    /// The directory itself; through QEMU: QEMU as root on it.
    Native,
    View(View),
    /// Through QEMU: QEMU as root on it.
    Bindfs,
    /// libfuse's example `passthrough_hp`; through QEMU as bindfs.
    PassthroughHp,
    /// 9p only: QEMU and virtfs-proxy-helper, both as root.
    Proxy,
}

impl Contender {
    /// Whether it is measured where time is short: of the views, the default, and what differs from
    /// it in one thing but has a cache.
    pub(crate) fn is_telling(&self) -> bool {
        let Self::View(view) = self else { return true };
        let default = view.program.default_view();
        match view.cache {
            Cache::Auto => true,
            Cache::Exclusive => view.data == default.data,
            Cache::None => false,
        }
    }

    /// Whether it may fail at a workload, which then is a result: others' file systems may.
    pub(crate) fn may_refuse(&self) -> bool {
        matches!(self, Self::Bindfs | Self::PassthroughHp)
    }

    /// What is not on this host, of what it needs, and how it gets there.
    fn missing(&self) -> Option<&'static str> {
        let found = match self {
            Self::Native | Self::View(_) => true,
            Self::Bindfs => in_path("bindfs"),
            Self::PassthroughHp => crate::server::passthrough_hp().is_some(),
            Self::Proxy => Path::new("/usr/lib/qemu/virtfs-proxy-helper").exists(),
        };
        match self {
            _ if found => None,
            Self::Bindfs => Some("apt-get install bindfs"),
            Self::PassthroughHp => Some("tools/bench/run builds it"),
            Self::Proxy => Some("apt-get install qemu-system-common, of a QEMU before 9.2"),
            Self::Native | Self::View(_) => None,
        }
    }
}

fn in_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).exists())
}

/// Those that this host has; who was named by `--contenders` must be there.
pub(crate) fn present(
    all: Vec<Contender>,
    choice: &Choice,
    mut tell: impl FnMut(&str),
) -> Result<Vec<Contender>> {
    let mut present = Vec::new();
    for contender in all {
        match contender.missing() {
            None => present.push(contender),
            Some(cure) if choice.is_empty() => {
                tell(&format!("without {contender}, which is not here ({cure})"));
            }
            Some(cure) => {
                return Err(Error::Usage(format!("{contender} is not here: {cure}")));
            }
        }
    }
    Ok(present)
}

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Native => f.write_str("native"),
            Self::View(view) => write!(
                f,
                "{}:{}/{}",
                view.program.label,
                view.cache.word(),
                view.data.word()
            ),
            Self::Bindfs => f.write_str("bindfs"),
            Self::PassthroughHp => f.write_str("passthrough_hp"),
            Self::Proxy => f.write_str("proxy"),
        }
    }
}

/// Every program in every mode.
fn views(programs: &[Arc<Program>]) -> impl Iterator<Item = Contender> {
    let modes = programs.iter().flat_map(Program::modes);
    modes.map(Contender::View)
}

/// The contenders on a mount, in the order of the table.
pub(crate) fn on_mounts(programs: &[Arc<Program>]) -> Vec<Contender> {
    let mut all = vec![Contender::Native];
    all.extend(views(programs));
    all.extend([Contender::Bindfs, Contender::PassthroughHp]);
    all
}

/// The contenders through QEMU, in the order of the table.
pub(crate) fn through_qemu(programs: &[Arc<Program>]) -> Vec<Contender> {
    let mut all = vec![Contender::Native];
    all.extend(views(programs));
    all.extend([
        Contender::Proxy,
        Contender::Bindfs,
        Contender::PassthroughHp,
    ]);
    all
}

/// Which of them `--contenders` names: each word is a name or its beginning up to a `:` or `/`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Choice(Vec<String>);

impl Choice {
    pub(crate) fn new(words: &[String]) -> Self {
        Self(words.to_vec())
    }

    /// Whether nothing was chosen.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those named; with no words, all.
    pub(crate) fn of(&self, all: Vec<Contender>) -> Vec<Contender> {
        all.into_iter()
            .filter(|contender| self.0.is_empty() || self.names(&contender.to_string()))
            .collect()
    }

    fn names(&self, name: &str) -> bool {
        self.0.iter().any(|word| {
            name.strip_prefix(word.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '/']))
        })
    }

    /// Fails if a word names nobody.
    pub(crate) fn check(&self, all: &[Contender]) -> Result<()> {
        for word in &self.0 {
            let one = Self(vec![word.clone()]);
            if !all
                .iter()
                .any(|contender| one.names(&contender.to_string()))
            {
                let names: Vec<_> = all.iter().map(ToString::to_string).collect();
                return Err(Error::Usage(format!(
                    "--contenders {word}: there is none of that name; there are {}",
                    names.join(", ")
                )));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(has_data_option: bool) -> Arc<Program> {
        Arc::new(Program {
            label: "view",
            path: "/x".into(),
            version: String::new(),
            has_data_option,
        })
    }

    fn names(all: Vec<Contender>) -> Vec<String> {
        all.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn modes_without_data_option_are_mediated_only() {
        assert_eq!(
            names(on_mounts(&[program(false)])),
            [
                "native",
                "view:auto/mediated",
                "view:exclusive/mediated",
                "view:none/mediated",
                "bindfs",
                "passthrough_hp"
            ]
        );
        assert_eq!(names(through_qemu(&[program(true)])).len(), 13);
    }

    #[test]
    fn options_name_data_only_where_the_program_knows_it() {
        let view = |has| View {
            program: program(has),
            cache: Cache::None,
            data: Data::Passthrough,
        };
        assert_eq!(view(false).options(), ["--cache", "none"]);
        assert_eq!(
            view(true).options(),
            ["--cache", "none", "--data", "passthrough"]
        );
    }

    #[test]
    fn few_modes_are_measured_where_time_is_short() {
        let mut all = on_mounts(&[program(true)]);
        all.retain(Contender::is_telling);
        assert_eq!(
            names(all),
            [
                "native",
                "view:auto/auto",
                "view:exclusive/auto",
                "view:auto/passthrough",
                "view:auto/mediated",
                "bindfs",
                "passthrough_hp"
            ]
        );
    }

    #[test]
    fn choice_takes_names_and_their_beginnings() {
        let all = || on_mounts(&[program(true)]);
        let chosen = |words: &[&str]| {
            let words: Vec<_> = words.iter().map(|&word| word.to_owned()).collect();
            names(Choice::new(&words).of(all()))
        };
        assert_eq!(
            chosen(&["view:auto"]),
            [
                "view:auto/auto",
                "view:auto/passthrough",
                "view:auto/mediated"
            ]
        );
        assert_eq!(chosen(&["bindfs", "native"]), ["native", "bindfs"]);
        assert_eq!(chosen(&["nat"]), [""; 0]);
        assert_eq!(chosen(&[]).len(), 12);
    }

    #[test]
    fn choice_of_nobody_is_an_error_that_lists_names() {
        let error = Choice::new(&["bindsf".into()])
            .check(&on_mounts(&[program(false)]))
            .unwrap_err();
        assert!(error.to_string().contains("passthrough_hp"), "{error}");
    }

    #[test]
    fn option_is_found_as_an_option_and_not_as_a_word() {
        let help = "      --cache <CACHE>\n          as --data does\n";
        assert!(help_has_option(help, "--cache"));
        assert!(!help_has_option(help, "--data"));
    }
}
