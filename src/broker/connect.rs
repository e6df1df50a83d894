//! Connecting a user: sent off to approve, and taken in when they come back.

use super::answer::Answer;
use super::app::Desk;
use super::call::Came;
use super::cookie::Click;
use super::error::{BrokerError, CallbackFault};
use super::event::Event;
use super::gate::Whom;
use super::upstream::{Approval, Code};
use super::{Broker, Inner, Key, Landed};
use crate::error::Error;
use crate::format::value::Action;
use crate::ids::{Account, AccountTag, App, Generation, GrantId, Holder, Lsn, User};
use crate::journal::{Begin, IssuedPair, Settled};
use crate::ledger::{Change, Ledger};
use crate::profile::IdentitySource;
use crate::secret::Secret;
use aws_lc_rs::digest;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

/// How long a user may take to approve.
const CLICK_LIFETIME: Duration = Duration::from_secs(900);

/// Says what a user is to be asked for.
#[derive(Debug, Clone)]
pub struct Authorize {
    app: App,
    holder: Holder,
    scopes: Vec<String>,
    user: Option<User>,
    redirect_uri: Option<String>,
}

impl Authorize {
    /// Asks for these scopes on behalf of a holder.
    pub fn new<S: Into<String>>(
        app: &App,
        holder: &Holder,
        scopes: impl IntoIterator<Item = S>,
    ) -> Self {
        Self {
            app: app.clone(),
            holder: holder.clone(),
            scopes: scopes.into_iter().map(Into::into).collect(),
            user: None,
            redirect_uri: None,
        }
    }

    /// Says who is expected to approve. Then the cap is checked before the exchange; another user's
    /// pair is kept and told apart.
    pub fn user(mut self, user: &User) -> Self {
        self.user = Some(user.clone());
        self
    }

    /// Sets where the user comes back to, in place of the app's own.
    pub fn redirect_uri(mut self, uri: &str) -> Self {
        self.redirect_uri = Some(uri.to_owned());
        self
    }
}

/// Where to send a user, and what to give to their browser.
#[derive(Debug)]
pub struct Authorization {
    /// Where the user approves.
    pub url: String,
    /// To be set as a cookie: `HttpOnly`, `Secure`, `SameSite=Lax`. It is sealed, and a secret of the
    /// browser all the same.
    pub cookie: Secret,
    /// Until when the user may come back, in milliseconds since 1970.
    pub expires_at_ms: u64,
}

/// What a callback came to: a grant, durable. Its tokens are handed out by
/// [`Broker::access_token_for`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Connected {
    /// The account; provisional while the user is not known.
    ///
    /// Once the user is known the grant is under the user's own account
    /// ([`Event::Identified`](super::Event::Identified)). Whoever still names the provisional one is
    /// led there, as long as the ledger knows of it: the journal does until the store is opened
    /// again after a compaction. From then on it is [`BrokerError::UnknownAccount`]; ask by the
    /// user's account.
    pub account: AccountTag,
    /// The user, where it is known.
    pub user: Option<User>,
    /// The grant.
    pub grant: GrantId,
    /// Its generation: more than 1 where the provider gave a known refresh token again.
    pub generation: Generation,
    /// The scopes that were granted.
    pub scopes: Vec<String>,
    /// On whose behalf.
    pub holder: Holder,
    /// Another user signed in than the one who was expected.
    pub different_user: bool,
    /// More grants live now than the provider's cap allows: it has probably ended the oldest.
    pub over_cap: bool,
}

