//! Does about operations in doubt what `doubt` decides: at open, when one comes up, and on command.
//!
//! Every step is itself an operation, with an intent and an outcome.

use super::app::Desk;
use super::doubt::{Case, Probed, Step, Why};
use super::error::BrokerError;
use super::event::Event;
use super::revoke::is_conflict;
use super::upstream::{Listed, Which};
use super::{Broker, Inner};
use crate::error::Error;
use crate::format::value::{Action, RefusalClass, ResolvedHow};
use crate::ids::{Account, AccountTag, GrantId, Lsn, OpId};
use crate::journal::{AccountRef, AccountView, Begin, GrantView, OperationView, Settled};
use crate::ledger::{Change, Ledger};
use crate::secret::Secret;
use crate::sync::lock;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long an access token is taken to work at most, where its provider's profile does not say.
const TOKEN_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// What a person decides about an operation in doubt.
#[derive(Debug)]
#[non_exhaustive]
pub enum Choice {
    /// Do what the provider's rules allow.
    ByTheRules,
    /// The provider issued nothing, or did nothing: the person has looked.
    NotIssued,
    /// What was issued is known from elsewhere.
    IssuedElsewhere,
    /// Let it be: it counts toward the cap no longer.
    Waive,
    /// Present the refresh token again, whatever the rules say. Where it is spent this may kill what
    /// the provider issued for it.
    Resend,
    /// Present the code of an exchange again, so that the provider revokes what it issued for it (RFC
    /// 6749, section 4.1.2). It must be the same code.
    Burn(Secret),
}

/// What was heard and said of an operation in doubt: nobody is asked or told the same again.
#[derive(Debug, Default)]
pub(super) struct Looked {
    /// What the provider said of the token that was presented, and when.
    probed: Option<(Probed, Instant)>,
    /// Why a person was asked.
    said: Option<Why>,
}

/// A provider that did not answer is asked again after this time.
const PROBES_APART: Duration = Duration::from_secs(15 * 60);
/// Of so many operations it is remembered what was heard.
const LOOKED_MAX: usize = 65_536;

impl<L: Ledger> Broker<L> {
    /// Returns what may be done about the account's operations in doubt. Nothing is done.
    ///
    /// # Errors
    /// [`BrokerError::UnknownAccount`], [`BrokerError::UnknownApp`], what keeps it from being read.
    pub async fn steps(
        &self,
        account: impl Into<AccountRef>,
    ) -> Result<Vec<(OperationView, Step)>, BrokerError> {
        let inner = &self.0;
        let view = inner.view(inner.account_of(&account.into()).await?).await?;
        let desk = inner.desk_of(&view)?;
        let open = view.in_doubt.iter().filter(|open| inner.is_left(open));
        let step = |open: &OperationView| inner.case(&desk, &view, open).step();
        Ok(open.map(|open| (open.clone(), step(open))).collect())
    }

    /// Decides about an operation in doubt.
    ///
    /// # Errors
    /// [`BrokerError::InDoubt`] where it stays so, [`BrokerError::Choice`] where the choice does not
    /// fit, those of a call.
    ///
    /// # Cancel safety
    /// Dropping the future stops nothing.
    pub async fn resolve(
        &self,
        account: impl Into<AccountRef>,
        op: OpId,
        choice: Choice,
    ) -> Result<(), BrokerError> {
        let account = self.0.account_of(&account.into()).await?;
        self.0.in_task(move |inner| async move { inner.choose(account, op, choice).await }).await
    }

    /// Returns the provider's own list of a user's live approvals, asked with one of its grants. It is
    /// evidence to show, and nothing is ever done because of it: no line says which token it is.
    ///
    /// # Errors
    /// As [`Broker::access_token`].
    pub async fn approvals(
        &self,
        account: impl Into<AccountRef>,
    ) -> Result<Option<Vec<Listed>>, BrokerError> {
        let account = account.into();
        let pair = self.access_token(account, &[], Duration::ZERO).await?;
        let ready = self.0.ready(pair.account()).await?;
        Ok(ready.desk()?.upstream().approvals(&pair).await)
    }
}

