use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

fn plan(k: usize, n: usize, wanted: u64) -> ReadPlan {
    ReadPlan { code: Code::new(k, n - k).unwrap(), wanted_whole: wanted, wanted_part: 0, known: 0, last_resort: 0 }
}

fn whole(shard: usize) -> Ask {
    Ask { shard, whole: true }
}

fn part(shard: usize) -> Ask {
    Ask { shard, whole: false }
}

#[test]
fn all_well_asks_for_what_is_wanted_and_nothing_else() {
    let mut machine = ReadMachine::new(ReadPlan { wanted_part: 0b1000, ..plan(4, 6, 0b0110) });
    let step = machine.start();
    assert_eq!(step, Step { asks: vec![whole(1), whole(2), part(3)], verdict: None });
    assert_eq!(machine.on(ReadEvent::Arrived(part(3))), Step::default());
    assert_eq!(machine.on(ReadEvent::Arrived(whole(1))), Step::default());
    assert_eq!(machine.on(ReadEvent::Arrived(whole(2))).verdict, Some(Verdict::Direct));
}

#[test]
fn a_lost_shard_is_replaced_by_one_parity_shard() {
    let mut machine = ReadMachine::new(plan(4, 6, 0b1111));
    machine.start();
    assert_eq!(machine.on(ReadEvent::Failed(whole(2))).asks, [whole(4)]);
    for shard in [0, 1, 4] {
        assert_eq!(machine.on(ReadEvent::Arrived(whole(shard))), Step::default());
    }
    assert_eq!(machine.on(ReadEvent::Arrived(whole(3))).verdict, Some(Verdict::Decode));
}

#[test]
fn a_part_that_arrived_is_asked_for_again_only_when_nothing_else_is_left() {
    let mut machine = ReadMachine::new(ReadPlan { wanted_part: 0b11, ..plan(2, 3, 0) });
    assert_eq!(machine.start().asks, [part(0), part(1)]);
    assert_eq!(machine.on(ReadEvent::Arrived(part(0))), Step::default());
    // Shard 1 fails: two whole shards are needed, of 0 (in hand in part) and 2.
    assert_eq!(machine.on(ReadEvent::Failed(part(1))).asks, [whole(2), whole(0)]);
    assert_eq!(machine.on(ReadEvent::Arrived(whole(2))), Step::default());
    assert_eq!(machine.on(ReadEvent::Failed(whole(0))).verdict, Some(Verdict::Fail));
}

#[test]
fn one_copy_fails_directly() {
    let mut machine = ReadMachine::new(plan(1, 1, 1));
    machine.start();
    assert_eq!(machine.on(ReadEvent::Late(whole(0))), Step::default());
    assert_eq!(machine.on(ReadEvent::Failed(whole(0))), Step { asks: vec![], verdict: Some(Verdict::Fail) });
}

#[test]
fn a_late_shard_asks_for_one_more_and_never_for_more_than_m() {
    let mut machine = ReadMachine::new(plan(4, 6, 0b1111));
    machine.start();
    // Four are outstanding, m is two: everyone is slow.
    assert_eq!(machine.on(ReadEvent::Late(whole(2))), Step::default());
    machine.on(ReadEvent::Arrived(whole(0)));
    machine.on(ReadEvent::Arrived(whole(1)));
    assert_eq!(machine.on(ReadEvent::Late(whole(2))).asks, [whole(4)]);
    assert_eq!(machine.on(ReadEvent::Late(whole(2))), Step::default());
    assert_eq!(machine.on(ReadEvent::Late(whole(3))).asks, [whole(5)]);
    assert_eq!(machine.on(ReadEvent::Late(whole(4))), Step::default());
    machine.on(ReadEvent::Arrived(whole(5)));
    assert_eq!(machine.on(ReadEvent::Arrived(whole(4))).verdict, Some(Verdict::Decode));
}

#[test]
fn a_late_shard_that_comes_first_wins() {
    let mut machine = ReadMachine::new(plan(2, 4, 0b01));
    machine.start();
    assert_eq!(machine.on(ReadEvent::Late(whole(0))).asks, [whole(1), whole(2)]);
    assert_eq!(machine.on(ReadEvent::Arrived(whole(0))).verdict, Some(Verdict::Direct));
}

