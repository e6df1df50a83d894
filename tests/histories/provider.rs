//! A provider for a history: the sandbox's model behind a network that loses, delays and garbles
//! what passes, and a process that may end at every message.

use super::clock::HistoryClock;
use crate::sim::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;
use tokenwal::broker::{Approval, Call, Code, Upstream, Which};
use tokenwal::profile::Profile;
use tokenwal::sandbox::model::{
    ApprovalState, Consent, Model, NewTokens, Recovery, Refused, Rules, Standing,
};
use tokenwal::{
    Action, Doubt, DoubtReason, Introspection, IssuedPair, NotSent, Outcome, Refusal, RefusalClass,
    TokenResponse, User,
};

/// What goes wrong with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    NotSent,
    LostOnTheWay,
    LostOnTheWayBack,
    /// Carried out long after the caller gave up.
    Late,
    /// Answered long after the caller gave up.
    Slow,
    Truncated,
    ServerError,
    TooManyRequests,
}

/// What the checks want to know.
#[derive(Debug, Default)]
pub struct Seen {
    /// A spent refresh token was presented: which, when, and whether that was within its window.
    pub spent: Vec<(String, u64, bool)>,
    /// Every refresh token that was issued, by approval, the newest last.
    pub issued: BTreeMap<usize, Vec<String>>,
    /// Access tokens, by approval, with when each lapses.
    pub access: BTreeMap<usize, Vec<(String, u64)>>,
    /// How many codes were presented, and which twice.
    pub codes: BTreeMap<String, u32>,
    /// Approvals that somebody depends on: committed rows.
    pub held: BTreeSet<usize>,
    /// Held approvals that ended by something that was presented, and the words for it.
    pub killed: Vec<(usize, String)>,
    /// Codes of users who were not known beforehand.
    pub blind: BTreeSet<String>,
    /// Whose approvals came by such codes: the guard cannot have kept a place for them.
    pub blind_approvals: BTreeMap<usize, String>,
    pub calls: u64,
    pub endings: usize,
}

pub struct Provider {
    pub model: Mutex<Model>,
    pub profile: Profile,
    pub clock: Arc<HistoryClock>,
    pub seen: Mutex<Seen>,
    rng: Mutex<Rng>,
    /// Of a hundred calls so many go wrong.
    faults: Mutex<u64>,
    late: Mutex<Vec<(u64, Request)>>,
    /// The process ends at this message, counted down.
    end_at: Mutex<Option<u64>>,
    pub ended: AtomicBool,
    pub end: tokio::sync::Notify,
    next_token: Mutex<u64>,
    loud: bool,
    me: Weak<Self>,
}

/// A request as the provider sees it.
#[derive(Debug, Clone)]
enum Request {
    Exchange { code: String },
    Refresh { token: String },
    Revoke { token: String },
    Introspect { token: String },
}

/// An answer: status and body.
type Answer = (u16, String);

impl Provider {
    pub fn new(profile: Profile, clock: Arc<HistoryClock>, seed: u64) -> Arc<Self> {
        let model = Model::new(Rules::from(&profile), "https://sim.example");
        Arc::new_cyclic(|me| Self {
            model: Mutex::new(model),
            profile,
            clock,
            seen: Mutex::default(),
            rng: Mutex::new(Rng::new(seed)),
            faults: Mutex::new(0),
            late: Mutex::default(),
            end_at: Mutex::new(None),
            ended: AtomicBool::new(false),
            end: tokio::sync::Notify::new(),
            next_token: Mutex::new(0),
            loud: std::env::var_os("HISTORY").is_some(),
            me: me.clone(),
        })
    }

    pub fn set_faults(&self, percent: u64) {
        *self.faults.lock().unwrap() = percent;
    }

