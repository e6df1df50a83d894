//! `tokenwal bench DIR`: what will this disk give me?
//!
//! Measures the raw bound (`raw`) and the journal (`load`) by turns, several rounds a point, so that
//! a disk that changes its mind changes it for both. Reads everything back and counts it. Figures
//! are worth their ratios: the absolute ones drift with the machine.

mod drive;
mod load;
mod raw;

use crate::exit::{Exit, Failure};
use crate::output::{json, stdout};
use crate::progress::Counter;
use drive::{Sample, alone, together};
use load::{Load, Op};
use raw::{Inline, RawFile, Way, Writer};
use serde::Serialize;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;

/// Length of the raw file; a run that fills it ends early.
const RAW_BYTES: u64 = 256 << 20;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A directory on the disk to be measured; what is written to it is removed again
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Print one object a line
    #[arg(long)]
    json: bool,
    /// How many callers at once, one point each
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "1,16,64,256,1024")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=4096))]
    callers: Vec<u16>,
    /// How long each measurement takes
    #[arg(long, value_name = "S", default_value_t = 0.5, value_parser = seconds)]
    seconds: f64,
    /// How often each point is measured
    #[arg(long, value_name = "N", default_value_t = 3)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: u16,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.01..=600.0).contains(&seconds) => Ok(seconds),
        _ => Err(String::from("a number of seconds from 0.01 to 600")),
    }
}

pub(crate) fn run(args: Args) -> Result<Exit, Failure> {
    let mut bench = Bench::new(&args)?;
    if !args.json {
        print(&heading())?;
    }
    let rounds = 2 * args.callers.len() as u64 * u64::from(args.rounds);
    let counter = Counter::new("measuring", rounds);
    for op in [Op::Append, Op::Issue] {
        for callers in &args.callers {
            let point = bench.point(op, usize::from(*callers), &counter)?;
            counter.aside(|| if args.json { print_json(&point) } else { print(&point.row()) })?;
        }
    }
    Ok(Exit::Sound)
}

fn print(line: &str) -> io::Result<()> {
    let mut out = stdout();
    writeln!(out, "{line}")?;
    out.flush()
}

fn print_json(point: &Point) -> io::Result<()> {
    let mut out = stdout();
    json(&mut out, point)?;
    out.flush()
}

/// What was measured of one operation by so many callers.
#[derive(Debug, Serialize)]
struct Point {
    op: &'static str,
    callers: usize,
    raw_per_s: f64,
    tokenwal_per_s: f64,
    ratio: f64,
    p50_us: f64,
    p99_us: f64,
    raw_p50_us: f64,
    raw_p99_us: f64,
    /// Which way was the fastest.
    #[serde(skip)]
    raw: &'static str,
}

fn heading() -> String {
    let heads = "op      callers      raw/s  tokenwal/s  ratio";
    format!(
        "{heads}   raw p50    p99 us  tokenwal p50    p99 us  raw bound by\n\
         ------ -------- ---------- ----------- ------  -------- ---------  ------------ ---------  \
         ------------"
    )
}

impl Point {
    fn row(&self) -> String {
        format!(
            "{:6} {:8} {:10.0} {:11.0} {:6.2}  {:8.0} {:9.0}  {:12.0} {:9.0}  {}",
            self.op,
            self.callers,
            self.raw_per_s,
            self.tokenwal_per_s,
            self.ratio,
            self.raw_p50_us,
            self.raw_p99_us,
            self.p50_us,
            self.p99_us,
            self.raw
        )
    }
}

/// Ways to the raw bound: who writes, and how.
const WAYS: [(&str, bool, Way); 4] = [
    ("inline, fdatasync", true, Way::Synced),
    ("inline, direct", true, Way::Direct),
    ("thread, fdatasync", false, Way::Synced),
    ("thread, direct", false, Way::Direct),
];

struct Bench {
    place: Place,
    runtime: Runtime,
    time: Duration,
    rounds: u16,
    /// Numbers the raw runs, so that a scan tells them apart.
    run: u64,
}

impl Bench {
    fn new(args: &Args) -> Result<Self, Failure> {
        let place = Place::new(&args.dir)?;
        RawFile::create(&place.raw(), RAW_BYTES)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().build()?;
        let time = Duration::from_secs_f64(args.seconds);
        Ok(Self { place, runtime, time, rounds: args.rounds, run: 0x7761_6c00_0000_0000 })
    }

