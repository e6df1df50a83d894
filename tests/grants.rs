//! What grants say of themselves: how they came here, whether they are paused, who holds them and for
//! which scopes, what the provider last refused, and how they came to be as they are.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::mem_forget,
    reason = "a test may"
)]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokenwal::inspect::{self, Reader, Salvage};
use tokenwal::{
    Account, AccountTag, App, Begin, Blocking, Cause, Clock, Confidence, Error, EventDetails,
    ExpirySource, FixedKeys, Generation, GrantState, GrantView, Holder, Import, Imported, Journal,
    Lsn, Options, Outcome, Refusal, RefusalClass, ResolvedHow, Settled, Ticket, TokenResponse,
    User,
};

const NOW_MS: u64 = 1_760_000_000_000;
const DAY_MS: u64 = 24 * 3600 * 1000;

fn keys() -> FixedKeys {
    FixedKeys::new([7; 32], [])
}

fn options() -> Options {
    Options::new(keys())
}

/// A clock that stands still until it is set.
#[derive(Debug)]
struct Hand(AtomicU64);

impl Clock for Hand {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

struct Store {
    dir: tempfile::TempDir,
    clock: Arc<Hand>,
    journal: Journal,
}

impl Store {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(Hand(AtomicU64::new(NOW_MS)));
        let options = options().clock(Arc::clone(&clock) as _);
        let (journal, _) = options.create(dir.path().join("store")).unwrap();
        Self { dir, clock, journal }
    }

    fn path(&self) -> std::path::PathBuf {
        self.dir.path().join("store")
    }

    fn now(&self) -> Blocking {
        self.journal.blocking()
    }

    /// Ends the process, and opens the store again.
    fn reopen(self) -> Self {
        let Self { dir, clock, journal } = self;
        drop(journal);
        let options = options().clock(Arc::clone(&clock) as _);
        let (journal, _) = options.open(dir.path().join("store")).unwrap();
        Self { dir, clock, journal }
    }

    fn later(&self, ms: u64) {
        self.clock.0.fetch_add(ms, Ordering::SeqCst);
    }

    fn grants(&self) -> Vec<GrantView> {
        let view = self.now().account(account()).unwrap();
        view.map(|view| view.grants).unwrap_or_default()
    }

    fn import(&self, refresh: &str) -> Imported {
        self.now().import(Import::new(&account(), response("old", refresh))).unwrap()
    }

    fn refresh(&self, imported: &Imported) -> Ticket {
        self.now().begin(Begin::refresh(account(), imported.grant)).unwrap()
    }
}

fn app() -> App {
    App::new("salesforce", "3MVG9").unwrap()
}

fn user() -> User {
    User::new("u").unwrap()
}

fn account() -> Account {
    Account::new(app(), user())
}

fn holder(name: &str) -> Holder {
    Holder::new("tenant", name).unwrap()
}

/// An answer; without a refresh token if that is empty.
fn response(access: &str, refresh: &str) -> TokenResponse {
    let body = format!(
        "{{\"access_token\":\"{access}\",\"refresh_token\":\"{refresh}\",\"scope\":\"api web\"}}"
    );
    TokenResponse::parse(body.into_bytes(), NOW_MS).unwrap().with_user(user())
}

fn settle(journal: &Blocking, ticket: Ticket, access: &str, refresh: &str) -> tokenwal::IssuedPair {
    match journal.settle(ticket, Outcome::Issued(response(access, refresh))).unwrap() {
        Settled::Issued(pair) => *pair,
        other => panic!("{other:?}"),
    }
}

fn names(grant: &GrantView) -> Vec<&str> {
    grant.holders.iter().map(|held| held.holder.as_ref().unwrap().name()).collect()
}

#[test]
fn an_import_is_a_paused_grant_that_its_holder_has_adopted() {
    let store = Store::new();
    let response = response("a1", "r1").with_expiry(NOW_MS + 5, ExpirySource::Assumed);
    let import = Import::new(&account(), response).holder(&holder("crm"));
    let imported = store.now().import(import).unwrap();
    assert_eq!((imported.already, imported.generation), (false, Generation(1)));
    let store = store.reopen();
    let grant = store.grants().pop().unwrap();
    assert_eq!((grant.grant, grant.issued_lsn), (imported.grant, imported.lsn));
    assert_eq!((grant.state, names(&grant)), (GrantState::Held, vec!["crm"]));
    assert!(grant.paused && grant.imported && !grant.fenced && !grant.stale);
    assert_eq!(grant.expiry, Some(ExpirySource::Assumed));
    assert_eq!(grant.scopes, ["api", "web"]);
    assert_eq!(grant.holders[0].scopes, ["api", "web"]);
    assert_eq!((grant.holders[0].lsn, grant.holders[0].since_ms), (imported.lsn, NOW_MS));
    assert_eq!(grant.issued_for.unwrap().holder, Some(holder("crm")));
    let pair = store.now().current(account()).unwrap().unwrap();
    assert_eq!(pair.refresh_token().unwrap().reveal(), "r1");
    assert_eq!(pair.expiry_source(), Some(ExpirySource::Assumed));
    assert_eq!(pair.user(), Some(&user()));
}

