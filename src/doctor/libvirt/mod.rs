//! libvirt: what a domain with views rests on.
//!
//! * [`host`]: libvirt's settings, our hook, our service, the wrapper, security modules.
//! * [`domains`]: each domain that is enabled.

mod domains;
mod host;

use crate::doctor::NEEDS_ROOT;
use crate::doctor::catalogue::Problem;
use crate::doctor::findings::Findings;

/// All checks of this group.
pub(super) fn check(findings: &mut Findings, root: bool) {
    if !root {
        findings.untried(Problem::NoLibvirt, NEEDS_ROOT);
        return;
    }
    let conf = host::check(findings);
    domains::check(findings, conf.as_ref());
}
