//! What a history does, as values that proptest draws and shrinks.

use proptest::prelude::*;

use crate::sim::Rng;

/// How the provider answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// A pair; with or without a refresh token of its own, and with so many bytes beside.
    Issued {
        refresh: bool,
        bytes: u16,
        user: Option<u8>,
    },
    Refused {
        dead: bool,
    },
    NotSent,
    InDoubt,
    Revoked,
    Answered,
}

/// One thing that a caller, a thread or a person does.
///
/// A `pick` picks among what there is at that time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Exchange {
        user: Option<u8>,
        holder: Option<u8>,
    },
    Mint {
        user: u8,
    },
    Refresh {
        pick: u8,
    },
    /// A refresh for an access token of other scopes.
    Beside {
        pick: u8,
        scopes: u8,
    },
    Revoke {
        pick: u8,
    },
    Introspect {
        pick: u8,
    },
    Settle {
        pick: u8,
        answer: Answer,
    },
    Adopt {
        pick: u8,
        holder: u8,
    },
    Release {
        pick: u8,
        holder: u8,
    },
    Supersede {
        pick: u8,
        to: u8,
        holder: u8,
    },
    End {
        pick: u8,
    },
    Revive {
        pick: u8,
    },
    Worked {
        pick: u8,
    },
    /// When the newest access token of a grant expires.
    Told {
        pick: u8,
        seconds: u16,
    },
    Identify {
        pick: u8,
        user: u8,
    },
    Merge {
        pick: u8,
        user: u8,
    },
    Forget {
        pick: u8,
    },
    Resolve {
        pick: u8,
    },
    /// A pair that was obtained elsewhere is brought in.
    Import {
        user: u8,
        holder: Option<u8>,
        refresh: bool,
        paused: bool,
    },
    Activate {
        pick: u8,
    },
    /// A caller goes away before it was told.
    DropFuture {
        pick: u8,
    },
    /// A caller loses its ticket.
    DropTicket {
        pick: u8,
    },
    /// The writer takes one step.
    Commit,
    /// The thread that prepares segments takes one step.
    Prepare,
    /// It takes all the steps that it wants to.
    PrepareAll,
    /// The compacting thread takes one step.
    Compact,
    /// It takes all the steps that it wants to.
    CompactAll,
    /// Nothing has come for a while.
    Idle,
    /// Everything runs until nothing is left to do.
    Drain,
    AskCompaction,
    Advance {
        seconds: u16,
    },
    /// The service stops in order and starts again.
    Reopen,
    /// Somebody looks at the store beside its owner.
    Read,
    /// The next operation of some kind will fail in some way; only where a plan has faults.
    Fail {
        what: u8,
        how: u8,
    },
}

/// How often each kind of action comes.
const WEIGHTS: [(u8, u32); 34] = [
    (0, 8),   // Exchange
    (1, 1),   // Mint
    (2, 5),   // Refresh
    (3, 2),   // Revoke
    (4, 1),   // Introspect
    (5, 12),  // Settle with a pair
    (6, 4),   // Settle with something else
    (7, 3),   // Adopt
    (8, 2),   // Release
    (9, 1),   // Supersede
    (10, 1),  // End
    (11, 1),  // Revive
    (12, 2),  // Worked
    (13, 2),  // Identify
    (14, 1),  // Merge
    (15, 1),  // Forget
    (16, 1),  // Resolve
    (17, 2),  // DropFuture
    (18, 1),  // DropTicket
    (19, 14), // Commit
    (20, 4),  // Prepare
    (21, 4),  // PrepareAll
    (22, 4),  // Compact
    (23, 3),  // CompactAll
    (24, 1),  // Idle
    (25, 2),  // Drain
    (26, 2),  // AskCompaction
    (27, 1),  // Advance
    (28, 1),  // Reopen
    (29, 2),  // Read
    (30, 4),  // Import
    (31, 2),  // Activate
    (32, 5),  // Beside
    (33, 2),  // Told
];

impl Action {
    /// Makes an action of a kind from three numbers.
    fn of(kind: u8, pick: u8, one: u8, two: u16) -> Self {
        let user = one % 4;
        let holder = one % 3;
        match kind {
            0 => Self::Exchange {
                user: (pick % 3 != 0).then_some(user),
                holder: (two % 2 == 0).then_some(holder),
            },
            1 => Self::Mint { user },
            2 => Self::Refresh { pick },
            3 => Self::Revoke { pick },
            4 => Self::Introspect { pick },
            5 => Self::Settle {
                pick,
                answer: Answer::Issued {
                    refresh: one % 3 != 0,
                    bytes: if two % 3 == 0 { two % 1500 } else { 0 },
                    user: (one % 8 == 7).then_some(user),
                },
            },
            6 => Self::Settle {
                pick,
                answer: match one % 8 {
                    0 => Answer::Refused { dead: false },
                    1 => Answer::Refused { dead: true },
                    2 => Answer::NotSent,
                    3 | 4 => Answer::InDoubt,
                    5 | 6 => Answer::Revoked,
                    _ => Answer::Answered,
                },
            },
            7 => Self::Adopt { pick, holder },
            8 => Self::Release { pick, holder },
            9 => Self::Supersede { pick, to: u8::try_from(two % 256).unwrap(), holder },
            10 => Self::End { pick },
            11 => Self::Revive { pick },
            12 => Self::Worked { pick },
            13 => Self::Identify { pick, user },
            14 => Self::Merge { pick, user },
            15 => Self::Forget { pick },
            16 => Self::Resolve { pick },
            17 => Self::DropFuture { pick },
            18 => Self::DropTicket { pick },
            19 => Self::Commit,
            20 => Self::Prepare,
            21 => Self::PrepareAll,
            22 => Self::Compact,
            23 => Self::CompactAll,
            24 => Self::Idle,
            25 => Self::Drain,
            26 => Self::AskCompaction,
            27 => Self::Advance { seconds: two },
            28 => Self::Reopen,
            29 => Self::Read,
            30 => Self::Import {
                user,
                holder: (two % 2 == 0).then_some(holder),
                refresh: pick % 4 != 0,
                paused: pick % 3 == 0,
            },
            31 => Self::Activate { pick },
            32 => Self::Beside { pick, scopes: one % 4 },
            _ => Self::Told { pick, seconds: two },
        }
    }

