//! A view whose policy is watched, stepped through and changed while it is in use.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal;

use crate::common::{
    CLIENT_GID, CLIENT_UID, Ended, Export, LIMIT, Lines, Running, Start, View, assert_nothing_left,
    await_that, ours, program, shown, stderr, stdout, within_as,
};
use crate::process::Process;

const ALLOW: &str = "default = \"allow\"\n";

/// An export and the policy file of its view.
struct Site {
    export: Export,
    policy: PathBuf,
}

impl Site {
    fn new(policy: &str) -> Self {
        let export = Export::new();
        let file = export.beside("policy.toml");
        fs::write(&file, policy).unwrap();
        Self {
            export,
            policy: file,
        }
    }

    fn start(&self) -> Start {
        Start::new(&self.export)
            .option("--policy")
            .option(shown(&self.policy))
    }

    /// A directory in the export that everybody may write to.
    fn open_directory(&self, name: &str) {
        let path = self.export.path().join(name);
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
    }

    fn set(&self, policy: &str) {
        fs::write(&self.policy, policy).unwrap();
    }

    /// `RULE` behind a default that allows.
    fn rule(rule: &str) -> String {
        format!("{ALLOW}[[rule]]\n{rule}\n")
    }
}

#[track_caller]
fn reload(view: &str) {
    let output = ours(["reload", view]);
    assert!(output.status.success(), "{}", stderr(&output));
}

/// What the client's user gets from a shell in the view.
fn sh(view: &str, script: &str) -> String {
    let output = within_as(view, CLIENT_UID, CLIENT_GID, &["sh", "-c", script]);
    format!("{}{}", stdout(&output), stderr(&output))
}

/// A client with one shell that does line by line what it is told.
struct Typed {
    running: Running,
    to: std::process::ChildStdin,
}

impl Typed {
    fn start(start: &Start) -> Self {
        let mut command = start.command(["sh"]);
        command.stdin(Stdio::piped());
        let mut running = Running::spawn(command, start.name().to_owned());
        let to = running.stdin();
        let mut typed = Self { running, to };
        typed.say("echo ready");
        typed.running.ready();
        typed
    }

    fn say(&mut self, line: &str) {
        writeln!(self.to, "{line}").unwrap();
    }

    /// Its next line.
    #[track_caller]
    fn hear(&mut self) -> String {
        self.running.stdout.next().expect("a line of the client's")
    }

    fn end(mut self) -> Ended {
        self.say("exit 0");
        self.running.end()
    }
}

/// A stepping console with a script that is given line by line.
struct Console {
    child: Child,
    to: std::process::ChildStdin,
    lines: Lines,
}

impl Console {
    fn attach(view: &str, options: &[&str]) -> Self {
        // A script is read whole before it begins: a FIFO lets the console wait for its end.
        let mut child = Command::new("script")
            .args(["--quiet", "--return", "--command"])
            .arg(format!(
                "env NO_COLOR=1 TERM=dumb {} step {view} {}",
                program(),
                options.join(" ")
            ))
            .arg("/dev/null")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let to = child.stdin.take().unwrap();
        let lines = Lines::of(child.stdout.take().unwrap());
        let console = Self { child, to, lines };
        console.lines.until_part("attached to");
        console
    }

    fn say(&mut self, line: &str) {
        writeln!(self.to, "{line}").unwrap();
    }

