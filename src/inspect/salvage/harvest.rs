//! Folds what can be read of a store, and notes what cannot.
//!
//! Records are taken in the order of their LSNs, once each, and only authentic ones; the fold is the
//! engine's own. Where a store is sound this gives what opening would: a torn tail is left out.

use super::loss::Loss;
use super::reading::Reading;
use super::sources::{LSN_MAX_KEPT, Sources};
use crate::disk::Disk;
use crate::engine::files::Files;
use crate::engine::keychain::Keychain;
use crate::engine::state::{AccountState, Step};
use crate::engine::table::{Entry, Gathered, Hole, Snapshot};
use crate::error::Error;
use crate::format::frame::Frame;
use crate::format::record::Record;
use crate::ids::{AccountTag, HostTag, Lsn, Nonce, StoreId};
use crate::inspect::picture::Teller;
use crate::journal::OperationView;
use crate::journal::open::{newest_snapshot, start_of};
use crate::log::Verdict;
use crate::log::listing::Listing;
use crate::log::scan::AtDamage;
use crate::log::survey::{Beside, Segment, Sink, survey};
use std::collections::BTreeMap;
use std::sync::Arc;

/// About how long a record is, for guesses.
pub(super) const RECORD_BYTES_USUAL: u64 = 256;

/// What is left of a store.
#[derive(Debug, Default)]
pub(super) struct Harvest {
    pub(super) store: StoreId,
    pub(super) base: Option<Arc<Snapshot>>,
    pub(super) holes: Vec<Hole>,
    /// The accounts that the segments concern.
    pub(super) states: BTreeMap<AccountTag, AccountState>,
    pub(super) files: Files,
    pub(super) last_lsn: Lsn,
    pub(super) losses: Vec<Loss>,
    /// The host that wrote last, if a segment says so.
    pub(super) host: HostTag,
    pub(super) incarnation: u64,
    /// The last record that says that another host took the store over.
    pub(super) claimed: Lsn,
    /// The last segment that was read, and where its records end.
    pub(super) last_segment: (Nonce, u64),
    pub(super) last_number: u64,
    /// LSNs that may have been given out and of which nothing is left.
    pub(super) unknown_lsns: u64,
    pub(super) operations: Vec<OperationView>,
}

/// Reads a store from each of its snapshots that is left, and takes what loses the least.
///
/// # Errors
/// What the system refuses; damage is a loss.
pub(super) fn harvest(
    disk: &dyn Disk,
    sources: &mut Sources,
    keychain: &Keychain,
    teller: &Teller<'_>,
) -> Result<Harvest, Error> {
    let at_damage = if is_sound(disk)? { AtDamage::Stop } else { AtDamage::GoOn };
    let mut best: Option<(u64, Harvest)> = None;
    let bases: Vec<_> = std::mem::take(&mut sources.snapshots).into_iter().map(Some).collect();
    for base in bases.into_iter().chain([None]) {
        if base.is_none() && best.is_some() && !sources.begin_at_the_beginning() {
            break;
        }
        let mut reading =
            Reading { harvest: Harvest::at(keychain.store(), base), keychain, at_damage, teller };
        reading.read_segments(sources)?;
        reading.read_base()?;
        let harvest = reading.conclude(sources);
        let weights = harvest.losses.iter().map(Loss::weight);
        let weight = weights.fold(0, u64::saturating_add);
        if weight == 0 {
            return Ok(harvest);
        }
        if best.as_ref().is_none_or(|(least, _)| weight < *least) {
            best = Some((weight, harvest));
        }
    }
    let (_, harvest) = best.expect("without a snapshot there is one way at least");
    Ok(harvest)
}

/// Says whether opening would succeed, so that the journal ends where opening says.
fn is_sound(disk: &dyn Disk) -> Result<bool, Error> {
    let listing = Listing::read(disk)?;
    let found = newest_snapshot(disk, &listing).and_then(|snapshot| {
        survey(disk, &listing, start_of(snapshot.as_deref()), Beside::Nobody, &mut Deaf)
    });
    match found {
        Ok(found) => Ok(found.verdict <= Verdict::Torn),
        // A format that is newer in truth was refused when the files were looked at.
        Err(Error::Corrupt(_) | Error::Io { .. } | Error::NewerFormat { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Hears nothing.
struct Deaf;

impl Sink for Deaf {
    fn segment(&mut self, _: &Segment) -> Result<(), Error> {
        Ok(())
    }

    fn frame(&mut self, _: &Frame<'_>, _: bool) -> Result<(), Error> {
        Ok(())
    }
}

impl Harvest {
    fn at(store: StoreId, base: Option<Gathered>) -> Self {
        let (base, holes) = match base {
            Some(Gathered { snapshot, holes }) => (Some(Arc::new(snapshot)), holes),
            None => (None, Vec::new()),
        };
        let last_lsn = base.as_ref().map(|base| base.lsn()).unwrap_or_default();
        let files = Files { segments: Vec::new(), snapshot: base.clone() };
        let tail = base.as_ref().map(|base| base.header().tail).unwrap_or_default();
        let last_segment = (tail, 0);
        let claimed = base.as_ref().map(|base| base.header().claimed).unwrap_or_default();
        Self { store, base, holes, files, last_lsn, last_segment, claimed, ..Self::default() }
    }

    /// Returns the LSN that the new snapshot gets: above all that were ever given out.
    pub(super) fn lsn(&self) -> Lsn {
        let lost = self.losses.iter().map(|loss| loss.last_lsn);
        // What no journal counts to was not given out, and a store that began there would not open.
        let lost = lost.filter(|lsn| lsn.0 <= LSN_MAX_KEPT).max().unwrap_or_default();
        self.last_lsn.max(lost).max(Lsn(1)).plus(self.unknown_lsns)
    }

    pub(super) fn in_doubt(&self) -> Vec<OperationView> {
        self.operations.clone()
    }

    pub(super) fn note_operations(&mut self) {
        for (account, state) in &self.states {
            let views = state.operations.iter().map(|o| OperationView::of(*account, o));
            self.operations.extend(views);
        }
        self.operations.sort_by_key(|operation| operation.op);
    }
}

/// Says why a record is not to be trusted, if it is not.
pub(super) fn authentic(keychain: &Keychain, record: &Record<'_>) -> Result<(), &'static str> {
    if keychain.wrapped(record.header.key).is_none() {
        return Err("the key of the record is lost");
    }
    match keychain.unseal(record) {
        Ok(_) => Ok(()),
        Err(_) => Err("the record fails authentication"),
    }
}

/// A record that is not to be trusted, and why.
type Failed = (&'static str, Arc<[u8]>);

/// Folds what is authentic of an account's entry in a snapshot, and gives what is not.
pub(super) fn fold_entry(keychain: &Keychain, entry: &Entry) -> (AccountState, Vec<Failed>) {
    let mut state = AccountState::default();
    let mut failed = Vec::new();
    for bytes in &entry.records {
        let Ok(record) = Record::parse(bytes) else { continue };
        match authentic(keychain, &record) {
            Ok(()) => {
                let header = record.header;
                state.apply(Step { lsn: header.lsn, at_ms: header.at_ms, clear: &record.clear });
            }
            Err(what) => failed.push((what, Arc::clone(bytes))),
        }
    }
    state.complete();
    state.version = entry.header.version;
    state.app = entry.header.app;
    (state, failed)
}
