//! Act 3, the reckoning: what was acknowledged against the journal, and both against the provider.

use super::child::{Ack, fingerprint};
use super::place::{Place, options};
use super::site::Site;
use crate::exit::Failure;
use std::collections::{BTreeMap, BTreeSet};
use tokenwal::sandbox::{Sandbox, UserView};
use tokenwal::{
    Account, AccountTag, AccountView, Action, Fingerprint, Generation, GrantId, IssuedPair,
    Journal, User,
};

/// What the reckoning found. Counts are of pairs unless they say otherwise.
#[derive(Debug, Default, serde::Serialize)]
pub(super) struct Checked {
    pub(super) kills: u64,
    pub(super) kills_while_opening: u64,
    /// Pairs that the provider issued.
    pub(super) issued: u64,
    pub(super) acknowledged: u64,
    /// Acknowledged, and in the journal, itself or a later one of its grant.
    pub(super) recovered: u64,
    pub(super) unacknowledged: u64,
    /// In the journal, though the kill came before the acknowledgement.
    pub(super) durable_and_untold: u64,
    /// Issued and not received; an open operation of the same user says that it may be.
    pub(super) issued_in_doubt: u64,
    /// Issued, and nobody knows of it.
    pub(super) unaccounted: u64,
    /// Operations that the journal lists as in doubt; the request of some was never sent.
    pub(super) in_doubt: u64,
}

/// The newest that the journal has of a grant.
struct Newest {
    generation: Generation,
    token: Option<Fingerprint>,
    /// Its refresh token works, or an operation on the grant is listed in doubt.
    is_explained: bool,
}

/// What the journal has of one user.
#[derive(Default)]
struct Holdings {
    pairs: u64,
    in_doubt: u64,
}

/// Opens the store of the dead, and checks everything.
pub(super) async fn run(
    sandbox: &Sandbox,
    place: &Place,
    users: &[(String, User)],
    acks: Vec<Ack>,
) -> Result<Checked, Failure> {
    let failure = Failure::of(place.store());
    let (journal, _) = options(place.store())?.open(place.store()).map_err(&failure)?;
    let site = Site::new(sandbox.url())?;
    let acks: BTreeSet<Ack> = acks.into_iter().collect();
    let state = sandbox.state();
    let mut checked = Checked { acknowledged: count(acks.len()), ..Checked::default() };
    let (mut grants, mut pairs) = (BTreeMap::new(), 0);
    for (login, user) in users {
        let account = Account::new(site.app().clone(), user.clone());
        let view = journal.account(&account).await.map_err(&failure)?;
        let holdings = match view {
            Some(view) => holdings(&journal, sandbox, &view, &mut grants).await?,
            None => Holdings::default(),
        };
        let issued = state.users.iter().find(|known| known.name == *login).map_or(0, issued_to);
        let missing = issued.saturating_sub(holdings.pairs);
        checked.issued += issued;
        checked.in_doubt += holdings.in_doubt;
        checked.issued_in_doubt += missing.min(holdings.in_doubt);
        checked.unaccounted += missing.saturating_sub(holdings.in_doubt);
        pairs += holdings.pairs;
    }
    checked.recovered = count(acks.iter().filter(|ack| is_recovered(ack, &grants)).count());
    checked.unacknowledged = checked.issued.saturating_sub(checked.acknowledged);
    checked.durable_and_untold = pairs.saturating_sub(checked.acknowledged);
    journal.close().await.map_err(&failure)?;
    Ok(checked)
}

type Grants = BTreeMap<(AccountTag, GrantId), Newest>;

async fn holdings(
    journal: &Journal,
    sandbox: &Sandbox,
    view: &AccountView,
    grants: &mut Grants,
) -> Result<Holdings, Failure> {
    let mut holdings = Holdings::default();
    for grant in &view.grants {
        // Generations count from 1 and each was issued.
        holdings.pairs += u64::from(grant.generation.0);
        let Some(pair) = journal.current_of(view.account_tag, grant.grant).await? else { continue };
        let token = pair.refresh_token();
        let lives = token.is_some_and(|token| sandbox.is_alive(token.reveal()));
        let is_open = view.in_doubt.iter().any(|open| open.grant == grant.grant);
        grants.insert((view.account_tag, grant.grant), newest(&pair, lives || is_open));
    }
    let issues = |action: Action| matches!(action, Action::Exchange | Action::Refresh);
    holdings.in_doubt = count(view.in_doubt.iter().filter(|open| issues(open.action)).count());
    Ok(holdings)
}

fn newest(pair: &IssuedPair, is_explained: bool) -> Newest {
    Newest { generation: pair.generation(), token: fingerprint(pair), is_explained }
}

/// An acknowledged pair is recovered if the journal has it, or a later one of its grant; and that
/// one works at the provider, or is known to be in doubt.
fn is_recovered(ack: &Ack, grants: &Grants) -> bool {
    grants.get(&(ack.account, ack.grant)).is_some_and(|newest| {
        let is_it = newest.generation == ack.generation && newest.token == Some(ack.token);
        newest.is_explained && (is_it || newest.generation > ack.generation)
    })
}

/// Counts the pairs that the provider issued to a user.
fn issued_to(user: &UserView) -> u64 {
    user.approvals.iter().map(|approval| 1 + u64::from(approval.refreshes)).sum()
}

fn count(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ack(generation: u32, token: u8) -> Ack {
        Ack {
            account: AccountTag::from_bytes([1; 16]),
            grant: GrantId(7),
            generation: Generation(generation),
            token: Fingerprint::from_bytes([token; 16]),
        }
    }

    fn has(generation: u32, token: u8, is_explained: bool) -> Grants {
        let Ack { account, grant, generation, token } = ack(generation, token);
        let newest = Newest { generation, token: Some(token), is_explained };
        BTreeMap::from([((account, grant), newest)])
    }

    #[test]
    fn recovered_is_the_pair_or_a_later_one_that_is_explained() {
        assert!(is_recovered(&ack(2, 9), &has(2, 9, true)));
        assert!(is_recovered(&ack(2, 9), &has(3, 8, true)));
        assert!(!is_recovered(&ack(2, 9), &has(1, 8, true)), "it went back");
        assert!(!is_recovered(&ack(2, 9), &has(2, 8, true)), "another token");
        assert!(!is_recovered(&ack(2, 9), &has(2, 9, false)), "dead, and nothing says why");
        assert!(!is_recovered(&ack(2, 9), &BTreeMap::new()));
    }

    #[test]
    fn an_acknowledgement_is_read_whole_or_not_at_all() {
        let Ack { account, grant, generation, token } = ack(2, 9);
        let line = format!("ack {account} {grant} {generation} {token}");
        assert_eq!(Ack::parse(&line), Some(ack(2, 9)));
        for cut in 0..line.len() {
            assert_eq!(line.get(..cut).and_then(Ack::parse), None, "{cut}");
        }
    }
}
