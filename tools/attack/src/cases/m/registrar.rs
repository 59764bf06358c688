//! What the process that holds SYS_ADMIN could be made to do.

use virtfs_mediator::attack::Wall;

use super::{Prepared, case, everywhere};
use crate::case::Case;
use crate::trial::{PRODUCT, without};

pub(crate) const CASES: &[Case] = &[case(
    33,
    "registrar",
    "directories, sockets, pipes, devices, O_PATH, several files, none, garbage, floods and foreign \
     ids for the registrar",
    "what the registrar looks at; its bounds; its descriptors' limit",
    |_| {
        let blind = without("all but what the registrar looks at", &[Wall::Registrar]);
        everywhere(&[blind, PRODUCT], |_| Prepared::new("registrar"))
    },
)];
