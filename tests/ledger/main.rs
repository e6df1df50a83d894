//! The rules of a ledger, written against the trait alone, and held over every ledger there is.
//!
//! A new ledger joins by one [`Harness`] and one line in [`held_by`]. `rules` has the rules;
//! `differential` has the same random calls made on two ledgers, so that each checks the other.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test may"
)]
#![allow(unreachable_pub, reason = "a module of a test has no reader outside")]

mod differential;
mod harness;
#[path = "../shared/over.rs"]
mod over;
mod rules;
mod words;

use harness::{Harness, InMemory, OnDisk};

/// Makes each rule a test of one ledger.
macro_rules! held_by {
    ($name:ident: $harness:ty) => {
        mod $name {
            rules! { $harness }
        }
    };
}

macro_rules! rules {
    ($harness:ty) => {
        each! { $harness, begin:
            one_operation_at_a_time_changes_a_grant,
            to_ask_disturbs_nothing,
            grants_do_not_wait_for_one_another,
            an_account_that_was_seen_at_another_version_is_a_conflict,
            what_is_not_there_cannot_be_asked_of,
            a_deadline_that_has_passed_is_no_permission,
            an_opening_is_no_permission,
            a_doubt_is_no_permission,
            what_is_in_doubt_may_be_resent_beside,
            what_was_left_behind_may_be_resent_beside,
            of_concurrent_begins_exactly_as_many_as_the_cap_lets_through,
            a_cap_counts_what_may_live,
            of_concurrent_callbacks_exactly_one_gets_through,
            a_tag_is_used_once,
            a_code_is_presented_under_one_tag,
            a_code_in_doubt_can_be_burnt,
        }
        each! { $harness, settle:
            a_pair_is_what_the_provider_answered,
            what_a_refresh_leaves_out_is_inherited,
            a_fenced_pair_is_an_orphan,
            a_fenced_refusal_ends_nothing_that_lives,
            a_fenced_pair_that_shares_its_refresh_token_is_no_second_grant,
            an_exchange_that_was_resolved_keeps_its_pair,
            an_unknown_account_keeps_its_pair,
            the_same_pair_twice_is_one_grant,
            the_same_pair_without_a_refresh_token_twice_is_one_grant,
            the_same_refresh_token_is_the_same_grant,
            all_mints_are_one_grant,
            another_user_is_told,
            what_is_in_doubt_stays_so_until_it_has_its_outcome,
            what_was_not_sent_leaves_nothing,
            only_dead_ends_a_grant,
            a_settle_that_fails_gives_everything_back,
            a_dropped_settle_is_stored_all_the_same,
            a_dropped_begin_is_no_outcome,
        }
        each! { $harness, change:
            holders_come_and_go,
            a_holder_moves_with_what_it_needs,
            a_generation_that_worked_forgets_the_one_before,
            an_end_is_final_unless_nothing_was_known,
            what_ended_can_be_revived,
            what_was_resolved_is_open_no_longer,
            a_grant_moves_to_its_user,
            two_accounts_become_one,
            nothing_moves_from_under_a_call,
            only_what_is_over_is_forgotten,
        }
        each! { $harness, beside:
            a_token_beside_leaves_the_newest_pair_alone,
            another_refresh_token_keeps_the_scopes_of_the_chain,
            an_answer_beside_that_comes_too_late_is_kept_beside,
            eight_tokens_are_kept_beside_a_grant,
            nothing_is_beside_what_is_over,
            only_a_refresh_is_asked_for_beside_and_with_scopes,
            what_is_told_of_an_expiry_counts_for_that_pair,
            tokens_have_lapsed_when_the_last_of_them_has,
            only_what_is_assumed_of_every_token_is_an_assumption,
        }
        each! { $harness, look:
            an_import_happens_once,
            an_import_is_paused_until_it_is_activated,
            an_import_may_name_its_holder,
            what_a_claimed_copy_has_is_stale_until_it_proves_itself,
            what_needs_a_look_is_pending,
            a_walk_shows_every_account_once,
            a_callback_is_found_again,
            the_past_is_kept_in_order,
            what_was_acknowledged_outlives_the_process,
            tags_and_keys_are_the_same_for_the_life_of_the_store,
        }
    };
}

macro_rules! each {
    ($harness:ty, $room:ident: $($rule:ident),+ $(,)?) => {
        mod $room {
            $(
                #[test]
                fn $rule() {
                    crate::run::<$harness>(|mut store| async move {
                        crate::rules::$room::$rule(&mut store).await;
                    });
                }
            )+
        }
    };
}

held_by! { journal: crate::harness::OnDisk }
held_by! { memory: crate::harness::InMemory }

/// Runs a rule on an empty ledger.
fn run<H: Harness>(rule: impl AsyncFnOnce(H)) {
    let mut threads = tokio::runtime::Builder::new_multi_thread();
    let threads = threads.worker_threads(2).enable_time().build().unwrap();
    threads.block_on(async { rule(H::open().await).await });
}

/// The harnesses say what the ledgers are.
#[test]
fn ledgers_are_empty_when_they_are_opened() {
    fn is_empty<H: Harness>() {
        run(|store: H| async move {
            let walk = words::walk(store.ledger()).await;
            assert!(walk.is_empty());
        });
    }
    is_empty::<OnDisk>();
    is_empty::<InMemory>();
}
