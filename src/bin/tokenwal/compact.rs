//! `tokenwal compact DIR`: folds the journal into a snapshot and retires what it covers.

use crate::exit::{Exit, Failure};
use crate::keys::KeyArgs;
use crate::output::{Facts, bytes, counted, json, stdout};
use crate::progress::{Bar, Spinner};
use std::io::Write as _;
use std::path::PathBuf;
use tokenwal::Options;
use tokenwal::inspect::{self, Reader};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The store, which no process may have open
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

/// Takes the batches that the store has, and the shortest segments for them: a compaction may be
/// asked for because the disk is nearly full.
fn no_larger_than_needed(options: Options, batch_bytes_max: u32) -> Options {
    const OUTCOME_BYTES: u32 = 64 << 10;
    const BLOCKS_BYTES: u64 = 64 << 10;
    options
        .batch_bytes_max(batch_bytes_max)
        .segment_bytes(4 * u64::from(batch_bytes_max) + BLOCKS_BYTES)
        .outcome_bytes_max(OUTCOME_BYTES.min(batch_bytes_max / 2))
        .compact_at_percent(0)
}
