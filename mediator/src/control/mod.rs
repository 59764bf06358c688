//! What a running view answers on its control socket: policy and counters, one JSON line for one
//! JSON line. Only root can connect (the socket's mode); what it decides with, it takes from
//! elsewhere, since this side may be broken into.

pub mod protocol;
mod server;

pub use protocol::{Answer, OpCount, Question, Status};
pub use server::{ControlServer, Facts};
