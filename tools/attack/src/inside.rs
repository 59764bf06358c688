//! Seat M in the product: an attack in the mediator's place, behind all of its walls or some.

use std::process::ExitCode;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering};

use virtfs_mediator::attack::{Inside, Wall, Walls, main_as};
use virtfs_mediator_core::{ServeError, Service};

use crate::acts::{self, Scene};
use crate::raw;
use crate::task::{self, Failure, Line, Plant, Task};

/// Every wall, in the order in which a bit of [`Task::walls`] stands for it.
pub(crate) const WALLS: [Wall; 12] = [
    Wall::Root,
    Wall::UserNamespace,
    Wall::NamespaceLimits,
    Wall::Ids,
    Wall::Capabilities,
    Wall::Limits,
    Wall::NotDumpable,
    Wall::Descriptors,
    Wall::DescriptorTest,
    Wall::Landlock,
    Wall::Seccomp,
    Wall::Registrar,
];

/// All bits.
pub(crate) const ALL: u16 = (1 << WALLS.len()) - 1;

/// The bits of some walls.
pub(crate) fn bits(walls: &[Wall]) -> u16 {
    WALLS
        .iter()
        .enumerate()
        .filter(|(_, wall)| walls.contains(wall))
        .fold(0, |bits, (at, _)| bits | 1 << at)
}

struct Payload;

static TASK: OnceLock<Task> = OnceLock::new();
/// The planted descriptor's number, or -1.
static PLANTED: AtomicI32 = AtomicI32::new(-1);

/// The product's program, with the attack of the environment inside.
pub(crate) fn product() -> ExitCode {
    match task::mine() {
        Ok(task) => {
            let _already_set = TASK.set(task);
            main_as(&Payload)
        }
        Err(why) => {
            task::tell(&Line::Ended(Err(Failure::Unprepared(why))));
            ExitCode::FAILURE
        }
    }
}

impl Inside for Payload {
    fn serve(&self, service: Service, ready: &mut dyn FnMut()) -> Result<(), ServeError> {
        // The keeper now waits for our end, and tells how it was.
        ready();
        let planted = PLANTED.load(Ordering::Relaxed);
        let scene = Scene {
            task: TASK.get().cloned().unwrap_or_default(),
            root: service.root,
            proc_fd: service.proc_fd,
            registrar: service.registrar.map(|socket| (socket, service.device)),
            planted: (planted >= 0).then_some(planted),
        };
        let ended = acts::run(&scene);
        task::tell(&Line::Ended(ended));
        Ok(())
    }

    fn walls(&self) -> Walls {
        let wanted = TASK.get().map_or(0, |task| task.walls);
        if wanted == ALL {
            return Walls::ALL;
        }
        WALLS
            .iter()
            .enumerate()
            .filter(|(at, _)| wanted & (1 << at) != 0)
            .fold(Walls::NONE, |walls, (_, wall)| walls.with(*wall))
    }

    fn before_walls(&self) {
        let planted = match TASK.get().and_then(|task| task.plant.as_ref()) {
            None => return,
            Some(Plant::Open(path)) => task::open_for_good(path),
            Some(Plant::Lowest(path)) => open_over(path, is_procfs),
            Some(Plant::OverControl(path)) => open_over(path, listens),
        };
        match planted {
            Ok(number) => PLANTED.store(number, Ordering::Relaxed),
            Err(why) => task::tell(&Line::Ended(Err(why))),
        }
    }
}

/// Opens a directory under the number of the first descriptor that is of a kind.
fn open_over(path: &std::path::Path, is_meant: fn(i32) -> bool) -> Result<i32, Failure> {
    let opened = task::open_for_good(path)?;
    let number = (3..1024)
        .find(|number| is_meant(*number))
        .ok_or_else(|| Failure::Unprepared("no such descriptor".to_owned()))?;
    let [from, to] = [opened, number].map(raw::number);
    raw::call(libc::SYS_dup3, [from, to, 0, 0, 0, 0])?;
    raw::call(libc::SYS_close, [from, 0, 0, 0, 0, 0])?;
    Ok(number)
}

/// The control socket: close_range spares its number.
fn listens(number: i32) -> bool {
    let (mut value, mut size) = (0_i32, 4_u32);
    let (level, name) = (
        raw::number(libc::SOL_SOCKET),
        raw::number(libc::SO_ACCEPTCONN),
    );
    let (at, length) = (raw::pointer_to(&mut value), raw::pointer_to(&mut size));
    let asked = raw::call(
        libc::SYS_getsockopt,
        [raw::number(number), level, name, at, length, 0],
    );
    asked.is_ok() && value == 1
}

/// The warden's /proc, which the mediator inherits and leaves to close_range.
fn is_procfs(number: i32) -> bool {
    // struct statfs begins with the type.
    let mut buffer = [0; 32];
    let at = raw::pointer_to(&mut buffer);
    let asked = raw::call(libc::SYS_fstatfs, [raw::number(number), at, 0, 0, 0, 0]);
    asked.is_ok() && buffer[0] == rustix::fs::PROC_SUPER_MAGIC
}
