use crate::history::{History, state_of};

fn state(text: &str) -> crate::history::State {
    state_of([text.as_bytes()])
}

#[test]
fn what_was_acknowledged_must_be_there_and_nothing_else() {
    let history = History::default();
    history.begin("k", state("one"));
    history.acknowledge("k", state("one"));
    let glance = history.glance("k").unwrap();
    assert!(history.judge("k", &glance, state("one")).is_ok());
    assert!(history.judge("k", &glance, None).unwrap_err().contains("holds nothing"), "an acknowledged object is gone");
    assert!(history.judge("k", &glance, state("other")).unwrap_err().contains("nobody ever wrote that"));
    history.begin("k", None);
    history.acknowledge("k", None);
    let glance = history.glance("k").unwrap();
    assert!(history.judge("k", &glance, state("one")).unwrap_err().contains("came back"), "a deleted object is back");
}

#[test]
fn without_an_answer_both_may_be_until_somebody_looks() {
    let history = History::default();
    history.begin("k", state("one"));
    history.acknowledge("k", state("one"));
    history.begin("k", state("two"));
    let glance = history.glance("k").unwrap();
    for may in ["one", "two"] {
        assert!(history.judge("k", &glance, state(may)).is_ok());
    }
    history.settle("k", state("one"));
    let glance = history.glance("k").unwrap();
    assert!(history.judge("k", &glance, state("two")).is_err(), "in the calm nothing may happen any more");
}

#[test]
fn a_read_may_show_what_began_while_it_ran_and_nothing_older() {
    let history = History::default();
    history.begin("k", state("one"));
    history.acknowledge("k", state("one"));
    history.begin("k", state("two"));
    history.acknowledge("k", state("two"));
    let glance = history.glance("k").unwrap();
    history.begin("k", state("three"));
    history.acknowledge("k", state("three"));
    assert!(history.judge("k", &glance, state("two")).is_ok() && history.judge("k", &glance, state("three")).is_ok());
    assert!(history.judge("k", &glance, state("one")).unwrap_err().contains("came back"));
    assert!(history.glance("never").is_none());
}

#[test]
fn pieces_make_no_difference() {
    assert_eq!(state_of([&b"ab"[..], b"c"]), state_of([&b"abc"[..]]));
    assert_ne!(state_of([&b""[..]]), None);
}
