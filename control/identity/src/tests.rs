use std::sync::Arc;

use penstock_meta::kv::MemKv;
use penstock_meta::tables::Tables;
use penstock_policy::Context;

use crate::*;

const NOW: u64 = 1_800_000_000;

struct House {
    tables: Tables,
    all: Arc<Identities>,
}

async fn house() -> House {
    let tables = Tables::new(Arc::new(MemKv::new()));
    let all = open(&tables, 7).await.unwrap();
    House { tables, all }
}

async fn open(tables: &Tables, key: u8) -> Result<Arc<Identities>, IdentityError> {
    let root = RootAccount::new("ROOTKEY", Secret::new("rootsecret"));
    Identities::open(tables.clone(), root, &MasterKey::new([key; 32])).await
}

fn field(document: &str, name: &str) -> String {
    let start = document.find(&format!("<{name}>")).unwrap_or_else(|| panic!("{name} in {document}")) + name.len() + 2;
    document[start..start + document[start..].find("</").unwrap()].to_owned()
}

impl House {
    fn root(&self) -> Principal {
        self.all.principal("ROOTKEY", None, NOW).unwrap()
    }

    async fn try_as(&self, who: &Principal, query: &str) -> Result<String, IdentityError> {
        let mut context = Context::new();
        who.describe(&mut context);
        let params = Params::parse(query).unwrap();
        self.all.call(who, &params, &context, NOW, "R").await.map(|answered| answered.document)
    }

    async fn call(&self, query: &str) -> String {
        self.try_as(&self.root(), query).await.unwrap_or_else(|error| panic!("{query}: {error:?}"))
    }

    async fn kind(&self, who: &Principal, query: &str) -> ErrorKind {
        self.try_as(who, query).await.expect_err(query).kind
    }

    async fn user(&self, name: &str) -> (String, String) {
        self.call(&format!("Action=CreateUser&UserName={name}")).await;
        let made = self.call(&format!("Action=CreateAccessKey&UserName={name}")).await;
        (field(&made, "AccessKeyId"), field(&made, "SecretAccessKey"))
    }
}

const ALLOW_IAM: &str = "%7B%22Version%22%3A%222012-10-17%22%2C%22Statement%22%3A%5B%7B%22Effect%22%3A%22Allow%22%2C%22Action%22%3A%22iam%3AListUsers%22%2C%22Resource%22%3A%22%2A%22%7D%5D%7D";

#[tokio::test]
async fn users_keys_and_policies_live_and_survive() {
    let house = house().await;
    let (id, secret) = house.user("jane").await;
    assert_eq!((id.len(), secret.len()), (20, 40));
    assert_eq!(house.all.secret_of(&id).unwrap().expose(), secret);
    let jane = house.all.principal(&id, None, NOW).unwrap();
    assert_eq!(jane.arn().to_string(), "arn:aws:iam::000000000000:user/jane");
    assert_eq!(house.kind(&jane, "Action=ListUsers").await, ErrorKind::AccessDenied);
    house.call(&format!("Action=PutUserPolicy&UserName=jane&PolicyName=p&PolicyDocument={ALLOW_IAM}")).await;
    let jane = house.all.principal(&id, None, NOW).unwrap();
    assert!(house.try_as(&jane, "Action=ListUsers").await.unwrap().contains("<UserName>jane</UserName>"));
    assert_eq!(house.kind(&jane, "Action=CreateUser&UserName=x").await, ErrorKind::AccessDenied);

    // Another start over the same rows knows them; the secret is nowhere in clear; another master key opens none.
    let again = open(&house.tables, 7).await.unwrap();
    assert_eq!(again.secret_of(&id).unwrap().expose(), secret);
    let rows = house.tables.identities().await.unwrap();
    assert!(rows.iter().any(|(name, _)| *name == format!("key/{id}")));
    let needle = secret.as_bytes();
    assert!(rows.iter().all(|(_, bytes)| !bytes.windows(needle.len()).any(|window| window == needle)));
    assert!(open(&house.tables, 8).await.unwrap_err().message.contains("identity.key"));

    // Inactive keys open nothing; a deleted user leaves nothing.
    house.call(&format!("Action=UpdateAccessKey&UserName=jane&AccessKeyId={id}&Status=Inactive")).await;
    assert!(house.all.secret_of(&id).is_none() && house.all.principal(&id, None, NOW).is_err());
    let root = house.root();
    assert_eq!(house.kind(&root, "Action=DeleteUser&UserName=jane").await, ErrorKind::DeleteConflict);
    house.call("Action=DeleteUserPolicy&UserName=jane&PolicyName=p").await;
    assert_eq!(house.kind(&root, "Action=DeleteUser&UserName=jane").await, ErrorKind::DeleteConflict);
    house.call(&format!("Action=DeleteAccessKey&UserName=jane&AccessKeyId={id}")).await;
    house.call("Action=DeleteUser&UserName=jane").await;
    assert!(house.tables.identities().await.unwrap().is_empty());
}

