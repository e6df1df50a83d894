//! `tokenwal indoubt DIR`: operations without an outcome, since when, and what their provider's
//! rules allow next.

use crate::apps::AppsArgs;
use crate::exit::{Exit, Failure};
use crate::look::{LookArgs, each, named, now_ms};
use crate::output::{columns, harmless, json, stdout, time};
use crate::owner::owner;
use std::io::Write as _;
use tokenwal::broker::{Step, Why};
use tokenwal::{AccountTag, AccountView, Action, OperationView};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    look: LookArgs,
    #[command(flatten)]
    apps: AppsArgs,
}

#[derive(serde::Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    operation: &'a OperationView,
    app: Option<String>,
    user: Option<String>,
    account: AccountTag,
    /// The process that has the store open may be waiting for its answer.
    on_its_way: bool,
    /// What the provider's rules allow next; none where they are not known.
    step: Option<Step>,
    says: String,
}

pub(crate) fn run(args: Args) -> Result<Exit, Failure> {
    let is_owned = owner(&args.look.dir)?.is_some();
    let reader = args.look.open()?;
    let mut apps = args.apps.read()?;
    let now_ms = now_ms();
    let mut out = stdout();
    let mut rows = Vec::new();
    let exit = each(&reader, &args.look.dir, |view| {
        let rules = apps.rules_of(view);
        for operation in &view.in_doubt {
            let on_its_way = is_owned && operation.doubt.is_none();
            let step = rules.map(|rules| rules.step(view, operation, now_ms));
            let says = match step {
                _ if on_its_way => String::from("wait: its process may have an answer yet"),
                None => {
                    String::from("its provider's rules are not known: name its app with --apps")
                }
                Some(step) => says(step, operation),
            };
            if args.look.json {
                let line = Line {
                    operation,
                    app: view.app.as_ref().map(ToString::to_string),
                    user: view.user.as_ref().map(ToString::to_string),
                    account: view.account_tag,
                    on_its_way,
                    step: step.filter(|_| !on_its_way),
                    says,
                };
                json(&mut out, &line)?;
            } else {
                rows.push(row(view, operation, says));
            }
        }
        Ok(())
    })?;
    match rows.is_empty() && !args.look.json {
        true => writeln!(out, "no operation is in doubt")?,
        false => columns(&mut out, "", &rows)?,
    }
    out.flush()?;
    Ok(exit)
}

fn row(view: &AccountView, operation: &OperationView, says: String) -> Vec<String> {
    let what = match operation.grant.is_none() {
        true => operation.action.to_string(),
        false => format!("{} of grant {}", operation.action, operation.grant),
    };
    let reason = operation.doubt.map_or("no outcome", tokenwal::DoubtReason::word);
    vec![
        format!("operation {}", operation.op),
        harmless(&named(view)),
        what,
        format!("since {}", time(operation.since_ms)),
        reason.to_owned(),
        says,
    ]
}

fn says(step: Step, operation: &OperationView) -> String {
    match step {
        Step::Resolve(how) => format!("nothing has to be asked: it is {how}"),
        Step::Wait(until_ms) => format!("nothing before {}", time(until_ms)),
        Step::Resend => String::from("the same may be sent again"),
        Step::Mint => String::from("mint again: what an earlier one gave harms nobody"),
        Step::Probe => String::from("the provider may be asked about the refresh token"),
        Step::Ask(why) => format!("decide: {}; {}", why.sentence(), choices(why, operation)),
        _ => String::from("the service that has the store decides"),
    }
}

fn choices(why: Why, operation: &OperationView) -> String {
    let choices = match (operation.action, why) {
        (Action::Exchange, _) => "not-issued, issued-elsewhere, waived or burn",
        (Action::Burn, _) | (_, Why::Over) => "not-issued or waived",
        _ => "not-issued, issued-elsewhere, waived or resend",
    };
    format!("`tokenwal resolve DIR {} --as` {choices}", operation.op)
}
