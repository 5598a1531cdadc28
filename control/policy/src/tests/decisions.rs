//! The decision, case by case; many are the examples of the S3 and IAM user guides.

use crate::*;

const HOME: &str = "111122223333";
const AWAY: &str = "444455556666";
const HOME_ID: &str = "home-canonical";
const AWAY_ID: &str = "away-canonical";

/// A case being put together.
#[derive(Clone)]
struct Case {
    account: Option<&'static str>,
    root: bool,
    name: &'static str,
    role: Option<(&'static str, &'static str)>,
    identity: Vec<String>,
    session: Option<String>,
    bucket_policy: Option<String>,
    block: PublicAccessBlock,
    ownership: Ownership,
    bucket_acl: Acl,
    object_acl: Option<Acl>,
    action: &'static str,
    resource: &'static str,
    context: Context,
}

fn case() -> Case {
    Case {
        account: Some(HOME),
        root: false,
        name: "jane",
        role: None,
        identity: vec![],
        session: None,
        bucket_policy: None,
        block: PublicAccessBlock::default(),
        ownership: Ownership::BucketOwnerEnforced,
        bucket_acl: Acl::private(HOME_ID),
        object_acl: None,
        action: "s3:GetObject",
        resource: "arn:aws:s3:::b/k",
        context: Context::new(),
    }
}

fn statement(effect: &str, principal: &str, action: &str, resource: &str) -> String {
    let principal = if principal.is_empty() { String::new() } else { format!("\"Principal\":{principal},") };
    format!(
        r#"{{"Version":"2012-10-17","Statement":[{{"Effect":"{effect}",{principal}"Action":"{action}","Resource":"{resource}"}}]}}"#
    )
}

const ALL: &str = "arn:aws:s3:::b*";

impl Case {
    fn root(mut self, account: &'static str) -> Self {
        self.account = Some(account);
        self.root = true;
        self
    }
    fn of(mut self, account: &'static str) -> Self {
        self.account = Some(account);
        self
    }
    fn stranger(mut self) -> Self {
        self.account = None;
        self
    }
    fn may(mut self, action: &str) -> Self {
        self.identity.push(statement("Allow", "", action, "*"));
        self
    }
    fn may_not(mut self, action: &str) -> Self {
        self.identity.push(statement("Deny", "", action, "*"));
        self
    }
    fn bucket(mut self, effect: &str, principal: &str) -> Self {
        self.bucket_policy = Some(statement(effect, principal, "s3:*", ALL));
        self
    }
    fn session(mut self, action: &str) -> Self {
        self.session = Some(statement("Allow", "", action, "*"));
        self
    }
    fn role(mut self, role: &'static str, session: &'static str) -> Self {
        self.role = Some((role, session));
        self
    }
    fn asks(mut self, action: &'static str, resource: &'static str) -> Self {
        (self.action, self.resource) = (action, resource);
        self
    }
    fn acls(mut self, ownership: Ownership) -> Self {
        self.ownership = ownership;
        self
    }
    fn object(mut self, owner: &str, canned: &str) -> Self {
        self.object_acl = Some(CannedAcl::named(canned).unwrap().acl(owner, HOME_ID));
        self
    }

    fn decide(&self) -> Decision {
        let parse = |text: &String, kind| Policy::parse(text, kind).unwrap_or_else(|error| panic!("{text}: {error}"));
        let identity: Vec<Policy> = self.identity.iter().map(|text| parse(text, PolicyKind::Identity)).collect();
        let session = self.session.as_ref().map(|text| parse(text, PolicyKind::Session));
        let bucket_policy = self.bucket_policy.as_ref().map(|text| parse(text, PolicyKind::Bucket("b")));
        let canonical_id = if self.account == Some(HOME) { HOME_ID } else { AWAY_ID };
        let caller = match self.account {
            None => Caller::Anonymous,
            Some(account) if self.root => Caller::Root { account, canonical_id, session_policy: session.as_ref() },
            Some(account) => Caller::User {
                account,
                canonical_id,
                name: if self.role.is_some() { "" } else { self.name },
                role: self.role.map(|(role, session)| RoleSession { role, session }),
                policies: &identity,
                session_policy: session.as_ref(),
            },
        };
        evaluate(&Request {
            caller,
            action: self.action,
            resource: self.resource,
            context: &self.context,
            bucket: Some(BucketAccess {
                owner_account: HOME,
                policy: bucket_policy.as_ref(),
                block: self.block,
                ownership: self.ownership,
                acl: &self.bucket_acl,
            }),
            object: self.object_acl.as_ref().map(|acl| ObjectAccess { acl }),
        })
    }
}

