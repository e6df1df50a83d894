//! `tokenwal lineage DIR APP USER`: an account's grants, and what is still known of how each came
//! to be as it is.

use crate::exit::{Exit, Failure};
use crate::look::{AccountArgs, LookArgs, holders, named};
use crate::output::{columns, harmless, json, stdout, time};
use std::io::{self, Write};
use tokenwal::{Event, EventDetails, GrantState, GrantView, History, HolderName};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    look: LookArgs,
    #[command(flatten)]
    account: AccountArgs,
}

pub(crate) fn run(args: Args) -> Result<Exit, Failure> {
    let reader = args.look.open()?;
    let (view, grant) = args.account.find(&reader, &args.look.dir)?;
    let history = reader.history(view.account_tag).map_err(Failure::of(&args.look.dir))?;
    let is_asked = |event: &&Event| grant.is_none_or(|grant| event.grant == grant);
    let events = history.events.iter().filter(is_asked);
    let mut out = stdout();
    if args.look.json {
        events.into_iter().try_for_each(|event| json(&mut out, event))?;
    } else {
        writeln!(out, "account {}  {}", view.account_tag, harmless(&named(&view)))?;
        let grants = view.grants.iter();
        let grants = grants.filter(|known| grant.is_none_or(|grant| known.grant == grant));
        columns(&mut out, "  ", &grants.map(grant_row).collect::<Vec<_>>())?;
        timeline(&mut out, &history, events)?;
    }
    out.flush()?;
    Ok(Exit::Sound)
}

fn grant_row(grant: &GrantView) -> Vec<String> {
    vec![
        format!("grant {}", grant.grant),
        format!("generation {}", grant.generation),
        format!("issued {}", time(grant.issued_at_ms)),
        state(grant),
    ]
}

/// Says what state a grant is in.
pub(crate) fn state(grant: &GrantView) -> String {
    let state = match (grant.state, &grant.end) {
        (GrantState::Ended, Some(end)) => {
            format!("ended {} ({}, {})", time(end.at_ms), end.cause, end.confidence)
        }
        (GrantState::Held, _) => format!("held by {}", harmless(&holders(grant).join(", "))),
        (GrantState::Waiting, _) => String::from("held by nobody yet"),
        (GrantState::Released, _) => String::from("released, held by nobody"),
        (state, _) => format!("{state:?}").to_lowercase(),
    };
    if grant.paused { format!("{state}, paused since it was imported") } else { state }
}

/// Prints what happened, in its order.
pub(crate) fn timeline<'a>(
    out: &mut impl Write,
    history: &History,
    events: impl Iterator<Item = &'a Event>,
) -> io::Result<()> {
    let rows: Vec<_> = events.map(row).collect();
    writeln!(out, "timeline, complete from LSN {}", history.complete_from)?;
    columns(out, "  ", &rows)
}

fn row(event: &Event) -> Vec<String> {
    let grant = match event.grant.is_none() {
        true => String::new(),
        false => format!("grant {}", event.grant),
    };
    vec![format!("LSN {}", event.lsn), time(event.at_ms), grant, harmless(&told(event))]
}

/// Says in a few words what a record says.
pub(crate) fn told(event: &Event) -> String {
    match &event.details {
        EventDetails::Call { action, holder, .. } => {
            format!("{action} begun{}", for_whom(holder.as_ref()))
        }
        EventDetails::Pair { holder, expires_at_ms, inherited, fenced, .. } => {
            let mut told = format!("generation {} {}", event.generation, event.kind);
            told.push_str(&for_whom(holder.as_ref()));
            if *expires_at_ms > 0 {
                told.push_str(&format!(", expires {}", time(*expires_at_ms)));
            }
            if *inherited {
                told.push_str(", with the refresh token before it");
            }
            if *fenced {
                told.push_str(", for an operation that was over");
            }
            told
        }
        EventDetails::Refusal { class, status, error, description, .. } => {
            let texts = [error, description].into_iter().flatten().filter(|text| !text.is_empty());
            let texts: Vec<_> = texts.map(String::as_str).collect();
            format!("refused, status {status} {} ({class})", texts.join(": "))
        }
        EventDetails::NotSent { reason } => format!("not sent: {reason}"),
        EventDetails::Doubt { reason, status: 0, .. } => format!("in doubt: {reason}"),
        EventDetails::Doubt { reason, status, .. } => {
            format!("in doubt: {reason}, status {status}")
        }
        EventDetails::Resolution { how } => format!("operation {} resolved: {how}", event.op),
        EventDetails::Move { to_account } => format!("{} as account {to_account}", event.kind),
        EventDetails::Holding { holder, .. } => format!("{} by {}", event.kind, name(holder)),
        EventDetails::Superseded { holder, to } => {
            format!("{} moved to grant {to}", name(holder))
        }
        EventDetails::End { cause, confidence } => format!("ended: {cause} ({confidence})"),
        EventDetails::Bare {} => event.kind.to_owned(),
        _ => event.kind.to_owned(),
    }
}

fn for_whom(holder: Option<&HolderName>) -> String {
    holder.map(|holder| format!(" for {}", name(holder))).unwrap_or_default()
}

fn name(holder: &HolderName) -> String {
    holder.holder.as_ref().map_or_else(|| holder.holder_tag.to_string(), ToString::to_string)
}
