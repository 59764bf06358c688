//! What a running view answers on its control socket: policy and counters, one JSON line for one
//! JSON line; another policy; decisions as they are made; a stepping console. Only root can connect
//! (the socket's mode); what root's commands decide with, they take from elsewhere, since this side
//! may be broken into.

mod console;
pub mod lines;
pub mod protocol;
mod server;

pub use protocol::{Answer, By, Data, Line, Names, OpCount, Order, Question, Status, Wanted};
pub use server::{ControlServer, Facts, View};
