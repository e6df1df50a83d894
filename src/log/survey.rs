//! Reads a whole journal, follows the chain of segments, and decides the verdict on its end.
//!
//! Implements journal-format.md, sections 8, 11 and 12. It never writes: what it returns is not
//! yet fit to be written to, and only `recover` makes something of it that is.

use super::beyond::{Beyond, look_beyond};
use super::listing::Listing;
use super::present::{Present, corrupt, damage};
use super::scan::{AtDamage, Found, Scan, Task, WholeBatch, scan};
use super::verdict::{Evidence, Fault, Ruling, Verdict, decide};
use crate::disk::Disk;
use crate::error::{Damage, Error};
use crate::format::HEADER_BYTES;
use crate::format::clear::Opened;
use crate::format::frame::Frame;
use crate::format::value::{MarkerReason, OpenedReason};
use crate::ids::{Lsn, Nonce, StoreId};

pub(crate) use super::present::{Segment, open_any, open_segment};

/// Where the chain begins.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Start {
    /// The snapshot's LSN, or none.
    pub(crate) lsn: Lsn,
    /// The segment that the snapshot names as its tail, and the store it belongs to.
    pub(crate) tail: Option<(Nonce, u64, StoreId)>,
}

/// A segment of the chain, read to its end.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) segment: Segment,
    pub(crate) scan: Scan,
}

/// What a journal turned out to be.
#[derive(Debug)]
pub(crate) struct Survey {
    pub(crate) chain: Vec<Link>,
    /// Segments that hold nothing and are no part of the chain.
    pub(crate) prepared: Vec<String>,
    /// Segments that the snapshot covers.
    pub(crate) covered: Vec<u64>,
    pub(crate) verdict: Verdict,
    /// What is wrong, where the verdict is not clean.
    pub(crate) damage: Option<Damage>,
    /// The last LSN.
    pub(crate) head: Lsn,
    /// The marker at the end, if the last frame is one and nothing stands behind it [F-43].
    pub(crate) marker: Option<MarkerReason>,
    /// How far behind the end the bytes of an incomplete write reach.
    pub(crate) torn_bytes: u64,
    /// Bytes that a living writer has not yet called durable.
    pub(crate) live_bytes: u64,
    /// The highest number among all segments, in the chain or not.
    pub(crate) last_number: u64,
}

/// How to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Beside {
    /// Nobody writes: all that is valid counts.
    Nobody,
    /// A process writes: only what it has called durable is shown, and its end is not judged.
    Writer,
}

