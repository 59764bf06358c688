//! Whole requests on a directory of the test's own, without a kernel: what the policy's words do
//! to files.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode as RawMode, OFlags, open};
use rustix::io::Errno;
use tempfile::TempDir;

use super::DirectoryBy;
use super::{Aside, AuditTo, Mediator, Selector, Verbosity, XattrReply};
use crate::export::{Export, Settings, Submounts};
use crate::ids::{GuestGid, GuestUid, Mode, NodeId};
use crate::op::{ChangesAsk, Op, SetTime, WriteAs};
use crate::policy::tests::Nobody;
use crate::policy::{Policy, Requester};

pub(super) struct World {
    pub(super) mediator: Mediator,
    dir: TempDir,
    pub(super) who: Requester,
}

impl World {
    pub(super) fn new(policy: &str) -> Self {
        Self::over(policy, &[])
    }

    /// Over files that are there already.
    pub(super) fn over(policy: &str, files: &[(&str, &[u8])]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (name, data) in files {
            let file = dir.path().join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, data).unwrap();
        }
        Self::of(policy, dir)
    }

    /// Another view of the same directory, by another policy.
    pub(super) fn again(self, policy: &str) -> Self {
        Self::of(policy, self.dir)
    }

    fn of(policy: &str, dir: TempDir) -> Self {
        let policy = Policy::parse("test", policy, &Nobody);
        let policy = policy.unwrap_or_else(|mistakes| panic!("{mistakes}"));
        let path = |path: &Path| {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            open(path, flags, RawMode::empty()).unwrap()
        };
        let settings = Settings {
            root: path(dir.path()),
            proc_fd: path(Path::new("/proc/self/fd")),
            max_descriptors: 64,
            submounts: Submounts::Refuse,
            exact_names: policy.goes_by_name(),
        };
        let export = Export::open(settings).unwrap();
        let (mediator, _writer) =
            Mediator::new(export, policy, Verbosity::Refusals, AuditTo::Log).unwrap();
        // Ids of our own, so that whoever runs the test may give them.
        let who = Requester {
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
            pid: 1,
        };
        Self { mediator, dir, who }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A file of the host's.
    pub(super) fn put(&self, name: &str, data: &[u8]) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, data).unwrap();
    }

    pub(super) fn walk(&self, path: &str) -> Result<NodeId, Errno> {
        let mut at = NodeId::ROOT;
        for name in path.split('/') {
            at = self.mediator.lookup(self.who, at, name.as_bytes())?.node;
        }
        Ok(at)
    }

    fn aside(&self, op: Op) -> Aside {
        self.mediator
            .asides()
            .read()
            .find(|(row, _)| *row == op)
            .unwrap()
            .1
    }

    fn listed(&self) -> Vec<String> {
        let handle = self.mediator.opendir(self.who, NodeId::ROOT).unwrap();
        let mut names = Vec::new();
        self.mediator
            .readdir(self.who, DirectoryBy::Handle(handle), 0, &mut |entry| {
                names.push(String::from_utf8_lossy(entry.name).into_owned());
                true
            })
            .unwrap();
        names.retain(|name| name != "." && name != "..");
        names.sort();
        names
    }
}

