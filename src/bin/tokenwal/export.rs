//! `tokenwal export DIR`: living grants as lines of JSON, as `tokenwal import` takes them.

use crate::exit::{Exit, Failure, say};
use crate::keys::KeyArgs;
use crate::look::{AccountArgs, each};
use crate::output::{counted, is_terminal, stdout};
use std::io::Write as _;
use std::path::PathBuf;
use tokenwal::inspect::Reader;
use tokenwal::ledger::Line;
use tokenwal::{Account, AccountView, KeySource};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The store
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    #[command(flatten)]
    keys: KeyArgs,
    #[command(flatten)]
    account: AccountArgs,
    /// Write the tokens, too; without them the lines cannot be imported
    #[arg(long)]
    reveal: bool,
    /// Changes nothing: the lines are JSON in any case
    #[arg(long)]
    json: bool,
    /// Write tokens even though standard output is a terminal
    #[arg(long, requires = "reveal")]
    on_terminal: bool,
}

pub(crate) fn run(args: Args) -> Result<Exit, Failure> {
    if args.reveal && !args.on_terminal && is_terminal() {
        return Err(Failure::new(
            "standard output is a terminal, which would keep the tokens in its history",
            "redirect the output, or insist with --on-terminal",
        ));
    }
    let failure = Failure::of(&args.dir);
    let keys = args.keys.need(&args.dir)?;
    let reader = Reader::open(&args.dir, Some(&keys as &dyn KeySource)).map_err(&failure)?;
    let mut out = stdout();
    let mut nameless = 0;
    let mut show = |view: &AccountView, only: Option<tokenwal::GrantId>| {
        let living = view.grants.iter().filter(|grant| grant.end.is_none());
        for grant in living.filter(|grant| only.is_none_or(|only| grant.grant == only)) {
            let (Some(app), Some(user)) = (&view.app, &view.user) else {
                nameless += 1;
                continue;
            };
            let pair =
                reader.pair(view.account_tag, grant.grant).map_err(Failure::of(&args.dir))?;
            let Some(pair) = pair else { continue };
            let account = Account::new(app.clone(), user.clone());
            let line = || match args.reveal {
                true => Line::of(&account, &pair, grant),
                false => Line::of(&account, &pair, grant).without_tokens(),
            };
            let named: Vec<_> =
                grant.holders.iter().filter_map(|held| held.holder.as_ref()).collect();
            if named.is_empty() {
                writeln!(out, "{}", line().text().reveal())?;
            }
            for holder in named {
                writeln!(out, "{}", line().holder(holder).text().reveal())?;
            }
        }
        Ok(())
    };
    let exit = match args.account.is_given() {
        true => {
            let (view, grant) = args.account.find(&reader, &args.dir)?;
            show(&view, grant).map(|()| Exit::Sound)?
        }
        false => each(&reader, &args.dir, |view| show(view, None))?,
    };
    out.flush()?;
    if nameless > 0 {
        let grants = counted(nameless, "grant", "grants");
        say(&format!("tokenwal: {grants} left out, whose user is not known yet\n"));
    }
    Ok(exit)
}
