//! `tokenwal import DIR`: takes in pairs that were kept elsewhere, one a line of standard input,
//! each by one durable record, and asks nothing of their providers.

use crate::exit::{Exit, Failure, say};
use crate::keys::KeyArgs;
use crate::look::now_ms;
use crate::output::{counted, json, stdout};
use crate::owner::{DRAIN, NotOpened, broker, failed, give, open, owner, runtime};
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, BufRead, Read as _, Write};
use std::path::PathBuf;
use tokenwal::broker::control::{Done, Order, OrderError};
use tokenwal::broker::{Broker, BrokerError};
use tokenwal::inspect;
use tokenwal::ledger::{Line, LineError};
use tokenwal::{AccountTag, Error, GrantId, Journal, Options, Secret};
use tokio::task::JoinHandle;

/// A line's length, in bytes, from which on it is too long whatever it holds.
const LINE_BYTES_MAX: u64 = (1 << 20) + 1;
/// So many lines are made durable at once.
const AT_ONCE: usize = 256;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The store
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    #[command(flatten)]
    keys: KeyArgs,
    /// Make the store, if there is none
    #[arg(long)]
    create: bool,
    /// Only read the lines, and say which are wrong
    #[arg(long, conflicts_with = "create")]
    check: bool,
    /// Print one object a line
    #[arg(long)]
    json: bool,
}

#[derive(serde::Serialize)]
struct Imported {
    line: u64,
    account_tag: Option<AccountTag>,
    grant: Option<GrantId>,
    /// The token was known, and no pair was stored.
    already: bool,
    /// The grant that has it has ended, which an import does not undo.
    ended: bool,
}

/// What came of the lines so far.
struct Tally<W> {
    out: W,
    as_json: bool,
    imported: u64,
    already: u64,
    wrong: u64,
}

pub(crate) fn run(args: Args) -> Result<Exit, Failure> {
    let mut tally = Tally { out: stdout(), as_json: args.json, imported: 0, already: 0, wrong: 0 };
    let lines = Lines::of(io::stdin().lock());
    if args.check {
        for line in lines {
            let (number, line) = line?;
            match line {
                Ok(_) => tally.imported += 1,
                Err(wrong) => tally.wrong(number, &wrong)?,
            }
        }
        return tally.end("would be read");
    }
    if args.create && matches!(inspect::directory(&args.dir), Err(Error::Missing { .. })) {
        let keys = args.keys.need(&args.dir)?;
        let created = Options::new(keys).create(&args.dir);
        let (journal, _) = created.map_err(Failure::of(&args.dir))?;
        journal.blocking().close().map_err(Failure::of(&args.dir))?;
    }
    match owner(&args.dir)? {
        Some(owner) => through(&args, &owner, lines, &mut tally)?,
        None => match open(&args.dir, &args.keys) {
            Ok(journal) => alone(&args, journal, lines, &mut tally)?,
            Err(NotOpened::Locked) => through(&args, "a process", lines, &mut tally)?,
            Err(NotOpened::Failed(failure)) => return Err(failure),
        },
    }
    tally.end("imported")
}

/// Imports through the process that has the store open.
fn through(
    args: &Args,
    owner: &str,
    lines: Lines<impl BufRead>,
    tally: &mut Tally<impl Write>,
) -> Result<(), Failure> {
    for line in lines {
        let (number, line) = line?;
        match line {
            Ok(line) => tally.done(number, &give(&args.dir, &Order::Import { line }, owner)?)?,
            Err(wrong) => tally.wrong(number, &wrong)?,
        }
    }
    Ok(())
}

/// Imports into a store that nobody has open.
fn alone(
    args: &Args,
    journal: Journal,
    lines: Lines<impl BufRead>,
    tally: &mut Tally<impl Write>,
) -> Result<(), Failure> {
    let imported = runtime()?.block_on(async {
        let broker = broker(journal.clone(), Vec::new());
        let imported = all(args, &broker, lines, tally).await;
        broker.shutdown(DRAIN).await;
        imported
    });
    let closed = journal.blocking().close();
    imported?;
    closed.map_err(Failure::of(&args.dir))
}

type Begun = (u64, JoinHandle<Result<Done, OrderError>>);

async fn all(
    args: &Args,
    broker: &Broker<Journal>,
    lines: Lines<impl BufRead>,
    tally: &mut Tally<impl Write>,
) -> Result<(), Failure> {
    let mut begun: VecDeque<Begun> = VecDeque::new();
    for line in lines {
        let (number, line) = line?;
        let line = match line {
            Ok(line) => line,
            Err(wrong) => {
                tally.wrong(number, &wrong)?;
                continue;
            }
        };
        if begun.len() >= AT_ONCE
            && let Some(first) = begun.pop_front()
        {
            settle(args, first, tally).await?;
        }
        let broker = broker.clone();
        let order = Order::Import { line };
        begun.push_back((number, tokio::spawn(async move { broker.carry_out(order).await })));
    }
    while let Some(first) = begun.pop_front() {
        settle(args, first, tally).await?;
    }
    Ok(())
}

