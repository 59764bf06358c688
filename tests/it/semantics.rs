//! Directories, times and errors of a view, compared with the same steps on the directory itself.

use std::collections::BTreeSet;
use std::fs;

use crate::common::{Export, Start, shown, stderr, stdout, within};
use crate::twin::{Twin, in_namespace, same_in_namespace};

/// Raw getdents64(2) and lseek(2) on a directory of 100,000 names, while others come and go.
const LISTER: &str = r#"
use strict; use warnings; use Fcntl; use POSIX ();
my $getdents = (POSIX::uname())[4] eq 'x86_64' ? 217 : 61;
my ($dir, $many) = @ARGV; chdir $dir or die;
sub batch {
    my ($d) = @_; my $buf = "\0" x 4096;
    my $n = syscall($getdents, fileno($d), $buf, 4096); die "getdents64: $!" if $n < 0;
    my ($at, @out) = (0);
    while ($at < $n) {
        my ($ino, $off, $len) = unpack('Q q S', substr($buf, $at, 18));
        push @out, [unpack('Z*', substr($buf, $at + 19, $len - 19)), $off]; $at += $len;
    }
    @out
}
sub touch { open(my $f, '>', $_[0]) or die "$_[0]: $!" }
sub stays { grep { $_->[0] =~ /^stay/ } @_ }
sysopen(my $d, '.', O_RDONLY | O_DIRECTORY) or die $!;
my (%seen, @order, @come); my $step = 0;
while (my @b = batch($d)) {
    $seen{$_->[0]}++ for @b; push @order, stays(@b);
    next if $step++ % 8;
    for (1..3) { push @come, "come-$step-$_"; touch($come[-1]) }
    if (@come > 30) { unlink(shift @come) or die for 1..2; my $was = shift @come; rename($was, "moved-$step") or die; push @come, "moved-$step" }
}
my $twice = grep { $seen{$_} > 1 } keys %seen;
my $stay = grep { /^stay/ } keys %seen;
srand(7); my ($wrong, $tried) = (0, 0);
for (1..400) {
    my $i = int rand(@order - 200);
    sysseek($d, $order[$i][1], 0) // die "lseek: $!";
    my @next; while (!@next) { my @b = batch($d) or last; @next = stays(@b) }
    $tried++; $wrong++ unless @next && $next[0][0] eq $order[$i + 1][0];
    unlink(shift @come) or die if @come > 5 && $_ % 20 == 0;
    if ($_ % 50 == 0) { push @come, "late-$_"; touch($come[-1]) }
}
sysseek($d, 0, 0) // die; touch('newest'); push @come, 'newest';
my (%again, $new);
while (my @b = batch($d)) { for (@b) { $again{$_->[0]}++ } }
my $again = grep { /^stay/ } keys %again; my $double = grep { $again{$_} > 1 } keys %again;
my $missing = grep { !$again{$_} } @come;
unlink($_) or die "$_: $!" for @come;
print "stay $stay twice $twice seeks $tried wrong $wrong again $again double $double missing $missing\n";
"#;

#[test]
fn large_directory_loses_and_doubles_nothing_while_others_come_and_go() {
    const MANY: usize = 100_000;
    let export = Export::new();
    let directory = export.path().join("large");
    fs::create_dir(&directory).unwrap();
    let perms = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    fs::set_permissions(&directory, perms).unwrap();
    for name in 0..MANY {
        fs::write(directory.join(format!("stay-{name}")), "").unwrap();
    }
    let script = export.beside("lister.pl");
    fs::write(&script, LISTER).unwrap();
    let words = [
        "perl".to_owned(),
        shown(&script),
        shown(&directory),
        MANY.to_string(),
    ];
    let raw = std::process::Command::new("perl")
        .args(&words[1..])
        .output()
        .unwrap();
    let wanted = format!("stay {MANY} twice 0 seeks 400 wrong 0 again {MANY} double 0 missing 0");
    assert_eq!(
        stdout(&raw),
        wanted,
        "the directory itself: {}",
        stderr(&raw)
    );
    for options in [["--cache=auto"], ["--cache=none"], ["--cache=exclusive"]] {
        let start = Start::new(&export);
        let start = options.iter().fold(start, |start, it| start.option(*it));
        let output = start.output(&words);
        assert_eq!(stdout(&output), wanted, "{options:?}: {}", stderr(&output));
    }
}

