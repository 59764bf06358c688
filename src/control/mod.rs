//! Running views, as root's commands see them: by the keeper's pid, signals and /proc; never
//! through the mediator, but for policy and counters, whose answers are parsed as hostile.

pub(crate) mod commands;
pub(crate) mod metrics;
pub(crate) mod rundir;
pub(crate) mod show;
mod walls;
