//! The one way from a request to an act.
