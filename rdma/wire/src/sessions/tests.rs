//! The tables, by hand and against a model.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};

use proptest::prelude::*;

use super::*;
use crate::checksum::Algorithm;
use crate::rcv2::{Operation, Prepare, Ready};
use crate::{SessionId, WireError};

const PREPARE_MS: u64 = 10_000;

fn table() -> Prepared<u32, u32> {
    Prepared::new(PreparedOptions { prepare_ms_max: PREPARE_MS })
}

fn session(owns: u32, key: &str, cookie: u32, operation: Operation) -> Session<u32> {
    let prepare = Prepare {
        peer: None,
        psn: 1,
        cookie,
        operation,
        target: "/b/k".to_owned(),
        size: 1,
        offset: 0,
        checksum: Algorithm::Crc64Nvme,
    };
    Session { access_key: key.to_owned(), prepare, owns }
}

fn ready(id: u128, cookie: u32) -> Ready {
    Ready { session: SessionId(id), cookie, qpn: 1, memory: Some((1, 1)) }
}

#[test]
fn a_session_is_ready_once() {
    let mut table = table();
    table.insert(0, SessionId(1), session(7, "a", 5, Operation::Get));
    // What is wrong with one READY leaves the session for the next.
    assert_eq!(table.ready(1, "b", &ready(1, 5), 0).unwrap_err(), WireError::OtherCredential);
    assert_eq!(table.ready(1, "a", &ready(1, 6), 0).unwrap_err(), WireError::CookieMismatch);
    let blind = Ready { memory: None, ..ready(1, 5) };
    assert!(matches!(table.ready(1, "a", &blind, 0).unwrap_err(), WireError::Malformed { .. }));
    assert_eq!(table.ready(1, "a", &ready(2, 5), 0).unwrap_err(), WireError::UnknownSession);
    let Granted(granted) = table.ready(PREPARE_MS - 1, "a", &ready(1, 5), 9).unwrap();
    assert_eq!(granted.owns, 7);
    assert_eq!(table.ready(2, "a", &ready(1, 5), 0).unwrap_err(), WireError::AlreadyReady);
    assert_eq!(table.ready(2, "b", &ready(1, 5), 0).unwrap_err(), WireError::OtherCredential);
    assert!(matches!(table.cancel("a", SessionId(1), None), Cancelled::Executing(9)));
    table.ended(SessionId(1));
    assert_eq!(table.ready(2, "a", &ready(1, 5), 0).unwrap_err(), WireError::UnknownSession);
    assert!(table.is_empty());
}

#[test]
fn a_put_needs_no_memory_of_the_clients() {
    let mut table = table();
    table.insert(0, SessionId(1), session(7, "a", 5, Operation::Put));
    assert!(table.ready(1, "a", &Ready { memory: None, ..ready(1, 5) }, 0).is_ok());
}

#[test]
fn sessions_expire_and_are_cancelled_by_their_owner_alone() {
    let mut table = table();
    table.insert(0, SessionId(1), session(1, "a", 5, Operation::Get));
    table.insert(5_000, SessionId(2), session(2, "a", 5, Operation::Get));
    assert_eq!(table.ready(PREPARE_MS, "a", &ready(1, 5), 0).unwrap_err(), WireError::Expired);
    let swept: Vec<u32> = table.sweep(PREPARE_MS).into_iter().map(|session| session.owns).collect();
    assert_eq!(swept, [1]);
    assert!(matches!(table.cancel("b", SessionId(2), None), Cancelled::Nothing));
    assert!(matches!(table.cancel("a", SessionId(2), Some(4)), Cancelled::Nothing));
    assert!(matches!(table.cancel("a", SessionId(2), Some(5)), Cancelled::Prepared(session) if session.owns == 2));
    assert!(matches!(table.cancel("a", SessionId(2), Some(5)), Cancelled::Nothing));
    assert!(table.is_empty());
}

