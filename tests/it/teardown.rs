//! Ends, each with requests in flight: a second later no process, mount or directory of ours is
//! left, and the cause is told once.

use nix::sys::signal::Signal;

use crate::common::{
    Export, LIMIT, Running, Start, assert_nothing_left, await_that, code, host_mounts, ours,
    stderr, within,
};
use crate::process::Process;

/// Four loops that never stop asking the view, whatever it answers.
const BUSY: &str = "\
i=0
while [ $i -lt 4 ]; do
    (while :; do echo x >f$i; cat f$i; ls -l .; rm f$i; done) >/dev/null 2>&1 &
    i=$((i+1))
done
echo ready
while :; do wait; sleep 1000; done";

/// How the view is used when its end comes.
#[derive(Clone, Copy, Debug)]
enum Load {
    /// Requests come and are answered.
    Busy,
    /// Requests have come and are not answered: the mediator is stopped.
    Stuck,
}

fn busy(export: &Export, load: Load) -> Running {
    let running = Start::new(export)
        .directory(export.path())
        .shell_ready(BUSY);
    if matches!(load, Load::Stuck) {
        let mediator = running.family().mediator();
        mediator.kill(Signal::SIGSTOP);
        await_that(LIMIT, "the mediator stops", || {
            mediator.state() == Some('T')
        });
        let client = running.family().client();
        // Nobody ever pauses in these loops unless the view does not answer.
        await_that(LIMIT, "a request waits for the mediator", || {
            let workers = client.descendants();
            let before: Vec<_> = workers.iter().map(|one| progress(*one)).collect();
            std::thread::sleep(std::time::Duration::from_millis(50));
            workers.len() > 4
                && workers == client.descendants()
                // Nor is one that waits for a processor stuck.
                && workers.iter().all(|one| one.state() != Some('R'))
                && before == workers.iter().map(|one| progress(*one)).collect::<Vec<_>>()
        });
    }
    running
}

/// What a process has done so far.
fn progress(process: Process) -> Option<(String, String)> {
    Some((
        process.field("voluntary_ctxt_switches")?,
        process.field("nonvoluntary_ctxt_switches")?,
    ))
}

/// Ends the view by `cause`; the launcher's end and nothing left are asserted.
fn ends(load: Load, cause: impl FnOnce(&Running)) -> crate::common::Ended {
    let export = Export::new();
    let mut running = busy(&export, load);
    cause(&running);
    running.family().assert_gone();
    let ended = running.end();
    assert_nothing_left(&running.name);
    ended
}

#[track_caller]
fn told_once(ended: &crate::common::Ended, text: &str) {
    assert_eq!(ended.told(text), 1, "{ended:?}");
    // And nothing else: no warning that is a consequence.
    assert_eq!(ended.told("ERROR"), 1, "{ended:?}");
}

#[test]
fn client_status_is_passed_on() {
    for (script, expected) in [
        ("exit 0", 0),
        ("exit 7", 7),
        ("exit 255", 255),
        ("kill -KILL $$", 137),
        ("kill -SEGV $$", 139),
    ] {
        let export = Export::new();
        let start = Start::new(&export);
        let output = start.output(["sh", "-c", script]);
        assert_eq!(code(output.status), expected, "{script}: {output:?}");
        assert_eq!(stderr(&output), "", "{script}");
        assert_nothing_left(start.name());
    }
}

#[test]
fn client_that_ends_ends_all_with_requests_in_flight() {
    let ended = ends(Load::Busy, |running| {
        running.family().client().kill(Signal::SIGKILL)
    });
    assert_eq!(ended.code(), 137, "{ended:?}");
    assert_eq!(ended.stderr, Vec::<String>::new());
}

#[test]
fn client_that_is_killed_while_the_mediator_hangs_ends_all() {
    let ended = ends(Load::Stuck, |running| {
        running.family().client().kill(Signal::SIGKILL)
    });
    assert_eq!(ended.code(), 137, "{ended:?}");
}

#[test]
fn launchers_sigterm_reaches_the_client_and_ends_all() {
    let ended = ends(Load::Busy, |running| running.signal(Signal::SIGTERM));
    assert_eq!(ended.code(), 143, "{ended:?}");
    assert_eq!(ended.told("ERROR"), 0, "{ended:?}");
}

#[test]
fn launchers_sigint_reaches_the_client_and_ends_all() {
    let ended = ends(Load::Busy, |running| running.signal(Signal::SIGINT));
    assert_eq!(ended.code(), 130, "{ended:?}");
}

#[test]
fn launchers_sigterm_is_the_clients_to_handle() {
    let export = Export::new();
    let mut running = Start::new(&export)
        .shell_ready("trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.05; done");
    running.signal(Signal::SIGTERM);
    let ended = running.end();
    assert_eq!((ended.code(), ended.stdout), (3, vec!["bye".to_owned()]));
    assert_nothing_left(&running.name);
}

