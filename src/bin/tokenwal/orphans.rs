//! `tokenwal orphans DIR`: living grants that nobody depends on, the oldest first, and what keeps
//! each from being revoked without asking.

use crate::apps::AppsArgs;
use crate::exit::{Exit, Failure};
use crate::look::{LookArgs, each, named, now_ms};
use crate::output::{columns, harmless, json, stdout, time};
use std::io::Write as _;
use tokenwal::broker::Keeps;
use tokenwal::{AccountTag, GrantId, GrantState};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    look: LookArgs,
    #[command(flatten)]
    apps: AppsArgs,
}

#[derive(serde::Serialize)]
struct Orphan {
    account_tag: AccountTag,
    app: Option<String>,
    user: Option<String>,
    grant: GrantId,
    state: GrantState,
    issued_at_ms: u64,
    adopt_by_ms: u64,
    /// What keeps it from being revoked without asking.
    keeps: Option<Keeps>,
    /// Nothing keeps it: it may be revoked without asking.
    revocable: bool,
    #[serde(skip)]
    name: String,
    #[serde(skip)]
    says: String,
}

pub(crate) fn run(args: Args) -> Result<Exit, Failure> {
    let reader = args.look.open()?;
    let mut apps = args.apps.read()?;
    let now_ms = now_ms();
    let mut orphans = Vec::new();
    let exit = each(&reader, &args.look.dir, |view| {
        let rules = apps.rules_of(view);
        let nobodys = |state| matches!(state, GrantState::Waiting | GrantState::Released);
        for grant in view.grants.iter().filter(|grant| nobodys(grant.state)) {
            let keeps = rules.map(|rules| rules.keeps(view, grant, now_ms));
            let says = match keeps {
                None => "it is not known what its provider revokes: name its app with --apps",
                Some(Some(keeps)) => keeps.sentence(),
                Some(None) => "it may be revoked without asking",
            };
            orphans.push(Orphan {
                account_tag: view.account_tag,
                app: view.app.as_ref().map(ToString::to_string),
                user: view.user.as_ref().map(ToString::to_string),
                grant: grant.grant,
                state: grant.state,
                issued_at_ms: grant.issued_at_ms,
                adopt_by_ms: grant.adopt_by_ms,
                keeps: keeps.flatten(),
                revocable: keeps == Some(None),
                name: harmless(&named(view)),
                says: match grant.state {
                    GrantState::Waiting if now_ms < grant.adopt_by_ms => {
                        format!("waits for its holder until {}", time(grant.adopt_by_ms))
                    }
                    _ => says.to_owned(),
                },
            });
        }
        Ok(())
    })?;
    orphans.sort_by_key(|orphan| (orphan.issued_at_ms, orphan.grant));
    let mut out = stdout();
    if args.look.json {
        orphans.iter().try_for_each(|orphan| json(&mut out, orphan))?;
    } else if orphans.is_empty() {
        writeln!(out, "every living grant has a holder")?;
    } else {
        columns(&mut out, "", &orphans.iter().map(row).collect::<Vec<_>>())?;
    }
    out.flush()?;
    Ok(exit)
}

fn row(orphan: &Orphan) -> Vec<String> {
    let state = match orphan.state {
        GrantState::Released => "released",
        _ => "never adopted",
    };
    vec![
        orphan.name.clone(),
        format!("grant {}", orphan.grant),
        format!("since {}", time(orphan.issued_at_ms)),
        state.to_owned(),
        orphan.says.clone(),
    ]
}