#[test]
fn keys_hold_so_much_and_no_more() {
    let caps = Caps {
        key_sessions_max: 2,
        key_queue_pairs_max: 3,
        key_staging_bytes_max: 100,
        sessions_max: 3,
        queue_pairs_max: 4,
        staging_bytes_max: 150,
    };
    let mut ledger = Ledger::new(caps);
    let one = Claim { sessions: 1, queue_pairs: 1, staging_bytes: 60 };
    ledger.take(Some("a"), one).unwrap();
    assert_eq!(ledger.take(Some("a"), one), Err(WireError::Full { what: "bytes of staging memory" }));
    ledger.take(Some("b"), one).unwrap();
    // Both have room of their own, the whole has not.
    assert_eq!(ledger.take(Some("c"), one), Err(WireError::Full { what: "bytes of staging memory" }));
    let small = Claim { staging_bytes: 1, ..one };
    ledger.take(Some("a"), small).unwrap();
    assert_eq!(ledger.take(Some("a"), small), Err(WireError::Full { what: "sessions" }));
    let connection = Claim { queue_pairs: 1, ..Claim::default() };
    ledger.take(None, connection).unwrap();
    assert_eq!(ledger.take(None, connection), Err(WireError::Full { what: "queue pairs" }));
    ledger.bind("a", connection).unwrap();
    assert_eq!(ledger.bind("a", connection), Err(WireError::Full { what: "queue pairs" }));
    ledger.give_back(Some("a"), connection);
    ledger.give_back(Some("a"), one);
    ledger.give_back(Some("a"), small);
    ledger.give_back(Some("b"), one);
    assert_eq!(ledger.held(), Claim::default());
    assert_eq!(ledger.held_by("a"), Claim::default());
    assert!(ledger.could_stage(100) && !ledger.could_stage(101));
}

#[test]
fn numbers_rest() {
    let mut retired = Retired::new(100, 2);
    retired.check(0).unwrap();
    retired.retire(0, 7, 8);
    retired.retire(50, 7, 9);
    assert!(!retired.may_use(7, 8) && retired.may_use(8, 7));
    assert!(matches!(retired.check(99), Err(WireError::Full { .. })));
    retired.check(100).unwrap();
    assert!(retired.may_use(7, 8) && !retired.may_use(7, 9));
}

fn source(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, last))
}

#[test]
fn connections_belong_to_the_first_who_uses_them() {
    let options = ConnectionsOptions { connections_max: 3, source_connections_max: 2, idle_ms_max: 1000 };
    let mut table = Connections::new(options);
    table.insert(0, SessionId(1), source(1), 'a').unwrap();
    table.insert(0, SessionId(2), source(1), 'b').unwrap();
    assert_eq!(
        table.insert(0, SessionId(3), source(1), 'c'),
        Err((WireError::Full { what: "connections of one source" }, 'c'))
    );
    table.insert(0, SessionId(3), source(2), 'c').unwrap();
    assert!(matches!(table.check(source(3)), Err(WireError::Full { what: "connections" })));
    assert_eq!(table.take(SessionId(1), "k"), Ok(('a', true)));
    assert_eq!(table.take(SessionId(1), "k"), Err(WireError::Busy));
    assert_eq!(table.take(SessionId(1), "l"), Err(WireError::OtherCredential));
    assert_eq!(table.take(SessionId(9), "k"), Err(WireError::UnknownSession));
    assert_eq!(table.put_back(10, SessionId(1), 'a'), None);
    assert_eq!(table.take(SessionId(1), "k"), Ok(('a', false)));
    // Disconnected while in use: whoever uses it destroys it.
    assert_eq!(table.disconnect(SessionId(1)), None);
    assert_eq!(table.take(SessionId(1), "k"), Err(WireError::UnknownSession));
    assert_eq!(table.put_back(20, SessionId(1), 'a'), Some('a'));
    assert_eq!(table.disconnect(SessionId(2)), Some('b'));
    assert_eq!(table.disconnect(SessionId(2)), None);
    assert_eq!(table.sweep(999), []);
    assert_eq!(table.sweep(1000), ['c']);
    assert!(table.is_empty());
    table.insert(0, SessionId(4), source(1), 'd').unwrap();
    assert_eq!(table.take(SessionId(4), "k"), Ok(('d', true)));
    table.broken(SessionId(4));
    assert!(table.is_empty() && table.check(source(1)).is_ok());
}

