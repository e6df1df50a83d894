//! Writes a salvaged store: one snapshot, and the segment that follows it.
//!
//! Until both have their names the directory holds no store that opens.

use super::harvest::{Harvest, fold_entry};
use super::{SalvagePlan, Salvaged};
use crate::disk::Disk;
use crate::engine::Seams;
use crate::engine::fill::Limits;
use crate::engine::keychain::Keychain;
use crate::engine::state::AccountState;
use crate::engine::table::{Snapshot, TableWriter};
use crate::error::Error;
use crate::format::HEADER_BYTES;
use crate::format::clear::Opened;
use crate::format::frame::RECOVERY_LSN_GAP;
use crate::format::name::{LOCK, snapshot_name, temporary_name};
use crate::format::segment::SegmentHeader;
use crate::format::snapshot::{Footer, SnapshotHeader};
use crate::format::value::OpenedReason;
use crate::ids::{AccountTag, HostTag, Lsn, Nonce, OwnerId};
use crate::journal::launch::{Here, draw, first_segment};
use std::sync::Arc;

/// What the one segment is made for; whoever opens the store makes the next by his own options.
const LIMITS: Limits = Limits {
    block_bytes: 4096,
    batch_bytes_max: 1 << 20,
    segment_bytes: 32 << 20,
    outcome_bytes_max: 64 << 10,
};

pub(super) fn write(plan: SalvagePlan, into: Arc<dyn Disk>) -> Result<Salvaged, Error> {
    let SalvagePlan { harvest, mut keychain, clock, entropy } = plan;
    let io = |doing: &'static str| Error::io(doing, into.path());
    let names = into.list().map_err(io("listing the directory"))?;
    if names.iter().any(|name| name != LOCK) {
        return Err(Error::NotEmpty { dir: into.path() });
    }
    let Some(_lock) = into.try_lock().map_err(io("taking the lock"))? else {
        return Err(Error::Locked { dir: into.path(), pid: None });
    };
    keychain.renew_tag_key(&*entropy)?;
    let seams = Seams { disk: Arc::clone(&into), clock, entropy };
    let tail = write_segment(&harvest, &keychain, &seams)?;
    let writer = Writer { harvest: &harvest, keychain: &keychain, seams: &seams };
    let footer = writer.write_snapshot(&tail)?;
    Ok(Salvaged {
        store: harvest.store,
        lsn: harvest.lsn(),
        accounts: footer.accounts,
        records: footer.records,
        files: harvest.files.segments.len() as u64 + u64::from(harvest.base.is_some()),
        losses: harvest.losses.len() as u64,
        in_doubt: harvest.in_doubt(),
    })
}

/// Makes the segment; its `Opened` names what was read last before it.
fn write_segment(
    harvest: &Harvest,
    keychain: &Keychain,
    seams: &Seams,
) -> Result<SegmentHeader, Error> {
    let here = Here {
        seams: seams.clone(),
        limits: LIMITS,
        owner: OwnerId::from_bytes(draw(seams)?),
        host: host(harvest, keychain, &*seams.disk),
        incarnation: harvest.incarnation.saturating_add(1),
    };
    let lsn = harvest.lsn();
    let (predecessor, predecessor_end) = match harvest.last_segment {
        // Where nothing could be read there is no segment to name, and [F-31] asks for one.
        (nonce, _) if nonce.is_none() => (Nonce::from_bytes(draw(seams)?), HEADER_BYTES as u64),
        last => last,
    };
    let opened = Opened {
        predecessor,
        predecessor_end,
        predecessor_lsn: lsn,
        host: here.host,
        owner: here.owner,
        incarnation: here.incarnation,
        reason: OpenedReason::Recovered,
    };
    let number = harvest.last_number.saturating_add(1);
    let opened_lsn = lsn.plus(1 + RECOVERY_LSN_GAP);
    let (prepared, _) = first_segment(&here, keychain, number, opened, opened_lsn)?;
    Ok(prepared.tail.segment.header)
}

/// A store that was copied from another host stays one: opening it must still ask.
fn host(harvest: &Harvest, keychain: &Keychain, disk: &dyn Disk) -> HostTag {
    match harvest.host.is_none() {
        true => keychain.tagger().host(&disk.host()),
        false => harvest.host,
    }
}

