//! Views whose processes may have 1,024 descriptors: who a file is does not depend on them.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::common::{
    CLIENT_GID, CLIENT_UID, Export, Running, Start, View, metrics, program, shown, stderr, stdout,
    within,
};
use crate::process::{Family, Process};

/// `mount` with no more descriptors for any process of the view.
fn mount(export: &Export, options: &[&str]) -> View {
    let name = crate::common::unique_name();
    let output = Command::new("prlimit")
        .args(["--nofile=1024:1024", program(), "mount", "--name", &name])
        .args(["--client", &format!("{CLIENT_UID}:{CLIENT_GID}")])
        .args(options)
        .arg(export.path())
        .current_dir("/")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    View {
        family: Family::of_view(&name),
        name,
    }
}

/// A Perl script as the client of a view: the export is `$V`, and what it gives to `host` is done on
/// the host, in the export. What it printed besides, and the most descriptors that its mediator had.
fn perl(export: &Export, cache: &str, script: &str) -> String {
    let path = shown(export.path());
    for file in 1..=1000 {
        let crowd = export.path().join("crowd");
        fs::create_dir_all(&crowd).unwrap();
        fs::write(crowd.join(file.to_string()), "").unwrap();
    }
    let script = format!(
        "use strict; use warnings; use Fcntl qw(:mode :DEFAULT); use Errno; $| = 1;
         our $V = '{path}'; print \"ready\\n\";
         sub host {{ print \"host $_[0]\\n\"; <STDIN> eq \"done\\n\" or die $_[0] }}
         # A file that is known and not open: O_PATH tells no file system.
         sub hold {{ sysopen(my $f, $_[0], 0x200000) or die \"$_[0]: $!\"; $f }}
         sub make {{ open(my $f, '>', $_[0]) or die \"$_[0]: $!\"; print $f $_[1]; close $f or die }}
         sub text {{ open(my $f, '<', $_[0]) or return \"$!\"; local $/; my $t = <$f>; defined $t ? $t : \"$!\" }}
         # More names than the mediator may have descriptors.
         sub crowd {{ for (1..1000) {{ print \"...\\n\" if $_ % 100 == 0; open(my $f, '<', \"$V/crowd/$_\") or die \"crowd: $!\" }} }}
         {script}
         host('true');"
    );
    let start = Start::new(export).option(format!("--cache={cache}"));
    let mut command = Command::new("prlimit");
    command
        .arg("--nofile=1024:1024")
        .args(start.run_words())
        .args(["perl", "-e", &script])
        .stdin(Stdio::piped());
    let mut running = Running::spawn(command, start.name().to_owned());
    let mut stdin = running.stdin();
    running.ready();
    let mediator = running.family().mediator();
    let (mut told, mut most) = (Vec::new(), 0);
    while let Some(line) = running.stdout.next() {
        let Some(script) = line.strip_prefix("host ") else {
            // Dots are signs of life, on a machine that has much else to do.
            if line != "..." {
                told.push(line);
            }
            continue;
        };
        let open = open_descriptors(mediator);
        assert!(open < 600, "{open} descriptors");
        most = most.max(open);
        let done = Command::new("bash")
            .args(["-ec", script])
            .current_dir(export.path())
            .status();
        assert!(done.unwrap().success(), "{script}");
        stdin.write_all(b"done\n").unwrap();
    }
    assert!(most > 300, "there was no need to give any up: {most}");
    let ended = running.end();
    assert_eq!(ended.code(), 0, "{told:?} {:?}", ended.stderr);
    told.join("\n")
}

/// How many there are; they come and go.
fn open_descriptors(process: Process) -> usize {
    let directory = format!("/proc/{}/fd", process.pid);
    fs::read_dir(directory).unwrap().count()
}

/// Nothing ran out.
#[track_caller]
fn stayed_within_its_descriptors(view: &View) {
    let found = metrics(&view.name);
    let of = |name: &str| found[&format!("virtfs_{name}{{view=\"{}\"}}", view.name)];
    assert!(of("descriptor_budget") <= 512.0);
    assert!(of("descriptors") <= of("descriptor_budget"));
    let open = open_descriptors(view.family.mediator());
    assert!(open < 600, "{open}");
}

#[test]
fn files_are_themselves_when_ancestors_are_renamed_and_recorded_links_removed() {
    for cache in ["none", "auto"] {
        let export = Export::new();
        let told = perl(
            &export,
            cache,
            "my (%held, %ino);
             for my $d (0..39) { mkdir \"$V/d$d\"; mkdir \"$V/d$d/sub\"; for my $f (0..9) {
                 my $path = \"$V/d$d/sub/f$f\"; make($path, \"d$d f$f\"); $held{\"$d/$f\"} = hold($path);
                 $ino{\"$d/$f\"} = (stat($path))[1];
             } }
             crowd();
             # Ancestors: renamed, moved below another, exchanged one after the other.
             rename(\"$V/d$_\", \"$V/e$_\") or die $! for 0..19;
             rename(\"$V/e$_/sub\", \"$V/d30/from$_\") or die $! for 0..9;
             for (20..24) { rename(\"$V/d$_\", \"$V/t\") or die; rename(\"$V/d\" . ($_ + 5), \"$V/d$_\") or die; rename(\"$V/t\", \"$V/d\" . ($_ + 5)) or die }
             crowd();
             my $wrong = 0;
             for my $key (sort keys %held) {
                 my @st = stat($held{$key}); $wrong++ unless @st && $st[1] == $ino{$key};
                 my ($d, $f) = split m(/), $key;
                 $wrong++ unless text('/proc/self/fd/' . fileno($held{$key})) eq \"d$d f$f\";
             }
             print \"ancestors $wrong of \", scalar(keys %held), \"\\n\";
             # The recorded link goes, on the host's side; the other one is known.
             mkdir \"$V/l\"; my @linked;
             for my $i (0..99) {
                 make(\"$V/l/a$i\", \"link $i\"); link(\"$V/l/a$i\", \"$V/l/b$i\") or die;
                 push @linked, [$i, hold(\"$V/l/a$i\"), (stat(\"$V/l/b$i\"))[1]];
             }
             crowd(); host('rm l/a*'); crowd();
             $wrong = 0;
             for (@linked) { my ($i, $f, $ino) = @$_; $wrong++ unless text('/proc/self/fd/' . fileno($f)) eq \"link $i\"; my @st = stat($f); $wrong++ unless @st && $st[1] == $ino }
             select(undef, undef, undef, 1.1);
             for (@linked) { my @st = stat($$_[1]); $wrong++ unless @st && $st[3] == 1 }
             print \"links $wrong\\n\";
             # No name at all, by the view: usable as long as it is known.
             mkdir \"$V/g\"; my @gone;
             for my $i (0..99) { make(\"$V/g/$i\", \"gone $i\"); push @gone, hold(\"$V/g/$i\"); unlink \"$V/g/$i\" or die }
             crowd(); $wrong = 0;
             for my $i (0..99) { my $path = '/proc/self/fd/' . fileno($gone[$i]); my @st = stat($gone[$i]);
                 $wrong++ unless @st && $st[3] == 0 && text($path) eq \"gone $i\";
                 chmod(0640, $path) or $wrong++; $wrong++ unless ((stat($gone[$i]))[2] & 07777) == 0640;
                 truncate($path, 2) or $wrong++; $wrong++ unless text($path) eq 'go' }
             print \"gone $wrong\\n\";",
        );
        assert_eq!(told, "ancestors 0 of 400\nlinks 0\ngone 0", "{cache}");
    }
}

#[test]
fn file_that_the_host_replaced_is_stale_and_never_another() {
    let export = Export::new();
    let told = perl(
        &export,
        "none",
        "mkdir \"$V/r\"; my ($wrong, $stale, $same) = (0, 0, 0); my @held;
         host('for i in {0..299}; do echo -n \"old $i\" > r/$i; done'); for my $i (0..299) { push @held, [hold(\"$V/r/$i\"), (stat(\"$V/r/$i\"))[1]] }
         crowd();
         # ext4 gives the number to the next file: most of these have one that is known to the client.
         host('stat -c %i r/* | sort > ../before; for i in {0..299}; do rm r/$i; echo -n \"new file $i\" > r/$i; done; stat -c %i r/* | sort > ../after; [ $(comm -12 ../before ../after | wc -l) -gt 100 ]');
         for my $i (0..299) {
             my ($f, $ino) = @{$held[$i]};
             if (my @was = stat($f)) { $same++; $wrong++ unless $was[1] == $ino && $was[7] == length(\"old $i\") }
             elsif ($! == Errno::ESTALE) { $stale++ } else { $wrong++; print \"$!\\n\" }
             my $read = text('/proc/self/fd/' . fileno($f)); $wrong++ if $read =~ /^new/;
             my $now = text(\"$V/r/$i\"); $wrong++ unless $now eq \"new file $i\";
         }
         print \"wrong $wrong, \", ($stale + $same == 300 ? 'all' : 'not all'), ($stale ? ' stale' : ''), \"\\n\";",
    );
    assert_eq!(told, "wrong 0, all stale");
}

#[test]
fn hard_links_agree_at_once_whichever_name_is_changed() {
    for cache in ["auto", "exclusive", "none"] {
        let export = Export::new();
        let told = perl(
            &export,
            cache,
            "mkdir \"$V/one\"; mkdir \"$V/two\"; my $wrong = 0;
             for my $i (0..49) {
                 my @names = (\"$V/one/a$i\", \"$V/two/b$i\", \"$V/two/c$i\");
                 make($names[0], 'x'); link($names[0], $_) or die $! for @names[1, 2];
                 stat($_) for @names;
                 my $agree = sub {
                     my @all = map { [(stat($_))[1, 2, 3, 4, 5, 7, 9, 10]] } grep { -e } @names;
                     for my $it (@all) { $wrong++ if join(' ', @$it) ne join(' ', @{$all[0]}); }
                     $all[0]
                 };
                 $wrong++ unless $agree->()->[2] == 3;
                 chmod(0600, $names[1]) or die; $wrong++ unless ($agree->()->[1] & 07777) == 0600;
                 chown(12, 13, $names[2]) or die; $wrong++ unless $agree->()->[3] == 12;
                 open(my $f, '>>', $names[1]) or die; print $f 'more'; close $f; $wrong++ unless $agree->()->[5] == 5;
                 utime(5, 6, $names[0]) or die; $wrong++ unless $agree->()->[6] == 6;
                 rename($names[0], \"$V/two/moved$i\") or die; $names[0] = \"$V/two/moved$i\"; $agree->();
                 crowd() if $i % 25 == 24;
                 unlink($names[1]) or die; $wrong++ unless $agree->()->[2] == 2;
                 unlink($names[0]) or die; $wrong++ unless $agree->()->[2] == 1;
             }
             print \"wrong $wrong\\n\";",
        );
        assert_eq!(told, "wrong 0", "{cache}");
    }
}

#[test]
fn removed_files_that_are_held_stop_nobody_else() {
    let export = Export::new();
    let told = perl(
        &export,
        "auto",
        "my @held; my $why;
         for my $i (0..700) { make(\"$V/f$i\", 'x'); push @held, hold(\"$V/f$i\"); unlink(\"$V/f$i\") or do { $why = \"$!\"; last } }
         print \"$why\\n\"; my $last = $#held;
         print -e \"$V/f$last\" ? 'there' : 'gone', ' ', -e \"$V/missing\" ? 'there' : \"$!\", \"\\n\";
         crowd(); host('true'); opendir(my $d, $V) or die $!; my $n = grep { /^crowd/ } readdir($d); print \"listed $n\\n\";
         make(\"$V/more\", 'more'); print text(\"$V/more\"), \"\\n\";
         my $wrong = grep { my @st = stat($_); !@st || $st[3] != 0 } @held[0..$last - 1]; print \"wrong $wrong\\n\";
         @held = (); stat($V); unlink(\"$V/f$last\") or select(undef, undef, undef, 0.5), unlink(\"$V/f$last\") or die $!; print \"removed\\n\";",
    );
    assert_eq!(
        told,
        "Too many open files in system\nthere No such file or directory\nlisted 1\nmore\nwrong 0\nremoved"
    );
}

/// As a backup that is made of links to the one before.
#[test]
fn tree_of_further_links_is_removed_whole() {
    let export = Export::new();
    let (old, new) = (export.path().join("old"), export.path().join("new"));
    fs::create_dir(&old).unwrap();
    fs::create_dir(&new).unwrap();
    for file in 0..3000 {
        fs::write(old.join(file.to_string()), file.to_string()).unwrap();
        fs::hard_link(old.join(file.to_string()), new.join(file.to_string())).unwrap();
    }
    let view = mount(&export, &["--shared"]);
    let at = shown(export.path());
    let script =
        format!("cd {at} && rm -r new && ls && cat old/* | wc -c && find old -links 1 | wc -l");
    let output = within(&view.name, ["sh", "-c", &script]);
    assert_eq!(stderr(&output), "");
    assert_eq!(stdout(&output), "old\n10890\n3000");
    stayed_within_its_descriptors(&view);
}

/// A tree of so many files in directories of 100, each with its own number in it.
fn grow(export: &Export, files: usize) {
    for directory in 0..files / 100 {
        // Three levels, a thousand directories to the most in one.
        let place = export
            .path()
            .join(format!("{}/{}", directory / 100, directory % 100));
        fs::create_dir_all(&place).unwrap();
        for file in 0..100 {
            fs::write(
                place.join(format!("file-{file}")),
                format!("{directory} {file}"),
            )
            .unwrap();
        }
    }
}

/// A tree walked, stat'ed and read whole through one view; how many octets each known inode took, and
/// more in words.
fn walk(files: usize) -> (f64, String) {
    let export = Export::new();
    // The allocator, the workers and the tables have their first memory before it is measured.
    grow(&export, files.min(2000));
    // As long as the client's kernel likes: so that all are known at once.
    let view = mount(
        &export,
        &["--shared", "--cache=exclusive", "--data=mediated"],
    );
    let path = shown(export.path());
    let list = "find . -printf '%P %y %s %i %m %n %T@\\n' | sort | sha256sum; find . | wc -l";
    let read = "find . -type f -print0 | sort -z | xargs -0 cat | sha256sum";
    let both = format!("cd {path}; {list}; {read}");
    let in_view = |script: &str| {
        let output = within(&view.name, ["sh", "-c", script]);
        assert!(
            output.status.success() && stderr(&output).is_empty(),
            "{output:?}"
        );
        stdout(&output)
    };
    in_view(&both);
    let known = || metrics(&view.name)[&format!("virtfs_known_nodes{{view=\"{}\"}}", view.name)];
    let memory = || {
        let field = view.family.mediator().field("RssAnon").unwrap();
        field.split(' ').next().unwrap().parse::<f64>().unwrap() * 1024.0
    };
    let (nodes, octets) = (known(), memory());
    grow(&export, files);
    // What was listed already is listed anew.
    let output = within(
        &view.name,
        [
            "sh",
            "-c",
            &format!("touch {path}/0/t; rm {path}/0/t; touch {path}/t; rm {path}/t"),
        ],
    );
    assert!(output.status.success(), "{output:?}");
    let told = in_view(&both);
    let host = Command::new("sh")
        .args(["-c", &both])
        .env("LC_ALL", "C")
        .output()
        .unwrap();
    assert_eq!(told, stdout(&host), "not the same tree");
    stayed_within_its_descriptors(&view);
    let each = (memory() - octets) / (known() - nodes);
    let all = known();
    let mut told = format!(
        "{all} inodes known, {each:.0} octets each, {:.1} MiB in all",
        memory() / f64::from(1 << 20)
    );
    assert!(
        all > 0.95 * usize_to_f64(files),
        "the kernel knows them all: {all}"
    );
    let most = memory();
    in_view(&format!("cd {path}; rm -r ./*"));
    crate::common::await_that(crate::common::LIMIT, "forgotten", || known() <= 2.0);
    let rest = memory() - octets;
    told += &format!(
        "\nforgotten: {:.1} MiB less, {:.1} MiB above the start",
        (most - memory()) / f64::from(1 << 20),
        rest / f64::from(1 << 20)
    );
    assert!(
        rest < (most - octets) / 4.0 + f64::from(2 << 20),
        "{rest} of {}",
        most - octets
    );
    (each, told)
}

fn usize_to_f64(number: usize) -> f64 {
    f64::from(u32::try_from(number).unwrap())
}

#[test]
fn twenty_thousand_files_are_walked_and_read_whole() {
    let (each, told) = walk(20_000);
    println!("{told}");
    // The allocator's own pages count for more than in the long form.
    assert!(each < 300.0, "{each} octets");
}

#[test]
#[ignore = "takes minutes and 4 GiB of disk: tools/suites/scale"]
fn million_files_are_walked_and_read_whole() {
    let (each, told) = walk(1_000_000);
    println!("{told}");
    assert!(each < 200.0, "{each} octets");
}