    /// Lets the process end at its `number`-th message from now.
    pub fn end_at(&self, number: Option<u64>) {
        *self.end_at.lock().unwrap() = number;
        self.ended.store(false, Ordering::Relaxed);
    }

    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }

    /// Has a user approve, and returns the code.
    pub fn approve(&self, user: &str, number: u64) -> String {
        let code = format!("code-{number}");
        let now_ms = self.clock.true_ms();
        self.model.lock().unwrap().add_code(code.clone(), Consent::of(user), now_ms);
        code
    }

    /// Returns the user as the provider names them.
    pub fn user(&self, name: &str) -> User {
        let url = self.model.lock().unwrap().identity_of(name);
        tokenwal::salesforce_user(&url).expect("the sandbox names users as Salesforce does")
    }

    fn draw(&self) -> NewTokens {
        let mut next = self.next_token.lock().unwrap();
        *next += 1;
        NewTokens {
            access: format!("access-{next}-of-the-simulation"),
            refresh: Some(format!("refresh-{next}-of-the-simulation")),
        }
    }

    /// One message: the process may end here, and then nothing goes on.
    async fn message(&self) {
        let ends = {
            let mut end_at = self.end_at.lock().unwrap();
            match &mut *end_at {
                Some(0) => true,
                Some(left) => {
                    *left -= 1;
                    false
                }
                None => false,
            }
        };
        if ends {
            self.ended.store(true, Ordering::Relaxed);
            self.end.notify_one();
            std::future::pending::<()>().await;
        }
    }

    fn fault(&self) -> (Fault, Duration) {
        let percent = *self.faults.lock().unwrap();
        let mut rng = self.rng.lock().unwrap();
        let delay = Duration::from_millis(rng.below(400));
        if !rng.chance(percent) {
            return (Fault::None, delay);
        }
        let faults = [
            Fault::NotSent,
            Fault::LostOnTheWay,
            Fault::LostOnTheWayBack,
            Fault::LostOnTheWayBack,
            Fault::Late,
            Fault::Slow,
            Fault::Truncated,
            Fault::ServerError,
            Fault::TooManyRequests,
        ];
        (*rng.pick(&faults), delay)
    }

    /// Carries out what came late, by now.
    pub fn catch_up(&self) {
        let now_ms = self.clock.true_ms();
        let due = {
            let mut late = self.late.lock().unwrap();
            let (due, rest) = late.drain(..).partition(|(at_ms, _)| *at_ms <= now_ms);
            *late = rest;
            let due: Vec<(u64, Request)> = due;
            due
        };
        for (at_ms, request) in due {
            self.carry_out(&request, at_ms);
        }
    }

    /// Sees to it that what is late is carried out in its time. To be called as a life begins.
    pub fn begin_life(self: &Arc<Self>) {
        let late: Vec<u64> = self.late.lock().unwrap().iter().map(|(at_ms, _)| *at_ms).collect();
        late.into_iter().for_each(|at_ms| self.wake_at(at_ms));
    }

    fn wake_at(self: &Arc<Self>, at_ms: u64) {
        let wait = Duration::from_millis(at_ms.saturating_sub(self.clock.true_ms()));
        let provider = Arc::clone(self);
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            provider.catch_up();
        });
    }

    /// Answers a request, and notes what it did.
    fn carry_out(&self, request: &Request, now_ms: u64) -> Answer {
        let mut model = self.model.lock().unwrap();
        let answer = match request {
            Request::Exchange { code } => {
                *self.seen().codes.entry(code.clone()).or_default() += 1;
                let issued = model.exchange(code, None, None, self.draw(), now_ms);
                if let Ok(pair) = &issued
                    && self.seen().blind.contains(code)
                {
                    self.seen().blind_approvals.insert(pair.approval, pair.user.clone());
                }
                self.issued(&model, issued, now_ms)
            }
            Request::Refresh { token } => {
                let standing = model.standing(token, now_ms);
                if matches!(standing, Standing::InWindow | Standing::Spent) {
                    let has_window = !matches!(model.rules().recovery, Recovery::None);
                    let fooled = has_window && self.clock.was_set_back();
                    let within = standing == Standing::InWindow || fooled;
                    self.seen().spent.push((token.clone(), now_ms, within));
                }
                let issued = model.refresh(token, self.draw(), now_ms);
                self.issued(&model, issued, now_ms)
            }
            Request::Revoke { token } => match model.revoke(token, now_ms) {
                Ok(()) => (200, String::new()),
                Err(refused) => model.body_of_refusal(refused),
            },
            Request::Introspect { token } => match model.introspect(token, now_ms) {
                Ok(about) => (200, model.body_of_about(about.as_ref())),
                Err(refused) => model.body_of_refusal(refused),
            },
        };
        self.note_endings(&model, request);
        answer
    }

    fn issued(
        &self,
        model: &Model,
        issued: Result<tokenwal::sandbox::model::Pair, Refused>,
        now_ms: u64,
    ) -> Answer {
        match issued {
            Ok(pair) => {
                let mut seen = self.seen();
                let all = seen.issued.entry(pair.approval).or_default();
                if let Some(refresh) = &pair.refresh
                    && !all.contains(refresh)
                {
                    all.push(refresh.clone());
                }
                let lapses_ms = pair.expires_at_ms.unwrap_or(u64::MAX);
                let access = (pair.access.clone(), lapses_ms);
                seen.access.entry(pair.approval).or_default().push(access);
                let _ = now_ms;
                (200, model.body_of(&pair))
            }
            Err(refused) => model.body_of_refusal(refused),
        }
    }

    /// Looks who died of a request.
    fn note_endings(&self, model: &Model, request: &Request) {
        let mut seen = self.seen();
        let new = model.endings().get(seen.endings..).unwrap_or_default();
        for ending in new {
            if self.loud {
                println!("{} provider: {ending:?}", ending.at_ms % 1_000_000_000);
            }
            let is_held = seen.held.contains(&ending.approval);
            // A place was taken blindly, and is still taken: whoever came last pushed it out.
            let is_blind = ending.reason == ApprovalState::Evicted
                && seen.blind_approvals.iter().any(|(approval, user)| {
                    let newest = seen.issued.get(approval).and_then(|tokens| tokens.last());
                    *user == ending.user
                        && newest.is_some_and(|token| model.is_alive(token, ending.at_ms))
                });
            if ending.by.is_some() && is_held && !is_blind {
                let words = format!("{:?} by {request:?}", ending.reason);
                seen.killed.push((ending.approval, words));
            }
        }
        seen.endings = model.endings().len();
    }

    async fn ask(&self, request: Request) -> Result<Answer, Outcome> {
        let shown = format!("{request:?}");
        let answer = self.ask_unseen(request).await;
        if self.loud {
            println!("{} {shown}: {answer:?}", self.clock.true_ms() % 1_000_000_000);
        }
        answer
    }

    async fn ask_unseen(&self, request: Request) -> Result<Answer, Outcome> {
        self.seen().calls += 1;
        self.catch_up();
        let (fault, delay) = self.fault();
        let doubt = |reason| Err(Outcome::InDoubt(Doubt::new(reason)));
        self.message().await;
        if fault == Fault::NotSent {
            return Err(Outcome::NotSent(NotSent::Connect));
        }
        tokio::time::sleep(delay).await;
        match fault {
            Fault::LostOnTheWay => return doubt(DoubtReason::ConnectionLost),
            Fault::TooManyRequests => {
                let refusal = Refusal::new(RefusalClass::Retry, 429, "", "", &[]);
                return Err(Outcome::Refused(refusal.with_retry_after_s(5)));
            }
            Fault::Late => {
                // Some time after the deadline of 60 s, and within the margin.
                let at_ms = self.clock.true_ms() + 60_000 + self.rng.lock().unwrap().below(50_000);
                self.late.lock().unwrap().push((at_ms, request));
                if let Some(me) = self.me.upgrade() {
                    me.wake_at(at_ms);
                }
                tokio::time::sleep(Duration::from_secs(300)).await;
                return doubt(DoubtReason::Timeout);
            }
            _ => {}
        }
        let answer = self.carry_out(&request, self.clock.true_ms());
        self.message().await;
        tokio::time::sleep(delay).await;
        match fault {
            Fault::LostOnTheWayBack => doubt(DoubtReason::ConnectionLost),
            Fault::Slow => {
                tokio::time::sleep(Duration::from_secs(300)).await;
                doubt(DoubtReason::Timeout)
            }
            Fault::Truncated if answer.0 == 200 => {
                let half = answer.1.as_bytes()[..answer.1.len() / 2].to_vec();
                let doubt = Doubt::new(DoubtReason::ConnectionLost).with_status(200);
                Err(Outcome::InDoubt(doubt.with_body(half)))
            }
            Fault::ServerError => doubt(DoubtReason::ServerError),
            _ => Ok(answer),
        }
    }

    /// Reads an answer as the real client does: by the profile.
    fn read(&self, action: Action, answer: Answer) -> Outcome {
        let (status, body) = answer;
        if status == 200 {
            let now_ms = tokenwal::Clock::now_ms(&*self.clock);
            return match TokenResponse::parse(body.into_bytes(), now_ms) {
                Ok(response) => {
                    let user = response.identity_url().and_then(tokenwal::salesforce_user);
                    Outcome::Issued(match user {
                        Some(user) => response.with_user(user),
                        None => response,
                    })
                }
                Err(unreadable) => Outcome::InDoubt(Doubt::unreadable(unreadable)),
            };
        }
        let said: serde_json::Value = serde_json::from_str(&body).unwrap_or_default();
        let text = |name: &str| said[name].as_str().unwrap_or_default().to_owned();
        let (error, description) = (text("error"), text("error_description"));
        let meaning = self.profile.meaning(action, status, &error, &description);
        let class = meaning.and_then(tokenwal::profile::Meaning::class);
        match class {
            Some(class) => Outcome::Refused(Refusal::new(class, status, &error, &description, &[])),
            None if meaning.is_some() => Outcome::InDoubt(Doubt::new(DoubtReason::ServerError)),
            None => Outcome::Refused(Refusal::new(
                RefusalClass::Suspended,
                status,
                &error,
                &description,
                &[],
            )),
        }
    }

    fn token(pair: &IssuedPair) -> String {
        pair.refresh_token().unwrap_or(pair.access_token()).reveal().to_owned()
    }
}

