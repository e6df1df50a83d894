//! Writes to a store: through the process that has it open, or by opening it.

use crate::apps::AppsArgs;
use crate::exit::Failure;
use crate::keys::KeyArgs;
use crate::output::{Facts, json, stdout};
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;
use tokenwal::broker::control::{self, ControlError, Done, Order, OrderError};
use tokenwal::broker::{AppConfig, Broker, BrokerError};
use tokenwal::inspect::{self, Reader};
use tokenwal::{AccountTag, Error, GrantId, Journal, Options};
use tokio::runtime::{Builder, Runtime};

/// How long what was begun may take to end.
pub(crate) const DRAIN: Duration = Duration::from_secs(120);

/// What a writing command takes, beside what it is about.
#[derive(Debug, clap::Args)]
pub(crate) struct WriteArgs {
    #[command(flatten)]
    pub(crate) keys: KeyArgs,
    #[command(flatten)]
    pub(crate) apps: AppsArgs,
    /// Print one object
    #[arg(long)]
    pub(crate) json: bool,
}

/// What was done, and by whom.
#[derive(Debug, serde::Serialize)]
pub(crate) struct Report {
    pub(crate) done: &'static str,
    /// The process that has the store open did it.
    pub(crate) by_owner: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) account_tag: Option<AccountTag>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) grant: Option<GrantId>,
    /// The last durable LSN.
    pub(crate) head: u64,
}

impl Report {
    pub(crate) fn print(&self, as_json: bool) -> Result<(), Failure> {
        let mut out = stdout();
        if as_json {
            json(&mut out, self)?;
        } else {
            let mut facts = Facts::default();
            let by = if self.by_owner { "the process that has the store open" } else { "tokenwal" };
            facts.add("done", self.done).add("by", by);
            facts.add_some("account", self.account_tag).add_some("grant", self.grant);
            facts.add("last LSN", self.head).print(&mut out)?;
        }
        out.flush()?;
        Ok(())
    }
}

/// Says whether a process has the store open, and which, if it said so.
pub(crate) fn owner(dir: &Path) -> Result<Option<String>, Failure> {
    let failure = Failure::of(dir);
    let disk = inspect::directory(dir).map_err(&failure)?;
    if !disk.is_locked()? {
        return Ok(None);
    }
    let note = disk.lock_note().unwrap_or_default();
    let note = String::from_utf8_lossy(&note);
    let pid = note.lines().find_map(|line| line.strip_prefix("pid ")?.trim().parse::<u32>().ok());
    Ok(Some(pid.map_or_else(|| String::from("a process"), |pid| format!("process {pid}"))))
}

/// Gives an order to the process that has the store open.
pub(crate) fn give(dir: &Path, order: &Order, owner: &str) -> Result<Done, Failure> {
    control::give(dir, order).map_err(|error| match error {
        ControlError::Refused { error, advice } => Failure::new(error, advice),
        ControlError::Nobody { .. } => Failure::new(
            format!("{}: {owner} has the store open and takes no orders", dir.display()),
            "stop it, or let it call `Broker::serve_control`; if it is only starting, or is a \
             command, try again",
        ),
        ControlError::Lost { .. } => {
            Failure::new(error, "look what became of it with `tokenwal indoubt DIR`")
        }
        error => Failure::new(error, "run the command as the user whose process has the store"),
    })
}

/// Carries an order out: by the process that has the store open if there is one, else alone. Says
/// whether the former.
pub(crate) fn carry_out(
    dir: &Path,
    write: &WriteArgs,
    order: Order,
    calls: bool,
) -> Result<(Done, bool), Failure> {
    if let Some(owner) = owner(dir)? {
        return Ok((give(dir, &order, &owner)?, true));
    }
    if calls && !write.apps.are_given() {
        return Err(Failure::new(
            "the provider has to be called, and it is not known how",
            "name the apps with --apps FILE; `--help` says what it holds",
        ));
    }
    let configs = if calls { write.apps.read()?.configs()? } else { Vec::new() };
    match open(dir, &write.keys) {
        Ok(journal) => Ok((alone(dir, journal, configs, order)?, false)),
        // Somebody was faster.
        Err(NotOpened::Locked) => Ok((give(dir, &order, "a process")?, true)),
        Err(NotOpened::Failed(failure)) => Err(failure),
    }
}

/// Why a store was not opened.
pub(crate) enum NotOpened {
    /// A process has it.
    Locked,
    Failed(Failure),
}

impl From<Failure> for NotOpened {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Opens a store for writing, for a short while.
pub(crate) fn open(dir: &Path, keys: &KeyArgs) -> Result<Journal, NotOpened> {
    let failure = Failure::of(dir);
    let keys = keys.need(dir)?;
    let reader = Reader::open(dir, None);
    let summary = reader.and_then(|reader| reader.summary()).map_err(&failure)?;
    let options = no_larger_than_needed(Options::new(keys), summary.batch_bytes_max);
    match options.open(dir) {
        Ok((journal, _)) => Ok(journal),
        Err(Error::Locked { .. }) => Err(NotOpened::Locked),
        Err(error) => Err(failure(error).into()),
    }
}

/// Takes the batches that the store has, and the shortest segments for them: what is written is
/// little, and may be asked for because the disk is nearly full.
pub(crate) fn no_larger_than_needed(options: Options, batch_bytes_max: u32) -> Options {
    const OUTCOME_BYTES: u32 = 64 << 10;
    const BLOCKS_BYTES: u64 = 64 << 10;
    options
        .batch_bytes_max(batch_bytes_max)
        .segment_bytes(4 * u64::from(batch_bytes_max) + BLOCKS_BYTES)
        .outcome_bytes_max(OUTCOME_BYTES.min(batch_bytes_max / 2))
        .compact_at_percent(0)
}

/// Makes a broker that does what it is ordered to and nothing else.
pub(crate) fn broker(journal: Journal, configs: Vec<AppConfig>) -> Broker<Journal> {
    let builder = Broker::builder(journal).tends(false);
    configs.into_iter().fold(builder, |builder, config| builder.app(config)).build()
}

fn alone(
    dir: &Path,
    journal: Journal,
    configs: Vec<AppConfig>,
    order: Order,
) -> Result<Done, Failure> {
    let done = runtime()?.block_on(async {
        let broker = broker(journal.clone(), configs);
        let done = broker.carry_out(order).await;
        broker.shutdown(DRAIN).await;
        done
    });
    // What was written stays sound also where closing fails: the next opening recovers it.
    let closed = journal.blocking().close();
    let done = done.map_err(|error| failed(dir, error))?;
    closed.map_err(Failure::of(dir))?;
    Ok(done)
}

/// Makes a failure of an order that was not carried out.
pub(crate) fn failed(dir: &Path, error: OrderError) -> Failure {
    let advice = error.advice();
    match error {
        OrderError::Broker(BrokerError::UnknownApp { app }) => Failure::new(
            format!("{}: {app}: this app is not in the file of apps", dir.display()),
            "add it to the file that --apps names",
        ),
        error => Failure::new(error, advice),
    }
}

pub(crate) fn runtime() -> Result<Runtime, Failure> {
    Ok(Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}
