//! Which edges of the program were reached at all, for `tools/fuzz/run --coverage`. libFuzzer
//! clears its counters before each input and cannot name source files without a sanitizer.
#![allow(
    unsafe_code,
    reason = "the tables are made by the compiler's coverage pass and reached by linker symbols"
)]

use std::cell::RefCell;
use std::fmt::Write as _;
use std::path::PathBuf;

/// Names the file that is written when the thread ends: a line for each edge, `0x1f00 1` if the
/// code at that offset of the program was reached, else `0x1f00 0`.
const VARIABLE: &str = "VIRTFS_FUZZ_EDGES";

/// A row of the pass's table: where an edge leads, and whether it enters a function.
#[repr(C)]
struct Row {
    pc: usize,
    flags: usize,
}

unsafe extern "C" {
    static __start___sancov_cntrs: u8;
    static __stop___sancov_cntrs: u8;
    static __start___sancov_pcs: Row;
    static __executable_start: u8;
}

struct Reached {
    edges: Vec<bool>,
    file: PathBuf,
}

thread_local! {
    static REACHED: RefCell<Option<Reached>> = RefCell::new(std::env::var_os(VARIABLE).map(|file| {
        Reached { edges: Vec::new(), file: file.into() }
    }));
}

/// Takes note of what the last input reached, if anybody wants to know.
pub fn note() {
    REACHED.with_borrow_mut(|reached| {
        let Some(reached) = reached else { return };
        let counters = counters();
        reached.edges.resize(counters.len(), false);
        for (edge, counter) in reached.edges.iter_mut().zip(counters) {
            *edge |= *counter != 0;
        }
    });
}

fn counters() -> &'static [u8] {
    let (start, stop) = (
        &raw const __start___sancov_cntrs,
        &raw const __stop___sancov_cntrs,
    );
    // SAFETY: the linker puts both symbols around one section of bytes, which is never freed. Other
    // threads are idle between inputs: the view has answered all that it was asked.
    unsafe { std::slice::from_raw_parts(start, stop.addr() - start.addr()) }
}

fn rows(count: usize) -> &'static [Row] {
    // SAFETY: the pass makes a row for each counter, in the same order (SanitizerCoverage.cpp).
    unsafe { std::slice::from_raw_parts(&raw const __start___sancov_pcs, count) }
}

impl Drop for Reached {
    fn drop(&mut self) {
        let base = (&raw const __executable_start).addr();
        let mut text = String::new();
        for (row, edge) in rows(self.edges.len()).iter().zip(&self.edges) {
            let _infallible = writeln!(text, "{:#x} {}", row.pc - base, u8::from(*edge));
        }
        std::fs::write(&self.file, text).expect("the file that VIRTFS_FUZZ_EDGES names");
    }
}
