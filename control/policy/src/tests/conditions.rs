use crate::{BucketAccess, Caller, Context, Ownership, Policy, PolicyKind, PublicAccessBlock, Request, evaluate};

/// Whether an Allow with this condition lets a stranger in.
fn holds(condition: &str, context: &Context) -> bool {
    let text = format!(
        r#"{{"Version":"2012-10-17","Statement":{{"Effect":"Allow","Principal":"*","Action":"s3:GetObject","Resource":"arn:aws:s3:::b/*","Condition":{condition}}}}}"#
    );
    let policy = Policy::parse(&text, PolicyKind::Bucket("b")).unwrap_or_else(|e| panic!("{condition}: {e}"));
    let acl = crate::Acl::private("owner");
    let bucket = BucketAccess {
        owner_account: "111122223333",
        policy: Some(&policy),
        block: PublicAccessBlock::default(),
        ownership: Ownership::BucketOwnerEnforced,
        acl: &acl,
    };
    let request = Request {
        caller: Caller::Anonymous,
        action: "s3:GetObject",
        resource: "arn:aws:s3:::b/k",
        context,
        bucket: Some(bucket),
        object: None,
    };
    evaluate(&request).allowed
}

fn context() -> Context {
    let mut context = Context::new();
    context
        .set("aws:SourceIp", "203.0.113.7")
        .set("aws:SecureTransport", "true")
        .set("aws:username", "jane")
        .set("aws:CurrentTime", "2026-03-01T12:00:00Z")
        .set("aws:EpochTime", "1772366400")
        .set("aws:UserAgent", "aws-cli/2.1")
        .set("aws:PrincipalArn", "arn:aws:iam::111122223333:user/div/jane")
        .set("s3:max-keys", "10")
        .set("s3:prefix", "home/jane/")
        .set("s3:TlsVersion", "1.3")
        .set("s3:ExistingObjectTag/state", "clean")
        .set_all("s3:RequestObjectTagKeys", vec!["Owner".to_owned(), "CreationDate".to_owned()]);
    context
}