#[test]
fn client_that_ignores_sigterm_is_killed_after_the_grace_period() {
    let export = Export::new();
    let mut running =
        Start::new(&export).shell_ready("trap '' TERM; echo ready; while :; do sleep 0.1; done");
    let asked = std::time::Instant::now();
    running.signal(Signal::SIGTERM);
    let ended = running.end();
    let took = asked.elapsed().as_secs_f32();
    assert!((9.0..30.0).contains(&took), "{took} s");
    assert_eq!(ended.told("did not end in time"), 1, "{ended:?}");
    running.family().assert_gone();
    assert_nothing_left(&running.name);
}

#[test]
fn killed_launcher_ends_all() {
    for load in [Load::Busy, Load::Stuck] {
        let ended = ends(load, |running| running.signal(Signal::SIGKILL));
        assert_eq!(ended.code(), 137, "{load:?}: {ended:?}");
    }
}

#[test]
fn killed_keeper_ends_all() {
    for load in [Load::Busy, Load::Stuck] {
        let ended = ends(load, |running| {
            running.family().keeper.kill(Signal::SIGKILL)
        });
        assert_eq!(ended.code(), 74, "{load:?}: {ended:?}");
        told_once(&ended, "the keeper was killed");
    }
}

#[test]
fn killed_mediator_ends_all() {
    for load in [Load::Busy, Load::Stuck] {
        let ended = ends(load, |running| {
            running.family().mediator().kill(Signal::SIGKILL)
        });
        assert_eq!(ended.code(), 74, "{load:?}: {ended:?}");
        told_once(&ended, "mediator ended (signal 9)");
    }
}

/// A stopped registrar holds the view's device: whoever else dies, it is in nobody's way.
#[test]
fn stopped_registrar_is_in_the_way_of_no_end() {
    for which in ["client", "keeper", "mediator", "warden", "init", "launcher"] {
        for load in [Load::Busy, Load::Stuck] {
            ends(load, |running| {
                let family = running.family();
                family.registrar().kill(Signal::SIGSTOP);
                let victim = match which {
                    "client" => family.client(),
                    "keeper" => family.keeper,
                    "mediator" => family.mediator(),
                    "warden" => family.warden(),
                    "init" => family.init,
                    _ => running.launcher,
                };
                victim.kill(Signal::SIGKILL);
            });
        }
    }
}

#[test]
fn killed_registrar_ends_nothing_and_is_not_missed_at_the_end() {
    for load in [Load::Busy, Load::Stuck] {
        let ended = ends(load, |running| {
            let family = running.family();
            family.registrar().kill(Signal::SIGKILL);
            await_that(LIMIT, "the keeper reaps it", || {
                family
                    .keeper
                    .children()
                    .iter()
                    .all(|one| *one != family.registrar())
            });
            assert!(family.keeper.alive() && family.mediator().alive());
            running.signal(Signal::SIGTERM);
            if matches!(load, Load::Stuck) {
                running.signal(Signal::SIGKILL);
            }
        });
        assert!([143, 137].contains(&ended.code()), "{ended:?}");
    }
}

#[test]
fn killed_warden_ends_all() {
    for load in [Load::Busy, Load::Stuck] {
        let ended = ends(load, |running| {
            running.family().warden().kill(Signal::SIGKILL)
        });
        assert_eq!(ended.code(), 74, "{load:?}: {ended:?}");
        told_once(&ended, "mediator ended (signal 9)");
    }
}

/// Makes a process call what is not on its list, by replacing a call that it is about to make.
fn provoke(victim: Process, calls: &str) {
    let mut strace = std::process::Command::new("strace")
        .args(["-f", "-qqq", "-o", "/dev/null", "-p"])
        .arg(victim.pid.to_string())
        .arg(format!("--trace={calls}"))
        // The only calls that strace can put in another's place take no argument and do nothing.
        .arg(format!("--inject={calls}:retval=0:syscall=getppid"))
        .spawn()
        .expect(crate::rules::STRACE_MISSING);
    await_that(LIMIT, "strace holds on to it", || {
        // One that is busy may be killed at once.
        !victim.alive() || victim.field("TracerPid") == Some(strace.id().to_string())
    });
    // It waits for this one, and then waits again: more than once, since strace may look on only
    // after the first.
    await_that(LIMIT, "it is killed", || {
        victim.kill(Signal::SIGCHLD);
        !victim.alive()
    });
    strace.wait().unwrap();
}