const EVERYBODY: &str = "\"*\"";
const HOME_ROOT: &str = r#"{"AWS":"arn:aws:iam::111122223333:root"}"#;
const AWAY_ROOT: &str = r#"{"AWS":"444455556666"}"#;
const JANE: &str = r#"{"AWS":"arn:aws:iam::111122223333:user/jane"}"#;
const AWAY_JANE: &str = r#"{"AWS":"arn:aws:iam::444455556666:user/jane"}"#;
const ROLE: &str = r#"{"AWS":"arn:aws:iam::111122223333:role/team/app"}"#;
const SESSION: &str = r#"{"AWS":"arn:aws:sts::111122223333:assumed-role/app/s1"}"#;

#[test]
fn who_gets_in() {
    let public_block = PublicAccessBlock { restrict_public_buckets: true, ..PublicAccessBlock::default() };
    let restricted = |case: Case| Case { block: public_block, ..case };
    let writer = Ownership::ObjectWriter;
    let table: Vec<(&str, Case, bool)> = vec![
        // No policy, no access.
        ("a user without policies", case(), false),
        ("a stranger", case().stranger(), false),
        ("root of the owner", case().root(HOME), true),
        ("root of another account", case().root(AWAY), false),
        // Identity policies.
        ("a user with a policy", case().may("s3:GetObject"), true),
        ("with a wildcard", case().may("s3:Get*"), true),
        ("with everything", case().may("*"), true),
        ("actions have no case", case().may("S3:getobject"), true),
        ("with another action", case().may("s3:PutObject"), false),
        ("deny wins", case().may("s3:*").may_not("s3:GetObject"), false),
        ("deny of something else", case().may("s3:*").may_not("s3:PutObject"), true),
        // Bucket policies within an account.
        ("named in the bucket's policy", case().bucket("Allow", JANE), true),
        ("somebody else is named", Case { name: "bob", ..case() }.bucket("Allow", JANE), false),
        ("the account is named: it still decides", case().bucket("Allow", HOME_ROOT), false),
        ("the account is named and allows", case().bucket("Allow", HOME_ROOT).may("s3:GetObject"), true),
        ("everybody is named", case().bucket("Allow", EVERYBODY), true),
        ("the bucket denies a user that may", case().bucket("Deny", JANE).may("s3:*"), false),
        ("the bucket denies everybody, root too", case().root(HOME).bucket("Deny", EVERYBODY), false),
        (
            "but root keeps the policy",
            case().root(HOME).bucket("Deny", EVERYBODY).asks("s3:DeleteBucketPolicy", "arn:aws:s3:::b"),
            true,
        ),
        (
            "and a user does not",
            case().may("s3:*").bucket("Deny", EVERYBODY).asks("s3:DeleteBucketPolicy", "arn:aws:s3:::b"),
            false,
        ),
        // Strangers.
        ("a public bucket", case().stranger().bucket("Allow", EVERYBODY), true),
        ("a public bucket, restricted", restricted(case().stranger().bucket("Allow", EVERYBODY)), false),
        ("restricted: root goes on", restricted(case().root(HOME).bucket("Allow", EVERYBODY)), true),
        ("restricted: others don't", restricted(case().root(AWAY).bucket("Allow", EVERYBODY)), false),
        (
            "restricted: a policy that is not public holds",
            restricted(case().root(AWAY).bucket("Allow", AWAY_ROOT)),
            true,
        ),
        ("a bucket for an account", case().stranger().bucket("Allow", AWAY_ROOT), false),
        // Between accounts both sides are needed.
        ("the bucket allows the account: its root", case().root(AWAY).bucket("Allow", AWAY_ROOT), true),
        ("its user without a policy", case().of(AWAY).bucket("Allow", AWAY_ROOT), false),
        ("its user with one", case().of(AWAY).bucket("Allow", AWAY_ROOT).may("s3:GetObject"), true),
        ("the user is named but has no policy", case().of(AWAY).bucket("Allow", AWAY_JANE), false),
        ("the user is named and has one", case().of(AWAY).bucket("Allow", AWAY_JANE).may("s3:*"), true),
        ("the user's policy alone", case().of(AWAY).may("s3:*"), false),
        ("a namesake of another account", case().of(AWAY).bucket("Allow", JANE).may("s3:*"), false),
        ("everybody, but its account denies", case().of(AWAY).bucket("Allow", EVERYBODY).may_not("s3:*"), false),
        // Sessions.
        ("a session policy takes away", case().may("s3:*").session("s3:PutObject"), false),
        ("and lets through", case().may("s3:*").session("s3:Get*"), true),
        ("but never gives", case().session("s3:*"), false),
        ("a role's session", case().role("team/app", "s1").may("s3:*"), true),
        ("the role is named", case().role("team/app", "s1").bucket("Allow", ROLE), true),
        ("within the session policy", case().role("team/app", "s1").bucket("Allow", ROLE).session("s3:Put*"), false),
        ("the session is named", case().role("team/app", "s1").bucket("Allow", SESSION).session("s3:Put*"), true),
        ("another session is named", case().role("team/app", "s2").bucket("Allow", SESSION), false),
        ("a role is not a user of its name", case().role("jane", "s1").bucket("Allow", JANE), false),
        ("denied role", case().role("team/app", "s1").may("s3:*").bucket("Deny", ROLE), false),
        // ACLs.
        ("public-read, ACLs off", case().stranger().object(HOME_ID, "public-read"), false),
        ("public-read", case().stranger().acls(writer).object(HOME_ID, "public-read"), true),
        (
            "public-read, ignored",
            Case {
                block: PublicAccessBlock { ignore_public_acls: true, ..PublicAccessBlock::default() },
                ..case().stranger().acls(writer).object(HOME_ID, "public-read")
            },
            false,
        ),
        ("private", case().stranger().acls(writer).object(HOME_ID, "private"), false),
        ("authenticated-read, a stranger", case().stranger().acls(writer).object(HOME_ID, "authenticated-read"), false),
        ("authenticated-read", case().root(AWAY).acls(writer).object(HOME_ID, "authenticated-read"), true),
        ("the writer's own object", case().root(AWAY).acls(writer).object(AWAY_ID, "private"), true),
        ("the bucket's owner can't read it", case().root(HOME).acls(writer).object(AWAY_ID, "private"), false),
        ("unless it may", case().root(HOME).acls(writer).object(AWAY_ID, "bucket-owner-read"), true),
        (
            "but can delete it",
            case().root(HOME).acls(writer).object(AWAY_ID, "private").asks("s3:DeleteObject", "arn:aws:s3:::b/k"),
            true,
        ),
        (
            "the bucket's policy is not about it",
            case().stranger().acls(writer).object(AWAY_ID, "private").bucket("Allow", EVERYBODY),
            false,
        ),
        ("with ACLs off it is", case().stranger().object(AWAY_ID, "private").bucket("Allow", EVERYBODY), true),
        (
            "public-read-write bucket",
            Case {
                bucket_acl: CannedAcl::PublicReadWrite.acl(HOME_ID, HOME_ID),
                ..case().stranger().acls(writer).asks("s3:PutObject", "arn:aws:s3:::b/k")
            },
            true,
        ),
        (
            "does not give DeleteObject",
            Case {
                bucket_acl: CannedAcl::PublicReadWrite.acl(HOME_ID, HOME_ID),
                ..case().stranger().acls(writer).asks("s3:DeleteObject", "arn:aws:s3:::b/k")
            },
            false,
        ),
        (
            "public-read bucket lists",
            Case {
                bucket_acl: CannedAcl::PublicRead.acl(HOME_ID, HOME_ID),
                ..case().stranger().acls(writer).asks("s3:ListBucket", "arn:aws:s3:::b")
            },
            true,
        ),
        (
            "public-read bucket, a policy denies",
            Case {
                bucket_acl: CannedAcl::PublicRead.acl(HOME_ID, HOME_ID),
                ..case().stranger().acls(writer).bucket("Deny", EVERYBODY).asks("s3:ListBucket", "arn:aws:s3:::b")
            },
            false,
        ),
    ];
    for (name, case, want) in table {
        let decision = case.decide();
        assert_eq!(decision.allowed, want, "{name}: {decision:?}");
    }
}