#[test]
fn times_are_set_to_the_nanosecond_each_by_itself() {
    let setup = "echo > f; mkdir d; ln -s nowhere l; chown -R 4001 .; touch -h -d '2001-02-03 04:05:06.123456789' f d l";
    for cache in ["--cache=auto", "--cache=none"] {
        let twin = Twin::new(&[cache], setup);
        let mut told = BTreeSet::new();
        for step in [
            "stat -c '%n %x %y' f d l",
            "touch -a -d '1999-01-01 00:00:00.000000001' f; stat -c '%x %y' f",
            "touch -m -d '2038-01-20 00:00:00.999999999' f; stat -c '%x %y' f",
            "touch -d '1969-12-31 23:59:58.5' f d; stat -c '%x %y' f d",
            "touch -d '1901-12-14 00:00:00.25' f; stat -c '%x %y' f",
            "touch -d '2400-05-05 05:05:05.000000005' f; stat -c '%x %y' f",
            "touch -h -m -d '2010-01-01 00:00:00.7' l; stat -c '%x %y' l",
            // UTIME_NOW for one, UTIME_OMIT for the other.
            "touch -d @1000.5 f; touch -a f; stat -c %y f; test $(($(date +%s) - $(stat -c %X f))) -lt 60 && echo now",
            "touch -d @1000.5 d; touch -m d; stat -c %x d; test $(($(date +%s) - $(stat -c %Y d))) -lt 60 && echo now",
            // Data moves mtime and ctime, not atime; nothing is written by an open alone.
            "touch -d @1000.5 f; : >> f; stat -c '%X %Y' f; echo more >> f; stat -c %x f; test $(stat -c %Y f) -gt 1000 && echo moved",
            "touch -d @1000.5 f; truncate -s 3 f; stat -c %x f; test $(stat -c %Y f) -gt 1000 && echo moved",
            "touch -d @1000.5 f; chmod 640 f; stat -c '%x %y' f",
        ] {
            told.insert(twin.same(4001, &[4001], step).1);
        }
        assert!(told.len() > 8);
        // Neither owner nor root sets no time; a writer may set it to now.
        twin.same(
            4002,
            &[4002],
            "touch -d @5 f 2>&1; touch f 2>&1; chmod 666 f 2>&1",
        );
        twin.same(0, &[0], "chmod 666 f");
        twin.same(4002, &[4002], "touch -d @5 f 2>&1; touch f && echo touched");
        twin.left_the_same("stat -c '%n %a %s' f d l; stat -c %x l");
    }
}