#[tokio::test]
async fn calls_that_make_no_sense_say_why() {
    let house = house().await;
    house.user("jane").await;
    let root = house.root();
    let table = [
        ("", ErrorKind::MissingParameter),
        ("Action=Fly", ErrorKind::InvalidAction),
        ("Action=CreateUser", ErrorKind::MissingParameter),
        ("Action=CreateUser&UserName=a%2Fb", ErrorKind::ValidationError),
        ("Action=CreateUser&UserName=Jane", ErrorKind::EntityAlreadyExists),
        ("Action=CreateUser&UserName=x&PermissionsBoundary=y", ErrorKind::ValidationError),
        ("Action=GetUser&UserName=bob", ErrorKind::NoSuchEntity),
        ("Action=GetUserPolicy&UserName=jane&PolicyName=p", ErrorKind::NoSuchEntity),
        ("Action=PutUserPolicy&UserName=jane&PolicyName=p&PolicyDocument=x", ErrorKind::MalformedPolicyDocument),
        ("Action=AttachUserPolicy&UserName=jane&PolicyArn=arn:aws:iam::aws:policy/Nope", ErrorKind::NoSuchEntity),
        ("Action=DeleteAccessKey&UserName=jane&AccessKeyId=ROOTKEY", ErrorKind::NoSuchEntity),
        ("Action=AssumeRole&RoleArn=arn:aws:iam::000000000000:role/r&RoleSessionName=s1", ErrorKind::AccessDenied),
        ("Action=GetSessionToken&DurationSeconds=1", ErrorKind::ValidationError),
        ("Action=ListUsers&MaxItems=0", ErrorKind::ValidationError),
    ];
    for (query, want) in table {
        assert_eq!(house.kind(&root, query).await, want, "{query}");
    }
    house.call("Action=CreateAccessKey&UserName=jane").await;
    assert_eq!(house.kind(&root, "Action=CreateAccessKey&UserName=jane").await, ErrorKind::LimitExceeded);
}

#[tokio::test]
async fn temporary_credentials() {
    let house = house().await;
    let (id, _) = house.user("jane").await;
    let jane = house.all.principal(&id, None, NOW).unwrap();
    let made = house.try_as(&jane, "Action=GetSessionToken&DurationSeconds=900").await.unwrap();
    let (key, token) = (field(&made, "AccessKeyId"), field(&made, "SessionToken"));
    assert!(key.starts_with("ASIA"));
    assert_eq!(house.all.secret_of(&key).unwrap().expose(), field(&made, "SecretAccessKey"));
    let session = house.all.principal(&key, Some(&token), NOW + 899).unwrap();
    assert_eq!(session.who, jane.who);
    let kind = |key: &str, token: Option<&str>, now| house.all.principal(key, token, now).unwrap_err().kind;
    assert_eq!(kind(&key, Some(&token), NOW + 900), ErrorKind::ExpiredToken);
    assert_eq!(kind(&key, None, NOW), ErrorKind::InvalidAccessKeyId);
    assert_eq!(kind(&key, Some("x"), NOW), ErrorKind::InvalidToken);
    assert_eq!(kind("ASIAAAAAAAAAAAAAAAAA", Some(&token), NOW), ErrorKind::InvalidToken);
    assert_eq!(kind(&id, Some(&token), NOW), ErrorKind::InvalidToken);
    let mut changed = token.clone().into_bytes();
    changed[40] = if changed[40] == b'A' { b'B' } else { b'A' };
    assert_eq!(kind(&key, Some(std::str::from_utf8(&changed).unwrap()), NOW), ErrorKind::InvalidToken);
    assert_eq!(house.kind(&session, "Action=GetSessionToken").await, ErrorKind::AccessDenied);
    // The user is made again under the same name: the old session is nobody's.
    house.call(&format!("Action=DeleteAccessKey&UserName=jane&AccessKeyId={id}")).await;
    house.call("Action=DeleteUser&UserName=jane").await;
    house.call("Action=CreateUser&UserName=jane").await;
    assert_eq!(kind(&key, Some(&token), NOW), ErrorKind::AccessDenied);
}

