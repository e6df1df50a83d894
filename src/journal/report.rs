//! What opening a store found.

use super::OperationView;
use crate::engine::replay::Replay;
use crate::error::Error;
use crate::ids::{AccountTag, Lsn, StoreId};
use crate::log::Verdict;
use crate::log::survey::Survey;
use serde::Serialize;

/// What opening found.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// How the journal ended; clean or torn, since nothing else is opened.
    pub verdict: Verdict,
    /// A marker proves the last batch; without one, damage exactly there looks like a torn write.
    pub last_batch_proven: bool,
    /// The last LSN that was found.
    pub head: Lsn,
    /// Records that were replayed.
    pub records_replayed: u64,
    /// Segments that were read.
    pub segments: u64,
    /// Bytes of an incomplete write behind the end; they stay as evidence.
    pub torn_bytes: u64,
    /// Operations without a final outcome: the provider may have issued what nobody received.
    pub in_doubt: Vec<OperationView>,
    /// Accounts with such operations that cannot be read, since their part of the snapshot is
    /// damaged. Look-ups of them fail, and so does compaction; all others are served.
    pub unreadable: Vec<AccountTag>,
    /// How often the store was opened for writing, this time included.
    pub incarnation: u64,
    /// The store.
    pub store: StoreId,
    /// Another host wrote last, and the store was claimed.
    pub host_changed: bool,
}

impl Report {
    pub(super) fn created(store: StoreId) -> Self {
        Self {
            verdict: Verdict::Clean,
            last_batch_proven: true,
            head: Lsn(1),
            records_replayed: 0,
            segments: 1,
            torn_bytes: 0,
            in_doubt: Vec::new(),
            unreadable: Vec::new(),
            incarnation: 1,
            store,
            host_changed: false,
        }
    }

    pub(super) fn opened(
        found: &Survey,
        replay: &Replay,
        store: StoreId,
        incarnation: u64,
        host_changed: bool,
    ) -> Result<Self, Error> {
        let mut in_doubt = Vec::new();
        let (folded, unreadable) = replay.fold_with_operations()?;
        for (account, state) in folded {
            in_doubt.extend(state.operations.iter().map(|o| OperationView::of(account, o)));
        }
        in_doubt.sort_by_key(|operation| operation.op);
        Ok(Self {
            verdict: found.verdict,
            last_batch_proven: found.marker.is_some(),
            head: found.head,
            records_replayed: replay.records,
            segments: found.chain.len() as u64,
            torn_bytes: found.torn_bytes,
            in_doubt,
            unreadable,
            incarnation,
            store,
            host_changed,
        })
    }
}
