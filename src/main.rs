//! `virtfs-mediator`; see the library of the same name.

use std::process::ExitCode;

fn main() -> ExitCode {
    virtfs_mediator::main()
}