    #[track_caller]
    fn until(&self, part: &str) -> String {
        self.lines.until_part(part)
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        let _gone_already = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// A console with a script.
fn started(view: &str, text: &str) -> Child {
    let mut child = Command::new(program())
        .args(["step", view, "--script", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    child
}

fn script(view: &str, text: &str) -> std::process::Output {
    started(view, text).wait_with_output().unwrap()
}

#[test]
fn reload_reaches_what_the_kernel_remembers_and_what_is_open() {
    let site = Site::new(ALLOW);
    let path = site.export.path().to_owned();
    fs::create_dir(path.join("dir")).unwrap();
    fs::write(path.join("dir/secret"), "data").unwrap();
    fs::write(path.join("open"), "0123456789").unwrap();
    let at = shown(&path);
    // The kernel remembers for an hour what it was told: only a reload makes it forget.
    let start = site.start().option("--cache").option("exclusive");
    let mut client = Typed::start(&start);
    let view = start.name().to_owned();
    client.say(&format!(
        "exec 5< {at}/open; head -c 1 <&5; echo; stat -c %n {at}/dir/secret; cat {at}/dir/secret; echo; \
         ls {at}/dir; ls {at}/missing 2>/dev/null; echo end"
    ));
    for line in ["0", &format!("{at}/dir/secret"), "data", "secret", "end"] {
        assert_eq!(client.hear(), line);
    }
    // What was missing appears on the host, behind the view's back: remembered as missing.
    fs::write(path.join("missing"), "").unwrap();
    client.say(&format!(
        "test -e {at}/missing || echo remembered; echo end"
    ));
    assert_eq!(client.hear(), "remembered");
    client.hear();

    site.set(&format!(
        "{ALLOW}[[rule]]\npath = \"/dir/secret\"\naction = \"hide\"\n\
         [[rule]]\npath = \"/open\"\ndo = \"read\"\naction = \"deny\"\n"
    ));
    // `cache` is the command line's, so that the policy does not speak of it.
    reload(&view);
    client.say(&format!(
        "stat -c %n {at}/dir/secret 2>&1 | grep -o 'No such file'; cat {at}/dir/secret 2>/dev/null; \
         ls {at}/dir; head -c 1 <&5 2>&1 | grep -o 'Permission denied'; \
         test -e {at}/missing && echo found; echo end"
    ));
    for line in ["No such file", "Permission denied", "found", "end"] {
        assert_eq!(client.hear(), line);
    }
    // And back again.
    site.set(ALLOW);
    reload(&view);
    client.say(&format!(
        "cat {at}/dir/secret; echo; head -c 1 <&5; echo; echo end"
    ));
    for line in ["data", "1", "end"] {
        assert_eq!(client.hear(), line);
    }
    assert_eq!(client.end().code(), 0);
}

#[test]
fn reload_of_a_policy_with_mistakes_changes_nothing_and_names_them() {
    let site = Site::new(&Site::rule("path = \"/x\"\naction = \"deny\""));
    let view = site.start().mount();
    site.set("default = \"allow\"\nreadnly = true\n");
    let output = ours(["reload", &view.name]);
    assert_eq!(output.status.code(), Some(78), "{output:?}");
    let told = stderr(&output);
    assert!(
        told.contains("policy.toml:2:1") && told.contains("readonly"),
        "{told}"
    );
    // What would need other walls.
    site.set("default = \"allow\"\nset_id = \"allow\"\n");
    let output = ours(["reload", &view.name]);
    assert_eq!(output.status.code(), Some(78), "{output:?}");
    assert!(stderr(&output).contains("set-id"), "{output:?}");
    // What a guest could change.
    let inside = site.export.path().join("policy.toml");
    fs::write(&inside, ALLOW).unwrap();
    let output = ours(["reload", &view.name, "--policy", &shown(&inside)]);
    assert_eq!(output.status.code(), Some(78), "{output:?}");
    assert!(stderr(&output).contains("which is shared"), "{output:?}");
    // Tried only.
    site.set(ALLOW);
    let output = ours(["reload", "--dry-run", &view.name]);
    assert!(output.status.success(), "{output:?}");
    let at = shown(site.export.path());
    let refused = sh(&view.name, &format!("echo > {at}/x"));
    assert!(refused.contains("Permission denied"), "{refused}");
    reload(&view.name);
    assert_eq!(sh(&view.name, &format!("echo > {at}/x")), "");
    let output = ours(["status", "--json", &view.name]);
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["mediator"]["status"]["epoch"], 1);
}

#[test]
fn readonly_view_stays_so_whatever_is_loaded() {
    let site = Site::new(ALLOW);
    let view = site.start().option("--readonly").mount();
    reload(&view.name);
    let at = shown(site.export.path());
    let refused = sh(&view.name, &format!("echo > {at}/x"));
    assert!(refused.contains("Read-only"), "{refused}");
}

#[test]
fn view_without_a_policy_file_takes_one() {
    let export = Export::new();
    let view = Start::new(&export).mount();
    let output = ours(["reload", &view.name]);
    assert_eq!(output.status.code(), Some(64), "{output:?}");
    assert!(stderr(&output).contains("--policy"), "{output:?}");
    let file = export.beside("other.toml");
    // The default allows set-id bits; what allows less fits.
    fs::write(&file, "default = \"deny\"\n").unwrap();
    let output = ours(["reload", &view.name, "--policy", &shown(&file)]);
    assert!(output.status.success(), "{}", stderr(&output));
    let refused = sh(&view.name, &format!("ls {}", shown(export.path())));
    assert!(refused.contains("Permission denied"), "{refused}");
}

/// Under load: a writer and a reader while the policy goes to and fro. No request that began after
/// a reload had returned may be answered by the policy before it.
#[test]
fn reload_under_load_gives_no_wrong_verdict() {
    let site = Site::new(ALLOW);
    let at = shown(site.export.path());
    site.open_directory("d");
    let start = site.start();
    let view = start.mount();
    let noise: Vec<Child> = (0..2)
        .map(|worker| {
            let script = format!(
                "while :; do echo x > {at}/d/f{worker}; cat {at}/d/f{worker}; ls {at}/d; rm -f {at}/d/f{worker}; done"
            );
            Command::new(program())
                .args(["enter", &view.name, "--", "sh", "-c", &script])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    let deny =
        Site::rule("path = \"/d/**\"\ndo = [\"make\", \"write\", \"read\"]\naction = \"deny\"");
    let probe = format!("echo y > {at}/d/probe && cat {at}/d/probe");
    for round in 0..20 {
        site.set(&deny);
        reload(&view.name);
        let told = sh(&view.name, &probe);
        assert!(told.contains("Permission denied"), "round {round}: {told}");
        site.set(ALLOW);
        reload(&view.name);
        assert_eq!(sh(&view.name, &probe), "y", "round {round}");
    }
    drop(view);
    for mut child in noise {
        child.wait().unwrap();
    }
    assert_nothing_left(start.name());
}

#[test]
fn trace_tells_decisions_with_their_rule_and_selects() {
    let site = Site::new(&Site::rule(
        "name = \"frozen\"\npath = \"/no*\"\ndo = \"make\"\naction = \"deny\"",
    ));
    let at = shown(site.export.path());
    let view = site.start().mount();
    let traced = |options: &[&str]| {
        let mut child = Command::new(program())
            .args(["trace", &view.name])
            .args(options)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = Lines::of(child.stdout.take().unwrap());
        (child, lines)
    };
    let (mut all, shown_all) = traced(&[]);
    let (mut some, refused) = traced(&["--deny", "--json"]);
    let (mut one, ruled) = traced(&["--rule", "frozen", "--op", "make", "--path", "/no*"]);
    await_that(LIMIT, "all three watch", || {
        // They only see what comes after.
        let _made = sh(&view.name, &format!("echo > '{at}/yes'"));
        shown_all.try_next().is_some()
    });
    // The slowest of them has connected once it shows one.
    await_that(LIMIT, "refusals are told", || {
        let _refused = sh(&view.name, &format!("printf x > '{at}/no\u{1b}[2J'"));
        refused.try_next().is_some() && ruled.try_next().is_some()
    });
    let told = shown_all.until_part("deny EACCES");
    assert!(
        told.contains("create /no\\x1b[2J") && told.contains("rule 1 \"frozen\" (line 2)"),
        "{told}"
    );
    for child in [&mut all, &mut some, &mut one] {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let output = ours(["trace", &view.name, "--rule", "nix"]);
    assert_eq!(output.status.code(), Some(64), "{output:?}");
    let output = ours(["trace", &view.name, "--op", "mak"]);
    assert_eq!(output.status.code(), Some(64), "{output:?}");
    assert!(stderr(&output).contains("`make`"), "{output:?}");
}

#[test]
fn recording_is_replayed_and_suggested_from() {
    let site = Site::new(&Site::rule("path = \"/no\"\naction = \"deny\""));
    fs::write(site.export.path().join("no"), "").unwrap();
    let at = shown(site.export.path());
    let view = site.start().mount();
    let file = site.export.beside("recording");
    let mut child = Command::new(program())
        .args(["record", &view.name, "-o", &shown(&file)])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    told.read_line(&mut line).unwrap();
    assert!(line.contains("recording"), "{line}");
    let done = sh(
        &view.name,
        &format!(
            "mkdir {at}/d; for i in 1 2 3; do echo x > {at}/d/$i; done; chmod 700 {at}/d/1; cat {at}/d/3; cat {at}/no"
        ),
    );
    assert!(done.contains("Permission denied"), "{done}");
    Process::find(i32::try_from(child.id()).unwrap())
        .unwrap()
        .kill(Signal::SIGINT);
    assert!(child.wait().unwrap().success());
    line.clear();
    told.read_to_string(&mut line).unwrap();
    assert!(line.contains("decisions"), "{line}");

    // As it was, nothing changes.
    let replay = |policy: &str| {
        let output = ours(["replay", &shown(&file), policy]);
        format!("{}{}", stdout(&output), stderr(&output))
    };
    let same = replay(&shown(&site.policy));
    assert!(same.starts_with("none of "), "{same}");
    let stricter = site.export.beside("stricter.toml");
    fs::write(&stricter, Site::rule("do = \"mode\"\naction = \"deny\"")).unwrap();
    let changed = replay(&shown(&stricter));
    assert!(changed.contains("chmod /d/1 0700"), "{changed}");

    let output = ours(["suggest", &shown(&file)]);
    assert!(output.status.success(), "{output:?}");
    let suggested = site.export.beside("suggested.toml");
    fs::write(&suggested, &output.stdout).unwrap();
    let checked = ours(["policy", "check", &shown(&suggested)]);
    assert!(checked.status.success(), "{checked:?}");
    // It runs what was recorded, and no more.
    let output = ours(["reload", &view.name, "--policy", &shown(&suggested)]);
    assert!(output.status.success(), "{}", stderr(&output));
    let again = sh(
        &view.name,
        &format!("echo x > {at}/d/2; chmod 711 {at}/d/1; cat {at}/d/3"),
    );
    assert_eq!(again, "x", "{}", stdout(&ours(["suggest", &shown(&file)])));
    let more = sh(
        &view.name,
        &format!("rm {at}/d/1; chown 1:1 {at}/d/2; cat {at}/no"),
    );
    assert_eq!(
        more.matches("ermission denied").count() + more.matches("not permitted").count(),
        3,
        "{more}"
    );
}

#[test]
fn script_steps_through_a_view() {
    let site = Site::new(&Site::rule(
        "name = \"frozen\"\npath = \"/site/**\"\ndo = \"change\"\naction = \"deny\"",
    ));
    site.open_directory("site");
    let at = shown(site.export.path());
    let go = site.export.beside("go");
    let softer = site.export.beside("softer.toml");
    fs::write(
        &softer,
        Site::rule("name = \"frozen\"\npath = \"/site/**\"\ndo = \"remove\"\naction = \"deny\""),
    )
    .unwrap();
    let start = site.start().option("--step");
    let mut command = start.command([
        "sh",
        "-c",
        &format!(
            "mkdir {at}/site/a; echo mkdir $?; mkdir {at}/site/b; echo mkdir $?; \
             echo x > {at}/site/c; echo write $?; \
             until test -e {}; do :; done; rmdir {at}/site/a; echo rmdir $?",
            shown(&go)
        ),
    ]);
    command.stdin(Stdio::null());
    let mut running = Running::spawn(command, start.name().to_owned());
    await_that(LIMIT, "the view waits for its console", || {
        ours(["status", start.name()]).status.success()
    });
    let text = format!(
        "break path /site/** op make\nwait\nwhy\nallow once\nwait\nprint-rule\ndeny once EROFS\n\
         wait\nedit {}\nbreak deny\nkeep\nwait\nfacts\nlist\ninfo\ncontinue\ndetach\n",
        shown(&softer)
    );
    let mut console = started(start.name(), &text);
    let lines = Lines::of(console.stdout.take().unwrap());
    // Nothing is held while a policy is being loaded: the client waits for its end.
    let mut told = lines.until_seen("in force (reload");
    fs::write(&go, "").unwrap();
    told.extend(lines.rest());
    let told = told.join("\n");
    let stepped = console.wait_with_output().unwrap();
    let ended = running.end();
    assert!(stepped.status.success(), "{told}\n{stepped:?}\n{ended:?}");
    for part in [
        "mkdir /site/a 0755: deny EACCES by rule 1 \"frozen\" (line 2)",
        "rule \"frozen\", line 2 (deny): decides",
        "path = [\"/site/a\"]\ndo = [\"mkdir\"]\naction = \"allow\"",
        "deny EACCES (rule \"frozen\", line 2) -> allow (default)",
        "in force (reload 1)",
        "rmdir /site/a: deny EACCES",
        "=>    2 | [[rule]]",
        "path       /site/a",
    ] {
        assert!(told.contains(part), "{part}\n{told}");
    }
    let did = ["mkdir 0", "mkdir 1", "write 0", "rmdir 1"];
    assert_eq!(ended.stdout, did, "{ended:?}\n{told}");
    // By hand or by rule: each is on record.
    assert_eq!(ended.told("allowed by hand"), 1, "{ended:?}");
    assert_eq!(ended.told("refused by hand"), 1, "{ended:?}");
}

#[test]
fn script_ends_at_its_first_mistake() {
    let site = Site::new(ALLOW);
    let view = site.start().mount();
    for (text, part) in [
        ("facts\n", "no request is held"),
        ("brek\n", "no command `brek`"),
        ("break op mak\n", "make"),
        ("break rule 7\n", "no rule `7`"),
        ("delete 3\n", "no breakpoint 3"),
        ("edit /nonexistent\n", "/nonexistent"),
        ("keep\n", "nothing was edited"),
        ("wait 1\n", "nothing was held"),
    ] {
        let output = script(&view.name, &format!("{text}info\n"));
        assert!(!output.status.success(), "{text}");
        let told = stderr(&output);
        assert!(told.contains(part), "{text}: {told}");
        assert!(!stdout(&output).contains("info"), "{text}");
    }
}

#[test]
fn console_in_a_terminal_is_told_above_the_prompt_and_its_end_frees_what_it_held() {
    let site = Site::new(ALLOW);
    site.open_directory("dir");
    fs::write(site.export.path().join("other"), "elsewhere").unwrap();
    let at = shown(site.export.path());
    let view = site.start().mount();
    let mut console = Console::attach(&view.name, &[]);
    console.say("break op make");
    console.until("breakpoint 1: op make");
    let mut made = Command::new(program())
        .args([
            "enter",
            &view.name,
            "--",
            "mkdir",
            &format!("{at}/dir/held"),
        ])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    console.until("mkdir /dir/held");
    // What is in the same directory waits for the kernel's lock; everything else goes on.
    assert_eq!(sh(&view.name, &format!("cat {at}/other")), "elsewhere");
    assert!(made.try_wait().unwrap().is_none());
    assert!(!site.export.path().join("dir/held").exists());
    // Killed: production at once.
    drop(console);
    assert!(made.wait().unwrap().success());
    assert!(site.export.path().join("dir/held").exists());
    await_that(LIMIT, "no console is attached", || {
        let output = ours(["status", "--json", &view.name]);
        let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        told["mediator"]["status"]["held"] == 0
    });
}

#[test]
fn console_knows_the_rules_of_a_policy_that_somebody_else_reloads() {
    let site = Site::new(ALLOW);
    let at = shown(site.export.path());
    let view = site.start().mount();
    let mut console = Console::attach(&view.name, &[]);
    console.say("break deny");
    console.until("breakpoint 1");
    site.set(&Site::rule(
        "name = \"later\"\ndo = \"make\"\naction = \"deny\"",
    ));
    reload(&view.name);
    let mut made = Command::new(program())
        .args(["enter", &view.name, "--", "mkdir", &format!("{at}/x")])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    console.until("by rule 1 \"later\" (line 2)");
    console.say("continue");
    assert_eq!(made.wait().unwrap().code(), Some(1));
}

#[test]
fn request_that_is_held_too_long_is_refused() {
    let site = Site::new(ALLOW);
    let at = shown(site.export.path());
    let view = site.start().mount();
    let mut console = Console::attach(&view.name, &["--hold-limit", "1"]);
    console.say("break op make");
    console.until("breakpoint 1");
    let told = sh(&view.name, &format!("mkdir {at}/x"));
    assert!(told.contains("Permission denied"), "{told}");
    console.until("nobody answered in time");
}

#[test]
fn view_with_a_held_request_can_be_ended() {
    let site = Site::new(ALLOW);
    let at = shown(site.export.path());
    let start = site.start();
    let view: View = start.mount();
    let mut console = Console::attach(&view.name, &[]);
    console.say("break op make");
    console.until("breakpoint 1");
    let mut made = Command::new(program())
        .args(["enter", &view.name, "--", "mkdir", &format!("{at}/held")])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    console.until("mkdir /held");
    let output = ours(["unmount", "--force", &view.name]);
    assert!(output.status.success(), "{}", stderr(&output));
    made.wait().unwrap();
    view.family.assert_gone();
    assert_nothing_left(start.name());
}

#[test]
fn console_speaks_of_the_policy_that_another_terminal_reloaded() {
    let site = Site::new(&Site::rule(
        "name = \"old\"\npath = \"/x\"\naction = \"deny\"",
    ));
    let at = shown(site.export.path());
    let view = site.start().mount();
    let mut console = Console::attach(&view.name, &["--hold-limit", "1"]);
    console.say("break deny");
    console.until("breakpoint 1");
    site.set(&Site::rule(
        "name = \"new\"\npath = \"/y\"\naction = \"deny\"",
    ));
    reload(&view.name);
    let told = sh(&view.name, &format!("mkdir {at}/y"));
    assert!(told.contains("Permission denied"), "{told}");
    console.until("the policy has changed (reload 1)");
    console.until("rule 1 \"new\" (line 2)");
}

#[test]
fn policy_that_was_edited_and_kept_is_told_from_its_file() {
    let site = Site::new(&Site::rule("path = \"/x\"\naction = \"deny\""));
    let at = shown(site.export.path());
    let view = site.start().mount();
    let commands = site.export.beside("commands");
    fs::write(&commands, "edit\nkeep\ninfo\n").unwrap();
    let output = Command::new(program())
        .args(["step", &view.name, "--script", &shown(&commands)])
        .env_remove("VISUAL")
        .env("EDITOR", "sed -i s/deny/allow/")
        .output()
        .unwrap();
    let told = stdout(&output);
    assert!(output.status.success(), "{told}\n{}", stderr(&output));
    assert!(
        told.contains("(edited here; the file is as it was)"),
        "{told}"
    );
    assert_eq!(sh(&view.name, &format!("echo > {at}/x")), "");
    assert!(fs::read_to_string(&site.policy).unwrap().contains("deny"));
}

#[test]
fn second_console_is_told_of_the_first() {
    let site = Site::new(ALLOW);
    let view = site.start().mount();
    let _first = Console::attach(&view.name, &[]);
    let output = script(&view.name, "info\n");
    assert_eq!(output.status.code(), Some(78), "{output:?}");
    assert!(stderr(&output).contains("another"), "{output:?}");
}
