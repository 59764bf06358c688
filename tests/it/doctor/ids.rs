//! Users, groups and who else uses them.

use std::process::{Child, Command, Stdio};

use super::catalogue::Problem;
use super::harness::{Doctor, Report, Seen, cover, elsewhere, open_directory, provoke};

provoke! {
    mediator_has_no_user => [NoMediatorUser];
    mediator_unknown_or_root => [BadMediator];
    client_not_named => [NoClient];
    client_unknown_or_root => [BadClient];
    client_is_the_mediator => [SameIds];
    mediator_shares_its_user => [MediatorNotAlone];
    mediator_in_a_range_of_subuids => [MediatorDelegated];
    client_shares_its_user => [ClientNotAlone];
    client_in_a_powerful_group => [ClientGroups];
    client_in_the_mediators_group => [ClientGroups];
}

fn run(arguments: &[&str]) -> Report {
    Doctor::new(arguments.iter().copied()).run()
}

/// With user and group databases of our own.
fn with_users(passwd: &str, group: &str, arguments: &[&str]) -> Report {
    let scratch = open_directory();
    let doctor = Doctor::new(arguments.iter().copied());
    elsewhere(|| {
        cover(scratch.path(), "/etc/passwd", passwd);
        cover(scratch.path(), "/etc/group", group);
        doctor.run()
    })
}

fn mediator_has_no_user() -> Seen {
    let root = "root:x:0:0::/root:/bin/sh\n";
    let user = format!("{root}virtfs-mediator:x:61300:61300::/:/bin/false\n");
    let seen = Seen {
        control: with_users(&user, "root:x:0:\n", &[]),
        changed: with_users(root, "root:x:0:\n", &[]),
    };
    seen.changed
        .says(Problem::NoMediatorUser, &["2000000990", "adduser --system"]);
    seen
}

fn mediator_unknown_or_root() -> Seen {
    let unknown = run(&["--mediator-user", "no-such-user"]);
    unknown.says(Problem::BadMediator, &["no-such-user"]);
    assert_eq!(unknown.status, 78);
    Seen {
        control: run(&["--mediator-user", "61300"]),
        changed: run(&["--mediator-user", "root"]),
    }
}

fn client_not_named() -> Seen {
    Seen {
        control: run(&["--client", "61234"]),
        changed: run(&[]),
    }
}

fn client_unknown_or_root() -> Seen {
    let unknown = run(&["--client", "no-such-user"]);
    unknown.says(Problem::BadClient, &["no-such-user", "--client"]);
    let changed = run(&["--client", "root"]);
    assert_eq!(changed.status, 78);
    Seen {
        control: run(&["--client", "61234"]),
        changed,
    }
}

fn client_is_the_mediator() -> Seen {
    Seen {
        control: run(&["--client", "61234", "--mediator-user", "61300"]),
        changed: run(&["--client", "61300", "--mediator-user", "61300"]),
    }
}

/// A process of a user, ended when dropped.
struct Other(Child);

impl Other {
    fn of(uid: u32) -> Self {
        let child = Command::new("setpriv")
            .args([&format!("--reuid={uid}"), &format!("--regid={uid}")])
            .args(["--clear-groups", "sh", "-c", "echo ready; exec sleep 60"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut other = Self(child);
        // Once it says so, it is that user.
        let stdout = other.0.stdout.take().unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).unwrap();
        assert_eq!(line, "ready\n");
        other
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _may_have_ended = self.0.kill();
        let _status = self.0.wait();
    }
}

/// Numbers that no other test uses: tests run side by side.
fn shared(option: &str, uid: u32) -> Seen {
    let uid_text = uid.to_string();
    let control = run(&[option, &uid_text]);
    let other = Other::of(uid);
    let changed = run(&[option, &uid_text]);
    drop(other);
    Seen { control, changed }
}

fn mediator_shares_its_user() -> Seen {
    let seen = shared("--mediator-user", 61_301);
    seen.changed
        .says(Problem::MediatorNotAlone, &["61301", "process"]);
    seen
}

fn client_shares_its_user() -> Seen {
    shared("--client", 61_302)
}

fn mediator_in_a_range_of_subuids() -> Seen {
    let scratch = open_directory();
    let doctor = Doctor::new(["--mediator-user", "61300"]);
    let with = |text: &str| {
        elsewhere(|| {
            cover(scratch.path(), "/etc/subuid", text);
            doctor.run()
        })
    };
    let seen = Seen {
        control: with("alice:100000:65536\n"),
        changed: with("alice:100000:65536\nbob:61000:1000\n"),
    };
    seen.changed
        .says(Problem::MediatorDelegated, &["61300", "bob"]);
    seen
}

fn client_in_a_powerful_group() -> Seen {
    let passwd = "root:x:0:0::/root:/bin/sh\nvmuser:x:61234:61234::/:/bin/sh\n";
    let group =
        |members: &str| format!("root:x:0:\ndocker:x:61400:{members}\nkvm:x:61401:vmuser\n");
    let seen = Seen {
        control: with_users(passwd, &group(""), &["--client", "vmuser"]),
        changed: with_users(passwd, &group("vmuser"), &["--client", "vmuser"]),
    };
    seen.changed.says(Problem::ClientGroups, &["docker"]);
    seen
}

fn client_in_the_mediators_group() -> Seen {
    let mediator = ["--mediator-user", "61300:61300"];
    Seen {
        control: run(&["--client", "61234:61234", mediator[0], mediator[1]]),
        changed: run(&["--client", "61234:61300", mediator[0], mediator[1]]),
    }
}
