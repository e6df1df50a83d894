//! Users come back, once, twice, late, as somebody else, or not at all.

use super::world::{CALLBACK, ROTATING, SCOPES, STEADY, Setup, holder};
use std::time::Duration;
use tokenwal::Remedy;
use tokenwal::broker::{BrokerError, CallbackFault, Status, Step, Why};
use tokenwal::sandbox::{Fault, Injection, On};

#[tokio::test]
async fn a_click_costs_no_sync_and_becomes_a_grant() {
    let world = Setup::new(ROTATING).start().await;
    let mut life = world.live();
    let crm = holder("crm");
    let before = life.journal.head();
    let (query, cookie) = world.click(&life, &world.asks(&crm), "alice").await;
    assert_eq!(life.journal.head(), before, "a click is not recorded");
    let connected = life.broker.callback(&query, &cookie).await.unwrap();
    let account = world.account("alice");
    assert_eq!(connected.account, life.journal.tag_of(&account));
    assert_eq!(connected.user, world.sandbox.user("alice"));
    assert_eq!((connected.generation.0, &connected.holder), (1, &crm));
    assert_eq!(connected.scopes, SCOPES);
    assert!(!connected.different_user && !connected.over_cap);
    assert_eq!(life.heard(), ["issued"]);
    let health = life.broker.health(&account).await.unwrap();
    assert_eq!((health.status, health.usage.live, health.usage.orphans), (Status::Ok, 1, 1));
    let pair = life.token(&account).await.unwrap();
    assert!(world.works(&pair).await && pair.expires_at_ms().is_some());
    assert_eq!((world.counters().exchanges, world.counters().refreshes), (1, 0));
    world.nothing_is_lost(&life).await;
    life.end().await;
}

#[tokio::test]
async fn what_does_not_belong_to_its_cookie_presents_no_code() {
    let setup = Setup::new(STEADY).config(|config| config.issuer("https://issuer.example"));
    let world = setup.start().await;
    let other = Setup::new(STEADY).start().await;
    let (life, other_life) = (world.live(), other.live());
    let crm = holder("crm");
    let (query, cookie) = world.click(&life, &world.asks(&crm), "alice").await;
    let (_, other_cookie) = world.click(&life, &world.asks(&crm), "alice").await;
    let (_, foreign) = other.click(&other_life, &other.asks(&crm), "alice").await;
    let state = query.split("state=").nth(1).unwrap();
    let mut forged = cookie.clone().into_bytes();
    forged[40] = if forged[40] == b'A' { b'B' } else { b'A' };
    let forged = String::from_utf8(forged).unwrap();
    let head = life.journal.head();
    for (query, cookie, expected) in [
        (query.clone(), other_cookie, CallbackFault::State),
        (query.replace("state=", "estate="), cookie.clone(), CallbackFault::State),
        (format!("{query}&iss=https%3A%2F%2Fevil.example"), cookie.clone(), CallbackFault::Issuer),
        (query.clone(), forged, CallbackFault::Cookie),
        (query.clone(), foreign, CallbackFault::Cookie),
        (query.clone(), "A".repeat(5000), CallbackFault::Cookie),
        (query.clone(), String::new(), CallbackFault::Cookie),
        (format!("state={state}"), cookie.clone(), CallbackFault::NoCode),
        (format!("{query}&code=another"), cookie.clone(), CallbackFault::Twice),
    ] {
        let error = life.broker.callback(&query, &cookie).await.unwrap_err();
        assert!(matches!(&error, BrokerError::Callback(f) if *f == expected), "{error}: {query}");
        assert_eq!(error.remedy(), Remedy::FixCall);
        assert!(!format!("{error:?}").contains("aPrx"), "a code is shown");
    }
    let denied = format!("state={state}&error=access_denied&error_description=end+user+denied");
    let error = life.broker.callback(&denied, &cookie).await.unwrap_err();
    let BrokerError::Denied { error, description } = error else { panic!("{error}") };
    assert_eq!((error.as_str(), description.as_str()), ("access_denied", "end user denied"));
    // Nobody's error counts unless the state is ours.
    let error = life.broker.callback("state=x&error=access_denied", &cookie).await.unwrap_err();
    assert!(matches!(error, BrokerError::Callback(CallbackFault::State)));
    assert_eq!(life.journal.head(), head, "nothing was recorded");
    assert_eq!((world.counters().exchanges, world.counters().refused), (0, 0));
    // The cookie still is what it was for: the one who came by it is let in.
    let named = format!("{query}&iss=https%3A%2F%2Fissuer.example");
    life.broker.callback(&named, &cookie).await.unwrap();
}

