//! `tokenwal stat DIR`: a store in numbers.

use crate::exit::{Exit, Failure};
use crate::keys::KeyArgs;
use crate::output::{Facts, bytes, counted, harmless, json, stdout};
use crate::progress::Bar;
use std::io::{self, Write};
use std::path::PathBuf;
use tokenwal::KeySource;
use tokenwal::inspect::{self, Reader, Summary};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The store
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
    let keys = args.keys.find(&args.dir)?;
    let keys = keys.as_ref().map(|keys| keys as &dyn KeySource);
    let mut bar = Bar::new("reading");
    let reader = Reader::open_on(disk, keys, None, &mut |progress| bar.tell(progress));
    let summary = reader.and_then(|reader| reader.summary()).map_err(&failure)?;
    drop(bar);
    let mut out = stdout();
    if args.json {
        json(&mut out, &summary)?
    } else {
        show(&mut out, &summary)?
    }
    out.flush()?;
    Ok(if summary.unreadable.is_empty() { Exit::Sound } else { Exit::Damaged })
}

fn show(out: &mut impl Write, summary: &Summary) -> io::Result<()> {
    let mut facts = Facts::default();
    let proven = if summary.last_batch_proven { "proven" } else { "unproven" };
    let owner = match (summary.live, summary.owner_pid) {
        (false, _) => String::from("nobody"),
        (true, Some(pid)) => format!("process {pid}"),
        (true, None) => String::from("a process that has not said which"),
    };
    facts
        .add("store", summary.store)
        .add("owner", owner)
        .add("last LSN", format!("{}; the last batch is {proven}", summary.last_lsn))
        .add("opened", counted(summary.incarnation, "time", "times"))
        .add(
            "segments",
            format!(
                "{} with {}, and {} written ahead",
                summary.segments,
                bytes(summary.segment_bytes),
                summary.prepared_segments
            ),
        )
        .add(
            "tail",
            format!(
                "{} about {}",
                counted(summary.tail_records, "record", "records"),
                counted(summary.accounts_touched, "account", "accounts")
            ),
        )
        .add("snapshot", snapshot(summary))
        .add("in doubt", counted(summary.in_doubt, "operation", "operations"))
        .add("free space", bytes(summary.free_bytes))
        .add_some(
            "not durable yet",
            (summary.live_tail_bytes > 0).then(|| bytes(summary.live_tail_bytes)),
        )
        .add_some("torn tail", (summary.torn_bytes > 0).then(|| bytes(summary.torn_bytes)))
        .add_some(
            "written by",
            summary.written_here.map(|here| if here { "this host" } else { "another host" }),
        );
    for account in &summary.unreadable {
        facts.add("damaged", format!("account {account}; run `tokenwal verify`"));
    }
    for file in &summary.foreign_files {
        facts.add("not ours", harmless(file));
    }
    facts.print(out)
}

fn snapshot(summary: &Summary) -> String {
    if summary.snapshot_lsn.is_none() {
        return String::from("none");
    }
    format!(
        "up to LSN {}, {}, {}, {}",
        summary.snapshot_lsn,
        counted(summary.snapshot_accounts, "account", "accounts"),
        counted(summary.snapshot_records, "record", "records"),
        bytes(summary.snapshot_bytes)
    )
}
