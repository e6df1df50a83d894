//! `tokenwal why DIR APP USER`: why an integration's token died: the timeline, the probable cause
//! of each grant's end, and the evidence for it.

use crate::apps::AppsArgs;
use crate::exit::{Exit, Failure};
use crate::lineage::{state, timeline, told};
use crate::look::{AccountArgs, LookArgs, named, now_ms};
use crate::output::{harmless, json, stdout, time};
use std::io::{self, Write};
use tokenwal::broker::AppRules;
use tokenwal::{
    AccountTag, AccountView, Action, Cause, Confidence, Event, EventDetails, Generation, GrantId,
    GrantState, GrantView, History, Lsn,
};

/// How many lines of evidence of a kind are given, the newest.
const EVIDENCE_MAX: usize = 8;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    look: LookArgs,
    #[command(flatten)]
    account: AccountArgs,
    #[command(flatten)]
    apps: AppsArgs,
}

/// What became of a grant, and why.
#[derive(serde::Serialize)]
struct Finding {
    account_tag: AccountTag,
    grant: GrantId,
    generation: Generation,
    state: GrantState,
    /// Why it is over, or probably is; none for one that lives as far as is known.
    cause: Option<Cause>,
    confidence: Option<Confidence>,
    says: String,
    evidence: Vec<Evidence>,
    advice: &'static str,
    /// From this LSN on no record of the account is missing.
    complete_from: Lsn,
}

/// A record that speaks for the cause.
#[derive(serde::Serialize)]
struct Evidence {
    lsn: Lsn,
    at_ms: u64,
    says: String,
}

pub(crate) fn run(args: Args) -> Result<Exit, Failure> {
    let reader = args.look.open()?;
    let (view, grant) = args.account.find(&reader, &args.look.dir)?;
    let history = reader.history(view.account_tag).map_err(Failure::of(&args.look.dir))?;
    let mut apps = args.apps.read()?;
    let rules = apps.rules_of(&view);
    let grants = view.grants.iter().filter(|known| grant.is_none_or(|grant| known.grant == grant));
    let findings: Vec<_> =
        grants.map(|grant| (grant, find(rules, &view, grant, &history))).collect();
    let mut out = stdout();
    if args.look.json {
        findings.iter().try_for_each(|(_, finding)| json(&mut out, finding))?;
    } else {
        writeln!(out, "account {}  {}", view.account_tag, harmless(&named(&view)))?;
        timeline(&mut out, &history, history.events.iter())?;
        findings.iter().try_for_each(|(grant, finding)| show(&mut out, grant, finding))?;
    }
    out.flush()?;
    Ok(Exit::Sound)
}

fn show(out: &mut impl Write, grant: &GrantView, finding: &Finding) -> io::Result<()> {
    writeln!(out, "grant {}, {}", finding.grant, state(grant))?;
    writeln!(out, "  {}", finding.says)?;
    for evidence in &finding.evidence {
        let (lsn, at) = (evidence.lsn, time(evidence.at_ms));
        writeln!(out, "  evidence: LSN {lsn}, {at}: {}", harmless(&evidence.says))?;
    }
    if !finding.advice.is_empty() {
        writeln!(out, "  do next: {}", finding.advice)?;
    }
    Ok(())
}

fn find(
    rules: Option<&AppRules>,
    view: &AccountView,
    grant: &GrantView,
    history: &History,
) -> Finding {
    let recorded = || grant.end.as_ref().map(|end| (end.cause, end.confidence));
    let found = match rules {
        Some(rules) => rules.cause(view, grant, now_ms()),
        None => recorded(),
    };
    let (cause, confidence) = found.unzip();
    let says = match (cause, confidence) {
        (Some(cause), Some(confidence)) => format!("{} ({confidence})", sentence(cause)),
        _ => living(view, grant).to_owned(),
    };
    Finding {
        account_tag: view.account_tag,
        grant: grant.grant,
        generation: grant.generation,
        state: grant.state,
        cause,
        confidence,
        says,
        evidence: evidence(grant, cause, history),
        advice: cause.map_or("", advice),
        complete_from: history.complete_from,
    }
}