impl<L: Ledger> Inner<L> {
    fn case<'a>(
        &self,
        desk: &'a Desk,
        view: &'a AccountView,
        operation: &'a OperationView,
    ) -> Case<'a> {
        let looked = lock(&self.looked).get(&operation.op).and_then(|looked| looked.probed);
        let counts = |(said, at): &(Probed, Instant)| {
            *said != Probed::Unknown || at.elapsed() < PROBES_APART
        };
        Case {
            probed: looked.filter(counts).map(|(said, _)| said),
            newest_ms: self.ledger.newest_ms(),
            known_for: self.known_for(operation.op),
            token_left: self.token_left(desk, view, operation.grant),
            ..case(desk, view, operation, self.ledger.now_ms(), self.margin)
        }
    }

    /// An operation of this process is known since it was begun, any other since the broker is there.
    fn known_for(&self, op: OpId) -> Duration {
        let known = lock(&self.begun).get(&op).copied();
        known.unwrap_or(self.started).elapsed()
    }

    /// Says how long the access tokens of a grant may still work. Of one that came before this process
    /// did, nobody knows for how long it is there: it may have been issued just then.
    fn token_left(&self, desk: &Desk, view: &AccountView, id: GrantId) -> Duration {
        let grant = view.grants.iter().find(|known| known.grant == id);
        // By what is recorded, when the newest pair was issued.
        let dated = grant.map_or(Duration::ZERO, |grant| {
            let lapsed_ms = grant.lapses_at_ms.unwrap_or(0).max(grant.expires_at_ms);
            Duration::from_millis(lapsed_ms.saturating_sub(grant.issued_at_ms))
        });
        let declared = desk.profile().expiry().known().and_then(|expiry| expiry.access_seconds);
        let declared =
            declared.map_or(TOKEN_LIFETIME, |seconds| Duration::from_secs(seconds.into()));
        let longest = declared.max(dated);
        let (came, lifetime) = lock(&self.arrivals).of((view.account_tag, id), longest);
        lifetime.max(dated).saturating_sub(came.elapsed())
    }

    async fn choose(
        &self,
        account: AccountTag,
        op: OpId,
        choice: Choice,
    ) -> Result<(), BrokerError> {
        let view = self.view(account).await?;
        let unknown = BrokerError::Choice { account, problem: "no such operation is open" };
        let open = view.in_doubt.iter().find(|open| open.op == op).ok_or(unknown)?;
        if !self.is_left(open) {
            let problem = "the operation is on its way: wait for its outcome";
            return Err(BrokerError::Choice { account, problem });
        }
        // What a person knows needs no app to be configured.
        let desk = || self.desk_of(&view);
        match choice {
            Choice::ByTheRules => {
                // A person asks: so is the provider, once more.
                lock(&self.looked).remove(&op);
                self.by_the_rules(&desk()?, account, op).await
            }
            Choice::NotIssued => self.resolved(account, op, ResolvedHow::NotIssued).await,
            Choice::IssuedElsewhere => {
                self.resolved(account, op, ResolvedHow::IssuedElsewhere).await
            }
            Choice::Waive => self.resolved(account, op, ResolvedHow::Waived).await,
            Choice::Resend => self.resend(&desk()?, account, open, None).await,
            Choice::Burn(code) => self.burn(&*desk()?, account, open, code).await,
        }
    }

    async fn resolved(
        &self,
        account: AccountTag,
        op: OpId,
        how: ResolvedHow,
    ) -> Result<(), BrokerError> {
        match self.change(account, Change::Resolve { op, how }).await {
            // Somebody was faster.
            Err(BrokerError::Ledger(error)) if matches!(*error, Error::UnknownOperation { .. }) => {
            }
            changed => {
                changed?;
                lock(&self.looked).remove(&op);
                lock(&self.begun).remove(&op);
                self.bell.ring(Event::Resolved { account, op, how });
            }
        }
        Ok(())
    }

    /// Does what the rules allow, step by step, until the operation is resolved or has to wait.
    pub(super) async fn by_the_rules(
        &self,
        desk: &Arc<Desk>,
        account: AccountTag,
        op: OpId,
    ) -> Result<(), BrokerError> {
        loop {
            let view = self.view(account).await?;
            let Some(open) = view.in_doubt.iter().find(|open| open.op == op) else {
                return Ok(());
            };
            let in_doubt = |why| BrokerError::InDoubt { account, op, reason: open.doubt, why };
            match self.case(desk, &view, open).step() {
                Step::Resolve(how) => return self.resolved(account, op, how).await,
                Step::Resend | Step::Mint => {
                    match self.resend(desk, account, open, Some(view.lsn)).await {
                        // What was decided holds for the account as it was seen.
                        Err(error) if is_conflict(&error) => {}
                        sent => return sent,
                    }
                }
                Step::Probe => {
                    let said = self.probe(desk, account, open).await?;
                    self.looked(op, |looked| looked.probed = Some((said, Instant::now())));
                }
                Step::Wait(until_ms) => {
                    self.look_again(account, until_ms);
                    return Err(in_doubt(None));
                }
                Step::Ask(why) => {
                    if self.looked(op, |looked| looked.said.replace(why)) != Some(why) {
                        self.bell.ring(Event::Ask { account, op, why });
                    }
                    return Err(in_doubt(Some(why)));
                }
            }
        }
    }

    fn looked<T>(&self, op: OpId, note: impl FnOnce(&mut Looked) -> T) -> T {
        let mut looked = lock(&self.looked);
        if looked.len() >= LOOKED_MAX {
            // Of the rest the provider is asked again, and people are told again.
            looked.clear();
        }
        note(looked.entry(op).or_default())
    }

    /// Presents the same token again, as an operation of its own beside the one in doubt; a
    /// revocation only if the account is still as it was seen, if it was.
    async fn resend(
        &self,
        desk: &Arc<Desk>,
        account: AccountTag,
        open: &OperationView,
        seen: Option<Lsn>,
    ) -> Result<(), BrokerError> {
        let sent = match open.action {
            Action::Refresh if open.beside => self.resend_beside(account, open).await,
            Action::Refresh => self.refresh_now(account, open.grant, Some(open.op)).await.map(drop),
            Action::Mint => {
                let view = self.view(account).await?;
                let named = view.app.zip(view.user).ok_or(BrokerError::UnknownAccount { account });
                let (app, user) = named?;
                let named = Account::new(app, user);
                self.mint_now(desk, named, open.scopes.clone(), Some(open.op)).await.map(drop)
            }
            Action::Revoke => self.revoke_again(desk, account, open, seen).await,
            Action::Exchange | Action::Introspect | Action::Burn => {
                let problem = "only a refresh, a mint or a revocation can be sent again";
                return Err(BrokerError::Choice { account, problem });
            }
        };
        let stands_for_it = match &sent {
            Ok(()) => true,
            // What rotates is counted from when it was first sent.
            Err(BrokerError::InDoubt { .. }) => open.action != Action::Refresh || !desk.rotates(),
            Err(_) => false,
        };
        if stands_for_it {
            self.resolved(account, open.op, ResolvedHow::Resent).await?;
        }
        sent
    }

    /// Presents a code again. Whatever the provider answers, what it had issued is nobody's.
    async fn burn(
        &self,
        desk: &Desk,
        account: AccountTag,
        open: &OperationView,
        code: Secret,
    ) -> Result<(), BrokerError> {
        if desk.profile().code_reuse_revokes().verified() != Some(&true) {
            let problem = "nothing verified says that the provider revokes what a code issued";
            return Err(BrokerError::Choice { account, problem });
        }
        let begin = Begin::burn(account, open.op).presenting(&code);
        let redirect_uri = desk.config.redirect_uri.clone();
        let came = self
            .call(desk, Action::Burn, begin, move |upstream, _| {
                Box::pin(async move {
                    // The verifier went with the click; the code is seen twice all the same.
                    let verifier = Secret::new(String::new());
                    let code = super::Code {
                        code: &code,
                        redirect_uri: &redirect_uri,
                        verifier: &verifier,
                        nonce: "",
                    };
                    upstream.exchange(code).await
                })
            })
            .await?;
        let looked_at = !came.refusal.as_ref().is_some_and(|refusal| {
            matches!(refusal.class(), RefusalClass::OwnFault | RefusalClass::Retry)
        });
        match came.settled {
            Settled::Refused if looked_at => {
                self.resolved(account, open.op, ResolvedHow::Burnt).await
            }
            // The first one had never reached it.
            Settled::Issued(_) | Settled::DifferentUser(_) => {
                self.resolved(account, open.op, ResolvedHow::NotIssued).await
            }
            Settled::Refused | Settled::NotSent => Err(came.into_error()),
            _ => Err(BrokerError::InDoubt {
                account,
                op: open.op,
                reason: open.doubt,
                why: Some(Why::Burn),
            }),
        }
    }

    /// Asks about a refresh token in doubt.
    async fn probe(
        &self,
        desk: &Desk,
        account: AccountTag,
        open: &OperationView,
    ) -> Result<Probed, BrokerError> {
        let (said, _) = self.ask(desk, account, open.grant, Which::Refresh).await?;
        Ok(match said.map(|about| about.active) {
            Some(true) => Probed::Active,
            Some(false) => Probed::Inactive,
            None => Probed::Unknown,
        })
    }
}

