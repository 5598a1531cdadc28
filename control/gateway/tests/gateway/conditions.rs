//! Conditions on reads and writes, one at a time. Races are in `races`.

use penstock_gateway::api::{Conditions, DeleteObject, EtagCondition, GetObject, PutObject};
use penstock_gateway::error::{ErrorKind, Result};

use crate::house::{BUCKET, House, NOTHING, code, get, kind, put};

fn is(etag: &str) -> Option<EtagCondition> {
    Some(EtagCondition::OneOf(vec!["0".into(), etag.into()]))
}

fn any() -> Option<EtagCondition> {
    Some(EtagCondition::Any)
}

fn conditions() -> Conditions {
    Conditions::default()
}

#[tokio::test]
async fn reads() {
    let house = House::new(code(1, 0)).await;
    let done = house.put("k", b"x").await.unwrap();
    let (etag, modified) = (done.etag.as_str(), done.modified_unix_ms);
    let cases = [
        (Conditions { if_match: is(etag), ..conditions() }, None),
        (Conditions { if_match: is("1"), ..conditions() }, Some(ErrorKind::PreconditionFailed)),
        (Conditions { if_none_match: is(etag), ..conditions() }, Some(ErrorKind::NotModified)),
        (Conditions { if_none_match: any(), ..conditions() }, Some(ErrorKind::NotModified)),
        (Conditions { if_modified_since: Some(modified), ..conditions() }, Some(ErrorKind::NotModified)),
        (Conditions { if_modified_since: Some(modified - 1000), ..conditions() }, None),
        (Conditions { if_unmodified_since: Some(modified), ..conditions() }, None),
        (
            Conditions { if_unmodified_since: Some(modified - 1000), ..conditions() },
            Some(ErrorKind::PreconditionFailed),
        ),
    ];
    for (conditions, expected) in cases {
        let request = GetObject { conditions, ..get("k") };
        let got = house.gateway.get_object(request.clone()).await.err().map(|error| error.kind);
        let head = house.gateway.head_object(request.clone()).await.err().map(|error| error.kind);
        assert_eq!((got, head), (expected, expected), "{request:?}");
    }
    let missing = GetObject { conditions: Conditions { if_match: any(), ..conditions() }, ..get("none") };
    assert_eq!(kind(house.gateway.get_object(missing).await), ErrorKind::NoSuchKey);
}

#[tokio::test]
async fn writes() {
    let house = House::new(code(2, 1)).await;
    let put_if = async |conditions: Conditions| -> Result<String> {
        let request = PutObject { conditions, ..put("k", b"new") };
        Ok(house.gateway.put_object(request).await?.etag)
    };
    assert_eq!(kind(put_if(Conditions { if_match: any(), ..conditions() }).await), ErrorKind::NoSuchKey);
    let etag = put_if(Conditions { if_none_match: any(), ..conditions() }).await.unwrap();
    let failed = ErrorKind::PreconditionFailed;
    assert_eq!(kind(put_if(Conditions { if_none_match: any(), ..conditions() }).await), failed);
    assert_eq!(kind(put_if(Conditions { if_none_match: is(&etag), ..conditions() }).await), failed);
    assert_eq!(kind(put_if(Conditions { if_match: is("1"), ..conditions() }).await), failed);
    put_if(Conditions { if_match: is(&etag), ..conditions() }).await.unwrap();
    put_if(Conditions { if_none_match: is("1"), ..conditions() }).await.unwrap();

    // A condition that fails spares the client the body.
    let unread: penstock_gateway::api::ByteStream = Box::pin(futures::stream::poll_fn(|_| panic!("the body is read")));
    let conditions = Conditions { if_none_match: any(), ..conditions() };
    let request = PutObject { body: unread, content_bytes: Some(9), conditions, ..put("k", b"") };
    assert_eq!(kind(house.gateway.put_object(request).await), failed);
}

#[tokio::test]
async fn deletes() {
    let house = House::new(code(2, 1)).await;
    let delete_if = async |conditions: Conditions| {
        let request = DeleteObject { bucket: BUCKET.into(), key: "k".into(), conditions, ..DeleteObject::default() };
        house.gateway.delete_object(request).await.err().map(|error| error.kind)
    };
    let done = house.put("k", b"x").await.unwrap();
    let failed = Some(ErrorKind::PreconditionFailed);
    assert_eq!(delete_if(Conditions { if_match: is("1"), ..conditions() }).await, failed);
    assert_eq!(delete_if(Conditions { if_match_size: Some(2), ..conditions() }).await, failed);
    let second = done.modified_unix_ms / 1000 * 1000;
    assert_eq!(delete_if(Conditions { if_match_last_modified: Some(second + 1000), ..conditions() }).await, failed);
    let all = Conditions {
        if_match: is(&done.etag),
        if_match_size: Some(1),
        if_match_last_modified: Some(second),
        ..conditions()
    };
    assert_eq!(delete_if(all.clone()).await, None);
    assert_eq!(delete_if(all).await, Some(ErrorKind::NoSuchKey));
    assert_eq!(delete_if(conditions()).await, None);
    assert_eq!(house.held_after_collecting().await, NOTHING);
}
