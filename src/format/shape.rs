//! The clear parts of records, kind by kind (journal-format.md, sections 7.1 to 7.18).

use super::clear::Prefix;
use super::layout::layout;
use super::value::{
    Action, Cause, Confidence, DoubtReason, MarkerReason, NotSentReason, OpenedReason,
    RefusalClass, ResolvedHow,
};
use crate::ids::{
    AccountTag, AppTag, Fingerprint, GrantId, HolderTag, HostTag, Lsn, Nonce, OwnerId,
};

layout! {
    /// A call that may issue, revoke or ask is about to start.
    pub struct Intent = "intent", 136 {
        /// Grant and generation are what is presented.
        prefix = "clear_prefix": Prefix;
        /// What is asked.
        action: Action, reserved 7;
        /// The app.
        app: AppTag;
        /// On whose behalf, or none.
        holder: HolderTag;
        /// The token that is presented, or none.
        presented: Fingerprint;
        /// After this time the call will have been given up.
        deadline_ms = "deadline": u64;
        /// The account's version that the caller had seen, or none.
        expected: Lsn;
        /// The process that makes the call.
        owner: OwnerId;
        /// The owner's claim stands until this time; 0 where there is none.
        lease_ms = "lease": u64;
    }
}

layout! {
    /// A pair; also what an imported one is.
    pub struct Issued = "issued", 176 {
        /// Grant and generation are the pair's.
        prefix = "clear_prefix": Prefix;
        /// The app.
        app: AppTag;
        /// The holder named at the intent, or none.
        holder: HolderTag;
        /// The access token.
        access: Fingerprint;
        /// The refresh token, or none.
        refresh: Fingerprint;
        /// When it was issued, as the provider says, or else when we received it.
        issued_at_ms = "issued_at": u64;
        /// When the access token expires, or 0.
        expires_at_ms = "expires_at": u64;
        /// After this time the grant is an orphan unless it was adopted.
        adopt_by_ms = "adopt_by": u64;
        /// LSN of the intent, or none.
        fence: Lsn;
        /// The account under which the intent stood, if that is another.
        from: AccountTag;
        /// The token that the grant began with, if this pair is not its first; of a token beside the
        /// chain what stands for the scopes that were asked for.
        first: Fingerprint;
        /// When every access token of the grant before this one has lapsed: 0 if there was none,
        /// all ones where that is not known.
        earlier_lapse_at_ms = "earlier_lapse_at": u64;
    }
}

layout! {
    /// The provider said no.
    pub struct Refused = "refused", 48 {
        /// Grant and generation are what was presented; none where that is not the newest.
        prefix = "clear_prefix": Prefix;
        /// What it means.
        class: RefusalClass, reserved 1;
        /// HTTP status, or 0.
        status: u16;
        /// Seconds, or 0.
        retry_after_s = "retry_after": u32;
    }
}

layout! {
    /// The request never left.
    pub struct NotSent = "not_sent", 48 {
        /// Grant and generation are what would have been presented.
        prefix = "clear_prefix": Prefix;
        /// Why.
        reason: NotSentReason, reserved 7;
    }
}

layout! {
    /// The request may have reached the provider; what it did is unknown.
    pub struct InDoubt = "in_doubt", 48 {
        /// Grant and generation are what was presented.
        prefix = "clear_prefix": Prefix;
        /// Why.
        reason: DoubtReason, reserved 1;
        /// HTTP status, or 0.
        status: u16;
        /// How many bytes of body there were; the sealed part may hold fewer.
        body_bytes: u32;
    }
}

layout! {
    /// What was open or in doubt is so no longer.
    pub struct Resolved = "resolved", 48 {
        /// The operation is the one that is settled.
        prefix = "clear_prefix": Prefix;
        /// How it was settled.
        how: ResolvedHow, reserved 7;
    }
}

layout! {
    /// The user behind a provisional account became known: the grant moves.
    pub struct Identified = "identified", 72 {
        /// The account is the provisional one.
        prefix = "clear_prefix": Prefix;
        /// The account to which the grant belongs from now on.
        to: AccountTag;
        /// The app.
        app: AppTag;
    }
}

layout! {
    /// Two accounts are one user: all grants and open operations move.
    pub struct Merged = "merged", 56 {
        /// The account is the one that is given up.
        prefix = "clear_prefix": Prefix;
        /// The account that takes all over.
        to: AccountTag;
    }
}

layout! {
    /// A holder depends on the grant.
    pub struct Adopted = "adopted", 56 {
        /// The grant is the one that is adopted.
        prefix = "clear_prefix": Prefix;
        /// The holder.
        holder: HolderTag;
    }
}

layout! {
    /// A holder depends on the grant no longer.
    pub struct Released = "released", 56 {
        /// The grant is the one that is released.
        prefix = "clear_prefix": Prefix;
        /// The holder.
        holder: HolderTag;
    }
}

layout! {
    /// A holder moves from one grant to another.
    pub struct Superseded = "superseded", 64 {
        /// The grant is the one that the holder leaves.
        prefix = "clear_prefix": Prefix;
        /// The holder.
        holder: HolderTag;
        /// The grant that it depends on from now on.
        to: GrantId;
    }
}

layout! {
    /// The grant is over.
    pub struct Ended = "ended", 48 {
        /// With an operation, this is also its outcome.
        prefix = "clear_prefix": Prefix;
        /// Why.
        cause: Cause;
        /// How sure the cause is.
        confidence: Confidence, reserved 6;
    }
}

layout! {
    /// The store was taken over by another host on an operator's word.
    pub struct Claimed = "claimed", 80 {
        /// Names no account.
        prefix = "clear_prefix": Prefix;
        /// The new host.
        host: HostTag;
        /// The process.
        owner: OwnerId;
        /// Of that process.
        incarnation: u64;
    }
}

layout! {
    /// When the newest access token expires was learned without a new pair.
    pub struct Told = "told", 48 {
        /// Grant and generation are those of the newest pair.
        prefix = "clear_prefix": Prefix;
        /// When its access token expires.
        expires_at_ms = "expires_at": u64;
    }
}

layout! {
    /// The first frame of a segment.
    pub struct Opened = "opened", 80 {
        /// Nonce of the segment before, or none in a store's first segment.
        predecessor: Nonce;
        /// Offset behind the last valid frame of the segment before.
        predecessor_end: u64;
        /// The last LSN before this frame, or none.
        predecessor_lsn: Lsn;
        /// The host.
        host: HostTag;
        /// The process.
        owner: OwnerId;
        /// Of that process.
        incarnation: u64;
        /// Why the segment was begun.
        reason: OpenedReason, reserved 7;
    }
}

layout! {
    /// The last frame of a segment that was rolled over.
    pub struct Sealed = "sealed", 24 {
        /// Nonce of the segment that follows.
        successor: Nonce;
        /// Its number.
        successor_number: u64;
    }
}

layout! {
    /// Proves the batches before it.
    pub struct Marker = "marker", 8 {
        /// Why it was written.
        reason: MarkerReason, reserved 7;
    }
}
