//! Attributes: getattr, setattr, readlink, access, statfs.

use rustix::io::Errno;

use super::funnel::{Act, Case, Mediator, Shown, Trail};
use super::ledger::Used;
use crate::export::{Pin, Statfs};
use crate::ids::{HandleId, NodeId};
use crate::op::{ChangesAsk, Op, SetTime, Word, Words, rows};
use crate::policy::Requester;

impl Mediator {
    /// A node's attributes; through `handle` if the client has it open.
    ///
    /// # Errors
    ///
    /// ESTALE, EBADF, a refusal's errno, or what the export answers.
    pub fn getattr(
        &self,
        who: Requester,
        node: NodeId,
        handle: Option<HandleId>,
    ) -> Result<Shown, Errno> {
        self.run(Op::Getattr, who, |trail| {
            let pin = self.pin_either(node, handle)?;
            let permit = self.decide::<rows::Getattr>(trail, &Case::node(&pin), ())?;
            Ok(self.show(self.export.getattr(permit, &pin)?))
        })
    }

    /// Changes what `ask` names. The words that rules must allow follow from it.
    ///
    /// # Errors
    ///
    /// EFBIG for a size beyond 2^63 - 1; ESTALE, EBADF, a refusal's errno, or what the export
    /// answers.
    pub fn setattr(
        &self,
        who: Requester,
        node: NodeId,
        handle: Option<HandleId>,
        ask: ChangesAsk,
    ) -> Result<Shown, Errno> {
        self.run(Op::Setattr, who, |trail| {
            let ask = without_implied_time(ask);
            if ask.size.is_some_and(|size| i64::try_from(size).is_err()) {
                return Err(Errno::FBIG.into());
            }
            let pin = self.pin_either(node, handle)?;
            let words = ask.words();
            if words.is_empty() {
                return self.touch(trail, &pin);
            }
            let case = Case {
                words: Some(words),
                ..Case::node(&pin)
            };
            let permit = self.decide::<rows::Setattr>(trail, &case, ask)?;
            let grows = ask.size.filter(|_| !permit.areas().is_empty());
            let used = match grows {
                Some(size) => size.saturating_sub(self.export.stat(&pin)?.size),
                None => 0,
            };
            self.grow((trail, &case), permit, Used::bytes(used), |permit| {
                Ok(self.show(self.export.setattr(permit, &pin, handle)?))
            })
        })
    }

    /// A SETATTR that sets nothing: a chown to nobody, which moves the time of change and takes set-id
    /// bits (chown(2)), or the kernel's own word before a write that these bits go with it
    /// (`file_remove_privs`, fs/inode.c). Allowed to whoever may do either.
    fn touch(&self, trail: &Trail, pin: &Pin) -> Act<Shown> {
        let case = |word| Case {
            words: Some(Words::of(word)),
            ..Case::node(pin)
        };
        let either = [case(Word::Write), case(Word::Owner)];
        let permit = self.decide_either::<rows::Setattr>(trail, &either, ChangesAsk::NOTHING)?;
        Ok(self.show(self.export.touch(permit, pin)?))
    }

    /// A symbolic link's target.
    ///
    /// # Errors
    ///
    /// EINVAL for another type; ESTALE, a refusal's errno, or what the export answers.
    pub fn readlink(&self, who: Requester, node: NodeId) -> Result<Vec<u8>, Errno> {
        self.run(Op::Readlink, who, |trail| {
            let pin = self.export.pin(node)?;
            let permit = self.decide::<rows::Readlink>(trail, &Case::node(&pin), ())?;
            Ok(self.export.readlink(permit, &pin)?)
        })
    }

    /// access(2) and chdir(2) in client mode: whoever asks acts as the guest's root, so that all
    /// that may be looked at is accessible; what the policy forbids is told by the operation.
    ///
    /// # Errors
    ///
    /// ESTALE or a refusal's errno.
    pub fn access(&self, who: Requester, node: NodeId) -> Result<(), Errno> {
        self.run(Op::Access, who, |trail| {
            let pin = self.export.pin(node)?;
            let _permit = self.decide::<rows::Access>(trail, &Case::node(&pin), ())?;
            Ok(())
        })
    }

    /// Totals of the file system that `node` lies on.
    ///
    /// # Errors
    ///
    /// ESTALE, a refusal's errno, or what the export answers.
    pub fn statfs(&self, who: Requester, node: NodeId) -> Result<Statfs, Errno> {
        self.run(Op::Statfs, who, |trail| {
            let pin = self.export.pin(node)?;
            let permit = self.decide::<rows::Statfs>(trail, &Case::node(&pin), ())?;
            Ok(self.within_view(self.export.statfs(permit, &pin)?))
        })
    }

    fn pin_either(&self, node: NodeId, handle: Option<HandleId>) -> Act<Pin> {
        let Some(handle) = handle else {
            return Ok(self.export.pin(node)?);
        };
        let pin = self.export.pin_handle(handle)?;
        // A handle of another node would have one file judged and another changed.
        if pin.node() == node {
            Ok(pin)
        } else {
            Err(Errno::BADF.into())
        }
    }
}

/// A truncation moves mtime by itself, and the kernel may ask for that too (`ATTR_MTIME` without
/// `ATTR_MTIME_SET`): no reason to demand the right to set times.
fn without_implied_time(mut ask: ChangesAsk) -> ChangesAsk {
    if ask.size.is_some() && ask.mtime == SetTime::Now {
        ask.mtime = SetTime::Omit;
    }
    ask
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{GuestGid, Mode, Timestamp};

    #[test]
    fn setattr_words_follow_from_what_is_asked() {
        assert!(ChangesAsk::NOTHING.words().is_empty());
        let ask = ChangesAsk {
            gid: Some(GuestGid(5)),
            mode: Some(Mode::new(0o600)),
            ..ChangesAsk::NOTHING
        };
        let words = ask.words();
        assert_eq!(words, Words::of(Word::Owner).with(Words::of(Word::Mode)));
    }

    #[test]
    fn truncate_asks_for_write_alone_though_the_kernel_adds_now() {
        let ask = ChangesAsk {
            size: Some(0),
            mtime: SetTime::Now,
            ..ChangesAsk::NOTHING
        };
        assert_eq!(without_implied_time(ask).words(), Words::of(Word::Write));
        let ask = ChangesAsk {
            mtime: SetTime::To(Timestamp::default()),
            ..ask
        };
        assert!(
            without_implied_time(ask)
                .words()
                .meets(Words::of(Word::Time))
        );
    }
}