    /// Draws an action where nothing needs to shrink.
    pub fn draw(rng: &mut Rng) -> Self {
        let total = WEIGHTS.iter().map(|(_, weight)| u64::from(*weight)).sum();
        let mut left = rng.below(total);
        let kind = WEIGHTS.iter().find(|(_, weight)| {
            let weight = u64::from(*weight);
            let found = left < weight;
            left = left.saturating_sub(weight);
            found
        });
        let kind = kind.expect("the number is below the sum").0;
        let (pick, one) = (rng.byte(), rng.byte());
        Self::of(kind, pick, one, u16::try_from(rng.below(65536)).unwrap())
    }
}

/// One history.
#[derive(Debug, Clone)]
pub struct Plan {
    pub direct: bool,
    pub segment_blocks: u64,
    pub actions: Vec<Action>,
    /// Whether [`Action::Fail`] is done or passed over: a history of crashes alone, or one in
    /// which operations fail as well.
    pub faults: bool,
    /// Decides everything that the other values leave open.
    pub luck: u64,
}

/// Draws histories: episodes of what a service does, and of anything at all.
pub fn plans(faults: bool) -> impl Strategy<Value = Plan> {
    let actions = prop::collection::vec(episode(), 1..6).prop_map(|episodes| episodes.concat());
    let blocks = prop_oneof![2 => Just(17_u64), 1 => Just(20), 1 => Just(40)];
    (any::<bool>(), blocks, actions, any::<u64>()).prop_map(
        move |(direct, segment_blocks, actions, luck)| Plan {
            direct,
            segment_blocks,
            actions,
            faults,
            luck,
        },
    )
}

fn action() -> impl Strategy<Value = Action> {
    let kinds = WEIGHTS.map(|(kind, weight)| (weight, Just(kind)));
    let kind = proptest::strategy::Union::new_weighted(kinds.to_vec());
    (kind, any::<u8>(), any::<u8>(), any::<u16>())
        .prop_map(|(kind, pick, one, two)| Action::of(kind, pick, one, two))
}

fn episode() -> impl Strategy<Value = Vec<Action>> {
    let fail = || (any::<u8>(), any::<u8>()).prop_map(|(what, how)| Action::Fail { what, how });
    let pair = || {
        (any::<u8>(), any::<u8>(), any::<u16>()).prop_map(|(pick, one, two)| {
            [Action::of(0, pick, one, two), Action::Commit, Action::of(5, pick, one, two)]
        })
    };
    let pairs = |most| prop::collection::vec(pair(), 1..most).prop_map(|pairs| pairs.concat());
    let anything = || prop::collection::vec(action(), 1..25);
    let burst = prop::collection::vec(action(), 5..20).prop_map(|actions| {
        // Many callers, one batch.
        let calls = actions.into_iter().filter(|action| !action.is_work());
        calls.chain([Action::Commit]).collect()
    });
    let rolling = pairs(8).prop_map(|mut pairs| {
        pairs.insert(0, Action::PrepareAll);
        pairs.push(Action::Commit);
        pairs
    });
    let compacting = (pairs(4), any::<bool>()).prop_map(|(pairs, closes)| {
        let end = [Action::Commit, Action::PrepareAll, Action::AskCompaction, Action::Commit];
        let last = if closes { [Action::Compact, Action::Reopen] } else { [Action::CompactAll; 2] };
        [pairs, end.to_vec(), vec![Action::Compact; 4], last.to_vec()].concat()
    });
    let failing = (pairs(4), fail(), anything())
        .prop_map(|(pairs, fail, then)| [pairs, vec![fail], then].concat());
    prop_oneof![
        4 => anything(),
        2 => burst,
        2 => rolling,
        3 => compacting,
        2 => failing,
        1 => Just(vec![Action::Drain, Action::Reopen]),
    ]
}

impl Action {
    /// Says whether it is a step of the journal's own, and no caller's doing.
    fn is_work(&self) -> bool {
        matches!(
            self,
            Self::Commit
                | Self::Prepare
                | Self::PrepareAll
                | Self::Compact
                | Self::CompactAll
                | Self::Idle
                | Self::Drain
                | Self::Reopen
        )
    }
}
