//! Verifies a store: every checksum, the chain, the snapshots, and with keys every seal.
//!
//! It reads through the same loop and decides by the same table as opening does; only where that
//! ends at damage it goes on to see what else is wrong. It changes nothing.

use super::Progress;
use super::audit::{Audit, Seals};
use super::blocks::{BlockCheck, Blocks};
use super::picture::{self, Picture, Teller, Watched, file_bytes};
use super::rubble::{Rubble, sift};
use super::verification::{Problem, Problems, Verification};
use crate::disk::Disk;
use crate::engine::keychain::Keychain;
use crate::engine::replay::Replay;
use crate::engine::state::AccountState;
use crate::error::Error;
use crate::ids::{AccountTag, StoreId};
use crate::journal::open::identify;
use crate::keys::KeySource;
use crate::log::Verdict;
use crate::log::listing::Listing;
use crate::log::survey::Survey;

/// Checks all of a store, and reports all that is wrong with it.
///
/// Without keys it checks every checksum and the order of everything; with keys also that every
/// sealed part is authentic and in its place [F-37], and that no nonce was used twice.
///
/// # Errors
/// Only where nothing can be said: [`Error::Missing`], [`Error::Refused`], [`Error::WrongKey`],
/// [`Error::NewerFormat`], [`Error::Io`]. Damage is in the [`Verification`].
pub fn verify(
    disk: &dyn Disk,
    keys: Option<&dyn KeySource>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Verification, Error> {
    let teller = Teller::new(progress);
    let mut store = StoreId::NONE;
    let picture = picture::take(disk, |listing, snapshot| {
        let seals = match identify(disk, listing, snapshot.map(|snapshot| &**snapshot)) {
            Ok((found, file, tag_key)) => {
                store = found;
                let open = |keys: &dyn KeySource| {
                    Keychain::open(found, keys.load()?, &file, &tag_key).map(Seals::new)
                };
                keys.map(open).transpose()?
            }
            // The survey comes upon the same damage, and reports it.
            Err(Error::Corrupt(_)) => None,
            Err(error) => return Err(error),
        };
        let audit = Audit::new(Replay::new(snapshot.cloned(), None), seals);
        Ok(Watched::new(audit, file_bytes(disk, listing), &teller))
    })?;
    Verifier { disk, teller: &teller, store }.conclude(picture)
}

struct Verifier<'a, 't> {
    disk: &'a dyn Disk,
    teller: &'a Teller<'t>,
    store: StoreId,
}

impl Verifier<'_, '_> {
    fn conclude(self, picture: Picture<Watched<'_, '_, Audit>>) -> Result<Verification, Error> {
        let Picture { listing, live, snapshot, survey, sink } = picture;
        let Audit { replay, mut seals, mut problems, batches, frames, .. } = sink.inner;
        let mut rubble = Rubble { batches, frames, ..Rubble::default() };
        if let Err(Error::Corrupt(damage)) = &survey {
            problems.note(Problem::of(damage, Verdict::Corrupt));
        }
        let found = survey.ok();
        let damage = found.as_ref().filter(|found| found.verdict > Verdict::Torn);
        if let Some((damage, verdict)) =
            damage.and_then(|found| found.damage.as_ref().map(|damage| (damage, found.verdict)))
        {
            problems.note(Problem::of(damage, verdict));
        }
        let mut tally = Tally::default();
        let blocks = self.check_snapshots(&listing, &replay, seals.as_mut(), &mut tally)?;
        problems.append(blocks.problems);
        self.fold_tail(&replay, &mut tally, &mut problems)?;
        if problems.worst() > Verdict::Torn {
            let first = snapshot.as_ref().map(|snapshot| snapshot.header().tail_number);
            // The first word on a place counts, and these are the plainer ones.
            let mut plainer = Problems::default();
            let sifted = sift(self.disk, &listing, first.unwrap_or_default(), &mut plainer)?;
            plainer.append(problems);
            problems = plainer;
            if found.is_none() {
                rubble = sifted;
            }
        }
        for (one, other) in seals.as_mut().map(Seals::reused).unwrap_or_default() {
            let what = format!("its sealed part has the nonce of record {one}, under the same key");
            problems.note(Problem::tampered("the store", other.0, other, what));
        }
        let torn = found.as_ref().filter(|found| found.verdict == Verdict::Torn);
        let torn = torn.and_then(|found| found.damage.as_ref());
        let counted = |of: fn(&Survey) -> usize| found.as_ref().map_or(0, of) as u64;
        Ok(Verification {
            verdict: problems.worst().max(found.as_ref().map_or(Verdict::Corrupt, |f| f.verdict)),
            last_lsn: found.as_ref().map_or(rubble.last_lsn, |found| found.head),
            last_batch_proven: found.as_ref().is_some_and(|found| found.marker.is_some()),
            store: self.store,
            live,
            live_tail_bytes: found.as_ref().map_or(0, |found| found.live_bytes),
            torn_bytes: found.as_ref().map_or(0, |found| found.torn_bytes),
            torn_file: torn.map(|damage| damage.file.clone()),
            torn_offset: torn.map_or(0, |damage| damage.offset),
            segments: found.as_ref().map_or(rubble.segments, |found| found.chain.len() as u64),
            prepared_segments: counted(|found| found.prepared.len()),
            covered_segments: counted(|found| found.covered.len()),
            batches: rubble.batches,
            frames: rubble.frames,
            snapshots: blocks.snapshots,
            snapshot_lsn: snapshot.map(|snapshot| snapshot.lsn()).unwrap_or_default(),
            snapshot_blocks: blocks.blocks,
            accounts: tally.accounts,
            in_doubt: tally.in_doubt,
            authenticated: seals.is_some(),
            sealed_parts: seals.as_ref().map_or(0, Seals::opened),
            foreign_files: listing.foreign,
            problems: problems.into_vec(),
        })
    }

    /// Checks all snapshots, and counts the accounts of the one that is used, as far as the tail
    /// does not concern them.
    fn check_snapshots(
        &self,
        listing: &Listing,
        replay: &Replay,
        mut seals: Option<&mut Seals>,
        tally: &mut Tally,
    ) -> Result<Blocks, Error> {
        let mut blocks = Blocks::default();
        let used = replay.files.snapshot.as_ref().map(|snapshot| snapshot.lsn());
        for lsn in listing.snapshots.iter().rev() {
            let mut count = |account: AccountTag, state: &AccountState| {
                if used == Some(*lsn) && !replay.accounts.touches(account) {
                    tally.count(state);
                }
            };
            let (seals, account) = (seals.as_deref_mut(), &mut count as _);
            let check = BlockCheck { disk: self.disk, seals, teller: self.teller, account };
            blocks.check(*lsn, check)?;
        }
        Ok(blocks)
    }

    /// Folds every account that the tail concerns.
    fn fold_tail(
        &self,
        replay: &Replay,
        tally: &mut Tally,
        problems: &mut Problems,
    ) -> Result<(), Error> {
        for (account, _) in replay.accounts.in_memory() {
            match replay.fold(account) {
                Ok(state) => tally.count(&state),
                Err(Error::Corrupt(damage)) => {
                    let mut problem = Problem::of(&damage, Verdict::Corrupt);
                    problem.name(Some(account));
                    problems.note(problem);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// What a store folds to, in numbers.
#[derive(Debug, Default)]
struct Tally {
    accounts: u64,
    in_doubt: u64,
}

impl Tally {
    fn count(&mut self, state: &AccountState) {
        self.accounts += u64::from(!state.is_empty());
        self.in_doubt += state.operations.len() as u64;
    }
}
