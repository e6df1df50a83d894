//! What is still known of how an account came to be as it is: its records, one event each.

use super::{AccountRef, Event, Journal};
use crate::engine::keychain::Keychain;
use crate::engine::past::{Past, gather};
use crate::error::Error;
use crate::ids::{Holder, HolderTag, Lsn};
use crate::sync::read_lock;
use serde::Serialize;
use std::collections::HashMap;

/// What is kept of an account's past.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct History {
    /// From this LSN on nothing is missing; of what was before, a compaction has kept what the
    /// account's state needs.
    pub complete_from: Lsn,
    /// What happened, in the order of LSNs; also what happened to a grant before it came here from
    /// another account.
    pub events: Vec<Event>,
}

impl Journal {
    /// Returns what is still kept of how an account came to be as it is: all its records since the
    /// newest snapshot, and those that the snapshot keeps.
    ///
    /// It reads all of the journal that no snapshot covers.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// let history = journal.history(&account)?;
    /// let kinds: Vec<_> = history.events.iter().map(|event| event.kind).collect();
    /// assert_eq!(kinds, ["intent", "issued"]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Journal::current`].
    pub async fn history(&self, account: impl Into<AccountRef>) -> Result<History, Error> {
        let engine = self.engine();
        let account = account.into().tag(engine);
        // All at once, so that the files hold what is durable, and no snapshot comes between.
        let (files, through) = {
            let _durable = read_lock(&engine.durable);
            (read_lock(&engine.files).clone(), engine.head())
        };
        History::of(gather(&files, account, through)?, Some(&engine.keychain))
    }
}

impl History {
    pub(crate) fn of(past: Past, keychain: Option<&Keychain>) -> Result<Self, Error> {
        let events: Result<Vec<_>, _> =
            past.records.values().map(|bytes| Event::of(bytes, keychain)).collect();
        let mut history = Self { complete_from: past.complete_from, events: events? };
        history.name_holders();
        Ok(history)
    }

    /// Names holders where their record has only a tag and another one has the name.
    fn name_holders(&mut self) {
        let mut names: HashMap<HolderTag, Holder> = HashMap::new();
        for named in self.events.iter_mut().filter_map(|event| event.details.holder_mut()) {
            if let Some(holder) = &named.holder {
                names.insert(named.holder_tag, holder.clone());
            }
        }
        for named in self.events.iter_mut().filter_map(|event| event.details.holder_mut()) {
            named.holder = named.holder.take().or_else(|| names.get(&named.holder_tag).cloned());
        }
    }
}