#[test]
fn what_is_paused_is_neither_refreshed_nor_revoked() {
    let store = Store::new();
    let imported = store.import("r1");
    let (account, grant) = (account(), imported.grant);
    for begin in [Begin::refresh(&account, grant), Begin::revoke(&account, grant)] {
        let refused = store.now().begin(begin).unwrap_err();
        assert!(matches!(refused, Error::Paused { grant: g, .. } if g == grant), "{refused}");
    }
    store.now().begin(Begin::introspect(&account, grant)).unwrap();
    // Neither an end that was undone nor a snapshot lets it go on.
    store.now().end(&account, grant, Cause::Operator, Confidence::Certain).unwrap();
    store.now().revive(&account, grant).unwrap();
    store.now().compact().unwrap();
    let store = store.reopen();
    assert!(store.grants()[0].paused);
    store.now().activate(&account, grant).unwrap();
    store.now().compact().unwrap();
    let store = store.reopen();
    assert!(!store.grants()[0].paused);
    store.refresh(&imported);
}

#[test]
fn a_token_is_imported_once_whatever_became_of_it() {
    let store = Store::new();
    let imported = store.import("r1");
    store.now().activate(account(), imported.grant).unwrap();
    let again = |store: &Store, refresh: &str| {
        let again = store.import(refresh);
        assert_eq!(again.grant, imported.grant);
        (again.already, again.ended, again.generation.0)
    };
    assert_eq!(again(&store, "r1"), (true, false, 1));
    let ticket = store.refresh(&imported);
    let pair = settle(&store.now(), ticket, "a2", "r2");
    store.now().worked(account(), pair.grant(), pair.generation()).unwrap();
    let ticket = store.refresh(&imported);
    settle(&store.now(), ticket, "a3", "r3");
    store.now().compact().unwrap();
    let store = store.reopen();
    // The first, the one before the newest, and the newest.
    for refresh in ["r1", "r2", "r3"] {
        assert_eq!(again(&store, refresh), (true, false, 3), "{refresh}");
    }
    assert!(store.grants()[0].imported && !store.grants()[0].paused, "nothing pauses it again");
    store.now().end(account(), imported.grant, Cause::Evicted, Confidence::Probable).unwrap();
    store.now().compact().unwrap();
    assert_eq!(again(&store, "r3"), (true, true, 3));
    let (grants, ended) = (store.grants(), GrantState::Ended);
    assert_eq!((grants.len(), grants[0].state), (1, ended), "it is not revived");
}

#[test]
fn what_this_store_itself_was_issued_is_known_to_an_import() {
    let store = Store::new();
    let ticket = store.now().begin(Begin::exchange(&app())).unwrap();
    let pair = settle(&store.now(), ticket, "a1", "r1");
    let ticket = store.now().begin(Begin::refresh(account(), pair.grant())).unwrap();
    let pair = settle(&store.now(), ticket, "a2", "r2");
    store.now().worked(account(), pair.grant(), pair.generation()).unwrap();
    for refresh in ["r1", "r2"] {
        let imported = store.import(refresh);
        assert_eq!((imported.grant, imported.already), (pair.grant(), true), "{refresh}");
    }
    let grant = &store.grants()[0];
    assert!(!grant.imported && !grant.paused, "{grant:?}");
    // Without a refresh token the access token says which it is.
    let bare = || Import::new(&account(), response("bare", ""));
    let imported = store.now().import(bare()).unwrap();
    assert!(!imported.already);
    let again = store.now().import(bare()).unwrap();
    assert_eq!((again.grant, again.already), (imported.grant, true));
}

#[test]
fn a_holder_who_comes_with_a_known_token_adopts_its_grant() {
    let store = Store::new();
    let import = |name: &str| {
        let import = Import::new(&account(), response("a1", "r1")).holder(&holder(name));
        store.now().import(import).unwrap()
    };
    let (first, second) = (import("crm"), import("mail"));
    assert_eq!((second.already, second.grant), (true, first.grant));
    assert_eq!(names(&store.grants()[0]), ["crm", "mail"]);
    assert_eq!(store.grants()[0].holders[1].scopes, ["api", "web"]);
    let before = store.journal.head();
    import("mail");
    assert_eq!(store.journal.head(), before, "who holds it already writes nothing");
}

