//! What clients do to connections: wait for 100, say too much, say nothing, take nothing, come in crowds.

use std::time::Duration;

use penstock_s3::FrontOptions;

use crate::client::{Request, Signer};
use crate::house::{House, MIB};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_hundred_is_said_when_the_body_is_wanted_and_not_before() {
    let house = House::new().await;
    let put = |key: &str| Request::put(key, vec![7; MIB]).header("expect", "100-continue");
    let head_of = |request: &Request| request.signed_head().0.into_bytes();
    let mut connection = house.connect().await;
    let good = put("/bucket/key");
    connection.write(&head_of(&good)).await;
    assert_eq!(connection.head().await.unwrap().status, 100);
    connection.write(&good.body).await;
    assert_eq!(connection.reply("PUT").await.status, 200);
    // The connection goes on.
    connection.write(&Request::new("HEAD", "/bucket/key").signed()).await;
    assert_eq!(connection.reply("HEAD").await.status, 200);

    let forged = put("/bucket/k").signer(|signer| signer.secret_key = "guess".to_owned());
    let refused = [
        (forged, 403),
        (put("/no-such-bucket/k"), 404),
        (put("/bucket/key").header("if-none-match", "*"), 412),
        (put("/bucket/k").query("torrent", ""), 501),
    ];
    for (request, status) in refused {
        let mut connection = house.connect().await;
        connection.write(&head_of(&request)).await;
        let first = connection.head().await.unwrap();
        assert_eq!((first.status, first.header("connection")), (status, Some("close")), "{}", request.path);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_is_still_sending_sees_the_answer() {
    let house = House::new().await;
    let forged = |size: usize| {
        Request::put("/bucket/key", vec![7; size]).signer(|signer| signer.secret_key = "guess".to_owned())
    };
    // Within what is read off, the connection goes on.
    let mut connection = house.connect().await;
    connection.write(&forged(8 * MIB).signed()).await;
    assert_eq!(connection.reply("PUT").await.status, 403);
    connection.write(&Request::new("HEAD", "/bucket").signed()).await;
    assert_eq!(connection.reply("HEAD").await.status, 200);
    // Past it, it is closed, but the answer was there first.
    let mut connection = house.connect().await;
    connection.write(&forged(64 * MIB).signed()).await;
    assert_eq!(connection.reply("PUT").await.status, 403);
    house.assert_empty().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_in_a_row_on_one_connection() {
    let house = House::new().await;
    let mut connection = house.connect().await;
    let mut bytes = Vec::new();
    for number in 0..20 {
        bytes.extend(Request::put(&format!("/bucket/{number}"), format!("body {number}")).signed());
        bytes.extend(Request::new("GET", &format!("/bucket/{number}")).signed());
    }
    connection.write(&bytes).await;
    for number in 0..20 {
        assert_eq!(connection.reply("PUT").await.status, 200);
        assert_eq!(connection.reply("GET").await.text(), format!("body {number}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gigantic_heads() {
    let house = House::new().await;
    // Larger than we take, smaller than hyper does: S3's error.
    let long = "v".repeat(100 << 10);
    let request = Request::put("/bucket/key", "x").header("x-amz-meta-a", &long);
    house.refused(request, 400, "RequestHeaderSectionTooLarge").await;
    let request = Request::put("/bucket/key", "x").header("x-amz-meta-a", &"v".repeat(4 << 10));
    house.refused(request, 400, "MetadataTooLarge").await;
    // Larger than hyper takes, in one header and in many, and one that never ends: 431, or no answer.
    let endless = vec![b'a'; 8 * MIB];
    let mut many = b"GET / HTTP/1.1\r\nhost: localhost\r\n".to_vec();
    for number in 0..10_000 {
        many.extend_from_slice(format!("x-{number}: v\r\n").as_bytes());
    }
    for bytes in
        [[b"GET /".to_vec(), endless.clone()].concat(), [b"GET / HTTP/1.1\r\na: ".to_vec(), endless].concat(), many]
    {
        let mut connection = house.connect().await;
        connection.write(&bytes).await;
        if let Some(reply) = connection.head().await {
            assert!([400, 414, 431].contains(&reply.status), "{}", reply.status);
        }
    }
    house.assert_empty().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_clients_are_not_waited_for() {
    let short = Duration::from_secs(2);
    let options = FrontOptions { head_read_timeout: short, body_idle_timeout: short, ..FrontOptions::default() };
    let house = House::with(options).await;
    // A head that never ends, and one that drips.
    let mut silent = house.connect().await;
    silent.write(b"GET /bucket HTTP/1.1\r\n").await;
    let mut dripping = house.connect().await;
    let mut idle = house.connect().await;
    idle.write(&Request::new("HEAD", "/bucket").signed()).await;
    assert_eq!(idle.reply("HEAD").await.status, 200);
    let drip = async {
        // As long as it takes; the patience of `is_closed` bounds it.
        for letter in b"GET /bucket HTTP/1.1\r\nx-loris: ".iter().chain(std::iter::repeat(&b'a')).take(5000) {
            dripping.write(&[*letter]).await;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        dripping.is_closed().await
    };
    let (silent, dripping, idle) = tokio::join!(silent.is_closed(), drip, idle.is_closed());
    assert!(silent && dripping && idle);
    // A body that stops in its middle.
    let mut connection = house.connect().await;
    let request = Request::new("PUT", "/bucket/key").payload("UNSIGNED-PAYLOAD").unsigned("content-length", "10000000");
    connection.write(&request.signed()).await;
    connection.write(&vec![7; 5 * MIB]).await;
    let reply = connection.reply("PUT").await;
    assert_eq!((reply.status, reply.code().as_str()), (400, "RequestTimeout"));
    assert!(connection.is_closed().await);
    house.assert_empty().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_reads_nothing_is_given_up() {
    let options = FrontOptions { write_stall_timeout: Duration::from_secs(1), ..FrontOptions::default() };
    let house = House::with(options).await;
    house.expect(Request::put("/bucket/key", vec![7; 48 * MIB]), 200).await;
    let mut connection = house.connect().await;
    connection.write(&Request::new("GET", "/bucket/key").signed()).await;
    // Not a byte of the answer is read until the gateway holds nothing for it any more.
    let mut held = house.gateway.usage().await.unwrap();
    let mut was_open = false;
    for _ in 0..2000 {
        held = house.gateway.usage().await.unwrap();
        was_open |= held.open_streams > 0;
        if was_open && held.open_streams == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(was_open && held.open_streams == 0, "{held:?}");
    let reply = connection.reply("GET").await;
    assert!(reply.body.len() < 48 * MIB);
    house.expect(Request::new("DELETE", "/bucket/key"), 204).await;
    house.assert_empty().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_connection_too_many_is_told_to_slow_down() {
    let house = House::with(FrontOptions { connections_max: 2, ..FrontOptions::default() }).await;
    let mut first = house.connect().await;
    let mut second = house.connect().await;
    for connection in [&mut first, &mut second] {
        connection.write(&Request::new("HEAD", "/bucket").signed()).await;
        assert_eq!(connection.reply("HEAD").await.status, 200);
    }
    let reply = house.refused(Request::new("GET", "/bucket"), 503, "SlowDown").await;
    assert!(reply.header("retry-after").is_some());
    drop(first);
    // As soon as the server has seen it.
    for _ in 0..500 {
        if house.send(Request::new("GET", "/bucket")).await.status == 200 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("the place of a closed connection is not given to another");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutdown_finishes_what_was_begun() {
    let house = House::new().await;
    let mut idle = house.connect().await;
    idle.write(&Request::new("HEAD", "/bucket").signed()).await;
    assert_eq!(idle.reply("HEAD").await.status, 200);
    let mut busy = house.connect().await;
    let put = Request::put("/bucket/key", vec![7; 2 * MIB]);
    let bytes = put.signed();
    busy.write(&bytes[..MIB]).await;
    while house.gateway.usage().await.unwrap().puts_in_flight == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    house.shutdown.cancel();
    assert!(idle.is_closed().await);
    busy.write(&bytes[MIB..]).await;
    assert_eq!(busy.reply("PUT").await.status, 200);
    house.serving.await.unwrap().unwrap();
    assert!(tokio::net::TcpStream::connect(house.address).await.is_err());
    assert_eq!(
        house
            .gateway
            .head_object(penstock_gateway::api::GetObject {
                bucket: "bucket".to_owned(),
                key: "key".to_owned(),
                ..Default::default()
            })
            .await
            .unwrap()
            .info
            .size_bytes,
        2 * MIB as u64
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutdown_does_not_wait_forever() {
    let house = House::with(FrontOptions { drain_timeout: Duration::from_millis(50), ..FrontOptions::default() }).await;
    let mut stuck = house.connect().await;
    let request = Request::new("PUT", "/bucket/key").payload("UNSIGNED-PAYLOAD").unsigned("content-length", "1000");
    stuck.write(&request.signed()).await;
    while house.gateway.usage().await.unwrap().requests == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    house.shutdown.cancel();
    house.serving.await.unwrap().unwrap();
    assert_eq!(house.gateway.usage().await.unwrap().requests, 0);
}

#[tokio::test]
async fn an_address_that_is_taken_is_said_clearly() {
    let house = House::new().await;
    let error = penstock_s3::take_address(house.address).unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&house.address.to_string()) && text.contains("another program listens there"), "{text}");
    // The signer of these tests is not what makes requests good.
    assert_ne!(Signer::now().sign("a"), Signer::now().sign("b"));
}