#[test]
fn listing_by_node_is_refused_by_what_refuses_to_open_its_directory() {
    for (rule, errno) in [
        (
            "do = \"opendir\"\naction = \"deny\"\nerrno = \"EBUSY\"",
            Errno::BUSY,
        ),
        (
            "do = \"readdir\"\naction = \"deny\"\nerrno = \"EPERM\"",
            Errno::PERM,
        ),
        ("do = \"list\"\naction = \"deny\"", Errno::ACCESS),
        // Its mode changed on the host after it was looked up.
        (
            "do = \"look\"\nwhen = { mode = { any = \"0001\" } }\naction = \"deny\"",
            Errno::ACCESS,
        ),
    ] {
        let text = format!("default = \"allow\"\n[[rule]]\npath = \"/d\"\n{rule}\n");
        let world = World::over(&text, &[("d/x", b"")]);
        let mode =
            |mode| std::fs::set_permissions(world.path("d"), PermissionsExt::from_mode(mode));
        mode(0o700).unwrap();
        let node = world.walk("d").unwrap();
        mode(0o701).unwrap();
        let mut each = |_: crate::export::DirEntry<'_>| -> bool { panic!("{rule}") };
        let by = DirectoryBy::Node(node);
        let read = world.mediator.readdir(world.who, by, 0, &mut each);
        assert_eq!(read, Err(errno), "{rule}");
        // Behind the start too: the kernel may hold the first part.
        let read = world.mediator.readdir(world.who, by, 77, &mut each);
        assert_eq!(read, Err(errno), "{rule}");
        let mut each = |_: super::Plus<'_>| -> bool { panic!("{rule}") };
        let read = world.mediator.readdirplus(world.who, by, 0, &mut each);
        assert_eq!(read, Err(errno), "{rule}");
    }
}

/// READDIRPLUS looks ahead of who asks. What would be refused, or would have to be told, is left to
/// the lookup of its own.
#[test]
fn nothing_is_told_of_names_that_are_listed_and_not_looked_at() {
    let rules = "[[rule]]\npath = \"/secret\"\ndo = \"look\"\naction = \"deny\"\nerrno = \"ENOENT\"\n\
                 [[rule]]\npath = \"/logged\"\ndo = \"look\"\naction = \"allow\"\nlog = \"all\"\n";
    for (mode, watched) in [("enforce", false), ("enforce", true), ("observe", false)] {
        let text = format!("default = \"allow\"\nmode = \"{mode}\"\n{rules}");
        let files: [(&str, &[u8]); 3] = [("secret", b""), ("logged", b""), ("open", b"")];
        let world = World::over(&text, &files);
        let refusals = Selector {
            refused: true,
            ..Selector::default()
        };
        let watch = watched.then(|| world.mediator.watch(refusals.compile(&Nobody).unwrap()));
        let mut listed = Vec::new();
        let by = DirectoryBy::Node(NodeId::ROOT);
        let mut each = |plus: super::Plus<'_>| {
            let name = String::from_utf8_lossy(plus.name).into_owned();
            listed.push((name, plus.entry.is_some()));
            true
        };
        let read = world.mediator.readdirplus(world.who, by, 0, &mut each);
        read.unwrap();
        listed.retain(|(name, _)| name != "." && name != "..");
        listed.sort();
        let expected = [("logged", false), ("open", true), ("secret", false)];
        let expected = expected.map(|(name, seen)| (name.to_owned(), seen));
        assert_eq!(listed, expected, "{mode}");
        assert_eq!(world.aside(Op::Lookup).would_refuse, 0, "{mode}");
        let told = watch.map(|watch| watch.events.try_iter().count());
        assert_eq!(told.unwrap_or_default(), 0, "{mode}");
        assert_eq!(world.mediator.known_nodes(), 2, "the root and `open`");
    }
}

