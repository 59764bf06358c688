//! What mediator and registrar say to each other: fixed lengths, one message a datagram.
//!
//! A question may carry one descriptor (`SCM_RIGHTS`, unix(7)); [`Question::Open`] must, and
//! [`Question::Close`] must not. Only an open is answered.

/// How long a question is in bytes.
pub const QUESTION: usize = 8;
/// How long an answer is in bytes.
pub const ANSWER: usize = 8;

const OPEN: u32 = 1;
const CLOSE: u32 = 2;

/// What a mediator asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Register the file whose descriptor comes along.
    Open,
    /// Let go of a file that was registered, by its id.
    Close(u32),
}

impl Question {
    /// As it is sent.
    #[must_use]
    pub fn to_bytes(self) -> [u8; QUESTION] {
        match self {
            Self::Open => pair(OPEN, 0),
            Self::Close(id) => pair(CLOSE, id),
        }
    }

    /// `None` for anything that [`Question::to_bytes`] does not make.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        match split(bytes)? {
            (OPEN, 0) => Some(Self::Open),
            (CLOSE, id) => Some(Self::Close(id)),
            _ => None,
        }
    }
}

/// An answer: the backing id, or an errno.
#[must_use]
pub fn answer(registered: Result<u32, i32>) -> [u8; ANSWER] {
    match registered {
        Ok(id) => pair(0, id),
        // 0 would say that it went well.
        Err(errno) => pair(errno.unsigned_abs().max(1), 0),
    }
}

/// What an answer says; `None` for one that [`answer`] does not make.
#[must_use]
pub fn parse_answer(bytes: &[u8]) -> Option<Result<u32, i32>> {
    match split(bytes)? {
        (0, id) => Some(Ok(id)),
        (errno, 0) => Some(Err(i32::try_from(errno).ok()?)),
        _ => None,
    }
}

fn pair(first: u32, second: u32) -> [u8; 8] {
    let mut bytes = [0; 8];
    let (one, two) = bytes.split_at_mut(4);
    one.copy_from_slice(&first.to_ne_bytes());
    two.copy_from_slice(&second.to_ne_bytes());
    bytes
}

fn split(bytes: &[u8]) -> Option<(u32, u32)> {
    let bytes: [u8; 8] = bytes.try_into().ok()?;
    let [a, b, c, d, e, f, g, h] = bytes;
    Some((
        u32::from_ne_bytes([a, b, c, d]),
        u32::from_ne_bytes([e, f, g, h]),
    ))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn whatever_comes_is_a_question_as_it_is_sent_or_none(
            bytes in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..20),
                // Near to one.
                (0..4u32, any::<u32>()).prop_map(|(kind, id)| pair(kind, id).to_vec()),
            ],
        ) {
            if let Some(question) = Question::parse(&bytes) {
                prop_assert_eq!(question.to_bytes().to_vec(), bytes);
            } else {
                prop_assert!(bytes.len() != QUESTION
                    || ![OPEN, CLOSE].map(|kind| pair(kind, 0)[..4].to_vec()).contains(&bytes[..4].to_vec())
                    || (bytes[..4] == OPEN.to_ne_bytes() && bytes[4..] != [0; 4]));
            }
        }

        #[test]
        fn whatever_comes_is_an_answer_as_it_is_sent_or_none(
            bytes in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..20),
                (0..4u32, 0..4u32).prop_map(|(errno, id)| pair(errno, id).to_vec()),
            ],
        ) {
            if let Some(told) = parse_answer(&bytes) {
                prop_assert_eq!(answer(told).to_vec(), bytes);
            }
        }
    }

    #[test]
    fn questions_and_answers_come_back_as_they_were() {
        for question in [
            Question::Open,
            Question::Close(0),
            Question::Close(u32::MAX),
        ] {
            assert_eq!(Question::parse(&question.to_bytes()), Some(question));
        }
        for told in [Ok(0), Ok(7), Err(libc::EINVAL), Err(i32::MAX)] {
            assert_eq!(parse_answer(&answer(told)), Some(told));
        }
        assert_eq!(parse_answer(&answer(Err(0))), Some(Err(1)));
    }
}
