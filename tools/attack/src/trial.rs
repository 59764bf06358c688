//! Tries an attack in an arrangement: starts the child that plays it, hears it, judges what came.

use std::ffi::OsString;
use std::io::{Read as _, Seek as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout};
use rustix::process::{Pid, PidfdFlags};
use virtfs_mediator::attack::Wall;

use crate::case::{Arrangement, Attempt, Verdict};
use crate::inside;
use crate::lab::Place;
use crate::task::{self, Failure, Gain, Line, Task, Weaker};

/// Who may use the views that attacks are tried in.
pub(crate) const CLIENT: u32 = 61_234;
/// How long one try may take.
const LIMIT: Duration = Duration::from_secs(120);

/// What a refusal by the product counts as told by, if the kernel alone refused: an error of a
/// call that a mediator may make is in no log.
pub(crate) const KERNELS_OWN: &str = "kernel's own errno";

/// The same, where seccomp answers ENOSYS in place of the kernel's end of the process.
pub(crate) const SECCOMPS_OWN: &str = "seccomp's ENOSYS";

/// An arrangement, and how it is entered.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    pub(crate) arrangement: Arrangement,
    weaker: Option<Weaker>,
    walls: u16,
}

const fn weaker(arrangement: Arrangement, weaker: Weaker) -> Setting {
    Setting {
        arrangement,
        weaker: Some(weaker),
        walls: 0,
    }
}

/// Root, who sees the host's root directory.
pub(crate) const ROOT: Setting = weaker(
    Arrangement::Other("root in the host's root directory"),
    Weaker::Root,
);
/// See [`Arrangement::RootInChroot`].
pub(crate) const ROOT_IN_CHROOT: Setting = weaker(Arrangement::RootInChroot, Weaker::RootInChroot);
/// See [`Arrangement::UidWithCapabilities`].
pub(crate) const UID: Setting = weaker(
    Arrangement::UidWithCapabilities,
    Weaker::UidWithCapabilities,
);
/// See [`Arrangement::ProxyHelper`].
pub(crate) const PROXY: Setting = weaker(Arrangement::ProxyHelper, Weaker::ProxyHelper);
/// The product.
pub(crate) const PRODUCT: Setting = Setting {
    arrangement: Arrangement::Product,
    weaker: None,
    walls: inside::ALL,
};

/// The product with these of its walls alone.
pub(crate) fn only(name: &'static str, walls: &[Wall]) -> Setting {
    Setting {
        arrangement: Arrangement::Walls(name),
        weaker: None,
        walls: inside::bits(walls),
    }
}

/// The product without these of its walls.
pub(crate) fn without(name: &'static str, walls: &[Wall]) -> Setting {
    Setting {
        arrangement: Arrangement::Walls(name),
        weaker: None,
        walls: inside::ALL & !inside::bits(walls),
    }
}

/// The whole product, but not as the case wants it: with another policy.
pub(crate) fn product_as(name: &'static str) -> Setting {
    Setting {
        arrangement: Arrangement::Other(name),
        ..PRODUCT
    }
}

impl Setting {
    /// The uid of who attacks there, where it is not the product's mediator.
    pub(crate) fn uid(&self) -> Option<u32> {
        match self.weaker? {
            Weaker::Root | Weaker::RootInChroot | Weaker::ProxyHelper => Some(0),
            Weaker::UidWithCapabilities => Some(crate::arrangement::OWN_ID),
        }
    }
}

/// What ended, and all that was said.
struct Heard {
    status: ExitStatus,
    stderr: String,
}

/// Tries `task` in `setting`. `policy` is the view's, where there is a view.
pub(crate) fn attempt(
    setting: &Setting,
    place: &Place,
    task: Task,
    policy: Option<&Path>,
) -> Attempt {
    let mut attempt = Attempt {
        arrangement: setting.arrangement.clone(),
        way: String::new(),
        verdict: Verdict::Untried("nothing was heard".to_owned()),
        told: None,
    };
    let task = Task {
        weaker: setting.weaker,
        walls: setting.walls,
        outside: place.outside(),
        ..task
    };
    let heard = match setting.weaker {
        Some(_) => run_weaker(&task),
        None => run_product(place, &task, policy, &[]),
    };
    match heard {
        Ok(heard) => {
            (attempt.verdict, attempt.told) = judge(place, &heard);
            let absent = attempt.verdict == Verdict::Refused("ENOSYS".to_owned());
            if absent && task.walls & inside::bits(&[Wall::Seccomp]) != 0 {
                attempt.told = Some(SECCOMPS_OWN.to_owned());
            }
            if killed(&attempt.verdict) {
                confirm(&mut attempt, place, &task, policy);
            }
        }
        Err(why) => attempt.verdict = Verdict::Untried(why),
    }
    if !place.is_untouched() {
        attempt.verdict = Verdict::Succeeded("the canary was changed".to_owned());
    }
    attempt
}

