//! Walks through a directory that changes meanwhile, at right and at wrong places.
//!
//! Held: no panic and no hang; every name listed is or was in the directory; in a walk that goes on
//! where each page ended, an entry that stayed throughout is listed once, neither lost nor doubled,
//! whatever else is done to the handle; a place in a directory that has not changed leads to the
//! same entries again; no page is longer than asked; hidden names are left out; and the lookups
//! that READDIRPLUS counted can all be given back.

mod model;

use std::cell::RefCell;

use rustix::fs::{AtFlags, Mode, OFlags};
use virtfs_mediator_core::Cache;
use virtfs_mediator_core::mediate::Verbosity;
use virtfs_mediator_core::policy::Policy;

use crate::input::Input;
use crate::scratch::{Lowered, Scratch};
use crate::users::Nobody;
use crate::view::{Setup, View};
use crate::wire::{Answer, Body, Listed, ROOT, entries, op};
use model::{Directory, Walk};

const STEPS_MAX: usize = 64;
/// More handles are not given out with the least of descriptors.
const HANDLES_MAX: usize = 6;
/// Any entry fits into so many bytes: a page without one is the end.
const ROOM: u32 = 512;

struct World {
    scratch: Scratch,
    policies: Vec<Policy>,
    views: [Option<View>; 4],
}

thread_local! {
    static WORLD: RefCell<Option<World>> = const { RefCell::new(None) };
}

/// Runs one input.
///
/// # Panics
///
/// With what was found.
pub fn run(data: &[u8]) {
    WORLD.with_borrow_mut(|world| world.get_or_insert_with(World::new).run(data));
}

impl World {
    fn new() -> Self {
        // Where nothing is asked of a name, and where each is judged.
        let hiding = "default = \"allow\"\n[[rule]]\npath = \"/**/*.key\"\naction = \"hide\"\n";
        let hiding = Policy::parse("policy", hiding, &Nobody).expect("a policy of ours");
        Self {
            scratch: Scratch::new(),
            policies: vec![Policy::parity(), hiding],
            views: [const { None }; 4],
        }
    }

    fn run(&mut self, data: &[u8]) {
        let mut input = Input::new(data);
        let first = input.byte();
        let (policy, by_node) = (usize::from(first & 1), first & 8 != 0);
        let which = policy | usize::from(by_node) << 1;
        self.scratch.clear();
        let view = self.views[which].take().unwrap_or_else(|| {
            let setup = Setup {
                policy: self.policies[policy].clone(),
                // Without caching, OPENDIR is answered.
                cache: if by_node { Cache::Auto } else { Cache::None },
                verbosity: Verbosity::Refusals,
                max_descriptors: 48,
            };
            View::start(&self.scratch, setup)
        });
        let mut run = Run::new(&self.scratch, view, first, &mut input);
        for _ in 0..STEPS_MAX {
            if input.is_empty() {
                break;
            }
            run.step(&mut input);
        }
        self.views[which] = Some(run.finish());
        self.scratch.check_canary();
    }
}

struct Open {
    /// 0 where directories are read by their nodes.
    handle: u64,
    walk: Walk,
}

struct Run<'w> {
    scratch: &'w Scratch,
    view: View,
    /// The directory's node; its one lookup is kept to the end.
    node: u64,
    hides: bool,
    by_node: bool,
    long: bool,
    directory: Directory,
    open: Vec<Open>,
}

impl<'w> Run<'w> {
    fn new(scratch: &'w Scratch, view: View, first: u8, input: &mut Input<'_>) -> Self {
        let mut run = Self {
            scratch,
            view,
            node: ROOT,
            hides: first & 1 != 0,
            by_node: first & 8 != 0,
            // More than one getdents64(2) brings.
            long: first & 2 != 0,
            directory: Directory::new(scratch.is_tmpfs()),
            open: Vec::new(),
        };
        // The root itself, or a directory in it.
        if first & 4 != 0 {
            let body = Body::new().u32(0o755).u32(0).name(b"sub");
            let made = run.ask(op::MKDIR, ROOT, &body);
            run.node = made.u64_at(0).expect("a node");
        }
        let count = usize::from(input.byte()).pow(2) / 1024;
        for number in 0..count {
            let name = run.name(number);
            run.host_add(&name);
        }
        run.open();
        run
    }

