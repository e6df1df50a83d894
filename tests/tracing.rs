//! What a journal tells through `tracing`, and that neither there nor in any file, error or debug
//! output a token is to be seen. Alone in its process: it has the global subscriber.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test may"
)]

#[path = "tracing/forms.rs"]
mod forms;
#[path = "sim/mod.rs"]
mod sim;

use forms::{Forms, Sentinels};
use sim::{EIO, Fault, OpKind, SimDisk};
use std::collections::BTreeSet;
use std::error::Error as _;
use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tokenwal::{
    Account, App, Begin, Blocking, Doubt, DoubtReason, Error, FixedKeys, Holder, Options, Outcome,
    Refusal, RefusalClass, Settled, TokenResponse, User, Verdict,
};
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

/// All that may stand in a span or an event; none of it can hold a secret or a name.
const FIELDS: [&str; 18] = [
    "message",
    "accounts",
    "bytes",
    "doing",
    "file",
    "incarnation",
    "kind",
    "lsn",
    "offset",
    "op",
    "out_of_space",
    "problem",
    "records",
    "remedy",
    "segment",
    "torn_bytes",
    "verdict",
    "waited_ms",
];

/// An event or a span, as a subscriber hears of it.
#[derive(Debug, Clone)]
struct Told {
    span: bool,
    target: String,
    name: String,
    fields: Vec<(String, String)>,
}

impl Told {
    fn text(&self) -> String {
        format!("{self:?}")
    }

    fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }
}

impl Visit for Told {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.fields.push((field.name().to_owned(), format!("{value:?}")));
    }
}

/// Collects all that is told.
#[derive(Clone, Default)]
struct Capture(Arc<Mutex<Vec<Told>>>);

impl Capture {
    fn tell(&self, span: bool, metadata: &tracing::Metadata<'_>, fill: impl FnOnce(&mut Told)) {
        let (target, name) = (metadata.target().to_owned(), metadata.name().to_owned());
        let mut told = Told { span, target, name, fields: Vec::new() };
        fill(&mut told);
        self.0.lock().unwrap().push(told);
    }

    fn take(&self) -> Vec<Told> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

impl<S: tracing::Subscriber> Layer<S> for Capture {
    fn on_new_span(
        &self,
        span: &tracing::span::Attributes<'_>,
        _: &tracing::span::Id,
        _: Context<'_, S>,
    ) {
        self.tell(true, span.metadata(), |told| span.record(told));
    }

    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        self.tell(false, event.metadata(), |told| event.record(told));
    }
}

/// What is told while something is done, checked for fields and secrets.
struct Listener {
    capture: Capture,
    sentinels: Sentinels,
    fields: BTreeSet<String>,
}

impl Listener {
    fn start() -> Self {
        let capture = Capture::default();
        let subscriber = tracing_subscriber::registry().with(capture.clone());
        tracing::subscriber::set_global_default(subscriber).unwrap();
        Self { capture, sentinels: Sentinels::default(), fields: BTreeSet::new() }
    }

    /// Fails unless all of `names` were told since the last time, events by their message.
    fn heard(&mut self, what: &str, names: &[&str]) -> Vec<Told> {
        let told = self.capture.take();
        for each in &told {
            assert!(each.target.starts_with("tokenwal"), "{what}: of whom is this? {each:?}");
            self.sentinels.absent(&format!("{what}: an event"), each.text().as_bytes());
            for (field, _) in &each.fields {
                assert!(FIELDS.contains(&field.as_str()), "{what}: the field {field} of {each:?}");
                self.fields.insert(field.clone());
            }
        }
        for name in names {
            let is_it = |each: &Told| match each.span {
                true => each.name == *name,
                false => each.field("message") == Some(name),
            };
            assert!(told.iter().any(is_it), "{what}: nothing was told of {name:?}: {told:#?}");
        }
        told
    }

