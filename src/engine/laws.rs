//! The laws of the fold, held over random histories of two accounts: what a snapshot keeps folds to
//! the same state, and going on from a snapshot is the same as never having made one.

use super::accounts::{advance, concerned};
use super::grant::Grant;
use super::state::{AccountState, Step};
use crate::format::clear::{
    Adopted, Clear, Ended, Flags, Identified, InDoubt, Intent, Issued, Merged, Prefix, Refused,
    Released, Resolved, Superseded, Told,
};
use crate::format::value::{Action, Cause, Confidence, DoubtReason, RefusalClass, ResolvedHow};
use crate::ids::{
    AccountTag, AppTag, Fingerprint, Generation, GrantId, HolderTag, Lsn, OpId, OwnerId,
};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// One choice of a random history; numbers pick among what there is.
#[derive(Debug, Clone)]
enum Choice {
    Intend {
        account: u8,
        grant: u8,
    },
    /// Settles an open operation, for the account it stands under or for another.
    Issue {
        operation: u8,
        token: u8,
        elsewhere: bool,
        /// It goes on saying what the record before says of the grant, as drafts do.
        carries: bool,
        /// It is beside the chain, and asked for so many sets of scopes.
        beside: Option<u8>,
    },
    Refuse {
        operation: u8,
        class: RefusalClass,
    },
    Doubt {
        operation: u8,
    },
    Resolve {
        operation: u8,
    },
    Adopt {
        grant: u8,
        holder: u8,
    },
    Release {
        grant: u8,
        holder: u8,
    },
    Supersede {
        from: u8,
        to: u8,
        holder: u8,
    },
    Work {
        grant: u8,
    },
    Tell {
        grant: u8,
        /// Of the newest pair, or of one before it.
        newest: bool,
    },
    End {
        grant: u8,
    },
    Revive {
        grant: u8,
    },
    Import {
        account: u8,
        token: u8,
        holder: Option<u8>,
        paused: bool,
    },
    Activate {
        grant: u8,
    },
    Identify {
        grant: u8,
        to: u8,
    },
    Merge {
        from: u8,
        to: u8,
    },
    Forget {
        account: u8,
    },
}

fn choice() -> impl Strategy<Value = Choice> {
    let n = || 0_u8..4;
    prop_oneof![
        4 => (n(), n()).prop_map(|(account, grant)| Choice::Intend { account, grant }),
        8 => (n(), n(), any::<bool>(), any::<bool>(), prop::option::of(0_u8..12)).prop_map(
            |(operation, token, elsewhere, carries, beside)| Choice::Issue {
                operation,
                token,
                elsewhere,
                carries,
                beside
            }
        ),
        2 => (n(), class()).prop_map(|(operation, class)| Choice::Refuse { operation, class }),
        1 => n().prop_map(|operation| Choice::Doubt { operation }),
        1 => n().prop_map(|operation| Choice::Resolve { operation }),
        3 => (n(), n()).prop_map(|(grant, holder)| Choice::Adopt { grant, holder }),
        2 => (n(), n()).prop_map(|(grant, holder)| Choice::Release { grant, holder }),
        1 => (n(), n(), n()).prop_map(|(from, to, holder)| Choice::Supersede { from, to, holder }),
        2 => n().prop_map(|grant| Choice::Work { grant }),
        2 => (n(), any::<bool>()).prop_map(|(grant, newest)| Choice::Tell { grant, newest }),
        1 => n().prop_map(|grant| Choice::End { grant }),
        1 => n().prop_map(|grant| Choice::Revive { grant }),
        3 => (n(), n(), prop::option::of(n()), any::<bool>()).prop_map(
            |(account, token, holder, paused)| Choice::Import { account, token, holder, paused }
        ),
        2 => n().prop_map(|grant| Choice::Activate { grant }),
        1 => (n(), n()).prop_map(|(grant, to)| Choice::Identify { grant, to }),
        1 => (n(), n()).prop_map(|(from, to)| Choice::Merge { from, to }),
        1 => n().prop_map(|account| Choice::Forget { account }),
    ]
}

