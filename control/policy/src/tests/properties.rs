//! What must hold of every policy: more Deny never opens, more Allow never closes; and no text makes the parser fall.

use proptest::prelude::*;

use crate::*;

const ACCOUNTS: [&str; 2] = ["111122223333", "444455556666"];

fn pick(items: &'static [&'static str]) -> impl Strategy<Value = &'static str> {
    prop::sample::select(items)
}

fn condition() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => Just(String::new()),
        1 => pick(&[
            r#","Condition":{"StringEquals":{"aws:username":"jane"}}"#,
            r#","Condition":{"StringNotEquals":{"aws:username":"jane"}}"#,
            r#","Condition":{"Bool":{"aws:SecureTransport":"true"}}"#,
            r#","Condition":{"IpAddress":{"aws:SourceIp":"10.0.0.0/8"}}"#,
            r#","Condition":{"Null":{"s3:prefix":"true"}}"#,
        ]).prop_map(str::to_owned),
    ]
}

fn statement(effect: &'static str, with_principal: bool) -> impl Strategy<Value = String> {
    let principal = pick(&[
        r#""*""#,
        r#"{"AWS":"111122223333"}"#,
        r#"{"AWS":"444455556666"}"#,
        r#"{"AWS":"arn:aws:iam::111122223333:user/jane"}"#,
        r#"{"CanonicalUser":"id-444455556666"}"#,
    ]);
    let action = pick(&["s3:*", "s3:GetObject", "s3:Get*", "s3:PutObject", "*"]);
    let resource = pick(&["*", "arn:aws:s3:::b/*", "arn:aws:s3:::b/k", "arn:aws:s3:::b/x*"]);
    (principal, action, resource, condition()).prop_map(move |(principal, action, resource, condition)| {
        let principal = if with_principal { format!("\"Principal\":{principal},") } else { String::new() };
        format!(r#"{{"Effect":"{effect}",{principal}"Action":"{action}","Resource":"{resource}"{condition}}}"#)
    })
}

fn any_statement(with_principal: bool) -> impl Strategy<Value = String> {
    prop_oneof![statement("Allow", with_principal), statement("Deny", with_principal)]
}

fn document(statements: &[String]) -> String {
    format!(r#"{{"Version":"2012-10-17","Statement":[{}]}}"#, statements.join(","))
}

#[derive(Clone, Debug)]
struct World {
    bucket: Vec<String>,
    identity: Vec<String>,
    session: Option<Vec<String>>,
    caller: u8,
    action: &'static str,
    key: &'static str,
    writer: bool,
    restrict: bool,
    object_owner: Option<bool>,
}

fn world() -> impl Strategy<Value = World> {
    (
        prop::collection::vec(any_statement(true), 1..4),
        prop::collection::vec(any_statement(false), 1..4),
        prop::option::of(prop::collection::vec(any_statement(false), 1..3)),
        0u8..5,
        pick(&["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:GetObjectAcl"]),
        pick(&["k", "x1", "y"]),
        any::<bool>(),
        any::<bool>(),
        prop::option::of(any::<bool>()),
    )
        .prop_map(|(bucket, identity, session, caller, action, key, writer, restrict, object_owner)| World {
            bucket,
            identity,
            session,
            caller,
            action,
            key,
            writer,
            restrict,
            object_owner,
        })
}

fn decide(world: &World) -> Decision {
    let bucket = Policy::parse(&document(&world.bucket), PolicyKind::Bucket("b")).unwrap();
    let identity = [Policy::parse(&document(&world.identity), PolicyKind::Identity).unwrap()];
    let session = world.session.as_ref().map(|s| Policy::parse(&document(s), PolicyKind::Session).unwrap());
    let account = ACCOUNTS[usize::from(world.caller % 2)];
    let id = format!("id-{account}");
    let caller = match world.caller {
        4 => Caller::Anonymous,
        0 | 1 => Caller::Root { account, canonical_id: &id, session_policy: session.as_ref() },
        _ => Caller::User {
            account,
            canonical_id: &id,
            name: "jane",
            role: None,
            policies: &identity,
            session_policy: session.as_ref(),
        },
    };
    let mut context = Context::new();
    context.set("aws:username", "jane").set("aws:SourceIp", "10.1.1.1").set("aws:SecureTransport", "false");
    let acl = Acl::private("id-111122223333");
    let object = world.object_owner.map(|home| Acl::private(if home { "id-111122223333" } else { "id-444455556666" }));
    evaluate(&Request {
        caller,
        action: world.action,
        resource: &format!("arn:aws:s3:::b/{}", world.key),
        context: &context,
        bucket: Some(BucketAccess {
            owner_account: ACCOUNTS[0],
            policy: Some(&bucket),
            block: PublicAccessBlock { restrict_public_buckets: world.restrict, ..PublicAccessBlock::default() },
            ownership: if world.writer { Ownership::ObjectWriter } else { Ownership::BucketOwnerEnforced },
            acl: &acl,
        }),
        object: object.as_ref().map(|acl| ObjectAccess { acl }),
    })
}

/// A policy of Deny alone gives nobody anything that "no policy" would not: the reference for what follows.
fn allows_of(statements: &[String]) -> usize {
    statements.iter().filter(|statement| statement.contains("\"Allow\"")).count()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn one_more_deny_never_opens(world in world(), deny in statement("Deny", true), own in statement("Deny", false)) {
        let before = decide(&world).allowed;
        let mut more = world.clone();
        more.bucket.push(deny);
        more.identity.push(own.clone());
        if let Some(session) = &mut more.session {
            session.push(own);
        }
        prop_assert!(before || !decide(&more).allowed);
    }

    #[test]
    fn one_more_allow_never_closes(mut world in world(), allow in statement("Allow", true), own in statement("Allow", false)) {
        // A public policy in a restricted bucket does close: that is what the restriction is for.
        world.restrict = false;
        let before = decide(&world).allowed;
        let mut more = world.clone();
        more.bucket.push(allow);
        more.identity.push(own.clone());
        if let Some(session) = &mut more.session {
            session.push(own);
        }
        prop_assert!(!before || decide(&more).allowed);
    }

    #[test]
    fn the_order_of_statements_means_nothing(world in world()) {
        let mut turned = world.clone();
        turned.bucket.reverse();
        turned.identity.reverse();
        prop_assert_eq!(decide(&world).allowed, decide(&turned).allowed);
    }

    #[test]
    fn without_an_allow_only_the_owners_root_gets_in(mut world in world()) {
        world.bucket.retain(|statement| statement.contains("\"Deny\""));
        world.identity.retain(|statement| statement.contains("\"Deny\""));
        prop_assume!(!world.bucket.is_empty() && !world.identity.is_empty());
        prop_assert_eq!(allows_of(&world.bucket) + allows_of(&world.identity), 0);
        let decision = decide(&world);
        let own_object = world.writer && world.object_owner == Some(false);
        prop_assert!(!decision.allowed || world.caller == 0 || (own_object && world.caller == 1), "{:?}", decision);
    }

    /// Whatever bytes: an error or a policy, never a panic; and what parses can be evaluated.
    #[test]
    fn any_text_is_a_policy_or_an_error(text in ".{0,200}", at in 0usize..4096, byte in any::<u8>()) {
        for kind in [PolicyKind::Identity, PolicyKind::Bucket("b"), PolicyKind::Trust] {
            let _ = Policy::parse(&text, kind);
        }
        // And near misses: one byte of a rich document changed.
        let rich = r#"{"Version":"2012-10-17","Id":"i","Statement":[{"Sid":"a","Effect":"Allow","Principal":{"AWS":["arn:aws:iam::111122223333:user/jane","*"]},"NotAction":["s3:Get*"],"Resource":["arn:aws:s3:::b/${aws:username}/*","*"],"Condition":{"ForAnyValue:StringLikeIfExists":{"s3:prefix":["a*",true,3]},"IpAddress":{"aws:SourceIp":"10.0.0.0/8"},"DateLessThan":{"aws:CurrentTime":"2026-01-01T00:00:00Z"}}}]}"#;
        let mut bytes = rich.as_bytes().to_vec();
        let at = at % bytes.len();
        bytes[at] = byte;
        if let Ok(text) = String::from_utf8(bytes)
            && let Ok(policy) = Policy::parse(&text, PolicyKind::Bucket("b"))
        {
            let _ = policy.is_public();
        }
    }

    /// The matcher against the obvious (exponential) one, on short texts.
    #[test]
    fn patterns_match_what_they_say(pattern in "[ab*?]{0,8}", text in "[ab]{0,8}") {
        fn plain(pattern: &[u8], text: &[u8]) -> bool {
            match (pattern.first(), text.first()) {
                (None, None) => true,
                (Some(b'*'), _) => plain(&pattern[1..], text) || (!text.is_empty() && plain(pattern, &text[1..])),
                (Some(b'?'), Some(_)) => plain(&pattern[1..], &text[1..]),
                (Some(p), Some(t)) if p == t => plain(&pattern[1..], &text[1..]),
                _ => false,
            }
        }
        let ours = crate::pattern::Pattern::new(&pattern, true, false).unwrap().matches(&text, &Context::new(), false);
        prop_assert_eq!(ours, plain(pattern.as_bytes(), text.as_bytes()));
    }
}
