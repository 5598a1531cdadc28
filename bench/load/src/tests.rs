//! Against the real server, in this process, and against one that lies.

mod liar;
mod real;

use std::time::Duration;

use crate::{Endpoint, Keys, LoadError, Mix, Operation, Pace, Sizes, Spec};

fn spec(address: std::net::SocketAddr) -> Spec {
    let keys = Keys { access: real::ACCESS_KEY.to_owned(), secret: real::SECRET_KEY.to_owned() };
    Spec {
        objects: 20,
        connections: 4,
        duration: Duration::from_millis(300),
        warm_up: Duration::ZERO,
        ..Spec::new(Endpoint { authority: address.to_string() }, Some(keys))
    }
}

#[test]
fn what_makes_no_sense_is_refused_with_what_to_change() {
    let good = || spec("127.0.0.1:1".parse().unwrap());
    let refused = |spec: Spec, word: &str| match crate::Load::new(spec) {
        Err(LoadError::Spec(message)) => assert!(message.contains(word), "{message}"),
        other => panic!("{word}: {}", other.is_ok()),
    };
    refused(Spec { connections: 0, ..good() }, "1 to 1024");
    refused(Spec { connections: 1025, ..good() }, "1 to 1024");
    refused(Spec { mix: Mix::default(), ..good() }, "mix");
    refused(Spec { objects: 0, ..good() }, "objects");
    refused(Spec { sizes: Sizes::Fixed(6 << 30), ..good() }, "bytes");
    refused(Spec { part_bytes: Some(1 << 20), ..good() }, "5242880");
    refused(Spec { range_bytes: Some(0), ..good() }, "range");
    refused(Spec { list_keys: 1001, ..good() }, "1 to 1000");
    refused(Spec { pace: Pace::Open { per_second: f64::NAN }, ..good() }, "rate");
    refused(Spec { duration: Duration::ZERO, ..good() }, "duration");
    refused(Spec { bucket: "a b".to_owned(), ..good() }, "letters");
    let endpoint = |text: &str| text.parse::<Endpoint>();
    assert_eq!(endpoint("http://localhost:9000/").unwrap().authority, "localhost:9000");
    assert_eq!(endpoint("example.org").unwrap().authority, "example.org:80");
    assert!(endpoint("https://example.org").unwrap_err().to_string().contains("TLS"));
    assert!(endpoint("http://a/b").is_err());
    let mix: Mix = "put=20,get=70,LIST=10".parse().unwrap();
    assert_eq!(mix.weights, [20, 70, 0, 10, 0]);
    assert_eq!((mix.pick(0), mix.pick(20), mix.pick(90)), (Operation::Put, Operation::Get, Operation::List));
    assert!("put,fetch".parse::<Mix>().unwrap_err().to_string().contains("fetch"));
    let sizes = Sizes::Bimodal { small: 1, large: 2, small_percent: 80 };
    let small = (0..10_000).filter(|index| sizes.of(*index) == 1).count();
    assert!((7800..8200).contains(&small), "{small}");
}
