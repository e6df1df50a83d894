//! Provider, journal and sandbox together: what is settled is what the provider holds.

use super::{pkce, told};
use tokenwal::broker::Upstream;
use tokenwal::provider::Provider;
use tokenwal::sandbox::{Fault, Sandbox, SandboxConfig};
use tokenwal::{
    Account, App, Begin, FixedKeys, IssuedPair, Journal, Options, Outcome, Secret, Settled,
};

struct Service {
    sandbox: Sandbox,
    provider: Provider,
    journal: Journal,
    dir: tempfile::TempDir,
}

impl Service {
    async fn start(config: SandboxConfig) -> Self {
        let app = App::new("salesforce", config.client_id()).unwrap();
        let secret = Secret::new(config.client_secret().to_owned());
        let sandbox = Sandbox::start(config).await.unwrap();
        let provider = Provider::salesforce(app, secret, sandbox.url()).build().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let options = Options::new(FixedKeys::new([7; 32], []));
        let (journal, _) = options.create(dir.path().join("store")).unwrap();
        Self { sandbox, provider, journal, dir }
    }

    fn account(&self, user: &str) -> Account {
        Account::new(self.provider.app().clone(), self.sandbox.user(user).unwrap())
    }

    async fn exchange(&self, user: &str) -> IssuedPair {
        let begin = Begin::exchange(self.provider.app());
        let ticket = self.journal.begin(begin).await.unwrap();
        let code = self.sandbox.code_for(user).unwrap();
        let outcome = self.provider.exchange(code, "http://127.0.0.1:9/cb", &pkce()).await;
        issued(self.journal.settle(ticket, outcome).await.unwrap())
    }

    async fn refresh(&self, pair: &IssuedPair) -> Settled {
        let begin = Begin::refresh(pair.account(), pair.grant());
        let ticket = self.journal.begin(begin).await.unwrap();
        let current = ticket.current().unwrap().refresh_token().unwrap();
        let outcome = self.provider.refresh(current).await;
        self.journal.settle(ticket, outcome).await.unwrap()
    }

    fn is_alive(&self, pair: &IssuedPair) -> bool {
        self.sandbox.is_alive(pair.refresh_token().unwrap().reveal())
            && self.sandbox.is_alive(pair.access_token().reveal())
    }
}

fn issued(settled: Settled) -> IssuedPair {
    match settled {
        Settled::Issued(pair) => *pair,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_refresh_that_leaves_the_refresh_token_out_inherits_it() {
    let service = Service::start(SandboxConfig::new()).await;
    let first = service.exchange("alice").await;
    assert_eq!(first.user(), Some(&service.account("alice").user));
    assert_eq!(first.instance_url(), Some(service.sandbox.url()));
    assert_eq!(first.token_endpoint(), Some(service.provider.token_endpoint()));
    assert!(first.field("signature").is_some() && first.field("id").is_some());
    let second = issued(service.refresh(&first).await);
    assert_ne!(first.access_token().reveal(), second.access_token().reveal());
    assert_eq!(first.refresh_token().unwrap().reveal(), second.refresh_token().unwrap().reveal());
    assert!(service.is_alive(&first) && service.is_alive(&second));
}

#[tokio::test]
async fn a_rotating_chain_ends_in_the_token_that_lives() {
    let service = Service::start(SandboxConfig::new().rotation(true)).await;
    let mut pair = service.exchange("alice").await;
    for _ in 0..5 {
        let next = issued(service.refresh(&pair).await);
        assert!(!service.is_alive(&pair) && service.is_alive(&next));
        pair = next;
    }
    let current = service.journal.current(&service.account("alice")).await.unwrap().unwrap();
    assert_eq!(current.refresh_token().unwrap().reveal(), pair.refresh_token().unwrap().reveal());
    assert_eq!(service.sandbox.state().counters.reuses, 0);
    // The answer to the sixth is lost after the provider has rotated.
    service.sandbox.inject(Fault::DropAfterCommit);
    assert!(matches!(service.refresh(&pair).await, Settled::InDoubt(_)));
    assert!(!service.is_alive(&pair));
    let view = service.journal.account(&service.account("alice")).await.unwrap().unwrap();
    assert_eq!(view.in_doubt.len(), 1);
}

#[tokio::test]
async fn a_revoked_grant_is_over_on_both_sides() {
    let service = Service::start(SandboxConfig::new()).await;
    let pair = service.exchange("alice").await;
    let begin = Begin::revoke(pair.account(), pair.grant());
    let ticket = service.journal.begin(begin).await.unwrap();
    let outcome = service.provider.revoke(pair.refresh_token().unwrap()).await;
    assert!(matches!(outcome, Outcome::Revoked), "{outcome:?}");
    assert!(matches!(service.journal.settle(ticket, outcome).await.unwrap(), Settled::Revoked));
    assert!(!service.is_alive(&pair));
    assert!(service.journal.current(&service.account("alice")).await.unwrap().is_none());
}

#[tokio::test]
async fn what_the_provider_sent_is_nowhere_in_the_clear() {
    let service = Service::start(SandboxConfig::new()).await;
    let pair = service.exchange("alice").await;
    service.sandbox.inject(Fault::TruncateBody(200));
    let Settled::InDoubt(_) = service.refresh(&pair).await else { panic!("in doubt") };
    let secrets = [
        pair.access_token().reveal(),
        pair.refresh_token().unwrap().reveal(),
        "access_token",
        "00D000000000001",
    ];
    service.journal.clone().close().await.unwrap();
    let mut files = 0;
    for entry in std::fs::read_dir(service.dir.path().join("store")).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        for secret in secrets {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{secret}");
        }
        files += 1;
    }
    assert!(files >= 2, "the lock and a segment");
}

#[tokio::test]
async fn a_token_for_a_part_of_the_scopes_stands_beside_the_chain_or_is_its_next() {
    for rotates in [false, true] {
        let service = Service::start(SandboxConfig::new().rotation(rotates)).await;
        let first = service.exchange("alice").await;
        assert_eq!(first.scopes(), ["api", "refresh_token"]);
        let begin = Begin::refresh(first.account(), first.grant()).beside(["api"]);
        let ticket = service.journal.begin(begin).await.unwrap();
        let outcome = service.provider.refresh_for(&first, &["api".to_owned()]).await;
        let pair = issued(service.journal.settle(ticket, outcome).await.unwrap());
        assert_eq!(pair.access_scopes(), ["api"]);
        assert_eq!((pair.is_beside(), pair.is_narrowed()), (!rotates, rotates));
        assert!(service.sandbox.is_alive(pair.access_token().reveal()));
        // The chain has all that it had.
        let whole = issued(service.refresh(&pair).await);
        assert_eq!((whole.scopes(), whole.is_narrowed()), (first.scopes(), false));
        // What was not approved is not to be had, and costs nothing.
        let outcome = service.provider.refresh_for(&whole, &["full".to_owned()]).await;
        assert!(told(&outcome).starts_with("refused"), "{}", told(&outcome));
        assert!(service.is_alive(&whole));
    }
}
