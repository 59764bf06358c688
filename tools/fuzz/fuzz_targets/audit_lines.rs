//! See `virtfs_fuzz::audit_lines`. Without `--cfg fuzzing`: runs the files named on the command line.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    virtfs_fuzz::audit_lines::run(data);
    virtfs_fuzz::coverage::note();
});

#[cfg(not(fuzzing))]
fn main() -> std::process::ExitCode {
    virtfs_fuzz::replay(virtfs_fuzz::audit_lines::run)
}