#[test]
fn many_imports_of_one_token_at_once_are_one_grant() {
    let store = Store::new();
    let grants: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| store.import("r1"))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(grants.iter().filter(|imported| !imported.already).count(), 1);
    assert!(grants.iter().all(|imported| imported.grant == grants[0].grant), "{grants:?}");
    assert_eq!(store.reopen().grants().len(), 1);
}

#[test]
fn who_holds_by_an_import_holds_through_refreshes_until_released() {
    let store = Store::new();
    let import = Import::new(&account(), response("a1", "r1")).holder(&holder("crm"));
    let imported = store.now().import(import.paused(false)).unwrap();
    store.now().adopt_for(account(), imported.grant, &holder("mail"), ["web"]).unwrap();
    for (access, refresh) in [("a2", "r2"), ("a3", "")] {
        // On whose behalf it is refreshed changes nothing about who holds it.
        let begin = Begin::refresh(account(), imported.grant).holder(&holder("mail"));
        let ticket = store.now().begin(begin).unwrap();
        settle(&store.now(), ticket, access, refresh);
        store.now().compact().unwrap();
    }
    let store = store.reopen();
    let grant = &store.grants()[0];
    assert_eq!((names(grant), grant.generation), (vec!["mail", "crm"], Generation(3)));
    assert_eq!(grant.holders[0].scopes, ["web"]);
    store.now().release(account(), imported.grant, &holder("crm")).unwrap();
    store.now().adopt(account(), imported.grant, &holder("crm2")).unwrap();
    store.now().release(account(), imported.grant, &holder("crm2")).unwrap();
    store.now().compact().unwrap();
    let store = store.reopen();
    assert_eq!(names(&store.grants()[0]), ["mail"], "who let go stays away");
    let ticket = store.refresh(&imported);
    settle(&store.now(), ticket, "a4", "r4");
    assert_eq!(names(&store.grants()[0]), ["mail"]);
}

#[test]
fn the_same_refresh_token_on_consent_leaves_an_import_as_it_is() {
    let store = Store::new();
    let import = Import::new(&account(), response("a1", "r1")).holder(&holder("crm"));
    let imported = store.now().import(import).unwrap();
    let begin = Begin::exchange(&app()).user(&user()).holder(&holder("mail"));
    let ticket = store.now().begin(begin).unwrap();
    let pair = settle(&store.now(), ticket, "a2", "r1");
    assert_eq!((pair.grant(), pair.generation()), (imported.grant, Generation(2)));
    let grant = &store.grants()[0];
    assert!(grant.paused && grant.imported, "whoever refreshed it before may still do so");
    assert_eq!(names(grant), ["crm"]);
    store.now().activate(account(), imported.grant).unwrap();
    assert!(!store.grants()[0].paused);
}

fn refuse(store: &Store, ticket: Ticket, class: RefusalClass) {
    let refusal = Refusal::new(class, 400, "invalid_grant", "inactive user", &[]);
    let refusal = refusal.with_request_id("req-1").with_retry_after_s(7);
    store.now().settle(ticket, Outcome::Refused(refusal)).unwrap();
}

#[test]
fn the_last_refusal_is_kept_until_there_is_a_newer_pair() {
    let store = Store::new();
    let imported = store.import("r1");
    store.now().activate(account(), imported.grant).unwrap();
    refuse(&store, store.refresh(&imported), RefusalClass::Suspended);
    store.now().compact().unwrap();
    let store = store.reopen();
    let refusal = store.grants()[0].refusal.clone().unwrap();
    assert_eq!((refusal.class, refusal.status), (RefusalClass::Suspended, 400));
    assert_eq!((refusal.retry_after_s, refusal.at_ms), (7, NOW_MS));
    assert_eq!(refusal.description.as_deref(), Some("inactive user"));
    assert_eq!(refusal.error.as_deref(), Some("invalid_grant"));
    assert_eq!(refusal.request_id.as_deref(), Some("req-1"));
    let bare = Reader::open(store.path(), None).unwrap();
    let tag = store.journal.tag_of(&account());
    let nameless = bare.account(tag).unwrap().unwrap().grants[0].refusal.clone().unwrap();
    assert_eq!((nameless.lsn, nameless.description), (refusal.lsn, None));
    let ticket = store.refresh(&imported);
    settle(&store.now(), ticket, "a2", "r2");
    assert_eq!(store.grants()[0].refusal, None);

    // One that ended the grant goes with the end, or stays with it where all else is dropped.
    refuse(&store, store.refresh(&imported), RefusalClass::Dead);
    store.now().revive(account(), imported.grant).unwrap();
    assert_eq!(store.grants()[0].refusal, None);
    refuse(&store, store.refresh(&imported), RefusalClass::Dead);
    store.later(31 * DAY_MS);
    store.now().adopt(account(), imported.grant, &holder("x")).unwrap_err();
    store.import("another");
    store.now().compact().unwrap();
    let store = store.reopen();
    let grant = &store.grants()[0];
    assert_eq!((grant.state, grant.generation), (GrantState::Ended, Generation(0)));
    assert_eq!(grant.refusal.as_ref().map(|refusal| refusal.class), Some(RefusalClass::Dead));
    assert!(!store.import("r2").already, "a tombstone keeps no tokens");
}