#[test]
fn pretended_changes_succeed_and_leave_the_file_as_it_is() {
    let world = World::new(
        "default = \"allow\"\n[[rule]]\npath = \"/pkg/**\"\n\
         do = [\"owner\", \"mode\", \"time\", \"xattr\"]\naction = \"pretend\"\n",
    );
    world.put("pkg/file", b"data");
    let before = std::fs::metadata(world.path("pkg/file")).unwrap();
    let node = world.walk("pkg/file").unwrap();
    let ask = ChangesAsk {
        uid: Some(GuestUid(4242)),
        gid: Some(GuestGid(4242)),
        mode: Some(Mode::new(0o4711)),
        mtime: SetTime::Now,
        ..ChangesAsk::NOTHING
    };
    let shown = world.mediator.setattr(world.who, node, None, ask).unwrap();
    assert_eq!(shown.attr.mode.bits(), before.permissions().mode() & 0o7777);
    assert_eq!(shown.owner.uid.0, before.uid(), "told as it really is");
    let after = std::fs::metadata(world.path("pkg/file")).unwrap();
    assert_eq!(
        (
            after.uid(),
            after.mode(),
            after.mtime_nsec(),
            after.ctime_nsec()
        ),
        (
            before.uid(),
            before.mode(),
            before.mtime_nsec(),
            before.ctime_nsec()
        )
    );
    let set = |value: &[u8]| {
        let (who, name) = (world.who, b"user.a");
        world.mediator.setxattr(who, node, name, value, 0)
    };
    assert_eq!(set(b"v"), Ok(()));
    let got = world.mediator.getxattr(world.who, node, b"user.a", 64);
    assert_eq!(got, Err(Errno::NODATA));
    let gone = world.mediator.removexattr(world.who, node, b"user.a");
    assert_eq!(gone, Ok(()));
    assert_eq!(world.aside(Op::Setattr).pretended, 1);
    assert_eq!(world.aside(Op::Setxattr).pretended, 1);
    assert_eq!(world.aside(Op::Getxattr), Aside::default());
}

#[test]
fn new_file_whose_owner_was_pretended_is_new_no_longer() {
    // While it is new its mode may be set; once it has an owner and a mode it may not.
    let world = World::new(
        "default = \"allow\"\n[[rule]]\ndo = \"owner\"\naction = \"pretend\"\n\
         [[rule]]\ndo = \"mode\"\nwhen = { birth = true }\naction = \"allow\"\n\
         [[rule]]\ndo = \"mode\"\naction = \"deny\"\n",
    );
    let flags = libc::O_RDWR | libc::O_CREAT;
    let made = world
        .mediator
        .create(world.who, NodeId::ROOT, b"a", 0o600, flags);
    let node = made.unwrap().0.node;
    let change = |ask| {
        let changed = world.mediator.setattr(world.who, node, None, ask);
        changed.map(|_shown| ())
    };
    let chown = ChangesAsk {
        uid: Some(GuestUid(4242)),
        ..ChangesAsk::NOTHING
    };
    let chmod = ChangesAsk {
        mode: Some(Mode::new(0o640)),
        ..ChangesAsk::NOTHING
    };
    // The order in which QEMU finishes a new file.
    assert_eq!(change(chown), Ok(()));
    assert_eq!(change(chmod), Ok(()));
    let mode = std::fs::metadata(world.path("a")).unwrap().mode();
    assert_eq!(mode & 0o7777, 0o640);
    assert_eq!(change(chmod), Err(Errno::PERM));
}

#[test]
fn observed_view_shows_what_is_hidden_and_does_what_is_denied() {
    let rules = "[[rule]]\npath = \"/secret\"\naction = \"hide\"\n\
         [[rule]]\npath = \"/kept\"\ndo = \"remove\"\naction = \"deny\"\n";
    let enforced = World::new(&format!("default = \"allow\"\n{rules}"));
    let observed = World::new(&format!("default = \"allow\"\nmode = \"observe\"\n{rules}"));
    for world in [&enforced, &observed] {
        world.put("secret", b"s");
        world.put("kept", b"k");
    }
    let unlink = |world: &World| {
        let kept: &[u8] = b"kept";
        world.mediator.unlink(world.who, NodeId::ROOT, kept)
    };
    assert_eq!(enforced.listed(), ["kept"]);
    assert_eq!(enforced.walk("secret"), Err(Errno::NOENT));
    assert_eq!(unlink(&enforced), Err(Errno::ACCESS));
    assert_eq!(enforced.aside(Op::Unlink), Aside::default());

    assert_eq!(observed.listed(), ["kept", "secret"]);
    assert!(observed.walk("secret").is_ok());
    assert_eq!(unlink(&observed), Ok(()));
    assert!(!observed.path("kept").exists());
    assert_eq!(observed.aside(Op::Unlink).would_refuse, 1);
    assert_eq!(observed.aside(Op::Lookup).would_refuse, 1);
    assert_eq!(observed.aside(Op::Unlink).pretended, 0);
}