#[tokio::test]
async fn a_provider_that_names_itself_must() {
    let names = format!(
        "{STEADY}\n[iss_parameter]\nvalue = true\nstatus = \"verified\"\n\
         source = \"a test\"\non = \"2026-01-01\"\n"
    );
    let setup = Setup::new(&names).config(|config| config.issuer("https://issuer.example"));
    let world = setup.start().await;
    let life = world.live();
    let (query, cookie) = world.click(&life, &world.asks(&holder("crm")), "alice").await;
    let unnamed = query.split("&iss=").next().unwrap();
    let error = life.broker.callback(unnamed, &cookie).await.unwrap_err();
    assert!(matches!(error, BrokerError::Callback(CallbackFault::Issuer)), "{error}");
    assert_eq!(world.counters().exchanges, 0);
}

#[tokio::test]
async fn a_cookie_expires_for_those_who_never_came_back() {
    let world =
        Setup::new(STEADY).sandbox(|sandbox| sandbox.code_lifetime(Duration::from_secs(9000)));
    let world = world.start().await;
    let life = world.live();
    let crm = holder("crm");
    let (early, early_cookie) = world.click(&life, &world.asks(&crm), "alice").await;
    let (late, late_cookie) = world.click(&life, &world.asks(&crm), "bob").await;
    let first = life.broker.callback(&early, &early_cookie).await.unwrap();
    world.clock.advance(Duration::from_secs(901));
    let error = life.broker.callback(&late, &late_cookie).await.unwrap_err();
    assert!(matches!(error, BrokerError::Callback(CallbackFault::Expired)), "{error}");
    // What was exchanged in time is told later as well.
    let again = life.broker.callback(&early, &early_cookie).await.unwrap();
    assert_eq!(again, first);
    assert_eq!(world.counters().exchanges, 1);
}

#[tokio::test]
async fn a_callback_delivered_twice_gets_the_first_result() {
    let world = Setup::new(ROTATING).sandbox(|sandbox| sandbox.code_reuse_revokes(true));
    let world = world.start().await;
    let life = world.live();
    let crm = holder("crm");
    let slow = Fault::DelayAfterCommit(Duration::from_millis(50));
    world.sandbox.inject(Injection::new(slow, On::Exchange));
    let (query, cookie) = world.click(&life, &world.asks(&crm), "alice").await;
    let callback = || life.broker.callback(&query, &cookie);
    let (one, two, three) = tokio::join!(callback(), callback(), callback());
    let first = one.unwrap();
    assert_eq!((&two.unwrap(), &three.unwrap()), (&first, &first));
    assert_eq!(callback().await.unwrap(), first);
    life.end().await;
    let life = world.live();
    assert_eq!(life.broker.callback(&query, &cookie).await.unwrap(), first, "after a restart");
    // Also after everything that can be forgotten is.
    life.journal.compact().await.unwrap();
    life.end().await;
    let life = world.live();
    let again = life.broker.callback(&query, &cookie).await;
    match again {
        Ok(again) => assert_eq!(again, first),
        Err(error) => {
            assert!(matches!(error, BrokerError::Callback(CallbackFault::Expired)), "{error}");
        }
    }
    assert_eq!((world.counters().exchanges, world.counters().refused), (1, 0));
    world.nothing_is_lost(&life).await;
}