#[test]
fn one_loss_of_an_lrc_takes_the_rest_of_its_group() {
    let lrc = ReadPlan { code: Code::lrc(12, 2, 2).unwrap(), ..plan(4, 6, 1 << 3) };
    let mut machine = ReadMachine::new(lrc);
    machine.start();
    let asks = machine.on(ReadEvent::Failed(whole(3))).asks;
    assert_eq!(asks, [0, 1, 2, 4, 5, 12].map(whole));
    // One of those is lost too: everything is needed now, and the other group's own parity adds nothing to it.
    assert_eq!(machine.on(ReadEvent::Failed(whole(12))).asks, [6, 7, 8, 9, 10, 11, 14].map(whole));
    for shard in [0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11] {
        assert_eq!(machine.on(ReadEvent::Arrived(whole(shard))).verdict, None);
    }
    assert_eq!(machine.on(ReadEvent::Arrived(whole(14))).verdict, Some(Verdict::Decode));
}

#[test]
fn known_shards_count() {
    // A chunk so short that shards 1..4 are zeros: one parity shard replaces the lost shard 0.
    let mut machine = ReadMachine::new(ReadPlan { known: 0b1110, ..plan(4, 6, 0b0001) });
    assert_eq!(machine.start().asks, [whole(0)]);
    assert_eq!(machine.on(ReadEvent::Failed(whole(0))).asks, [whole(4)]);
    assert_eq!(machine.on(ReadEvent::Arrived(whole(4))).verdict, Some(Verdict::Decode));
}

#[test]
fn shards_of_last_resort_are_asked_when_nothing_else_is_left() {
    let mut machine = ReadMachine::new(ReadPlan { last_resort: 0b01, ..plan(2, 3, 0b11) });
    assert_eq!(machine.start().asks, [whole(1), whole(2)]);
    assert_eq!(machine.on(ReadEvent::Failed(whole(2))).asks, [whole(0)]);
    machine.on(ReadEvent::Arrived(whole(0)));
    assert_eq!(machine.on(ReadEvent::Arrived(whole(1))).verdict, Some(Verdict::Direct));
    // With no parity to spare it is asked at once, and alone.
    let mut machine = ReadMachine::new(ReadPlan { last_resort: 0b01, ..plan(2, 2, 0b01) });
    assert_eq!(machine.start().asks, [whole(0)]);
}

#[test]
fn an_event_out_of_the_blue_changes_nothing() {
    let mut machine = ReadMachine::new(plan(2, 3, 0b11));
    machine.start();
    assert_eq!(machine.on(ReadEvent::Arrived(whole(2))), Step::default());
    assert_eq!(machine.on(ReadEvent::Failed(part(0))), Step::default());
    assert_eq!(machine.on(ReadEvent::Arrived(whole(0))), Step::default());
    assert_eq!(machine.on(ReadEvent::Arrived(whole(0))), Step::default());
    assert_eq!(machine.on(ReadEvent::Arrived(whole(1))).verdict, Some(Verdict::Direct));
}

fn any_plan() -> impl Strategy<Value = ReadPlan> {
    let rs = (1usize..=10, 0usize..=5).prop_map(|(k, m)| Code::new(k, m).unwrap());
    let lrc = (2usize..=12, 1usize..=3, 1usize..=2).prop_map(|(k, l, g)| Code::lrc(k, l.min(k), g).unwrap());
    prop_oneof![rs, lrc].prop_flat_map(|code| {
        let (data, all) = ((1u64 << code.k()) - 1, code.all());
        (any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>()).prop_map(move |(whole, part, known, last_resort)| {
            let known = known & part & data; // one in four
            let wanted_whole = whole & data & !known;
            let wanted_part = part & data & !known & !wanted_whole;
            ReadPlan { code, wanted_whole, wanted_part, known, last_resort: last_resort & all }
        })
    })
}