fn living(view: &AccountView, grant: &GrantView) -> &'static str {
    let doubtful = view.in_doubt.iter().any(|open| open.grant == grant.grant);
    match &grant.refusal {
        _ if doubtful => "an operation on it is in doubt: `tokenwal indoubt` shows what is allowed",
        Some(_) => "it lives as far as is known, and the provider has refused it since",
        None if grant.paused => {
            "it was imported and is not activated, so nothing refreshes it here"
        }
        None if grant.stale => {
            "the store was claimed since: its token may have been used elsewhere"
        }
        None => "it lives as far as is known",
    }
}

fn sentence(cause: Cause) -> &'static str {
    match cause {
        Cause::RevokedByUs => "it was revoked from here",
        Cause::RevokedElsewhere => "it was probably revoked at the provider, by a user or an admin",
        Cause::Expired => "its refresh token was not used for longer than the provider keeps it",
        Cause::Evicted => "newer approvals of the same user reached the cap and pushed it out",
        Cause::Reuse => "a spent refresh token was seen again, which ends all that came of it",
        Cause::Policy => "a policy at the provider ended it",
        Cause::Operator => "an operator ended it",
        Cause::Unknown => "it is not known why it ended",
    }
}

fn advice(cause: Cause) -> &'static str {
    match cause {
        Cause::RevokedByUs | Cause::Operator => "",
        Cause::Evicted => {
            "see `tokenwal usage --near-cap`; let what nobody needs be revoked, then let the user \
             approve again"
        }
        Cause::Reuse => {
            "look for a second process or an old copy that refreshes this token, stop it, then let \
             the user approve again"
        }
        Cause::Policy => "ask the provider's admin to change the policy, then approve again",
        _ => "let the user approve again",
    }
}

/// Says whether a record speaks for a cause.
type Fits<'a> = &'a dyn Fn(&Event) -> bool;

/// Picks the records that speak for a cause, in their order.
fn evidence(grant: &GrantView, cause: Option<Cause>, history: &History) -> Vec<Evidence> {
    let over_lsn = grant.end.as_ref().map(|end| end.lsn);
    let over_lsn = over_lsn.or(grant.refusal.as_ref().map(|refusal| refusal.lsn));
    let before = |event: &&Event| over_lsn.is_none_or(|over| event.lsn <= over);
    let own = |event: &Event| event.grant == grant.grant;
    let picks: [(bool, Fits<'_>); 5] = [
        // What the provider said, and what was noted of the end.
        (true, &|event| own(event) && matches!(event.details, EventDetails::Refusal { .. })),
        (true, &|event| own(event) && matches!(event.details, EventDetails::End { .. })),
        (cause.is_some(), &|event| {
            own(event)
                && matches!(
                    event.details,
                    EventDetails::Doubt { .. } | EventDetails::Resolution { .. }
                )
        }),
        // Later approvals of the same user.
        (matches!(cause, Some(Cause::Evicted | Cause::RevokedElsewhere)), &|event| {
            event.grant > grant.grant
                && event.generation == Generation(1)
                && matches!(event.details, EventDetails::Pair { .. })
        }),
        // The last sign of life.
        (cause.is_some(), &|event| {
            own(event) && (event.kind == "worked" || event.lsn == grant.issued_lsn)
        }),
    ];
    let mut found: Vec<&Event> = Vec::new();
    for (_, fits) in picks.iter().filter(|(wanted, _)| *wanted) {
        let fitting = history.events.iter().rev().filter(before).filter(|event| fits(event));
        found.extend(fitting.take(EVIDENCE_MAX));
    }
    if cause == Some(Cause::RevokedByUs) {
        found.extend(history.events.iter().rev().filter(before).find(|event| {
            let revokes =
                matches!(event.details, EventDetails::Call { action: Action::Revoke, .. });
            own(event) && revokes
        }));
    }
    found.sort_by_key(|event| event.lsn);
    found.dedup_by_key(|event| event.lsn);
    let told = |event: &Event| Evidence {
        lsn: event.lsn,
        at_ms: event.at_ms,
        says: match own(event) {
            true => told(event),
            false => format!("grant {}: {}", event.grant, told(event)),
        },
    };
    found.into_iter().map(told).collect()
}
