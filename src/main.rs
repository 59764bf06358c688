//! `virtfs-mediator`: every privileged act, and no file-system logic.
fn main() {}