impl<L: Ledger> Broker<L> {
    /// Makes the URL to which a user is sent, and the sealed cookie with which they come back. Nothing
    /// is recorded: a click costs no sync.
    ///
    /// # Errors
    /// [`BrokerError::UnknownApp`]; [`BrokerError::Choice`] where the provider has no authorization
    /// endpoint, or what is asked for is too long for a cookie.
    pub fn authorize(&self, asked: &Authorize) -> Result<Authorization, BrokerError> {
        let inner = &self.0;
        let desk = inner.desk(&asked.app)?;
        let draw = || inner.draw();
        let (state, nonce, verifier) = (draw()?, draw()?, Zeroizing::new(draw()?));
        let challenge = digest::digest(&digest::SHA256, verifier.as_bytes());
        let challenge = BASE64_URL_SAFE_NO_PAD.encode(challenge);
        let redirect_uri = asked.redirect_uri.as_ref().unwrap_or(&desk.config.redirect_uri);
        let url = desk.upstream().authorization_url(Approval {
            redirect_uri,
            scopes: &asked.scopes,
            state: &state,
            challenge: &challenge,
            nonce: &nonce,
        });
        let wrong = |problem| BrokerError::Choice { account: AccountTag::NONE, problem };
        let url = url.ok_or(wrong("the provider has no authorization endpoint"))?;
        let lifetime_ms = u64::try_from(CLICK_LIFETIME.as_millis()).unwrap_or(u64::MAX);
        let expires_at_ms = inner.ledger.now_ms().saturating_add(lifetime_ms);
        let click = Click::new(
            inner.ledger.head(),
            expires_at_ms,
            &asked.app,
            &asked.holder,
            asked.user.as_ref(),
            redirect_uri,
            &asked.scopes,
            state,
            nonce,
            verifier,
        );
        let cookie = inner.jar.seal(&click, &*inner.entropy).map_err(Inner::<L>::no_randomness)?;
        let cookie = cookie.ok_or(wrong("what is asked for is too long for a cookie"))?;
        Ok(Authorization { url, cookie, expires_at_ms })
    }

    /// Takes in a user who comes back: checks state and issuer against the cookie, and exchanges the
    /// code, once. A callback that is delivered twice, with its own cookie, gets what came of the
    /// first, also after a restart; once the ledger no longer knows what came of it, the click has
    /// expired. Its code is never presented again.
    ///
    /// Nobody gets anything by the code alone: one that was presented for a click is refused to any
    /// other one ([`CallbackFault::OtherClick`]), and not presented either. The ledger knows which
    /// codes were presented; the journal those of its last 16,384 exchanges, since the compaction
    /// before it was opened. A stolen code of an older exchange, with a click that is younger than
    /// what the ledger knows, is therefore presented once more, and it is the provider's to refuse
    /// it: it has lapsed (RFC 6749, section 4.1.2, recommends ten minutes), it was used, and the
    /// verifier is not its own.
    ///
    /// `query` is the query of the request, without the question mark: at most 64 KiB, with at most
    /// 64 parameters.
    ///
    /// # Errors
    /// [`BrokerError::Callback`], [`BrokerError::Denied`], [`BrokerError::CapReached`], and those of
    /// a call: [`BrokerError::Refused`], [`BrokerError::NotSent`], [`BrokerError::InDoubt`].
    ///
    /// # Cancel safety
    /// Dropping the future stops nothing: the exchange goes on in a task of its own, and the same
    /// callback gives its result.
    pub async fn callback(&self, query: &str, cookie: &str) -> Result<Connected, BrokerError> {
        let inner = &self.0;
        let refused = |fault| BrokerError::Callback(fault);
        let click = inner.jar.open(cookie).ok_or(refused(CallbackFault::Cookie))?;
        let answer = Answer::read(query)?;
        if !is_same(&answer.state, &click.state) {
            return Err(refused(CallbackFault::State));
        }
        let app = click.app().ok_or(refused(CallbackFault::Cookie))?;
        let desk = Arc::clone(inner.desk(&app)?);
        if !desk.is_issuer(answer.issuer.as_deref()) {
            return Err(refused(CallbackFault::Issuer));
        }
        if let Some((error, description)) = answer.error {
            return Err(BrokerError::Denied { error, description });
        }
        let named = match desk.profile().identity().known() {
            Some(IdentitySource::Callback { parameter }) => answer.user_in(parameter),
            _ => None,
        };
        let code = answer.code.ok_or(refused(CallbackFault::NoCode))?;
        let tag = inner.tag_of_exchange(&code, &click);
        if inner.ledger.now_ms() >= click.expires_at_ms
            && inner.ledger.redeemed(tag).await?.is_none()
        {
            return Err(refused(CallbackFault::Expired));
        }
        let key = Key::Callback(tag);
        let handle = inner.handle()?;
        let work =
            || async move { handle.redeem(&desk, click, code, named).await.map(Landed::Connected) };
        match inner.flights.join(key, &inner.tasks, work).await {
            Some(Ok(Landed::Connected(connected))) => Ok(*connected),
            Some(Err(error)) => Err(error),
            _ => Err(BrokerError::Lost),
        }
    }
}

