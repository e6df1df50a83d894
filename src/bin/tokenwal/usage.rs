//! `tokenwal usage DIR`: how each account's cap is used, as Salesforce shows it under "Connected
//! Apps OAuth Usage".

use crate::apps::AppsArgs;
use crate::exit::{Exit, Failure};
use crate::look::{LookArgs, each, named};
use crate::output::{columns, harmless, json, stdout};
use std::io::Write as _;
use tokenwal::broker::Usage;
use tokenwal::{AccountTag, AccountView, GrantState};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    look: LookArgs,
    #[command(flatten)]
    apps: AppsArgs,
    /// Show only accounts to which no further grant can be added without one too many
    #[arg(long)]
    near_cap: bool,
}

#[derive(serde::Serialize)]
struct Line {
    account_tag: AccountTag,
    app: Option<String>,
    user: Option<String>,
    #[serde(flatten)]
    usage: Usage,
    /// None where nothing is known of a cap.
    near_cap: Option<bool>,
}

pub(crate) fn run(args: Args) -> Result<Exit, Failure> {
    let reader = args.look.open()?;
    let mut apps = args.apps.read()?;
    let mut out = stdout();
    let mut rows = vec![heads()];
    let exit = each(&reader, &args.look.dir, |view| {
        let (usage, near_cap) = match apps.rules_of(view) {
            Some(rules) => {
                let usage = rules.usage(view);
                (usage, usage.limit.map(|_| rules.is_near_cap(&usage)))
            }
            None => (counted(view), None),
        };
        if args.near_cap && near_cap != Some(true) {
            return Ok(());
        }
        if args.look.json {
            let line = Line {
                account_tag: view.account_tag,
                app: view.app.as_ref().map(ToString::to_string),
                user: view.user.as_ref().map(ToString::to_string),
                usage,
                near_cap,
            };
            json(&mut out, &line)?;
        } else {
            rows.push(row(view, &usage, near_cap));
        }
        Ok(())
    })?;
    match rows.len() {
        _ if args.look.json => {}
        1 if args.near_cap => writeln!(out, "no account is near its cap")?,
        1 => writeln!(out, "there is no account in the store")?,
        _ => columns(&mut out, "", &rows)?,
    }
    out.flush()?;
    Ok(exit)
}

fn heads() -> Vec<String> {
    let heads = ["account", "live", "held", "orphan", "in doubt", "cap", ""];
    heads.into_iter().map(str::to_owned).collect()
}

fn row(view: &AccountView, usage: &Usage, near_cap: Option<bool>) -> Vec<String> {
    let remark = match (near_cap, usage.victim) {
        (Some(true), Some(victim)) => format!("one more would end grant {victim}"),
        (Some(true), None) => String::from("no further grant fits"),
        _ => String::new(),
    };
    vec![
        harmless(&named(view)),
        usage.live.to_string(),
        usage.held.to_string(),
        usage.orphans.to_string(),
        usage.in_doubt.to_string(),
        usage.limit.map_or_else(|| String::from("unknown"), |limit| limit.to_string()),
        remark,
    ]
}

/// Counts where nothing is known of the app: every grant that has not ended, every exchange in
/// doubt.
fn counted(view: &AccountView) -> Usage {
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let states = |states: &[GrantState]| {
        count(view.grants.iter().filter(|grant| states.contains(&grant.state)).count())
    };
    let mut usage = Usage::default();
    usage.live = view.live(tokenwal::CapCounts::Grants);
    usage.held = states(&[GrantState::Held]);
    usage.orphans = states(&[GrantState::Waiting, GrantState::Released]);
    usage.in_doubt = count(view.in_doubt.len());
    usage
}
