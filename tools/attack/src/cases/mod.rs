//! All attacks.

mod g;
mod l;
mod m;
mod q;
mod r;

use crate::case::Case;

/// Every case, a list each of those who attack.
const LISTS: &[&[Case]] = &[
    m::escape::CASES,
    m::namespaces::CASES,
    m::processes::CASES,
    m::files::CASES,
    m::calls::CASES,
    m::answers::CASES,
    m::registrar::CASES,
    q::CASES,
    q::libvirt::CASES,
    g::CASES,
    r::CASES,
    l::CASES,
];

/// Every case, by row.
pub(crate) fn all() -> Vec<&'static Case> {
    let mut cases: Vec<_> = LISTS.iter().copied().flatten().collect();
    cases.sort_by_key(|case| case.row);
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_have_ids_of_their_own() {
        let mut ids: Vec<_> = all().iter().map(|case| case.id).collect();
        let count = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), count);
    }
}