#[test]
fn a_connection_in_use_is_not_idle() {
    let options = ConnectionsOptions { connections_max: 3, source_connections_max: 2, idle_ms_max: 1000 };
    let mut table = Connections::new(options);
    table.insert(0, SessionId(1), source(1), 'a').unwrap();
    table.take(SessionId(1), "k").unwrap();
    assert_eq!(table.sweep(100_000), []);
    assert_eq!(table.put_back(100_000, SessionId(1), 'a'), None);
    assert_eq!(table.sweep(100_999), []);
    assert_eq!(table.sweep(101_000), ['a']);
}

#[derive(Clone, Debug)]
enum Step {
    Insert(u8, bool),
    Ready(u8, bool, bool),
    Ended(u8),
    Cancel(u8, bool),
    Wait(u16),
    Sweep,
}

fn step() -> impl Strategy<Value = Step> {
    let id = 0..6_u8;
    prop_oneof![
        (id.clone(), any::<bool>()).prop_map(|(id, key)| Step::Insert(id, key)),
        (id.clone(), any::<bool>(), any::<bool>()).prop_map(|(id, key, cookie)| Step::Ready(id, key, cookie)),
        id.clone().prop_map(Step::Ended),
        (id, any::<bool>()).prop_map(|(id, key)| Step::Cancel(id, key)),
        (0..7_000_u16).prop_map(Step::Wait),
        Just(Step::Sweep),
    ]
}

proptest! {
    /// Whatever happens, what a session owns comes back exactly once, and to READY only in time.
    #[test]
    fn nothing_is_lost_and_nothing_given_twice(steps in proptest::collection::vec(step(), 0..60)) {
        let key = |first: bool| if first { "a" } else { "b" };
        let mut table = table();
        let (mut now, mut next) = (0_u64, 0_u32);
        let mut prepared: HashMap<u8, (u32, u64, bool)> = HashMap::new();
        let mut executing = HashSet::new();
        let mut back = HashSet::new();
        for step in steps {
            match step {
                Step::Insert(id, owner) if !table.contains(SessionId(id.into())) => {
                    table.insert(now, SessionId(id.into()), session(next, key(owner), 5, Operation::Get));
                    prepared.insert(id, (next, now, owner));
                    next += 1;
                }
                Step::Ready(id, owner, cookie) => {
                    let answer = table.ready(now, key(owner), &ready(id.into(), if cookie { 5 } else { 6 }), 0);
                    let good = prepared
                        .get(&id)
                        .is_some_and(|(_, since, by)| *by == owner && cookie && now - since < PREPARE_MS);
                    prop_assert_eq!(answer.is_ok(), good);
                    if let Ok(Granted(session)) = answer {
                        prop_assert!(back.insert(session.owns));
                        prepared.remove(&id);
                        executing.insert(id);
                    }
                }
                Step::Ended(id) if executing.remove(&id) => table.ended(SessionId(id.into())),
                Step::Cancel(id, owner) => match table.cancel(key(owner), SessionId(id.into()), None) {
                    Cancelled::Prepared(session) => {
                        prop_assert!(back.insert(session.owns));
                        prop_assert!(prepared.remove(&id).is_some_and(|(_, _, by)| by == owner));
                    }
                    Cancelled::Executing(_) => prop_assert!(executing.contains(&id)),
                    Cancelled::Nothing => {}
                },
                Step::Wait(ms) => now += u64::from(ms),
                Step::Sweep => {
                    for session in table.sweep(now) {
                        prop_assert!(back.insert(session.owns));
                        prepared.retain(|_, (owns, ..)| *owns != session.owns);
                    }
                    prop_assert!(prepared.values().all(|(_, since, _)| now - since < PREPARE_MS));
                }
                _ => {}
            }
            prop_assert_eq!(table.len(), prepared.len() + executing.len());
        }
        prop_assert_eq!(back.len() + prepared.len(), next as usize);
    }
}