#[test]
fn change_times_move_with_names_links_owners_and_modes() {
    let setup = "mkdir a b; echo > a/f; echo > a/g; chown -R 4001 .";
    // What each step moves, of what it is about and of the directories.
    let moved = "moved() { local was=$1; shift; echo -n \"$*: \"; for at in \"$@\"; do
                   now=$(stat -c '%z %y' $at); [ \"${was%% |*}\" = x ] || true
                   eval \"before=\\$before_$(echo $at | tr /. __)\"
                   [ \"${before%% +*}\" = \"${now%% +*}\" ] && echo -n '= ' || echo -n '! '; done; echo; }
                 mark() { for at in \"$@\"; do eval \"before_$(echo $at | tr /. __)=\\$(stat -c '%z %y' $at)\"; done; }";
    for cache in ["--cache=auto", "--cache=none", "--cache=exclusive"] {
        let twin = Twin::new(&[cache], setup);
        for (step, was, now) in [
            ("mv a/f b/f", "a b a/g", "a b a/g"),
            ("ln b/f a/f2", "a b b/f", "a b b/f"),
            ("rm a/f2", "a b b/f", "a b b/f"),
            ("chmod 600 b/f", "b b/f", "b b/f"),
            ("chown :4001 b/f", "b b/f", "b b/f"),
            ("mv -T b a/sub", "a a/g", "a a/g"),
            ("cat a/g", "a/g", "a/g"),
        ] {
            let script =
                format!("{moved}\nmark {was}; sleep 0.02; {step} >/dev/null; moved x {now}");
            twin.same(4001, &[4001], &script);
        }
        // The file's own, by its new name.
        let (_, told, _) = twin.same(
            4001,
            &[4001],
            "was=$(stat -c %z a/g); sleep 0.02; mv a/g a/h; [ \"$was\" = \"$(stat -c %z a/h)\" ] || echo moved",
        );
        assert_eq!(told, "moved");
    }
}

#[test]
fn access_times_follow_the_mount_of_the_export() {
    let script = "for f in small large; do
        touch -a -d @1000 $f; touch -m -d @2000 $f; cat $f >/dev/null; [ $(stat -c %X $f) = 1000 ] && echo kept || echo read
        cat $f >/dev/null; touch -a -d 'now - 1 hour' $f; was=$(stat -c %x $f); cat $f >/dev/null; sleep 0.02; [ \"$was\" = \"$(stat -c %x $f)\" ] && echo kept || echo read
        done; mkdir d; touch d/in; touch -a -d @1000 d; ls d >/dev/null; [ $(stat -c %X d) = 1000 ] && echo kept || echo read";
    let mut all = BTreeSet::new();
    for option in ["relatime", "noatime", "strictatime", "nodiratime"] {
        for data in ["--data=mediated", "--data=auto"] {
            let setup = format!(
                "mount -t tmpfs -o {option} none .; cd .; cd \"$PWD\"; chmod 777 .; echo > small
                 head -c 200000 /dev/zero > large; chown 777:777 . small large; chmod 666 small large"
            );
            let setup = format!("{setup}; chown -R {} .", crate::common::CLIENT_UID);
            all.insert(same_in_namespace(&setup, &[data, "--cache=none"], script));
        }
    }
    assert!(all.len() >= 3, "the options differ: {all:?}");
}

const DATA: [&str; 2] = ["--data=mediated", "--data=passthrough"];

#[test]
fn full_file_system_is_told_as_it_is() {
    let setup = "truncate -s 24M ../image; mkfs.ext4 -q -m 0 -N 256 ../image; mount -o loop ../image .; cd \"$PWD\"; chmod 777 .";
    let script = "dd if=/dev/zero of=big bs=64k 2>&1 | grep -o 'No space.*'; test $(stat -c %s big) -gt 10000000 && echo filled
        echo more >> big || echo no; cp /etc/passwd other 2>&1 | grep -o 'No space.*'; stat -c %s other
        fallocate -l 8M third 2>&1 | grep -o 'No space.*'; rm -f big third; again; cat small
        dd if=/dev/zero of=direct oflag=direct bs=64k 2>&1 | grep -o 'No space.*'; rm direct
        i=0; while mkdir dir$i 2>err; do i=$((i+1)); done; grep -o 'No space.*' err || ls err; test $i -gt 100 && echo many";
    for (data, again) in [
        // Who makes room can use it at once.
        (DATA[0], "again() { echo again > small; }"),
        // The kernel that writes by itself does not wait for the removed file to be closed.
        (
            DATA[1],
            "again() { until echo again > small; do sleep 0.01; done 2>/dev/null; }",
        ),
    ] {
        let told = same_in_namespace(setup, &[data], &format!("{again}\n{script}"));
        assert!(told.contains("No space left on device\nfilled"), "{told}");
    }
}

#[test]
fn quota_is_told_as_it_is() {
    // ext4's quota is not in every kernel; btrfs has its own.
    let setup = "truncate -s 128M ../image; mkfs.btrfs -q ../image >/dev/null; mount -o loop ../image .; cd \"$PWD\"
        btrfs quota enable . ; btrfs subvolume create -q sub 2>/dev/null || btrfs subvolume create sub >/dev/null
        btrfs qgroup limit 4M sub; chmod 777 . sub; sync";
    let script =
        "cd sub; dd if=/dev/zero of=big bs=64k count=1000 oflag=sync 2>&1 | grep -o 'Disk quota.*'
        s=$(stat -c %s big); test $s -gt 1000000 -a $s -lt 4500000 && echo filled
        fallocate -l 8M third 2>&1 | grep -o 'Disk quota.*'";
    for data in DATA {
        let told = same_in_namespace(setup, &[data], script);
        assert_eq!(told, "Disk quota exceeded\nfilled\nDisk quota exceeded");
    }
}

#[test]
fn limit_of_a_clients_file_size_is_its_own() {
    let setup = "head -c 100000 /dev/zero > there; chmod 666 there";
    let script = "ulimit -f 128; trap '' XFSZ
        dd if=/dev/zero of=new bs=4k count=100 2>&1 | grep -o 'File too large'; stat -c %s new
        dd if=/dev/zero of=there conv=notrunc oflag=append bs=4k count=100 2>&1 | grep -o 'File too large'; stat -c %s there
        truncate -s 200000 new 2>&1 | grep -o 'File too large'; fallocate -l 200000 new 2>&1 | grep -o 'File too large'; stat -c %s new
        ( trap - XFSZ; dd if=/dev/zero of=other bs=4k count=100 2>/dev/null ); echo $?
        # Beyond what the file system can have.
        ulimit -f 128; truncate -s 8E third 2>&1 | grep -o 'File too large\\|Invalid.*'";
    let beyond = "truncate -s 17T big 2>&1 | grep -o 'File too large'";
    for data in DATA {
        let told = same_in_namespace(setup, &[data], script);
        assert!(
            told.starts_with("File too large\n131072\nFile too large\n131072\n"),
            "{told}"
        );
        let told = same_in_namespace("true", &[data], beyond);
        // (lseek(2) beyond it is answered by the client's kernel, which does not know that size.)
        assert_eq!(told, "File too large");
    }
}

#[test]
fn failed_write_to_the_disk_is_told_by_fsync() {
    // A disk that has room for what mkfs wrote and for little else.
    let setup = "mkdir ../disk; mount -t tmpfs none ../disk; truncate -s 64M ../disk/image
        mkfs.ext4 -q -E nodiscard,lazy_itable_init=0,lazy_journal_init=0 ../disk/image
        used=$(du -k ../disk/image | cut -f1); mount -o remount,size=$((used + 1024))k ../disk
        mount -o loop ../disk/image .; cd \"$PWD\"; chmod 777 .";
    let script = "dd if=/dev/zero of=f bs=1M count=16 conv=fsync 2>&1 | grep -o 'fsync failed.*'
        perl -MIO::Handle -e 'open(F, \"+<\", \"f\") or print \"$!\\n\"; print F \"x\" x 9000000; F->flush; F->sync or print \"sync: $!\\n\"; close(F) or print \"close: $!\\n\"'";
    for data in DATA {
        let told = same_in_namespace(setup, &[data], script);
        assert!(
            told.contains("fsync failed for 'f': ") || told.contains("sync: "),
            "{told}"
        );
    }
}

#[test]
fn read_that_fails_in_the_middle_of_a_file_is_no_end_of_it() {
    // The disk ends a third of the way into the file.
    let setup = "mkdir ../disk; mount -t tmpfs none ../disk; truncate -s 64M ../disk/image
        mkfs.ext4 -q -b 4096 ../disk/image; mkdir ../m; mount -o loop ../disk/image ../m; head -c 48K /dev/zero | tr '\\0' x >../m/there
        sync; at=$(filefrag -v -b4096 ../m/there | awk '$1 == \"0:\" { sub(/\\.\\./, \"\", $4); print $4 }')
        umount ../m; mount -o loop,ro ../disk/image .
        cd \"$PWD\"; truncate -s $((at * 4096 + 16384)) ../disk/image";
    let script = "cat there >/dev/null 2>&1; echo $?; stat -c %s there
        (cat there | wc -c; head -c 16384 there | tr -d x | wc -c; dd if=there bs=4096 2>&1 >/dev/null | grep -o 'Input/output error\\|^4+0 records in'
        dd if=there bs=64k 2>&1 >/dev/null | grep -o 'Input/output error') 2>/dev/null";
    for data in ["--data=auto", "--data=mediated", "--data=passthrough"] {
        let told = same_in_namespace(setup, &[data], script);
        assert!(
            told.contains("1\n49152\n16384\n0\nInput/output error"),
            "{told}"
        );
    }
}

#[test]
fn failed_read_of_the_disk_is_told() {
    // The end of the disk is gone while it is in use.
    let setup = "mkdir ../disk; mount -t tmpfs none ../disk; truncate -s 96M ../disk/image
        mkfs.ext4 -q ../disk/image; mkdir ../m; mount -o loop ../disk/image ../m
        head -c 64M /dev/zero >../m/there; echo x >../m/small; umount ../m; mount -o loop ../disk/image .
        cd \"$PWD\"; truncate -s 30M ../disk/image; chmod 777 . 2>/dev/null; true";
    let script = "cat there 2>&1 >/dev/null | grep -o 'Input/output error'; cat small
        dd if=there of=/dev/null iflag=direct bs=1M 2>&1 | grep -o 'Input/output error'; head -c 10 there | wc -c";
    for data in DATA {
        let told = same_in_namespace(setup, &[data], script);
        assert!(told.contains("Input/output error\n"), "{told}");
    }
}

#[test]
fn removal_of_file_capabilities_is_taken_for_a_write() {
    // CAP_NET_RAW, permitted and effective (linux/capability.h, VFS_CAP_REVISION_2).
    let capability = "0x0100000200200000000000000000000000000000";
    let setup = format!(
        "for f in f g; do echo > $f; chmod 4755 $f; setfattr -n security.capability -v {capability} $f; done"
    );
    let policy = tempfile::NamedTempFile::new().unwrap();
    fs::write(
        policy.path(),
        "default = \"allow\"\nset_id = \"allow\"\n[[rule]]\npath = \"/g\"\ndo = \"write\"\naction = \"deny\"\n\
         [[xattr]]\nmatch = \"security.*\"\naction = \"deny\"\n",
    )
    .unwrap();
    let option = format!("--policy={}", shown(policy.path()));
    let twin = Twin::new(&[option.as_str()], &setup);
    let remove = |file: &str| {
        let script = format!("setfattr -x security.capability {file} 2>&1; stat -c %a {file}");
        twin.both(0, &[0], &script)
    };
    let (view, raw) = remove("f");
    assert_eq!((view.1.as_str(), raw.1.as_str()), ("755", "4755"));
    let (view, _raw) = remove("g");
    assert!(
        view.1.contains("Permission denied") && view.1.ends_with("4755"),
        "{view:?}"
    );
    let host = std::process::Command::new("getfattr")
        .args(["-h", "-d", "-m", "security.capability", "f", "g"])
        .current_dir(twin.export.path())
        .output()
        .unwrap();
    assert!(!stdout(&host).contains("file: f") && stdout(&host).contains("file: g"));
}

#[test]
fn what_no_view_does_is_told() {
    let setup = "mkdir ../disk; truncate -s 64M ../disk/image; mkfs.ext4 -q ../disk/image; mount -o loop ../disk/image .
        cd \"$PWD\"; head -c 64K /dev/zero > f; chmod 666 f; chmod 777 .";
    let script =
        "for how in -c -i; do fallocate $how -o 4096 -l 4096 f 2>&1 | grep -o 'not supported'; done
        lsattr f >/dev/null 2>&1 || echo none; chattr +A f 2>/dev/null || echo none
        perl -e 'sysopen(F, \".\", 020200002, 0600) or print \"$!\\n\"'; stat -c %s f";
    let export = Export::new();
    let script_there = format!("cd {}\n{script}", shown(export.path()));
    let told = in_namespace(setup, &Start::new(&export), &script_there)
        .output()
        .unwrap();
    assert_eq!(
        stdout(&told),
        "not supported\nnot supported\nnone\nnone\nOperation not supported\n65536",
        "{}",
        stderr(&told)
    );
    // The file system itself can all of it.
    let raw = Export::new();
    let plain = format!("cd \"$1\"; {setup}\n{script}");
    let told = std::process::Command::new("unshare")
        .args([
            "--mount",
            "--propagation",
            "private",
            "bash",
            "-c",
            &plain,
            "sh",
        ])
        .arg(raw.path())
        .output()
        .unwrap();
    assert_eq!(stdout(&told), "65536", "{}", stderr(&told));
}

#[test]
fn sync_of_a_view_asks_nothing_of_the_host() {
    let export = Export::new();
    let view = Start::new(&export).mount();
    let at = shown(export.path());
    let asked = |operation: &str| {
        let found = crate::common::metrics(&view.name);
        let row = format!("operation=\"{operation}\"");
        found
            .iter()
            .filter(|(name, _)| name.starts_with("virtfs_requests_total") && name.contains(&row))
            .map(|(_, value)| value)
            .sum::<f64>()
    };
    let run = |script: String| {
        let output = within(
            &view.name,
            [
                "setpriv",
                "--reuid=61234",
                "--regid=61235",
                "--clear-groups",
                "sh",
                "-c",
                &script,
            ],
        );
        assert!(output.status.success(), "{}", stderr(&output));
    };
    run(format!("echo text > {at}/f; sync -f {at}/f"));
    assert_eq!(asked("fsync"), 0.0);
    run(format!("sync {at}/f"));
    assert_eq!(asked("fsync"), 1.0);
}
