//! Running `doctor`, plainly and in changed surroundings, and judging what it says.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use nix::sched::{CloneFlags, unshare};
use rustix::mount::{MountFlags, MountPropagationFlags};
use seccompiler::{
    SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};
use tempfile::TempDir;

use super::catalogue::{Level, Problem};
use crate::common::{needs_root, program, shown, stderr};

/// What a case saw: `doctor` without the problem, and with it.
pub(super) struct Seen {
    pub(super) control: Report,
    pub(super) changed: Report,
}

/// Makes a test of each function, which returns what it saw, and a list of what they provoke.
macro_rules! provoke {
    ($($case:ident => [$($problem:ident),+];)+) => {
        /// What the cases of this file provoke.
        pub(super) const PROVOKED: &[$crate::doctor::catalogue::Problem] =
            &[$($($crate::doctor::catalogue::Problem::$problem,)+)+];

        mod provokes {
            $(#[test]
            fn $case() {
                use $crate::doctor::catalogue::Problem;
                $crate::doctor::harness::judge(&super::$case(), &[$(Problem::$problem),+]);
            })+
        }
    };
}
pub(super) use provoke;

/// The problems are there when they are provoked, each with a cure, and only then.
#[track_caller]
pub(super) fn judge(seen: &Seen, problems: &[Problem]) {
    for problem in problems {
        let row = problem.row();
        assert!(
            !seen.control.has(*problem),
            "{problem:?} without a reason: {:#?}",
            seen.control
        );
        let finding = seen.changed.finding(*problem);
        assert!(
            row.level == Level::Note || !finding.cure.is_empty(),
            "{problem:?} has no cure"
        );
        assert!(
            !finding.found.starts_with("not tried"),
            "{problem:?}: {}",
            finding.found
        );
        if row.level == Level::Fail {
            assert_ne!(seen.changed.status, 0, "{problem:?}");
        }
    }
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) check: String,
    pub(super) level: String,
    pub(super) found: String,
    pub(super) cure: String,
}

/// What `doctor --json` printed.
#[derive(Clone, Debug)]
pub(super) struct Report {
    pub(super) findings: Vec<Finding>,
    pub(super) status: i32,
}

impl Report {
    #[track_caller]
    pub(super) fn of(output: &Output) -> Self {
        // Nothing but the report: what the tries do is not logged.
        assert_eq!(stderr(output), "", "{output:?}");
        let parsed: Vec<BTreeMap<String, String>> =
            serde_json::from_slice(&output.stdout).expect("an array of objects with four strings");
        let findings: Vec<Finding> = parsed
            .into_iter()
            .map(|mut object| {
                let mut take = |key: &str| object.remove(key).expect("all four keys");
                let finding = Finding {
                    check: take("check"),
                    level: take("level"),
                    found: take("found"),
                    cure: take("cure"),
                };
                assert!(object.is_empty(), "unknown keys: {object:?}");
                finding
            })
            .collect();
        for finding in &findings {
            let known = ["ok", "note", "warn", "FAIL"];
            assert!(known.contains(&finding.level.as_str()), "{finding:?}");
            assert!(!finding.found.is_empty(), "{finding:?}");
        }
        let failed = findings.iter().any(|finding| finding.level == "FAIL");
        let status = output.status.code().expect("it exits");
        assert_eq!(failed, status != 0, "{findings:#?}");
        Self { findings, status }
    }

    fn find(&self, problem: Problem) -> Option<&Finding> {
        let row = problem.row();
        let same =
            |finding: &&Finding| finding.check == row.check && finding.level == row.level.word();
        self.findings.iter().find(same)
    }

    pub(super) fn has(&self, problem: Problem) -> bool {
        self.find(problem).is_some()
    }

    #[track_caller]
    pub(super) fn finding(&self, problem: Problem) -> &Finding {
        let found = self.find(problem);
        found.unwrap_or_else(|| panic!("no {problem:?} in {:#?}", self.findings))
    }

    /// The check of a problem found nothing wrong.
    #[track_caller]
    pub(super) fn ok(&self, problem: Problem) {
        self.ok_saying(problem, &[]);
    }