#[test]
fn renamed_attribute_is_set_read_listed_and_removed_under_the_guest_s_name() {
    let world = World::new(
        "default = \"allow\"\n[[xattr]]\nmatch = \"user.*\"\naction = \"rename\"\n\
         to = \"user.view.\"\n",
    );
    world.put("a", b"");
    let raw = |name: &str| {
        let mut value = [0; 16];
        let path = world.path("a");
        let len = rustix::fs::getxattr(path, name, &mut value[..]).ok()?;
        Some(value.get(..len)?.to_vec())
    };
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(world.path("a"), "user.host", b"h", flags).unwrap();
    rustix::fs::setxattr(world.path("a"), "user.view.stray", b"s", flags).unwrap();
    let (mediator, who) = (&world.mediator, world.who);
    let node = world.walk("a").unwrap();
    mediator.setxattr(who, node, b"user.a", b"v", 0).unwrap();
    assert_eq!(raw("user.view.user.a"), Some(b"v".to_vec()));
    assert_eq!(raw("user.a"), None);
    let got = |name: &[u8]| mediator.getxattr(who, node, name, 64);
    assert_eq!(got(b"user.a"), Ok(XattrReply::Bytes(b"v".to_vec())));
    assert_eq!(got(b"user.host"), Err(Errno::NODATA));
    let listed = b"user.a\0".to_vec();
    let list = |size| mediator.listxattr(who, node, size);
    assert_eq!(list(0), Ok(XattrReply::Length(7)));
    assert_eq!(list(64), Ok(XattrReply::Bytes(listed)));
    mediator.removexattr(who, node, b"user.a").unwrap();
    assert_eq!(raw("user.view.user.a"), None);
    assert_eq!(raw("user.host"), Some(b"h".to_vec()));
}

#[test]
fn file_larger_than_its_limit_can_be_made_in_no_way() {
    let world = World::new("default = \"allow\"\nlimit = { file_size = 8 }\n");
    world.put("source", b"0123456789");
    let (mediator, who) = (&world.mediator, world.who);
    let create = |name: &[u8], flags: i32| {
        let flags = flags | libc::O_RDWR | libc::O_CREAT;
        let made = mediator.create(who, NodeId::ROOT, name, 0o600, flags);
        let (entry, opened) = made.unwrap();
        let handle = opened.handle;
        (entry.node, handle)
    };
    let (node, handle) = create(b"a", 0);
    let write = |offset, data: &[u8]| mediator.write(who, handle, (offset, WriteAs::Placed), data);
    assert_eq!(write(0, b"01234567"), Ok(8));
    assert_eq!(write(1, b"01234567"), Err(Errno::DQUOT));
    let resize = |size| {
        let ask = ChangesAsk {
            size: Some(size),
            ..ChangesAsk::NOTHING
        };
        mediator.setattr(who, node, None, ask).map(|_shown| ())
    };
    assert_eq!(resize(9), Err(Errno::DQUOT));
    assert_eq!(resize(6), Ok(()));
    let allocate = |mode, span| mediator.fallocate(who, handle, mode, span);
    assert_eq!(allocate(0, (0, 9)), Err(Errno::DQUOT));
    let insert = libc::FALLOC_FL_INSERT_RANGE;
    assert_eq!(allocate(insert, (0, 4096)), Err(Errno::DQUOT));
    let source = world.walk("source").unwrap();
    let source = mediator.open(who, source, libc::O_RDONLY).unwrap().handle;
    let copy = |length| mediator.copy_file_range(who, (source, 0), (handle, 0), length);
    assert_eq!(copy(9), Err(Errno::DQUOT));

    let (_, appending) = create(b"b", libc::O_APPEND);
    let append = |data: &[u8]| mediator.write(who, appending, (0, WriteAs::Appended), data);
    assert_eq!(append(b"01234"), Ok(5));
    assert_eq!(append(b"5678"), Err(Errno::DQUOT));
    assert_eq!(append(b"567"), Ok(3));
    let len = |name| std::fs::metadata(world.path(name)).unwrap().len();
    assert_eq!((len("a"), len("b")), (6, 8));
}