/// "Grant access to a user-specific folder" of the IAM User Guide.
#[test]
fn a_home_folder_for_each_user() {
    let policy = r#"{"Version":"2012-10-17","Statement":[
        {"Action":["s3:ListAllMyBuckets","s3:GetBucketLocation"],"Effect":"Allow","Resource":["arn:aws:s3:::*"]},
        {"Action":["s3:ListBucket"],"Effect":"Allow","Resource":["arn:aws:s3:::b"],
         "Condition":{"StringEquals":{"s3:prefix":["","home/","home/${aws:username}"],"s3:delimiter":["/"]}}},
        {"Action":["s3:ListBucket"],"Effect":"Allow","Resource":["arn:aws:s3:::b"],
         "Condition":{"StringLike":{"s3:prefix":["home/${aws:username}/*"]}}},
        {"Effect":"Allow","Action":["s3:*"],"Resource":["arn:aws:s3:::b/home/${aws:username}/*"]}]}"#;
    let asks = |action, resource, prefix: Option<&str>| {
        let mut case = case().asks(action, resource);
        case.identity.push(policy.to_owned());
        case.context.set("aws:username", "jane");
        if let Some(prefix) = prefix {
            case.context.set("s3:prefix", prefix).set("s3:delimiter", "/");
        }
        case.decide().allowed
    };
    assert!(asks("s3:ListBucket", "arn:aws:s3:::b", Some("home/")));
    assert!(asks("s3:ListBucket", "arn:aws:s3:::b", Some("home/jane/x")));
    assert!(!asks("s3:ListBucket", "arn:aws:s3:::b", Some("home/bob/")));
    assert!(!asks("s3:ListBucket", "arn:aws:s3:::b", None));
    assert!(asks("s3:PutObject", "arn:aws:s3:::b/home/jane/x/y", None));
    assert!(!asks("s3:PutObject", "arn:aws:s3:::b/home/janet/x", None));
    assert!(!asks("s3:PutObject", "arn:aws:s3:::b/home/bob/x", None));
}

