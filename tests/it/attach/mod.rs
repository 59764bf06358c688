//! Views for clients that others have started, without libvirt: processes that stand in for its
//! children, in a host of their own ([`lab`]).

mod activation;
mod ends;
mod flood;
mod hook;
mod lab;
mod peers;
mod refusals;
mod renamed;
mod views;
mod wrapper;