    fn point(&mut self, op: Op, callers: usize, counter: &Counter) -> Result<Point, Failure> {
        let dir = self.place.0.join(format!("{}-{callers}", op.name()));
        let mut load = Load::create(&self.runtime, &dir, op, callers)?;
        let mut journal = Vec::new();
        let mut raw: [Vec<Sample>; WAYS.len()] = Default::default();
        for round in 0..self.rounds {
            // By turns also in who begins.
            if round % 2 == 0 {
                journal.push(load.measure(&self.runtime, self.time)?);
            }
            for ((_, inline, way), samples) in WAYS.iter().zip(&mut raw) {
                if !inline || callers == 1 {
                    samples.extend(self.raw(op, callers, *inline, *way)?);
                }
            }
            if round % 2 == 1 {
                journal.push(load.measure(&self.runtime, self.time)?);
            }
            counter.one_more();
        }
        load.count(&dir)?;
        remove(&dir)?;
        let best = raw.iter().zip(WAYS).max_by(|(one, _), (other, _)| {
            median(one, Sample::per_s).total_cmp(&median(other, Sample::per_s))
        });
        let (raw, (name, ..)) =
            best.ok_or_else(|| Failure::new("nothing was measured", "report this"))?;
        let (raw_per_s, tokenwal_per_s) =
            (median(raw, Sample::per_s), median(&journal, Sample::per_s));
        Ok(Point {
            op: op.name(),
            callers,
            raw_per_s,
            tokenwal_per_s,
            ratio: tokenwal_per_s / raw_per_s,
            p50_us: median(&journal, |sample| sample.quantile_us(50)),
            p99_us: median(&journal, |sample| sample.quantile_us(99)),
            raw_p50_us: median(raw, |sample| sample.quantile_us(50)),
            raw_p99_us: median(raw, |sample| sample.quantile_us(99)),
            raw: name,
        })
    }

    /// Measures the raw bound in one way, and counts what it wrote; none where there is no such
    /// way.
    fn raw(
        &mut self,
        op: Op,
        callers: usize,
        inline: bool,
        way: Way,
    ) -> Result<Option<Sample>, Failure> {
        self.run += 1;
        let Some(file) = RawFile::open(&self.place.raw(), way)? else { return Ok(None) };
        let records: Arc<[Vec<u8>]> = op.frames().iter().map(|bytes| vec![0x5a; *bytes]).collect();
        let sample = if inline {
            let mut inline = Inline::new(file, self.run, records);
            alone(self.time, || inline.call())?
        } else {
            let longest = op.frames().iter().max().copied().unwrap_or_default();
            let writer = Writer::start(file, self.run, longest * callers)?;
            let seats = (0..callers).map(|_| writer.caller(&records)).collect();
            let (sample, _) = together(&self.runtime, self.time, seats)?;
            writer.end()?;
            sample
        };
        let found = RawFile::count(&self.place.raw(), self.run)?;
        let expected = sample.operations() * op.frames().len() as u64;
        if found < expected || found > expected + (callers * op.frames().len()) as u64 {
            let error = format!("{expected} raw records were written and {found} were read back");
            return Err(Failure::new(error, "this disk does not keep what it acknowledges"));
        }
        Ok(Some(sample))
    }
}

fn median(samples: &[Sample], of: impl Fn(&Sample) -> f64) -> f64 {
    let mut values: Vec<f64> = samples.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// A fresh directory, removed with all that is in it.
struct Place(PathBuf);

impl Place {
    #[expect(clippy::disallowed_methods, reason = "the place of a benchmark is no store")]
    fn new(dir: &Path) -> Result<Self, Failure> {
        let path = dir.join(format!("tokenwal-bench-{}", std::process::id()));
        match std::fs::create_dir(&path) {
            Ok(()) => Ok(Self(path)),
            Err(error) => Err(Failure::new(
                format!("{}: cannot make a directory there: {error}", dir.display()),
                "name a directory on the disk to be measured that you may write to",
            )),
        }
    }

    fn raw(&self) -> PathBuf {
        self.0.join("raw")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What cannot be removed is left to be seen.
        let _ = remove(&self.0);
    }
}

#[expect(clippy::disallowed_methods, reason = "what a benchmark made is no store")]
fn remove(dir: &Path) -> io::Result<()> {
    std::fs::remove_dir_all(dir)
}
