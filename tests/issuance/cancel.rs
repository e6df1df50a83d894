//! Callers leave: each call's future is polled so many times and dropped, at every await point that
//! it has; and a whole process is cut, at any moment. No answer of the provider is lost by it: what
//! was issued is in the journal, or its operation is in doubt.

use super::world::{Life, ROTATING, Setup, World, holder, until};
use std::future::{Future, poll_fn};
use std::task::Poll;
use std::time::Duration;
use tokenwal::broker::{BrokerError, Choice, Connected};
use tokenwal::sandbox::{Fault, Injection, On};
use tokenwal::{Account, GrantState};

/// Polls a future so often and drops it then; gives its result if it was faster.
async fn polled<T>(times: usize, future: impl Future<Output = T>) -> Option<T> {
    let mut future = Box::pin(future);
    let mut left = times;
    poll_fn(move |context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(context) {
            Poll::Ready(value) => Poll::Ready(Some(value)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Does something for one user after another, and leaves at one await point later each time, until
/// it comes to its end by itself. `after` looks at each user once the service has been restarted.
async fn at_every_await_point<P>(
    setup: Setup,
    prepare: impl AsyncFn(&World, &Life, &str) -> P,
    act: impl AsyncFn(&World, &Life, &P),
    after: impl AsyncFn(&World, &Life, &P),
) {
    let world = setup.start().await;
    let life = world.live();
    let mut prepared = Vec::new();
    for polls in 0.. {
        assert!(polls < 200, "it never ends");
        let one = prepare(&world, &life, &format!("user-{polls}")).await;
        let ended = polled(polls, act(&world, &life, &one)).await.is_some();
        prepared.push(one);
        if ended {
            break;
        }
    }
    // How many there are is the scheduler's affair: what is waited for may be there at the next poll.
    assert!(prepared.len() > 1, "there was no await point to leave at");
    // What nobody waits for any more goes on.
    life.end().await;
    let life = world.live();
    world.nothing_is_lost(&life).await;
    for one in &prepared {
        after(&world, &life, one).await;
    }
    world.nothing_is_lost(&life).await;
    life.end().await;
}

/// A user whose token has lapsed.
async fn lapsed(world: &World, life: &Life, user: &str) -> Account {
    world.adopted(life, user, &holder(user)).await;
    world.lapse();
    world.account(user)
}

/// A user whose grant somebody depends on.
async fn adopted(world: &World, life: &Life, user: &str) -> (String, Connected) {
    let connected = world.adopted(life, user, &holder(user)).await;
    (user.to_owned(), connected)
}

/// A user whose grant nobody depends on yet.
async fn waiting(world: &World, life: &Life, user: &str) -> (String, Connected) {
    (user.to_owned(), world.connect(life, user, &holder(user)).await.unwrap())
}

/// Waits until the users before have met their faults, but for the first, who never began, and lets the
/// circuit forget them: it is none of these tests' affair.
async fn done_before(world: &World, user: &str) {
    let before: u64 = user.trim_start_matches("user-").parse().unwrap();
    let met = async || world.counters().faults >= before.saturating_sub(1);
    until("the users before have met their faults", met).await;
    world.pass(Duration::from_secs(1000)).await;
}

async fn clicked(world: &World, life: &Life, user: &str) -> (String, (String, String)) {
    let asked = world.asks(&holder(user)).user(&world.sandbox.user(user).unwrap());
    (user.to_owned(), world.click(life, &asked, user).await)
}

#[tokio::test]
async fn callback() {
    at_every_await_point(
        Setup::new(ROTATING).sandbox(|sandbox| sandbox.code_reuse_revokes(true)),
        clicked,
        async |_, life, (_, (query, cookie))| {
            life.broker.callback(query, cookie).await.unwrap();
        },
        async |world, life, (user, (query, cookie))| {
            // The browser tries again, and gets what came of it.
            let connected = life.broker.callback(query, cookie).await.unwrap();
            assert_eq!(connected.account, life.journal.tag_of(&world.account(user)));
            assert!(world.works(&life.token(&world.account(user)).await.unwrap()).await);
            assert_eq!(life.view(&world.account(user)).await.grants.len(), 1);
        },
    )
    .await;
}

#[tokio::test]
async fn callback_whose_answer_is_lost() {
    at_every_await_point(
        Setup::new(ROTATING).sandbox(|sandbox| sandbox.code_reuse_revokes(true)),
        async |world, life, user| {
            world.sandbox.inject(Injection::new(Fault::DropAfterCommit, On::Exchange));
            done_before(world, user).await;
            clicked(world, life, user).await
        },
        async |_, life, (_, (query, cookie))| {
            let error = life.broker.callback(query, cookie).await.unwrap_err();
            assert!(matches!(error, BrokerError::InDoubt { .. }), "{error}");
        },
        async |_, life, (_, (query, cookie))| {
            let error = life.broker.callback(query, cookie).await;
            let is_doubt = matches!(error, Err(BrokerError::InDoubt { .. }));
            // The one that was never polled has presented no code.
            let is_fresh = matches!(error, Err(BrokerError::Callback(_)) | Ok(_));
            assert!(is_doubt || is_fresh, "{error:?}");
        },
    )
    .await;
}

#[tokio::test]
async fn access_token() {
    at_every_await_point(
        Setup::new(ROTATING),
        lapsed,
        async |_, life, account| {
            life.token(account).await.unwrap();
        },
        async |world, life, account| {
            let pair = life.token(account).await.unwrap();
            assert!(pair.generation().0 >= 2 && world.works(&pair).await);
        },
    )
    .await;
}

#[tokio::test]
async fn access_token_whose_answer_is_lost() {
    at_every_await_point(
        Setup::new(ROTATING),
        async |world, life, user| {
            done_before(world, user).await;
            let account = lapsed(world, life, user).await;
            world.sandbox.inject(Injection::new(Fault::DropAfterCommit, On::Refresh));
            account
        },
        async |_, life, account| {
            let error = life.token(account).await.unwrap_err();
            assert!(matches!(error, BrokerError::InDoubt { .. }), "{error}");
        },
        async |_, life, account| {
            let view = life.view(account).await;
            assert!(view.in_doubt.len() <= 1, "{view:?}");
        },
    )
    .await;
}

#[tokio::test]
async fn refresh() {
    at_every_await_point(
        Setup::new(ROTATING),
        adopted,
        async |_, life, (_, connected)| {
            life.broker.refresh(connected.account, connected.grant).await.unwrap();
        },
        async |world, life, (user, _)| {
            let pair = life.token(&world.account(user)).await.unwrap();
            assert!(world.works(&pair).await);
        },
    )
    .await;
}

#[tokio::test]
async fn rejected() {
    at_every_await_point(
        Setup::new(ROTATING),
        async |world, life, user| {
            let account = world.account(user);
            world.adopted(life, user, &holder(user)).await;
            let pair = life.token(&account).await.unwrap();
            (account, pair)
        },
        async |_, life, (_, pair)| {
            life.broker.rejected(pair).await.unwrap();
        },
        async |world, life, (account, _)| {
            assert!(world.works(&life.token(account).await.unwrap()).await);
        },
    )
    .await;
}

#[tokio::test]
async fn worked() {
    at_every_await_point(
        Setup::new(ROTATING),
        async |world, life, user| {
            // There is an older grant whose holder moves.
            let account = world.account(user);
            world.adopted(life, user, &holder("crm")).await;
            world.adopted(life, user, &holder("erp")).await;
            let pair = life.token(&account).await.unwrap();
            (account, pair.grant())
        },
        async |_, life, (account, _)| {
            let pair = life.token(account).await.unwrap();
            life.broker.worked(&pair).await.unwrap();
        },
        async |_, life, (account, _)| {
            // Whatever was written, both are held, by one grant or by two.
            let view = life.view(account).await;
            let holders = view.grants.iter().flat_map(|grant| &grant.holders).count();
            assert_eq!(holders, 2, "{view:?}");
            let pair = life.token(account).await.unwrap();
            life.broker.worked(&pair).await.unwrap();
        },
    )
    .await;
}

#[tokio::test]
async fn adopt() {
    at_every_await_point(
        Setup::new(ROTATING),
        waiting,
        async |_, life, (user, connected)| {
            let Connected { account, grant, .. } = connected;
            life.broker.adopt(*account, *grant, &holder(user), &["api"]).await.unwrap();
        },
        async |world, life, (user, connected)| {
            let Connected { account, grant, .. } = connected;
            life.broker.adopt(*account, *grant, &holder(user), &["api"]).await.unwrap();
            assert_eq!(life.grant(&world.account(user)).await.holders.len(), 1);
        },
    )
    .await;
}

#[tokio::test]
async fn release() {
    at_every_await_point(
        Setup::new(ROTATING),
        adopted,
        async |_, life, (user, connected)| {
            let Connected { account, grant, .. } = connected;
            life.broker.release(*account, *grant, &holder(user)).await.unwrap();
        },
        async |world, life, (user, _)| {
            let grant = life.grant(&world.account(user)).await;
            assert!(matches!(grant.state, GrantState::Held | GrantState::Released), "{grant:?}");
        },
    )
    .await;
}

#[tokio::test]
async fn revoke() {
    at_every_await_point(
        Setup::new(ROTATING),
        adopted,
        async |_, life, (_, connected)| {
            life.broker.revoke(connected.account, connected.grant).await.unwrap();
        },
        async |world, life, (user, connected)| {
            if life.grant(&world.account(user)).await.end.is_none() {
                life.broker.revoke(connected.account, connected.grant).await.unwrap();
            }
            let state = world.sandbox.state();
            let theirs = state.users.iter().find(|known| known.name == *user).unwrap();
            assert_eq!(theirs.live, 0, "over here and alive there");
        },
    )
    .await;
}

#[tokio::test]
async fn disconnect() {
    at_every_await_point(
        Setup::new(ROTATING),
        adopted,
        async |_, life, (user, _)| {
            life.broker.disconnect(&holder(user)).await.unwrap();
        },
        async |world, life, (user, connected)| {
            // It may be done again, and is done then.
            life.broker.disconnect(&holder(user)).await.unwrap();
            let grant = life.grant(&world.account(user)).await;
            assert!(grant.holders.is_empty());
            if grant.end.is_none() {
                // Cut between release and revocation: it is listed.
                let orphans = life.broker.orphans().await.unwrap();
                assert!(orphans.iter().any(|(_, grant, _)| *grant == connected.grant));
            }
        },
    )
    .await;
}

#[tokio::test]
async fn resolve() {
    at_every_await_point(
        // Nobody but the person acts, and soon nothing can come late any more.
        Setup {
            deadline: Duration::from_millis(300),
            margin: Duration::from_millis(50),
            tends: false,
            ..Setup::new(ROTATING)
        },
        async |world, life, user| {
            let connected = world.adopted(life, user, &holder(user)).await;
            // The fault is for this user: those before are done, but for the first, who never began.
            let before: u64 = user.trim_start_matches("user-").parse().unwrap();
            let done = async || world.counters().refreshes >= before.saturating_sub(1);
            until("the users before are done", done).await;
            world.sandbox.inject(Injection::new(Fault::DropBeforeCommit, On::Refresh));
            let error = life.broker.refresh(connected.account, connected.grant).await.unwrap_err();
            let BrokerError::InDoubt { account, op, .. } = error else { panic!("{error}") };
            tokio::time::sleep(Duration::from_millis(400)).await;
            (account, op)
        },
        async |_, life, (account, op)| {
            life.broker.resolve(*account, *op, Choice::ByTheRules).await.unwrap();
        },
        async |world, life, (account, op)| {
            let open = life.broker.steps(*account).await.unwrap();
            if open.iter().any(|(open, _)| open.op == *op) {
                // The one that was never polled. What this process found it has to wait for anew.
                let resolved =
                    async || life.broker.resolve(*account, *op, Choice::ByTheRules).await.is_ok();
                until("it is sent again", resolved).await;
            }
            let view = life.journal.account(*account).await.unwrap().unwrap();
            assert!(view.in_doubt.is_empty(), "{view:?}");
            assert_eq!(view.grants[0].generation.0, 2);
            let pair = life.journal.current_of(*account, view.grants[0].grant).await.unwrap();
            assert!(world.is_alive(pair.unwrap().refresh_token()));
        },
    )
    .await;
}

/// Runs one process until a moment, and cuts it with all that is on its way.
fn cut_after<T: Send>(
    moment: Duration,
    live: impl Fn() -> Life + Sync,
    act: impl AsyncFn(&Life) -> T + Sync,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let life = runtime.block_on(async {
        let life = live();
        let _ = tokio::time::timeout(moment, act(&life)).await;
        life
    });
    // All tasks are dropped where they stand.
    drop(runtime);
    let _ = life.journal.blocking().close();
}

/// Cuts a process at moments from its start on, so that they fall on every part of what it does.
async fn at_every_moment(
    prepare: impl AsyncFn(&World, &Life, &str) -> (String, (String, String)),
    act: impl AsyncFn(&World, &Life, &(String, (String, String))) + Sync,
) {
    let setup = Setup::new(ROTATING).sandbox(|sandbox| sandbox.code_reuse_revokes(true));
    let world = setup.start().await;
    let (mut lost, mut had) = (0, 0);
    for step in 0..24 {
        let life = world.live();
        // The circuit is none of this test's, and neither is what was cut before.
        world.clock.advance(Duration::from_secs(1000));
        let prepared = prepare(&world, &life, &format!("user-{step}")).await;
        life.end().await;
        let slow = Fault::DelayBeforeCommit(Duration::from_millis(3));
        world.sandbox.inject(Injection::new(slow, On::Token));
        let moment = Duration::from_millis(step);
        tokio::task::block_in_place(|| {
            cut_after(moment, || world.live(), async |life| act(&world, life, &prepared).await);
        });
        // What reached the provider is carried out, whoever waits for it.
        tokio::time::sleep(Duration::from_millis(15)).await;
        let life = world.live();
        let view = life.journal.account(&world.account(&prepared.0)).await.unwrap();
        match view {
            Some(view) if !view.in_doubt.is_empty() => lost += 1,
            _ => had += 1,
        }
        world.nothing_is_lost(&life).await;
        life.end().await;
    }
    assert!(lost > 0 && had > 0, "the cuts hit nothing: {lost} in doubt, {had} not");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_cut_in_an_exchange() {
    at_every_moment(clicked, async |_, life, (_, (query, cookie))| {
        let _ = life.broker.callback(query, cookie).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_cut_in_a_refresh() {
    at_every_moment(
        async |world, life, user| {
            lapsed(world, life, user).await;
            (user.to_owned(), (String::new(), String::new()))
        },
        async |world, life, (user, _)| {
            let _ = life.token(&world.account(user)).await;
        },
    )
    .await;
}