impl<L: Ledger> Inner<L> {
    /// An exchange is known by its code, so that no code is ever presented twice, and by its click, so
    /// that nobody gets what it came to by the code alone.
    fn tag_of_exchange(&self, code: &Secret, click: &Click) -> AccountTag {
        let of_click = self.ledger.fingerprint(&click.verifier());
        AccountTag::of_exchange(self.ledger.fingerprint(code), of_click)
    }

    /// Exchanges a code, or tells what came of the exchange.
    async fn redeem(
        &self,
        desk: &Desk,
        click: Click,
        code: Secret,
        named: Option<User>,
    ) -> Result<Box<Connected>, BrokerError> {
        let holder = click.holder().ok_or(BrokerError::Callback(CallbackFault::Cookie))?;
        let tag = self.tag_of_exchange(&code, &click);
        if self.ledger.redeemed(tag).await?.is_some() {
            return self.already(tag, &holder).await;
        }
        let mut begin = Begin::exchange(desk.app())
            .holder(&holder)
            .scopes(click.scopes.iter())
            .presenting(&code)
            .under(tag, Lsn(click.since));
        if let Some(user) = click.user().or(named) {
            let account = Account::new(desk.app().clone(), user.clone());
            self.make_room(desk, self.ledger.tag_of(&account.into())).await?;
            begin = self.within_cap(desk, begin.user(&user));
        }
        let verifier = click.verifier();
        let (redirect_uri, nonce) = (click.redirect_uri.clone(), click.nonce.clone());
        let came = self
            .call(desk, Action::Exchange, begin, move |upstream, _| {
                Box::pin(async move {
                    let code = Code {
                        code: &code,
                        redirect_uri: &redirect_uri,
                        verifier: &verifier,
                        nonce: &nonce,
                    };
                    upstream.exchange(code).await
                })
            })
            .await;
        match came {
            Ok(came) => self.connected(desk, came, holder).await.map(Box::new),
            Err(BrokerError::Ledger(error)) => match &*error {
                Error::CallbackUsed { account } if *account == tag => {
                    self.already(tag, &holder).await
                }
                Error::CallbackUsed { .. } => Err(BrokerError::Callback(CallbackFault::OtherClick)),
                Error::CallbackTooOld { .. } => Err(BrokerError::Callback(CallbackFault::Expired)),
                Error::CapReached { account, live, limit } => {
                    Err(self.cap_reached(*account, *live, *limit).await?)
                }
                _ => Err(BrokerError::Ledger(error)),
            },
            Err(error) => Err(error),
        }
    }

    /// Tells what came of an exchange that was begun before.
    async fn already(
        &self,
        tag: AccountTag,
        holder: &Holder,
    ) -> Result<Box<Connected>, BrokerError> {
        let redeemed = self.ledger.redeemed(tag).await?;
        let redeemed = redeemed.ok_or(BrokerError::Callback(CallbackFault::Expired))?;
        let (account, op) = (redeemed.account, redeemed.op);
        let gone = BrokerError::NeedsAuthorization { account };
        let Some(grant) = redeemed.grant else {
            let view = self.ledger.account(account).await?;
            let open = view.is_some_and(|view| view.in_doubt.iter().any(|open| open.op == op));
            return Err(match open {
                true => BrokerError::InDoubt { account, op, reason: None, why: None },
                false => gone,
            });
        };
        let pair = self.ledger.pair(account, grant).await?.ok_or(gone)?;
        Ok(Box::new(connected(&pair, holder.clone())))
    }