async fn settle(
    args: &Args,
    (number, done): Begun,
    tally: &mut Tally<impl Write>,
) -> Result<(), Failure> {
    match done.await.map_err(io::Error::other)? {
        Ok(done) => tally.done(number, &done),
        Err(OrderError::Line(error)) => tally.wrong(number, &error),
        Err(OrderError::Broker(BrokerError::Ledger(error))) if is_of_the_line(&error) => {
            tally.wrong(number, &error)
        }
        Err(error) => Err(failed(&args.dir, error)),
    }
}

fn is_of_the_line(error: &Error) -> bool {
    matches!(error, Error::TooLarge { .. })
}

impl<W: Write> Tally<W> {
    fn done(&mut self, line: u64, done: &Done) -> Result<(), Failure> {
        let count = if done.already { &mut self.already } else { &mut self.imported };
        *count += 1;
        let (account_tag, grant) = (done.account, done.grant);
        let imported =
            Imported { line, account_tag, grant, already: done.already, ended: done.ended };
        if self.as_json {
            json(&mut self.out, &imported)?;
        } else if let (Some(account), Some(grant)) = (account_tag, grant) {
            let what = match (done.already, done.ended) {
                (true, true) => "was there, and has ended",
                (true, false) => "was there",
                (false, _) => "imported",
            };
            writeln!(self.out, "line {line}  account {account}  grant {grant}  {what}")?;
        }
        Ok(())
    }

    fn wrong(&mut self, line: u64, error: &dyn std::fmt::Display) -> Result<(), Failure> {
        self.wrong += 1;
        // What was done before comes first, also where both go to one place.
        self.out.flush()?;
        say(&format!("tokenwal: line {line}: {error}\n"));
        Ok(())
    }

    fn end(mut self, done: &str) -> Result<Exit, Failure> {
        if !self.as_json {
            let lines = counted(self.imported, "line", "lines");
            writeln!(
                self.out,
                "{lines} {done}, {} there before, {} wrong",
                self.already, self.wrong
            )?;
        }
        self.out.flush()?;
        if self.wrong == 0 {
            return Ok(Exit::Sound);
        }
        let what = format!("{} wrong", counted(self.wrong, "line is", "lines are"));
        Err(Failure::new(what, "correct them, and import all again: what is known stays as it is"))
    }
}

/// The lines of standard input with their numbers; empty ones are passed over. What is wrong with a
/// line is found here, so that all else that fails ends the import.
struct Lines<R> {
    input: R,
    number: u64,
    /// For a hash of each refresh token its line, and a hash of its account.
    tokens: HashMap<u64, (u64, u64)>,
    hashes: RandomState,
}

/// What is wrong with a line.
#[derive(Debug)]
enum Wrong {
    TooLong,
    NotText,
    Line(LineError),
    /// The line before it that has the same token under another account.
    Twice(u64),
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => f.write_str("it has more than 1 MiB: give one pair a line"),
            Self::NotText => f.write_str("it is not text in UTF-8: give one pair a line, in JSON"),
            Self::Line(error) => error.fmt(f),
            Self::Twice(first) => write!(
                f,
                "its refresh token is that of line {first}, under another account: whose is it?"
            ),
        }
    }
}

impl<R: BufRead> Lines<R> {
    fn of(input: R) -> Self {
        Self { input, number: 0, tokens: HashMap::new(), hashes: RandomState::new() }
    }

    /// Reads bytes up to the end of a line.
    fn read(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut line = Vec::with_capacity(4096);
        if (&mut self.input).take(LINE_BYTES_MAX).read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        self.number += 1;
        if line.len() as u64 >= LINE_BYTES_MAX && !line.ends_with(b"\n") {
            self.input.skip_until(b'\n')?;
        }
        Ok(Some(line))
    }

    fn check(&mut self, line: Vec<u8>) -> Result<Secret, Wrong> {
        if line.len() as u64 >= LINE_BYTES_MAX {
            return Err(Wrong::TooLong);
        }
        let text = String::from_utf8(line).map(Secret::new).map_err(|_| Wrong::NotText)?;
        let import = Line::parse(text.reveal(), now_ms()).map_err(Wrong::Line)?;
        if let Some(token) = import.refresh_token() {
            let account = import.account();
            let token = self.hashes.hash_one((&account.app, token.reveal()));
            let account = self.hashes.hash_one(account);
            let (first, its) = *self.tokens.entry(token).or_insert((self.number, account));
            if its != account {
                return Err(Wrong::Twice(first));
            }
        }
        Ok(text)
    }
}

impl<R: BufRead> Iterator for Lines<R> {
    type Item = Result<(u64, Result<Secret, Wrong>), Failure>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.read() {
                Ok(None) => return None,
                Ok(Some(line)) if line.trim_ascii().is_empty() => {}
                Ok(Some(line)) => return Some(Ok((self.number, self.check(line)))),
                Err(error) => return Some(Err(error.into())),
            }
        }
    }
}
