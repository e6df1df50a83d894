//! `tokenwal compact DIR`: folds the journal into a snapshot and retires what it covers.

use crate::exit::{Exit, Failure};
use crate::keys::KeyArgs;
use crate::output::{Facts, bytes, counted, json, stdout};
use crate::owner::{give, no_larger_than_needed, owner};
use crate::progress::{Bar, Spinner};
use std::io::Write as _;
use std::path::PathBuf;
use tokenwal::Options;
use tokenwal::broker::control::Order;
use tokenwal::inspect::{self, Reader};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The store; a process that has it open is asked to compact it
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    #[command(flatten)]
    keys: KeyArgs,
    /// Print one object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args) -> Result<Exit, Failure> {
    let failure = Failure::of(&args.dir);
    if let Some(owner) = owner(&args.dir)? {
        return through(&args, &owner);
    }
    let disk = inspect::directory(&args.dir).map_err(&failure)?;
    let mut bar = Bar::new("reading");
    let reader = Reader::open_on(disk, None, None, &mut |progress| bar.tell(progress));
    let summary = reader.and_then(|reader| reader.summary()).map_err(&failure)?;
    drop(bar);
    let keys = args.keys.need(&args.dir)?;
    let options = no_larger_than_needed(Options::new(keys), summary.batch_bytes_max);
    let spinner = Spinner::new("folding");
    let (journal, report) = options.open(&args.dir).map_err(&failure)?;
    let journal = journal.blocking();
    let compacted = journal.compact();
    // What was written stays sound also where closing fails: the next opening recovers it.
    let closed = journal.close();
    drop(spinner);
    let compacted = compacted.map_err(&failure)?;
    closed.map_err(&failure)?;
    let mut out = stdout();
    if args.json {
        json(&mut out, &compacted)?;
    } else {
        let mut facts = Facts::default();
        facts
            .add("snapshot", format!("up to LSN {}, {}", compacted.lsn, bytes(compacted.bytes)))
            .add("accounts", compacted.accounts)
            .add("records", compacted.records)
            .add("retired", counted(compacted.segments_retired, "segment", "segments"))
            .add("in doubt", counted(report.in_doubt.len() as u64, "operation", "operations"));
        facts.print(&mut out)?;
    }
    out.flush()?;
    Ok(Exit::Sound)
}

/// What `--json` prints of a compaction that the process that has the store open has made.
#[derive(serde::Serialize)]
struct ByOwner {
    by_owner: bool,
    lsn: tokenwal::Lsn,
    accounts: u64,
    records: u64,
    bytes: u64,
}

/// Lets the process that has the store open compact it.
fn through(args: &Args, owner: &str) -> Result<Exit, Failure> {
    let spinner = Spinner::new("folding");
    give(&args.dir, &Order::Compact, owner)?;
    drop(spinner);
    let summary = Reader::open(&args.dir, None).and_then(|reader| reader.summary());
    let summary = summary.map_err(Failure::of(&args.dir))?;
    let made = ByOwner {
        by_owner: true,
        lsn: summary.snapshot_lsn,
        accounts: summary.snapshot_accounts,
        records: summary.snapshot_records,
        bytes: summary.snapshot_bytes,
    };
    let mut out = stdout();
    if args.json {
        json(&mut out, &made)?;
    } else {
        let mut facts = Facts::default();
        facts
            .add("by", owner)
            .add("snapshot", format!("up to LSN {}, {}", made.lsn, bytes(made.bytes)))
            .add("accounts", made.accounts)
            .add("records", made.records);
        facts.print(&mut out)?;
    }
    out.flush()?;
    Ok(Exit::Sound)
}