#[test]
fn pending_are_those_at_whom_somebody_should_look() {
    let store = Store::new();
    let at = |name: &str| Account::new(app(), User::new(name).unwrap());
    let tag = |name: &str| store.journal.tag_of(&at(name));
    let import = |name: &str, held: bool| {
        let import = Import::new(&at(name), response("a", &format!("r {name}"))).paused(false);
        let import = if held { import.holder(&holder("h")) } else { import };
        store.now().import(import).unwrap().grant
    };
    let sorted = |mut tags: Vec<AccountTag>| {
        tags.sort_unstable();
        tags
    };
    let held = import("held", true);
    let orphan = import("orphan", false);
    assert_eq!(store.journal.pending_accounts(), [tag("orphan")]);
    store.now().compact().unwrap();
    assert_eq!(store.journal.pending_accounts(), [tag("orphan")]);
    let ticket = store.now().begin(Begin::refresh(at("held"), held)).unwrap();
    let both = sorted(vec![tag("held"), tag("orphan")]);
    assert_eq!(store.journal.pending_accounts(), both);
    let op = ticket.op();
    drop(ticket);
    let store = store.reopen();
    // From lists that nobody has folded yet, and again from what was kept of that.
    assert_eq!(store.journal.pending_accounts(), both);
    assert_eq!(store.journal.pending_accounts(), both);
    store.now().resolve(at("held"), op, ResolvedHow::Waived).unwrap();
    store.now().adopt(at("orphan"), orphan, &holder("h")).unwrap();
    assert!(store.journal.pending_accounts().is_empty());
}

fn kinds(journal: &Blocking, account: impl Into<tokenwal::AccountRef>) -> Vec<&'static str> {
    journal.history(account).unwrap().events.iter().map(|event| event.kind).collect()
}

#[test]
fn a_history_tells_what_happened_to_a_grant_wherever_it_was() {
    let store = Store::new();
    let now = store.now();
    // Somebody else's records are none of this account's.
    let other = Account::new(app(), User::new("other").unwrap());
    now.import(Import::new(&other, response("a0", "r0"))).unwrap();
    let ticket = now.begin(Begin::exchange(&app()).holder(&holder("crm")).scopes(["api"])).unwrap();
    let provisional = ticket.account();
    let body = br#"{"access_token":"a1","refresh_token":"r1"}"#.to_vec();
    let unknown = Outcome::Issued(TokenResponse::parse(body, NOW_MS).unwrap());
    let Settled::Issued(pair) = now.settle(ticket, unknown).unwrap() else { panic!("no pair") };
    now.identify(provisional, pair.grant(), &account()).unwrap();
    now.adopt(account(), pair.grant(), &holder("crm")).unwrap();
    let ticket = now.begin(Begin::refresh(account(), pair.grant())).unwrap();
    refuse(&store, ticket, RefusalClass::Suspended);
    now.release(account(), pair.grant(), &holder("crm")).unwrap();
    now.end(account(), pair.grant(), Cause::Policy, Confidence::Probable).unwrap();
    let expected =
        ["intent", "issued", "identified", "adopted", "intent", "refused", "released", "ended"];
    assert_eq!(kinds(&now, account()), expected);
    assert_eq!(kinds(&now, other.clone()), ["imported"]);
    let history = now.history(account()).unwrap();
    assert_eq!(history.complete_from, Lsn(1));
    assert!(history.events.windows(2).all(|two| two[0].lsn < two[1].lsn));
    let [intent, .., refused, released, ended] = history.events.as_slice() else { panic!() };
    assert_eq!((intent.op.0, intent.account_tag), (intent.lsn.0, provisional));
    assert!(matches!(&intent.details, EventDetails::Call { scopes, holder: Some(named), .. }
        if scopes == &["api"] && named.holder == Some(holder("crm"))));
    assert!(matches!(&refused.details, EventDetails::Refusal { description: Some(text), .. }
        if text == "inactive user"));
    assert!(
        matches!(&released.details, EventDetails::Holding { holder: named, .. }
        if named.holder == Some(holder("crm"))),
        "{released:?}"
    );
    assert!(matches!(ended.details, EventDetails::End { cause: Cause::Policy, .. }));

    let shown = serde_json::to_string(&history).unwrap() + &format!("{history:?}");
    for secret in ["\"a1\"", "\"r1\"", "r0"] {
        assert!(!shown.contains(secret), "{secret} is in {shown}");
    }
    assert!(shown.contains("\"kind\":\"refused\"") && shown.contains("\"cause\":\"policy\""));
}