fn class() -> impl Strategy<Value = RefusalClass> {
    prop_oneof![Just(RefusalClass::Dead), Just(RefusalClass::Suspended), Just(RefusalClass::Retry)]
}

fn tag(number: u8) -> AccountTag {
    AccountTag::from_bytes([number % 3 + 1; 16])
}

fn holder(number: u8) -> HolderTag {
    HolderTag::from_bytes([number + 1; 16])
}

/// A history in the making: the records so far, and what they fold to, live.
#[derive(Default)]
struct History {
    records: BTreeMap<Lsn, Clear>,
    states: BTreeMap<AccountTag, AccountState>,
}

impl History {
    fn step(&mut self, clear: Clear) {
        let lsn = Lsn(self.records.len() as u64 + 1);
        self.records.insert(lsn, clear);
        apply(&mut self.states, lsn, &clear);
    }

    fn next_lsn(&self) -> u64 {
        self.records.len() as u64 + 1
    }

    fn grants(&self) -> Vec<(AccountTag, GrantId, Generation)> {
        let of = |(tag, state): (&AccountTag, &AccountState)| {
            state.grants.iter().map(|g| (*tag, g.id, g.generation)).collect::<Vec<_>>()
        };
        self.states.iter().flat_map(of).collect()
    }

    fn operations(&self) -> Vec<(AccountTag, OpId, GrantId)> {
        let of = |(tag, state): (&AccountTag, &AccountState)| {
            state.operations.iter().map(|o| (*tag, o.op, o.grant)).collect::<Vec<_>>()
        };
        self.states.iter().flat_map(of).collect()
    }

