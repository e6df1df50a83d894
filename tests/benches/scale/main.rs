//! `cargo bench --bench scale`: what a store of many accounts, and a long tail, cost.
//!
//! - Opening: a store whose accounts all stand in its snapshot, small and large, for opening must
//!   not grow with the accounts.
//! - Replay: a tail of many records, against reading the same bytes and computing their CRC-32.
//! - Looking a pair up, and compacting, in the large store.
//!
//! Stores are built by `store` out of `data`, through the public API alone, and kept in the target
//! directory. What memory something takes is measured in a process of its own (`child`). Raw and
//! journal take turns; medians are shown. Everything that was written is counted again.
#![allow(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::string_slice,
    unreachable_pub,
    reason = "a benchmark measures beside the journal's seams, and prints"
)]

mod child;
mod counting;
mod data;
mod machine;
#[path = "../../shared/over.rs"]
mod over;
mod report;
mod store;

use child::{Counted, Folded, LookedUp, Opened};
use report::{Opening, Printer, Replay};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use store::{Built, Outcome, Shape};

const USAGE: &str =
    "cargo bench --bench scale -- [--full] [--accounts N] [--records N] [--rounds N] \
[--seed N] [--dir DIR] [--json]

  --full        1,000,000 accounts and a tail of 1,000,000 records; else 100,000 of each
  --accounts N  so many accounts in the large store
  --records N   so many records in the tail
  --rounds N    how often each thing is measured (5)
  --seed N      what the data follow from (1)
  --dir DIR     where stores are built and kept (the target directory)
  --json        one object a line";

/// Accounts of the store that the large one is compared with.
const SMALL: usize = 10_000;

#[derive(Debug)]
struct Args {
    accounts: usize,
    records: u64,
    rounds: usize,
    seed: u64,
    dir: PathBuf,
    json: bool,
}

impl Args {
    /// Reads the arguments; none where help was asked for.
    fn parse(mut args: impl Iterator<Item = String>) -> Outcome<Option<Self>> {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("scale");
        let mut parsed =
            Self { accounts: 100_000, records: 100_000, rounds: 5, seed: 1, dir, json: false };
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
            match arg.as_str() {
                "--full" => (parsed.accounts, parsed.records) = (1_000_000, 1_000_000),
                "--accounts" => parsed.accounts = value()?.parse()?,
                "--records" => parsed.records = value()?.parse()?,
                "--rounds" => parsed.rounds = value()?.parse::<usize>()?.max(1),
                "--seed" => parsed.seed = value()?.parse()?,
                "--dir" => parsed.dir = value()?.into(),
                "--json" => parsed.json = true,
                // Cargo adds it.
                "--bench" => {}
                "--help" | "-h" => return Ok(None),
                other => return Err(format!("{other} is not known\n\n{USAGE}").into()),
            }
        }
        Ok(Some(parsed))
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Outcome<()> {
    let mut args = std::env::args().skip(1).peekable();
    if args.next_if(|arg| arg == "--child").is_some() {
        let [work, dir, built] = [args.next(), args.next(), args.next()]
            .map(|arg| arg.ok_or("a child has three arguments"));
        println!("{}", child::work(&work?, Path::new(&dir?), &built?)?);
        return Ok(());
    }
    let Some(args) = Args::parse(args)? else {
        println!("{USAGE}");
        return Ok(());
    };
    let bench = Bench { printer: Printer::new(args.json), args };
    bench.printer.heading(bench.args.rounds, bench.args.seed);
    let stores = bench.build()?;
    bench.opening(&[&stores.small, &stores.large])?;
    bench.replay(&stores.tail)?;
    bench.looking_up(&stores.large)?;
    bench.compacting(&stores.large)
}

struct Bench {
    printer: Printer,
    args: Args,
}

/// A store that was built, or was there.
struct Store {
    dir: PathBuf,
    built: Built,
}

struct Stores {
    small: Store,
    large: Store,
    tail: Store,
}

impl Bench {
    fn build(&self) -> Outcome<Stores> {
        let Args { accounts, records, seed, .. } = self.args;
        let get = |shape| {
            let (dir, built) =
                store::get(&self.args.dir, shape, &mut |text| self.printer.progress(text))?;
            let store = Store { dir, built };
            self.count(&store)?;
            Outcome::Ok(store)
        };
        Ok(Stores {
            small: get(Shape::folded(SMALL.min(accounts / 2), seed))?,
            large: get(Shape::folded(accounts, seed))?,
            tail: get(Shape::tail(records, seed))?,
        })
    }