#[test]
fn a_history_says_from_where_on_it_is_whole() {
    let store = Store::new();
    let imported = store.import("r1");
    store.now().activate(account(), imported.grant).unwrap();
    for _ in 0..3 {
        refuse(&store, store.refresh(&imported), RefusalClass::Retry);
    }
    let lsn = store.now().compact().unwrap().lsn;
    let ticket = store.refresh(&imported);
    settle(&store.now(), ticket, "a2", "r2");
    let expected = ["imported", "activated", "refused", "intent", "issued"];
    assert_eq!(kinds(&store.now(), account()), expected);
    let history = store.now().history(account()).unwrap();
    assert_eq!(history.complete_from, lsn.plus(1));

    // Somebody who reads beside, or afterwards, with a key or without, sees the same.
    let tag = store.journal.tag_of(&account());
    let store = store.reopen();
    store.now().compact().unwrap_or_else(|error| panic!("{error}"));
    let history = store.now().history(account()).unwrap();
    let path = store.path();
    store.now().close().unwrap();
    let reader = Reader::open(&path, Some(&keys())).unwrap();
    assert_eq!(reader.history(tag).unwrap(), history);
    let bare = Reader::open(&path, None).unwrap().history(tag).unwrap();
    let lsns = |history: &tokenwal::History| {
        history.events.iter().map(|event| event.lsn).collect::<Vec<_>>()
    };
    assert_eq!(lsns(&bare), lsns(&history));
    assert!(
        Reader::open(&path, None).unwrap().history(AccountTag::NONE).unwrap().events.is_empty()
    );
}

#[test]
fn a_history_of_a_torn_journal_ends_where_the_journal_does() {
    let store = Store::new();
    let tag = store.journal.tag_of(&account());
    for number in 0..40 {
        let account = Account::new(app(), user());
        let response = response("a", &format!("r{number}"));
        store.now().import(Import::new(&account, response)).unwrap();
    }
    let (dir, path) = (store.dir.path().join("copy"), store.path());
    copy(&path, &dir);
    // The last frame of what was written is half there.
    let mut segments: Vec<_> = files(&dir).filter(|path| path.ends_with(".twj")).collect();
    segments.sort();
    for path in segments {
        let mut bytes = std::fs::read(&path).unwrap();
        if let Some(end) = bytes.iter().skip(4096).rposition(|byte| *byte != 0) {
            bytes[4096 + end] ^= 1;
            std::fs::write(&path, bytes).unwrap();
        }
    }
    let (journal, report) = options().open(&dir).unwrap();
    assert!(report.torn_bytes > 0, "{report:?}");
    let history = journal.blocking().history(tag).unwrap();
    assert_eq!(history.events.len(), 39);
    journal.blocking().import(Import::new(&account(), response("a", "again"))).unwrap();
    assert_eq!(journal.blocking().history(tag).unwrap().events.len(), 40);
    drop(journal);
    assert_eq!(Reader::open(&dir, None).unwrap().history(tag).unwrap().events.len(), 40);
}

fn files(dir: &Path) -> impl Iterator<Item = String> {
    let entries = std::fs::read_dir(dir).unwrap();
    entries.map(|entry| entry.unwrap().path().display().to_string())
}

fn copy(from: &Path, to: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::create_dir(to).unwrap();
    std::fs::set_permissions(to, std::fs::Permissions::from_mode(0o700)).unwrap();
    for path in files(from) {
        let name = Path::new(&path).file_name().unwrap();
        std::fs::copy(&path, to.join(name)).unwrap();
    }
}