    fn choose(&mut self, choice: &Choice) {
        fn pick<T: Copy>(items: &[T], number: u8) -> Option<T> {
            items.get(usize::from(number).checked_rem(items.len())?).copied()
        }
        let (grants, operations) = (self.grants(), self.operations());
        let clear = match *choice {
            Choice::Intend { account, grant } => {
                let own: Vec<_> = grants.iter().filter(|(of, ..)| *of == tag(account)).collect();
                let (_, grant, generation) =
                    pick(&own, grant).copied().unwrap_or((tag(account), GrantId(0), Generation(0)));
                Some(intent(tag(account), grant, generation))
            }
            Choice::Issue { operation, token, elsewhere, carries, beside } => {
                pick(&operations, operation).map(|(under, op, grant)| {
                    let moves = elsewhere && grant.is_none();
                    let account = if moves { tag(under.to_bytes()[0]) } else { under };
                    let generation =
                        grants.iter().find(|(of, id, _)| *of == account && *id == grant);
                    let generation = generation.map_or(1, |(.., generation)| generation.0 + 1);
                    let grant = if grant.is_none() { GrantId(op.0) } else { grant };
                    let from = if account == under { AccountTag::NONE } else { under };
                    // What an answer leaves out is filled in before it is written.
                    let before = self.states.get(&account).and_then(|state| state.grant(grant));
                    let inherited = before.map_or(0, |grant| grant.pair.refresh.to_bytes()[0]);
                    let token = if token == 0 { inherited } else { token };
                    let next = issued(account, grant, generation, op, token, from);
                    match beside.filter(|_| before.is_some()) {
                        Some(asked) => put_beside(next, asked),
                        None => carry(next, before.filter(|_| carries)),
                    }
                })
            }
            Choice::Refuse { operation, class } => {
                pick(&operations, operation).map(|(account, op, grant)| {
                    let prefix = Prefix { op, ..prefix(account, grant) };
                    Clear::Refused(Refused { prefix, class, status: 400, retry_after_s: 0 })
                })
            }
            Choice::Doubt { operation } => {
                pick(&operations, operation).map(|(account, op, grant)| {
                    let prefix = Prefix { op, ..prefix(account, grant) };
                    let reason = DoubtReason::Timeout;
                    Clear::InDoubt(InDoubt { prefix, reason, status: 0, body_bytes: 0 })
                })
            }
            Choice::Resolve { operation } => {
                pick(&operations, operation).map(|(account, op, _)| {
                    let prefix = Prefix { op, ..prefix(account, GrantId(0)) };
                    Clear::Resolved(Resolved { prefix, how: ResolvedHow::Waived })
                })
            }
            Choice::Adopt { grant, holder: who } => pick(&grants, grant).map(|(account, id, _)| {
                Clear::Adopted(Adopted { prefix: prefix(account, id), holder: holder(who) })
            }),
            Choice::Release { grant, holder: who } => {
                pick(&grants, grant).map(|(account, id, _)| {
                    Clear::Released(Released { prefix: prefix(account, id), holder: holder(who) })
                })
            }
            Choice::Supersede { from, to, holder: who } => {
                let from = pick(&grants, from);
                from.and_then(|(account, from, _)| {
                    let own: Vec<_> = grants.iter().filter(|(of, ..)| *of == account).collect();
                    let (_, to, _) = pick(&own, to)?;
                    let prefix = prefix(account, from);
                    let holder = holder(who);
                    Some(Clear::Superseded(Superseded { prefix, holder, to: *to }))
                })
            }
            Choice::Work { grant } => pick(&grants, grant).map(|(account, id, generation)| {
                Clear::Worked(Prefix { generation, ..prefix(account, id) })
            }),
            Choice::Tell { grant, newest } => {
                pick(&grants, grant).map(|(account, id, generation)| {
                    let generation = Generation(generation.0.saturating_sub(u32::from(!newest)));
                    let prefix = Prefix { generation, ..prefix(account, id) };
                    let expires_at_ms = 1000 + self.next_lsn();
                    Clear::Told(Told { prefix, expires_at_ms })
                })
            }
            Choice::End { grant } => pick(&grants, grant).map(|(account, id, _)| {
                let (cause, confidence) = (Cause::Evicted, Confidence::Probable);
                Clear::Ended(Ended { prefix: prefix(account, id), cause, confidence })
            }),
            Choice::Revive { grant } => {
                pick(&grants, grant).map(|(account, id, _)| Clear::Revived(prefix(account, id)))
            }
            Choice::Import { account, token, holder: who, paused } => {
                match issued(tag(account), GrantId(0), 1, OpId(0), token, AccountTag::NONE) {
                    Clear::Issued(issued) => Some(Clear::Imported(Issued {
                        prefix: Prefix {
                            flags: if paused { Flags::PAUSED } else { Flags::NONE },
                            ..issued.prefix
                        },
                        holder: who.map(holder).unwrap_or_default(),
                        ..issued
                    })),
                    _ => None,
                }
            }
            Choice::Activate { grant } => {
                pick(&grants, grant).map(|(account, id, _)| Clear::Activated(prefix(account, id)))
            }
            Choice::Identify { grant, to } => pick(&grants, grant).and_then(|(account, id, _)| {
                let (to, app) = (tag(to), AppTag::from_bytes([9; 16]));
                (to != account).then_some(Clear::Identified(Identified {
                    prefix: prefix(account, id),
                    to,
                    app,
                }))
            }),
            Choice::Merge { from, to } => {
                let (from, to) = (tag(from), tag(to));
                let merged = Merged { prefix: prefix(from, GrantId(0)), to };
                (from != to).then_some(Clear::Merged(merged))
            }
            Choice::Forget { account } => Some(Clear::Forgotten(prefix(tag(account), GrantId(0)))),
        };
        if let Some(clear) = clear {
            self.step(clear);
        }
    }
}

fn prefix(account: AccountTag, grant: GrantId) -> Prefix {
    Prefix { account, grant, generation: Generation(0), flags: Flags::NONE, op: OpId(0) }
}

