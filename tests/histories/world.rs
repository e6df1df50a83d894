//! One history: lives of a process on one machine, one provider, one database.

use super::check;
use super::clock::HistoryClock;
use super::provider::Provider;
use super::service::{Outside, Service};
use super::stepper::Stepper;
use crate::sim::{Moment, Rng, SimDisk, SimEntropy};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokenwal::broker::{AppConfig, AtCap, Broker, Upstream};
use tokenwal::profile::Profile;
use tokenwal::{App, Drive, FixedKeys, Journal, Options};
use tokio::runtime::Runtime;

/// Providers as they differ.
const PROFILES: [&str; 7] = [
    // No rotation, three approvals at most, declared lifetimes.
    r#"
    name = "steady"
    extends = "salesforce"
    [rotation]
    value = "never"
    [cap]
    number = 3
    guard = 3
    counts = "refresh_tokens"
    per = "user_app"
    overflow = "oldest_revoked"
    outside = 0
    "#,
    // Rotation, reuse kills, no window.
    r#"
    name = "strict"
    extends = "salesforce"
    [rotation]
    value = "always"
    [cap]
    number = 3
    guard = 3
    counts = "refresh_tokens"
    per = "user_app"
    overflow = "oldest_revoked"
    outside = 0
    "#,
    // The same, and nobody can be asked about a token; lifetimes are declared.
    r#"
    name = "silent"
    extends = "salesforce"
    [rotation]
    value = "always"
    [introspection]
    value = "no"
    [expiry]
    from = "declared"
    access_seconds = 3600
    "#,
    // Rotation with a window for the old token.
    r#"
    name = "replay"
    extends = "salesforce"
    [rotation]
    value = "always"
    [recovery]
    kind = "replay"
    seconds = 1800
    [cap]
    number = 4
    guard = 3
    counts = "refresh_tokens"
    per = "user_app"
    overflow = "oldest_revoked"
    outside = 0
    "#,
    // The old token works until the new one is used.
    r#"
    name = "until-used"
    extends = "salesforce"
    [rotation]
    value = "always"
    [recovery]
    kind = "until_successor_used"
    max_seconds = 86400
    "#,
    // The same answer again, for a while.
    r#"
    name = "idempotent"
    extends = "salesforce"
    [rotation]
    value = "always"
    [recovery]
    kind = "idempotent"
    seconds = 120
    [introspection]
    value = "no"
    "#,
    // The same refresh token for whoever approves again.
    r#"
    name = "same-again"
    extends = "salesforce"
    [rotation]
    value = "never"
    [same_refresh_on_reconsent]
    value = true
    "#,
];

/// What happened, so that a history in which nothing does is noticed.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Tally {
    pub histories: u64,
    pub lives: u64,
    pub crashes: u64,
    pub power_cuts: u64,
    pub clock_steps: u64,
    pub calls: u64,
    pub connected: u64,
    pub rolled_back: u64,
    pub reused: u64,
    pub tokens: u64,
    pub left: u64,
    pub refused: u64,
    pub spent_within: u64,
    pub evictions: u64,
    pub over_cap: u64,
    pub asked: u64,
    pub redelivered: u64,
    pub lost_successors: u64,
}

impl Tally {
    pub fn add(&mut self, other: &Self) {
        let Self {
            histories,
            lives,
            crashes,
            power_cuts,
            clock_steps,
            calls,
            connected,
            rolled_back,
            reused,
            tokens,
            left,
            refused,
            spent_within,
            evictions,
            over_cap,
            asked,
            redelivered,
            lost_successors,
        } = other;
        self.histories += histories;
        self.lives += lives;
        self.crashes += crashes;
        self.power_cuts += power_cuts;
        self.clock_steps += clock_steps;
        self.calls += calls;
        self.connected += connected;
        self.rolled_back += rolled_back;
        self.reused += reused;
        self.tokens += tokens;
        self.left += left;
        self.refused += refused;
        self.spent_within += spent_within;
        self.evictions += evictions;
        self.over_cap += over_cap;
        self.asked += asked;
        self.redelivered += redelivered;
        self.lost_successors += lost_successors;
    }

    pub fn assert_everything_happened(&self) {
        for (what, count) in [
            ("crashes", self.crashes),
            ("power cuts", self.power_cuts),
            ("clock steps", self.clock_steps),
            ("connections", self.connected),
            ("roll-backs", self.rolled_back),
            ("reused grants", self.reused),
            ("tokens", self.tokens),
            ("callers who left", self.left),
            ("refusals", self.refused),
            ("spent tokens within a window", self.spent_within),
            ("blind evictions", self.evictions),
            ("operations that wait for a person", self.asked),
            ("redelivered callbacks", self.redelivered),
            ("lost successors", self.lost_successors),
        ] {
            assert!(count > 0, "no {what} in {} histories", self.histories);
        }
    }
}