    fn name(&self, number: usize) -> Vec<u8> {
        let mut name = format!("{number}").into_bytes();
        if self.long && !number.is_multiple_of(3) {
            name.resize(250, b'-');
        }
        if number.is_multiple_of(7) {
            name.extend_from_slice(b".key");
        }
        name
    }

    fn is_hidden(&self, name: &[u8]) -> bool {
        self.hides && name.ends_with(b".key")
    }

    fn ask(&mut self, opcode: u32, node: u64, body: &Body) -> Answer {
        let answer = self.view.ask(opcode, node, body.as_bytes());
        answer.expect("the connection ended")
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.byte() {
            0..=79 => self.read_on(input),
            80..=95 => self.rewind(input),
            96..=119 => self.jump(input),
            120..=139 => self.go_back(input),
            140..=155 => self.open(),
            156..=163 => self.close(input),
            164..=187 => self.disturb(input),
            188..=203 => self.add(input),
            204..=219 => self.remove(input),
            220..=227 => self.rename(input),
            228..=241 => {
                let name = self.name(input.choose(256));
                self.host_add(&name);
            }
            242..=255 => {
                let name = self.name(input.choose(256));
                self.host_remove(&name);
            }
        }
    }

    fn open(&mut self) {
        if self.open.len() == HANDLES_MAX {
            return;
        }
        let answer = self.ask(op::OPENDIR, self.node, &Body::new().u32(0).u32(0));
        let handle = if self.by_node {
            assert_eq!(
                answer.errno,
                rustix::io::Errno::NOSYS.raw_os_error(),
                "OPENDIR"
            );
            0
        } else {
            answer.u64_at(0).expect("a handle")
        };
        self.open.push(Open {
            handle,
            walk: Walk::start(&self.directory),
        });
    }

    fn close(&mut self, input: &mut Input<'_>) {
        if self.open.is_empty() {
            return;
        }
        let open = self.open.swap_remove(input.choose(self.open.len()));
        if self.by_node {
            return;
        }
        self.release(open.handle);
        let page = self.page(op::READDIR, open.handle, 0, 4096);
        assert!(page.is_none(), "a closed directory is listed");
    }

    fn release(&mut self, handle: u64) {
        let body = Body::new().u64(handle).u64(0).u64(0);
        assert!(
            self.ask(op::RELEASEDIR, self.node, &body).is_ok(),
            "RELEASEDIR failed"
        );
    }

    /// One page; `None` if it was refused.
    fn page(&mut self, opcode: u32, handle: u64, cookie: u64, size: u32) -> Option<Vec<Listed>> {
        let body = Body::new()
            .u64(handle)
            .u64(cookie)
            .u32(size)
            .u32(0)
            .u64(0)
            .u32(0)
            .u32(0);
        let answer = self.ask(opcode, self.node, &body);
        if !answer.is_ok() {
            return None;
        }
        let fits = u32::try_from(answer.body.len()).is_ok_and(|len| len <= size);
        assert!(fits, "a page longer than asked");
        let page = entries(&answer.body, opcode == op::READDIRPLUS);
        let hidden = page.iter().find(|entry| self.is_hidden(&entry.name));
        assert!(hidden.is_none(), "a hidden name was listed");
        if opcode == op::READDIRPLUS {
            // As the kernel, but at once: nothing may be left at the end.
            let is_dot = |entry: &&Listed| entry.name == b"." || entry.name == b"..";
            let told: Vec<_> = page
                .iter()
                .filter(|entry| entry.node != 0 && !is_dot(entry))
                .collect();
            let body = Body::new()
                .u32(u32::try_from(told.len()).expect("a page"))
                .u32(0);
            let body = told
                .iter()
                .fold(body, |body, entry| body.u64(entry.node).u64(1));
            let sent = self.view.tell(op::BATCH_FORGET, 0, body.as_bytes());
            sent.expect("the connection ended");
        }
        Some(page)
    }

    fn pick(&self, input: &mut Input<'_>) -> Option<usize> {
        let which = input.choose(self.open.len());
        (which < self.open.len()).then_some(which)
    }

    fn kind_and_size(input: &mut Input<'_>) -> (u32, u32) {
        let choice = input.byte();
        let opcode = if choice & 1 == 0 {
            op::READDIR
        } else {
            op::READDIRPLUS
        };
        let size = match choice >> 1 {
            0..=99 => ROOM + u32::from(choice >> 1) * 16,
            100..=119 => input.number32() % (64 << 10),
            _ => u32::from(input.byte()),
        };
        (opcode, size)
    }

