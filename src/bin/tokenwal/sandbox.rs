//! `tokenwal sandbox`: a provider on loopback to try an integration against, until Ctrl-C.

use crate::exit::{Exit, Failure};
use crate::output::{Facts, counted, heard, json, stdout};
use crate::providers;
use clap::ValueEnum;
use std::io::{self, Write};
use std::path::PathBuf;
use tokenwal::profile::Profile;
use tokenwal::sandbox::{Endpoints, Sandbox, SandboxConfig};
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Behave as this provider; `tokenwal providers` lists them [default: salesforce]
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// Behave as the provider that this TOML file describes
    #[arg(long, value_name = "TOML", conflicts_with = "profile")]
    file: Option<PathBuf>,
    /// Listen on this port of 127.0.0.1 [default: a free one]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    port: u16,
    /// Let each user have so many approvals, web sessions included
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    cap: Option<u32>,
    /// Let each user have so many web sessions, which take places under the cap
    #[arg(long, value_name = "N")]
    web_sessions: Option<u32>,
    /// Let a refresh spend the refresh token, or not
    #[arg(long, value_name = "SETTING")]
    rotation: Option<Switch>,
    /// Print one object, then serve
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    Off,
}

/// What there is to know of a sandbox that runs.
#[derive(Debug, serde::Serialize)]
struct Running {
    url: String,
    profile: String,
    client_id: String,
    client_secret: String,
    cap: Option<u32>,
    web_sessions: u32,
    rotation: bool,
    endpoints: Endpoints,
    /// Where it is looked at and steered.
    admin: Admin,
}

#[derive(Debug, serde::Serialize)]
struct Admin {
    state: String,
    faults: String,
    clock: String,
    sign_in: String,
    web_sessions: String,
    end: String,
}

pub(crate) fn run(args: Args) -> Result<Exit, Failure> {
    Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(serve(args))
}

async fn serve(args: Args) -> Result<Exit, Failure> {
    // From here on, lest one that comes early ends it otherwise.
    let mut interrupted = signal(SignalKind::interrupt())?;
    let profile = match (&args.profile, &args.file) {
        (_, Some(file)) => providers::read(file)?,
        (Some(name), None) => providers::named(name)?,
        (None, None) => Profile::salesforce(),
    };
    let mut config = SandboxConfig::new().profile(&profile).port(args.port);
    if let Some(cap) = args.cap {
        config = config.cap(cap);
    }
    if let Some(count) = args.web_sessions {
        config = config.web_sessions(count);
    }
    if let Some(rotation) = args.rotation {
        config = config.rotation(rotation == Switch::On);
    }
    let (id, secret) = (config.client_id().to_owned(), config.client_secret().to_owned());
    let web_sessions = config.web_sessions_of_each();
    let sandbox = Sandbox::start(config).await.map_err(|error| {
        let what = format!("127.0.0.1, port {}: {error}", args.port);
        Failure::new(what, "choose another port, or leave --port out for a free one")
    })?;
    let running = Running::of(&sandbox, id, secret, web_sessions);
    // It serves on also where nobody reads what it says.
    heard(running.tell(args.json))?;
    interrupted.recv().await;
    sandbox.shutdown();
    Ok(Exit::Sound)
}

impl Running {
    fn of(sandbox: &Sandbox, client_id: String, client_secret: String, web_sessions: u32) -> Self {
        let (state, url) = (sandbox.state(), sandbox.url());
        Self {
            url: url.to_owned(),
            profile: state.provider,
            client_id,
            client_secret,
            cap: state.cap,
            web_sessions,
            rotation: state.rotation,
            endpoints: sandbox.endpoints(),
            admin: Admin {
                state: format!("{url}/state"),
                faults: format!("{url}/faults"),
                clock: format!("{url}/clock"),
                sign_in: format!("{url}/sign-in"),
                web_sessions: format!("{url}/web-sessions"),
                end: format!("{url}/end"),
            },
        }
    }

    fn tell(&self, as_json: bool) -> io::Result<()> {
        let mut out = stdout();
        if as_json {
            json(&mut out, self)?
        } else {
            self.show(&mut out)?
        }
        out.flush()
    }

    fn show(&self, out: &mut impl Write) -> io::Result<()> {
        let places = match self.cap {
            Some(cap) => counted(u64::from(cap), "approval", "approvals") + " a user",
            None => "none".to_owned(),
        };
        let web = counted(u64::from(self.web_sessions), "web session", "web sessions");
        let endpoints = &self.endpoints;
        let mut facts = Facts::default();
        facts
            .add("sandbox", format!("{}, which behaves as {}", self.url, self.profile))
            .add("client id", &self.client_id)
            .add("client secret", &self.client_secret)
            .add("cap", places)
            .add_some("of which", (self.web_sessions > 0).then_some(web))
            .add("rotation", if self.rotation { "on" } else { "off" })
            .add("authorize", &endpoints.authorize)
            .add("token", &endpoints.token)
            .add("revoke", &endpoints.revoke)
            .add("introspect", &endpoints.introspect)
            .add("userinfo", &endpoints.userinfo);
        facts.print(out)?;
        let Admin { state, faults, clock, sign_in, .. } = &self.admin;
        write!(
            out,
            r#"
To lose the answer to the second refresh from now:
  curl -d '{{"fault": "drop_after_commit", "on": "refresh", "nth": 2}}' {faults}
To have the next code answered past a deadline of five seconds:
  curl -d '{{"fault": {{"delay_after_commit": {{"ms": 6000}}}}, "on": "exchange"}}' {faults}
To let three hours pass:
  curl -d '{{"advance_s": 10800}}' {clock}
To let somebody else sign in:
  curl -d '{{"user": "bob"}}' {sign_in}
To see which approvals live, and what ended the others:
  curl {state}

Ctrl-C stops it.
"#
        )
    }
}