#[test]
fn process_that_makes_a_call_not_on_its_list_is_killed_and_ends_all() {
    const WAIT: &str = "?poll,?ppoll";
    let ended = ends(Load::Busy, |running| {
        provoke(running.family().keeper, WAIT);
    });
    assert_eq!(ended.code(), 74, "{ended:?}");
    told_once(&ended, "the keeper was killed (SIGSYS)");
    let ended = ends(Load::Busy, |running| {
        provoke(running.family().warden(), WAIT);
    });
    assert_eq!(ended.code(), 74, "{ended:?}");
    // The kernel ends the mediator with its pid namespace, whose init ends by the signal.
    told_once(&ended, "mediator ended (signal 31)");
    let ended = ends(Load::Busy, |running| {
        provoke(running.family().mediator(), "read");
    });
    assert_eq!(ended.code(), 74, "{ended:?}");
    told_once(&ended, "mediator ended (signal 31)");
    let ended = ends(Load::Busy, |running| provoke(running.family().init, WAIT));
    assert_eq!(ended.code(), 128 + 31, "{ended:?}");
}

#[test]
fn killed_init_of_the_client_ends_all() {
    for load in [Load::Busy, Load::Stuck] {
        let ended = ends(load, |running| running.family().init.kill(Signal::SIGKILL));
        assert_eq!(ended.code(), 137, "{load:?}: {ended:?}");
    }
}

#[test]
fn unmount_is_refused_while_a_client_runs() {
    let export = Export::new();
    let mut running = busy(&export, Load::Busy);
    let output = ours(["unmount", &running.name]);
    assert_eq!(output.status.code(), Some(74), "{output:?}");
    let told = stderr(&output);
    assert!(
        told.contains(&running.name) && told.contains("--force"),
        "{told}"
    );
    // And nothing happened.
    let family = running.family();
    assert!(family.keeper.alive() && family.mediator().alive() && family.client().alive());
    running.signal(Signal::SIGTERM);
    running.end();
    assert_nothing_left(&running.name);
}

#[test]
fn forced_unmount_ends_view_and_client() {
    for load in [Load::Busy, Load::Stuck] {
        let ended = ends(load, |running| {
            let output = ours(["unmount", "--force", &running.name]);
            assert!(output.status.success(), "{load:?}: {output:?}");
            // It returns when all is gone.
            assert!(!running.family().keeper.alive());
        });
        assert_eq!(ended.code(), 74, "{load:?}: {ended:?}");
        told_once(&ended, "was unmounted");
    }
}

#[test]
fn lazy_unmount_in_the_namespace_ends_view_and_client() {
    for load in [Load::Busy, Load::Stuck] {
        let export = Export::new();
        let mut running = busy(&export, load);
        let path = crate::common::shown(export.path());
        let output = within(&running.name, ["fusermount3", "-uz", &path]);
        assert!(output.status.success(), "{load:?}: {output:?}");
        running.family().assert_gone();
        let ended = running.end();
        assert_eq!(ended.code(), 74, "{load:?}: {ended:?}");
        told_once(&ended, "was unmounted");
        assert_nothing_left(&running.name);
    }
}

#[test]
fn plain_unmount_in_the_namespace_of_a_client_is_busy() {
    let export = Export::new();
    let mut running = busy(&export, Load::Busy);
    let path = crate::common::shown(export.path());
    let output = within(&running.name, ["fusermount3", "-u", &path]);
    assert!(!output.status.success(), "{output:?}");
    assert!(stderr(&output).contains("busy"), "{output:?}");
    assert!(running.family().client().alive() && running.family().mediator().alive());
    running.signal(Signal::SIGTERM);
    assert_eq!(running.end().code(), 143);
}

#[test]
fn plain_unmount_in_the_namespace_ends_an_unused_view() {
    let export = Export::new();
    let view = Start::new(&export).mount();
    let path = crate::common::shown(export.path());
    let output = within(&view.name, ["fusermount3", "-u", &path]);
    assert!(output.status.success(), "{output:?}");
    view.family.assert_gone();
    assert_nothing_left(&view.name);
}

#[test]
fn unmount_ends_an_unused_view_and_returns_when_all_is_gone() {
    let export = Export::new();
    let view = Start::new(&export).mount();
    assert!(view.family.clients.is_empty());
    let output = ours(["unmount", &view.name]);
    assert!(output.status.success(), "{output:?}");
    assert!(!view.family.keeper.alive());
    view.family.assert_gone();
    assert_nothing_left(&view.name);
}

#[test]
fn killed_processes_of_an_unused_view_end_the_rest() {
    for which in ["keeper", "warden", "mediator", "init"] {
        let export = Export::new();
        let view = Start::new(&export).mount();
        let victim = match which {
            "keeper" => view.family.keeper,
            "warden" => view.family.warden(),
            "mediator" => view.family.mediator(),
            _ => view.family.init,
        };
        victim.kill(Signal::SIGKILL);
        view.family.assert_gone();
        assert_nothing_left(&view.name);
        assert!(!host_mounts().contains(&view.name), "{which}");
    }
}
