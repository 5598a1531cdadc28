//! Buckets and objects: what is put comes back as it was, and is found.

use crate::client::{Request, encode};
use crate::house::{House, MIB, NOTHING};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn buckets() {
    let house = House::new().await;
    let constraint =
        "<CreateBucketConfiguration><LocationConstraint>eu-west-3</LocationConstraint></CreateBucketConfiguration>";
    let made = house.expect(Request::put("/second", constraint), 200).await;
    assert_eq!(made.header("location"), Some("/second"));
    house.refused(Request::put("/second", ""), 409, "BucketAlreadyOwnedByYou").await;
    house.refused(Request::put("/No_Bucket", ""), 400, "InvalidBucketName").await;
    let located = house.expect(Request::new("GET", "/second").query("location", ""), 200).await;
    assert!(located.text().ends_with(">eu-west-3</LocationConstraint>"), "{}", located.text());
    let located = house.expect(Request::new("GET", "/bucket").query("location", ""), 200).await;
    assert!(located.text().ends_with("\"></LocationConstraint>"), "{}", located.text());
    let versioning = house.expect(Request::new("GET", "/bucket").query("versioning", ""), 200).await;
    assert!(versioning.text().ends_with("\"></VersioningConfiguration>"), "{}", versioning.text());
    let head = house.expect(Request::new("HEAD", "/second"), 200).await;
    assert_eq!(head.header("x-amz-bucket-region"), Some("eu-west-3"));
    house.expect(Request::put("/third", ""), 200).await;

    let first = house.expect(Request::new("GET", "/").query("max-buckets", "2"), 200).await;
    assert_eq!(first.elements("Name"), ["bucket", "second"]);
    let token = first.element("ContinuationToken").unwrap();
    let rest = house.expect(Request::new("GET", "/").query("continuation-token", &token), 200).await;
    assert_eq!((rest.elements("Name"), rest.element("ContinuationToken")), (vec!["third".to_owned()], None));
    house.refused(Request::new("GET", "/").query("continuation-token", "nonsense"), 400, "InvalidArgument").await;
    let some = house.expect(Request::new("GET", "/").query("prefix", "s"), 200).await;
    assert_eq!(some.elements("Name"), ["second"]);

    house.expect(Request::put("/third/key", "x"), 200).await;
    house.refused(Request::new("DELETE", "/third"), 409, "BucketNotEmpty").await;
    house.expect(Request::new("DELETE", "/third/key"), 204).await;
    house.expect(Request::new("DELETE", "/third"), 204).await;
    house.refused(Request::new("DELETE", "/third"), 404, "NoSuchBucket").await;
    for request in [
        Request::new("GET", "/third"),
        Request::new("GET", "/third/key"),
        Request::put("/third/key", "x"),
        Request::new("GET", "/third").query("location", ""),
        Request::new("POST", "/third/key").query("uploads", ""),
        Request::new("POST", "/third").query("delete", "").body("<Delete><Object><Key>k</Key></Object></Delete>"),
    ] {
        house.refused(request, 404, "NoSuchBucket").await;
    }
    let wrong = Request::new("GET", "/bucket").header("x-amz-expected-bucket-owner", "123456789012");
    house.refused(wrong, 403, "AccessDenied").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_come_back_as_they_were() {
    let house = House::new().await;
    let data: Vec<u8> = (0..9 * MIB).map(|at| (at % 251) as u8).collect();
    let put = Request::put("/bucket/key", data.clone())
        .header("content-type", "text/x-test; charset=utf-8")
        .header("cache-control", "max-age=7")
        .header("content-disposition", "attachment; filename=\"a\"")
        .header("content-language", "de")
        .header("expires", "Tue, 15 Nov 1994 08:12:31 GMT")
        .header("x-amz-meta-one", "1")
        .header("x-amz-meta-two", "ü")
        .header("x-amz-storage-class", "STANDARD");
    let etag = house.expect(put, 200).await.header("etag").unwrap().to_owned();
    for method in ["GET", "HEAD"] {
        let read = house.expect(Request::new(method, "/bucket/key"), 200).await;
        let wanted = [
            ("content-type", "text/x-test; charset=utf-8"),
            ("cache-control", "max-age=7"),
            ("content-disposition", "attachment; filename=\"a\""),
            ("content-language", "de"),
            ("expires", "Tue, 15 Nov 1994 08:12:31 GMT"),
            ("x-amz-meta-one", "1"),
            ("x-amz-meta-two", "=?UTF-8?B?w7w=?="),
            ("content-length", "9437184"),
            ("accept-ranges", "bytes"),
            ("server", "Penstock"),
            ("etag", &etag),
        ];
        for (name, value) in wanted {
            assert_eq!(read.header(name), Some(value), "{method} {name}");
        }
        assert!(read.header("date").is_some() && read.header("last-modified").is_some());
        assert!(method == "HEAD" || read.body == data);
    }
    let get = |range: &str| Request::new("GET", "/bucket/key").header("range", range);
    for (range, first, end) in [
        ("bytes=0-0", 0, 1),
        ("bytes=4194303-4194304", 4_194_303, 4_194_305),
        ("bytes=9437183-", 9_437_183, 9_437_184),
        ("bytes=-5", 9_437_179, 9_437_184),
        ("bytes=100-99999999", 100, 9_437_184),
        ("bytes=-99999999", 0, 9_437_184),
    ] {
        let read = house.expect(get(range), 206).await;
        assert_eq!(read.header("content-range"), Some(format!("bytes {first}-{}/9437184", end - 1).as_str()));
        assert!(read.body == data[first..end], "{range}");
    }
    // What AWS does not understand as a range is none.
    for range in ["bytes=5-2", "bytes=0-1,3-4", "lines=1-2"] {
        assert_eq!(house.expect(get(range), 200).await.body.len(), data.len());
    }
    let past = house.refused(get("bytes=9437184-"), 416, "InvalidRange").await;
    assert_eq!(past.header("content-range"), Some("bytes */9437184"));
    assert_eq!(past.element("ActualObjectSize").as_deref(), Some("9437184"));

    let overridden = house
        .expect(get("bytes=0-3").query("response-content-type", "a/b").query("response-cache-control", "no-store"), 206)
        .await;
    assert_eq!(
        (overridden.header("content-type"), overridden.header("cache-control")),
        (Some("a/b"), Some("no-store"))
    );
    house.refused(get("bytes=0-3").query("response-content-type", "a\nb"), 400, "InvalidArgument").await;

    house.expect(Request::put("/bucket/empty", ""), 200).await;
    let empty = house.expect(Request::new("GET", "/bucket/empty"), 200).await;
    assert_eq!(
        (empty.header("content-length"), empty.header("content-type")),
        (Some("0"), Some("binary/octet-stream"))
    );
    house.refused(Request::new("GET", "/bucket/empty").header("range", "bytes=0-0"), 416, "InvalidRange").await;
    house
        .refused(Request::put("/bucket/k", "x").header("x-amz-storage-class", "GLACIER"), 400, "InvalidStorageClass")
        .await;
    for key in ["key", "empty"] {
        house.expect(Request::new("DELETE", &format!("/bucket/{key}")), 204).await;
    }
    house.expect(Request::new("DELETE", "/bucket/never-was"), 204).await;
    house.assert_empty().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conditions() {
    let house = House::new().await;
    let put = |body: &str| Request::put("/bucket/key", body);
    house.refused(put("x").header("if-match", "\"abc\""), 404, "NoSuchKey").await;
    let first = house.expect(put("one").header("if-none-match", "*"), 200).await;
    let etag = first.header("etag").unwrap().to_owned();
    house.refused(put("two").header("if-none-match", "*"), 412, "PreconditionFailed").await;
    house.refused(put("two").header("if-match", "\"abc\""), 412, "PreconditionFailed").await;
    house.refused(put("two").header("if-match", "\"a\"b\""), 400, "InvalidArgument").await;
    for method in ["GET", "HEAD"] {
        let read = |name: &str, value: &str| Request::new(method, "/bucket/key").header(name, value);
        let code = if method == "HEAD" { "" } else { "PreconditionFailed" };
        house.expect(read("if-match", &etag), 200).await;
        // Bare, and one of several.
        house.expect(read("if-match", etag.trim_matches('"')), 200).await;
        house.expect(read("if-match", &format!("\"abc\", {etag}")), 200).await;
        house.refused(read("if-match", "\"abc\""), 412, code).await;
        for unchanged in [
            read("if-none-match", &format!("\"abc\", {etag}")),
            read("if-modified-since", "Fri, 15 Nov 2199 08:12:31 GMT"),
        ] {
            let reply = house.expect(unchanged, 304).await;
            assert_eq!(reply.header("etag"), Some(etag.as_str()));
            assert!(reply.body.is_empty());
        }
        house.expect(read("if-none-match", "\"abc\""), 200).await;
        house.expect(read("if-modified-since", "Tue, 15 Nov 1994 08:12:31 GMT"), 200).await;
        house.refused(read("if-unmodified-since", "Tue, 15 Nov 1994 08:12:31 GMT"), 412, code).await;
        house.expect(read("if-modified-since", "no date"), 200).await;
    }
    let resumed =
        |if_range: &str| Request::new("GET", "/bucket/key").header("range", "bytes=1-").header("if-range", if_range);
    assert_eq!(house.expect(resumed(&etag), 206).await.body, b"ne");
    assert_eq!(house.expect(resumed("\"abc\""), 200).await.body, b"one");
    house.expect(put("two").header("if-match", &etag), 200).await;
    house.refused(Request::new("DELETE", "/bucket/key").header("if-match", &etag), 412, "PreconditionFailed").await;
    house
        .refused(Request::new("DELETE", "/bucket/key").header("x-amz-if-match-size", "7"), 412, "PreconditionFailed")
        .await;
    house.expect(Request::new("DELETE", "/bucket/key").header("x-amz-if-match-size", "3"), 204).await;
    house.assert_empty().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_every_byte() {
    let house = House::new().await;
    let mut keys: Vec<String> = (1..=0x7f_u32).filter_map(char::from_u32).map(|c| format!("k{c}k")).collect();
    keys.extend(
        [
            "ü",
            "日本",
            "\u{7ff}",
            "\u{fffd}",
            "\u{ffff}",
            "\u{10ffff}",
            "a/../b",
            "a//b",
            "./a",
            "?acl",
            "a%41",
            "+",
            " ",
            "/",
            "//",
        ]
        .map(str::to_owned),
    );
    keys.push("é".repeat(512));
    keys.sort();
    for key in &keys {
        house.expect(Request::put(&format!("/bucket/{key}"), key.as_bytes()), 200).await;
    }
    for key in &keys {
        let read = house.expect(Request::new("GET", &format!("/bucket/{key}")), 200).await;
        assert_eq!(read.body, key.as_bytes(), "{key:?}");
    }
    for list_type in ["1", "2"] {
        let mut listing = Request::new("GET", "/bucket").query("encoding-type", "url");
        if list_type == "2" {
            listing = listing.query("list-type", "2");
        }
        let listed = house.expect(listing, 200).await.elements("Key");
        let encoded: Vec<String> = keys.iter().map(|key| encode(key, true)).collect();
        assert_eq!(listed, encoded);
    }
    // Without encoding it is still a document, whatever the keys.
    let plain = house.expect(Request::new("GET", "/bucket"), 200).await;
    assert_eq!(plain.elements("Key").len(), keys.len());
    assert!(plain.text().contains("<Key>k&#x1;k</Key>") && plain.text().contains("<Key>k&amp;k</Key>"));
    let escaped = |key: &str| key.chars().map(|c| format!("&#{};", u32::from(c))).collect::<String>();
    let objects: String = keys.iter().map(|key| format!("<Object><Key>{}</Key></Object>", escaped(key))).collect();
    let request = Request::new("POST", "/bucket").query("delete", "").body(format!("<Delete>{objects}</Delete>"));
    let deleted = house.expect(request, 200).await;
    assert_eq!(deleted.elements("Deleted").len(), keys.len(), "{}", deleted.text());
    house.refused(Request::put(&format!("/bucket/{}", "k".repeat(1025)), "x"), 400, "KeyTooLongError").await;
    house.assert_empty().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listings() {
    let house = House::new().await;
    for key in ["a", "b/1", "b/2", "c/1/x", "d"] {
        house.expect(Request::put(&format!("/bucket/{key}"), "x"), 200).await;
    }
    let v2 = || Request::new("GET", "/bucket").query("list-type", "2");
    let mut token: Option<String> = None;
    let mut seen = Vec::new();
    loop {
        let mut request = v2().query("delimiter", "/").query("max-keys", "1").query("fetch-owner", "true");
        if let Some(token) = &token {
            request = request.query("continuation-token", token);
        }
        let page = house.expect(request, 200).await;
        assert_eq!(page.element("KeyCount").as_deref(), Some("1"));
        seen.extend(page.elements("Key"));
        seen.extend(page.elements("CommonPrefixes"));
        assert_eq!(page.text().contains("<Owner>"), page.text().contains("<Contents>"));
        token = page.element("NextContinuationToken");
        assert_eq!(page.element("IsTruncated").unwrap() == "true", token.is_some());
        if token.is_none() {
            break;
        }
    }
    assert_eq!(seen, ["a", "<Prefix>b/</Prefix>", "<Prefix>c/</Prefix>", "d"]);
    let page = house.expect(v2().query("prefix", "b/").query("start-after", "b/1"), 200).await;
    assert_eq!((page.elements("Key"), page.element("StartAfter").as_deref()), (vec!["b/2".to_owned()], Some("b/1")));
    assert!(!page.text().contains("<Owner>"));
    let page = house.expect(v2().query("max-keys", "0"), 200).await;
    assert_eq!((page.elements("Key").len(), page.element("IsTruncated").as_deref()), (0, Some("false")));
    house.refused(v2().query("continuation-token", "nonsense"), 400, "InvalidArgument").await;
    house.refused(v2().query("max-keys", "-1"), 400, "InvalidArgument").await;

    let v1 = || Request::new("GET", "/bucket");
    let page = house.expect(v1().query("max-keys", "2").query("delimiter", "/"), 200).await;
    assert_eq!((page.elements("Key"), page.element("NextMarker").as_deref()), (vec!["a".to_owned()], Some("b/")));
    let page = house.expect(v1().query("marker", "b/").query("delimiter", "/"), 200).await;
    assert_eq!(page.elements("Key"), ["d"]);
    assert!(page.text().contains("<Owner>") && page.element("NextMarker").is_none());
    let page = house.expect(v1().query("max-keys", "9999"), 200).await;
    assert_eq!(page.element("MaxKeys").as_deref(), Some("1000"));

    let delete = "<Delete><Quiet>true</Quiet><Object><Key>a</Key></Object><Object><Key>b/1</Key><VersionId>v</VersionId></Object>\
        <Object><Key>d</Key><VersionId>null</VersionId></Object></Delete>";
    let reply = house.expect(Request::new("POST", "/bucket").query("delete", "").body(delete), 200).await;
    assert!(reply.elements("Deleted").is_empty());
    assert_eq!(
        (reply.elements("Key"), reply.elements("Code")),
        (vec!["b/1".to_owned()], vec!["InvalidArgument".to_owned()])
    );
    let left = house.expect(v2(), 200).await.elements("Key");
    assert_eq!(left, ["b/1", "b/2", "c/1/x"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies() {
    let house = House::new().await;
    let data = vec![9; 6 * MIB];
    let put = Request::put("/bucket/a b?c", data.clone()).header("content-type", "x/y").header("x-amz-meta-m", "1");
    let etag = house.expect(put, 200).await.header("etag").unwrap().to_owned();
    let copy = |to: &str| Request::new("PUT", to).header("x-amz-copy-source", "/bucket/a%20b%3Fc");
    let copied = house.expect(copy("/bucket/copy"), 200).await;
    assert_eq!(copied.element("ETag"), Some(etag.replace('"', "&quot;")));
    let read = house.expect(Request::new("GET", "/bucket/copy"), 200).await;
    assert!(read.body == data);
    assert_eq!((read.header("content-type"), read.header("x-amz-meta-m")), (Some("x/y"), Some("1")));
    let replaced = copy("/bucket/copy").header("x-amz-metadata-directive", "REPLACE").header("x-amz-meta-n", "2");
    house.expect(replaced, 200).await;
    let read = house.expect(Request::new("HEAD", "/bucket/copy"), 200).await;
    assert_eq!((read.header("x-amz-meta-m"), read.header("x-amz-meta-n")), (None, Some("2")));
    house.refused(copy("/bucket/a b?c"), 400, "InvalidRequest").await;
    house.expect(copy("/bucket/a b?c").header("x-amz-metadata-directive", "REPLACE"), 200).await;
    house.refused(copy("/bucket/k").header("x-amz-copy-source-if-match", "\"x\""), 412, "PreconditionFailed").await;
    house.expect(copy("/bucket/k").header("x-amz-copy-source-if-match", &etag), 200).await;
    house.refused(copy("/bucket/k").header("if-none-match", "*"), 412, "PreconditionFailed").await;
    let missing = Request::new("PUT", "/bucket/k").header("x-amz-copy-source", "bucket/none");
    house.refused(missing, 404, "NoSuchKey").await;
    let nonsense = Request::new("PUT", "/bucket/k").header("x-amz-copy-source", "bucket");
    house.refused(nonsense, 400, "InvalidArgument").await;
    for key in ["a b?c", "copy", "k"] {
        house.expect(Request::new("DELETE", &format!("/bucket/{key}")), 204).await;
    }
    assert_eq!(house.held_after_collecting().await, NOTHING);
}