#[test]
fn a_salvage_keeps_imports_and_what_was_said_of_them() {
    let store = Store::new();
    let import = Import::new(&account(), response("a1", "r1")).holder(&holder("crm"));
    let paused = store.now().import(import.adopt_within(Duration::from_secs(1))).unwrap();
    let active = store.import("r2");
    store.now().activate(account(), active.grant).unwrap();
    refuse(&store, store.refresh(&active), RefusalClass::Suspended);
    let before = store.now().account(account()).unwrap().unwrap();
    let (from, into) = (store.path(), store.dir.path().join("saved"));
    store.now().close().unwrap();
    let plan = Salvage::new(&keys()).plan(inspect::directory(&from).unwrap()).unwrap();
    assert!(plan.losses().is_empty(), "{:?}", plan.losses());
    plan.write(inspect::new_directory_like(&into, &from).unwrap()).unwrap();
    let (journal, _) = options().open(&into).unwrap();
    let after = journal.blocking().account(account()).unwrap().unwrap();
    assert_eq!(after, before);
    let grant = |grant| after.grants.iter().find(|view| view.grant == grant).unwrap();
    assert!(grant(paused.grant).paused && !grant(active.grant).paused);
    assert_eq!(grant(paused.grant).adopt_by_ms, NOW_MS + 1000);
}

/// An answer to a refresh for other scopes; an expiry of 0 is none.
fn beside(access: &str, refresh: &str, expires_at_ms: u64) -> Outcome {
    let body = format!("{{\"access_token\":\"{access}\",\"refresh_token\":\"{refresh}\"}}");
    let response = TokenResponse::parse(body.into_bytes(), NOW_MS).unwrap();
    Outcome::Issued(match expires_at_ms {
        0 => response,
        at_ms => response.with_expiry(at_ms, ExpirySource::Declared),
    })
}

fn beside_saying(access: &str, refresh: &str, scope: &str) -> Outcome {
    let body = format!(
        "{{\"access_token\":\"{access}\",\"refresh_token\":\"{refresh}\",\"scope\":\"{scope}\"}}"
    );
    Outcome::Issued(TokenResponse::parse(body.into_bytes(), NOW_MS).unwrap())
}

fn ask_beside(store: &Store, imported: &Imported, scopes: &[&str], outcome: Outcome) -> Settled {
    let begin = Begin::refresh(account(), imported.grant).beside(scopes.iter().copied());
    let ticket = store.now().begin(begin).unwrap();
    store.now().settle(ticket, outcome).unwrap()
}

fn active(store: &Store, refresh: &str) -> Imported {
    let imported = store.import(refresh);
    store.now().activate(account(), imported.grant).unwrap();
    imported
}

/// The access tokens beside a grant's chain, the newest first.
fn tokens_beside(store: &Store, imported: &Imported) -> Vec<String> {
    let pairs = store.now().beside_of(account(), imported.grant).unwrap();
    pairs.iter().map(|pair| pair.access_token().reveal().to_owned()).collect()
}

#[test]
fn a_token_beside_the_chain_leaves_the_newest_pair_the_newest() {
    let store = Store::new();
    let imported = active(&store, "r1");
    let before = store.grants().pop().unwrap();
    // Some providers repeat the refresh token, some leave it out.
    for (access, refresh, scope) in [("m1", "", "mail"), ("w1", "r1", "wave"), ("m2", "", "mail")] {
        let outcome = beside(access, refresh, NOW_MS + DAY_MS);
        let Settled::Issued(pair) = ask_beside(&store, &imported, &[scope], outcome) else {
            panic!("no pair")
        };
        assert!(pair.is_beside() && pair.refresh_token().is_none());
        assert_eq!(
            (pair.generation(), pair.scopes()),
            (Generation(1), [scope.to_owned()].as_slice())
        );
    }
    let store = store.reopen();
    assert_eq!(tokens_beside(&store, &imported), ["m2", "w1"], "the newest for each set of scopes");
    store.now().compact().unwrap();
    let store = store.reopen();
    assert_eq!(tokens_beside(&store, &imported), ["m2", "w1"]);
    let grant = store.grants().pop().unwrap();
    assert_eq!((grant.generation, grant.issued_lsn), (before.generation, before.issued_lsn));
    assert_eq!(
        (&grant.scopes, &grant.refresh_fingerprint),
        (&before.scopes, &before.refresh_fingerprint)
    );
    let scopes: Vec<_> = grant.beside.iter().map(|beside| beside.scopes.concat()).collect();
    assert_eq!(scopes, ["wave", "mail"]);
    let current = store.now().current(account()).unwrap().unwrap();
    assert_eq!(current.refresh_token().unwrap().reveal(), "r1");
    assert!(store.now().account(account()).unwrap().unwrap().in_doubt.is_empty());
    // A new pair of the chain leaves them alone, and they leave nothing of themselves in it.
    let ticket = store.refresh(&imported);
    let next = settle(&store.now(), ticket, "a2", "r2");
    assert_eq!((next.generation(), next.is_beside()), (Generation(2), false));
    assert_eq!(tokens_beside(&store, &imported), ["m2", "w1"]);
}

