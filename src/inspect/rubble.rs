//! Looks at each file on its own, where the chain cannot be followed to its end: what else is
//! damaged, what is missing, and whose records stand behind.

use super::audit::account_of;
use super::verification::{Problem, Problems};
use crate::disk::Disk;
use crate::error::Error;
use crate::format::HEADER_BYTES;
use crate::format::name::segment_name;
use crate::format::value::OpenedReason;
use crate::ids::{Lsn, Nonce};
use crate::log::Verdict;
use crate::log::listing::Listing;
use crate::log::scan::{AtDamage, Found, Gap, Scan, Task, scan};
use crate::log::survey::{Segment, open_any};
use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// What could be read of segments that do not fit together.
#[derive(Debug, Default)]
pub(super) struct Rubble {
    pub(super) segments: u64,
    pub(super) batches: u64,
    pub(super) frames: u64,
    pub(super) last_lsn: Lsn,
}

/// Notes what is wrong with the segments from `first` on, each by itself.
///
/// # Errors
/// What says nothing about their soundness: a newer format, what the system refuses.
pub(super) fn sift(
    disk: &dyn Disk,
    listing: &Listing,
    first: u64,
    problems: &mut Problems,
) -> Result<Rubble, Error> {
    let segments = open_all(disk, listing, first, problems)?;
    let numbers: BTreeSet<u64> = segments.iter().map(|segment| segment.header.number).collect();
    let mut rubble = Rubble::default();
    let mut before: Option<(Nonce, Lsn)> = None;
    for segment in &segments {
        check_join(segment, before, problems);
        let last_lsn = before.map(|(_, lsn)| lsn).unwrap_or_default();
        let limit = recovered_end(&segments, segment);
        let task = Task { header: &segment.header, last_lsn, limit, at_damage: AtDamage::GoOn };
        let is_last = numbers.last() == Some(&segment.header.number);
        let found = sift_one(segment, task, is_last, problems)?;
        if let Some(sealed) = found.sealed.filter(|s| !numbers.contains(&s.successor_number)) {
            let name = segment_name(sealed.successor_number);
            let what =
                format!("the segment is missing; {} says that it goes on there", segment.name);
            problems.note_missing(Problem::corrupt(&name, 0, found.last_lsn.plus(1), what));
        }
        before = Some((segment.header.nonce, found.last_lsn));
        rubble.segments += 1;
        rubble.batches += found.batches;
        rubble.frames += found.frames;
        rubble.last_lsn = rubble.last_lsn.max(found.last_lsn);
    }
    Ok(rubble)
}

/// Opens all segments that can be, in the order of the numbers that they carry, one of each.
fn open_all(
    disk: &dyn Disk,
    listing: &Listing,
    first: u64,
    problems: &mut Problems,
) -> Result<Vec<Segment>, Error> {
    let mut segments: Vec<Segment> = Vec::new();
    for number in listing.segments.range(first..) {
        match open_any(disk, *number) {
            Ok(segment) => segments.push(segment),
            Err(Error::Corrupt(damage)) => problems.note(Problem::of(&damage, Verdict::Corrupt)),
            Err(error) => return Err(error),
        }
    }
    let own_name = |segment: &Segment| segment_name(segment.header.number);
    segments.sort_by_key(|segment| (segment.header.number, segment.name != own_name(segment)));
    let mut seen: BTreeMap<Nonce, String> = BTreeMap::new();
    segments.retain(|segment| {
        let (name, own) = (segment.name.clone(), own_name(segment));
        if let Some(other) = seen.get(&segment.header.nonce) {
            let what = format!("the file is a copy of {other}");
            let advice =
                format!("move the copy away, with nothing writing here: {other} has it all");
            problems.note(Problem::corrupt(&name, 0, Lsn::NONE, what).advise(advice));
            return false;
        }
        if name != own {
            let what = format!("the file carries the number of another segment, {own}");
            let advice = format!("give it its own name back, {own}, with nothing writing here");
            problems.note(Problem::corrupt(&name, 0, segment.first_lsn(), what).advise(advice));
        }
        seen.insert(segment.header.nonce, name);
        true
    });
    Ok(segments)
}

/// The segment before must reach as far as this one says [F-25].
fn check_join(segment: &Segment, before: Option<(Nonce, Lsn)>, problems: &mut Problems) {
    let Some((opened, (nonce, last_lsn))) = segment.opened().zip(before) else { return };
    let due = opened.predecessor_lsn;
    if opened.predecessor == nonce && last_lsn < due {
        let what = format!("the segment before reached LSN {due}, and can be read to {last_lsn}");
        let at = HEADER_BYTES as u64;
        problems.note(Problem::corrupt(&segment.name, at, last_lsn.plus(1), what));
    }
}

/// Where a segment ends, if a recovery has said so [F-27].
fn recovered_end(segments: &[Segment], segment: &Segment) -> Option<u64> {
    let follows = |other: &&Segment| {
        other.opened().is_some_and(|opened| {
            opened.predecessor == segment.header.nonce && opened.reason == OpenedReason::Recovered
        })
    };
    segments.iter().find(follows).and_then(Segment::opened).map(|opened| opened.predecessor_end)
}

/// Notes each stretch of a segment that cannot be read, with accounts whose records stand behind
/// it.
fn sift_one(
    segment: &Segment,
    task: Task<'_>,
    is_last: bool,
    problems: &mut Problems,
) -> Result<Scan, Error> {
    let mut gap_before: Option<Problem> = None;
    let found = scan::<io::Error>(&*segment.file, task, &mut |found| {
        match (found, &mut gap_before) {
            (Found::Frame { frame, .. }, Some(problem)) => {
                problem.name(account_of(&frame.record));
            }
            (Found::Gap(gap), _) => {
                problems.extend(gap_before.replace(problem_of(segment, gap, is_last)));
            }
            _ => {}
        }
        Ok(())
    });
    problems.extend(gap_before);
    found.map_err(Error::io("reading a segment", segment.name.clone()))
}

fn problem_of(segment: &Segment, gap: Gap, is_last: bool) -> Problem {
    let bytes = gap.to.saturating_sub(gap.from);
    let what = match gap.next_lsn {
        Some(next) => format!(
            "{bytes} bytes cannot be read; records from LSN {} to {} are lost",
            gap.first_lsn,
            Lsn(next.0.saturating_sub(1))
        ),
        None => format!("{bytes} bytes behind the last record cannot be read"),
    };
    let mut problem = Problem::corrupt(&segment.name, gap.from, gap.first_lsn, what);
    if is_last && gap.next_lsn.is_none() {
        // This may be no more than a write that was never acknowledged.
        problem.verdict = Verdict::Torn;
    }
    problem
}