/// Drives a machine with one random story and checks every promise on the way. Each draw picks what happens next: one of
/// the outstanding asks is late, or an answer to one of the outstanding asks, good or bad.
fn drive(plan: ReadPlan, draws: &[(u8, u8)], failing: u64) -> Result<(), TestCaseError> {
    let mut machine = ReadMachine::new(plan);
    let mut asked = HashSet::new();
    let mut outstanding: Vec<Ask> = Vec::new();
    let (mut have_part, mut have_whole, mut failed) = (0u64, plan.known, 0u64);
    let (wanted, code) = (plan.wanted_whole | plan.wanted_part, plan.code);
    let mut degraded = wanted & plan.last_resort != 0;
    let mut step = machine.start();
    let mut draws = draws.iter();
    loop {
        for ask in &step.asks {
            prop_assert!(ask.shard < code.n() && plan.known >> ask.shard & 1 == 0, "asks for {ask:?}");
            prop_assert!(asked.insert(*ask), "asks twice for {ask:?}");
            prop_assert!(failed >> ask.shard & 1 == 0, "asks a failed shard for {ask:?}");
            prop_assert!(ask.whole || plan.wanted_part >> ask.shard & 1 == 1);
            if plan.last_resort >> ask.shard & 1 == 1 {
                let parts_flying = outstanding.iter().filter(|o| !o.whole).fold(0u64, |set, o| set | 1 << o.shard);
                let lost = failed | machine.late & machine.flying() | parts_flying & !wanted;
                let others = code.all() & !plan.last_resort & !lost | plan.known;
                let parts = parts_flying | have_part;
                let unfinished = wanted & !(have_part | have_whole);
                prop_assert!(
                    !code.recovers(others & !parts, unfinished),
                    "asks a shard of last resort while others would do"
                );
            }
            if !degraded {
                prop_assert!(wanted >> ask.shard & 1 == 1, "asks for more than is wanted though all is well");
            }
            outstanding.push(*ask);
        }
        prop_assert!(count(machine.late) <= code.losses_survived());
        if let Some(verdict) = step.verdict {
            let direct = wanted & !(have_part | have_whole) == 0;
            match verdict {
                Verdict::Direct => prop_assert!(direct),
                Verdict::Decode => {
                    prop_assert!(!direct && code.recovers(have_whole, wanted & !(have_part | have_whole)));
                }
                Verdict::Fail => {
                    prop_assert!(wanted & failed != 0 || wanted & plan.last_resort & !(have_part | have_whole) != 0);
                    let unfinished = wanted & !(have_part | have_whole);
                    prop_assert!(!code.recovers(code.all() & !failed, unfinished), "gives up too early");
                }
            }
            prop_assert_eq!(machine.whole_in_hand(), count(have_whole));
            return Ok(());
        }
        prop_assert!(!outstanding.is_empty(), "waits for nothing");
        // Once the story is told, everything outstanding is answered.
        let (what, which) = draws.next().copied().unwrap_or((255, 0));
        if what < 60 {
            degraded = true;
            let ask = outstanding[usize::from(which) % outstanding.len()];
            step = machine.on(ReadEvent::Late(ask));
            continue;
        }
        let ask = outstanding.swap_remove(usize::from(which) % outstanding.len());
        step = if failing >> ask.shard & 1 == 1 {
            failed |= 1 << ask.shard;
            degraded = true;
            machine.on(ReadEvent::Failed(ask))
        } else {
            if ask.whole {
                have_whole |= 1 << ask.shard;
            } else {
                have_part |= 1 << ask.shard;
            }
            machine.on(ReadEvent::Arrived(ask))
        };
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn every_story_ends_and_keeps_the_promises(
        plan in any_plan(),
        draws in prop::collection::vec(any::<(u8, u8)>(), 0..40),
        failing in (any::<u64>(), any::<u64>(), any::<bool>()).prop_map(|(a, b, few)| if few { a & b } else { a }),
    ) {
        drive(plan, &draws, failing)?;
    }
}

#[test]
fn any_k_survivors_are_enough_whatever_fails() {
    // Every pattern of failures of RS(4,2), for every set of wanted shards, whole and in part.
    for failing in 0u64..64 {
        for wanted in 1u64..16 {
            for parts in [0, wanted, 0b0101 & wanted] {
                let plan = ReadPlan { wanted_part: parts, ..plan(4, 6, wanted & !parts) };
                let mut machine = ReadMachine::new(plan);
                let mut step = machine.start();
                let mut outstanding = Vec::new();
                let verdict = loop {
                    outstanding.append(&mut step.asks);
                    if let Some(verdict) = step.verdict {
                        break verdict;
                    }
                    let ask: Ask = outstanding.remove(0);
                    let lost = failing >> ask.shard & 1 == 1;
                    step = machine.on(if lost { ReadEvent::Failed(ask) } else { ReadEvent::Arrived(ask) });
                };
                let readable = wanted & failing == 0 || count(failing) <= 2;
                assert_eq!(verdict != Verdict::Fail, readable, "failing {failing:06b} wanted {wanted:04b}");
            }
        }
    }
}
