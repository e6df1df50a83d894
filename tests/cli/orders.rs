//! Orders that change a store or call a provider: with nobody beside, through the process that has
//! the store open, and beside one that takes no orders.

use crate::machine::Elsewhere;
use crate::stores::*;
use std::path::PathBuf;
use std::process::Command;
use tokenwal::broker::Broker;
use tokenwal::provider::{Pkce, Provider};
use tokenwal::sandbox::{Sandbox, SandboxConfig};
use tokenwal::{
    Account, App, Begin, Doubt, DoubtReason, GrantId, Holder, Journal, Outcome, Settled,
    SystemEntropy,
};
use tokio::runtime::Runtime;

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// A process that has the store open and takes orders.
struct Owner {
    journal: Journal,
    broker: Broker<Journal>,
    runtime: Runtime,
}

impl Owner {
    fn of(store: &Store) -> Self {
        let (runtime, journal) = (runtime(), store.open());
        let broker = runtime.block_on(async {
            let broker = Broker::builder(journal.clone()).build();
            broker.serve_control(&store.path).unwrap();
            broker
        });
        Self { journal, broker, runtime }
    }

    fn end(self) {
        let drained = self.broker.shutdown(std::time::Duration::from_secs(10));
        assert!(self.runtime.block_on(drained));
        self.journal.blocking().close().unwrap();
    }
}

/// A store with a refresh in doubt and an exchange that was left open.
fn doubtful() -> (Store, [u64; 2]) {
    let store = Store::named();
    let journal = store.create();
    let pair = issue(&journal, 1);
    let blocking = journal.blocking();
    let ticket = blocking.begin(Begin::refresh(&account(1), pair.grant())).unwrap();
    let refresh = ticket.op().0;
    blocking.settle(ticket, Outcome::InDoubt(Doubt::new(DoubtReason::Timeout))).unwrap();
    let exchange = blocking.begin(Begin::exchange(&app())).unwrap().op().0;
    blocking.close().unwrap();
    (store, [refresh, exchange])
}

fn in_doubt(store: &Store) -> Vec<u64> {
    let lines = tokenwal(&["indoubt", store.path(), "--json"]).ok().lines();
    lines.iter().map(|line| line["op"].as_u64().unwrap()).collect()
}

#[test]
fn what_a_person_knows_resolves_an_operation() {
    let (store, [refresh, exchange]) = doubtful();
    let resolve = |op: u64, how: &str| {
        tokenwal(&["resolve", store.path(), &op.to_string(), "--as", how, "--json"])
    };
    let done = resolve(exchange, "waived").ok().json();
    assert_eq!((&done["done"], &done["by_owner"]), (&"resolved".into(), &false.into()));
    assert_eq!(in_doubt(&store), [refresh]);
    resolve(exchange, "waived").says(1, &[&format!("operation {exchange} is not in doubt")]);
    assert_eq!(resolve(refresh, "gone").code, 2);
    // To send something takes an app.
    unchanged(&store.path, || resolve(refresh, "resend").says(1, &["--apps FILE"]));
    let empty = fed(&["resolve", store.path(), &refresh.to_string(), "--as", "burn"], "\n");
    empty.says(1, &["there is no code on standard input"]);
    resolve(refresh, "not-issued").ok();
    assert!(in_doubt(&store).is_empty());
}

