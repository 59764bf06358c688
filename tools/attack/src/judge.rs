//! Whether a case proves something.

use std::time::Duration;

use serde::Serialize;

use crate::case::{Arrangement, Attempt, Case, Verdict};
use crate::trial::{KERNELS_OWN, SECCOMPS_OWN};

/// A case that was run.
pub(crate) struct Judged {
    pub(crate) case: &'static Case,
    pub(crate) attempts: Vec<Attempt>,
    pub(crate) outcome: Outcome,
    pub(crate) took: Duration,
}

/// What it proves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) enum Outcome {
    /// It worked somewhere, and the product refused it.
    Passed,
    /// It proves nothing, or the product did not refuse: why.
    Failed(String),
    /// This kernel was built without what it attacks: root is told so too.
    NotHere,
}

/// Judges what a case brought.
///
/// It passes only if the attack succeeded in a weaker arrangement (one that works nowhere proves
/// nothing), the product was tried and refused it every time, and told of each refusal or could
/// not have, and nothing was left untried.
pub(crate) fn judge(attempts: &Result<Vec<Attempt>, String>) -> Outcome {
    let attempts = match attempts {
        Ok(attempts) => attempts,
        Err(why) => return Outcome::Failed(why.clone()),
    };
    let of_product = |attempt: &&Attempt| attempt.arrangement == Arrangement::Product;
    let succeeds = |attempt: &Attempt| matches!(attempt.verdict, Verdict::Succeeded(_));
    for attempt in attempts.iter().filter(of_product) {
        match &attempt.verdict {
            Verdict::Succeeded(how) => {
                return Outcome::Failed(format!("the product let it happen: {how}"));
            }
            Verdict::Refused(how) if attempt.told.is_none() => {
                return Outcome::Failed(format!("the product refused in silence: {how}"));
            }
            Verdict::Refused(_) | Verdict::Untried(_) => {}
        }
    }
    for attempt in attempts {
        if let Verdict::Untried(why) = &attempt.verdict {
            return Outcome::Failed(format!("not tried ({}): {why}", name(attempt)));
        }
    }
    if !attempts.iter().any(|attempt| of_product(&attempt)) {
        return Outcome::Failed("the product was not tried".to_owned());
    }
    if attempts
        .iter()
        .any(|attempt| !of_product(&attempt) && succeeds(attempt))
    {
        return Outcome::Passed;
    }
    let absent = |attempt: &Attempt| {
        attempt.arrangement == Arrangement::RootInChroot
            && attempt.verdict == Verdict::Refused("ENOSYS".to_owned())
    };
    if attempts.iter().any(absent) {
        Outcome::NotHere
    } else {
        Outcome::Failed("it works nowhere, which proves nothing".to_owned())
    }
}

/// An arrangement's name, for people.
pub(crate) fn name(attempt: &Attempt) -> &str {
    match &attempt.arrangement {
        Arrangement::RootInChroot => "root in a chroot",
        Arrangement::UidWithCapabilities => "uid + the mail's capabilities",
        Arrangement::ProxyHelper => "proxy helper's set",
        Arrangement::Other(name) | Arrangement::Walls(name) => name,
        Arrangement::Product => "virtfs-mediator",
    }
}

