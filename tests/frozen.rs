//! A store of version 1 with a record of every kind, in a snapshot and behind one. It was written once,
//! and stands in `golden/store` for good: whatever is changed here, it is read as it was then, by the
//! reader, by a journal that is opened on it, and by a snapshot that is made of it.
//!
//! `TOKENWAL_REGENERATE_GOLDEN=1` writes it anew, which nobody does to a version that is out; with `seen`
//! only what is seen of it, where more is shown than before.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "a test may")]

#[path = "shared/over.rs"]
mod over;

use over::{DiskLayer, Over};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokenwal::disk::{Disk, RealDisk};
use tokenwal::inspect::{self, Reader};
use tokenwal::internals::format::record::Kind;
use tokenwal::ledger::Line;
use tokenwal::{
    Account, App, Begin, Blocking, Cause, Clock, Confidence, Doubt, DoubtReason, ExpirySource,
    FixedKeys, Holder, Import, IssuedPair, NotSent, Options, Outcome, Refusal, RefusalClass,
    ResolvedHow, Settled, Ticket, TokenResponse, User, Verdict,
};

const NOW_MS: u64 = 1_763_812_800_000;
/// The host that wrote the store.
const HERE: &str = "golden";

#[derive(Debug)]
struct OnHost {
    disk: RealDisk,
    host: &'static str,
}

impl DiskLayer for OnHost {
    fn below(&self) -> &dyn Disk {
        &self.disk
    }

    fn host(&self) -> String {
        self.host.to_owned()
    }
}

/// Goes on by a second with each look at it.
#[derive(Debug)]
struct Ticking(AtomicU64);

impl Clock for Ticking {
    fn now_ms(&self) -> u64 {
        self.0.fetch_add(1_000, Ordering::Relaxed)
    }
}

fn keys() -> FixedKeys {
    FixedKeys::new([0x11; 32], [])
}

fn options(path: &Path, host: &'static str) -> Options {
    let disk = RealDisk::create(path).unwrap();
    Options::new(keys())
        .batch_bytes_max(16 << 10)
        .outcome_bytes_max(4 << 10)
        .segment_bytes(96 << 10)
        .compact_at_percent(0)
        .clock(Arc::new(Ticking(AtomicU64::new(NOW_MS))))
        .disk(Arc::new(Over(OnHost { disk, host })))
}

fn app() -> App {
    App::new("salesforce", "3MVG9golden").unwrap()
}

fn account(name: &str) -> Account {
    Account::new(app(), User::new(name).unwrap())
}

fn holder(name: &str) -> Holder {
    Holder::new("acme", name).unwrap()
}

/// An answer whose tokens are called after it.
fn answer(name: &str, scope: &str) -> TokenResponse {
    let body = format!(
        r#"{{"access_token":"access {name}","refresh_token":"refresh {name}","id_token":"e30",
            "scope":"{scope}","expires_in":7200,"token_type":"Bearer","unknown":{{"kept":[1,2.50]}},
            "instance_url":"https://golden.example"}}"#
    );
    TokenResponse::parse(body.into_bytes(), NOW_MS).unwrap()
}

fn settle(journal: &Blocking, ticket: Ticket, answer: TokenResponse) -> IssuedPair {
    match journal.settle(ticket, Outcome::Issued(answer)).unwrap() {
        Settled::Issued(pair) => *pair,
        other => panic!("{other:?}"),
    }
}

fn refusal(class: RefusalClass) -> Outcome {
    let refusal = Refusal::new(class, 400, "invalid_grant", "expired access/refresh token", &[]);
    Outcome::Refused(refusal.with_retry_after_s(7).with_request_id("request-1"))
}

