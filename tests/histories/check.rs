//! What must hold when all is quiet again.

use super::service::Service;
use super::world::World;
use std::collections::{BTreeMap, BTreeSet};
use tokenwal::broker::Step;
use tokenwal::{AccountView, Action, Holder, Secret};

/// Checks the journal, the provider and the service's rows against each other.
pub async fn at_rest(world: &mut World, service: &Service) -> Result<(), String> {
    let views: Result<Vec<AccountView>, _> = service.journal.accounts().collect();
    let views = views.map_err(|error| format!("the accounts cannot be read: {error}"))?;
    every_doubt_is_resolved_or_reported(world, service, &views).await?;
    what_was_issued_is_known(world, service, &views).await?;
    no_spent_token_was_presented_outside_its_window(world, service, &views)?;
    nobody_who_is_held_was_killed(world, service, &views)?;
    what_was_handed_out_is_known(world, &views)?;
    codes_were_presented_once(world)?;
    rows_are_held(world, service, &views)
}

async fn every_doubt_is_resolved_or_reported(
    world: &mut World,
    service: &Service,
    views: &[AccountView],
) -> Result<(), String> {
    for view in views {
        if view.in_doubt.is_empty() {
            continue;
        }
        let steps = service.broker.steps(view.account_tag).await;
        let steps = steps.map_err(|error| format!("no steps: {error}"))?;
        if steps.len() != view.in_doubt.len() {
            return Err(format!("{} of {} doubts are shown", steps.len(), view.in_doubt.len()));
        }
        for (open, step) in steps {
            match step {
                Step::Ask(_) => world.tally.asked += 1,
                step => return Err(format!("operation {open:?} was left at {step:?}")),
            }
        }
    }
    Ok(())
}

/// Every pair that the provider issued is in the journal, or its operation is in doubt.
async fn what_was_issued_is_known(
    world: &mut World,
    service: &Service,
    views: &[AccountView],
) -> Result<(), String> {
    let known: BTreeSet<_> = fingerprints(views);
    let doubtful_exchanges = views
        .iter()
        .flat_map(|view| &view.in_doubt)
        .filter(|open| open.action == Action::Exchange)
        .count();
    let issued = service.provider.seen().issued.clone();
    let mut unknown_approvals = 0;
    for (approval, tokens) in issued {
        let Some(newest) = tokens.last() else { continue };
        if known.contains(&print(service, newest)) {
            continue;
        }
        let now_ms = world.clock.true_ms();
        let lives = world.provider.model.lock().unwrap().is_alive(newest, now_ms);
        let older: Vec<_> =
            tokens.iter().filter(|token| known.contains(&print(service, token))).collect();
        if older.is_empty() {
            unknown_approvals += usize::from(lives);
            continue;
        }
        // A request that came late was answered beside the one that was sent in its place: both
        // answers work.
        let works = |token: &&&String| world.provider.model.lock().unwrap().is_alive(token, now_ms);
        if !lives || older.iter().any(|token| works(&token)) {
            continue;
        }
        world.tally.lost_successors += 1;
        // Its successor was lost: the refresh must be in doubt, or the loss was told.
        let told = views.iter().any(|view| {
            let grant = view.grants.iter().find(|grant| {
                older.iter().any(|token| print(service, token) == grant.refresh_fingerprint)
            });
            grant.is_some_and(|grant| {
                grant.end.is_some()
                    || grant.refusal.is_some()
                    || view.in_doubt.iter().any(|open| open.grant == grant.grant)
            })
        });
        if !told {
            return Err(format!("the newest token of approval {approval} is nowhere"));
        }
    }
    if unknown_approvals > doubtful_exchanges {
        return Err(format!(
            "{unknown_approvals} approvals are not in the journal, {doubtful_exchanges} exchanges in doubt"
        ));
    }
    Ok(())
}

