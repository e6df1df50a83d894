//! `tokenwal claim DIR`: takes over a store that another host wrote, on somebody's word that the
//! other host has stopped for good.

use crate::exit::{Exit, Failure};
use crate::keys::KeyArgs;
use crate::owner::{Report, give, no_larger_than_needed, owner};
use std::path::PathBuf;
use tokenwal::broker::control::Order;
use tokenwal::inspect::Reader;
use tokenwal::{KeySource, Options};

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
    const NOTHING: &str = "nothing: the store is this host's already";
    let failure = Failure::of(&args.dir);
    let report =
        |done, by_owner, head| Report { done, by_owner, account_tag: None, grant: None, head };
    if let Some(owner) = owner(&args.dir)? {
        let done = give(&args.dir, &Order::Claim, &owner)?;
        report(NOTHING, true, done.head).print(args.json)?;
        return Ok(Exit::Sound);
    }
    let keys = args.keys.need(&args.dir)?;
    let reader = Reader::open(&args.dir, Some(&keys as &dyn KeySource)).map_err(&failure)?;
    let summary = reader.summary().map_err(&failure)?;
    drop(reader);
    if summary.written_here == Some(true) {
        report(NOTHING, false, summary.last_lsn.0).print(args.json)?;
        return Ok(Exit::Sound);
    }
    let options = no_larger_than_needed(Options::new(keys), summary.batch_bytes_max).claim();
    let (journal, opened) = options.open(&args.dir).map_err(&failure)?;
    let head = journal.head();
    journal.blocking().close().map_err(&failure)?;
    let done = match opened.host_changed {
        true => "claimed: what rotates is asked about at its provider before it is presented again",
        false => NOTHING,
    };
    report(done, false, head.0).print(args.json)?;
    Ok(Exit::Sound)
}