    /// As [`Report::ok`], with each of `words` in what was found.
    #[track_caller]
    pub(super) fn ok_saying(&self, problem: Problem, words: &[&str]) {
        self.some(problem, Level::Ok, words);
    }

    /// The check of a problem could not be made.
    #[track_caller]
    pub(super) fn untried(&self, problem: Problem) {
        self.some(problem, Level::Note, &["not tried: "]);
    }

    /// As [`Report::finding`], with each of `words` in what was found or in the cure.
    #[track_caller]
    pub(super) fn says(&self, problem: Problem, words: &[&str]) {
        self.some(problem, problem.row().level, words);
    }

    #[track_caller]
    fn some(&self, problem: Problem, level: Level, words: &[&str]) {
        let same = |finding: &&Finding| finding.check == problem.row().check;
        let all: Vec<&Finding> = self.findings.iter().filter(same).collect();
        let said = all.iter().any(|finding| {
            let has = |word: &&str| finding.found.contains(word) || finding.cure.contains(word);
            finding.level == level.word() && words.iter().all(has)
        });
        assert!(
            said,
            "{problem:?}: no {} with {words:?}: {all:#?}",
            level.word()
        );
    }
}

/// A `doctor` to run.
pub(super) struct Doctor {
    arguments: Vec<OsString>,
    /// Holds the stand-in for QEMU, which costs a quarter of a second less.
    _scratch: TempDir,
}

impl Doctor {
    /// With a QEMU that answers at once and has no faults.
    pub(super) fn new<A: Into<OsString>>(arguments: impl IntoIterator<Item = A>) -> Self {
        let scratch = open_directory();
        let qemu = fake_qemu(scratch.path(), "QEMU emulator version 99.0.0");
        let mut doctor = Self::with_qemu(&qemu, arguments);
        doctor._scratch = scratch;
        doctor
    }

    /// With a QEMU of the test's own.
    pub(super) fn with_qemu<A: Into<OsString>>(
        qemu: &Path,
        arguments: impl IntoIterator<Item = A>,
    ) -> Self {
        let mut all: Vec<OsString> = vec!["--qemu".into(), qemu.into()];
        all.extend(arguments.into_iter().map(Into::into));
        Self::plain(all)
    }

    /// With whatever QEMU the host has.
    pub(super) fn plain<A: Into<OsString>>(arguments: impl IntoIterator<Item = A>) -> Self {
        needs_root();
        Self {
            arguments: arguments.into_iter().map(Into::into).collect(),
            _scratch: open_directory(),
        }
    }

    /// The words of the command line.
    pub(super) fn words(&self) -> Vec<OsString> {
        let mut words: Vec<OsString> = vec![program().into(), "doctor".into(), "--json".into()];
        words.extend(self.arguments.iter().cloned());
        words
    }

    #[track_caller]
    pub(super) fn run(&self) -> Report {
        self.by::<&str>(&[])
    }

    /// Started by another program, such as `prlimit ... --`.
    #[track_caller]
    pub(super) fn by<S: AsRef<std::ffi::OsStr>>(&self, wrapper: &[S]) -> Report {
        let words = wrapper
            .iter()
            .map(|word| word.as_ref().to_owned())
            .chain(self.words());
        Report::of(&output(words))
    }

    /// Started by a shell that first does something, as the same process.
    #[track_caller]
    pub(super) fn after(&self, script: &str) -> Report {
        let script = format!("{script}\nexec \"$@\"");
        self.by(&["sh", "-ec", &script, "sh"])
    }

    /// With system calls that fail: each with a condition on an argument, if there is one.
    #[track_caller]
    pub(super) fn refusing(&self, calls: &[Refused]) -> Report {
        let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
        for call in calls {
            let conditions = call.argument.iter().map(|(argument, value)| {
                let (length, equal) = (SeccompCmpArgLen::Dword, SeccompCmpOp::Eq);
                SeccompCondition::new(*argument, length, equal, *value).unwrap()
            });
            let conditions: Vec<SeccompCondition> = conditions.collect();
            let rules = rules.entry(call.number).or_default();
            if !conditions.is_empty() {
                rules.push(SeccompRule::new(conditions).unwrap());
            }
        }
        let errno = calls.first().map_or(libc::ENOSYS, |call| call.errno);
        let filter = SeccompFilter::new(
            rules,
            SeccompAction::Allow,
            SeccompAction::Errno(errno.unsigned_abs()),
            std::env::consts::ARCH.try_into().unwrap(),
        );
        let filter: seccompiler::BpfProgram = filter.unwrap().try_into().unwrap();
        // A filter is the thread's alone, and what it starts inherits it.
        in_thread(|| {
            seccompiler::apply_filter(&filter).unwrap();
            self.run()
        })
    }
}

