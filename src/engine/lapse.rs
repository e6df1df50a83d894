//! When every access token of a grant has lapsed, as far as that is known (journal-format.md [F-71]).
//!
//! What is only assumed proves nothing: it never becomes a time here.

use crate::format::clear::Flags;

/// On disk: not known.
const UNKNOWN_MS: u64 = u64::MAX;

/// What is known of when some access tokens lapse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Lapse {
    /// There are none.
    #[default]
    None,
    /// The last of them lapses then, in milliseconds since 1970: declared, or asked for.
    At(u64),
    /// The expiry of each of them is an assumption.
    Assumed,
    /// Of one at least nothing is known, or they are not of one sort.
    Unknown,
}

impl Lapse {
    /// Reads what a record says of the tokens before its own.
    pub(crate) fn of_earlier(lapse_at_ms: u64, flags: Flags) -> Self {
        match (lapse_at_ms, flags.has(Flags::EARLIER_ASSUMED)) {
            (UNKNOWN_MS, true) => Self::Assumed,
            (UNKNOWN_MS, false) => Self::Unknown,
            (0, _) => Self::None,
            (at_ms, _) => Self::At(at_ms),
        }
    }

    /// Reads what a record says of its own token.
    pub(crate) fn of_own(expires_at_ms: u64, flags: Flags) -> Self {
        let assumed = flags.has(Flags::EXPIRES_ASSUMED) && !flags.has(Flags::EXPIRES_DECLARED);
        Self::of_token(expires_at_ms, assumed)
    }

    /// Returns when a token lapses that expires then, in milliseconds since 1970, or 0.
    pub(crate) fn of_token(expires_at_ms: u64, is_assumed: bool) -> Self {
        match (expires_at_ms, is_assumed) {
            (0 | UNKNOWN_MS, _) => Self::Unknown,
            (_, true) => Self::Assumed,
            (at_ms, false) => Self::At(at_ms),
        }
    }

    /// Returns when the tokens of both have lapsed.
    pub(crate) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::None, one) | (one, Self::None) => one,
            (Self::At(one), Self::At(other)) => Self::At(one.max(other)),
            (Self::Assumed, Self::Assumed) => Self::Assumed,
            _ => Self::Unknown,
        }
    }

    /// Returns the time, in milliseconds since 1970, if that is known.
    pub(crate) fn at_ms(self) -> Option<u64> {
        match self {
            Self::At(at_ms) => Some(at_ms),
            Self::None | Self::Assumed | Self::Unknown => None,
        }
    }

    /// Returns what the next record says of these tokens.
    pub(crate) fn to_earlier(self) -> (u64, Flags) {
        match self {
            Self::None => (0, Flags::NONE),
            Self::At(at_ms) => (at_ms, Flags::NONE),
            Self::Assumed => (UNKNOWN_MS, Flags::EARLIER_ASSUMED),
            Self::Unknown => (UNKNOWN_MS, Flags::NONE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Lapse::{Assumed, At, None, Unknown};

    const ALL: [Lapse; 6] = [None, At(1), At(7), At(u64::MAX - 1), Assumed, Unknown];

    #[test]
    fn what_is_said_on_disk_is_read_again() {
        for lapse in ALL {
            let (at_ms, flags) = lapse.to_earlier();
            assert_eq!(Lapse::of_earlier(at_ms, flags), lapse);
        }
    }

    #[test]
    fn the_order_of_tokens_does_not_matter() {
        for (one, other, third) in ALL
            .into_iter()
            .flat_map(|one| ALL.map(|other| (one, other)))
            .flat_map(|(one, other)| ALL.map(|third| (one, other, third)))
        {
            assert_eq!(one.and(other), other.and(one));
            assert_eq!(one.and(other).and(third), one.and(other.and(third)));
            assert_eq!(one.and(one), one);
        }
    }

    #[test]
    fn an_assumption_never_becomes_a_time() {
        for other in ALL {
            assert!(!matches!(Assumed.and(other), At(_)), "{other:?}");
            assert!(!matches!(Unknown.and(other), At(_)), "{other:?}");
        }
        assert_eq!(Lapse::of_own(5, Flags::EXPIRES_ASSUMED), Assumed);
        assert_eq!(Lapse::of_own(5, Flags::EXPIRES_DECLARED), At(5));
        assert_eq!(Lapse::of_own(5, Flags::NONE), At(5), "it was asked for");
        assert_eq!(Lapse::of_own(0, Flags::EXPIRES_DECLARED), Unknown);
        assert_eq!(At(3).and(At(9)), At(9));
    }
}
