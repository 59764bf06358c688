//! The same steps on a `--shared` view and on a directory of the same file system: what each says,
//! and what each leaves behind.

use std::process::{Command, Output, Stdio};

use crate::common::{CLIENT_GID, CLIENT_UID, Export, Start, View, shown, stderr, stdout, within};

/// A view of one directory, and another without one.
pub(crate) struct Twin {
    pub(crate) view: View,
    pub(crate) export: Export,
    raw: Export,
}

/// What a step said: exit status, standard output, and standard error without the directory's name.
pub(crate) type Said = (Option<i32>, String, String);

impl Twin {
    /// `setup` is done on both, as root on the host, before the view starts.
    pub(crate) fn new(options: &[&str], setup: &str) -> Self {
        let (export, raw) = (Export::new(), Export::new());
        for one in [&export, &raw] {
            let output = on_host(&format!("cd {}\n{setup}", shown(one.path())));
            assert!(output.status.success(), "{}", stderr(&output));
        }
        let start = Start::new(&export).option("--shared");
        let start = options.iter().fold(start, |start, it| start.option(*it));
        let view = start.mount();
        Self { view, export, raw }
    }

    /// Runs a script in both as a user of one group and `groups`; what the view's said.
    #[track_caller]
    pub(crate) fn same(&self, uid: u32, groups: &[u32], script: &str) -> Said {
        let (view, raw) = self.both(uid, groups, script);
        assert_eq!(view, raw, "as {uid} {groups:?}: {script}");
        view
    }

    /// Runs a script in both: the view's words, and the directory's.
    pub(crate) fn both(&self, uid: u32, groups: &[u32], script: &str) -> (Said, Said) {
        let ids: Vec<String> = groups.iter().map(ToString::to_string).collect();
        let words = |at: &Export| {
            let further = match ids.get(1..) {
                Some(more) if !more.is_empty() => format!("--groups={}", more.join(",")),
                _ => "--clear-groups".to_owned(),
            };
            [
                "setpriv".to_owned(),
                format!("--reuid={uid}"),
                format!("--regid={}", ids[0]),
                further,
                "bash".to_owned(),
                "-c".to_owned(),
                format!("umask 022; cd {} || exit 99\n{script}", shown(at.path())),
            ]
        };
        let view = within(&self.view.name, words(&self.export));
        let raw = on_host_words(&words(&self.raw));
        (said(&view, &self.export), said(&raw, &self.raw))
    }

    /// What a script tells on the host of the export and of the other directory: the same.
    #[track_caller]
    pub(crate) fn left_the_same(&self, script: &str) -> String {
        let tell = |at: &Export| said(&on_host(&format!("cd {}\n{script}", shown(at.path()))), at);
        let (export, raw) = (tell(&self.export), tell(&self.raw));
        assert_eq!(export, raw, "left behind: {script}");
        export.1
    }
}

fn on_host(script: &str) -> Output {
    on_host_words(&["bash".to_owned(), "-c".to_owned(), script.to_owned()])
}

fn on_host_words(words: &[String]) -> Output {
    Command::new(&words[0])
        .args(&words[1..])
        .current_dir("/")
        .stdin(Stdio::null())
        .env("LC_ALL", "C")
        .output()
        .unwrap()
}

fn said(output: &Output, at: &Export) -> Said {
    let path = shown(at.path());
    let plain = |text: String| text.replace(&path, "DIR");
    (
        output.status.code(),
        plain(stdout(output)),
        plain(stderr(output)),
    )
}

/// `run` in a namespace in which `setup` was done in the export.
pub(crate) fn in_namespace(setup: &str, start: &Start, script: &str) -> Command {
    let words = start.run_words();
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private", "bash", "-ec"])
        .arg(format!(
            "umask 0; cd \"$1\"; {setup}\ncd /; shift; exec \"$@\""
        ))
        .arg("sh")
        .arg(words.iter().rev().nth(1).unwrap())
        .args(&words)
        .args(["bash", "-c", script])
        .current_dir("/")
        .env("LC_ALL", "C")
        .stdin(Stdio::null());
    command
}

/// Runs a script on a directory as the client's user, and then in a client view of it; `setup` is done
/// before each, anew, in the export, and what is mounted there is nowhere else. What both said.
#[track_caller]
pub(crate) fn same_in_namespace(setup: &str, options: &[&str], script: &str) -> String {
    let raw = Export::new();
    let plain = format!(
        "umask 0; cd \"$1\"; {setup}\nexec setpriv --reuid={CLIENT_UID} --regid={CLIENT_GID} \
         --clear-groups bash -c \"$2\""
    );
    let on_raw = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "bash", "-ec", &plain])
        .args(["sh", &shown(raw.path()), script])
        .current_dir("/")
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let export = Export::new();
    let start = Start::new(&export);
    let start = options.iter().fold(start, |start, it| start.option(*it));
    let script = format!("cd {}\n{script}", shown(export.path()));
    let in_view = in_namespace(setup, &start, &script).output().unwrap();
    let (view, raw) = (stdout(&in_view), stdout(&on_raw));
    assert_eq!(
        view,
        raw,
        "{options:?} {script}\nview: {}\nraw: {}",
        stderr(&in_view),
        stderr(&on_raw)
    );
    view
}
