//! `tokenwal revoke DIR APP USER GRANT`: revokes a grant at its provider, as an operation of its
//! own.

use crate::apps::AppsArgs;
use crate::exit::{Exit, Failure};
use crate::look::{AccountArgs, grant_of, holders, now_ms, open};
use crate::output::{Facts, harmless, json, stdout};
use crate::owner::{Report, WriteArgs, carry_out};
use std::io::Write as _;
use std::path::PathBuf;
use tokenwal::broker::Keeps;
use tokenwal::broker::control::Order;
use tokenwal::{AccountTag, AccountView, GrantId, GrantView};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The store
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    #[command(flatten)]
    account: AccountArgs,
    /// Only say what it would do
    #[arg(long)]
    dry_run: bool,
    /// Even if somebody depends on it, or the provider takes others along
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    write: WriteArgs,
}

/// What a revocation would do.
#[derive(serde::Serialize)]
struct Plan {
    account_tag: AccountTag,
    grant: GrantId,
    holders: Vec<String>,
    /// Living grants that may go with it; none where the provider's rules are not known.
    takes_along: Option<usize>,
    /// What keeps it from being revoked without asking.
    keeps: Option<Keeps>,
    /// It would be done without --force.
    would_be_done: bool,
    says: String,
}

pub(crate) fn run(args: Args) -> Result<Exit, Failure> {
    let reader = open(&args.dir, &args.write.keys)?;
    let (view, grant) = args.account.find(&reader, &args.dir)?;
    drop(reader);
    let Some(grant) = grant else {
        return Err(Failure::new("the grant is not named", "name it behind the account"));
    };
    let found = grant_of(&view, grant)?;
    if args.dry_run {
        return show(&args, &Plan::of(&args.write.apps, &view, found)?);
    }
    if !args.force && !found.holders.is_empty() {
        let by = harmless(&holders(found).join(", "));
        let what = format!("account {}: {by} depends on grant {grant}", view.account_tag);
        return Err(Failure::new(what, "release it first, or insist with --force"));
    }
    let (account, force) = (view.account_tag, args.force);
    let order = Order::Revoke { account, grant, force };
    let (done, by_owner) = carry_out(&args.dir, &args.write, order, true)?;
    let report = Report {
        done: "revoked",
        by_owner,
        account_tag: done.account,
        grant: done.grant,
        head: done.head,
    };
    report.print(args.write.json)?;
    Ok(Exit::Sound)
}

impl Plan {
    fn of(apps: &AppsArgs, view: &AccountView, grant: &GrantView) -> Result<Self, Failure> {
        let mut apps = apps.read()?;
        let rules = apps.rules_of(view);
        let takes_along = rules.map(|rules| rules.takes_along(view, grant));
        let keeps = rules.and_then(|rules| rules.keeps(view, grant, now_ms()));
        let refused = match () {
            () if grant.end.is_some() => Some("nothing: it is over already"),
            () if !grant.holders.is_empty() => Some("it is refused without --force: it is held"),
            () if grant.paused => Some("it is refused: it was imported and is not activated"),
            () if view.in_doubt.iter().any(|open| open.grant == grant.grant) => {
                Some("it is refused: an operation on it is in doubt")
            }
            () if takes_along.is_some_and(|others| others > 0) => {
                Some("it is refused without --force: others may go with it")
            }
            () if takes_along.is_none() => Some("its app is not known: name it with --apps"),
            () => None,
        };
        Ok(Self {
            account_tag: view.account_tag,
            grant: grant.grant,
            holders: holders(grant),
            takes_along,
            keeps,
            would_be_done: refused.is_none(),
            says: refused.unwrap_or("it is revoked, and nothing else").to_owned(),
        })
    }
}

fn show(args: &Args, plan: &Plan) -> Result<Exit, Failure> {
    let mut out = stdout();
    if args.write.json {
        json(&mut out, plan)?;
    } else {
        let mut facts = Facts::default();
        let held = Some(harmless(&plan.holders.join(", "))).filter(|held| !held.is_empty());
        facts.add("account", plan.account_tag).add("grant", plan.grant);
        facts.add_some("held by", held).add_some("others with it", plan.takes_along);
        facts.add_some("asked because", plan.keeps.map(Keeps::sentence));
        facts.add("would do", &plan.says).print(&mut out)?;
    }
    out.flush()?;
    Ok(Exit::Sound)
}
