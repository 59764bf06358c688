//! `record`: every decision's facts into a file, for `replay` and `suggest`.
#![allow(clippy::print_stderr, reason = "the command's account of itself")]

use std::net::Shutdown;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::sys::signal::{SigSet, Signal};
use rustix::io::Errno;
use virtfs_mediator_core::control::Line;
use virtfs_mediator_core::mediate::{Ended, Event, Verdict};
use virtfs_mediator_core::recording::{Entry, Meta, Outcome, Recorder};

use crate::control::rundir;
use crate::error::{Class, Error, Result};
use crate::live::in_force::Text;
use crate::live::link::Link;
use crate::live::trace::{Which, begin};
use crate::plan;

/// Records until interrupted or the view ends.
pub(crate) fn record(view: &str, file: &Path, which: &Which) -> Result<()> {
    plan::require_root()?;
    let state = rundir::load(view)?;
    let policy = Text::of_view(&state)?;
    let select = which.selector(&policy)?;
    let failed = |error: std::io::Error| {
        Error::new(
            Class::Configuration,
            format!("--output {}: {error}", file.display()),
            "name a file that is not there yet, on a file system with room",
        )
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let meta = Meta {
        view: state.view.clone(),
        export: state.export.display().to_string(),
        policy: state
            .policy
            .map_or_else(String::new, |file| file.display().to_string()),
        program: concat!("virtfs-mediator ", env!("CARGO_PKG_VERSION")).to_owned(),
        started: now.map_or(0, |since| since.as_secs()),
    };
    let mut link = Link::to(view)?;
    begin(&mut link, view, select)?;
    let mut recorder = Recorder::create(file, &meta).map_err(failed)?;
    // An interruption ends the connection, and so the recording as it should end.
    end_at_signal(&link)?;
    eprintln!("recording view '{view}' until interrupted (Ctrl-C)");
    let (mut missing, mut first) = (0, None);
    let mut written = Instant::now();
    while let Some(line) = link.next()? {
        match line {
            Line::Event(event) => {
                let began = *first.get_or_insert(event.at_us);
                if let Some(entry) = entry(*event, began) {
                    recorder.push(&entry).map_err(failed)?;
                }
                // Whoever is killed leaves what came before the last second.
                if written.elapsed() >= Duration::from_secs(1) {
                    recorder.flush().map_err(failed)?;
                    written = Instant::now();
                }
            }
            // A number that a broken-into mediator chose.
            Line::Dropped(count) => missing = count.saturating_add(missing),
            Line::Told(_) | Line::Done(_) | Line::NotDone { .. } => {}
        }
    }
    let summary = recorder.finish().map_err(failed)?;
    eprintln!(
        "{}: {} decisions in {} bytes",
        file.display(),
        summary.requests,
        summary.bytes
    );
    let missing = summary.left_out.saturating_add(missing);
    if missing > 0 {
        eprintln!("{missing} decisions came faster than they could be recorded, and are missing");
    }
    Ok(())
}

/// What is recorded of an event; nothing of what a person decided, which is no policy's work.
fn entry(event: Event, began: u64) -> Option<Entry> {
    let decision = event.decision;
    if decision.by_hand {
        return None;
    }
    let outcome = match (decision.verdict, event.ended) {
        (Verdict::Refused { errno, rule, .. }, _) => {
            Outcome::of_refusal(Errno::from_raw_os_error(errno.clamp(1, 4095)), rule)
        }
        (_, Ended::Failed(errno)) => {
            Outcome::of_act(Err(Errno::from_raw_os_error(errno.clamp(1, 4095))))
        }
        // Another decision about the same request refused it: this one did not.
        (_, Ended::Done | Ended::Refused) => Outcome::of_act(Ok(())),
    };
    let at = event.at_us.saturating_sub(began) / 1000;
    Some(Entry::new(at, decision.request, outcome))
}

/// When the person has had enough, no more is asked for; what was decided before still comes, and
/// what was recorded is then closed as at the view's own end.
fn end_at_signal(link: &Link) -> Result<()> {
    /// How long what is on its way may take.
    const LAST: Duration = Duration::from_secs(5);
    let failed = |errno| Error::step(Class::Confinement, "sigprocmask", errno);
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]
        .into_iter()
        .collect();
    signals.thread_block().map_err(failed)?;
    let connection = link.connection()?;
    std::thread::spawn(move || {
        if signals.wait().is_ok() {
            let _closed_already = connection.shutdown(Shutdown::Write);
            std::thread::sleep(LAST);
            let _closed_already = connection.shutdown(Shutdown::Both);
        }
    });
    Ok(())
}