/// Gathers what a decision about an operation rests on.
pub(super) fn case<'a>(
    desk: &'a Desk,
    view: &'a AccountView,
    operation: &'a OperationView,
    now_ms: u64,
    margin: Duration,
) -> Case<'a> {
    let grant = view.grants.iter().find(|grant| grant.grant == operation.grant);
    let twins = view.in_doubt.iter().filter(|other| {
        other.op != operation.op
            && other.action == operation.action
            && other.grant == operation.grant
            && other.generation == operation.generation
    });
    Case {
        operation,
        grant,
        has_later_twin: twins.clone().any(|other| other.op > operation.op),
        twins: twins.count(),
        profile: desk.profile(),
        rotates: desk.rotates(),
        newer_siblings: newer_siblings(view, operation),
        now_ms,
        newest_ms: newest_ms(view),
        margin,
        known_for: Duration::from_millis(now_ms.saturating_sub(operation.since_ms)),
        token_left: Duration::from_millis(grant.map_or(0, |grant| {
            let lapsed_ms = grant.lapses_at_ms.unwrap_or(0).max(grant.expires_at_ms);
            lapsed_ms.saturating_sub(now_ms)
        })),
        probed: None,
    }
}

/// Counts the living grants that were begun after an operation, and what an exchange that was may
/// have brought. A grant is numbered by its intent.
fn newer_siblings(view: &AccountView, operation: &OperationView) -> usize {
    let living = view.grants.iter().filter(|grant| grant.end.is_none());
    let open = view.in_doubt.iter().filter(|open| open.action == Action::Exchange);
    let begun = living.map(|grant| grant.grant.0).chain(open.map(|open| open.op.0));
    begun.filter(|begun| *begun > operation.op.0).count()
}