fn intent(account: AccountTag, grant: GrantId, generation: Generation) -> Clear {
    Clear::Intent(Intent {
        prefix: Prefix { generation, ..prefix(account, grant) },
        action: if grant.is_none() { Action::Exchange } else { Action::Refresh },
        app: AppTag::from_bytes([9; 16]),
        holder: HolderTag::NONE,
        presented: Fingerprint::NONE,
        deadline_ms: 0,
        expected: Lsn::NONE,
        owner: OwnerId::NONE,
        lease_ms: 0,
    })
}

fn issued(
    account: AccountTag,
    grant: GrantId,
    generation: u32,
    op: OpId,
    token: u8,
    from: AccountTag,
) -> Clear {
    // Token 0 is none: the pair has no refresh token of its own and inherited none.
    let refresh = Fingerprint::from_bytes([token; 16]);
    let flags = if token == 0 { Flags::NONE } else { Flags::REFRESH };
    let generation = Generation(generation);
    Clear::Issued(Issued {
        prefix: Prefix { generation, flags, op, ..prefix(account, grant) },
        app: AppTag::from_bytes([9; 16]),
        holder: HolderTag::NONE,
        access: Fingerprint::NONE,
        refresh,
        issued_at_ms: 1,
        expires_at_ms: 2,
        adopt_by_ms: 3,
        fence: Lsn(op.0),
        from,
        first: Fingerprint::NONE,
        earlier_lapse_at_ms: 0,
    })
}

/// Makes a pair one beside the chain, which does not move the generation.
fn put_beside(next: Clear, asked: u8) -> Clear {
    let Clear::Issued(mut issued) = next else { return next };
    issued.prefix.generation = Generation(issued.prefix.generation.0 - 1);
    issued.prefix.flags = Flags::BESIDE | Flags::EXPIRES_DECLARED;
    (issued.first, issued.refresh) = (Fingerprint::from_bytes([asked + 1; 16]), Fingerprint::NONE);
    Clear::Issued(issued)
}

/// Takes over from the pair before what its record says of the grant.
fn carry(next: Clear, before: Option<&Grant>) -> Clear {
    let (Clear::Issued(mut issued), Some(before)) = (next, before) else { return next };
    let flag = |set: bool, flag: Flags| if set { flag } else { Flags::NONE };
    issued.holder = before.held_by_pair().unwrap_or_default();
    issued.first = before.first_token();
    issued.earlier_lapse_at_ms = before.lapse().to_earlier().0;
    issued.prefix.flags = issued.prefix.flags
        | Flags::IMPORTED
        | flag(before.is_paused(), Flags::PAUSED)
        | before.lapse().to_earlier().1
        | flag(before.held_by_pair().is_some(), Flags::HELD);
    Clear::Issued(issued)
}

fn apply(states: &mut BTreeMap<AccountTag, AccountState>, lsn: Lsn, clear: &Clear) {
    let (Some(account), other) = concerned(clear) else { return };
    let step = Step { lsn, at_ms: lsn.0, clear };
    let mut state = states.remove(&account).unwrap_or_default();
    let mut other_state = other.map(|other| states.remove(&other).unwrap_or_default());
    advance(step, &mut state, other_state.as_mut());
    states.insert(account, state);
    if let (Some(other), Some(state)) = (other, other_state) {
        states.insert(other, state);
    }
}

/// Folds what a state names, as a snapshot's entry is folded.
fn refold(records: &BTreeMap<Lsn, Clear>, state: &AccountState) -> AccountState {
    let mut folded = AccountState::default();
    for lsn in state.records() {
        folded.apply(Step { lsn, at_ms: lsn.0, clear: &records[&lsn] });
    }
    folded.complete();
    folded.version = state.version;
    folded.app = state.app;
    folded
}