    fn verdict(&mut self, what: &str, verdict: &str) {
        let told = self.heard(what, &["open", "surveyed"]);
        let surveyed = told.iter().find(|each| each.field("message") == Some("surveyed")).unwrap();
        assert_eq!(surveyed.field("verdict"), Some(verdict), "{what}: {surveyed:?}");
    }

    /// No sentinel stands in what a person or a log may see of a value.
    fn silent(&self, what: &str, value: &dyn Debug) {
        self.sentinels.absent(what, format!("{value:?}").as_bytes());
        self.sentinels.absent(what, format!("{value:#?}").as_bytes());
    }

    /// Nor in an error, its sources and its advice.
    fn silent_error(&self, what: &str, error: &Error) {
        self.silent(what, error);
        let mut text = format!("{error}\n{}", error.advice());
        let mut source = error.source();
        while let Some(cause) = source {
            text.push_str(&format!("\n{cause}\n{cause:?}"));
            source = cause.source();
        }
        self.sentinels.absent(what, text.as_bytes());
    }

    /// Nor in any file of a store: nor a name.
    fn silent_files(&self, what: &str, dir: &Path) {
        let mut count = 0;
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let bytes = std::fs::read(&path).unwrap();
            let what = format!("{what}: {}", path.display());
            self.sentinels.absent(&what, &bytes);
            Forms::of(NAME).absent(&what, &bytes);
            count += 1;
        }
        assert!(count >= 2, "{what}: {} holds no store", dir.display());
    }
}

/// Part of every name; names are sealed, too.
const NAME: &str = "Ms Sentinel O'Hara & Co";

fn keys() -> FixedKeys {
    FixedKeys::new([0xA7; 32], [])
}

/// Small sizes, so that a few records roll over.
fn options() -> Options {
    Options::new(keys())
        .batch_bytes_max(16 << 10)
        .segment_bytes(72 << 10)
        .outcome_bytes_max(2 << 10)
        .compact_at_percent(0)
}

fn app() -> App {
    App::new("provider", format!("client of {NAME}")).unwrap()
}

fn user() -> User {
    User::new(format!("user {NAME}")).unwrap()
}

/// Makes a response whose every token is a sentinel.
fn response(sentinels: &mut Sentinels, more: &str) -> TokenResponse {
    let (access, refresh, id) = (sentinels.draw(), sentinels.draw(), sentinels.draw());
    let kept = sentinels.draw();
    let body = format!(
        r#"{{"access_token":"{access}","refresh_token":"{refresh}","id_token":"{id}","kept":"{kept}{more}"}}"#
    );
    TokenResponse::parse(body.into_bytes(), 1_760_000_000_000).unwrap().with_user(user())
}

#[test]
fn a_journal_tells_what_it_does_and_never_a_secret() {
    let mut listener = Listener::start();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    live(&mut listener, &path);
    reopen(&mut listener, &path, dir.path());
    poison(&mut listener);
    let missing: Vec<_> =
        ["verdict", "lsn", "records", "bytes", "offset", "accounts", "file", "doing"]
            .into_iter()
            .filter(|field| !listener.fields.contains(*field))
            .collect();
    assert!(missing.is_empty(), "fields that nobody used: {missing:?}");
    assert!(listener.sentinels.count() > 50, "there were too few secrets to find");
}

