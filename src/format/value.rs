//! The enumerated values of records (journal-format.md, section 7), each one byte on disk.

use super::layout::values;

values! {
    /// What an intent asks of the provider.
    pub enum Action = "action" {
        /// An authorization code is exchanged for a pair.
        Exchange = 1, "exchange";
        /// A refresh token is presented for the next generation.
        Refresh = 2, "refresh";
        /// A grant is to be revoked.
        Revoke = 3, "revoke";
        /// A pair is minted from an assertion or from client credentials.
        Mint = 4, "mint";
        /// The provider is asked about a token.
        Introspect = 5, "introspect";
        /// A grant of unknown fate is revoked at the provider to be rid of it.
        Burn = 6, "burn";
    }
}

values! {
    /// What a refusal means for the grant.
    pub enum RefusalClass = "class" {
        /// The same request may be tried again.
        Retry = 1, "retry";
        /// Our own configuration is at fault; the grant lives.
        OwnFault = 2, "own fault";
        /// The grant cannot be used now; nothing says that it is dead.
        Suspended = 3, "suspended";
        /// The provider's profile says that the grant is over.
        Dead = 4, "dead";
    }
}

values! {
    /// Why a request never left.
    pub enum NotSentReason = "reason" {
        /// The host's name was not found.
        Lookup = 1, "lookup";
        /// No connection was made.
        Connect = 2, "connect";
        /// The TLS handshake failed.
        Tls = 3, "tls";
        /// The caller gave up before sending.
        GivenUp = 4, "given up";
    }
}

values! {
    /// Why it is unknown what a request did.
    pub enum DoubtReason = "reason" {
        /// No answer came in time.
        Timeout = 1, "timeout";
        /// The connection was lost after sending.
        ConnectionLost = 2, "connection lost";
        /// The provider answered with a server error.
        ServerError = 3, "server error";
        /// The answer could not be read as a token response.
        Unreadable = 4, "unreadable";
        /// The answer was longer than is kept.
        Oversized = 5, "oversized";
        /// The call was cancelled after sending.
        Cancelled = 6, "cancelled";
    }
}

values! {
    /// How an open or doubtful operation was settled.
    pub enum ResolvedHow = "how" {
        /// The answer came after all.
        Answered = 1, "answered";
        /// The provider issued nothing.
        NotIssued = 2, "not issued";
        /// What was issued is known from elsewhere.
        IssuedElsewhere = 3, "issued elsewhere";
        /// The same request was sent again.
        Resent = 4, "resent";
        /// The grant was revoked to be rid of it.
        Burnt = 5, "burnt";
        /// An operator waived it.
        Waived = 6, "waived";
    }
}

values! {
    /// Why a grant is over.
    pub enum Cause = "cause" {
        /// We revoked it.
        RevokedByUs = 1, "revoked by us";
        /// Somebody else revoked it.
        RevokedElsewhere = 2, "revoked elsewhere";
        /// It expired.
        Expired = 3, "expired";
        /// The provider's cap evicted it.
        Evicted = 4, "evicted";
        /// The provider saw a refresh token a second time.
        Reuse = 5, "reuse";
        /// A policy at the provider ended it.
        Policy = 6, "policy";
        /// An operator ended it.
        Operator = 7, "operator";
        /// Nothing more is known.
        Unknown = 8, "unknown";
    }
}

values! {
    /// How sure the cause of an end is.
    pub enum Confidence = "confidence" {
        /// The provider said so, or we did it.
        Certain = 1, "certain";
        /// The evidence points to it.
        Probable = 2, "probable";
        /// It is a guess.
        Guessed = 3, "guessed";
    }
}

values! {
    /// Why a segment was begun.
    pub enum OpenedReason = "reason" {
        /// The store is new.
        Created = 1, "created";
        /// The segment before was full, or was closed for a compaction.
        RolledOver = 2, "rolled over";
        /// The store was not closed cleanly.
        Recovered = 3, "recovered";
    }
}

values! {
    /// Why a marker was written.
    pub enum MarkerReason = "reason" {
        /// Nothing was in flight for a while.
        Idle = 1, "idle";
        /// The store was closed.
        Close = 2, "close";
    }
}
