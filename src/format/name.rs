//! File names (journal-format.md, section 3): built and parsed here and nowhere else.

use crate::ids::Lsn;

/// The lock file.
pub const LOCK: &str = "LOCK";
/// The socket on which the process that writes takes orders.
pub const CONTROL: &str = "control";

const SEGMENT: (&str, &str) = ("segment-", ".twj");
const SNAPSHOT: (&str, &str) = ("snapshot-", ".tws");
const TEMPORARY: &str = ".tmp";
const DIGITS: usize = 20;

/// What a name in a store's directory stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Name {
    /// The lock file.
    Lock,
    /// The control socket.
    Control,
    /// A segment, by its number.
    Segment(u64),
    /// A snapshot, by the last LSN that is folded in.
    Snapshot(Lsn),
    /// A segment or snapshot in the making.
    Temporary,
    /// Not ours: left alone and reported [F-9].
    Foreign,
}

impl Name {
    /// Says what a name stands for.
    pub fn parse(name: &str) -> Self {
        if let Some(made) = name.strip_suffix(TEMPORARY) {
            return match Self::parse(made) {
                Self::Segment(_) | Self::Snapshot(_) => Self::Temporary,
                _ => Self::Foreign,
            };
        }
        match name {
            LOCK => return Self::Lock,
            CONTROL => return Self::Control,
            _ => {}
        }
        numbered(name, SEGMENT)
            .map(Self::Segment)
            .or_else(|| numbered(name, SNAPSHOT).map(|lsn| Self::Snapshot(Lsn(lsn))))
            .unwrap_or(Self::Foreign)
    }
}

/// Names the segment of this number.
pub fn segment_name(number: u64) -> String {
    build(SEGMENT, number)
}

/// Names the snapshot with all records up to and with this LSN.
pub fn snapshot_name(lsn: Lsn) -> String {
    build(SNAPSHOT, lsn.0)
}

/// Names a segment or snapshot in the making, by the name that it will have.
pub fn temporary_name(name: &str) -> String {
    format!("{name}{TEMPORARY}")
}

fn build((before, after): (&str, &str), number: u64) -> String {
    format!("{before}{number:0DIGITS$}{after}")
}

fn numbered(name: &str, (before, after): (&str, &str)) -> Option<u64> {
    let digits = name.strip_prefix(before)?.strip_suffix(after)?;
    let plain = digits.len() == DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
    if plain { digits.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_have_one_spelling() {
        assert_eq!(segment_name(7), "segment-00000000000000000007.twj");
        assert_eq!(snapshot_name(Lsn(u64::MAX)), "snapshot-18446744073709551615.tws");
        assert_eq!(Name::parse("LOCK"), Name::Lock);
        assert_eq!(Name::parse("control"), Name::Control);
        for foreign in [
            "",
            ".tmp",
            "LOCK.tmp",
            "control.tmp",
            "CONTROL",
            "notes.tmp",
            "segment-7.twj",
            "segment-+0000000000000000007.twj",
            "segment-99999999999999999999.twj",
            "segment-00000000000000000007.tws",
            "segment-00000000000000000007.twj.tmp.tmp",
            "Segment-00000000000000000007.twj",
        ] {
            assert_eq!(Name::parse(foreign), Name::Foreign, "{foreign}");
        }
    }

    proptest! {
        #[test]
        fn names_round_trip(number: u64) {
            let (segment, snapshot) = (segment_name(number), snapshot_name(Lsn(number)));
            prop_assert_eq!(Name::parse(&segment), Name::Segment(number));
            prop_assert_eq!(Name::parse(&snapshot), Name::Snapshot(Lsn(number)));
            prop_assert_eq!(Name::parse(&temporary_name(&segment)), Name::Temporary);
            prop_assert_eq!(Name::parse(&temporary_name(&snapshot)), Name::Temporary);
        }

        #[test]
        fn any_text_is_a_name(name in ".*") {
            if let Name::Segment(number) = Name::parse(&name) {
                prop_assert_eq!(segment_name(number), name);
            }
        }
    }
}
