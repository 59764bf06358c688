//! A view is never in the host's mount namespace, at no moment of a start or an end.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::common::{Export, Start, assert_nothing_left, host_mounts, ours};

/// How often to start and stop; `VIRTFS_IT_ROUNDS` for more.
pub(crate) fn rounds(default: u32) -> u32 {
    std::env::var("VIRTFS_IT_ROUNDS")
        .ok()
        .map_or(default, |text| {
            text.parse().expect("VIRTFS_IT_ROUNDS is a number")
        })
}

/// Ends the looking even if the test fails.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

#[test]
fn starts_and_stops_in_a_loop_never_show_a_view_to_the_host() {
    let export = Export::new();
    let (done, looks) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let looker = scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                let mounts = host_mounts();
                assert!(!mounts.contains("virtfs-mediator"), "{mounts}");
                looks.fetch_add(1, Ordering::Relaxed);
            }
        });
        let done = Done(&done);
        for round in 0..rounds(30) {
            let start = Start::new(&export);
            if round % 3 == 2 {
                let view = start.mount();
                assert!(ours(["unmount", &view.name]).status.success());
                view.family.assert_gone();
            } else {
                let output = start.output(["true"]);
                assert!(output.status.success(), "{output:?}");
            }
            assert_nothing_left(start.name());
        }
        drop(done);
        looker.join().unwrap();
    });
    // Enough looks that a moment would have been seen.
    assert!(looks.into_inner() > 100);
}