impl Upstream for Provider {
    fn authorization_url(&self, approval: Approval<'_>) -> Option<String> {
        Some(format!("https://sim.example/authorize?state={}", approval.state))
    }

    fn exchange<'a>(&'a self, code: Code<'a>) -> Call<'a, Outcome> {
        let request = Request::Exchange { code: code.code.reveal().to_owned() };
        Box::pin(async move {
            match self.ask(request).await {
                Ok(answer) => self.read(Action::Exchange, answer),
                Err(outcome) => outcome,
            }
        })
    }

    fn refresh<'a>(&'a self, pair: &'a IssuedPair) -> Call<'a, Outcome> {
        let request = Request::Refresh { token: Self::token(pair) };
        Box::pin(async move {
            match self.ask(request).await {
                Ok(answer) => self.read(Action::Refresh, answer),
                Err(outcome) => outcome,
            }
        })
    }

    fn revoke<'a>(&'a self, pair: &'a IssuedPair) -> Call<'a, Outcome> {
        let request = Request::Revoke { token: Self::token(pair) };
        Box::pin(async move {
            match self.ask(request).await {
                Ok((200, _)) => Outcome::Revoked,
                Ok(answer) => self.read(Action::Revoke, answer),
                Err(outcome) => outcome,
            }
        })
    }

    fn introspect<'a>(
        &'a self,
        pair: &'a IssuedPair,
        which: Which,
    ) -> Call<'a, (Option<Introspection>, Outcome)> {
        let token = match which {
            Which::Access => pair.access_token().reveal().to_owned(),
            Which::Refresh => Self::token(pair),
        };
        let request = Request::Introspect { token };
        Box::pin(async move {
            match self.ask(request).await {
                Ok((200, body)) => match Introspection::parse(body.as_bytes()) {
                    Some(about) => (Some(about), Outcome::Answered),
                    None => (None, Outcome::InDoubt(Doubt::new(DoubtReason::Unreadable))),
                },
                Ok(answer) => (None, self.read(Action::Introspect, answer)),
                Err(outcome) => (None, outcome),
            }
        })
    }

    fn who<'a>(&'a self, pair: &'a IssuedPair) -> Call<'a, Option<User>> {
        let token = pair.access_token().reveal().to_owned();
        Box::pin(async move {
            self.message().await;
            let now_ms = self.clock.true_ms();
            let about = self.model.lock().unwrap().use_access(&token, now_ms)?;
            tokenwal::salesforce_user(&about.identity_url)
        })
    }
}