/// A store from its creation to its closing, with every outcome.
fn live(listener: &mut Listener, path: &Path) {
    let (journal, report) = options().create(path).unwrap();
    listener.silent("the report", &report);
    listener.heard("creating", &["created"]);
    let blocking = journal.blocking();
    let account = Account::new(app(), user());
    let holder = Holder::new("tenant", format!("holder {NAME}")).unwrap();
    for number in 0..20 {
        let ticket = blocking.begin(Begin::exchange(&app()).holder(&holder)).unwrap();
        listener.silent("a ticket", &ticket);
        let response = response(&mut listener.sentinels, "");
        listener.silent("a response", &response);
        let outcome = Outcome::Issued(response);
        listener.silent("an outcome", &outcome);
        let Settled::Issued(pair) = blocking.settle(ticket, outcome).unwrap() else {
            panic!("a pair was issued")
        };
        listener.silent("a pair", &pair);
        listener.silent("a secret", pair.access_token());
        blocking.adopt(&account, pair.grant(), &holder).unwrap();
        if number == 0 {
            refresh(listener, &blocking, &account, pair.grant());
        }
    }
    listener.heard("writing", &["batch durable", "rolled over"]);
    doubts(listener, &blocking);
    listener.silent("a journal", &journal);
    listener.silent("what the journal counts", &journal.stats());
    let view = blocking.account(&account).unwrap().unwrap();
    assert!(!listener.sentinels.contains(serde_json::to_string(&view).unwrap().as_bytes()));
    let compacted = blocking.compact().unwrap();
    listener.silent("what a compaction says", &compacted);
    listener.heard("compacting", &["compacting", "compacted"]);
    listener.silent_files("a compacted store", path);
    blocking.close().unwrap();
    listener.heard("closing", &["closed"]);
}

fn refresh(
    listener: &mut Listener,
    blocking: &Blocking,
    account: &Account,
    grant: tokenwal::GrantId,
) {
    let ticket = blocking.begin(Begin::refresh(account, grant)).unwrap();
    listener.silent("a ticket with a pair", &ticket);
    let busy = blocking.begin(Begin::refresh(account, grant)).unwrap_err();
    listener.silent_error("a busy grant", &busy);
    let secret = listener.sentinels.draw();
    let description = format!("the token {secret} is no good");
    let sent = tokenwal::Secret::new(secret);
    let refusal = Refusal::new(RefusalClass::Retry, 400, "invalid_grant", &description, &[&sent]);
    listener.silent("a refusal", &refusal);
    blocking.settle(ticket, Outcome::Refused(refusal)).unwrap();
}

/// What is in doubt keeps the provider's answer, sealed.
fn doubts(listener: &mut Listener, blocking: &Blocking) {
    let ticket = blocking.begin(Begin::exchange(&app())).unwrap();
    let body = format!("<html>{}</html>", listener.sentinels.draw());
    let unreadable = TokenResponse::parse(body.into_bytes(), 0).unwrap_err();
    listener.silent("an unreadable answer", &unreadable);
    listener.sentinels.absent("what is said of it", unreadable.to_string().as_bytes());
    let doubt = Doubt::unreadable(unreadable);
    listener.silent("a doubt", &doubt);
    blocking.settle(ticket, Outcome::InDoubt(doubt)).unwrap();

    let ticket = blocking.begin(Begin::exchange(&app())).unwrap();
    let body = listener.sentinels.draw().into_bytes();
    let doubt = Doubt::new(DoubtReason::ServerError).with_status(500).with_body(body);
    blocking.settle(ticket, Outcome::InDoubt(doubt)).unwrap();

    let ticket = blocking.begin(Begin::exchange(&app())).unwrap();
    let large = response(&mut listener.sentinels, &"x".repeat(4000));
    let lost = blocking.settle(ticket, Outcome::Issued(large)).unwrap_err();
    listener.silent("what could not be stored", &lost);
    listener.silent_error("what is too large", &lost.error);

    // This one is never settled.
    blocking.begin(Begin::exchange(&app())).unwrap();
}