#[test]
fn orders_reach_the_process_that_has_the_store_open() {
    let (store, [refresh, exchange]) = doubtful();
    let owner = Owner::of(&store);
    let text = tokenwal(&["resolve", store.path(), &exchange.to_string(), "--as", "waived"]);
    assert!(text.ok().out.contains("the process that has the store open"));
    let done = tokenwal(&[
        "resolve",
        store.path(),
        &refresh.to_string(),
        "--as",
        "issued-elsewhere",
        "--json",
    ]);
    assert_eq!(done.ok().json()["by_owner"], true);
    soon(|| in_doubt(&store).is_empty());

    let line = r#"{"app":{"provider":"salesforce","client_id":"3MVG9"},"user":"user-7","refresh_token":"sesame-refresh-7-1"}"#;
    let imported = fed(&["import", store.path(), "--json"], line).ok().json();
    assert_eq!(imported["already"], false);
    assert_eq!(fed(&["import", store.path(), "--json"], line).ok().json()["already"], true);
    let names = ["salesforce/3MVG9", "user-7"];
    soon(|| tokenwal(&[&["lineage", store.path()], &names[..]].concat()).code == 0);
    let activated = tokenwal(&[&["activate", store.path()], &names[..], &["--json"]].concat());
    assert_eq!(activated.ok().json()["by_owner"], true);
    let grant = GrantId(imported["grant"].as_u64().unwrap());
    let view = owner.journal.blocking().account(&account(7)).unwrap().unwrap();
    assert!(view.grants.iter().any(|known| known.grant == grant && !known.paused));

    let compacted = tokenwal(&["compact", store.path(), "--json"]).ok().json();
    assert_eq!((&compacted["by_owner"], &compacted["accounts"]), (&true.into(), &2.into()));
    assert_eq!(store.snapshots().len(), 1);
    let claimed = tokenwal(&["claim", store.path()]).ok().out;
    assert!(claimed.contains("nothing: the store is this host's already"), "{claimed}");

    // What the broker refuses comes back with its advice: no app is configured there.
    let refused = ["revoke", store.path(), names[0], names[1], &grant.to_string()];
    tokenwal(&refused).says(1, &["this app was not configured", "configure the app"]);
    let stat = tokenwal(&["stat", store.path(), "--json"]).ok().json();
    assert_eq!(stat["foreign_files"], serde_json::json!([]), "the socket is the store's own");
    owner.end();
    assert!(!store.path.join("control").exists());
}

#[test]
fn an_owner_that_takes_no_orders_is_named() {
    let (store, [refresh, _]) = doubtful();
    let journal = store.open();
    let op = refresh.to_string();
    let owner = format!("process {} has the store open and takes no orders", std::process::id());
    let orders: [&[&str]; 4] = [
        &["resolve", store.path(), &op, "--as", "waived"],
        &["activate", store.path(), "salesforce/3MVG9", "user-1", "2"],
        &["compact", store.path()],
        &["claim", store.path()],
    ];
    for order in orders {
        tokenwal(order).says(1, &[&owner, "serve_control"]);
    }
    journal.blocking().close().unwrap();
    // What an owner left behind that died is nobody's.
    let socket = store.path.join("control");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    tokenwal(orders[0]).ok();
    assert!(socket.exists());
    let journal = store.open();
    tokenwal(orders[1]).says(1, &[&owner]);
    journal.blocking().close().unwrap();
}

/// A provider on loopback, and a store with pairs of it.
struct Connected {
    store: Store,
    sandbox: Sandbox,
    runtime: Runtime,
    account: Account,
    grants: Vec<GrantId>,
    apps: PathBuf,
}

impl Connected {
    fn new() -> Self {
        let (store, runtime) = (Store::named(), runtime());
        let config = SandboxConfig::new().code_reuse_revokes(true);
        let app = App::new("salesforce", config.client_id()).unwrap();
        let secret = config.client_secret().to_owned();
        let sandbox = runtime.block_on(Sandbox::start(config)).unwrap();
        let provider = salesforce(&app, &secret, &sandbox);
        let journal = store.create();
        let mut grants = Vec::new();
        let mut account = None;
        for _ in 0..2 {
            let code = sandbox.code_for("alice").unwrap();
            let pkce = Pkce::generate(&SystemEntropy).unwrap();
            let outcome = runtime.block_on(provider.exchange(code, "https://a.example/", &pkce));
            let blocking = journal.blocking();
            let ticket = blocking.begin(Begin::exchange(&app)).unwrap();
            let settled = blocking.settle(ticket, outcome).unwrap();
            let Settled::Issued(pair) = settled else { panic!("{settled:?}") };
            account = Some(Account::new(app.clone(), pair.user().unwrap().clone()));
            grants.push(pair.grant());
        }
        journal.blocking().close().unwrap();
        let (apps, secrets) = (store.beside("apps.toml"), store.beside("secret"));
        std::fs::write(&secrets, format!("{secret}\n")).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&secrets, mode).unwrap();
        let text = format!(
            "[[app]]\nprovider = \"salesforce\"\nclient_id = {:?}\nhost = {:?}\n\
             client_secret_file = {secrets:?}\nrotates = false\n",
            app.client_id(),
            sandbox.url(),
        );
        std::fs::write(&apps, text).unwrap();
        Self { store, sandbox, runtime, account: account.unwrap(), grants, apps }
    }

    fn provider(&self) -> Provider {
        let secret = std::fs::read_to_string(self.store.beside("secret")).unwrap();
        salesforce(&self.account.app, secret.trim(), &self.sandbox)
    }

    fn run(&self, command: &str, more: &[&str]) -> Ran {
        let app = self.account.app.to_string();
        let args = [command, self.store.path(), &app, self.account.user.as_str()];
        let apps = ["--apps", self.apps.to_str().unwrap()];
        tokenwal(&[&args, more, &apps].concat())
    }

    /// Says which of the grants' refresh tokens work at the provider.
    fn alive(&self) -> Vec<bool> {
        let exported = tokenwal(&["export", self.store.path(), "--reveal"]).ok().lines();
        let tokens = exported.iter().map(|line| line["refresh_token"].as_str().unwrap());
        tokens.map(|token| self.sandbox.is_alive(token)).collect()
    }
}