/// A file with a name that rules speak of and another in the open, and a rule that follows it.
fn linked(rule: &str) -> World {
    let world = World::new(&format!(
        "default = \"allow\"\n[[rule]]\npath = [\"/s/key\", \"/s/other\"]\n{rule}\n"
    ));
    world.put("s/key", b"secret");
    world.put("plain", b"p");
    std::fs::hard_link(world.path("s/key"), world.path("open")).unwrap();
    std::fs::hard_link(world.path("plain"), world.path("plain2")).unwrap();
    world
}

#[test]
fn hidden_file_is_found_by_no_link_if_the_rule_follows_it() {
    let followed = linked("action = \"hide\"\ninode = true");
    assert_eq!(followed.walk("open"), Err(Errno::NOENT));
    assert_eq!(followed.walk("s/key"), Err(Errno::NOENT));
    assert!(followed.walk("plain2").is_ok());
    let (who, root) = (followed.who, NodeId::ROOT);
    assert_eq!(
        followed.mediator.unlink(who, root, b"open"),
        Err(Errno::NOENT)
    );
    let by_name = linked("action = \"hide\"");
    assert!(by_name.walk("open").is_ok(), "what README tells as a limit");
}

#[test]
fn denied_file_is_refused_by_every_link_and_at_once_when_the_host_changes_names() {
    let world = linked("do = [\"read\", \"write\", \"remove\"]\naction = \"deny\"\ninode = true");
    let (mediator, who) = (&world.mediator, world.who);
    let open = |node| {
        let opened = mediator.open(who, node, libc::O_RDONLY);
        opened.map(|opened| opened.handle)
    };
    let node = world.walk("open").unwrap();
    assert_eq!(open(node), Err(Errno::ACCESS));
    assert_eq!(
        mediator.unlink(who, NodeId::ROOT, b"open"),
        Err(Errno::ACCESS)
    );
    let moved = mediator.rename(who, (NodeId::ROOT, b"open"), (NodeId::ROOT, b"x"), 0);
    assert_eq!(
        moved,
        Err(Errno::ACCESS),
        "its rule would not hold by that name"
    );

    // Another file takes the path: what was judged by it before no longer is, the other one is.
    let plain = world.walk("plain").unwrap();
    let handle = open(plain).unwrap();
    std::fs::remove_file(world.path("s/key")).unwrap();
    assert!(open(node).is_ok());
    std::fs::hard_link(world.path("plain"), world.path("s/key")).unwrap();
    assert_eq!(open(plain), Err(Errno::ACCESS));
    let read = |handle| mediator.read(who, handle, 0, 8, |data| data.map(<[u8]>::to_vec));
    assert_eq!(
        read(handle),
        Err(Errno::ACCESS),
        "also through an old handle"
    );
}

#[test]
fn create_of_a_file_that_is_there_is_judged_as_an_open() {
    let world = World::new(
        "default = \"allow\"\n[[rule]]\npath = \"/log/**\"\ndo = \"write\"\naction = \"deny\"\n",
    );
    world.put("log/old", b"kept");
    let log = world.walk("log").unwrap();
    let create = |name: &[u8], flags: i32| {
        let flags = flags | libc::O_CREAT;
        let made = world.mediator.create(world.who, log, name, 0o600, flags);
        made.map(|_made| ())
    };
    assert_eq!(
        create(b"old", libc::O_WRONLY | libc::O_TRUNC),
        Err(Errno::ACCESS)
    );
    assert_eq!(create(b"old", libc::O_RDONLY), Ok(()));
    assert_eq!(create(b"new", libc::O_WRONLY), Ok(()));
    assert_eq!(std::fs::read(world.path("log/old")).unwrap(), b"kept");
}