/// Writes a record of every kind that a journal writes when it is asked to, for users of these names.
fn write_all(journal: &Blocking, of: &str) {
    let name = |what: &str| format!("{of} {what}");
    let user = account(&name("user"));
    let exchange = || Begin::exchange(&app()).holder(&holder("crm")).scopes(["api", "web"]);
    let refresh = |pair: &IssuedPair| journal.begin(Begin::refresh(&user, pair.grant())).unwrap();

    // Issued, adopted, refreshed, told of, worked; a token beside; refused, not sent, in doubt.
    let ticket = journal.begin(exchange().user(&user.user)).unwrap();
    let first = settle(journal, ticket, answer(&name("1"), "api web").with_user(user.user.clone()));
    journal.adopt_for(&user, first.grant(), &holder("crm"), ["api"]).unwrap();
    let second = settle(journal, refresh(&first), answer(&name("2"), "api web"));
    journal.worked(&user, second.grant(), second.generation()).unwrap();
    journal.told(&user, second.grant(), second.generation(), NOW_MS + 9_999_000).unwrap();
    let beside = Begin::refresh(&user, first.grant()).beside(["web"]);
    let narrow = answer(&name("2"), "web");
    settle(journal, journal.begin(beside).unwrap(), narrow);
    drop(journal.settle(refresh(&first), refusal(RefusalClass::Retry)).unwrap());
    drop(journal.settle(refresh(&first), Outcome::NotSent(NotSent::Connect)).unwrap());
    let doubt = || Outcome::InDoubt(Doubt::new(DoubtReason::Timeout).with_status(504));
    let ticket = refresh(&first);
    let op = ticket.op();
    drop(journal.settle(ticket, doubt()).unwrap());
    journal.resolve(&user, op, ResolvedHow::NotIssued).unwrap();

    // Superseded by a newer one, and ended; a second one ended and revived.
    let ticket = journal.begin(exchange().user(&user.user)).unwrap();
    let newer = settle(journal, ticket, answer(&name("3"), "api").with_user(user.user.clone()));
    journal.supersede(&user, &holder("crm"), first.grant(), newer.grant()).unwrap();
    journal.end(&user, first.grant(), Cause::Evicted, Confidence::Probable).unwrap();
    journal.end(&user, newer.grant(), Cause::Operator, Confidence::Certain).unwrap();
    journal.revive(&user, newer.grant()).unwrap();
    journal.adopt(&user, newer.grant(), &holder("erp")).unwrap();
    journal.release(&user, newer.grant(), &holder("erp")).unwrap();
    drop(journal.settle(refresh(&newer), refusal(RefusalClass::Suspended)).unwrap());

    // One that was imported, with an assumed expiry, and one that is paused still.
    let import = |what: &str| {
        let response = answer(&name(what), "api").with_expiry(NOW_MS + 1, ExpirySource::Assumed);
        journal.import(Import::new(&account(&name("import")), response).holder(&holder(what)))
    };
    let imported = import("active").unwrap();
    journal.activate(imported.account, imported.grant).unwrap();
    import("paused").unwrap();

    // A user who became known after the issuance, and one who became known to be another.
    let provisional = |what: &str| {
        let ticket = journal.begin(exchange()).unwrap();
        settle(journal, ticket, answer(&name(what), "api"))
    };
    let unknown = provisional("4");
    journal.identify(unknown.account(), unknown.grant(), &account(&name("identified"))).unwrap();
    let other = provisional("5");
    journal.merge(other.account(), &account(&name("identified"))).unwrap();
    provisional("6");

    // Left open, left in doubt, forgotten.
    let ticket = journal.begin(exchange().user(&user.user)).unwrap();
    drop(journal.settle(ticket, doubt()).unwrap());
    let forgotten = account(&name("forgotten"));
    let ticket = journal.begin(exchange().user(&forgotten.user)).unwrap();
    let user = forgotten.user.clone();
    let pair = settle(journal, ticket, answer(&name("7"), "api").with_user(user));
    journal.end(&forgotten, pair.grant(), Cause::RevokedByUs, Confidence::Certain).unwrap();
    journal.forget(&forgotten).unwrap();
}

fn write(path: &Path) {
    let (journal, _) = options(path, "elsewhere").create(path).unwrap();
    write_all(&journal.blocking(), "early");
    journal.blocking().compact().unwrap();
    journal.blocking().close().unwrap();
    // Taken over by another host.
    let (journal, _) = options(path, HERE).claim().open(path).unwrap();
    write_all(&journal.blocking(), "late");
    journal.blocking().close().unwrap();
}

/// What a reader sees of a store: accounts, their history, their tokens.
fn seen(reader: &Reader) -> String {
    let views: Vec<_> = reader.accounts().map(Result::unwrap).collect();
    let mut seen = String::new();
    for view in &views {
        let tag = view.account_tag;
        writeln!(seen, "{}", serde_json::to_string(view).unwrap()).unwrap();
        for event in reader.history(tag).unwrap().events {
            writeln!(seen, "  {}", serde_json::to_string(&event).unwrap()).unwrap();
        }
        for line in lines(view, |grant| reader.pair(tag, grant).unwrap()) {
            writeln!(seen, "  {line}").unwrap();
        }
    }
    seen
}