fn newest_ms(view: &AccountView) -> u64 {
    let of_grant = |grant: &GrantView| {
        let refused_ms = grant.refusal.as_ref().map(|refusal| refusal.at_ms);
        let ended_ms = grant.end.as_ref().map(|end| end.at_ms);
        let held_ms = grant.holders.iter().map(|held| held.since_ms).max();
        [refused_ms, ended_ms, held_ms].into_iter().flatten().fold(grant.issued_at_ms, u64::max)
    };
    let begun = view.in_doubt.iter().map(|open| open.since_ms);
    view.grants.iter().map(of_grant).chain(begun).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{ISSUED_MS, SENT_MS, account, ended, grant, held, operation};
    use super::*;
    use crate::RefusalView;
    use crate::ids::Lsn;

    #[test]
    fn every_record_of_an_account_tells_how_late_it_is() {
        let newest = |grant, open| newest_ms(&account(vec![grant], open));
        assert_eq!(newest_ms(&account(Vec::new(), Vec::new())), 0);
        assert_eq!(newest(grant(10), Vec::new()), ISSUED_MS);
        assert_eq!(newest(grant(10), vec![operation(20, Action::Refresh, 10)]), SENT_MS);
        let mut adopted = held(grant(10), "sync", &[], 12);
        adopted.holders[0].since_ms = SENT_MS + 1;
        assert_eq!(newest(adopted, Vec::new()), SENT_MS + 1);
        let mut over = ended(grant(10));
        over.end.as_mut().unwrap().at_ms = SENT_MS + 2;
        assert_eq!(newest(over, Vec::new()), SENT_MS + 2);
        let mut refused = grant(10);
        refused.refusal = Some(RefusalView {
            class: RefusalClass::Retry,
            status: 429,
            retry_after_s: 0,
            at_ms: SENT_MS + 3,
            lsn: Lsn(40),
            error: None,
            description: None,
            request_id: None,
        });
        assert_eq!(newest(refused, Vec::new()), SENT_MS + 3);
    }

    #[test]
    fn only_living_grants_that_came_after_an_operation_are_new_to_it() {
        let view = account(vec![grant(10), grant(15), grant(25), ended(grant(30))], Vec::new());
        assert_eq!(newer_siblings(&view, &operation(20, Action::Revoke, 10)), 1);
        assert_eq!(newer_siblings(&view, &operation(40, Action::Revoke, 10)), 0);
        let open = vec![operation(22, Action::Exchange, 0), operation(23, Action::Refresh, 15)];
        let view = account(vec![grant(10), grant(15)], open);
        assert_eq!(newer_siblings(&view, &operation(20, Action::Revoke, 10)), 1);
        assert_eq!(newer_siblings(&view, &operation(40, Action::Revoke, 10)), 0);
    }
}