/// Hears of each segment before its records, and of each record.
pub(crate) trait Sink {
    /// A segment of the chain begins.
    fn segment(&mut self, segment: &Segment) -> Result<(), Error>;
    /// A frame of it; `begins_batch` says whether it is the first of its batch.
    fn frame(&mut self, frame: &Frame<'_>, begins_batch: bool) -> Result<(), Error>;
    /// A batch of it is over, all of whose frames were valid.
    fn batch(&mut self, _batch: &WholeBatch<'_>) -> Result<(), Error> {
        Ok(())
    }
}

/// Reads the journal from `start` to its end.
///
/// # Errors
/// An I/O error, or damage that leaves no chain to follow. Damage at the end of what can be read
/// is no error here but the survey's verdict.
pub(crate) fn survey(
    disk: &dyn Disk,
    listing: &Listing,
    start: Start,
    beside: Beside,
    sink: &mut dyn Sink,
) -> Result<Survey, Error> {
    let from = start.tail.map(|(_, number, _)| number).unwrap_or_default();
    let (covered, numbers): (Vec<u64>, Vec<u64>) =
        listing.segments.iter().partition(|number| **number < from);
    let present = Present::open(disk, &numbers)?;
    let mut segment = present.first(&disk.path(), &start)?;
    if let (Some(_), Some((lsn, opened))) = (start.tail, segment.opened)
        && opened.predecessor_lsn != start.lsn
    {
        let what = "the segment does not go on where the snapshot ends";
        return Err(corrupt(&segment.name, HEADER_BYTES as u64, lsn, what));
    }
    let mut chain: Vec<Link> = Vec::new();
    let mut last_lsn = start.lsn;
    loop {
        sink.segment(segment)?;
        let link = read_link(&present, segment, last_lsn, beside, sink)?;
        last_lsn = link.scan.last_lsn;
        let next = next_segment(&present, &link);
        chain.push(link);
        match next {
            Next::Segment(next) => segment = next,
            Next::End | Next::Broken => break,
        }
    }
    let watermark = listing.snapshots.last().copied().unwrap_or_default().max(start.lsn);
    judge(&present, Parts { chain, covered, watermark, beside })
}

enum Next<'a> {
    Segment(&'a Segment),
    End,
    Broken,
}

/// Finds what follows a segment that was read to its end.
fn next_segment<'a>(present: &'a Present, link: &Link) -> Next<'a> {
    let number = link.segment.header.number;
    let Some(sealed) = link.scan.sealed else {
        return match present.follower(&link.segment) {
            Some((next, opened)) if continues(link, &opened, OpenedReason::Recovered) => {
                Next::Segment(next)
            }
            Some(_) => Next::Broken,
            None => Next::End,
        };
    };
    let named = present.behind(number).next().filter(|next| {
        let opened = next.opened.map(|(_, opened)| opened);
        next.header.number == sealed.successor_number
            && next.header.nonce == sealed.successor
            && opened.is_none_or(|opened| continues(link, &opened, OpenedReason::RolledOver))
    });
    named.map_or(Next::Broken, Next::Segment)
}

/// Says whether `opened` follows on what was read [F-25]. Where it says that it recovered, the
/// segment was read up to the end that it names.
fn continues(link: &Link, opened: &Opened, reason: OpenedReason) -> bool {
    opened.reason == reason
        && opened.predecessor == link.segment.header.nonce
        && opened.predecessor_end == link.scan.end
        && opened.predecessor_lsn == link.scan.last_lsn
}

fn read_link(
    present: &Present,
    segment: &Segment,
    last_lsn: Lsn,
    beside: Beside,
    sink: &mut dyn Sink,
) -> Result<Link, Error> {
    let header = &segment.header;
    let follower = present.follower(segment).map(|(_, opened)| opened);
    let limit = follower
        .filter(|opened| {
            opened.reason == OpenedReason::Recovered && opened.predecessor == header.nonce
        })
        .map(|opened| opened.predecessor_end);
    let mut task = Task { header, last_lsn, limit, at_damage: AtDamage::Stop };
    let file = &*segment.file;
    let io = || Error::io("reading a segment", segment.name.clone());
    if beside == Beside::Writer && follower.is_none() {
        // It may be the last one, of which only what is proven may be seen.
        let all = scan::<std::io::Error>(file, task, &mut |_| Ok(())).map_err(io())?;
        task.limit = Some(all.durable_through);
    }
    let scan = scan::<Stopped>(file, task, &mut |found| {
        let heard = match found {
            Found::Frame { frame, begins } => sink.frame(frame, begins),
            Found::Batch(batch) => sink.batch(&batch),
            Found::Gap(_) => Ok(()),
        };
        heard.map_err(Stopped::BySink)
    })
    .map_err(|stopped| match stopped {
        Stopped::BySink(error) => error,
        Stopped::ByDisk(error) => io()(error),
    })?;
    Ok(Link { segment: segment.clone(), scan })
}

/// Why a pass over a segment ended early.
enum Stopped {
    BySink(Error),
    ByDisk(std::io::Error),
}

impl From<std::io::Error> for Stopped {
    fn from(error: std::io::Error) -> Self {
        Self::ByDisk(error)
    }
}

/// What a survey has read, and what it depends on.
struct Parts {
    chain: Vec<Link>,
    covered: Vec<u64>,
    /// The journal once reached so far, at least.
    watermark: Lsn,
    beside: Beside,
}

