use super::*;
use crate::peer::TlsVersion;

fn head(method: &str, uri: &str, key: Option<&str>) -> Head {
    let request = http::Request::builder()
        .method(method)
        .uri(uri)
        .header("host", "s3.example.com")
        .header("user-agent", "a \"quoted\" agent\t1.0")
        .header("authorization", "AWS4-HMAC-SHA256 ...");
    let peer = Peer { address: "[::ffff:192.0.2.7]:4711".parse().unwrap(), tls: Some(TlsVersion::V1_3) };
    let mut head = Head::of(&request.body(()).unwrap().into_parts().0, peer, key, Some("b"));
    head.at = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
    head
}

fn entry<'a>(head: &'a Head, status: u16) -> Entry<'a> {
    Entry {
        head,
        request_id: "3E57427F3EXAMPLE",
        host_id: "HOST",
        owner: "79a5",
        requester: "AKIAEXAMPLE",
        operation: "GetObject",
        changes_something: false,
        bucket: "b",
        status,
        code: if status == 200 { "" } else { "AccessDenied" },
        bytes_in: 0,
        bytes_out: 113,
        total: Duration::from_millis(7),
        turnaround: Duration::from_millis(5),
    }
}

#[test]
fn a_line_has_the_fields_of_s3_in_order() {
    let head = head("GET", "/b/a%20key?versionId=v1&X-Amz-Signature=secret", Some("a key"));
    assert_eq!(
        access_line(&entry(&head, 200)),
        "79a5 b [15/Jan/2027:08:00:00 +0000] 192.0.2.7 AKIAEXAMPLE 3E57427F3EXAMPLE REST.GET.OBJECT a%20key \
         \"GET /b/a%20key?versionId=v1&X-Amz-Signature=REDACTED HTTP/1.1\" 200 - 113 - 7 5 \"-\" \
         \"a %22quoted%22 agent%091.0\" v1 HOST SigV4 - AuthHeader s3.example.com TLSv1.3 - -\n"
    );
}

#[test]
fn operations_have_the_names_of_s3() {
    let resource = |method: &str, uri: &str, key: Option<&str>| head(method, uri, key).resource;
    assert_eq!(resource("PUT", "/b/k?partNumber=1&uploadId=u", Some("k")), "PART");
    assert_eq!(resource("POST", "/b/k?uploadId=u", Some("k")), "UPLOAD");
    assert_eq!(resource("POST", "/b/k?uploads", Some("k")), "UPLOADS");
    assert_eq!(resource("POST", "/b?delete", None), "MULTI_OBJECT_DELETE");
    assert_eq!(resource("GET", "/b?list-type=2", None), "BUCKET");
    assert_eq!(resource("GET", "/b?tagging", None), "TAGGING");
    assert_eq!(resource("GET", "/b/k?tagging", Some("k")), "OBJECT_TAGGING");
}

#[test]
fn the_audit_log_has_changes_and_refusals_alone() {
    let head = head("GET", "/b/k", Some("k"));
    assert_eq!(audit_line(&entry(&head, 200)), None);
    let refused = audit_line(&entry(&head, 403)).unwrap();
    let changed = audit_line(&Entry { changes_something: true, ..entry(&head, 200) }).unwrap();
    for (line, error) in [(refused, "AccessDenied"), (changed, "")] {
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!((line["source_ip"].as_str(), line["error"].as_str()), (Some("192.0.2.7"), Some(error)));
        assert_eq!(line["access_key"], "AKIAEXAMPLE");
    }
}

#[test]
fn lines_reach_the_file_and_follow_it_when_it_is_rotated() {
    let folder = tempfile::TempDir::new().unwrap();
    let (path, moved) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
    let journal = Journal::open(Some(&path), None).unwrap();
    let head = head("GET", "/b/k", Some("k"));
    let lines = |path: &Path| std::fs::read_to_string(path).unwrap_or_default().lines().count();
    let eventually = |what: &str, done: &dyn Fn() -> bool| {
        for _ in 0..3000 {
            if done() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("{what} did not happen within 30 s");
    };
    journal.note(&entry(&head, 200));
    eventually("the first line", &|| lines(&path) == 1);
    std::fs::rename(&path, &moved).unwrap();
    eventually("the new file", &|| path.exists());
    journal.note(&entry(&head, 200));
    drop(journal);
    assert_eq!((lines(&path), lines(&moved)), (1, 1));
    assert!(Journal::open(Some(&folder.path().join("no/such/folder.log")), None).is_err());
}
