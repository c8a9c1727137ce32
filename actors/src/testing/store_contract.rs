//! What every [`Store`](crate::ports::Store) must keep, as one async function a promise, each on an empty
//! store. [`store_contract_tests!`](crate::store_contract_tests) makes a test of each.

mod agreement;
mod apps;
mod dismissals;
mod heads;
mod history;
mod letters;
mod receipts;
mod replays;
mod requests;
mod resync;
mod rounds;
mod sinks;
mod upkeep;
mod world;

pub use agreement::two_stores_agree;
pub use apps::*;
pub use dismissals::*;
pub use heads::*;
pub use history::*;
pub use letters::*;
pub use receipts::*;
pub use replays::*;
pub use requests::*;
pub use resync::*;
pub use rounds::*;
pub use sinks::*;
pub use upkeep::*;

/// One `#[tokio::test]` for each promise. `$make` is an async function without arguments that
/// gives an empty store, and something to be kept alive as long as it; or an `Option` of both, where this
/// machine may lack what the store needs. `of actors:` leaves out what only the front door asks of a store.
#[macro_export]
macro_rules! store_contract_tests {
    ($make:path) => {
        $crate::store_contract_tests!(of actors: $make);
        $crate::store_contract_tests! { $make =>
            a_keyed_request_runs_once_and_its_answer_is_kept
            a_keyed_request_that_was_cut_off_begins_again
            an_app_and_the_answer_to_its_registration_are_one
            answers_go_with_their_age_and_with_their_app
        }
    };
    (of actors: $make:path) => {
        $crate::store_contract_tests! { $make =>
            an_app_is_there_until_it_is_erased
            apps_are_listed_in_pages
            an_app_changes_itself_and_its_keys_overlap
            what_goes_with_requests_is_kept_and_changed_part_by_part
            foreign_and_missing_ids_are_not_found
            the_same_selector_again_replaces_settings_and_resyncs
            another_alias_is_another_watch_of_the_same_refs
            a_watch_has_its_own_sink_until_it_goes_back_or_ends
            a_sink_that_is_gone_stops_nobody_else
            the_time_to_send_is_promised_once
            two_apps_with_one_secret_share_no_source
            a_new_credential_keeps_the_open_round
            unwatching_leaves_nothing_behind
            a_cursor_never_sees_a_head_of_another_source
            a_lane_knows_why_its_head_cannot_be_had
            an_equal_listing_writes_nothing_but_names_who_is_behind
            a_watch_of_a_known_head_is_behind_from_its_registration_on
            a_head_that_nobody_follows_any_more_goes
            a_renamed_default_branch_moves_no_held_commit
            a_missing_branch_waits_and_comes_back
            a_pattern_has_a_cursor_per_ref
            refs_that_a_scan_leaves_out_stay_as_they_are
            a_vanished_branch_of_a_pattern_leads_to_nothing_and_comes_back_from_nothing
            a_vanished_branch_whose_files_stay_waits_for_its_return
            a_cursor_at_rest_goes_with_its_history
            a_repository_that_moved_is_asked_there
            a_listing_that_was_overtaken_moves_no_head_backwards
            a_branch_that_returns_at_the_held_commit_brings_back_what_waits
            a_watch_that_starts_at_a_commit_holds_it
            a_source_says_what_to_ask_for
            a_repository_is_fetched_whole_for_a_single_watch_that_is_not_narrow
            an_open_round_is_given_back_as_it_was_begun
            a_round_planned_from_an_older_state_is_refused
            settlements_are_absolute_and_belong_to_one_round
            a_finished_round_moves_held
            held_moves_without_a_round_only_where_nothing_happened
            many_lanes_settle_at_once
            failed_tries_of_the_head_are_counted
            a_blocked_cursor_keeps_its_round_and_its_place
            a_settlement_blocks_and_unblocks_its_cursor
            a_streak_is_sent_again_by_itself_once
            a_block_by_refusals_ends_with_a_test_or_by_hand
            a_block_by_refusals_outlives_its_round
            a_block_that_no_streak_led_to_is_looked_at_again
            a_letter_that_the_open_round_binds_is_not_sent_again_by_itself
            outcomes_above_the_position_are_written_once_however_often_they_come
            a_streak_that_begins_anew_with_the_same_number_is_written
            the_guard_is_waived_until_a_round_that_is_no_redrive
            what_has_nothing_to_do_is_not_pending
            a_dead_letter_is_bound_by_the_next_round_and_stays_in_its_list
            a_letter_that_its_round_passed_is_superseded
            a_redrive_sends_what_was_asked_for
            a_superseded_letter_cannot_be_redriven
            letters_are_listed_newest_first
            a_redrive_of_many_goes_on_step_by_step_and_says_how_far_it_is
            letters_are_searched_by_everything_that_is_known_of_them
            a_filter_means_the_same_letters_wherever_it_stands
            a_cancelled_redrive_reopens_what_it_did_not_reach
            a_cancelled_redrive_of_many_counts_each_letter_once
            a_redrive_asked_for_before_a_cancelled_one_has_ended_follows_it
            a_streak_that_ended_with_its_round_is_sent_again_after_a_test_or_by_hand
            a_dismissed_letter_is_closed_for_good
            a_letter_of_the_open_round_cannot_be_dismissed
            many_letters_are_dismissed_step_by_step
            letters_that_lack_their_content_are_found_page_by_page
            the_head_that_was_seen_is_skipped_and_no_other
            the_trees_of_a_watch_are_what_its_app_may_have
            what_is_sent_again_is_behind_until_it_ends
            a_resync_in_mid_round_keeps_every_tree
            a_resync_binds_and_supersedes_letters
            a_resync_goes_before_anything_else
            a_resync_that_nobody_heard_of_leaves_deletes_unknown
            a_complete_resync_that_is_ended_stays_complete
            a_replay_goes_back_to_what_was_held
            a_replay_begins_as_it_was_asked_for
            a_replay_that_waits_while_its_branch_goes_leads_to_nothing
            a_hook_is_taken_in_once
            a_hook_is_judged_by_what_is_watched
            a_replayed_hook_is_judged_anew
            receipts_are_listed_in_the_order_of_arrival
            refused_hooks_are_bounded_and_take_nobodys_place
            old_receipts_go
            rounds_are_listed_newest_first_or_from_a_number_on
            rounds_of_many_cursors_come_in_one_order
            the_round_that_began_last_is_known_without_its_row
            a_round_of_before_is_given_back_as_it_was_begun
            what_became_of_each_change_is_told
            pins_are_what_rounds_need
            the_probe_of_a_breaker_goes_to_one_caller
            blobs_are_answered_in_order
            history_goes_but_nothing_that_is_needed
            too_much_history_of_an_app_is_shortened
            totals_count_what_there_is
            lag_is_told_of_what_is_served_and_behind
            late_apps_and_failing_sources_are_counted
        }
    };
    ($make:path => $($promise:ident)+) => {
        $(
            #[tokio::test]
            async fn $promise() {
                let made: Option<_> = $make().await.into();
                let Some((store, _kept)) = made else { return };
                $crate::testing::store_contract::$promise(&store).await;
            }
        )+
    };
}