/// The pairs that an account has, with their tokens.
fn lines(
    view: &tokenwal::AccountView,
    pair: impl Fn(tokenwal::GrantId) -> Option<IssuedPair>,
) -> Vec<String> {
    let user = view.user.clone().unwrap_or_else(|| User::new("nobody knows").unwrap());
    let account = Account::new(app(), user);
    let living = view.grants.iter().filter(|grant| grant.end.is_none());
    living
        .map(|grant| {
            let pair = pair(grant.grant).unwrap();
            assert_eq!(pair.generation(), grant.generation);
            Line::of(&account, &pair, grant).text().reveal().to_owned()
        })
        .collect()
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// Copies a store's data, so that only its owner may read it, as it has to be.
fn copied(from: &Path, into: &Path) {
    std::fs::create_dir_all(into).unwrap();
    std::fs::set_permissions(into, PermissionsExt::from_mode(0o700)).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let is_data = name.starts_with("segment-") || name.starts_with("snapshot-");
        if is_data && !name.ends_with(".tmp") {
            std::fs::copy(entry.path(), into.join(&name)).unwrap();
            std::fs::set_permissions(into.join(name), PermissionsExt::from_mode(0o600)).unwrap();
        }
    }
}

/// Writes what was asked for anew: the store, and what is seen of it.
fn regenerate() {
    let asked = std::env::var("TOKENWAL_REGENERATE_GOLDEN").unwrap_or_default();
    if !["1", "seen"].contains(&&*asked) {
        return;
    }
    assert!(std::env::var_os("CI").is_none(), "golden files are never made anew in CI");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    if asked == "1" {
        write(&path);
        let store = golden("store");
        let _ = std::fs::remove_dir_all(&store);
        copied(&path, &store);
    } else {
        copied(&golden("store"), &path);
    }
    let reader = Reader::open(&path, Some(&keys())).unwrap();
    std::fs::write(golden("store.seen"), seen(&reader)).unwrap();
}

#[test]
fn what_version_1_has_written_is_read_for_ever() {
    regenerate();
    let dir = tempfile::tempdir().unwrap();
    let (store, path) = (dir.path().join("as it was"), dir.path().join("store"));
    copied(&golden("store"), &store);
    let expected = std::fs::read_to_string(golden("store.seen")).unwrap();
    let found = inspect::verify(&RealDisk::open(&store).unwrap(), Some(&keys()), &mut |_| ());
    let found = found.unwrap();
    assert_eq!((found.verdict, found.problems.len()), (Verdict::Clean, 0), "{found:?}");
    let reader = Reader::open(&store, Some(&keys())).unwrap();
    assert_eq!(seen(&reader), expected);

    // The journal goes on with it, and what it folds anew says the same.
    copied(&store, &path);
    let views = |reader: &Reader| -> Vec<_> { reader.accounts().map(Result::unwrap).collect() };
    let before = views(&reader);
    let (journal, _) = options(&path, HERE).open(&path).unwrap();
    journal.blocking().compact().unwrap();
    for view in &before {
        let pairs =
            lines(view, |grant| journal.blocking().current_of(view.account_tag, grant).unwrap());
        assert_eq!(pairs, lines(view, |grant| reader.pair(view.account_tag, grant).unwrap()));
    }
    journal.blocking().close().unwrap();
    assert_eq!(views(&Reader::open(&path, Some(&keys())).unwrap()), before);
}

#[test]
fn the_store_has_a_record_of_every_kind() {
    let dir = tempfile::tempdir().unwrap();
    copied(&golden("store"), dir.path());
    let reader = Reader::open(dir.path(), Some(&keys())).unwrap();
    let mut kinds = BTreeSet::new();
    for view in reader.accounts() {
        let history = reader.history(view.unwrap().account_tag).unwrap();
        kinds.extend(history.events.iter().map(|event| event.kind.to_owned()));
    }
    let snake = |name: &str| {
        let mut snake = String::new();
        for letter in name.chars() {
            if letter.is_ascii_uppercase() && !snake.is_empty() {
                snake.push('_');
            }
            snake.push(letter.to_ascii_lowercase());
        }
        snake
    };
    // These concern no account that is there: of a claim, of a store's own, of one who is forgotten.
    let elsewhere = ["claimed", "forgotten", "opened", "sealed", "marker"];
    for kind in Kind::ALL.iter().map(|kind| snake(kind.name())) {
        let is_there = kinds.contains(&kind) || elsewhere.contains(&&*kind);
        assert!(is_there, "no {kind} is there: {kinds:?}");
    }
}
