//! The journal as a ledger: one owner process, durable on its own disk.

use super::{Change, Durability, Ledger, Receipt, Walk};
use crate::error::Error;
use crate::ids::{AccountTag, Fingerprint, GrantId, Holder, HolderTag, Lsn, OpId};
use crate::journal::{
    AccountRef, AccountView, Accounts, Begin, History, Import, Imported, IssuedPair, Journal,
    Redeemed, SettleError, Ticket,
};
use crate::outcome::Outcome;
use crate::seal::DerivedKey;
use crate::secret::Secret;

impl Ledger for Journal {
    type Walk = Accounts;

    async fn begin(&self, begin: Begin) -> Result<Ticket, Error> {
        Self::begin(self, begin).await
    }

    async fn resume(&self, account: AccountTag, op: OpId) -> Result<Ticket, Error> {
        Self::resume(self, account, op).await
    }

    fn settle(
        &self,
        ticket: Ticket,
        outcome: Outcome,
    ) -> impl Future<Output = Result<Receipt, SettleError>> + Send {
        let settling = Self::settle(self, ticket, outcome);
        async move { Ok(Receipt::new(Durability::Local, settling.await?)) }
    }

    async fn change(&self, account: AccountTag, change: Change) -> Result<Lsn, Error> {
        match change {
            Change::Adopt { grant, holder, scopes } => {
                self.adopt_for(account, grant, &holder, &scopes).await
            }
            Change::Release { grant, holder } => self.release(account, grant, &holder).await,
            Change::Supersede { holder, scopes, from, to } => {
                self.supersede_for(account, &holder, from, to, &scopes).await
            }
            Change::Worked { grant, generation } => self.worked(account, grant, generation).await,
            Change::Told { grant, generation, expires_at_ms } => {
                self.told(account, grant, generation, expires_at_ms).await
            }
            Change::End { grant, cause, confidence } => {
                self.end(account, grant, cause, confidence).await
            }
            Change::Revive { grant } => self.revive(account, grant).await,
            Change::Activate { grant } => self.activate(account, grant).await,
            Change::Resolve { op, how } => Self::resolve(self, account, op, how).await,
            Change::Identify { grant, account: to } => self.identify(account, grant, &to).await,
            Change::Merge { to } => self.merge(account, &to).await,
            Change::Forget => self.forget(account).await,
        }
    }

    async fn import(&self, import: Import) -> Result<Imported, Error> {
        Self::import(self, import).await
    }

    async fn pair(&self, account: AccountTag, grant: GrantId) -> Result<Option<IssuedPair>, Error> {
        self.current_of(account, grant).await
    }

    async fn beside(&self, account: AccountTag, grant: GrantId) -> Result<Vec<IssuedPair>, Error> {
        self.beside_of(account, grant).await
    }

    async fn account(&self, account: AccountTag) -> Result<Option<AccountView>, Error> {
        Self::account(self, account).await
    }

    fn walk(&self) -> Accounts {
        self.accounts()
    }

    async fn pending(&self) -> Result<Vec<AccountTag>, Error> {
        Ok(self.pending_accounts())
    }

    async fn redeemed(&self, tag: AccountTag) -> Result<Option<Redeemed>, Error> {
        Self::redeemed(self, tag).await
    }

    async fn history(&self, account: AccountTag) -> Result<History, Error> {
        Self::history(self, account).await
    }

    async fn prune(&self) -> Result<(), Error> {
        self.compact().await.map(drop)
    }

    fn head(&self) -> Lsn {
        Self::head(self)
    }

    fn tag_of(&self, account: &AccountRef) -> AccountTag {
        account.tag_by(self.tagger())
    }

    fn holder_tag(&self, holder: &Holder) -> HolderTag {
        self.tagger().holder(holder)
    }

    fn fingerprint(&self, token: &Secret) -> Fingerprint {
        self.tagger().fingerprint(token.reveal())
    }

    fn derive(&self, purpose: &str) -> DerivedKey {
        self.tagger().derive(purpose)
    }

    fn newest_ms(&self) -> u64 {
        Self::newest_ms(self)
    }

    fn now_ms(&self) -> u64 {
        Self::now_ms(self)
    }
}

impl Walk for Accounts {
    async fn next(&mut self) -> Option<Result<AccountView, Error>> {
        Iterator::next(self)
    }
}