    fn read_on(&mut self, input: &mut Input<'_>) {
        if let Some(which) = self.pick(input) {
            let (opcode, size) = Self::kind_and_size(input);
            self.read(which, opcode, size, &[]);
        }
    }

    /// Goes on in a walk; whether it came to the end.
    fn read(&mut self, which: usize, opcode: u32, size: u32, expected: &[Listed]) -> bool {
        let Open { handle, walk } = &self.open[which];
        let (handle, cookie) = (*handle, walk.cookie());
        let page = self
            .page(opcode, handle, cookie, size)
            .expect("READDIR failed");
        let walk = &mut self.open[which].walk;
        walk.take(&page, expected, &self.directory);
        let ended = page.is_empty() && size >= ROOM;
        if ended {
            self.open[which]
                .walk
                .end(&self.directory, |name| self.is_hidden(name));
        }
        ended
    }

    fn rewind(&mut self, input: &mut Input<'_>) {
        if let Some(which) = self.pick(input) {
            self.open[which].walk = Walk::start(&self.directory);
            let (opcode, size) = Self::kind_and_size(input);
            self.read(which, opcode, size, &[]);
        }
    }

    /// To a place that nobody was told of.
    fn jump(&mut self, input: &mut Input<'_>) {
        let Some(which) = self.pick(input) else {
            return;
        };
        let (opcode, size) = Self::kind_and_size(input);
        let cookie = match input.byte() {
            0..=127 => input.number(),
            // Another handle's, which is of the same directory.
            128..=191 => self.open[input.choose(self.open.len())].walk.cookie(),
            near => self.open[which]
                .walk
                .cookie()
                .wrapping_add(u64::from(near))
                .wrapping_sub(224),
        };
        let handle = self.open[which].handle;
        self.open[which].walk.break_off();
        if let Some(page) = self.page(opcode, handle, cookie, size) {
            self.open[which].walk.take(&page, &[], &self.directory);
        }
    }

    /// To a place where this walk has been.
    fn go_back(&mut self, input: &mut Input<'_>) {
        let Some(which) = self.pick(input) else {
            return;
        };
        let place = input.choose(256);
        let (opcode, size) = Self::kind_and_size(input);
        let (_cookie, expected) = self.open[which].walk.go_back(place, &self.directory);
        self.read(which, opcode, size, &expected);
    }

    /// What has no business with a directory's handle, and must not move it.
    fn disturb(&mut self, input: &mut Input<'_>) {
        let Some(which) = self.pick(input) else {
            return;
        };
        let handle = self.open[which].handle;
        let (offset, size) = (input.number(), input.number32() % 4096);
        let data = |body: Body| body.u64(offset).u32(size).u32(0).u64(0).u32(0).u32(0);
        let fh = Body::new().u64(handle);
        let (opcode, body, refused) = match input.choose(8) {
            0 | 1 => (op::LSEEK, fh.u64(offset).u32(input.number32()).u32(0), true),
            2 => (op::READ, data(fh), true),
            3 => (op::WRITE, data(fh).bytes(&vec![0; size as usize]), true),
            4 => (
                op::FALLOCATE,
                fh.u64(offset).u64(size.into()).u32(0).u32(0),
                true,
            ),
            5 => (
                op::COPY_FILE_RANGE,
                fh.u64(offset).u64(1).u64(handle).u64(0).u64(1).u64(0),
                true,
            ),
            6 => (op::FSYNCDIR, fh.u32(0).u32(0), false),
            // No kernel asks that of a directory that it has not opened.
            _ => (
                op::GETATTR,
                Body::new().u32(1).u32(0).u64(handle),
                self.by_node,
            ),
        };
        let answer = self.ask(opcode, self.node, &body);
        assert_eq!(
            answer.is_ok(),
            !refused,
            "opcode {opcode} on a directory: {}",
            answer.errno
        );
    }

    fn forget(&mut self, answer: &Answer) {
        let node = answer.u64_at(0).expect("a node");
        let sent = self
            .view
            .tell(op::FORGET, node, Body::new().u64(1).as_bytes());
        sent.expect("the connection ended");
    }