struct Writer<'a> {
    harvest: &'a Harvest,
    keychain: &'a Keychain,
    seams: &'a Seams,
}

impl Writer<'_> {
    fn write_snapshot(&self, tail: &SegmentHeader) -> Result<Footer, Error> {
        let disk = &self.seams.disk;
        let header = SnapshotHeader {
            store: self.harvest.store,
            nonce: Nonce::from_bytes(draw(self.seams)?),
            lsn: self.harvest.lsn(),
            created_at_ms: self.seams.clock.now_ms(),
            tail: tail.nonce,
            tail_number: tail.number,
            tag_key: self.keychain.tag_key(),
            claimed: self.harvest.claimed,
        };
        let name = snapshot_name(header.lsn);
        let temporary = temporary_name(&name);
        let io = |doing: &'static str| Error::io(doing, temporary.clone());
        let file = disk.create(&temporary).map_err(io("creating a snapshot"))?;
        let mut table = TableWriter::new(file, header);
        self.write_accounts(&mut table)?;
        let mut keys = Vec::new();
        for key_id in table.key_ids() {
            let wrapped = self.keychain.wrapped(key_id).ok_or(Error::Forged { lsn: Lsn::NONE })?;
            keys.push(self.keychain.rewrap(&wrapped, &*self.seams.entropy)?);
        }
        let footer = table.finish(&keys).map_err(io("writing a snapshot"))?;
        // The bytes,
        table.file().sync().map_err(io("syncing a snapshot"))?;
        // that they are right,
        prove(&**disk, &temporary, header.lsn)?;
        // the name,
        disk.rename(&temporary, &name).map_err(io("naming a snapshot"))?;
        // and that the name stays.
        disk.sync_dir().map_err(Error::io("syncing the directory", disk.path()))?;
        Ok(footer)
    }

    /// Merges the accounts of the old snapshot with those that the segments concern.
    fn write_accounts(&self, table: &mut TableWriter) -> Result<(), Error> {
        let mut states = self.harvest.states.iter().peekable();
        if let Some(base) = &self.harvest.base {
            for number in 0..base.blocks() {
                let Some((item, bytes)) = base.block_bytes(number)? else { break };
                for entry in base.parse_block(&item, &bytes)?.accounts() {
                    let entry = base.records_of(&entry.map_err(|fault| base.bad(fault))?)?;
                    let account = entry.header.account;
                    while let Some((before, state)) = states.next_if(|(tag, _)| **tag < account) {
                        self.write_account(table, *before, state)?;
                    }
                    match states.next_if(|(tag, _)| **tag == account) {
                        Some((_, state)) => self.write_account(table, account, state)?,
                        None => {
                            let (state, _) = fold_entry(self.keychain, &entry);
                            self.write_account(table, account, &state)?;
                        }
                    }
                }
            }
        }
        states.try_for_each(|(account, state)| self.write_account(table, *account, state))
    }

    fn write_account(
        &self,
        table: &mut TableWriter,
        account: AccountTag,
        state: &AccountState,
    ) -> Result<(), Error> {
        if state.is_empty() {
            return Ok(());
        }
        let homes = state.homes();
        let accounts = || std::iter::once(account).chain(homes.iter().copied());
        let records: Result<Vec<_>, _> = state
            .records()
            .into_iter()
            .map(|lsn| self.harvest.files.read(lsn, accounts()))
            .collect();
        table
            .push(account, state, &records?)
            .map_err(Error::io("writing a snapshot", self.seams.disk.path()))
    }
}

/// Reads a snapshot again, every block of it.
fn prove(disk: &dyn Disk, name: &str, lsn: Lsn) -> Result<(), Error> {
    let snapshot = Snapshot::open_named(disk, name.to_owned(), lsn)?;
    for number in 0..snapshot.blocks() {
        let Some((item, bytes)) = snapshot.block_bytes(number)? else { break };
        let block = snapshot.parse_block(&item, &bytes)?;
        block.check(lsn).map_err(|fault| snapshot.bad(fault))?;
    }
    Ok(())
}
