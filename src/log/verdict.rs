//! The verdict on a journal's end: a pure, total function of the evidence.
//!
//! Implements journal-format.md, section 12. Gathering the evidence is `scan`'s work; acting on
//! the verdict is `recover`'s. Nothing here reads a disk.

/// What stands at X, the first offset that is not part of a valid batch or frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// No valid checksum: zeros, garbage, or the segment's end.
    Invalid,
    /// Right checksums around a kind that format 1 does not know, or a record of another shape.
    Foreign,
    /// Right checksums around an LSN that does not follow.
    OutOfOrder,
}

/// All that the verdict depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Evidence {
    /// A read failed.
    pub(crate) unreadable: bool,
    /// A file of the chain is shorter than its header says.
    pub(crate) short: bool,
    pub(crate) fault: Fault,
    /// `Sealed` names a segment that is missing or another, or does not follow on it; or a later
    /// segment begins with an `Opened` that does not follow on X.
    pub(crate) broken: bool,
    /// A valid batch header beyond X has a `durable_through` above X.
    pub(crate) durable_beyond: bool,
    /// X lies below a watermark that is kept elsewhere.
    pub(crate) below_watermark: bool,
    /// Bytes other than zero stand further beyond X than a batch in flight reaches, or in a
    /// segment that is no part of the chain.
    pub(crate) far_garbage: bool,
    /// X lies in a batch whose header is valid.
    pub(crate) in_batch: bool,
    /// Only zeros stand from X to the end.
    pub(crate) zeros: bool,
}

/// The verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Verdict {
    /// The journal ends where its last batch ends.
    Clean,
    /// An incomplete write that was never acknowledged stands behind the last batch.
    Torn,
    /// Bytes stand behind the end that no crash explains; opening refuses.
    Suspect,
    /// Bytes that were durable are wrong; opening refuses.
    Corrupt,
}

/// A verdict and the row of the table that gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ruling {
    /// Row 1: the I/O error stands for itself.
    Unreadable,
    Decided(Verdict, &'static str),
}

/// Decides; the first row that applies counts.
pub(crate) fn decide(evidence: &Evidence) -> Ruling {
    use Verdict::{Clean, Corrupt, Suspect, Torn};
    if evidence.unreadable {
        return Ruling::Unreadable;
    }
    let (verdict, why) = if evidence.short {
        (Corrupt, "a segment is shorter than its header says")
    } else if evidence.fault == Fault::Foreign {
        (Corrupt, "a record with right checksums is of no kind or shape that format 1 knows")
    } else if evidence.fault == Fault::OutOfOrder {
        (Corrupt, "a record with right checksums has an LSN out of order")
    } else if evidence.broken {
        (Corrupt, "the segment goes on, or has a successor, that cannot be found")
    } else if evidence.durable_beyond {
        (Corrupt, "a later batch was written after the bytes here were durable")
    } else if evidence.below_watermark {
        (Corrupt, "the journal once reached further")
    } else if evidence.far_garbage {
        (Suspect, "bytes stand further behind the end than any write in flight reaches")
    } else if evidence.zeros && !evidence.in_batch {
        (Clean, "nothing stands behind the last batch")
    } else {
        (Torn, "an incomplete write that was never acknowledged")
    };
    Ruling::Decided(verdict, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Evidence> {
        let mut all = Vec::new();
        for bits in 0..256_u32 {
            let bit = |n: u32| bits >> n & 1 == 1;
            for fault in [Fault::Invalid, Fault::Foreign, Fault::OutOfOrder] {
                all.push(Evidence {
                    unreadable: bit(0),
                    short: bit(1),
                    fault,
                    broken: bit(2),
                    durable_beyond: bit(3),
                    below_watermark: bit(4),
                    far_garbage: bit(5),
                    in_batch: bit(6),
                    zeros: bit(7),
                });
            }
        }
        all
    }

    /// The document's table, written down once more as conditions that must each hold of every
    /// input, so that a change of the order or of a row fails.
    #[test]
    fn every_input_gets_the_verdict_of_the_table() {
        for e in all() {
            let ruling = decide(&e);
            let corrupt = e.short
                || e.fault != Fault::Invalid
                || e.broken
                || e.durable_beyond
                || e.below_watermark;
            let expected = match (e.unreadable, corrupt, e.far_garbage, e.zeros, e.in_batch) {
                (true, ..) => None,
                (_, true, ..) => Some(Verdict::Corrupt),
                (_, _, true, ..) => Some(Verdict::Suspect),
                (.., true, false) => Some(Verdict::Clean),
                _ => Some(Verdict::Torn),
            };
            match (ruling, expected) {
                (Ruling::Unreadable, None) => {}
                (Ruling::Decided(verdict, _), Some(expected)) => {
                    assert_eq!(verdict, expected, "{e:?}")
                }
                other => panic!("{e:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn torn_needs_every_other_explanation_gone() {
        let is_torn = |e: &Evidence| matches!(decide(e), Ruling::Decided(Verdict::Torn, _));
        let torn: Vec<_> = all().into_iter().filter(is_torn).collect();
        // Bytes behind X, a batch that was begun, or both.
        assert_eq!(torn.len(), 3, "{torn:?}");
        assert!(torn.iter().all(|e| e.in_batch || !e.zeros));
    }
}