    fn add(&mut self, input: &mut Input<'_>) {
        let name = self.name(input.choose(256));
        let (opcode, body) = match input.choose(3) {
            0 => (op::MKDIR, Body::new().u32(0o755).u32(0).name(&name)),
            1 => (op::SYMLINK, Body::new().name(&name).name(b"target")),
            _ => (
                op::MKNOD,
                Body::new().u32(0o100_644).u32(0).u32(0).u32(0).name(&name),
            ),
        };
        let answer = self.ask(opcode, self.node, &body);
        let free = !self.directory.has(&name) && !self.is_hidden(&name);
        assert_eq!(
            answer.is_ok(),
            free,
            "making {}: {}",
            name.escape_ascii(),
            answer.errno
        );
        if free {
            self.forget(&answer);
            self.directory.add(&name);
        }
    }

    fn remove(&mut self, input: &mut Input<'_>) {
        let name = self.name(input.choose(256));
        let body = Body::new().name(&name);
        let gone = [op::UNLINK, op::RMDIR].map(|opcode| self.ask(opcode, self.node, &body).is_ok());
        let there = self.directory.has(&name);
        if self.is_hidden(&name) {
            assert_eq!(gone, [false; 2], "a hidden name was removed");
        } else if there {
            assert!(
                gone.contains(&true),
                "{} cannot be removed",
                name.escape_ascii()
            );
        }
        if gone.contains(&true) {
            assert!(there, "{} was removed and never there", name.escape_ascii());
            self.directory.remove(&name);
        }
    }

    fn rename(&mut self, input: &mut Input<'_>) {
        let (old, new) = (self.name(input.choose(256)), self.name(input.choose(256)));
        // RENAME_NOREPLACE: what happens follows from the names alone.
        let body = Body::new()
            .u64(self.node)
            .u32(1)
            .u32(0)
            .name(&old)
            .name(&new);
        let answer = self.ask(op::RENAME2, self.node, &body);
        if answer.is_ok() {
            let fine = self.directory.has(&old) && !self.directory.has(&new);
            let open = !self.is_hidden(&old) && !self.is_hidden(&new);
            assert!(
                fine && open,
                "{} became {}",
                old.escape_ascii(),
                new.escape_ascii()
            );
            self.directory.remove(&old);
            self.directory.add(&new);
        }
    }

    fn host_path(&self, name: &[u8]) -> Vec<u8> {
        if self.node == ROOT {
            name.to_vec()
        } else {
            [b"sub/", name].concat()
        }
    }

    fn host_add(&mut self, name: &[u8]) {
        let _lowered = Lowered::now();
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let path = self.host_path(name);
        if rustix::fs::openat(self.scratch.export(), &path, flags, Mode::from(0o644)).is_ok() {
            self.directory.add(name);
        }
    }

    fn host_remove(&mut self, name: &[u8]) {
        let _lowered = Lowered::now();
        let path = self.host_path(name);
        let root = self.scratch.export();
        let gone = rustix::fs::unlinkat(root, &path, AtFlags::empty())
            .or_else(|_| rustix::fs::unlinkat(root, &path, AtFlags::REMOVEDIR));
        if gone.is_ok() {
            self.directory.remove(name);
        }
    }

    /// Every walk is brought to its end, and all is given back.
    fn finish(mut self) -> View {
        for which in 0..self.open.len() {
            while !self.read(which, op::READDIR, 8192, &[]) {}
        }
        for open in std::mem::take(&mut self.open) {
            if !self.by_node {
                self.release(open.handle);
            }
        }
        // As when the time of what was listed is over: what was read ahead is of this run's names.
        self.view
            .mediator
            .close_streams(virtfs_mediator_core::ids::NodeId(self.node));
        let held = self.view.mediator.descriptors();
        assert!(held.held <= held.budget, "{held:?}");
        if self.node != ROOT {
            let sent = self
                .view
                .tell(op::FORGET, self.node, Body::new().u64(1).as_bytes());
            sent.expect("the connection ended");
        }
        let answer = self.ask(op::GETATTR, ROOT, &Body::new().bytes(&[0; 16]));
        assert!(answer.is_ok(), "the root is gone");
        assert_eq!(self.view.mediator.open_handles(), 0, "handles are left");
        assert_eq!(self.view.mediator.known_nodes(), 1, "nodes are left");
        self.view
    }
}