    /// Finds everything again that was written.
    fn count(&self, store: &Store) -> Outcome<()> {
        let counted: Counted = self.fresh("count", store)?;
        let Built { accounts, pairs, .. } = store.built;
        if (counted.accounts, counted.pairs) != (accounts, pairs) {
            let Counted { accounts: found, pairs: found_pairs, .. } = counted;
            return Err(format!(
                "{accounts} accounts with {pairs} pairs were written, \
                 and {found} with {found_pairs} are there"
            )
            .into());
        }
        self.printer.built(&store.built, &counted);
        Ok(())
    }

    /// Lets a process of its own work on a copy of a store.
    fn fresh<T: serde::de::DeserializeOwned>(&self, work: &str, store: &Store) -> Outcome<T> {
        let copy = self.args.dir.join("copy");
        store::link(&store.dir, &copy)?;
        let result = child::run(work, &copy, &store.built);
        store::remove(&copy)?;
        result
    }

    fn opening(&self, stores: &[&Store]) -> Outcome<()> {
        let mut rounds: Vec<Vec<(Opened, Opened)>> = vec![Vec::new(); stores.len()];
        for _ in 0..self.args.rounds {
            for (store, opened) in stores.iter().zip(&mut rounds) {
                machine::forget(&machine::files(&store.dir, "s")?)?;
                let cold: Opened = self.fresh("open", store)?;
                opened.push((cold, self.fresh("open", store)?));
            }
        }
        let rows: Vec<_> = stores
            .iter()
            .zip(&rounds)
            .map(|(store, opened)| Opening::of(&store.built, opened))
            .collect();
        self.printer.opening(&rows);
        Ok(())
    }

    fn replay(&self, store: &Store) -> Outcome<()> {
        let files = machine::files(&store.dir, "segment-")?;
        let mut rounds = Vec::new();
        for _ in 0..self.args.rounds {
            let raw = machine::read_and_check(&files)?;
            let opened: Opened = self.fresh("open", store)?;
            // The marker of the close comes after what was counted.
            let missing = opened.records.abs_diff(store.built.records + 1);
            if missing > 0 {
                return Err(format!("{missing} records too many or too few were replayed").into());
            }
            machine::forget(&files)?;
            let cold_raw = machine::read_and_check(&files)?;
            machine::forget(&files)?;
            let cold: Opened = self.fresh("open", store)?;
            rounds.push(report::Round { raw, opened, cold_raw, cold });
        }
        self.printer.replay(&Replay::of(&store.built, machine::length(&files)?, &rounds));
        Ok(())
    }

    fn looking_up(&self, store: &Store) -> Outcome<()> {
        let looked_up: LookedUp = self.fresh("look-up", store)?;
        self.printer.looking_up(&store.built, &looked_up);
        Ok(())
    }

    fn compacting(&self, store: &Store) -> Outcome<()> {
        let snapshot = machine::files(&store.dir, "snapshot-")?;
        let snapshot = snapshot.first().ok_or("a folded store has no snapshot")?;
        let copy = self.args.dir.join("copied");
        let mut rounds = Vec::new();
        for _ in 0..self.args.rounds.min(3) {
            let copied_s = machine::copy(snapshot, &copy)?;
            std::fs::remove_file(&copy)?;
            let folded: Folded = self.fresh("fold", store)?;
            if folded.accounts != store.built.accounts {
                return Err("a compaction has lost accounts, or found some".into());
            }
            rounds.push((copied_s, folded));
        }
        self.printer.compacting(&store.built, &rounds);
        Ok(())
    }
}