/// Whether a refusal stands in our log; if not, it is the kernel's or the filter's own errno,
/// which no process of ours sees.
pub(crate) fn is_logged(attempt: &Attempt) -> bool {
    attempt
        .told
        .as_ref()
        .is_some_and(|told| told != KERNELS_OWN && told != SECCOMPS_OWN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(arrangement: Arrangement, verdict: Verdict, told: Option<&str>) -> Attempt {
        Attempt {
            arrangement,
            way: String::new(),
            verdict,
            told: told.map(str::to_owned),
        }
    }

    fn succeeded() -> Verdict {
        Verdict::Succeeded("it did".to_owned())
    }

    fn refused(how: &str) -> Verdict {
        Verdict::Refused(how.to_owned())
    }

    fn fails(attempts: Vec<Attempt>, because: &str) {
        match judge(&Ok(attempts)) {
            Outcome::Failed(why) => assert!(why.contains(because), "{why}"),
            other @ (Outcome::Passed | Outcome::NotHere) => panic!("{other:?}, although {because}"),
        }
    }

    #[test]
    fn refused_by_the_product_and_successful_elsewhere_passes() {
        let attempts = vec![
            attempt(Arrangement::RootInChroot, succeeded(), None),
            attempt(Arrangement::Walls("w"), refused("EPERM"), None),
            attempt(Arrangement::Product, refused("EPERM"), Some("told")),
        ];
        assert_eq!(judge(&Ok(attempts)), Outcome::Passed);
    }

    #[test]
    fn successful_with_the_product_fails() {
        let attempts = vec![
            attempt(Arrangement::RootInChroot, succeeded(), None),
            attempt(Arrangement::Product, refused("EPERM"), Some("told")),
            attempt(Arrangement::Product, succeeded(), Some("told")),
        ];
        fails(attempts, "let it happen");
    }

    #[test]
    fn refused_in_silence_fails() {
        let attempts = vec![
            attempt(Arrangement::RootInChroot, succeeded(), None),
            attempt(Arrangement::Product, refused("EPERM"), None),
        ];
        fails(attempts, "silence");
    }

    #[test]
    fn successful_nowhere_fails() {
        let attempts = vec![
            attempt(Arrangement::RootInChroot, refused("EPERM"), None),
            attempt(Arrangement::Product, refused("EPERM"), Some("told")),
        ];
        fails(attempts, "nowhere");
    }

    #[test]
    fn successful_only_with_the_product_is_no_proof() {
        let attempts = vec![
            attempt(Arrangement::RootInChroot, refused("EPERM"), None),
            attempt(Arrangement::Product, succeeded(), Some("told")),
        ];
        fails(attempts, "let it happen");
    }

    #[test]
    fn untried_anywhere_fails() {
        let untried = Verdict::Untried("why".to_owned());
        for arrangement in [Arrangement::UidWithCapabilities, Arrangement::Product] {
            let attempts = vec![
                attempt(Arrangement::RootInChroot, succeeded(), None),
                attempt(arrangement, untried.clone(), None),
                attempt(Arrangement::Product, refused("EPERM"), Some("told")),
            ];
            fails(attempts, "not tried");
        }
    }

    #[test]
    fn product_left_out_fails() {
        let attempts = vec![attempt(Arrangement::RootInChroot, succeeded(), None)];
        fails(attempts, "the product was not tried");
        fails(Vec::new(), "the product was not tried");
        assert_eq!(
            judge(&Err("broken".to_owned())),
            Outcome::Failed("broken".to_owned())
        );
    }

    #[test]
    fn call_that_the_kernel_lacks_is_neither() {
        let attempts = vec![
            attempt(Arrangement::RootInChroot, refused("ENOSYS"), None),
            attempt(Arrangement::Product, refused("killed"), Some("told")),
        ];
        assert_eq!(judge(&Ok(attempts)), Outcome::NotHere);
        // Of an arrangement with a filter, ENOSYS is no word of the kernel's.
        let attempts = vec![
            attempt(Arrangement::Walls("seccomp"), refused("ENOSYS"), None),
            attempt(Arrangement::Product, refused("ENOSYS"), Some("told")),
        ];
        fails(attempts, "nowhere");
    }

    #[test]
    fn kernels_errno_is_not_taken_for_a_log() {
        let told = |told| attempt(Arrangement::Product, refused("EPERM"), told);
        assert!(is_logged(&told(Some("ERROR its mediator ended"))));
        assert!(!is_logged(&told(Some(KERNELS_OWN))));
        assert!(!is_logged(&told(Some(SECCOMPS_OWN))));
        assert!(!is_logged(&told(None)));
    }
}
