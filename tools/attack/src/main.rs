//! `virtfs-attack`: attacks that anyone can run, on the product and on weaker arrangements.

mod case;
mod lab;

fn main() {}
