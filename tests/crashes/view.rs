//! What a journal shows, in the terms of the model.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tokenwal::disk::Disk;
use tokenwal::inspect::Reader;
use tokenwal::{
    AccountTag, AccountView, Action, Error, GrantId, IssuedPair, Journal, RefusalClass,
};

use super::model::{Asked, SeenAccount, SeenGrant, SeenOperation};
use super::world::keys;

/// Runs a future that never waits.
pub fn now<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("a look-up waits"),
    }
}

/// Reads all accounts of a journal, pairs included.
pub fn of_journal(journal: &Journal) -> Result<Vec<SeenAccount>, Error> {
    journal.accounts().map(|view| of_account(journal, &view?)).collect()
}

fn of_account(journal: &Journal, view: &AccountView) -> Result<SeenAccount, Error> {
    let tag = view.account_tag;
    let mut account = without_pairs(view);
    for grant in &mut account.grants {
        let id = GrantId(grant.lsn);
        grant.pair = now(journal.current_of(tag, id))?.map(|pair| tokens(&pair));
        let beside = now(journal.beside_of(tag, id))?;
        grant.beside = Some(beside.iter().map(|pair| tokens(pair).0).collect());
        grant.previous = now(journal.previous_of(tag, id))?.and_then(|pair| tokens(&pair).1);
    }
    account.with_pairs = true;
    check_look_up(journal, tag, view)?;
    Ok(account)
}

/// Reads all accounts of a store as somebody who only looks does.
pub fn of_reader(disk: Arc<dyn Disk>) -> Result<Vec<SeenAccount>, Error> {
    let reader = Reader::open_on(disk, Some(&keys()), None, &mut |_| ())?;
    reader.accounts().map(|view| Ok(without_pairs(&view?))).collect()
}

/// A look-up must say what the walk says.
fn check_look_up(journal: &Journal, tag: AccountTag, view: &AccountView) -> Result<(), Error> {
    let found = now(journal.account(tag))?;
    assert_eq!(found.as_ref(), Some(view), "the look-up and the walk disagree");
    Ok(())
}

/// Takes over what needs no secret.
pub fn without_pairs(view: &AccountView) -> SeenAccount {
    let number = |name: &str| name.rsplit(' ').next().and_then(|number| number.parse().ok());
    let grants = view.grants.iter().map(|grant| SeenGrant {
        lsn: grant.grant.0,
        generation: grant.generation.0,
        ended: grant.end.is_some(),
        holders: grant
            .holders
            .iter()
            .filter_map(|held| number(held.holder.as_ref()?.name()))
            .collect(),
        imported: grant.imported,
        paused: grant.paused,
        refused: grant.refusal.as_ref().map(|refusal| refusal.class == RefusalClass::Dead),
        told_ms: Some(grant.expires_at_ms).filter(|at_ms| *at_ms > 0),
        besides: grant.beside.len(),
        beside: None,
        pair: None,
        previous: None,
    });
    let operations = view.in_doubt.iter().map(|operation| SeenOperation {
        lsn: operation.op.0,
        asked: match operation.action {
            Action::Refresh if operation.beside => Asked::Beside(0),
            Action::Refresh => Asked::Refresh,
            Action::Revoke => Asked::Revoke,
            Action::Introspect => Asked::Introspect,
            Action::Mint => Asked::Mint,
            _ => Asked::Exchange,
        },
        doubted: operation.doubt.is_some(),
    });
    SeenAccount {
        tag: view.account_tag.to_string(),
        user: view.user.as_ref().and_then(|user| number(user.as_str())),
        grants: grants.collect(),
        operations: operations.collect(),
        with_pairs: false,
    }
}

pub fn tokens(pair: &IssuedPair) -> (String, Option<String>) {
    let text = |secret: &tokenwal::Secret| secret.reveal().to_owned();
    (text(pair.access_token()), pair.refresh_token().map(text))
}