/// A spent token is presented within a verified window; else once, when every access token that came
/// before has lapsed.
fn no_spent_token_was_presented_outside_its_window(
    _: &World,
    service: &Service,
    _: &[AccountView],
) -> Result<(), String> {
    let seen = service.provider.seen();
    let mut outside: BTreeMap<&str, u32> = BTreeMap::new();
    for (token, at_ms, within) in &seen.spent {
        if *within {
            continue;
        }
        *outside.entry(token).or_default() += 1;
        let approval = seen.issued.iter().find(|(_, tokens)| tokens.contains(token));
        let (approval, tokens) = approval.ok_or("a token that was never issued was presented")?;
        let known: Vec<_> = tokens.iter().take_while(|known| *known != token).collect();
        let access = &seen.access[approval];
        // The access tokens that came with it and before.
        let before = access.iter().take(known.len() + 1);
        if before.clone().any(|(_, lapses_ms)| lapses_ms > at_ms) {
            return Err(format!(
                "a spent token of approval {approval} was presented while an access token works"
            ));
        }
    }
    match outside.into_iter().find(|(_, times)| *times > 1) {
        Some((token, times)) => Err(format!("spent {token} was presented {times} times")),
        None => Ok(()),
    }
}

/// Nothing that we did killed a living held grant.
fn nobody_who_is_held_was_killed(
    world: &World,
    service: &Service,
    views: &[AccountView],
) -> Result<(), String> {
    let outside = world.outside.lock().unwrap();
    let seen = service.provider.seen();
    let known = fingerprints(views);
    for (approval, words) in &seen.killed {
        let newest = seen.issued.get(approval).and_then(|tokens| tokens.last());
        let reachable = newest.is_some_and(|token| known.contains(&print(service, token)));
        // The successor of a lost answer is nobody's, and cannot be killed for anybody.
        if !reachable {
            continue;
        }
        let now_ms = world.clock.true_ms();
        for (key, row) in outside.rows.iter().filter(|(_, row)| row.approval == *approval) {
            let (tenant, name) = key.split_once('/').ok_or("a holder's key")?;
            let holder = service.broker.holder_tag(&Holder::new(tenant, name).unwrap());
            let lives = views.iter().flat_map(|view| &view.grants).any(|grant| {
                grant.end.is_none() && grant.holders.iter().any(|held| held.holder_tag == holder)
            });
            let _ = (row, now_ms);
            if !lives {
                return Err(format!("approval {approval} of {key} was killed: {words}"));
            }
        }
    }
    Ok(())
}

/// No pair that was handed out is unknown after a crash.
fn what_was_handed_out_is_known(world: &World, views: &[AccountView]) -> Result<(), String> {
    let newest: BTreeMap<_, _> = views
        .iter()
        .flat_map(|view| &view.grants)
        .map(|grant| (grant.grant, (grant.generation.0, grant.end.is_some())))
        .collect();
    for handed in &world.outside.lock().unwrap().handed {
        match newest.get(&handed.grant) {
            Some((generation, ended)) if *ended || *generation >= handed.generation => {}
            other => {
                return Err(format!(
                    "generation {} of grant {} of {} was handed out, and the journal has {other:?}",
                    handed.generation, handed.grant, handed.account
                ));
            }
        }
    }
    Ok(())
}

fn codes_were_presented_once(world: &World) -> Result<(), String> {
    let seen = world.provider.seen();
    match seen.codes.iter().find(|(_, times)| **times > 1) {
        Some((code, times)) => Err(format!("{code} was presented {times} times")),
        None => Ok(()),
    }
}

/// A crash between the business commit and anything of ours loses no held grant.
fn rows_are_held(world: &World, service: &Service, views: &[AccountView]) -> Result<(), String> {
    let outside = world.outside.lock().unwrap();
    for (key, row) in &outside.rows {
        let (tenant, name) = key.split_once('/').ok_or("a holder's key")?;
        let holder = service.broker.holder_tag(&Holder::new(tenant, name).unwrap());
        // By whatever it was superseded, and also where that has ended since.
        let held = views
            .iter()
            .flat_map(|view| &view.grants)
            .any(|grant| grant.holders.iter().any(|held| held.holder_tag == holder));
        let ended = views
            .iter()
            .flat_map(|view| &view.grants)
            .any(|grant| grant.grant == row.grant && grant.end.is_some());
        if !held && !ended {
            return Err(format!("the row of {key} on grant {} is held by nothing", row.grant));
        }
    }
    Ok(())
}

fn fingerprints(views: &[AccountView]) -> BTreeSet<tokenwal::Fingerprint> {
    let grants = views.iter().flat_map(|view| &view.grants);
    grants.map(|grant| grant.refresh_fingerprint).collect()
}

fn print(service: &Service, token: &str) -> tokenwal::Fingerprint {
    use tokenwal::ledger::Ledger as _;
    service.journal.fingerprint(&Secret::new(token.to_owned()))
}
