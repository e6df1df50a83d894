//! What was measured, as tables or as lines of JSON.

use super::child::{Counted, Folded, LookedUp, Opened};
use super::machine::load;
use super::store::Built;
use serde::Serialize;

const MIB: f64 = (1 << 20) as f64;

/// What opening one store took.
#[derive(Debug, Serialize)]
pub struct Opening {
    accounts: u64,
    snapshot_bytes: u64,
    /// What was read at opening.
    snapshot_bytes_read: u64,
    segment_bytes_read: u64,
    cold_ms: f64,
    warm_ms: f64,
    peak_bytes: u64,
    before_bytes: u64,
}

impl Opening {
    pub fn of(built: &Built, rounds: &[(Opened, Opened)]) -> Self {
        let most = |value: &dyn Fn(&Opened) -> u64| {
            rounds.iter().flat_map(|(cold, warm)| [value(cold), value(warm)]).max().unwrap_or(0)
        };
        Self {
            accounts: built.accounts,
            snapshot_bytes: most(&|opened| opened.snapshot_bytes),
            snapshot_bytes_read: most(&|opened| opened.snapshot_bytes_read),
            segment_bytes_read: most(&|opened| opened.segment_bytes_read),
            cold_ms: median(rounds.iter().map(|(cold, _)| cold.wall_s * 1e3)),
            warm_ms: median(rounds.iter().map(|(_, warm)| warm.wall_s * 1e3)),
            peak_bytes: most(&|opened| opened.peak_bytes),
            before_bytes: most(&|opened| opened.before_bytes),
        }
    }
}

/// One round of the replay: raw and journal, with the files in the system's memory and without;
/// raw by the clock and on a core.
#[derive(Debug)]
pub struct Round {
    pub raw: (f64, f64),
    pub opened: Opened,
    pub cold_raw: (f64, f64),
    pub cold: Opened,
}

/// What replaying a tail took.
#[derive(Debug, Serialize)]
pub struct Replay {
    records: u64,
    accounts: u64,
    batches: u64,
    bytes: u64,
    raw_s: f64,
    raw_core_s: f64,
    replay_s: f64,
    replay_core_s: f64,
    /// Of time on a core.
    ratio: f64,
    records_per_s: f64,
    records_per_core_s: f64,
    cold_raw_s: f64,
    cold_replay_s: f64,
    peak_bytes: u64,
    bytes_per_record: f64,
    bytes_per_account: f64,
}

impl Replay {
    pub fn of(built: &Built, bytes: u64, rounds: &[Round]) -> Self {
        let of = |value: &dyn Fn(&Round) -> f64| median(rounds.iter().map(value));
        let (raw_core_s, replay_core_s) = (of(&|r| r.raw.1), of(&|r| r.opened.core_s));
        let replay_s = of(&|r| r.opened.wall_s);
        let peak_bytes = rounds.iter().map(|r| r.opened.peak_bytes).max().unwrap_or(0);
        let grown = rounds.iter().map(|r| r.opened.peak_bytes - r.opened.before_bytes).max();
        let grown = grown.unwrap_or(0) as f64;
        let records = rounds.first().map_or(0, |r| r.opened.records);
        Self {
            records,
            accounts: built.accounts,
            batches: built.batches,
            bytes,
            raw_s: of(&|r| r.raw.0),
            raw_core_s,
            replay_s,
            replay_core_s,
            ratio: replay_core_s / raw_core_s,
            records_per_s: records as f64 / replay_s,
            records_per_core_s: records as f64 / replay_core_s,
            cold_raw_s: of(&|r| r.cold_raw.0),
            cold_replay_s: of(&|r| r.cold.wall_s),
            peak_bytes,
            bytes_per_record: grown / records as f64,
            bytes_per_account: grown / built.accounts as f64,
        }
    }
}

/// Prints tables for people, or lines of JSON.
#[derive(Debug)]
pub struct Printer {
    json: bool,
}

impl Printer {
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    fn line(&self, what: &str, value: &impl Serialize) {
        if let Ok(serde_json::Value::Object(mut fields)) = serde_json::to_value(value) {
            fields.shift_insert(0, String::from("what"), what.into());
            println!("{}", serde_json::Value::Object(fields));
        }
    }

    pub fn heading(&self, rounds: usize, seed: u64) {
        if !self.json {
            let cores = std::thread::available_parallelism().map_or(0, usize::from);
            let load = load();
            println!("{cores} cores, load {load}; medians of {rounds} rounds, seed {seed}");
        }
    }

    pub fn progress(&self, text: &str) {
        eprintln!("{text} ...");
    }

