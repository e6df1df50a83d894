//! What a provider is asked besides for a code's or a refresh token's pair: whose a pair is, what
//! approvals live, for a pair in the app's own name, and once more within a recovery window.

use super::world::{ROTATING, STEADY, Setup, holder};
use std::time::Duration;
use tokenwal::broker::{Event, Status, Step};
use tokenwal::provider::Mint;
use tokenwal::sandbox::{Fault, Injection, On};
use tokenwal::{Account, User};

/// No answer names its user; the provider tells it to whoever has the access token.
fn nameless() -> String {
    format!(
        "{STEADY}[refresh_may_omit_refresh]\nvalue = true\n[approvals]\nstatus = \"unknown\"\n\
         [identity]\nfrom = \"look_up\"\nurl = \"https://{{host}}/userinfo\"\npointer = \"/sub\"\n"
    )
}

#[tokio::test]
async fn a_user_whom_no_answer_names_is_asked_for() {
    let world = Setup::new(&nameless()).start().await;
    let mut life = world.live();
    let (query, cookie) = world.click(&life, &world.asks(&holder("crm")), "alice").await;
    let connected = life.broker.callback(&query, &cookie).await.unwrap();
    let account = world.account("alice");
    assert_eq!(connected.account, life.journal.tag_of(&account));
    life.hear(|event| matches!(event, Event::Identified { .. })).await;
    let pair = life.token(&account).await.unwrap();
    assert!(world.works(&pair).await);
    // The same user once more is the same account, and another is another.
    for user in ["alice", "bob"] {
        let (query, cookie) = world.click(&life, &world.asks(&holder("erp")), user).await;
        let connected = life.broker.callback(&query, &cookie).await.unwrap();
        assert_eq!(connected.account, life.journal.tag_of(&world.account(user)));
    }
    assert_eq!(life.view(&account).await.grants.len(), 2);
    world.nothing_is_lost(&life).await;
}

#[tokio::test]
async fn the_provider_s_list_is_shown_and_nothing_follows_from_it() {
    let world = Setup::new(STEADY).start().await;
    let life = world.live();
    world.adopted(&life, "alice", &holder("crm")).await;
    world.connect(&life, "alice", &holder("erp")).await.unwrap();
    world.adopted(&life, "bob", &holder("crm")).await;
    let account = world.account("alice");
    let before = life.view(&account).await;
    let listed = life.broker.approvals(&account).await.unwrap().expect("Salesforce has a list");
    assert_eq!(listed.len(), 2, "{listed:?}");
    let pair = life.token(&account).await.unwrap();
    let secrets = [pair.access_token(), pair.refresh_token().unwrap()];
    let shown = format!("{listed:?} {}", serde_json::to_string(&listed).unwrap());
    assert!(secrets.iter().all(|secret| !shown.contains(secret.reveal())));
    assert_eq!(life.view(&account).await, before);
    // One that has no list is no error.
    let world = Setup::new(&nameless()).start().await;
    let life = world.live();
    world.adopted(&life, "alice", &holder("crm")).await;
    assert_eq!(life.broker.approvals(&world.account("alice")).await.unwrap(), None);
}

#[tokio::test]
async fn what_an_app_mints_for_itself_is_one_standing_grant() {
    let setup = Setup::hasty(&nameless())
        .config(|config| config.mints(true))
        .provider(|provider| provider.mint(Mint::ClientCredentials));
    let world = setup.start().await;
    let mut life = world.live();
    let account = Account::new(world.app.clone(), User::new("the app itself").unwrap());
    // An answer that is lost is asked for again: nothing dangles of it.
    world.sandbox.inject(Injection::new(Fault::DropAfterCommit, On::Mint));
    let first = life.broker.mint(&account, &["api"]).await.unwrap();
    life.hear(|event| matches!(event, Event::Resolved { .. })).await;
    assert_eq!(life.token(&account).await.unwrap().lsn(), first.lsn());
    assert!(world.works(&first).await);
    assert_eq!(world.counters().mints, 2);
    for round in 1..=3u32 {
        world.lapse();
        let callers: Vec<_> = (0..20)
            .map(|_| {
                let (broker, account) = (life.broker.clone(), account.clone());
                tokio::spawn(async move {
                    broker.access_token(&account, &["api"], Duration::ZERO).await.unwrap()
                })
            })
            .collect();
        for caller in callers {
            let pair = caller.await.unwrap();
            assert_eq!(pair.generation().0, first.generation().0 + round);
        }
        assert_eq!(world.counters().mints, 2 + u64::from(round));
    }
    let health = life.broker.health(&account).await.unwrap();
    assert_eq!((health.status, health.usage.in_doubt), (Status::Ok, 0));
    assert_eq!(life.grant(&account).await.grant, first.grant(), "a mint is a generation");
    // After a restart it is the same grant still.
    life.end().await;
    let life = world.live();
    world.lapse();
    let pair = life.token(&account).await.unwrap();
    assert_eq!(pair.grant(), first.grant());
    assert!(world.works(&pair).await);
}

#[tokio::test]
async fn within_a_verified_window_a_lost_refresh_is_sent_again_and_not_after_half_of_it() {
    let recovery = "[recovery]\nkind = \"replay\"\nseconds = 3600\nstatus = \"verified\"\n\
                    source = \"a test\"\non = \"2026-01-01\"\n";
    let profile = format!("{ROTATING}{recovery}");
    for (waits, again) in [(Duration::ZERO, true), (Duration::from_secs(1801), false)] {
        let setup = Setup { tends: again, ..Setup::hasty(&profile) };
        let world = setup.start().await;
        let life = world.live();
        let connected = world.adopted(&life, "alice", &holder("crm")).await;
        let account = world.account("alice");
        world.sandbox.inject(Injection::new(Fault::DropAfterCommit, On::Refresh));
        let refreshed = life.broker.refresh(&account, connected.grant).await;
        // Who waits for it need not ask again.
        assert_eq!(refreshed.is_ok(), again, "{refreshed:?}");
        life.end().await;
        world.clock.advance(waits);
        let life = world.live();
        if again {
            assert_eq!(life.grant(&account).await.generation.0, 2);
            assert!(world.works(&life.token(&account).await.unwrap()).await);
        } else {
            let steps = life.broker.steps(&account).await.unwrap();
            assert!(matches!(steps[..], [(_, Step::Probe | Step::Wait(_))]), "{steps:?}");
        }
        assert_eq!(world.counters().refreshes, if again { 2 } else { 1 });
        world.nothing_is_lost(&life).await;
    }
}
