//! What the rules are said with.

use crate::harness::NOW_MS;
use tokenwal::ledger::{Change, Ledger, Walk};
use tokenwal::{
    Account, AccountTag, AccountView, App, Begin, Doubt, DoubtReason, GrantId, GrantView, Holder,
    IssuedPair, OpId, Outcome, Refusal, RefusalClass, Settled, Ticket, TokenResponse, User,
};

pub fn app() -> App {
    App::new("salesforce", "3MVG9").unwrap()
}

pub fn user(name: &str) -> User {
    User::new(name).unwrap()
}

pub fn account(name: &str) -> Account {
    Account::new(app(), user(name))
}

pub fn holder(name: &str) -> Holder {
    Holder::new("tenant", name).unwrap()
}

/// What a provider answers: `access` and, unless it is empty, `refresh`.
pub fn answer(access: &str, refresh: &str) -> TokenResponse {
    let mut body = serde_json::json!({ "access_token": access, "expires_in": 3600 });
    if !refresh.is_empty() {
        body["refresh_token"] = refresh.into();
    }
    TokenResponse::parse(body.to_string().into_bytes(), NOW_MS).unwrap()
}

pub fn issued(access: &str, refresh: &str) -> Outcome {
    Outcome::Issued(answer(access, refresh))
}

/// As [`issued`], with the user who signed in.
pub fn issued_to(name: &str, access: &str, refresh: &str) -> Outcome {
    Outcome::Issued(answer(access, refresh).with_user(user(name)))
}

pub fn doubt() -> Outcome {
    Outcome::InDoubt(Doubt::new(DoubtReason::Timeout))
}

pub fn refused(class: RefusalClass) -> Outcome {
    Outcome::Refused(Refusal::new(class, 400, "invalid_grant", "no longer", &[]))
}

pub fn tag<L: Ledger>(ledger: &L, name: &str) -> AccountTag {
    ledger.tag_of(&account(name).into())
}

/// Settles with a pair, and returns it.
pub async fn settle_pair<L: Ledger>(ledger: &L, ticket: Ticket, outcome: Outcome) -> IssuedPair {
    match ledger.settle(ticket, outcome).await.unwrap().into_settled() {
        Settled::Issued(pair) => *pair,
        other => panic!("{other:?}"),
    }
}

/// Exchanges a code for a first pair: the access token is `access`, the refresh token `refresh`.
pub async fn issue<L: Ledger>(ledger: &L, name: &str, access: &str, refresh: &str) -> IssuedPair {
    let ticket = ledger.begin(Begin::exchange(&app()).user(&user(name))).await.unwrap();
    settle_pair(ledger, ticket, issued(access, refresh)).await
}

/// Begins a refresh that is left in doubt.
pub async fn lose_refresh<L: Ledger>(ledger: &L, pair: &IssuedPair) -> OpId {
    let ticket = ledger.begin(Begin::refresh(pair.account(), pair.grant())).await.unwrap();
    let op = ticket.op();
    let settled = ledger.settle(ticket, doubt()).await.unwrap().into_settled();
    assert!(matches!(settled, Settled::InDoubt(lost) if lost == op));
    op
}

pub async fn view<L: Ledger>(ledger: &L, account: AccountTag) -> AccountView {
    ledger.account(account).await.unwrap().expect("the account is there")
}

pub async fn grant<L: Ledger>(ledger: &L, account: AccountTag, id: GrantId) -> GrantView {
    let grants = view(ledger, account).await.grants;
    grants.into_iter().find(|grant| grant.grant == id).expect("the grant is there")
}

/// Returns the newest pair's tokens.
pub async fn tokens<L: Ledger>(ledger: &L, account: AccountTag, id: GrantId) -> (String, String) {
    of(&ledger.pair(account, id).await.unwrap().expect("a pair is there"))
}

pub fn of(pair: &IssuedPair) -> (String, String) {
    let refresh = pair.refresh_token().map(|token| token.reveal().to_owned());
    (pair.access_token().reveal().to_owned(), refresh.unwrap_or_default())
}

pub fn texts(access: &str, refresh: &str) -> (String, String) {
    (access.to_owned(), refresh.to_owned())
}

pub async fn adopt<L: Ledger>(ledger: &L, pair: &IssuedPair, name: &str, scopes: &[&str]) {
    let scopes = scopes.iter().map(|scope| (*scope).to_owned()).collect();
    let change = Change::Adopt { grant: pair.grant(), holder: holder(name), scopes };
    ledger.change(pair.account(), change).await.unwrap();
}

pub async fn walk<L: Ledger>(ledger: &L) -> Vec<AccountView> {
    let (mut walk, mut all) = (ledger.walk(), Vec::new());
    while let Some(next) = walk.next().await {
        all.push(next.unwrap());
    }
    all
}

/// Says that a result is this error.
#[macro_export]
macro_rules! assert_err {
    ($result:expr, $error:pat $(if $guard:expr)?) => {
        match $result {
            Err($error) $(if $guard)? => {}
            other => panic!("{other:?}"),
        }
    };
}