/// "Examples of Amazon S3 bucket policies" of the S3 User Guide: an upload must be encrypted; conditional writes enforced.
#[test]
fn documented_bucket_policies() {
    let decide = |policy: &str, set: &[(&str, &str)]| {
        let mut case = case().may("s3:*").asks("s3:PutObject", "arn:aws:s3:::b/k");
        case.bucket_policy = Some(policy.to_owned());
        for (key, value) in set {
            case.context.set(key, *value);
        }
        case.decide().allowed
    };
    let encrypted = r#"{"Version":"2012-10-17","Id":"PutObjectPolicy","Statement":[{"Sid":"DenyObjectsThatAreNotSSEKMS","Effect":"Deny","Principal":"*","Action":"s3:PutObject","Resource":"arn:aws:s3:::b/*","Condition":{"Null":{"s3:x-amz-server-side-encryption-aws-kms-key-id":"true"}}}]}"#;
    assert!(!decide(encrypted, &[]));
    assert!(decide(encrypted, &[("s3:x-amz-server-side-encryption-aws-kms-key-id", "k")]));
    let conditional = r#"{"Version":"2012-10-17","Statement":[{"Sid":"DenyPut","Effect":"Deny","Principal":"*","Action":"s3:PutObject","Resource":"arn:aws:s3:::b/*","Condition":{"Null":{"s3:if-none-match":"true"}}}]}"#;
    assert!(!decide(conditional, &[]));
    assert!(decide(conditional, &[("s3:if-none-match", "*")]));
    let addresses = r#"{"Version":"2012-10-17","Id":"S3PolicyId1","Statement":[{"Sid":"IPAllow","Effect":"Deny","Principal":"*","Action":"s3:*","Resource":["arn:aws:s3:::b","arn:aws:s3:::b/*"],"Condition":{"NotIpAddress":{"aws:SourceIp":"192.0.2.0/24"}}}]}"#;
    assert!(decide(addresses, &[("aws:SourceIp", "192.0.2.9")]));
    assert!(!decide(addresses, &[("aws:SourceIp", "198.51.100.1")]));
    let tls = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Principal":"*","Action":"s3:*","Resource":"arn:aws:s3:::b/*","Condition":{"NumericLessThan":{"s3:TlsVersion":1.2}}}]}"#;
    assert!(decide(tls, &[("s3:TlsVersion", "1.3")]));
    assert!(!decide(tls, &[("s3:TlsVersion", "1.1")]));
}

#[test]
fn trust() {
    let trust = |principal: &str| {
        let text = format!(
            r#"{{"Version":"2012-10-17","Statement":[{{"Effect":"Allow","Principal":{principal},"Action":"sts:AssumeRole"}}]}}"#
        );
        Policy::parse(&text, PolicyKind::Trust).unwrap()
    };
    let allows = vec![Policy::parse(&statement("Allow", "", "sts:AssumeRole", "*"), PolicyKind::Identity).unwrap()];
    let user = |account, policies| Caller::User {
        account,
        canonical_id: "x",
        name: "jane",
        role: None,
        policies,
        session_policy: None,
    };
    let context = Context::new();
    let can = |trust: &Policy, caller| {
        role_can_be_assumed(trust, HOME, "arn:aws:iam::111122223333:role/app", caller, &context)
    };
    assert!(can(&trust(JANE), user(HOME, &[])));
    assert!(!can(&trust(HOME_ROOT), user(HOME, &[])));
    assert!(can(&trust(HOME_ROOT), user(HOME, &allows)));
    assert!(!can(&trust(AWAY_ROOT), user(HOME, &allows)));
    assert!(!can(&trust(AWAY_JANE), user(AWAY, &[])));
    assert!(can(&trust(AWAY_JANE), user(AWAY, &allows)));
    assert!(!can(&trust(EVERYBODY), Caller::Anonymous));
}