pub struct World {
    pub rng: Rng,
    pub disk: SimDisk,
    pub clock: Arc<HistoryClock>,
    pub provider: Arc<Provider>,
    pub outside: Arc<Mutex<Outside>>,
    pub entropy: Arc<SimEntropy>,
    pub now_ms: u64,
    pub tally: Tally,
    pub loud: bool,
}

/// How a life ended.
enum Ended {
    Quietly,
    Crashed,
}

impl World {
    pub fn run(seed: u64) -> Result<Tally, String> {
        let mut rng = Rng::new(seed ^ 0x0051_7cc1_b727_220a);
        let clock = Arc::new(HistoryClock::new());
        let profile =
            Profile::from_toml(rng.pick::<&str>(&PROFILES)).map_err(|error| error.to_string())?;
        let provider = Provider::new(profile, Arc::clone(&clock), rng.next());
        let mut world = Self {
            disk: SimDisk::new(rng.next()),
            clock,
            provider,
            outside: Arc::default(),
            entropy: Arc::new(SimEntropy::new(rng.next())),
            now_ms: 1_750_000_000_000,
            tally: Tally { histories: 1, ..Tally::default() },
            loud: std::env::var_os("HISTORY").is_some(),
            rng,
        };
        if world.loud {
            println!("profile {}", world.provider.profile.name());
        }
        let lives = 1 + world.rng.below(4);
        for _ in 0..lives {
            world.life(false)?;
        }
        // Nothing goes wrong any more, and there is time.
        world.life(true)?;
        world.finish()
    }

    fn options(&self) -> Options {
        Options::new(FixedKeys::new([7; 32], []))
            .segment_bytes(4096 * 40)
            .batch_bytes_max(4 * 4096)
            .outcome_bytes_max(4096)
            .drive(Drive::Manual)
            .disk(Arc::new(self.disk.clone()))
            .clock(self.clock.clone())
            .entropy(self.entropy.clone())
    }

    fn life(&mut self, last: bool) -> Result<(), String> {
        self.tally.lives += 1;
        let crashes = !last && self.rng.chance(70);
        if crashes && self.rng.chance(60) {
            let moments = [Moment::Before, Moment::Inside, Moment::After];
            let moment = *self.rng.pick(&moments);
            self.disk.crash_at(self.rng.below(160), moment);
        } else if crashes {
            self.provider.end_at(Some(self.rng.below(50)));
        }
        let faults = if last { 0 } else { *self.rng.pick(&[0, 10, 30, 60]) };
        self.provider.set_faults(faults);
        if last {
            self.clock.set_right();
        }
        let stepper = Stepper::new(self.rng.fork());
        let idle = Arc::clone(&stepper);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .on_thread_park(move || idle.idle())
            .build()
            .map_err(|error| error.to_string())?;
        let ended = self.live(&runtime, &stepper, last);
        stepper.drive(None);
        self.now_ms = {
            let _inside = runtime.enter();
            self.clock.true_ms()
        };
        // All that was on its way is cut.
        drop(runtime);
        if self.loud {
            let how = match &ended {
                Ok(Ended::Quietly) => "closed",
                Ok(Ended::Crashed) => "crashed",
                Err(_) => "failed",
            };
            println!("--- life {} {how}", self.tally.lives);
        }
        self.provider.end_at(None);
        self.outside.lock().unwrap().busy.clear();
        match ended? {
            Ended::Quietly => self.disk.disarm(),
            Ended::Crashed => {
                self.tally.crashes += 1;
                self.disk = if self.rng.chance(50) {
                    self.tally.power_cuts += 1;
                    self.disk.power_cut(&mut self.rng)
                } else {
                    self.disk.process_death()
                };
            }
        }
        self.disk.disarm();
        let violations = std::mem::take(&mut self.outside.lock().unwrap().violations);
        match violations.into_iter().next() {
            Some(violation) => Err(violation),
            None => Ok(()),
        }
    }