const KILLED: &str = "killed (SIGSYS)";

fn killed(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Refused(how) if how == KILLED)
}

/// The same with `--debug`, where the mediator tells the number of the call that seccomp refused:
/// it must be the attack's.
fn confirm(attempt: &mut Attempt, place: &Place, task: &Task, policy: Option<&Path>) {
    const TOLD: &str = "virtfs-mediator: seccomp refused system call number";
    let told = run_product(place, task, policy, &["--debug"]).and_then(|heard| {
        heard
            .stderr
            .lines()
            .find_map(|line| line.strip_prefix(TOLD)?.trim().parse::<libc::c_long>().ok())
            .ok_or_else(|| format!("with --debug, no call was told: {}", tail(&heard.stderr)))
    });
    match (told, crate::acts::system_call(&task.act)) {
        (Ok(number), Some(call)) if number != call => {
            attempt.verdict = Verdict::Untried(format!(
                "killed for system call {number}, but the attack is {call}"
            ));
        }
        (Ok(number), _) => {
            let line = attempt.told.take().unwrap_or_default();
            attempt.told = Some(format!("{line} (system call {number}, by --debug)"));
        }
        (Err(why), _) => attempt.verdict = Verdict::Untried(why),
    }
}

/// What a child's words and its end amount to, and what our own log told of it.
fn judge(place: &Place, heard: &Heard) -> (Verdict, Option<String>) {
    let lines = task::heard(&heard.stderr);
    let began = lines.contains(&Line::Begins);
    let ended = lines.into_iter().find_map(|line| match line {
        Line::Ended(ended) => Some(ended),
        Line::Begins => None,
    });
    let untried = |why: String| (Verdict::Untried(why), None);
    let by_kernel = || Some(KERNELS_OWN.to_owned());
    match ended {
        Some(Ok(Gain::Bytes(bytes))) if place.betrays(&bytes) => {
            (Verdict::Succeeded("the canary's secret".to_owned()), None)
        }
        Some(Err(Failure::Unprepared(why))) => untried(why),
        Some(other) if !began => untried(format!("it ended before it began: {other:?}")),
        Some(Ok(Gain::Bytes(bytes))) => {
            let shown = String::from_utf8_lossy(&bytes).into_owned();
            (
                Verdict::Refused(format!("read something else: {shown}")),
                by_kernel(),
            )
        }
        Some(Ok(Gain::Effect(effect))) => (Verdict::Succeeded(effect), None),
        Some(Err(Failure::Errno(errno))) => (Verdict::Refused(format!("{errno:?}")), by_kernel()),
        Some(Err(Failure::Nothing(what))) => (Verdict::Refused(what), by_kernel()),
        None => {
            let line = |wanted: &str| {
                let mut lines = heard.stderr.lines();
                lines.find(|line| line.contains(wanted)).map(str::to_owned)
            };
            if let Some(told) = line("its mediator ended (signal 31)")
                && began
            {
                (Verdict::Refused(KILLED.to_owned()), Some(told))
            } else if let Some(told) = line("is open and has no name")
                .or_else(|| line("should be the control socket, but is"))
            {
                if told.contains("outside") {
                    let how = "the start ends, naming the descriptor".to_owned();
                    (Verdict::Refused(how), Some(told))
                } else {
                    untried(format!("the start ends for another descriptor: {told}"))
                }
            } else {
                untried(format!("{}: {}", heard.status, tail(&heard.stderr)))
            }
        }
    }
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines
        .get(lines.len().saturating_sub(4)..)
        .unwrap_or_default()
        .join(" | ")
}

fn this_program() -> Result<PathBuf, String> {
    std::env::current_exe().map_err(|error| format!("this program's own path: {error}"))
}

fn run_weaker(task: &Task) -> Result<Heard, String> {
    let mut command = Command::new(this_program()?);
    command.env(task::ROLE, task::WEAKER);
    run(command, task)
}

fn run_product(
    place: &Place,
    task: &Task,
    policy: Option<&Path>,
    options: &[&str],
) -> Result<Heard, String> {
    let mut command = Command::new(this_program()?);
    command.env(task::ROLE, task::PRODUCT);
    let name = view_name();
    command.args(mount_arguments(&name, &place.export(), policy));
    command.args(options);
    let heard = run(command, task)?;
    let left = Path::new("/run/virtfs-mediator").join(name);
    if left.exists() {
        return Err(format!("{} was left behind", left.display()));
    }
    Ok(heard)
}

/// A name that no other run uses.
pub(crate) fn view_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("attack-{}-{number}", std::process::id())
}