/// A system call that is to fail.
#[derive(Clone, Copy)]
pub(super) struct Refused {
    number: libc::c_long,
    argument: Option<(u8, u64)>,
    errno: libc::c_int,
}

impl Refused {
    /// Whatever its arguments are, as on a kernel that lacks it.
    pub(super) fn missing(number: libc::c_long) -> Self {
        Self {
            number,
            argument: None,
            errno: libc::ENOSYS,
        }
    }

    /// EPERM.
    pub(super) fn forbidden(number: libc::c_long) -> Self {
        Self {
            errno: libc::EPERM,
            ..Self::missing(number)
        }
    }

    /// Only if an argument, from 0, is this number.
    pub(super) fn with(self, argument: u8, value: libc::c_int) -> Self {
        Self {
            argument: Some((argument, u64::from(value.unsigned_abs()))),
            ..self
        }
    }
}

/// Starts a program with nobody to ask, and nobody known to have called sudo.
pub(super) fn output(words: impl IntoIterator<Item = OsString>) -> Output {
    let mut words = words.into_iter();
    let mut command = Command::new(words.next().unwrap());
    command
        .args(words)
        .current_dir("/")
        .env_remove("SUDO_UID")
        .env_remove("SUDO_GID")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn in_thread<T: Send>(act: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(act);
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Runs `act` in a mount namespace of its own, which ends with it, whatever happens.
pub(crate) fn elsewhere<T: Send>(act: impl FnOnce() -> T + Send) -> T {
    needs_root();
    in_thread(|| {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        rustix::mount::mount_change("/", private).unwrap();
        act()
    })
}

/// The source that tmpfs mounts of the tests show.
pub(super) const SOURCE: &str = "virtfs-doctor";

/// Mounts a file system without a device.
pub(super) fn mount(kind: &str, at: &Path, flags: MountFlags) {
    rustix::mount::mount(SOURCE, at, kind, flags, None).unwrap();
}

/// An empty tmpfs.
pub(super) fn tmpfs(at: &Path) {
    mount("tmpfs", at, MountFlags::empty());
    fs::set_permissions(at, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Covers a file with another one that holds `text`, which is made in `scratch`.
pub(super) fn cover(scratch: &Path, file: &str, text: &str) {
    let cover = scratch.join(file.trim_matches('/').replace('/', "-"));
    fs::write(&cover, text).unwrap();
    rustix::mount::mount_bind(&cover, file).unwrap();
}

/// Covers a directory with one that holds one file.
pub(super) fn cover_directory(directory: &str, file: &str, text: &str) {
    let directory = Path::new(directory);
    tmpfs(directory);
    let file = directory.join(file);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, text).unwrap();
}

/// A directory that everybody may search.
pub(super) fn open_directory() -> TempDir {
    let directory = tempfile::Builder::new()
        .prefix("virtfs-doctor-")
        .tempdir()
        .unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    directory
}

/// A program that answers `--version` with a line, and has all that `doctor` looks for.
pub(super) fn fake_qemu(directory: &Path, version: &str) -> PathBuf {
    let path = directory.join("qemu-system-fake");
    let text = format!(
        "#!/bin/sh\ncase \"$*\" in\n\
         --version) echo '{version}';;\n\
         '-device help') echo 'name \"virtio-9p-pci\", bus PCI';;\n\
         esac\n"
    );
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// `doctor` on one export, as a client that nobody else is.
pub(super) fn on(export: &Path) -> Doctor {
    Doctor::new(["--client", "61234:61235", &shown(export)])
}