#[tokio::test]
async fn roles_are_assumed_by_whom_they_trust() {
    let house = house().await;
    let (id, _) = house.user("jane").await;
    let (other, _) = house.user("bob").await;
    let trust = "%7B%22Version%22%3A%222012-10-17%22%2C%22Statement%22%3A%7B%22Effect%22%3A%22Allow%22%2C%22Principal%22%3A%7B%22AWS%22%3A%22arn%3Aaws%3Aiam%3A%3A000000000000%3Auser%2Fjane%22%7D%2C%22Action%22%3A%22sts%3AAssumeRole%22%7D%7D";
    let made =
        house.call(&format!("Action=CreateRole&RoleName=app&Path=/team/&AssumeRolePolicyDocument={trust}")).await;
    assert_eq!(field(&made, "Arn"), "arn:aws:iam::000000000000:role/team/app");
    let assume = "Action=AssumeRole&RoleArn=arn:aws:iam::000000000000:role/team/app&RoleSessionName=s1";
    let jane = house.all.principal(&id, None, NOW).unwrap();
    let bob = house.all.principal(&other, None, NOW).unwrap();
    assert_eq!(house.kind(&bob, assume).await, ErrorKind::AccessDenied);
    let made = house.try_as(&jane, assume).await.unwrap();
    let session = house.all.principal(&field(&made, "AccessKeyId"), Some(&field(&made, "SessionToken")), NOW).unwrap();
    assert_eq!(session.caller_arn().to_string(), "arn:aws:sts::000000000000:assumed-role/app/s1");
    let who = house.try_as(&session, "Action=GetCallerIdentity").await.unwrap();
    assert_eq!(field(&who, "Arn"), session.caller_arn().to_string());
    assert_eq!(house.kind(&session, "Action=ListUsers").await, ErrorKind::AccessDenied);
    house.call(&format!("Action=PutRolePolicy&RoleName=app&PolicyName=p&PolicyDocument={ALLOW_IAM}")).await;
    let session = house.all.principal(&field(&made, "AccessKeyId"), Some(&field(&made, "SessionToken")), NOW).unwrap();
    house.try_as(&session, "Action=ListUsers").await.unwrap();
}

#[tokio::test]
async fn accounts_are_apart() {
    let house = house().await;
    let made = house.call("Action=PenstockCreateAccount&AccountName=alt").await;
    let alt = house.all.principal(&field(&made, "AccessKeyId"), None, NOW).unwrap();
    assert_eq!((alt.account_id().len(), alt.canonical_id().len()), (12, 64));
    house.call("Action=CreateUser&UserName=jane").await;
    assert!(!house.try_as(&alt, "Action=ListUsers").await.unwrap().contains("jane"));
    assert_eq!(house.kind(&alt, "Action=GetUser&UserName=jane").await, ErrorKind::NoSuchEntity);
    assert_eq!(house.kind(&alt, "Action=PenstockCreateAccount&AccountName=x").await, ErrorKind::AccessDenied);
    house.try_as(&alt, "Action=CreateUser&UserName=jane").await.unwrap();
    let delete = format!("Action=PenstockDeleteAccount&AccountId={}", alt.account_id());
    assert_eq!(house.kind(&house.root(), &delete).await, ErrorKind::DeleteConflict);
    house.try_as(&alt, "Action=DeleteUser&UserName=jane").await.unwrap();
    house.call(&delete).await;
    assert!(house.all.secret_of(&field(&made, "AccessKeyId")).is_none());
}

#[test]
fn key_material_is_not_shown() {
    assert_eq!(format!("{:?}", Secret::new("abc")), "Secret(..)");
    assert_eq!(format!("{:?}", MasterKey::new([1; 32])), "MasterKey(..)");
    let root = RootAccount::new("K", Secret::new("very-secret"));
    assert!(!format!("{root:?}").contains("very-secret"));
}