/// Gathers the evidence at the chain's end, and decides.
fn judge(present: &Present, parts: Parts) -> Result<Survey, Error> {
    let last = parts.chain.last().expect("the chain has its first segment");
    let (scan, header) = (&last.scan, &last.segment.header);
    let io = |name: &str| Error::io("reading a segment", name.to_owned());
    let beyond =
        look_beyond(&*last.segment.file, header, scan.fault_at).map_err(io(&last.segment.name))?;
    let mut short = None;
    for Link { segment, .. } in &parts.chain {
        let bytes = segment.file.len().map_err(io(&segment.name))?;
        short = short.or_else(|| {
            (bytes < segment.header.segment_bytes).then(|| (segment.name.clone(), bytes))
        });
    }
    let mut prepared = Vec::new();
    let mut dirty = None;
    let is_linked = |segment: &Segment| {
        parts.chain.iter().any(|link| link.segment.header.number == segment.header.number)
    };
    for segment in present.all().filter(|segment| !is_linked(segment)) {
        let from = HEADER_BYTES as u64;
        let bytes =
            look_beyond(&*segment.file, &segment.header, from).map_err(io(&segment.name))?;
        match bytes.last_nonzero > from {
            true => dirty = dirty.or_else(|| Some((segment.name.clone(), from))),
            false => prepared.push(segment.name.clone()),
        }
    }
    let reach = scan.fault_at.saturating_add(u64::from(header.batch_bytes_max));
    let evidence = Evidence {
        unreadable: false,
        short: short.is_some(),
        fault: scan.fault,
        broken: matches!(next_segment(present, last), Next::Broken),
        durable_beyond: beyond.durable_beyond,
        below_watermark: scan.last_lsn < parts.watermark,
        far_garbage: beyond.last_nonzero > reach || dirty.is_some(),
        in_batch: scan.in_batch,
        zeros: beyond.last_nonzero == scan.fault_at,
    };
    Ok(conclude(evidence, beyond, Elsewhere { short, dirty }, prepared, parts, present))
}

/// Places that are at fault besides X: files and offsets.
struct Elsewhere {
    short: Option<(String, u64)>,
    dirty: Option<(String, u64)>,
}

fn conclude(
    mut evidence: Evidence,
    beyond: Beyond,
    elsewhere: Elsewhere,
    prepared: Vec<String>,
    parts: Parts,
    present: &Present,
) -> Survey {
    let last = parts.chain.last().expect("the chain has its first segment");
    let scan = &last.scan;
    let live = parts.beside == Beside::Writer;
    if live && !evidence.short && !evidence.broken {
        // What a living writer is about to write is no evidence.
        evidence = Evidence {
            fault: Fault::Invalid,
            durable_beyond: false,
            far_garbage: false,
            in_batch: false,
            zeros: true,
            ..evidence
        };
    }
    let (verdict, what) = match decide(&evidence) {
        Ruling::Decided(verdict, what) => (verdict, what),
        Ruling::Unreadable => (Verdict::Corrupt, "a read failed"),
    };
    let elsewhere = match verdict {
        Verdict::Suspect => elsewhere.dirty,
        _ => elsewhere.short,
    };
    let (file, offset) = elsewhere.unwrap_or_else(|| (last.segment.name.clone(), scan.fault_at));
    let damage = damage(&file, offset, scan.last_lsn.plus(1), what);
    let found = Damage { accounts: beyond.accounts, ..damage };
    let whole = beyond.last_nonzero == scan.fault_at && !scan.in_batch;
    let behind = if whole { 0 } else { beyond.last_nonzero.saturating_sub(scan.end) };
    Survey {
        verdict,
        damage: (verdict != Verdict::Clean).then_some(found),
        head: scan.last_lsn,
        marker: scan.marker.filter(|_| verdict == Verdict::Clean),
        torn_bytes: if live { 0 } else { behind },
        live_bytes: if live { behind } else { 0 },
        last_number: present.last_number(),
        chain: parts.chain,
        prepared,
        covered: parts.covered,
    }
}
