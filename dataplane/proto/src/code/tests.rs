use super::*;

fn azure() -> Code {
    Code::lrc(12, 2, 2).unwrap()
}

#[test]
fn defaults_by_node_count() {
    let of = |n| Code::default_for_nodes(n).to_string();
    assert_eq!([of(1), of(2), of(3), of(6), of(13), of(14)], ["1x", "1x", "RS(2,1)", "RS(4,2)", "RS(4,2)", "RS(10,4)"]);
}

#[test]
fn quorum_is_one_more_than_always_enough_to_read() {
    assert_eq!(Code::ONE_COPY.write_quorum(), 1);
    assert_eq!(Code::replicas(3).unwrap().write_quorum(), 2);
    assert_eq!(Code::new(2, 1).unwrap().write_quorum(), 3);
    assert_eq!(Code::new(10, 4).unwrap().write_quorum(), 11);
    assert_eq!(azure().write_quorum(), 14);
}

#[test]
fn shards_are_cache_line_multiples_that_hold_the_chunk() {
    let code = Code::new(10, 4).unwrap();
    for chunk in [1, 63, 64, 640, 641, 4 << 20] {
        let shard = code.shard_bytes(chunk);
        assert_eq!(shard % 64, 0);
        assert!(shard * code.k() >= chunk);
        assert!(shard * code.k() < chunk + 64 * (code.k() + 1));
    }
}

#[test]
fn names_parse_and_print_and_nonsense_is_refused() {
    assert_eq!("RS(10,4)".parse::<Code>(), Code::new(10, 4));
    assert_eq!("4+2".parse::<Code>(), Code::new(4, 2));
    assert_eq!(" lrc( 12, 2 ,2 ) ".parse::<Code>(), Ok(azure()));
    assert_eq!("3x".parse::<Code>(), Code::new(1, 2));
    for text in ["RS(10,4)", "RS(20,4)", "LRC(12,2,2)", "LRC(7,3,1)", "3x", "1x"] {
        assert_eq!(text.parse::<Code>().unwrap().to_string(), text);
    }
    let nonsense = ["RS(0,2)", "RS(200,100)", "ten and four", "0x", "x", "LRC(12,2)", "LRC(12,2,3)", "LRC(12,0,2)"];
    for text in nonsense.into_iter().chain(["LRC(2,3,1)", "LRC(47,4,2)", "LRC(32,2,2)", "RS(1,2,3)", "RS(1,2", ""]) {
        assert!(text.parse::<Code>().is_err(), "{text}");
    }
    assert!("LRC(32,2,2)".parse::<Code>().unwrap_err().to_string().contains("LRC(12,2,2)"));
}

#[test]
fn three_bytes_that_are_checked() {
    for (code, bytes) in [(Code::new(10, 4).unwrap(), [10, 4, 0]), (azure(), [12, 4, 2]), (Code::ONE_COPY, [1, 0, 0])] {
        assert_eq!(postcard::to_allocvec(&code).unwrap(), bytes);
        assert_eq!(postcard::from_bytes::<Code>(&bytes), Ok(code));
    }
    for bytes in [[0, 4, 0], [40, 40, 0], [12, 1, 2], [12, 2, 2], [12, 9, 2]] {
        assert!(postcard::from_bytes::<Code>(&bytes).is_err(), "{bytes:?}");
    }
}

#[test]
fn azures_code_survives_what_it_should() {
    let code = azure();
    assert_eq!((code.n(), code.groups(), code.globals(), code.losses_survived()), (16, 2, 2, 3));
    assert_eq!((code.group(0), code.group(1)), (0b01_000000_111111, 0b10_111111_000000));
    assert_eq!((code.group_of(3), code.group_of(13), code.group_of(14)), (Some(0), Some(1), None));
    let mut decodable = [0; 6];
    for lost in (0u64..1 << 16).filter(|lost| lost.count_ones() <= 5) {
        decodable[lost.count_ones() as usize] += u32::from(code.rank(code.all() & !lost) == 12);
    }
    // The kernels' own count for four; no five of them.
    assert_eq!(decodable, [1, 16, 120, 560, 1568, 0]);
}

#[test]
fn spare_is_what_the_worst_further_losses_leave() {
    for code in [azure(), Code::new(3, 2).unwrap(), Code::lrc(5, 2, 1).unwrap(), Code::replicas(3).unwrap()] {
        for lost in (0u64..1 << code.n()).filter(|lost| count(*lost) <= 4) {
            let have = code.all() & !lost;
            let decodes = |have: u64| code.rank(have) == code.k();
            let spare = code.spare(have);
            assert_eq!(spare.is_some(), decodes(have), "{code} {have:b}");
            let Some(spare) = spare else { continue };
            // By trying: every set of `more` further losses decodes up to `spare`, and some set of one more doesn't.
            let all_decode = |more: usize| {
                (0u64..1 << code.n())
                    .filter(|further| count(*further) == more && further & !have == 0)
                    .all(|further| decodes(have & !further))
            };
            assert!(all_decode(spare), "{code} {have:b} does not survive {spare}");
            assert!(!all_decode(spare + 1), "{code} {have:b} survives more than {spare}");
        }
    }
}

#[test]
fn a_lost_shard_of_an_lrc_takes_its_group_and_several_take_everything() {
    let code = azure();
    let all: Vec<usize> = (0..16).collect();
    let without = |lost: &[usize]| all.iter().copied().filter(|shard| !lost.contains(shard)).collect::<Vec<_>>();
    assert_eq!(code.choose(0, &without(&[3]), 1 << 3), Some(vec![0, 1, 2, 4, 5, 12]));
    assert_eq!(code.choose(0b111, &without(&[3]), 1 << 3), Some(vec![4, 5, 12]));
    assert_eq!(code.choose(0, &without(&[3, 12]), 1 << 3).unwrap().len(), 12);
    assert_eq!(code.choose(0, &without(&[3, 9]), 1 << 3 | 1 << 9).unwrap().len(), 12);
    assert_eq!(code.choose(0, &without(&[0, 1, 2, 3]), 1), None);
    assert_eq!(code.choose(0, &without(&[14]), 1 << 14).unwrap().len(), 12);
    let rs = Code::new(10, 4).unwrap();
    assert_eq!(rs.choose(0b11, &(5..14).collect::<Vec<_>>(), 1 << 4).unwrap(), (5..13).collect::<Vec<_>>());
    assert_eq!(rs.choose(0b11, &(5..12).collect::<Vec<_>>(), 1 << 4), None);
}

#[test]
fn what_is_chosen_is_enough_and_no_less_is() {
    for code in [azure(), Code::new(4, 2).unwrap(), Code::lrc(5, 2, 1).unwrap()] {
        for lost in (0u64..1 << code.n()).filter(|lost| count(*lost) <= 4) {
            let candidates: Vec<usize> = (0..code.n()).filter(|shard| lost >> shard & 1 == 0).collect();
            let wanted = lost & bits(0..code.k());
            let all = code.all() & !lost;
            match code.choose(0, &candidates, wanted) {
                Some(chosen) => {
                    let set = chosen.iter().fold(0, |set, &shard| set | 1 << shard);
                    assert!(code.recovers(set, wanted) && set & lost == 0, "{code} {lost:b}: {chosen:?}");
                    let spared = |shard: &usize| code.recovers(set & !(1 << shard), wanted);
                    assert!(wanted == 0 || !chosen.iter().any(spared), "{code} {lost:b}: {chosen:?} has too many");
                }
                None => assert!(!code.recovers(all, wanted), "{code} {lost:b} could be decoded"),
            }
        }
    }
}
