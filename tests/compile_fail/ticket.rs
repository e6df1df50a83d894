//! An operation has one outcome, and it is the journal's from then on.

use tokenwal::{Journal, Outcome, Ticket};

pub async fn settle_twice(journal: &Journal, ticket: Ticket, one: Outcome, other: Outcome) {
    let _ = journal.settle(ticket, one).await;
    let _ = journal.settle(ticket, other).await; //~ E0382
}

pub async fn keep(journal: &Journal, ticket: Ticket, outcome: Outcome) -> Outcome {
    let _ = journal.settle(ticket, outcome).await;
    outcome //~ E0382
}
