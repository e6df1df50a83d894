//! Why a grant has died: what a provider's last words and the account's past say of it.

use super::Inner;
use super::app::Desk;
use super::error::BrokerError;
use super::event::Event;
use super::rules::victim;
use crate::format::value::{Action, Cause, Confidence, RefusalClass};
use crate::ids::{AccountTag, GrantId};
use crate::journal::{AccountView, GrantView, OperationView};
use crate::ledger::{Change, Ledger};
use crate::outcome::Refusal;
use crate::profile::{Overflow, Profile};

impl<L: Ledger> Inner<L> {
    /// Acts on a refusal of a grant: one that the profile calls the end is noted with its cause, all
    /// others only suspend.
    pub(super) async fn refused(
        &self,
        desk: &Desk,
        account: AccountTag,
        grant: GrantId,
        refusal: &Refusal,
    ) -> Result<(), BrokerError> {
        let class = refusal.class();
        if class != RefusalClass::Dead {
            if class == RefusalClass::Suspended {
                self.bell.ring(Event::Suspended { account, grant, class });
            }
            return Ok(());
        }
        let view = self.view(account).await?;
        let found = view.grants.iter().find(|known| known.grant == grant);
        let (cause, confidence) = match found {
            Some(found) => {
                let said = Said {
                    status: refusal.status(),
                    error: refusal.error(),
                    description: refusal.description(),
                };
                probable_cause(desk, &view, found, said, self.ledger.now_ms())
            }
            None => (Cause::Unknown, Confidence::Guessed),
        };
        if cause != Cause::Unknown {
            self.change(account, Change::End { grant, cause, confidence }).await?;
        }
        self.bell.ring(Event::Ended { account, grant, cause, confidence });
        Ok(())
    }
}

/// What a provider said when it refused.
#[derive(Debug, Clone, Copy)]
pub(super) struct Said<'a> {
    pub(super) status: u16,
    pub(super) error: &'a str,
    pub(super) description: &'a str,
}

