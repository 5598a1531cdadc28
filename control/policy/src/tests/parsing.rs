use crate::{Policy, PolicyKind};

fn element(text: &str, kind: PolicyKind<'_>) -> String {
    match Policy::parse(text, kind) {
        Ok(_) => panic!("{text} was taken"),
        Err(error) => format!("{}|{}", error.element, error.message),
    }
}

#[test]
fn what_is_not_understood_is_named() {
    let statement = |inner: &str| format!(r#"{{"Version":"2012-10-17","Statement":[{{{inner}}}]}}"#);
    let good = r#""Effect":"Allow","Principal":"*","Action":"s3:GetObject","Resource":"arn:aws:s3:::b/*""#;
    Policy::parse(&statement(good), PolicyKind::Bucket("b")).unwrap();
    let changed = |from: &str, to: &str| {
        assert!(good.contains(from), "{from}");
        statement(&good.replace(from, to))
    };
    let table: Vec<(String, &str)> = vec![
        ("[]".to_owned(), "|Policies must be valid JSON"),
        ("{".to_owned(), "|This policy contains invalid Json"),
        ("{}".to_owned(), "Statement|Missing required field Statement"),
        (r#"{"Statement":[]}"#.to_owned(), "Statement|"),
        (r#"{"Version":"2020-01-01","Statement":[]}"#.to_owned(), "Version|"),
        (r#"{"Statements":[]}"#.to_owned(), "Statements|"),
        (
            r#"{"Statement":[{"Effect":"Deny","Effect":"Allow"}]}"#.to_owned(),
            "|This policy contains invalid Json: the key \"Effect\" stands twice",
        ),
        (statement(&format!("{good},\"Extra\":1")), "Statement[0].Extra|"),
        (changed("Allow", "allow"), "Statement[0].Effect|Invalid effect"),
        (changed("s3:GetObject", "GetObject"), "Statement[0].Action|Policy has invalid action"),
        (changed("s3:GetObject", "s3:GetObjekt"), "Statement[0].Action|Policy has invalid action"),
        (changed("s3:GetObject", "ec2:*"), "Statement[0].Action|Policy has invalid action"),
        (changed("arn:aws:s3:::b/*", "b/*"), "Statement[0].Resource|Policy has invalid resource"),
        (changed("arn:aws:s3:::b/*", "arn:aws:s3:::other/*"), "Statement[0].Resource|Policy has invalid resource"),
        (changed("arn:aws:s3:::b/*", "arn:aws:s3:::bb/*"), "Statement[0].Resource|Policy has invalid resource"),
        (changed("arn:aws:s3:::b/*", "arn:aws:s3:::b"), "Statement[0]|Action does not apply to any resource(s)"),
        (changed("\"Principal\":\"*\",", ""), "Statement[0].Principal|Missing required field Principal"),
        (changed("\"*\",\"Action\"", "\"jane\",\"Action\""), "Statement[0].Principal|Invalid principal"),
        (changed("\"*\",\"Action\"", "{\"AWS\":\"jane\"},\"Action\""), "Statement[0].Principal|Invalid principal"),
        (changed("Principal", "NotPrincipal"), "Statement[0].NotPrincipal|Allow with NotPrincipal"),
        (statement(&format!("{good},\"NotAction\":\"s3:*\"")), "Statement[0].NotAction|"),
        (
            statement(&format!("{good},\"Condition\":{{\"StringIs\":{{}}}}")),
            "Statement[0].Condition.StringIs|Invalid Condition type",
        ),
        (statement(&format!("{good},\"Condition\":{{\"NullIfExists\":{{}}}}")), "Statement[0].Condition.NullIfExists|"),
        (
            statement(&format!("{good},\"Condition\":{{\"StringEquals\":{{\"s3:prefiks\":\"a\"}}}}")),
            "Statement[0].Condition.StringEquals.s3:prefiks|Policy has an invalid condition key",
        ),
        (
            statement(&format!("{good},\"Condition\":{{\"IpAddress\":{{\"aws:SourceIp\":\"10.0.0.0/33\"}}}}")),
            "Statement[0].Condition.IpAddress.aws:SourceIp|",
        ),
        (
            statement(&format!("{good},\"Condition\":{{\"NumericEquals\":{{\"s3:max-keys\":\"ten\"}}}}")),
            "Statement[0].Condition.NumericEquals.s3:max-keys|",
        ),
        (
            statement(&format!("{good},\"Condition\":{{\"StringEquals\":{{\"aws:username\":\"${{aws\"}}}}")),
            "Statement[0].Condition.StringEquals.aws:username|",
        ),
    ];
    for (text, want) in table {
        let got = element(&text, PolicyKind::Bucket("b"));
        assert!(got.starts_with(want), "{text}\n got {got}\nwant {want}");
    }
    assert!(element(&statement(good), PolicyKind::Identity).starts_with("Statement[0].Principal|"));
    assert!(element(&statement(good), PolicyKind::Trust).starts_with("Statement[0].Resource|"));
    let long = statement(&format!("{good},\"Sid\":\"{}\"", "x".repeat(21_000)));
    assert!(element(&long, PolicyKind::Bucket("b")).contains("at most 20480"));
}

#[test]
fn what_real_clients_store_is_taken() {
    let bucket = [
        // mc anonymous set download, as MinIO's client writes it.
        r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":["*"]},"Action":["s3:GetBucketLocation","s3:ListBucket"],"Resource":["arn:aws:s3:::b"]},{"Effect":"Allow","Principal":{"AWS":["*"]},"Action":["s3:GetObject"],"Resource":["arn:aws:s3:::b/*"]}]}"#,
        // A policy over all buckets, stored in one.
        r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"*"},"Action":"s3:ListBucket","Resource":["arn:aws:s3:::*","arn:aws:s3:::*/*"]}]}"#,
        r#"{"Version":"2012-10-17","Id":"x","Statement":{"Sid":"AllowSSLRequestsOnly","Action":"s3:*","Effect":"Deny","Resource":["arn:aws:s3:::b","arn:aws:s3:::b/*"],"Condition":{"Bool":{"aws:SecureTransport":"false"}},"Principal":"*"}}"#,
        r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":["111122223333","arn:aws:iam::111122223333:user/a","arn:aws:iam::s3tenant1:root"],"CanonicalUser":"79a5","Service":"logging.s3.amazonaws.com"},"Action":"s3:*","Resource":"*"}]}"#,
    ];
    for text in bucket {
        Policy::parse(text, PolicyKind::Bucket("b")).unwrap_or_else(|error| panic!("{text}: {error}"));
    }
    let identity = [
        r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}"#,
        r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","NotAction":["iam:*","s3:Delete*"],"NotResource":"arn:aws:s3:::secret/*"},{"Effect":"Allow","Action":"ec2:DescribeInstances","Resource":"*"}]}"#,
    ];
    for text in identity {
        Policy::parse(text, PolicyKind::Identity).unwrap_or_else(|error| panic!("{text}: {error}"));
    }
    let trust = r#"{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":{"AWS":"111122223333"},"Action":"sts:AssumeRole"}}"#;
    Policy::parse(trust, PolicyKind::Trust).unwrap();
}
