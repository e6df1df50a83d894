//! `tokenwal activate DIR APP USER [GRANT]`: says that whoever refreshed an imported grant, or one of a
//! claimed copy, before does so no longer.

use crate::exit::{Exit, Failure};
use crate::look::{AccountArgs, grant_of, open};
use crate::owner::{Report, WriteArgs, carry_out};
use std::path::PathBuf;
use tokenwal::broker::control::Order;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The store
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    #[command(flatten)]
    account: AccountArgs,
    #[command(flatten)]
    write: WriteArgs,
}

pub(crate) fn run(args: Args) -> Result<Exit, Failure> {
    let reader = open(&args.dir, &args.write.keys)?;
    let (view, grant) = args.account.find(&reader, &args.dir)?;
    drop(reader);
    let account = view.account_tag;
    let grants: Vec<_> = match grant {
        Some(grant) => vec![grant_of(&view, grant)?.grant],
        None => {
            let living = view.grants.iter().filter(|grant| grant.end.is_none());
            living.filter(|grant| grant.paused || grant.stale).map(|grant| grant.grant).collect()
        }
    };
    if grants.is_empty() {
        let what = format!("account {account}: it has no grant that waits to be activated");
        return Err(Failure::new(what, "nothing has to be done"));
    }
    for grant in grants {
        let order = Order::Activate { account, grant };
        let (done, by_owner) = carry_out(&args.dir, &args.write, order, false)?;
        let report = Report {
            done: "activated",
            by_owner,
            account_tag: done.account,
            grant: done.grant,
            head: done.head,
        };
        report.print(args.write.json)?;
    }
    Ok(Exit::Sound)
}