    pub fn built(&self, built: &Built, counted: &Counted) {
        if self.json {
            return self.line("store", built);
        }
        let Built { shape, records, batches, build_s, fold_s, .. } = built;
        let Counted { accounts, pairs, .. } = counted;
        let folded = match shape.folded {
            true => format!(", folded in {fold_s:.1} s"),
            false => String::new(),
        };
        println!(
            "{}: {records} records in {batches} batches, written in {build_s:.1} s{folded}; \
             read back {accounts} accounts that {pairs} pairs made",
            if shape.folded { "folded store" } else { "tail" },
        );
    }

    pub fn opening(&self, rows: &[Opening]) {
        if self.json {
            return rows.iter().for_each(|row| self.line("opening", row));
        }
        println!("\nopening with an empty tail");
        println!(
            "{:>9}  {:>12}  {:>22}  {:>22}  {:>7}  {:>7}  {:>9}",
            "accounts",
            "snapshot MiB",
            "read of it KiB",
            "read of segments MiB",
            "cold ms",
            "warm ms",
            "peak MiB"
        );
        for row in rows {
            println!(
                "{:>9}  {:>12.1}  {:>22.1}  {:>22.1}  {:>7.1}  {:>7.1}  {:>9.1}",
                row.accounts,
                row.snapshot_bytes as f64 / MIB,
                row.snapshot_bytes_read as f64 / 1024.0,
                row.segment_bytes_read as f64 / MIB,
                row.cold_ms,
                row.warm_ms,
                row.peak_bytes as f64 / MIB,
            );
        }
    }

    pub fn replay(&self, row: &Replay) {
        if self.json {
            return self.line("replay", row);
        }
        let (megabytes, batch) = (row.bytes as f64 / MIB, row.records as f64 / row.batches as f64);
        println!(
            "\nreplay of {} records of {} accounts, {batch:.0} to a batch, {megabytes:.0} MiB",
            row.records, row.accounts
        );
        println!("{:28}  {:>10}  {:>10}  {:>10}", "seconds", "warm", "on a core", "cold");
        let rows = [
            ("read and CRC-32", row.raw_s, row.raw_core_s, row.cold_raw_s),
            ("replay", row.replay_s, row.replay_core_s, row.cold_replay_s),
            ("times", row.replay_s / row.raw_s, row.ratio, row.cold_replay_s / row.cold_raw_s),
        ];
        for (name, warm, core, cold) in rows {
            println!("{name:28}  {warm:>10.3}  {core:>10.3}  {cold:>10.3}");
        }
        println!(
            "{:28}  {:>10.0}  {:>10.0}  {:>10.0}",
            "records a second",
            row.records_per_s,
            row.records_per_core_s,
            row.records as f64 / row.cold_replay_s
        );
        println!(
            "peak memory {:.1} MiB: {:.0} bytes a record, {:.0} an account touched",
            row.peak_bytes as f64 / MIB,
            row.bytes_per_record,
            row.bytes_per_account
        );
    }

    pub fn looking_up(&self, built: &Built, row: &LookedUp) {
        if self.json {
            return self.line("look-up", row);
        }
        println!("\nlooking up and unsealing a current pair, of {} accounts", built.accounts);
        println!("{:28}  {:>10}  {:>10}", "microseconds", "p50", "p99");
        let rows = [
            ("snapshot not in memory", row.cold_us),
            ("snapshot in the page cache", row.first_us),
            ("looked up before", row.again_us),
        ];
        for (name, us) in rows {
            println!("{name:28}  {:>10.1}  {:>10.1}", us.p50, us.p99);
        }
    }

    pub fn compacting(&self, built: &Built, rounds: &[(f64, Folded)]) {
        let copy_s = median(rounds.iter().map(|(copied_s, _)| *copied_s));
        let fold_s = median(rounds.iter().map(|(_, folded)| folded.wall_s));
        let bytes = rounds.first().map_or(0, |(_, folded)| folded.bytes);
        let peak_bytes = rounds.iter().map(|(_, folded)| folded.peak_bytes).max().unwrap_or(0);
        if self.json {
            let row = serde_json::json!({
                "accounts": built.accounts, "bytes": bytes, "copy_s": copy_s, "fold_s": fold_s,
                "ratio": fold_s / copy_s, "first_fold_s": built.fold_s, "peak_bytes": peak_bytes,
            });
            return self.line("compaction", &row);
        }
        println!(
            "\ncompacting {} accounts, {:.0} MiB, of which 100 have changed: {fold_s:.2} s, \
             {:.2} times a copy of the file ({copy_s:.2} s); peak memory {:.0} MiB",
            built.accounts,
            bytes as f64 / MIB,
            fold_s / copy_s,
            peak_bytes as f64 / MIB,
        );
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}
