//! The unprivileged half of virtfs-mediator.