/// Leaves out where a grant's records stood before it moved, and how a holder came to it: that says
/// what must be kept, and nothing about the grant.
fn as_seen(mut state: AccountState) -> AccountState {
    for grant in &mut state.grants {
        grant.homes.clear();
        grant.holders.iter_mut().chain(&mut grant.gone).for_each(|held| held.moved = false);
    }
    state.homes.clear();
    state
}

/// As [`as_seen`], and of those who have let go only whether a grant that nobody holds is released.
fn as_shown(state: AccountState) -> (AccountState, Vec<bool>) {
    let mut state = as_seen(state);
    let released = |grant: &Grant| grant.holders.is_empty() && !grant.gone.is_empty();
    let released = state.grants.iter().map(released).collect();
    state.grants.iter_mut().for_each(|grant| grant.gone.clear());
    (state, released)
}

#[test]
fn moving_back_and_forth_takes_no_memory() {
    let mut history = History::default();
    let (one, other) = (tag(0), tag(1));
    // Neither account ceases to exist, since each has an operation that stays.
    history.step(intent(one, GrantId(0), Generation(0)));
    history.step(intent(other, GrantId(0), Generation(0)));
    history.step(intent(one, GrantId(1), Generation(1)));
    for turn in 0..24 {
        let (from, to) = if turn % 2 == 0 { (one, other) } else { (other, one) };
        let app = AppTag::from_bytes([9; 16]);
        history.step(Clear::Identified(Identified { prefix: prefix(from, GrantId(1)), to, app }));
    }
    for state in history.states.values() {
        assert!(state.homes.len() <= 2, "{} homes", state.homes.len());
    }
}

#[test]
fn who_holds_by_a_pair_holds_by_the_next_one_or_no_longer() {
    for carries in [true, false] {
        let mut history = History::default();
        let import = Choice::Import { account: 0, token: 1, holder: Some(0), paused: false };
        history.choose(&import);
        history.choose(&Choice::Intend { account: 0, grant: 0 });
        history.choose(&Choice::Issue {
            operation: 0,
            token: 2,
            elsewhere: false,
            carries,
            beside: None,
        });
        history.choose(&Choice::Work { grant: 0 });
        let state = &history.states[&tag(0)];
        let holders: Vec<_> = state.grants[0].holders.iter().map(|held| held.record).collect();
        // By the pair's own record, never by the import's: that is in no snapshot any more.
        assert_eq!(holders, if carries { vec![Lsn(3)] } else { vec![] });
        assert_eq!(state.records(), [Lsn(3), Lsn(4)]);
        assert_eq!(as_seen(refold(&history.records, state)), as_seen(state.clone()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn what_a_snapshot_keeps_folds_to_the_same_state(
        choices in prop::collection::vec(choice(), 1..60),
    ) {
        let mut history = History::default();
        for choice in &choices {
            history.choose(choice);
        }
        for state in history.states.values() {
            prop_assert_eq!(
                as_seen(refold(&history.records, state)),
                as_seen(state.clone())
            );
        }
    }

    #[test]
    fn going_on_from_a_snapshot_is_going_on(
        choices in prop::collection::vec(choice(), 1..60),
        cuts in prop::collection::vec(0_usize..60, 1..4),
    ) {
        let mut history = History::default();
        let mut kept = BTreeMap::new();
        for (at, choice) in choices.iter().enumerate() {
            if cuts.contains(&at) {
                for state in kept.values_mut() {
                    AccountState::prune(state, 0);
                    *state = refold(&history.records, state);
                }
            }
            let lsn = Lsn(history.next_lsn());
            history.choose(choice);
            if let Some(clear) = history.records.get(&lsn) {
                apply(&mut kept, lsn, clear);
            }
        }
        let shown = |states: BTreeMap<AccountTag, AccountState>| {
            states.into_iter().map(|(tag, state)| (tag, as_shown(state))).collect::<Vec<_>>()
        };
        prop_assert_eq!(shown(kept), shown(history.states));
    }
}