/// Every verdict that opening can come to.
fn reopen(listener: &mut Listener, path: &Path, beside: &Path) {
    let (journal, report) = options().open(path).unwrap();
    listener.verdict("opening what was closed", "Clean");
    listener.silent("the report of a store with doubts", &report);
    let ticket = journal.blocking().begin(Begin::exchange(&app())).unwrap();
    let outcome = Outcome::Issued(response(&mut listener.sentinels, ""));
    journal.blocking().settle(ticket, outcome).unwrap();
    drop(journal);

    // A process that was killed, and half of a batch behind its last one.
    let (segment, end) = last_segment(path);
    write(&segment, end, b"half a batch");
    let (journal, report) = options().open(path).unwrap();
    assert_eq!(report.verdict, Verdict::Torn);
    listener.verdict("opening what is torn", "Torn");
    drop(journal);
    listener.heard("dropping", &[]);

    for (verdict, damage) in [("Suspect", Damage::Far), ("Corrupt", Damage::Sealed)] {
        let copy = beside.join(verdict);
        copy_store(path, &copy);
        match damage {
            Damage::Far => {
                let (segment, end) = last_segment(&copy);
                write(&segment, end + (20 << 10), b"far behind the end");
            }
            Damage::Sealed => write(&segments(&copy)[0], 4096 + 100, b"long durable"),
        }
        let error = refused(options(), &copy);
        listener.verdict("opening what is damaged", verdict);
        listener.silent_error("a damaged store", &error);
    }

    let copy = beside.join("headless");
    copy_store(path, &copy);
    write(&last_segment(&copy).0, 40, b"not its nonce");
    let error = refused(options(), &copy);
    listener.verdict("opening what has no chain", "Corrupt");
    listener.silent_error("a store without a chain", &error);

    let error = refused(Options::new(FixedKeys::new([8; 32], [])), path);
    assert!(matches!(error, Error::WrongKey { .. }), "{error}");
    listener.silent_error("a wrong key", &error);
    listener.silent_files("a store that was opened again and again", path);
}

#[derive(Clone, Copy)]
enum Damage {
    Far,
    Sealed,
}

/// Opens a store that is not fit to be opened.
fn refused(options: Options, path: &Path) -> Error {
    match options.open(path) {
        Ok((_, report)) => panic!("{}: {report:?}", path.display()),
        Err(error) => error,
    }
}

/// A disk whose sync fails: the journal says so once and for all.
fn poison(listener: &mut Listener) {
    let disk = SimDisk::new(1);
    let (journal, _) = options().disk(Arc::new(disk.clone())).create("").unwrap();
    let blocking = journal.blocking();
    let ticket = blocking.begin(Begin::exchange(&app())).unwrap();
    disk.fail(|op| op.kind == OpKind::Sync, Fault::Error(EIO), u64::MAX);
    let outcome = Outcome::Issued(response(&mut listener.sentinels, ""));
    let lost = blocking.settle(ticket, outcome).unwrap_err();
    assert!(matches!(lost.error, Error::Poisoned(_)), "{lost:?}");
    listener.silent("an outcome that may be lost", &lost);
    listener.silent_error("a poisoned journal", &lost.error);
    listener.silent("a poisoned journal", &journal);
    let error = blocking.begin(Begin::exchange(&app())).unwrap_err();
    listener.silent_error("a journal that was poisoned before", &error);
    let told = listener.heard("poisoning", &["poisoned"]);
    let times = told.iter().filter(|told| told.field("message") == Some("poisoned")).count();
    assert_eq!(times, 1, "{told:#?}");
    for (name, bytes) in disk.files() {
        listener.sentinels.absent(&format!("the file {name} after a failed sync"), &bytes);
    }
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut segments: Vec<_> =
        names.filter(|path| path.extension().is_some_and(|end| end == "twj")).collect();
    segments.sort();
    segments
}

/// Finds the last segment that was written to, and the first free block in it.
fn last_segment(dir: &Path) -> (PathBuf, u64) {
    let written = segments(dir).into_iter().rev().find_map(|path| {
        let bytes = std::fs::read(&path).unwrap();
        let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        (end > 4096).then(|| (path, end.next_multiple_of(4096) as u64))
    });
    written.unwrap()
}

fn write(path: &Path, offset: u64, bytes: &[u8]) {
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, bytes, offset).unwrap();
}

fn copy_store(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    std::fs::set_permissions(to, std::fs::metadata(from).unwrap().permissions()).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}
