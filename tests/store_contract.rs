//! The contract of `imgate::store::Store`: one suite, run on every implementation, and what is special to each.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test says what is wrong by failing"
)]

#[path = "store_contract/embedded_faults.rs"]
mod embedded_faults;
#[path = "store_contract/fixture.rs"]
mod fixture;
#[path = "store_contract/fleet.rs"]
mod fleet;
#[path = "store_contract/leases.rs"]
mod leases;
#[path = "store_contract/log.rs"]
mod log;
#[path = "store_contract/records.rs"]
mod records;
#[path = "store_contract/redis_content.rs"]
mod redis_content;
#[path = "store_contract/redis_failover.rs"]
mod redis_failover;
#[path = "store_contract/redis_faults.rs"]
mod redis_faults;
#[path = "store_contract/redis_fleet.rs"]
mod redis_fleet;
#[path = "store_contract/redis_growth.rs"]
mod redis_growth;
#[path = "support/redis.rs"]
mod redis_server;
#[path = "support/sentinel.rs"]
mod sentinel;
#[path = "store_contract/shares.rs"]
mod shares;
#[path = "store_contract/subscriptions.rs"]
mod subscriptions;
#[path = "store_contract/tenants.rs"]
mod tenants;
#[path = "store_contract/twins.rs"]
mod twins;

/// Runs the whole suite in a module of its own for each implementation; `$open` gives a guard and a new store.
macro_rules! contract {
    ($($implementation:ident: $open:expr;)+) => {
        $(mod $implementation {
            contract!(@suite $open;
                leases: a_free_partition_is_granted_and_a_held_one_is_not,
                leases: a_restarted_owner_gets_a_greater_epoch,
                leases: a_lease_runs_out,
                leases: one_of_many_claimers_wins,
                leases: a_claim_goes_above_the_floor,
                leases: nothing_is_given_out_without_a_floor_where_no_epoch_is_known,
                leases: a_renewed_lease_lasts,
                leases: an_unknown_lease_is_missing_and_may_still_write,
                leases: a_released_partition_is_free,
                leases: a_lease_of_another_is_not_released,
                leases: a_stale_owner_writes_nothing,
                leases: a_partition_never_claimed_takes_no_write,
                records: a_commit_is_whole_and_sequences_are_dense,
                records: what_is_added_to_a_record_is_read_behind_it,
                records: sessions_come_in_the_order_of_accounts,
                records: big_records_and_events_come_back,
                records: large_batches_are_whole,
                records: concurrent_commits_do_not_mix,
                records: partitions_and_tenants_are_apart,
                records: sends_are_remembered_and_forgotten,
                log: a_read_is_after_a_place_and_bounded,
                log: a_log_keeps_its_identity,
                log: a_read_and_its_bounds_are_of_one_moment,
                log: a_log_is_trimmed_to_a_number_of_events_exactly,
                log: a_log_is_trimmed_to_a_number_of_bytes_exactly,
                log: a_log_is_trimmed_to_an_age_exactly,
                log: a_log_keeps_to_all_bounds_of_its_retention,
                log: missing_entries_do_not_count_for_retention,
                log: a_long_trim_goes_in_steps,
                log: the_last_batch_is_known,
                log: a_batch_that_comes_again_is_written_once,
                log: batches_without_an_id_are_all_written,
                log: retries_of_many_at_once_are_written_once,
                log: a_log_that_lost_its_newest_entries_leaves_a_hole,
                log: a_log_that_lost_everything_goes_on_as_the_same,
                log: what_was_seen_of_another_log_is_passed_over,
                tenants: the_first_layout_of_a_tenant_is_kept,
                tenants: a_purge_leaves_nothing_of_a_partition_and_all_of_others,
                subscriptions: a_subscription_only_moves_forward,
                subscriptions: a_subscription_follows_the_present_log_only,
                subscriptions: subscriptions_are_apart,
                subscriptions: subscriptions_are_listed,
                subscriptions: use_is_noted_also_where_nothing_moves,
                subscriptions: a_subscription_is_removed,
                subscriptions: one_that_is_to_move_only_if_it_is_there_is_not_made,
                subscriptions: only_what_is_not_used_expires,
                subscriptions: nobody_has_a_share_of_what_was_removed,
                subscriptions: it_answers,
                shares: members_come_and_go,
                shares: a_member_that_does_not_stay_runs_out,
                shares: members_are_of_one_subscription,
                shares: a_share_is_one_members,
                shares: one_of_many_members_gets_a_share,
                shares: a_share_that_is_not_kept_runs_out,
                shares: shares_are_apart,
                fleet: two_callers_together_get_the_rate_and_not_twice_the_rate,
                fleet: many_at_once_get_different_turns,
                fleet: no_more_than_a_seconds_turns_are_promised,
                fleet: turns_are_not_saved_up_and_apps_are_apart,
                fleet: an_active_account_counts_once,
                fleet: many_active_accounts_are_about_counted,
                fleet: active_days_and_tenants_are_apart,
            );
        })+
    };
    (@suite $open:expr; $($part:ident: $name:ident,)+) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            let (store, _guard) = $open;
            crate::$part::$name(store).await;
        })+
    };
}

contract! {
    memory: (std::sync::Arc::new(imgate::store::memory::MemoryStore::new()), ());
    measured: (crate::fixture::measured(), ());
    embedded: crate::fixture::embedded();
    redis: crate::fixture::redis().await;
}
