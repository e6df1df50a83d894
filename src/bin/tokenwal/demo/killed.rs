//! Act 3, the parent: it holds the provider, hears each acknowledgement over a pipe, and kills.

use super::chance::Chance;
use super::check::{self, Checked};
use super::child::{Ack, Plan};
use super::page::Page;
use super::place::Place;
use super::{CAP, unexpected};
use crate::exit::Failure;
use crate::output::counted;
use indicatif::{ProgressBar, ProgressDrawTarget};
use std::os::unix::process::ExitStatusExt as _;
use std::process::Stdio;
use std::time::Duration;
use tokenwal::User;
use tokenwal::sandbox::{Fault, Sandbox};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{ChildStdout, Command};
use tokio::time::{sleep, timeout};

/// At least so many kills, and so many acknowledgements.
const KILLS: u64 = 24;
const ACKS: usize = 600;
/// With so many kills and still too few acknowledgements something else is wrong.
const KILLS_MAX: u64 = 400;
/// One kill in so many falls while the service opens its store.
const EARLY: u64 = 6;
const USERS: usize = 240;
/// How long a service may be silent.
const PATIENCE: Duration = Duration::from_secs(20);
const SIGKILL: i32 = 9;

pub(super) async fn run(sandbox: &Sandbox, place: &Place, page: &Page) -> Result<Checked, Failure> {
    page.title("3. A service that exchanges and refreshes for many users is killed with SIGKILL")?;
    let users: Vec<(String, User)> = (1..=USERS)
        .map(|number| format!("user-{number}"))
        .filter_map(|login| sandbox.user(&login).map(|user| (login, user)))
        .collect();
    let mut chance = Chance::drawn()?;
    let (mut acks, mut kills, mut early) = (Vec::new(), 0, 0);
    let bar = ProgressBar::with_draw_target(Some(KILLS), ProgressDrawTarget::stderr())
        .with_message("killing");
    while kills < KILLS || acks.len() < ACKS {
        if kills == KILLS_MAX {
            return Err(unexpected("the service acknowledges too little before each kill"));
        }
        let mut child = Child::start(&plan(sandbox, &users, &mut chance), place).await?;
        if kills % EARLY == EARLY - 1 {
            early += 1;
            sleep(chance.millis_below(40)).await;
        } else {
            child.hear(10 + usize::try_from(chance.below(40)).unwrap_or_default()).await?;
            // These two are carried out, and the kill comes before their answers.
            sandbox.inject(Fault::DelayAfterCommit(Duration::from_millis(60)));
            sandbox.inject(Fault::DelayAfterCommit(Duration::from_millis(60)));
            sleep(chance.millis_below(25)).await;
        }
        acks.extend(child.kill().await?);
        kills += 1;
        bar.inc(1);
    }
    bar.finish_and_clear();
    settle_down(sandbox).await;
    let mut checked = check::run(sandbox, place, &users, acks).await?;
    (checked.kills, checked.kills_while_opening) = (kills, early);
    tell(&checked, page)?;
    Ok(checked)
}

fn plan(sandbox: &Sandbox, users: &[(String, User)], chance: &mut Chance) -> Plan {
    Plan {
        url: sandbox.url().to_owned(),
        seed: chance.next(),
        cap: usize::try_from(CAP).unwrap_or(usize::MAX),
        users: users.iter().map(|(login, user)| (login.clone(), user.to_string())).collect(),
    }
}

/// Waits until the provider is done with what the dead have asked.
async fn settle_down(sandbox: &Sandbox) {
    let mut before = sandbox.state().counters;
    loop {
        sleep(Duration::from_millis(100)).await;
        let now = sandbox.state().counters;
        if now == before {
            return;
        }
        before = now;
    }
}

fn tell(checked: &Checked, page: &Page) -> Result<(), Failure> {
    let count = |count: u64| count.to_string();
    page.line(format!(
        "   {}, {} of them while it opened its store; each time the next one went on at once",
        counted(checked.kills, "kill", "kills"),
        checked.kills_while_opening
    ))?;
    page.table(&[
        vec!["pairs that the provider issued".to_owned(), count(checked.issued)],
        vec!["  acknowledged over the pipe".to_owned(), count(checked.acknowledged)],
        vec!["  issued, never acknowledged".to_owned(), count(checked.unacknowledged)],
        vec!["    of these recovered all the same".to_owned(), count(checked.durable_and_untold)],
        vec!["    of these listed in doubt".to_owned(), count(checked.issued_in_doubt)],
        vec!["    of these unaccounted for".to_owned(), count(checked.unaccounted)],
        vec!["operations in doubt, sent or not".to_owned(), count(checked.in_doubt)],
    ])?;
    Ok(())
}

/// The service as its parent sees it.
struct Child {
    process: tokio::process::Child,
    lines: Lines<BufReader<ChildStdout>>,
    acks: Vec<Ack>,
}

impl Child {
    /// Starts this program again, as the service.
    async fn start(plan: &Plan, place: &Place) -> Result<Self, Failure> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(["demo", "--serve", "--dir"])
            .arg(place.store())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let no_pipe = || unexpected("the service has no pipe");
        let mut stdin = process.stdin.take().ok_or_else(no_pipe)?;
        stdin.write_all(&serde_json::to_vec(plan)?).await?;
        drop(stdin);
        let lines = BufReader::new(process.stdout.take().ok_or_else(no_pipe)?).lines();
        Ok(Self { process, lines, acks: Vec::new() })
    }

    /// Waits until the service has been given so many pairs.
    async fn hear(&mut self, count: usize) -> Result<(), Failure> {
        while self.acks.len() < count {
            let line = timeout(PATIENCE, self.lines.next_line()).await;
            let line = line.map_err(|_| unexpected("the service is given nothing"))??;
            let line = line.ok_or_else(|| unexpected("the service ended before it was killed"))?;
            self.acks.extend(Ack::parse(&line));
        }
        Ok(())
    }

    /// Kills it, and returns all that it said.
    async fn kill(mut self) -> Result<Vec<Ack>, Failure> {
        self.process.start_kill()?;
        if self.process.wait().await?.signal() != Some(SIGKILL) {
            return Err(unexpected("the service ended before it was killed"));
        }
        while let Some(line) = self.lines.next_line().await? {
            self.acks.extend(Ack::parse(&line));
        }
        Ok(self.acks)
    }
}