#[test]
fn another_refresh_token_beside_the_chain_is_the_next_generation() {
    let store = Store::new();
    let imported = active(&store, "r1");
    let outcome = beside("m1", "r2", NOW_MS + DAY_MS);
    let Settled::Issued(pair) = ask_beside(&store, &imported, &["mail"], outcome) else { panic!() };
    assert_eq!((pair.generation(), pair.is_beside()), (Generation(2), false));
    // A new refresh token has the scopes of the old one, the access token those that it was given.
    assert_eq!((pair.scopes().len(), pair.is_narrowed()), (2, true));
    assert_eq!(pair.access_scopes(), ["mail"]);
    let store = store.reopen();
    assert!(store.grants()[0].beside.is_empty());
    assert_eq!(store.grants()[0].scopes, pair.scopes());
    let current = store.now().current(account()).unwrap().unwrap();
    assert_eq!(current.refresh_token().unwrap().reveal(), "r2");
    assert_eq!((current.scopes(), current.access_scopes()), (pair.scopes(), pair.access_scopes()));
    let previous = store.journal.previous_of(account(), imported.grant);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let previous = runtime.block_on(previous).unwrap().unwrap();
    assert_eq!(previous.refresh_token().unwrap().reveal(), "r1", "until the next has worked");
    // The next pair inherits what the chain has, and is whole.
    let ticket = store.refresh(&imported);
    let next = settle(&store.now(), ticket, "a3", "r3");
    assert_eq!((next.generation(), next.scopes()), (Generation(3), pair.scopes()));
    assert!(!next.is_narrowed() && next.access_scopes() == next.scopes());
    // One that has all that was granted is not narrower, in whatever order it says so.
    let response = beside_saying("m4", "r4", "web api");
    let Settled::Issued(pair) = ask_beside(&store, &imported, &["web"], response) else { panic!() };
    assert!(!pair.is_narrowed());
}

#[test]
fn only_so_many_tokens_are_kept_beside_the_chain_and_lapsed_ones_go() {
    let store = Store::new();
    let imported = active(&store, "r1");
    for number in 0..10 {
        let outcome = beside(&format!("b{number}"), "", NOW_MS + number * 1000 + 1000);
        ask_beside(&store, &imported, &[&format!("s{number}")], outcome);
    }
    let all: Vec<_> = (2..10).rev().map(|number| format!("b{number}")).collect();
    assert_eq!(tokens_beside(&store, &imported), all);
    let ticket = store.refresh(&imported);
    settle(&store.now(), ticket, "a2", "r2");
    store.later(5000);
    store.now().compact().unwrap();
    let store = store.reopen();
    assert_eq!(tokens_beside(&store, &imported), ["b9", "b8", "b7", "b6", "b5"]);
}

#[test]
fn a_call_for_a_token_beside_the_chain_is_so_after_its_process() {
    let store = Store::new();
    let imported = active(&store, "r1");
    let begin = Begin::refresh(account(), imported.grant).beside(["mail"]);
    let op = store.now().begin(begin).unwrap().op();
    store.now().compact().unwrap();
    let store = store.reopen();
    let open = &store.now().account(account()).unwrap().unwrap().in_doubt[0];
    assert!(open.beside && open.op == op);
    let ticket = store.now().resume(account(), op).unwrap();
    store.now().settle(ticket, beside("m1", "", 0)).unwrap();
    assert_eq!(tokens_beside(&store, &imported), ["m1"]);
    assert_eq!(store.grants()[0].generation, Generation(1));
    // One that comes when its operation is over is kept beside as well, and says so.
    let begin = Begin::refresh(account(), imported.grant).beside(["wave"]);
    let ticket = store.now().begin(begin).unwrap();
    store.now().resolve(account(), ticket.op(), ResolvedHow::Waived).unwrap();
    store.now().settle(ticket, beside("w1", "", 0)).unwrap();
    assert_eq!(tokens_beside(&store, &imported), ["w1", "m1"]);
    assert_eq!(store.grants().len(), 1);
    let wrong = store.now().begin(Begin::revoke(account(), imported.grant).beside(["mail"]));
    assert!(matches!(wrong, Err(Error::Option { option: "beside", .. })));
    assert_eq!(kinds(&store.now(), account()).iter().filter(|kind| **kind == "issued").count(), 2);
}

