//! `tokenwal replay DIR`: what the journal folds to, as a service would see it at startup.

use crate::exit::{Exit, Failure, say};
use crate::keys::KeyArgs;
use crate::output::{columns, counted, is_terminal, json, stdout, time};
use crate::progress::Bar;
use crate::reveal::{Revealed, reveal};
use std::io::{self, Write};
use std::path::PathBuf;
use tokenwal::inspect::{self, Reader};
use tokenwal::{
    AccountTag, AccountView, DoubtReason, GrantState, GrantView, KeySource, Lsn, OperationView,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The store
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    #[command(flatten)]
    keys: KeyArgs,
    /// Fold up to this record
    #[arg(long, value_name = "LSN")]
    at: Option<u64>,
    /// Show this account only
    #[arg(long, value_name = "TAG")]
    account: Option<AccountTag>,
    /// Show the account's tokens, too
    #[arg(long, requires = "account")]
    reveal: bool,
    /// Show tokens even though standard output is a terminal
    #[arg(long, requires = "reveal")]
    on_terminal: bool,
    /// Print one object a line
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args) -> Result<Exit, Failure> {
    let failure = Failure::of(&args.dir);
    if args.reveal && !args.on_terminal && is_terminal() {
        return Err(Failure::new(
            "standard output is a terminal, which would keep the tokens in its history",
            "redirect the output, or insist with --on-terminal",
        ));
    }
    let disk = inspect::directory(&args.dir).map_err(&failure)?;
    let keys =
        if args.reveal { Some(args.keys.need(&args.dir)?) } else { args.keys.find(&args.dir)? };
    let keys = keys.as_ref().map(|keys| keys as &dyn KeySource);
    let mut bar = Bar::new("replaying");
    let reader = Reader::open_on(disk, keys, args.at.map(Lsn), &mut |progress| bar.tell(progress))
        .map_err(&failure)?;
    drop(bar);
    match args.account {
        Some(account) => show_one(&reader, account, &args),
        None => show_all(&reader, &args),
    }
}

fn show_one(reader: &Reader, account: AccountTag, args: &Args) -> Result<Exit, Failure> {
    let failure = Failure::of(&args.dir);
    let Some(view) = reader.account(account).map_err(&failure)? else {
        let what = format!("{}: account {account} is not in the store", args.dir.display());
        return Err(Failure::new(what, "look for its tag with `tokenwal replay DIR`"));
    };
    let revealed = match args.reveal {
        true => reveal(reader, &view).map_err(&failure)?,
        false => Vec::new(),
    };
    let mut out = stdout();
    if !args.json {
        show_account(&mut out, &view)?;
        revealed.iter().try_for_each(|pair| pair.show(&mut out))?;
    } else if args.reveal {
        json(&mut out, &WithPairs { view: &view, pairs: &revealed })?;
    } else {
        json(&mut out, &view)?;
    }
    out.flush()?;
    Ok(Exit::Sound)
}

/// An account with its tokens.
#[derive(serde::Serialize)]
struct WithPairs<'a> {
    #[serde(flatten)]
    view: &'a AccountView,
    pairs: &'a [Revealed],
}

fn show_all(reader: &Reader, args: &Args) -> Result<Exit, Failure> {
    let mut exit = Exit::Sound;
    match show_each(reader, args, &mut exit) {
        // A reader that went away does not make sound what was found damaged before.
        Err(failure) if failure.is_broken_pipe() => Ok(exit),
        shown => shown.map(|()| exit),
    }
}

/// Shows all accounts; `exit` is how the command ends as far as it has got.
fn show_each(reader: &Reader, args: &Args, exit: &mut Exit) -> Result<(), Failure> {
    let mut out = stdout();
    let (mut accounts, mut grants, mut in_doubt) = (0, 0, 0);
    for view in reader.accounts() {
        let view = match view {
            Ok(view) => view,
            Err(error) => {
                // The accounts before it come first, also where both go to one place.
                out.flush()?;
                let failure = Failure::of(&args.dir)(error);
                say(&failure.text());
                if *exit != Exit::Damaged {
                    *exit = failure.exit();
                }
                continue;
            }
        };
        accounts += 1;
        grants += view.grants.len() as u64;
        in_doubt += view.in_doubt.len() as u64;
        if args.json { json(&mut out, &view)? } else { show_account(&mut out, &view)? }
    }
    if !args.json {
        writeln!(
            out,
            "{}, {}, {} in doubt, up to LSN {}",
            counted(accounts, "account", "accounts"),
            counted(grants, "grant", "grants"),
            counted(in_doubt, "operation", "operations"),
            reader.lsn()
        )?;
    }
    out.flush()?;
    Ok(())
}

fn show_account(out: &mut impl Write, view: &AccountView) -> io::Result<()> {
    let app =
        view.app.as_ref().map_or_else(|| format!("app {}", view.app_tag), |app| app.to_string());
    let user = match (&view.user, view.provisional) {
        (Some(user), _) => format!("user {user}"),
        (None, true) => String::from("user not known yet"),
        (None, false) => String::from("user sealed"),
    };
    writeln!(out, "account {}  {app}  {user}  LSN {}", view.account_tag, view.lsn)?;
    let grants: Vec<_> = view.grants.iter().map(grant_row).collect();
    columns(out, "  ", &grants)?;
    let operations: Vec<_> = view.in_doubt.iter().map(operation_row).collect();
    columns(out, "  ", &operations)?;
    writeln!(out)
}

fn grant_row(grant: &GrantView) -> Vec<String> {
    let holders: Vec<_> = grant
        .holders
        .iter()
        .map(|held| {
            held.holder.as_ref().map_or_else(|| held.holder_tag.to_string(), ToString::to_string)
        })
        .collect();
    let state = match (grant.state, &grant.end) {
        (GrantState::Ended, Some(end)) => {
            format!("ended {} ({}, {})", time(end.at_ms), end.cause, end.confidence)
        }
        (GrantState::Held, _) => format!("held by {}", holders.join(", ")),
        (GrantState::Waiting, _) => format!("waits for a holder until {}", time(grant.adopt_by_ms)),
        (GrantState::Released, _) => String::from("released, held by nobody"),
        (state, _) => format!("{state:?}").to_lowercase(),
    };
    let expires = match grant.expires_at_ms {
        0 => String::from("expiry unknown"),
        at => format!("expires {}", time(at)),
    };
    let refresh = if grant.has_refresh_token { "refresh token" } else { "no refresh token" };
    vec![
        format!("grant {}", grant.grant),
        format!("generation {}", grant.generation),
        expires,
        refresh.to_owned(),
        state,
    ]
}

fn operation_row(operation: &OperationView) -> Vec<String> {
    let reason = operation.doubt.map_or("no outcome", DoubtReason::word);
    let of = match operation.grant.is_none() {
        true => String::new(),
        false => format!("of grant {}", operation.grant),
    };
    vec![
        format!("in doubt {}", operation.op),
        operation.action.to_string(),
        format!("since {}", time(operation.since_ms)),
        format!("until {}", time(operation.deadline_ms)),
        reason.to_owned(),
        of,
    ]
}