/// The product's command line for a view that stays in the foreground.
pub(crate) fn mount_arguments(name: &str, export: &Path, policy: Option<&Path>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["mount".into(), "--foreground".into()];
    arguments.extend(["--name".into(), name.into()]);
    arguments.extend(["--client".into(), format!("{CLIENT}:{CLIENT}").into()]);
    if let Some(policy) = policy {
        arguments.extend(["--policy".into(), policy.into()]);
    }
    arguments.push(export.into());
    arguments
}

fn run(mut command: Command, task: &Task) -> Result<Heard, String> {
    let text = serde_json::to_string(task).map_err(|error| error.to_string())?;
    let failed = |error: std::io::Error| format!("a file for what is told: {error}");
    let mut stderr = tempfile::tempfile().map_err(failed)?;
    command
        .env(task::TASK, text)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(stderr.try_clone().map_err(failed)?);
    let child = command.spawn().map_err(|error| error.to_string())?;
    let status = ends_within(child, LIMIT)?;
    stderr.rewind().map_err(failed)?;
    let mut bytes = Vec::new();
    stderr.read_to_end(&mut bytes).map_err(failed)?;
    Ok(Heard {
        status,
        stderr: String::from_utf8_lossy(&bytes).into_owned(),
    })
}

/// Waits for a child; one that does not end in time is killed (the product's keeper then ends all
/// that belongs to it).
pub(crate) fn ends_within(mut child: Child, limit: Duration) -> Result<ExitStatus, String> {
    let ended = await_end(&child, limit);
    if !matches!(ended, Ok(true)) {
        let _already_gone = child.kill();
    }
    let status = child.wait().map_err(|error| error.to_string())?;
    match ended {
        Ok(true) => Ok(status),
        Ok(false) => Err(format!(
            "did not end within {limit:?}: {:?}",
            status.signal()
        )),
        Err(why) => Err(why),
    }
}

/// Whether a child ends in time.
pub(crate) fn await_end(child: &Child, limit: Duration) -> Result<bool, String> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or("a child without a number")?;
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())
        .map_err(|errno| format!("pidfd_open: {errno}"))?;
    let mut fds = [PollFd::new(
        std::os::fd::AsFd::as_fd(&pidfd),
        PollFlags::POLLIN,
    )];
    let limit = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
    match nix::poll::poll(&mut fds, limit) {
        Ok(count) => Ok(count > 0),
        Err(errno) => Err(format!("poll: {errno}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(stderr: &str) -> (Verdict, Option<String>) {
        let place = Place::new().unwrap();
        let secret = std::fs::read(place.outside().join("canary")).unwrap();
        let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        let heard = Heard {
            status: ExitStatus::from_raw(0),
            stderr: stderr.replace("SECRET", &hex),
        };
        judge(&place, &heard)
    }

    fn is_untried(stderr: &str) -> bool {
        matches!(judged(stderr), (Verdict::Untried(_), None))
    }

    const BEGINS: &str = "virtfs-attack: begins\n";

    #[test]
    fn secret_alone_counts_as_read() {
        let (verdict, _) = judged(&format!("{BEGINS}virtfs-attack: got SECRET\n"));
        assert!(matches!(verdict, Verdict::Succeeded(_)), "{verdict:?}");
        let (verdict, _) = judged(&format!("{BEGINS}virtfs-attack: got 00\n"));
        assert!(matches!(verdict, Verdict::Refused(_)), "{verdict:?}");
    }

    #[test]
    fn errno_is_told_by_the_kernel_alone() {
        let (verdict, told) = judged(&format!("{BEGINS}virtfs-attack: errno 13\n"));
        assert_eq!(verdict, Verdict::Refused("EACCES".to_owned()));
        assert_eq!(told.as_deref(), Some(KERNELS_OWN));
    }

    #[test]
    fn end_by_seccomp_is_told_by_the_keeper() {
        let line = "ERROR view x: its mediator ended (signal 31)";
        let (verdict, told) = judged(&format!("{BEGINS}{line}\n"));
        assert_eq!(verdict, Verdict::Refused(KILLED.to_owned()));
        assert_eq!(told.as_deref(), Some(line));
    }

    #[test]
    fn what_ends_before_the_attack_proves_nothing() {
        assert!(is_untried("ERROR view x: its mediator ended (signal 31)\n"));
        assert!(is_untried("virtfs-attack: errno 1\n"));
        assert!(is_untried("virtfs-attack: unprepared mkdirat\n"));
        assert!(is_untried(""));
        let other = format!("{BEGINS}ERROR view x: its mediator ended (signal 9)\n");
        assert!(is_untried(&other));
    }

    #[test]
    fn start_that_ends_must_name_the_planted_descriptor() {
        let of = |path| format!("ERROR descriptor 3 (\"{path}\") is open and has no name: fault\n");
        let (verdict, told) = judged(&of("/tmp/x/outside"));
        assert!(matches!(verdict, Verdict::Refused(_)), "{verdict:?}");
        assert!(told.is_some());
        assert!(is_untried(&of("/proc")));
    }
}