#[test]
fn what_the_provider_tells_of_an_expiry_counts_until_there_is_a_newer_pair() {
    let store = Store::new();
    let response = response("a1", "r1").with_expiry(NOW_MS + 5, ExpirySource::Assumed);
    let import = Import::new(&account(), response).paused(false);
    let imported = store.now().import(import).unwrap();
    let (grant, told) = (imported.grant, NOW_MS + 77);
    let newer = store.now().told(account(), grant, Generation(2), told);
    assert!(matches!(newer, Err(Error::Conflict { .. })));
    assert!(store.now().told(account(), grant, Generation(1), 0).is_err());
    store.now().told(account(), grant, Generation(1), told - 1).unwrap();
    store.now().told(account(), grant, Generation(1), told).unwrap();
    assert_eq!(kinds(&store.now(), account()), ["imported", "told", "told"]);
    store.now().compact().unwrap();
    assert_eq!(kinds(&store.now(), account()), ["imported", "told"]);
    let store = store.reopen();
    let view = store.grants().pop().unwrap();
    assert_eq!((view.expires_at_ms, view.expiry), (told, Some(ExpirySource::Introspected)));
    assert_eq!((view.lapses_at_ms, view.only_assumed), (Some(told), false));
    let pair = store.now().current(account()).unwrap().unwrap();
    assert_eq!(pair.expires_at_ms(), Some(told));
    assert_eq!(pair.expiry_source(), Some(ExpirySource::Introspected));
    let ticket = store.refresh(&imported);
    settle(&store.now(), ticket, "a2", "r2");
    let view = store.grants().pop().unwrap();
    assert_eq!((view.expires_at_ms, view.expiry), (0, None));
}

#[test]
fn when_all_tokens_of_a_grant_have_lapsed_is_carried_from_pair_to_pair() {
    let store = Store::new();
    let with = |access: &str, expiry: Option<(u64, ExpirySource)>| {
        let response = response(access, "r1");
        match expiry {
            Some((in_ms, source)) => response.with_expiry(NOW_MS + in_ms, source),
            None => response,
        }
    };
    let declared = |in_ms| Some((in_ms, ExpirySource::Declared));
    let assumed = |in_ms| Some((in_ms, ExpirySource::Assumed));
    let import = Import::new(&account(), with("a1", declared(900))).paused(false);
    let imported = store.now().import(import).unwrap();
    let next = |access: &str, expiry| {
        let outcome = Outcome::Issued(with(access, expiry));
        store.now().settle(store.refresh(&imported), outcome).unwrap();
        let view = store.grants().pop().unwrap();
        (view.lapses_at_ms.map(|at_ms| at_ms - NOW_MS), view.only_assumed)
    };
    assert_eq!(next("a2", declared(500)), (Some(900), false), "the first lives longest");
    ask_beside(&store, &imported, &["mail"], beside("m1", "", NOW_MS + 2000));
    assert_eq!(store.grants()[0].lapses_at_ms, Some(NOW_MS + 2000));
    assert_eq!(next("a3", declared(1000)), (Some(2000), false));
    store.later(3000);
    store.now().compact().unwrap();
    assert!(store.grants()[0].beside.is_empty());
    assert_eq!(store.grants()[0].lapses_at_ms, Some(NOW_MS + 2000), "it is said by the pair");
    assert_eq!(next("a4", assumed(5000)), (None, false));
    let generation = store.grants()[0].generation;
    store.now().told(account(), imported.grant, generation, NOW_MS + 6000).unwrap();
    assert_eq!(store.grants()[0].lapses_at_ms, Some(NOW_MS + 6000), "it was the only unknown one");
    assert_eq!(next("a5", None), (None, false));
    assert_eq!(next("a6", declared(7000)), (None, false), "one is unknown for good");
    let generation = store.grants()[0].generation;
    store.now().told(account(), imported.grant, generation, NOW_MS + 8000).unwrap();
    assert_eq!(store.grants()[0].lapses_at_ms, None);
}

#[test]
fn what_is_only_assumed_stays_so_until_something_is_known() {
    let store = Store::new();
    let assumed = |access: &str| {
        let response = response(access, "r1");
        response.with_expiry(NOW_MS + 500, ExpirySource::Assumed)
    };
    let import = Import::new(&account(), assumed("a1")).paused(false);
    let imported = store.now().import(import).unwrap();
    let outcome = Outcome::Issued(assumed("a2"));
    store.now().settle(store.refresh(&imported), outcome).unwrap();
    store.now().compact().unwrap();
    let store = store.reopen();
    assert_eq!((store.grants()[0].lapses_at_ms, store.grants()[0].only_assumed), (None, true));
    // Nobody knows when the first one lapses, whatever is said of the second.
    store.now().told(account(), imported.grant, Generation(2), NOW_MS + 900).unwrap();
    assert_eq!((store.grants()[0].lapses_at_ms, store.grants()[0].only_assumed), (None, false));
}
