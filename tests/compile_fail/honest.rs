//! What an honest caller does. It compiles, which shows that the cheats fail for what they do.

use tokenwal::{App, Begin, Journal, Outcome, Settled, TokenResponse, Unreadable};

pub fn parse(body: Vec<u8>) -> Result<Outcome, Unreadable> {
    TokenResponse::parse(body, 0).map(Outcome::Issued)
}

pub async fn issue(journal: &Journal, app: &App, outcome: Outcome) -> Option<String> {
    let ticket = journal.begin(Begin::exchange(app)).await.ok()?;
    match journal.settle(ticket, outcome).await.ok()? {
        Settled::Issued(pair) => Some(pair.access_token().reveal().to_owned()),
        _ => None,
    }
}
