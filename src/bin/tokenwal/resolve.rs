//! `tokenwal resolve DIR OP --as HOW`: what a person decides about an operation in doubt.

use crate::exit::{Exit, Failure};
use crate::look::open;
use crate::owner::{Report, WriteArgs, carry_out};
use std::io::{self, Read as _};
use std::path::PathBuf;
use tokenwal::broker::Choice;
use tokenwal::broker::control::Order;
use tokenwal::{OpId, Secret};

/// The longest authorization code that is read, in bytes.
const CODE_BYTES_MAX: u64 = 64 << 10;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The store
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// The operation, as `tokenwal indoubt` names it
    #[arg(value_name = "OP")]
    op: u64,
    /// What is decided
    #[arg(long = "as", value_name = "HOW")]
    how: How,
    #[command(flatten)]
    write: WriteArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum How {
    /// The provider issued nothing, or did nothing
    NotIssued,
    /// What was issued is known from elsewhere
    IssuedElsewhere,
    /// Let it be; it counts toward the cap no longer
    Waived,
    /// Present the refresh token again, whatever the rules say
    Resend,
    /// Present the code again, from standard input, to have what it issued revoked
    Burn,
    /// Do what the provider's rules allow
    ByTheRules,
}

pub(crate) fn run(args: Args) -> Result<Exit, Failure> {
    let reader = open(&args.dir, &args.write.keys)?;
    let operations = reader.operations().map_err(Failure::of(&args.dir))?;
    drop(reader);
    let found = operations.iter().find(|operation| operation.op.0 == args.op);
    let account = found.map(|operation| operation.account_tag).ok_or_else(|| {
        let what = format!("{}: operation {} is not in doubt", args.dir.display(), args.op);
        Failure::new(what, "`tokenwal indoubt DIR` lists those that are")
    })?;
    let choice = match args.how {
        How::NotIssued => Choice::NotIssued,
        How::IssuedElsewhere => Choice::IssuedElsewhere,
        How::Waived => Choice::Waive,
        How::Resend => Choice::Resend,
        How::Burn => Choice::Burn(code()?),
        How::ByTheRules => Choice::ByTheRules,
    };
    let calls = matches!(args.how, How::Resend | How::Burn | How::ByTheRules);
    let order = Order::Resolve { account, op: OpId(args.op), choice };
    let (done, by_owner) = carry_out(&args.dir, &args.write, order, calls)?;
    let report = Report {
        done: "resolved",
        by_owner,
        account_tag: done.account,
        grant: None,
        head: done.head,
    };
    report.print(args.write.json)?;
    Ok(Exit::Sound)
}

fn code() -> Result<Secret, Failure> {
    let mut code = String::with_capacity(4096);
    io::stdin().lock().take(CODE_BYTES_MAX).read_to_string(&mut code)?;
    code.truncate(code.trim_end_matches(['\r', '\n']).len());
    let code = Secret::new(code);
    match code.reveal().is_empty() {
        true => Err(Failure::new(
            "there is no code on standard input",
            "give the code that the callback brought, on standard input",
        )),
        false => Ok(code),
    }
}