fn salesforce(app: &App, secret: &str, sandbox: &Sandbox) -> Provider {
    let secret = tokenwal::Secret::new(secret.to_owned());
    Provider::salesforce(app.clone(), secret, sandbox.url()).build().unwrap()
}

#[test]
fn a_grant_is_revoked_at_its_provider_and_only_when_asked() {
    let connected = Connected::new();
    let grants: Vec<_> = connected.grants.iter().map(ToString::to_string).collect();
    let journal = connected.store.open();
    let holder = Holder::new("acme", "sync").unwrap();
    journal.blocking().adopt(&connected.account, connected.grants[0], &holder).unwrap();
    journal.blocking().close().unwrap();
    let plan = unchanged(&connected.store.path, || {
        connected.run("revoke", &[&grants[0], "--dry-run", "--json"]).ok().json()
    });
    assert_eq!((&plan["would_be_done"], &plan["keeps"]), (&false.into(), &"held".into()));
    assert_eq!(plan["holders"], serde_json::json!(["acme/sync"]));
    assert_eq!(plan["takes_along"], 0);
    let plan = connected.run("revoke", &[&grants[1], "--dry-run"]).ok().out;
    assert!(plan.contains("it is revoked, and nothing else"), "{plan}");
    assert_eq!(connected.alive(), [true, true]);

    unchanged(&connected.store.path, || {
        connected.run("revoke", &[&grants[0]]).says(1, &["acme/sync depends on grant", "--force"]);
        connected.run("revoke", &["999"]).says(1, &["it has no grant 999"]);
        connected.run("revoke", &[]).says(1, &["the grant is not named"]);
    });
    let done = connected.run("revoke", &[&grants[1], "--json"]).ok().json();
    assert_eq!((&done["done"], &done["grant"]), (&"revoked".into(), &connected.grants[1].0.into()));
    assert_eq!(connected.alive(), [true], "what was revoked is exported no longer");
    assert_eq!(connected.sandbox.state().counters.revocations, 1);
    connected.run("revoke", &[&grants[0], "--force"]).ok();
    assert!(connected.alive().is_empty());
    let why = connected.run("why", &[&grants[1], "--json"]).ok().json();
    assert_eq!((&why["cause"], &why["confidence"]), (&"revoked_by_us".into(), &"certain".into()));
    drop(connected.runtime);
}

#[test]
fn a_refresh_in_doubt_is_sent_again_on_command() {
    let connected = Connected::new();
    let journal = connected.store.open();
    let blocking = journal.blocking();
    let ticket = blocking.begin(Begin::refresh(&connected.account, connected.grants[0])).unwrap();
    let op = ticket.op().to_string();
    blocking.settle(ticket, Outcome::InDoubt(Doubt::new(DoubtReason::Timeout))).unwrap();
    blocking.close().unwrap();
    let apps = connected.apps.to_str().unwrap();
    let args = ["resolve", connected.store.path(), &op, "--as", "resend", "--apps", apps];
    tokenwal(&args).ok();
    assert!(in_doubt(&connected.store).is_empty());
    assert_eq!(connected.sandbox.state().counters.refreshes, 1);
    let lineage = connected.store.open();
    let view = lineage.blocking().account(&connected.account).unwrap().unwrap();
    assert_eq!(view.grants[0].generation.0, 2);
    lineage.blocking().close().unwrap();

    // A secret that others may read is not taken.
    let secret = connected.store.beside("secret");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(&secret, mode).unwrap();
    unchanged(&connected.store.path, || {
        let grant = connected.grants[1].to_string();
        connected.run("revoke", &[&grant]).says(1, &["others may read", "0600"]);
    });
}

