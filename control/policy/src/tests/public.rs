use crate::{Policy, PolicyKind};

#[test]
fn what_aws_calls_public() {
    let table = [
        (r#""Principal":"*""#, "", true),
        (r#""Principal":{"AWS":"*"}"#, "", true),
        (r#""Principal":{"AWS":"111122223333"}"#, "", false),
        (r#""Principal":"*""#, r#"{"StringEquals":{"aws:SourceVpc":"vpc-91237329"}}"#, false),
        (r#""Principal":"*""#, r#"{"StringLike":{"aws:SourceVpc":"vpc-*"}}"#, true),
        (r#""Principal":"*""#, r#"{"StringEquals":{"aws:PrincipalOrgID":"o-1"}}"#, false),
        (r#""Principal":"*""#, r#"{"StringNotEquals":{"aws:PrincipalOrgID":"o-1"}}"#, true),
        (r#""Principal":"*""#, r#"{"IpAddress":{"aws:SourceIp":"10.0.0.0/8"}}"#, false),
        (r#""Principal":"*""#, r#"{"IpAddress":{"aws:SourceIp":"0.0.0.0/1"}}"#, true),
        (r#""Principal":"*""#, r#"{"IpAddress":{"aws:SourceIp":["10.0.0.0/32","0.0.0.0/0"]}}"#, true),
        (r#""Principal":"*""#, r#"{"IpAddressIfExists":{"aws:SourceIp":"10.0.0.0/32"}}"#, true),
        (r#""Principal":"*""#, r#"{"StringEquals":{"s3:prefix":"a"}}"#, true),
        (r#""Principal":"*""#, r#"{"ArnLike":{"aws:PrincipalArn":"arn:aws:iam::1:user/*"}}"#, true),
        (r#""Principal":"*""#, r#"{"StringEquals":{"aws:userid":"${aws:username}"}}"#, true),
    ];
    for (principal, condition, want) in table {
        let condition = if condition.is_empty() { String::new() } else { format!(",\"Condition\":{condition}") };
        let text = format!(
            r#"{{"Version":"2012-10-17","Statement":[{{"Effect":"Allow",{principal},"Action":"s3:*","Resource":"arn:aws:s3:::b/*"{condition}}}]}}"#
        );
        let policy = Policy::parse(&text, PolicyKind::Bucket("b")).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(policy.is_public(), want, "{text}");
        let denies = text.replace("Allow", "Deny");
        assert!(!Policy::parse(&denies, PolicyKind::Bucket("b")).unwrap().is_public(), "{denies}");
    }
}