#[test]
fn operators() {
    let context = context();
    let yes = [
        r#"{"StringEquals":{"aws:username":"jane"}}"#,
        r#"{"StringEquals":{"AWS:UserName":["bob","jane"]}}"#,
        r#"{"StringEqualsIgnoreCase":{"aws:username":"JANE"}}"#,
        r#"{"StringNotEquals":{"aws:username":["bob","carol"]}}"#,
        r#"{"StringNotEquals":{"aws:userid":"x"}}"#,
        r#"{"StringLike":{"s3:prefix":"home/${aws:username}/*"}}"#,
        r#"{"StringEquals":{"s3:prefix":["","home/","home/${aws:username}/"]}}"#,
        r#"{"StringLike":{"aws:UserAgent":"aws-cli/?.*"}}"#,
        r#"{"StringNotLike":{"aws:UserAgent":"curl*"}}"#,
        r#"{"StringEqualsIfExists":{"aws:referer":"x"}}"#,
        r#"{"NumericLessThanEquals":{"s3:max-keys":"10"}}"#,
        r#"{"NumericEquals":{"s3:max-keys":10}}"#,
        r#"{"NumericGreaterThan":{"s3:TlsVersion":1.1}}"#,
        r#"{"NumericNotEquals":{"s3:max-keys":"11"}}"#,
        r#"{"DateGreaterThan":{"aws:CurrentTime":"2026-01-01T00:00:00Z"},"DateLessThan":{"aws:CurrentTime":"2026-03-01T12:00:01Z"}}"#,
        r#"{"DateEquals":{"aws:CurrentTime":"2026-03-01T13:00:00+01:00"}}"#,
        r#"{"DateLessThan":{"aws:CurrentTime":"2026-03-02"}}"#,
        r#"{"DateLessThanEquals":{"aws:EpochTime":"1772366400"}}"#,
        r#"{"Bool":{"aws:SecureTransport":"true"}}"#,
        r#"{"Bool":{"aws:SecureTransport":true}}"#,
        r#"{"IpAddress":{"aws:SourceIp":"203.0.113.0/24"}}"#,
        r#"{"IpAddress":{"aws:SourceIp":["2001:db8::/32","203.0.113.7"]}}"#,
        r#"{"NotIpAddress":{"aws:SourceIp":"203.0.114.0/24"}}"#,
        r#"{"IpAddress":{"aws:SourceIp":"0.0.0.0/0"}}"#,
        r#"{"ArnLike":{"aws:PrincipalArn":"arn:aws:iam::111122223333:user/*"}}"#,
        r#"{"ArnEquals":{"aws:PrincipalArn":"arn:aws:iam::*:user/div/j?ne"}}"#,
        r#"{"ArnNotEquals":{"aws:PrincipalArn":"arn:aws:iam::111122223333:role/*"}}"#,
        r#"{"Null":{"aws:referer":"true"}}"#,
        r#"{"Null":{"aws:username":false}}"#,
        r#"{"ForAllValues:StringEquals":{"s3:RequestObjectTagKeys":["Owner","CreationDate","Other"]}}"#,
        r#"{"ForAnyValue:StringEquals":{"s3:RequestObjectTagKeys":["Owner","Elephant"]}}"#,
        r#"{"ForAnyValue:StringNotEquals":{"s3:RequestObjectTagKeys":["Owner"]}}"#,
        r#"{"ForAllValues:StringEquals":{"aws:TagKeys":["a"]}}"#,
        r#"{"StringEquals":{"s3:ExistingObjectTag/state":"clean"}}"#,
        r#"{"StringEquals":{"aws:username":"${aws:nothing, 'jane'}"}}"#,
    ];
    let no = [
        r#"{"StringEquals":{"aws:username":"JANE"}}"#,
        r#"{"StringEquals":{"aws:username":"jan*"}}"#,
        r#"{"StringNotEquals":{"aws:username":["bob","jane"]}}"#,
        r#"{"StringLike":{"aws:referer":"*"}}"#,
        r#"{"StringEquals":{"aws:username":"${aws:referer}"}}"#,
        r#"{"StringEquals":{"aws:username":"jane"},"Bool":{"aws:SecureTransport":"false"}}"#,
        r#"{"StringEquals":{"aws:username":"jane","aws:UserAgent":"x"}}"#,
        r#"{"NumericLessThan":{"s3:max-keys":"10"}}"#,
        r#"{"NumericEquals":{"aws:username":"10"}}"#,
        r#"{"DateGreaterThan":{"aws:CurrentTime":"2026-03-01T12:00:00Z"}}"#,
        r#"{"Bool":{"aws:MultiFactorAuthPresent":"false"}}"#,
        r#"{"IpAddress":{"aws:SourceIp":"203.0.112.0/24"}}"#,
        r#"{"NotIpAddress":{"aws:SourceIp":"203.0.113.0/24"}}"#,
        r#"{"IpAddress":{"aws:SourceIp":"::/0"}}"#,
        r#"{"ArnLike":{"aws:PrincipalArn":"arn:aws:iam:*:user/div/jane:x"}}"#,
        r#"{"Null":{"aws:referer":"false"}}"#,
        r#"{"ForAllValues:StringEquals":{"s3:RequestObjectTagKeys":["Owner"]}}"#,
        r#"{"ForAnyValue:StringEquals":{"aws:TagKeys":["a"]}}"#,
        r#"{"ForAnyValue:StringNotEquals":{"s3:RequestObjectTagKeys":["Owner","CreationDate"]}}"#,
        r#"{"StringEquals":{"s3:ExistingObjectTag/State":"dirty"}}"#,
        r#"{"StringEquals":{"aws:username":[]}}"#,
    ];
    for condition in yes {
        assert!(holds(condition, &context), "{condition}");
    }
    for condition in no {
        assert!(!holds(condition, &context), "{condition}");
    }
}

#[test]
fn an_ipv4_address_that_came_over_an_ipv6_socket_is_one() {
    let mut context = Context::new();
    context.set("aws:SourceIp", "::ffff:203.0.113.7");
    assert!(holds(r#"{"IpAddress":{"aws:SourceIp":"203.0.113.0/24"}}"#, &context));
}

#[test]
fn a_value_in_a_variable_is_no_pattern() {
    let mut context = context();
    context.set("aws:username", "*");
    assert!(!holds(r#"{"StringLike":{"s3:prefix":"${aws:username}"}}"#, &context));
    assert!(!holds(r#"{"StringLike":{"s3:prefix":"home/${aws:username}/"}}"#, &context));
    // And the escapes are the characters themselves.
    assert!(holds(r#"{"StringLike":{"aws:username":"${*}"}}"#, &context));
    assert!(!holds(r#"{"StringLike":{"s3:prefix":"${*}"}}"#, &context));
}
