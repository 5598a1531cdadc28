//! A server that lies, stalls and hangs up, and what is counted of it.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::spec;
use crate::{FailureKind, Load, LoadError, Mix, Operation, Pace, Report, Spec};

/// What it does with every request.
#[derive(Clone, Copy, Debug)]
enum Lie {
    /// Announces 4,096 bytes, sends none, hangs up.
    HangUp,
    /// Announces and sends 100 bytes.
    Short,
    /// Announces and sends 4,097 bytes.
    Long,
    /// The right length, other bytes.
    Wrong,
    /// Chunked, and hangs up when a chunk is due.
    BrokenChunks,
    /// Never answers.
    Silent,
    /// Begins to answer, and stops.
    Stall,
    /// Hangs up without an answer.
    Mute,
    /// Not HTTP.
    Babble,
    /// 503.
    Busy,
    /// 200 and an error document.
    OkButNot,
}

async fn head(stream: &mut TcpStream) -> Option<()> {
    let mut come = Vec::new();
    while !come.windows(4).any(|window| window == b"\r\n\r\n") {
        if stream.read_buf(&mut come).await.ok()? == 0 {
            return None;
        }
    }
    Some(())
}

async fn answer(mut stream: TcpStream, lie: Lie) -> Option<()> {
    let ok = |length: usize| format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n").into_bytes();
    loop {
        head(&mut stream).await?;
        let (bytes, then_end) = match lie {
            Lie::HangUp => (ok(4096), true),
            Lie::Short => ([ok(100), vec![7; 100]].concat(), false),
            Lie::Long => ([ok(4097), vec![7; 4097]].concat(), false),
            Lie::Wrong => ([ok(4096), vec![7; 4096]].concat(), false),
            Lie::BrokenChunks => (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n100\r\n".to_vec(), true),
            Lie::Silent => (Vec::new(), false),
            Lie::Stall => (b"HTTP/1.1 200 OK\r\ncontent-le".to_vec(), false),
            Lie::Mute => (Vec::new(), true),
            Lie::Babble => (b"220 smtp.example.org ready\r\n\r\n".to_vec(), true),
            Lie::Busy => (b"HTTP/1.1 503 Slow Down\r\ncontent-length: 2\r\n\r\nno".to_vec(), false),
            Lie::OkButNot => ([ok(8), b"<Error/>".to_vec()].concat(), false),
        };
        stream.write_all(&bytes).await.ok()?;
        if then_end {
            return None;
        }
    }
}

async fn liar(lie: Lie) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, lie));
        }
    });
    address
}

async fn run(address: SocketAddr, change: impl FnOnce(&mut Spec)) -> Report {
    let mut spec = Spec { stall_timeout: Duration::from_millis(50), ..spec(address) };
    change(&mut spec);
    Load::new(spec).unwrap().run(&CancellationToken::new()).await.unwrap()
}

/// Nothing but this kind, and nothing that looks like work done.
fn only(report: &Report, kind: FailureKind, what: &str) {
    let failures = report.failures();
    assert_eq!(failures.keys().copied().collect::<Vec<_>>(), [kind], "{what}");
    assert!(failures[&kind] > 0);
    let row = &report.rows()[0];
    assert_eq!((report.ops(), row["ops_per_s"].as_f64(), row["mb_per_s"].as_f64()), (0, Some(0.0), Some(0.0)));
    assert!(row["server_cpu_s_per_1k"].is_null());
    assert_eq!(row["errors"][kind.to_string()], failures[&kind], "{what}: {row}");
    assert_eq!(row["max_us"], 0, "no latency of a failure is one of the server's answers");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lies_are_counted_by_kind_and_never_as_throughput() {
    let cases = [
        (Lie::HangUp, FailureKind::ShortBody),
        (Lie::Short, FailureKind::ShortBody),
        (Lie::Long, FailureKind::WrongData),
        (Lie::Wrong, FailureKind::WrongData),
        (Lie::BrokenChunks, FailureKind::ShortBody),
        (Lie::Silent, FailureKind::Stalled),
        (Lie::Stall, FailureKind::Stalled),
        (Lie::Mute, FailureKind::Broken),
        (Lie::Babble, FailureKind::Broken),
        (Lie::Busy, FailureKind::Status(503)),
    ];
    for (lie, kind) in cases {
        only(&run(liar(lie).await, |_| {}).await, kind, &format!("{lie:?}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_operations_are_lied_to_as_well() {
    let with = |operation| move |spec: &mut Spec| spec.mix = Mix::only(operation);
    let cases = [
        (Lie::Wrong, Operation::List, FailureKind::WrongData),
        (Lie::OkButNot, Operation::List, FailureKind::WrongData),
        (Lie::Short, Operation::Head, FailureKind::WrongData),
        (Lie::Busy, Operation::Put, FailureKind::Status(503)),
        (Lie::Mute, Operation::Put, FailureKind::Broken),
        (Lie::Silent, Operation::Put, FailureKind::Stalled),
        (Lie::Busy, Operation::Head, FailureKind::Status(503)),
    ];
    for (lie, operation, kind) in cases {
        only(&run(liar(lie).await, with(operation)).await, kind, &format!("{lie:?} {operation:?}"));
    }
    // A multipart upload that "succeeds" with something else in its document.
    let report = run(liar(Lie::OkButNot).await, |spec| {
        spec.mix = Mix::only(Operation::Put);
        (spec.sizes, spec.part_bytes) = (crate::Sizes::Fixed(6 << 20), Some(5 << 20));
    });
    only(&report.await, FailureKind::WrongData, "parts");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_there() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    only(&run(gone, |_| {}).await, FailureKind::Refused, "nobody listens");
    let error = Load::new(spec(gone)).unwrap().prepare().await.unwrap_err();
    assert!(matches!(&error, LoadError::Prepare { failure: FailureKind::Refused, .. }), "{error}");
    assert!(error.is_retryable());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalling_server_is_charged_for_all_that_was_due() {
    let report = run(liar(Lie::Silent).await, |spec| {
        (spec.connections, spec.pace) = (1, Pace::Open { per_second: 1000.0 });
        spec.duration = Duration::from_millis(500);
    });
    let report = report.await;
    let failed: u64 = report.failures().values().sum();
    assert!(report.not_sent > failed, "{failed} failed, {} were due and never sent", report.not_sent);
    assert_eq!(report.rows()[0]["not_sent"], report.not_sent);
}
