//! What the first two acts share: who plays, a database with transactions, and what is counted.

use std::collections::HashMap;
use tokenwal::sandbox::Sandbox;

/// The integration that is connected first and runs all the time.
pub(super) const RUNNING: &str = "contacts";
/// The integration whose configuration fails after its pair was issued.
pub(super) const FAILING: &str = "invoices";
/// How often it fails. With the running one's, the last try's pair is the fifth.
pub(super) const FAILURES: u32 = 4;

/// How an act ended.
#[derive(Debug, serde::Serialize)]
pub(super) struct Act {
    pub(super) approvals_asked: u32,
    pub(super) live_at_provider: usize,
    pub(super) live_and_known: usize,
    pub(super) running_integration_lives: bool,
    pub(super) issued: u64,
}

/// Counts the approvals of a user that live at the provider.
pub(super) fn live_of(sandbox: &Sandbox, user: &str) -> usize {
    let state = sandbox.state();
    state.users.iter().find(|known| known.name == user).map_or(0, |user| user.live)
}

/// A service's own database: what a transaction does not commit is gone.
#[derive(Debug)]
pub(super) struct Database<Row>(HashMap<&'static str, Row>);

/// Dropping it rolls it back.
#[derive(Debug)]
pub(super) struct Transaction<'a, Row> {
    database: &'a mut Database<Row>,
    inserted: Vec<(&'static str, Row)>,
}

impl<Row> Database<Row> {
    pub(super) fn new() -> Self {
        Self(HashMap::new())
    }

    pub(super) fn begin(&mut self) -> Transaction<'_, Row> {
        Transaction { database: self, inserted: Vec::new() }
    }

    pub(super) fn row(&self, integration: &str) -> Option<&Row> {
        self.0.get(integration)
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = &Row> {
        self.0.values()
    }
}

impl<Row> Transaction<'_, Row> {
    pub(super) fn insert(&mut self, integration: &'static str, row: Row) {
        self.inserted.push((integration, row));
    }

    pub(super) fn commit(self) {
        self.database.0.extend(self.inserted);
    }
}