#[test]
fn the_code_of_an_exchange_in_doubt_is_burnt_on_command() {
    let connected = Connected::new();
    // A profile of one's own says that a code presented twice revokes what it issued.
    let profile = connected.store.beside("ours.toml");
    let text = "name = \"ours\"\nextends = \"salesforce\"\n[code_reuse_revokes]\nvalue = true\n";
    std::fs::write(&profile, text).unwrap();
    let apps = std::fs::read_to_string(&connected.apps).unwrap();
    let ours = format!("{apps}profile_file = {profile:?}\nredirect_uri = \"https://a.example/\"\n");
    let journal = connected.store.open();
    let code = connected.sandbox.code_for("alice").unwrap();
    let provider = connected.provider();
    let begin = Begin::exchange(&connected.account.app).presenting(&code);
    let ticket = journal.blocking().begin(begin).unwrap();
    let op = ticket.op().to_string();
    let again = tokenwal::Secret::new(code.reveal().to_owned());
    let pkce = Pkce::generate(&SystemEntropy).unwrap();
    let lost = provider.exchange(code, "https://a.example/", &pkce);
    assert!(matches!(connected.runtime.block_on(lost), Outcome::Issued(_)));
    let doubt = Outcome::InDoubt(Doubt::new(DoubtReason::Timeout));
    journal.blocking().settle(ticket, doubt).unwrap();
    journal.blocking().close().unwrap();
    let alive = || connected.sandbox.state().users.iter().map(|user| user.live).sum::<usize>();
    assert_eq!(alive(), 3);
    let file = connected.apps.to_str().unwrap();
    let args = ["resolve", connected.store.path(), &op, "--as", "burn", "--apps", file];
    let burn = |code: &str| fed(&args, &format!("{code}\n"));
    // By the provider's own profile nothing is known of it.
    burn(again.reveal()).says(1, &["nothing verified says"]);
    std::fs::write(&connected.apps, ours).unwrap();
    burn("another").says(1, &["present what that operation presented"]);
    // Where the provider does not know the app, it has not looked at the code.
    let secret = connected.store.beside("secret");
    let right = std::fs::read_to_string(&secret).unwrap();
    std::fs::write(&secret, "wrong").unwrap();
    burn(again.reveal()).says(1, &["was refused (own fault", "correct the app"]);
    std::fs::write(&secret, right).unwrap();
    assert_eq!(in_doubt(&connected.store).len(), 1);
    assert_eq!(alive(), 3);
    burn(again.reveal()).ok();
    assert!(in_doubt(&connected.store).is_empty());
    assert_eq!(alive(), 2, "what was lost is revoked, and nothing else");
}

#[test]
fn a_secret_of_an_app_comes_from_the_environment() {
    let connected = Connected::new();
    let text = std::fs::read_to_string(&connected.apps).unwrap();
    let secret = std::fs::read_to_string(connected.store.beside("secret")).unwrap();
    let start = text.find("client_secret_file").unwrap();
    let end = start + text[start..].find('\n').unwrap();
    let named = format!("{}client_secret_env = \"A_SECRET\"{}", &text[..start], &text[end..]);
    std::fs::write(&connected.apps, named).unwrap();
    let grant = connected.grants[0].to_string();
    connected.run("revoke", &[&grant]).says(1, &["client_secret_env names is not set"]);
    let mut command = Command::new(env!("CARGO_BIN_EXE_tokenwal"));
    let app = connected.account.app.to_string();
    command
        .args(["revoke", connected.store.path(), &app, connected.account.user.as_str(), &grant])
        .args(["--apps", connected.apps.to_str().unwrap()])
        .env_remove("TOKENWAL_KEY_FILE")
        .env("A_SECRET", secret.trim());
    ran(&mut command).ok();
    assert_eq!(connected.sandbox.state().counters.revocations, 1);
}

#[test]
fn a_store_of_another_host_is_claimed() {
    let store = Store::named();
    let disk = Elsewhere::create(&store.path);
    let (journal, _) = options(&store.path).disk(disk).create(&store.path).unwrap();
    issue(&journal, 1);
    journal.blocking().close().unwrap();
    tokenwal(&["compact", store.path()]).says(1, &["last written on another host", "`claim`"]);
    let claimed = tokenwal(&["claim", store.path(), "--json"]).ok().json();
    assert!(claimed["done"].as_str().unwrap().starts_with("claimed"), "{claimed}");
    let why = tokenwal(&["why", store.path(), "salesforce/3MVG9", "user-1"]).ok().out;
    assert!(why.contains("the store was claimed since"), "{why}");
    unchanged(&store.path, || {
        let again = tokenwal(&["claim", store.path(), "--json"]).ok().json();
        assert!(again["done"].as_str().unwrap().starts_with("nothing"), "{again}");
    });
    tokenwal(&["compact", store.path()]).ok();
}