    async fn connected(
        &self,
        desk: &Desk,
        came: Came,
        holder: Holder,
    ) -> Result<Connected, BrokerError> {
        let (pair, different) = match came.settled {
            Settled::Issued(pair) => (pair, false),
            Settled::DifferentUser(pair) => (pair, true),
            _ => return Err(came.into_error()),
        };
        let (account, grant) = (pair.account(), pair.grant());
        self.shelf.drop(account);
        self.note_exchanged(&pair);
        self.bell.ring(Event::Issued { account, grant, generation: pair.generation() });
        let mut connected = connected(&pair, holder);
        connected.different_user = different;
        if different {
            self.bell.ring(Event::DifferentUser { account, grant });
        }
        if connected.user.is_none() {
            // Where nobody says so now, the grant stays under its provisional account.
            match self.identify(desk, &pair).await {
                Ok(Some((user, account))) => {
                    (connected.user, connected.account) = (Some(user), account);
                }
                Ok(None) => self.note_nameless(account),
                Err(error) => tracing::warn!(target: "tokenwal", %error, "identifying a grant"),
            }
        }
        // From here on the grant is there; what fails now is tried again by others.
        connected.over_cap = self.settle_in(desk, &connected).await.unwrap_or_else(|error| {
            tracing::warn!(target: "tokenwal", %error, "after an exchange");
            false
        });
        Ok(connected)
    }

    /// Asks whose a pair is, and moves its grant there; none where nobody says so now.
    pub(super) async fn identify(
        &self,
        desk: &Desk,
        pair: &IssuedPair,
    ) -> Result<Option<(User, AccountTag)>, BrokerError> {
        let Some(user) = self.who(desk, pair).await else { return Ok(None) };
        let (from, grant) = (pair.account(), pair.grant());
        let account = Account::new(desk.app().clone(), user.clone());
        let to = self.ledger.tag_of(&(&account).into());
        self.change(from, Change::Identify { grant, account }).await?;
        self.shelf.drop(to);
        self.moved(from, to, grant);
        self.bell.ring(Event::Identified { from, account: to, grant });
        Ok(Some((user, to)))
    }

    /// Asks whose a pair is, as one of the app's calls at once. Nobody needs to know now: where no
    /// call gets through it is asked another time.
    async fn who(&self, desk: &Desk, pair: &IssuedPair) -> Option<User> {
        // A look-up has no outcome: that nobody was named says nothing of how the provider is.
        let _pass = desk.gate.pass(Whom::of(pair)).await.ok()?;
        desk.upstream().who(pair).await
    }

    /// Puts things in order around a new grant: earlier tries of its holder, the cap. Says whether
    /// more live than the provider allows.
    async fn settle_in(&self, desk: &Desk, new: &Connected) -> Result<bool, BrokerError> {
        self.release_earlier_tries(new.account, &new.holder, new.grant).await?;
        let over = self.is_over_cap(desk, new.account).await?;
        self.keep_a_place_free(desk, new.account).await?;
        Ok(over)
    }
}

fn connected(pair: &IssuedPair, holder: Holder) -> Connected {
    Connected {
        account: pair.account(),
        user: pair.user().cloned(),
        grant: pair.grant(),
        generation: pair.generation(),
        scopes: pair.scopes().to_vec(),
        holder,
        different_user: false,
        over_cap: false,
    }
}

/// Compares without telling by its time where they differ.
fn is_same(one: &str, other: &str) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(one.as_bytes(), other.as_bytes()).is_ok()
}
