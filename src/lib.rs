//! imgate holds many upstream IM sessions on behalf of server-side bots.
//!
//! A bot calls `Login`, reads events from `Subscribe` and calls `Send`. imgate keeps the account logged in: sockets,
//! signatures, reconnects, kicks and missed messages are its business. `README.md` tells how to use and run it;
//! this page tells how it is put together.
//!
//! # Words
//!
//! | word | meaning |
//! |---|---|
//! | tenant | a customer of the gateway: callers, upstream app, bounds, policies. It sees nothing of another tenant |
//! | caller | who calls on behalf of a tenant, known by an API key, a client certificate or the subject of a JWT |
//! | operator | who runs the gateway: known by a key that is no tenant's |
//! | account | one upstream user ID of a tenant |
//! | session | the gateway's holding of one account: desired state, credential, ticket, reading position, state |
//! | signature | the login credential (Tencent: UserSig). It ends; it can be renewed |
//! | ticket | what the upstream gives at a login, to resume with (Tencent: the A2 key). Using it is no login |
//! | issuer | where a signature comes from when the bot brings none: `callback` (the tenant's service), `local` (the tenant's secret key) or `manual` (the bot, asked). Of JWTs: who signs them |
//! | connector | one upstream protocol |
//! | partition | the unit of ownership, ordering and logging: a tenant and a hash of the account |
//! | replica | one imgate process |
//! | lease | a replica's time-bounded ownership of a partition, with an **epoch** that only grows |
//! | log | the durable events of a partition, numbered without holes by their **sequence** |
//! | cursor | an opaque token: a position in the log of each partition of a tenant |
//! | subscription | a named, stored reading position, moved by `Acknowledge` |
//! | member | one of the streams that share a subscription and split its partitions among them |
//!
//! # Guarantees
//!
//! Each line names what holds it and a test that tries to break it. All of G1 to G6 are also tried by
//! `every_life_keeps_the_guarantees` in `src/session/tests/properties.rs`, in random lives against a reference model.
//!
//! | | guarantee | held by | tested by |
//! |---|---|---|---|
//! | G1 | One login at a time: callers join the one in flight, and an account that is online answers at once | `src/session/commands.rs` | `src/session/tests/stories.rs` `logins_on_the_way_join_the_one_in_flight`; `src/runtime/session_actor/tests.rs` `concurrent_logins_join_and_an_online_account_answers_at_once` |
//! | G2 | A network drop is not a login: the session resumes by its ticket, also after a restart | `src/session/transitions.rs`, `src/runtime/record.rs` | `src/session/tests/stories.rs` `a_restored_session_comes_back_by_ticket_after_its_delay`; `src/runtime/session_actor/tests.rs` `a_stop_keeps_the_session_and_the_next_process_resumes_it` |
//! | G3 | Expired means renewed: one renewal in flight, then one login; renewals are counted and paced | `src/session/signatures.rs`, `src/runtime/issuer/mod.rs` | `src/session/tests/stories.rs` `fresh_signatures_that_are_refused_again_and_again_are_paced_and_then_parked`; `tests/trouble/issuers.rs` `a_thousand_sessions_that_end_at_once_ask_one_by_one_and_in_turn` |
//! | G4 | Kicked means yield: no login by itself, or one at most where the tenant asks for it | `src/session/transitions.rs` | `src/session/tests/stories.rs` `a_kick_is_taken_back_once_and_the_second_one_parks` |
//! | G5 | Refused means stop: a permanent refusal parks the session with the reason, until a Login | `src/connectors/tencent/codes.rs` | `src/session/tests/stories.rs` `a_permanent_refusal_parks_until_the_next_login` |
//! | G6 | Desired state is kept: what was logged in comes back, what was logged out stays out | `src/runtime/record.rs`, `src/runtime/registry.rs` | `src/session/tests/stories.rs` `what_was_logged_out_stays_out`; `tests/store_contract/embedded_faults.rs` `nothing_that_was_answered_is_lost_by_kill_nine` |
//! | G7 | No event is lost, none is hidden: a push is acknowledged upstream after it is in the log; a reader gets everything after its cursor, or a `Gap` | `src/runtime/session_actor/outbox.rs`, `src/events/place.rs` | `src/runtime/session_actor/tests.rs` `a_push_is_acknowledged_only_after_it_is_stored`; `src/events/subscription/tests/mod.rs` `a_resumed_subscription_misses_nothing`; `src/events/subscription/tests/crowd.rs` `one_that_stalls_holds_one_batch_and_delays_nobody`; `tests/grpc_api/events.rs` `a_stalled_subscriber_delays_nobody_and_loses_nothing` |
//! | G8 | One owner: every write carries its lease's epoch, and the store refuses a stale one | `src/store/mod.rs`, `src/cluster/ownership.rs` | `tests/store_contract/leases.rs` `a_stale_owner_writes_nothing`; `src/runtime/session_actor/tests.rs` `a_lost_lease_closes_the_session_and_stores_nothing_more` |
//! | G9 | A store that is away is no outage: sockets stay up, events wait in bounded queues, new logins say UNAVAILABLE | `src/events/log/writer.rs` | `src/events/log/tests.rs` `a_store_that_is_away_or_full_is_waited_for`; `tests/store_contract/redis_faults.rs` `a_server_that_stops_and_goes_on_loses_nothing` |
//! | G10 | Tenants are walls: a caller is one tenant's and has scopes, tokens are a tenant's own, credentials are sealed and never shown | `src/tenants/directory.rs`, `src/store/seal.rs` | `tests/isolation.rs` `what_is_anothers_is_as_if_it_were_not_there`; `tests/secrets.rs` `no_secret_is_to_be_seen_with_redis`; `tests/grpc_api/events.rs` `tenants_do_not_see_each_other`; `tests/grpc_api.rs` `nobody_gets_anywhere_without_a_key`; `tests/grpc_api/callers.rs` `the_operators_methods_are_no_tenants_and_the_tenants_no_operators`; `src/tenants/keys.rs` `every_key_costs_the_same_whether_it_is_right_or_wrong` |
//!
//! # Rooms
//!
//! A folder is a degree of purity and a role. What may import what is written down, and checked, in
//! `tests/layering.rs`.
//!
//! - **Common**: [`types`] and [`error`] are everybody's; [`proto`] is generated from `proto/`.
//! - **Pure**: [`session`] is the state machine of one session. It knows no clock, socket, task or store: time is an
//!   argument, and what it wants done is a list of effects. In [`connectors`] the codecs and the conversation with
//!   the upstream are pure too; only the dialling in [`connectors::websocket`] is not.
//! - **State**: [`store`] has one trait and three implementations (Redis, embedded, memory) that pass one contract.
//!   [`events`] is the way of an event from the log to a subscriber.
//! - **Action**: [`runtime`] turns effects into actions, one task per session; every task is spawned by
//!   [`runtime::supervisor`]. [`cluster`] keeps the leases and tells the runtime which partitions it holds.
//! - **The outside**: [`grpc`] is the API for bots, [`tenants`] says who may call it, [`config`] what an operator may
//!   set, [`observability`] what an operator sees. [`sim`] is an upstream to try and test with. [`app`] puts all
//!   parts together, [`cli`] starts it.
//!
//! Imports point this way, besides the common rooms:
//!
//! ```text
//!  cli ──▶ app ──▶ grpc ──────────▶ runtime::handle
//!   │       ├────▶ cluster ───────▶ runtime::handle, store
//!   │       ├────▶ observability ─▶ runtime::supervisor, config
//!   ▼       ▼
//!  sim   runtime ──▶ session, connectors, events, store
//!                    connectors ──▶ session (inputs, effects, dispositions)
//!                    events ──────▶ store
//! ```
//!
//! # The life of a login
//!
//! 1. [`grpc`] finds out who calls ([`tenants::directory`]), checks the fields and calls [`runtime::handle`]. It holds no state.
//! 2. The gateway finds the session's task, or starts one from the stored record, and puts the call in its mailbox.
//!    If the account is not online, the store must answer first: a login that cannot be stored would be forgotten.
//! 3. The task gives [`session::Session::handle`] an `Input::Login`. A session that is on the way joins the caller to
//!    the login in flight; one that is online answers; one without a signature wants `Effect::RenewSignature`, for
//!    which the task asks the tenant's issuers ([`runtime::issuer`]) and goes on meanwhile; any other wants
//!    `Effect::Connect`.
//! 4. The upstream app's pacer gives the connection its turn; the dialler opens it. `Effect::LogIn` carries the ticket, if
//!    there is one, or else the signature. The connector writes the frame and reads the answer.
//! 5. The table in [`connectors::tencent::codes`] says what a refusal means: renew, retry, throttle, park. The session
//!    decides, and backs off, waits for a signature, parks or is online.
//! 6. The record is stored under the partition's lease, and then the caller is answered: an answer is true, also
//!    after a crash.
//!
//! A caller whose deadline passes gets DEADLINE_EXCEEDED; the login goes on, and the next `Login` joins it.
//!
//! # The life of an event
//!
//! 1. A frame comes in. The connector unpacks it within bounds, drops what it has seen, orders group messages by
//!    their sequence, fetches what is missing first, and reports events and the acknowledgement that is due.
//! 2. The session's task hands the events to the partition's writer together with its record, which holds the new
//!    reading position: both are stored, or neither.
//! 3. The writer seals the events, if the tenant asks for that, and commits groups under the lease's epoch. While the
//!    store is away it tries again and its queue fills; then pushes are left unacknowledged, and are fetched from the
//!    upstream later.
//! 4. When it is stored, the acknowledgement goes upstream, and the hub wakes the subscriptions. On this replica they
//!    find the event in the log's tail, a bounded memory that all of them share; another replica hears from the store
//!    that the log has grown ([`events::follower`]), and reads it once into the tail of its own.
//! 5. Each subscription goes on at its own pace, one batch when its stream has room. Who is behind the tail reads the
//!    log alone until it has caught up. What is gone from the log is told as a `Gap`. The cursor of a batch stands
//!    behind its last event.
//!
//! All the time an event of the replica's own goes this way, through a partition that is no tenant's
//! ([`events::canary`]). While none comes through, the replica is not ready, whatever the store answers.
//!
//! # Keys that change
//!
//! The sealing keys can be replaced while everything runs ([`store::seal::Sealer::replace`]). A session lives by what is
//! in its memory, so it does not matter to it that the key of its record is gone; its next save is under the active
//! key. `runtime::reseal` goes through the stored records, which alone say what is left to do: a session is asked to
//! save, a record at rest is opened and sealed anew while its account is kept from being logged in. What it does is
//! watched through `AdminService.RotateKeys`.
//!
//! # Stopping
//!
//! [`app::App::stop`] goes in order, within the grace time: not ready, no new calls, streams and the canary end;
//! sessions close their sockets without logging out and store what they have; the writers flush; the leases go back.

pub mod app;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod connectors;
pub mod error;
pub mod events;
pub mod grpc;
mod net;
pub mod observability;
pub mod proto;
pub mod runtime;
pub mod session;
pub mod sim;
pub mod store;
pub mod tenants;
pub mod types;