#[tokio::test]
async fn an_exchange_in_doubt_is_never_presented_again() {
    let world = Setup::new(STEADY).sandbox(|sandbox| sandbox.code_reuse_revokes(true));
    let world = world.start().await;
    let mut life = world.live();
    world.sandbox.inject(Injection::new(Fault::DropAfterCommit, On::Exchange));
    let asked = world.asks(&holder("crm")).user(&world.sandbox.user("alice").unwrap());
    let (query, cookie) = world.click(&life, &asked, "alice").await;
    let error = life.broker.callback(&query, &cookie).await.unwrap_err();
    let BrokerError::InDoubt { account, op, .. } = error else { panic!("{error}") };
    assert_eq!(life.heard(), ["in_doubt"]);
    for restart in [false, true] {
        if restart {
            life.end().await;
            life = world.live();
        }
        let error = life.broker.callback(&query, &cookie).await.unwrap_err();
        assert!(matches!(error, BrokerError::InDoubt { op: again, .. } if again == op), "{error}");
    }
    let steps = life.broker.steps(account).await.unwrap();
    assert_eq!(steps.len(), 1);
    assert_eq!(steps[0].1, Step::Ask(Why::CodeOnce));
    assert_eq!((world.counters().exchanges, world.counters().refused), (1, 0));
    world.nothing_is_lost(&life).await;
}

#[tokio::test]
async fn whoever_signs_in_as_somebody_else_keeps_their_pair() {
    let world = Setup::new(STEADY).start().await;
    let mut life = world.live();
    world.sandbox.sign_in_as(Some("bob"));
    let connected = world.connect(&life, "alice", &holder("crm")).await.unwrap();
    assert!(connected.different_user);
    assert_eq!(connected.user, world.sandbox.user("bob"));
    assert_eq!(life.heard(), ["issued", "different_user"]);
    assert!(life.token(&world.account("bob")).await.is_ok());
    assert!(life.token(&world.account("alice")).await.is_err());
    world.nothing_is_lost(&life).await;
}

#[tokio::test]
async fn the_same_refresh_token_is_the_same_grant() {
    let world = Setup::new(STEADY).sandbox(|sandbox| sandbox.same_refresh_on_reconsent(true));
    let world = world.start().await;
    let life = world.live();
    let first = world.adopted(&life, "alice", &holder("crm")).await;
    let second = world.connect(&life, "alice", &holder("erp")).await.unwrap();
    assert_eq!((second.grant, second.generation.0), (first.grant, 2));
    let account = world.account("alice");
    assert_eq!(life.grant(&account).await.holders.len(), 1);
    // Nobody's twin is revoked: there is none.
    life.broker.disconnect(&holder("erp")).await.unwrap();
    assert!(world.works(&life.token(&account).await.unwrap()).await);
    assert_eq!((world.counters().exchanges, world.counters().revocations), (2, 0));
    world.nothing_is_lost(&life).await;
}

#[tokio::test]
async fn an_answer_without_a_refresh_token_is_kept_and_not_refreshed() {
    let world = Setup::new(STEADY).start().await;
    let life = world.live();
    world.sandbox.inject(Injection::new(Fault::OmitRefreshToken, On::Exchange));
    world.connect(&life, "alice", &holder("crm")).await.unwrap();
    let account = world.account("alice");
    assert!(!life.grant(&account).await.has_refresh_token);
    assert!(world.works(&life.token(&account).await.unwrap()).await);
    world.lapse();
    let error = life.token(&account).await.unwrap_err();
    assert!(matches!(error, BrokerError::NeedsAuthorization { .. }), "{error}");
    let health = life.broker.health(&account).await.unwrap();
    assert_eq!(health.status, Status::NeedsAuthorization);
    assert_eq!(world.counters().refused, 0);
}

#[tokio::test]
async fn an_app_that_is_not_configured_is_not_guessed() {
    let world = Setup::new(STEADY).start().await;
    let life = world.live();
    let stranger = tokenwal::App::new("salesforce", "another").unwrap();
    let asked = tokenwal::broker::Authorize::new(&stranger, &holder("crm"), SCOPES);
    let error = life.broker.authorize(&asked).unwrap_err();
    assert!(matches!(error, BrokerError::UnknownApp { .. }), "{error}");
    let asked =
        world.asks(&holder("crm")).redirect_uri(&format!("{CALLBACK}/{}", "x".repeat(9000)));
    assert!(matches!(life.broker.authorize(&asked), Err(BrokerError::Choice { .. })));
    let sent = life.broker.authorize(&world.asks(&holder("crm"))).unwrap();
    assert!(!format!("{sent:?}").contains(sent.cookie.reveal()), "the cookie is shown");
}