    fn live(&mut self, runtime: &Runtime, stepper: &Stepper, last: bool) -> Result<Ended, String> {
        runtime.block_on(async {
            self.clock.begin_life(self.now_ms);
            self.provider.begin_life();
            let journal = match self.options().open_or_create("/simulated") {
                Ok((journal, _)) => journal,
                Err(_) if self.disk.has_crashed() => return Ok(Ended::Crashed),
                Err(error) => return Err(format!("the journal does not open: {error:?}")),
            };
            stepper.drive(Some(journal.clone()));
            let service = self.service(&journal);
            let provider = Arc::clone(&self.provider);
            let disk = self.disk.clone();
            let end = tokio::select! {
                biased;
                () = provider.end.notified() => Ended::Crashed,
                stopped = stepper.run() => match disk.has_crashed() {
                    true => Ended::Crashed,
                    false => return Err(format!("the journal stopped: {stopped:?}")),
                },
                lived = self.play(&service, last) => {
                    lived?;
                    Ended::Quietly
                }
            };
            if matches!(end, Ended::Quietly) {
                if last {
                    check::at_rest(self, &service).await?;
                }
                // What is not done by then is left in doubt.
                let patience = Duration::from_millis(self.rng.below(80_000));
                service.broker.shutdown(patience).await;
                stepper.drive(None);
                return match journal.close().await {
                    Ok(()) => Ok(Ended::Quietly),
                    Err(_) if self.disk.has_crashed() => Ok(Ended::Crashed),
                    Err(error) => Err(format!("closing failed: {error:?}")),
                };
            }
            Ok(end)
        })
    }

    fn service(&mut self, journal: &Journal) -> Service {
        let app = App::new("simulated", "client").unwrap();
        let upstream: Arc<dyn Upstream> = self.provider.clone();
        let policies = [AtCap::Refuse, AtCap::Refuse, AtCap::Refuse];
        let config = AppConfig::new(app.clone(), upstream, self.provider.profile.clone())
            .redirect_uri("https://service.example/callback")
            .at_cap(*self.rng.pick(&policies))
            .assumed_lifetime(Duration::from_secs(2 * 3600));
        let broker =
            Broker::builder(journal.clone()).app(config).entropy(self.entropy.clone()).build();
        Service {
            app,
            broker,
            journal: journal.clone(),
            provider: Arc::clone(&self.provider),
            outside: Arc::clone(&self.outside),
            loud: self.loud,
        }
    }

    /// Callers come and go, and time passes.
    async fn play(&mut self, service: &Service, last: bool) -> Result<(), String> {
        service.reconcile().await.map_err(|error| format!("reconciling failed: {error}"))?;
        if last {
            // Time for every window, deadline and margin to pass, and for what was left to be seen to.
            for _ in 0..8 {
                tokio::time::sleep(Duration::from_secs(1800)).await;
                self.provider.catch_up();
            }
            return Ok(());
        }
        let actions = 4 + self.rng.below(24);
        let mut tasks = Vec::new();
        for _ in 0..actions {
            let rng = self.rng.fork();
            let service = service.clone();
            let pick = self.rng.below(100);
            if pick < 6 {
                self.tally.clock_steps += 1;
                let by_ms = i64::try_from(self.rng.below(7_200_000)).unwrap() - 3_600_000;
                self.clock.step(by_ms);
                continue;
            }
            if pick < 8 {
                self.tally.redelivered += 1;
            }
            tasks.push(tokio::spawn(async move {
                match pick {
                    0..8 => service.redeliver(rng).await,
                    8..40 => service.connect(rng).await,
                    40..90 => service.work(rng).await,
                    90..95 => service.disconnect(rng).await,
                    _ => {
                        let _ = service.journal.compact().await;
                    }
                }
            }));
            let pause_ms = match self.rng.below(10) {
                0..5 => self.rng.below(500),
                5..8 => self.rng.below(60_000),
                _ => self.rng.below(3 * 3_600_000),
            };
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
            self.provider.catch_up();
        }
        if self.rng.chance(60) {
            for task in tasks {
                let _ = task.await;
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Tally, String> {
        let outside = self.outside.lock().unwrap();
        let seen = self.provider.seen();
        self.tally.calls = seen.calls;
        self.tally.connected = outside.connected;
        self.tally.rolled_back = outside.rolled_back;
        self.tally.reused = outside.reused;
        self.tally.tokens = outside.tokens;
        self.tally.left = outside.left;
        self.tally.refused = outside.refused;
        self.tally.over_cap = outside.over_cap;
        let within = seen.spent.iter().filter(|(_, _, within)| *within).count();
        self.tally.spent_within = u64::try_from(within).unwrap();
        self.tally.evictions = self.provider.model.lock().unwrap().counters().evictions;
        drop(seen);
        drop(outside);
        Ok(self.tally.clone())
    }
}