/// Says why a grant has probably died: by the provider's own words, by the cap, by what was in doubt,
/// by its age.
pub(super) fn probable_cause(
    desk: &Desk,
    view: &AccountView,
    grant: &GrantView,
    said: Said<'_>,
    now_ms: u64,
) -> (Cause, Confidence) {
    let profile: &Profile = desk.profile();
    let told = profile.death_cause(Action::Refresh, said.status, said.error, said.description);
    if let Some(cause) = told {
        return (cause, Confidence::Certain);
    }
    // The refused operation has its outcome: whatever is still open on the grant is in doubt, also
    // what an earlier process left without a word.
    let doubtful =
        |open: &OperationView| open.grant == grant.grant && open.action == Action::Refresh;
    if desk.rotates() && view.in_doubt.iter().any(doubtful) {
        return (Cause::Reuse, Confidence::Probable);
    }
    let idle_ms = profile.expiry().known().and_then(|expiry| expiry.refresh_idle_seconds);
    let idle_ms = idle_ms.map(|seconds| u64::from(seconds) * 1000);
    if idle_ms.is_some_and(|idle_ms| now_ms.saturating_sub(grant.issued_at_ms) >= idle_ms) {
        return (Cause::Expired, Confidence::Probable);
    }
    // Newer approvals of the same user: as many living ones as the cap allows push the oldest out.
    let evicts = profile.cap().known().filter(|cap| cap.overflow != Overflow::Refused);
    let Some(cap) = evicts else { return (Cause::RevokedElsewhere, Confidence::Guessed) };
    let newer = || view.grants.iter().filter(|other| other.grant > grant.grant);
    let living = u32::try_from(newer().filter(|other| other.end.is_none()).count());
    let outside = desk.cap().map_or(0, |cap| cap.outside);
    if living.unwrap_or(u32::MAX).saturating_add(outside) >= cap.number {
        return (Cause::Evicted, Confidence::Probable);
    }
    let is_oldest = victim(view).is_none_or(|oldest| oldest.grant >= grant.grant);
    match is_oldest && newer().next().is_some() {
        true => (Cause::Evicted, Confidence::Guessed),
        false => (Cause::RevokedElsewhere, Confidence::Guessed),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{
        ISSUED_MS, SENT_MS, account, config, desk, ended, grant, operation,
    };
    use super::*;
    use crate::format::value::DoubtReason;

    const ROTATES: &str = "[rotation]\nvalue = \"always\"\n";
    const CAP: &str = "[cap]\nnumber = 3\nguard = 2\ncounts = \"grants\"\nper = \"user_app\"\n\
                       outside = 0\noverflow = ";

    fn cap(overflow: &str) -> String {
        format!("{CAP}\"{overflow}\"\n")
    }

    const DEAD: Said<'_> =
        Said { status: 400, error: "invalid_grant", description: "token expired by policy" };

    /// Why grant 10 has died, which the record of its refusal has ended.
    fn cause(facts: &str, others: &[GrantView], open: &[OperationView]) -> (Cause, Confidence) {
        let mut grants = vec![ended(grant(10))];
        grants.extend_from_slice(others);
        let view = account(grants, open.to_vec());
        probable_cause(&desk(facts), &view, &view.grants[0], DEAD, SENT_MS)
    }

    const ELSEWHERE: (Cause, Confidence) = (Cause::RevokedElsewhere, Confidence::Guessed);

    #[test]
    fn the_providers_own_words_are_certain() {
        let facts = format!(
            "{ROTATES}[[errors]]\nasked = [\"refresh\"]\nerror = \"invalid_grant\"\n\
             description = \"by policy\"\nmeaning = \"dead\"\ncause = \"policy\"\n"
        );
        let open = operation(20, Action::Refresh, 10);
        assert_eq!(cause(&facts, &[], &[open]), (Cause::Policy, Confidence::Certain));
    }

    #[test]
    fn a_refresh_in_doubt_that_may_have_spent_the_token_is_probably_why() {
        let reuse = (Cause::Reuse, Confidence::Probable);
        let said = |doubt| OperationView { doubt, ..operation(20, Action::Refresh, 10) };
        assert_eq!(cause(ROTATES, &[], &[said(Some(DoubtReason::Timeout))]), reuse);
        assert_eq!(cause(ROTATES, &[], &[said(None)]), reuse, "an earlier process left it");
        let steady = "[rotation]\nvalue = \"never\"\n";
        assert_eq!(cause(steady, &[], &[said(None)]), ELSEWHERE);
        assert_eq!(cause(ROTATES, &[], &[operation(20, Action::Revoke, 10)]), ELSEWHERE);
        assert_eq!(cause(ROTATES, &[], &[operation(20, Action::Refresh, 12)]), ELSEWHERE);
        assert_eq!(cause(ROTATES, &[], &[]), ELSEWHERE);
    }

    #[test]
    fn what_was_idle_for_too_long_has_probably_expired() {
        let age_s = (SENT_MS - ISSUED_MS) / 1000;
        let idle = |seconds: u64| {
            let facts =
                format!("[expiry]\nfrom = \"declared\"\nrefresh_idle_seconds = {seconds}\n");
            cause(&facts, &[], &[])
        };
        assert_eq!(idle(age_s), (Cause::Expired, Confidence::Probable));
        assert_eq!(idle(age_s + 1), ELSEWHERE);
    }

    #[test]
    fn as_many_living_newer_ones_as_the_cap_allows_have_probably_pushed_it_out() {
        let newer = [grant(20), grant(30), grant(40)];
        let evicted = |confidence| (Cause::Evicted, confidence);
        let facts = cap("oldest_revoked");
        assert_eq!(cause(&facts, &newer, &[]), evicted(Confidence::Probable));
        assert_eq!(cause(&facts, &newer[..2], &[]), evicted(Confidence::Guessed));
        assert_eq!(cause(&facts, &[], &[]), ELSEWHERE);
        assert_eq!(cause("", &newer, &[]), ELSEWHERE, "no cap is known");
        // An older one that lives would have gone first.
        let older = [grant(5), grant(20)];
        assert_eq!(cause(&facts, &older, &[]), ELSEWHERE);
        // What we do not see counts as well.
        let desk = Desk::new(config(&facts).outside(1));
        let view = account(vec![ended(grant(10)), grant(20), grant(30)], Vec::new());
        let seen = probable_cause(&desk, &view, &view.grants[0], DEAD, SENT_MS);
        assert_eq!(seen, evicted(Confidence::Probable));
    }

    #[test]
    fn newer_ones_that_are_over_push_nothing_out_for_sure() {
        let over = [20, 30, 40, 50].map(|id| ended(grant(id)));
        let guessed = (Cause::Evicted, Confidence::Guessed);
        assert_eq!(cause(&cap("oldest_revoked"), &over, &[]), guessed);
    }

    #[test]
    fn a_provider_that_refuses_at_its_cap_evicts_nothing() {
        let newer = [grant(20), grant(30), grant(40)];
        assert_eq!(cause(&cap("refused"), &newer, &[]), ELSEWHERE);
    }
}
