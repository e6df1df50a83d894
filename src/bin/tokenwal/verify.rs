//! `tokenwal verify DIR`: is everything there and as it was written?

use crate::exit::{Exit, Failure};
use crate::output::{Facts, counted, harmless, heard, json, stdout};
use crate::progress::Bar;
use std::io::{self, Write};
use std::path::PathBuf;
use tokenwal::inspect::{self, Problem, Verification};
use tokenwal::{KeyFile, KeySource};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The store
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Also check that every sealed part is authentic and in its place, with the keys in this file
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Print one object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args) -> Result<Exit, Failure> {
    let failure = Failure::of(&args.dir);
    let keys = args.key.map(KeyFile::new);
    let keys = keys.as_ref().map(|keys| keys as &dyn KeySource);
    let disk = inspect::directory(&args.dir).map_err(&failure)?;
    let mut bar = Bar::new("verifying");
    let found =
        inspect::verify(&*disk, keys, &mut |progress| bar.tell(progress)).map_err(&failure)?;
    drop(bar);
    let mut out = stdout();
    let printed = if args.json { json(&mut out, &found) } else { show(&mut out, &found) };
    heard(printed.and_then(|()| out.flush()))?;
    Ok(found.verdict.into())
}

fn show(out: &mut impl Write, found: &Verification) -> io::Result<()> {
    let proven = match found.last_batch_proven {
        true => "its batch is proven",
        false => "its batch is unproven: damage exactly there looks like a torn write",
    };
    let mut facts = Facts::default();
    facts
        .add("verdict", word(found.verdict))
        .add("store", found.store)
        .add("last LSN", format!("{}; {proven}", found.last_lsn))
        .add(
            "segments",
            format!(
                "{}, and {} written ahead, {} covered by the snapshot",
                found.segments, found.prepared_segments, found.covered_segments
            ),
        )
        .add("batches", found.batches)
        .add("records", found.frames)
        .add(
            "snapshots",
            format!(
                "{} with {}",
                found.snapshots,
                counted(found.snapshot_blocks, "block", "blocks")
            ),
        )
        .add("accounts", found.accounts)
        .add("in doubt", counted(found.in_doubt, "operation", "operations"))
        .add(
            "seals",
            match found.authenticated {
                true => format!("{} sealed parts authenticated", found.sealed_parts),
                false => String::from("not checked; that takes --key FILE"),
            },
        )
        .add_some(
            "live",
            found.live.then(|| {
                let bytes = found.live_tail_bytes;
                format!("a process writes here; {bytes} bytes are not durable yet and not counted")
            }),
        )
        .add_some(
            "torn tail",
            found.torn_file.as_ref().map(|file| {
                let (bytes, offset) = (found.torn_bytes, found.torn_offset);
                format!("{bytes} bytes behind offset {offset} of {file}, never acknowledged")
            }),
        );
    for file in &found.foreign_files {
        facts.add("not ours", harmless(file));
    }
    facts.print(out)?;
    (1..).zip(&found.problems).try_for_each(|(number, problem)| show_problem(out, number, problem))
}

fn show_problem(out: &mut impl Write, number: usize, problem: &Problem) -> io::Result<()> {
    let Problem { verdict, file, offset, what, lsn, .. } = problem;
    let verdict = word(*verdict);
    writeln!(out, "\nproblem {number}: {verdict}: {file} at offset {offset}: {what}")?;
    let mut stake = Vec::new();
    if !lsn.is_none() {
        stake.push(format!("records from LSN {lsn} on"));
    }
    if let Some((first, next)) = &problem.accounts_between {
        let end = next.map_or_else(|| String::from("the last"), |next| format!("before {next}"));
        stake.push(format!("accounts from {first} to {end}"));
    }
    let accounts: Vec<_> = problem.accounts.iter().map(ToString::to_string).collect();
    if !accounts.is_empty() {
        stake.push(format!("accounts {}", accounts.join(" ")));
    }
    if !stake.is_empty() {
        writeln!(out, "  at stake: {}", stake.join("; "))?;
    }
    writeln!(out, "  do next: {}", problem.advice)
}

fn word(verdict: tokenwal::Verdict) -> String {
    format!("{verdict:?}").to_lowercase()
}
