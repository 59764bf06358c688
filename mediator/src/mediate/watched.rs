//! A decision that somebody watches, or may hold.

use rustix::io::Errno;

use super::event::{Decision, Verdict};
use super::funnel::{Act, Case, Mediator, Trail};
use super::gate::Answer;
use super::scratch::with_paths;
use crate::op::AnyAsk;
use crate::policy::{Facts, Judged, Permit, Policy, Refusal, Request};

impl Mediator {
    /// As the policy decides, unless the stepping console does. After a hold the facts are gathered
    /// anew: what was true then may not be now.
    pub(super) fn decide_watched<O: Judged>(
        &self,
        trail: &Trail,
        case: &Case<'_>,
        ask: O::Ask,
    ) -> Act<Result<Permit<O>, Refusal>> {
        let policy = |policy: &Policy, facts: &Facts<'_>| policy.decide::<O>(facts, ask);
        let hand = |policy: &Policy, facts: &Facts<'_>| policy.decide_by_hand::<O>(facts, ask);
        loop {
            let (decided, decision) = self.judge::<O>(trail, case, ask.into(), policy)?;
            let (verdict, by_hand) = match self.gate.pass(&decision) {
                None => {
                    trail.decisions.borrow_mut().push(decision);
                    return Ok(decided);
                }
                Some(Answer::Anew) if trail.decisions.borrow().is_empty() => {
                    self.renew(trail);
                    continue;
                }
                Some(Answer::Anew) => (
                    Err(refuse("the policy changed between two decisions about it")),
                    false,
                ),
                Some(Answer::Policy) => {
                    (self.judge::<O>(trail, case, ask.into(), policy)?.0, false)
                }
                Some(Answer::Allow) => (self.judge::<O>(trail, case, ask.into(), hand)?.0, true),
                Some(Answer::Refuse(errno)) => {
                    let why = "refused by hand in the stepping console";
                    (
                        Err(Refusal {
                            errno,
                            ..refuse(why)
                        }),
                        true,
                    )
                }
                Some(Answer::TooLate) => {
                    let why = "held by the stepping console until its time limit";
                    (Err(refuse(why)), true)
                }
            };
            trail.decisions.borrow_mut().push(Decision {
                verdict: Verdict::of(&verdict),
                by_hand,
                ..decision
            });
            if by_hand && verdict.is_ok() {
                self.tell_by_hand(trail, case);
            }
            return Ok(verdict);
        }
    }

    fn judge<O: Judged>(
        &self,
        trail: &Trail,
        case: &Case<'_>,
        ask: AnyAsk,
        judge: impl FnOnce(&Policy, &Facts<'_>) -> Result<Permit<O>, Refusal>,
    ) -> Act<(Result<Permit<O>, Refusal>, Decision)> {
        with_paths(|scratch| {
            self.with_facts(O::OP, trail, case, scratch, |facts| {
                let decided = judge(&trail.policy.borrow(), facts);
                let decision = Decision {
                    request: Request::of(facts, ask),
                    verdict: Verdict::of(&decided),
                    by_hand: false,
                    epoch: trail.epoch.get(),
                };
                (decided, decision)
            })
        })
    }

    fn renew(&self, trail: &Trail) {
        trail.epoch.set(self.epoch());
        trail.policy.replace(self.policy.load());
    }
}

fn refuse(why: &'static str) -> Refusal {
    Refusal {
        errno: Errno::ACCESS,
        rule: None,
        why,
    }
}
