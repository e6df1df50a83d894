//! Orders and answers as lines of JSON, for two processes of one version on one machine.

use super::{ControlError, Done, Order};
use crate::broker::resolve::Choice;
use crate::ids::{GrantId, OpId};
use crate::secret::Secret;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// An order as it goes over the socket.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wire {
    order: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    account: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    op: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    grant: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    choice: Option<String>,
    #[serde(default)]
    force: bool,
    /// A code, or a line to import.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    secret: Option<Hidden>,
}

/// A secret on its way to who needs it.
#[derive(Deserialize)]
#[serde(from = "String")]
struct Hidden(Zeroizing<String>);

impl From<String> for Hidden {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl Serialize for Hidden {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Hidden({} bytes)", self.0.len())
    }
}

impl Wire {
    pub(super) fn of(order: &Order) -> Self {
        let named = |order: &str| Self { order: order.to_owned(), ..Self::default() };
        let hidden = |secret: &Secret| Some(Hidden(Zeroizing::new(secret.reveal().to_owned())));
        match order {
            Order::Resolve { account, op, choice } => {
                let (choice, secret) = match choice {
                    Choice::ByTheRules => ("by_the_rules", None),
                    Choice::NotIssued => ("not_issued", None),
                    Choice::IssuedElsewhere => ("issued_elsewhere", None),
                    Choice::Waive => ("waive", None),
                    Choice::Resend => ("resend", None),
                    Choice::Burn(code) => ("burn", hidden(code)),
                };
                let (account, op) = (Some(account.to_string()), Some(op.0));
                Self { account, op, choice: Some(choice.to_owned()), secret, ..named("resolve") }
            }
            Order::Revoke { account, grant, force } => {
                let (account, grant) = (Some(account.to_string()), Some(grant.0));
                Self { account, grant, force: *force, ..named("revoke") }
            }
            Order::Activate { account, grant } => {
                let (account, grant) = (Some(account.to_string()), Some(grant.0));
                Self { account, grant, ..named("activate") }
            }
            Order::Import { line } => Self { secret: hidden(line), ..named("import") },
            Order::Compact => named("compact"),
            Order::Claim => named("claim"),
        }
    }

    pub(super) fn line(&self) -> Zeroizing<Vec<u8>> {
        let secret = self.secret.as_ref().map_or(0, |secret| secret.0.len());
        // Room for all of it and for escapes, so that no copy is left behind by growing.
        let mut line = Zeroizing::new(Vec::with_capacity(1024 + 6 * secret));
        serde_json::to_writer(&mut *line, self).expect("texts and numbers can be written");
        line.push(b'\n');
        line
    }

    pub(super) fn read(text: &[u8]) -> Option<Order> {
        let wire: Self = serde_json::from_slice(text).ok()?;
        let account = || wire.account.as_ref()?.parse().ok();
        let grant = || Some(GrantId(wire.grant?));
        match wire.order.as_str() {
            "resolve" => {
                let (account, op) = (account()?, OpId(wire.op?));
                let choice = match wire.choice.as_deref()? {
                    "by_the_rules" => Choice::ByTheRules,
                    "not_issued" => Choice::NotIssued,
                    "issued_elsewhere" => Choice::IssuedElsewhere,
                    "waive" => Choice::Waive,
                    "resend" => Choice::Resend,
                    "burn" => Choice::Burn(wire.secret?.into_secret()),
                    _ => return None,
                };
                Some(Order::Resolve { account, op, choice })
            }
            "revoke" => {
                Some(Order::Revoke { account: account()?, grant: grant()?, force: wire.force })
            }
            "activate" => Some(Order::Activate { account: account()?, grant: grant()? }),
            "import" => Some(Order::Import { line: wire.secret?.into_secret() }),
            "compact" => Some(Order::Compact),
            "claim" => Some(Order::Claim),
            _ => None,
        }
    }
}

impl Hidden {
    fn into_secret(mut self) -> Secret {
        Secret::new(std::mem::take(&mut *self.0))
    }
}

/// An answer as it goes over the socket.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Answer {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(default)]
    advice: String,
    #[serde(default)]
    head: u64,
    #[serde(default)]
    account: Option<String>,
    #[serde(default)]
    grant: Option<u64>,
    #[serde(default)]
    already: bool,
    #[serde(default)]
    ended: bool,
}

impl Answer {
    pub(super) fn refused(error: &str, advice: &str) -> Self {
        let (error, advice) = (Some(error.to_owned()), advice.to_owned());
        Self { error, advice, ..Self::default() }
    }

    pub(super) fn done(done: Done) -> Self {
        let Done { head, account, grant, already, ended } = done;
        let account = account.map(|account| account.to_string());
        let grant = grant.map(|grant| grant.0);
        Self { head, account, grant, already, ended, ..Self::default() }
    }

    pub(super) fn read(self) -> Option<Result<Done, ControlError>> {
        if let Some(error) = self.error {
            return Some(Err(ControlError::Refused { error, advice: self.advice }));
        }
        let account = self.account.map(|account| account.parse()).transpose().ok()?;
        let Self { head, grant, already, ended, .. } = self;
        Some(Ok(Done { head, account, grant: grant.map(GrantId), already, ended }))
    }
}
