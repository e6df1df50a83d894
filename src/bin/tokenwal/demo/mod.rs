//! `tokenwal demo`: the story, on real HTTP on loopback and a real disk.
//!
//! Three acts against one sandbox with a cap of four: a naive service loses its running
//! integration (`naive`), the same retries go through a journal (`guarded`), and a service is
//! killed over and over while it is given pairs (`killed`, `child`, `check`). It asks for nothing,
//! listens on 127.0.0.1 alone, and leaves nothing behind but what `--dir` asks for.

mod act;
mod chance;
mod check;
mod child;
mod guarded;
mod killed;
mod naive;
mod page;
mod place;
mod site;

use crate::exit::{Exit, Failure};
use crate::output::{json, stdout};
use act::Act;
use check::Checked;
use page::Page;
use place::Place;
use site::Site;
use std::io::Write as _;
use std::path::PathBuf;
use tokenwal::sandbox::{Sandbox, SandboxConfig};
use tokenwal::{Clock as _, SystemClock};
use tokio::runtime::{Builder, Runtime};

/// How many approvals a user can have at the sandbox.
const CAP: u32 = 4;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Keep the store here, and its key beside it as DIR.key
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Print one object instead of the story
    #[arg(long)]
    json: bool,
    /// Be the service that is killed; its plan comes on standard input
    #[arg(long, hide = true, requires = "dir")]
    serve: bool,
}

pub(crate) fn run(args: Args) -> Result<Exit, Failure> {
    match &args.dir {
        Some(dir) if args.serve => runtime()?.block_on(child::serve(dir)),
        _ => runtime()?.block_on(tell(&args)),
    }
}

fn runtime() -> Result<Runtime, Failure> {
    Ok(Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}

/// What the demonstration shows.
#[derive(Debug, serde::Serialize)]
struct Story {
    naive: Act,
    tokenwal: Act,
    killed: Checked,
    acknowledged: u64,
    recovered: u64,
    lost: u64,
    milliseconds: u64,
}

async fn tell(args: &Args) -> Result<Exit, Failure> {
    let place = Place::make(args.dir.as_deref())?;
    let page = Page::new(args.json);
    let story = tokio::select! {
        story = acts(&place, &page) => story?,
        _ = tokio::signal::ctrl_c() => {
            return Err(Failure::new("interrupted", "run it again; it takes less than 20 seconds"));
        }
    };
    if args.json {
        let mut out = stdout();
        json(&mut out, &story)?;
        out.flush()?;
    } else {
        story.close(&page, &place)?;
    }
    Ok(if story.holds() { Exit::Sound } else { Exit::Failed })
}

async fn acts(place: &Place, page: &Page) -> Result<Story, Failure> {
    let started = SystemClock.now_ms();
    let sandbox = Sandbox::start(SandboxConfig::new().cap(CAP).rotation(true)).await?;
    let site = Site::new(sandbox.url())?;
    page.line(format!(
        "A provider like Salesforce at {}: {CAP} approvals a user, one more ends the oldest.",
        sandbox.url()
    ))?;
    let naive = naive::run(&sandbox, &site, page).await?;
    let tokenwal = guarded::run(&sandbox, &site, place, page).await?;
    let killed = killed::run(&sandbox, place, page).await?;
    Ok(Story {
        naive,
        tokenwal,
        acknowledged: killed.acknowledged,
        recovered: killed.recovered,
        lost: killed.acknowledged.saturating_sub(killed.recovered),
        killed,
        milliseconds: SystemClock.now_ms().saturating_sub(started),
    })
}

impl Story {
    /// Says whether the demonstration showed what it is there to show.
    fn holds(&self) -> bool {
        let naive_died = !self.naive.running_integration_lives;
        let ours_lives = self.tokenwal.running_integration_lives;
        naive_died && ours_lives && self.lost == 0 && self.killed.unaccounted == 0
    }

    fn close(&self, page: &Page, place: &Place) -> Result<(), Failure> {
        let row = |what: &str, of: &dyn Fn(&Act) -> String| {
            vec![what.to_owned(), of(&self.naive), of(&self.tokenwal)]
        };
        page.title("In short")?;
        page.table(&[
            vec![String::new(), "naive".to_owned(), "tokenwal".to_owned()],
            row("approvals asked of the user", &|act| act.approvals_asked.to_string()),
            row("live at the provider", &|act| act.live_at_provider.to_string()),
            row("of these known to the service", &|act| act.live_and_known.to_string()),
            row("the running integration", &|act| {
                if act.running_integration_lives { "alive" } else { "dead" }.to_owned()
            }),
        ])?;
        if place.is_kept() {
            let dir = place.store().display();
            page.line(format!("   look at the store: tokenwal replay {dir}"))?;
        }
        let seconds = self.milliseconds / 1000;
        let tenths = self.milliseconds % 1000 / 100;
        page.line(format!("   took {seconds}.{tenths} s"))?;
        page.line(format!(
            "acknowledged {}, recovered {}, lost {}",
            self.acknowledged, self.recovered, self.lost
        ))?;
        Ok(())
    }
}

/// Makes a failure of what should not go wrong on loopback.
fn unexpected(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Failure {
    Failure::new(error, "run the demo again; if it fails again, please report it")
}
