//! `penstock admin`: users, keys, policies and accounts of a running store, by the same signed IAM calls that boto3 makes; and
//! what keeps the store ([`crate::admin_keep`]), by calls of the same kind.
//!
//! One call a run, over plain HTTP/1.1. Who may do what is the server's to say; what it answers is printed as `name value`
//! lines, a new secret among them (standard output is where it is promised to be).

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use penstock_client::Credentials;
use penstock_client::sign::{Signer, ToSign, encoded_value, payload_hash};
use time::OffsetDateTime;
use tokio::net::TcpStream;

use crate::Fatal;
use crate::admin_keep::{self, Keep, Look, Show};
use crate::config::Size;
use crate::identity::{ROOT_CREDENTIALS_FILE, RootCredentials};

/// How long a call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest answer: a page of a list.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// Where the store is and who asks.
#[derive(Debug, Args)]
pub(crate) struct AdminArguments {
    /// The store's S3 endpoint. Plain HTTP: run this where the network is trusted.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9000", env = "AWS_ENDPOINT_URL", global = true)]
    endpoint: String,
    /// The store's directory, whose root key pair is used. Without it: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and
    /// AWS_SESSION_TOKEN).
    #[arg(long, value_name = "DIR", global = true)]
    data: Option<PathBuf>,
    #[command(subcommand)]
    what: Admin,
}

#[derive(Debug, Subcommand)]
enum Admin {
    /// Users.
    #[command(subcommand)]
    User(User),
    /// Access keys.
    #[command(subcommand)]
    Key(Key),
    /// Policies of users.
    #[command(subcommand)]
    Policy(Policy),
    /// Storage policies: which code new data of a storage class (x-amz-storage-class) is kept with.
    #[command(subcommand)]
    StoragePolicy(StoragePolicy),
    /// Accounts: each has its own users and buckets, and a root. The store's own account sees to them.
    #[command(subcommand)]
    Account(Account),
    /// How the store is: nodes, what lacks shards, repairs, scrubs.
    Status {
        #[command(flatten)]
        show: Show,
    },
    /// Compare metadata and nodes now, and repair what is found.
    Repair {
        #[command(flatten)]
        look: Look,
    },
    /// Empty a node: nothing new goes to it, and its shards go to others. Before it is taken away or replaced.
    Drain {
        /// Its id.
        node: u16,
        #[command(flatten)]
        look: Look,
    },
    /// Stop to drain a node.
    Undrain {
        /// Its id.
        node: u16,
        #[command(flatten)]
        look: Look,
    },
    /// Read and check everything that nodes hold, now.
    Scrub {
        /// One node alone.
        #[arg(long)]
        node: Option<u16>,
        /// How fast each node reads.
        #[arg(long, value_name = "SIZE", default_value = "256MiB")]
        bytes_per_second: Size,
        #[command(flatten)]
        look: Look,
    },
    /// Encryption keys that objects may name (SSE-KMS). Without a name, requests use aws/s3, which makes itself.
    #[command(subcommand)]
    Kms(Kms),
}

#[derive(Debug, Subcommand)]
enum User {
    /// Make a user. It can do nothing until it has a key and a policy.
    Create { name: String },
    /// Remove a user that has no keys and policies any more.
    Delete { name: String },
    /// List users.
    List,
}

#[derive(Debug, Subcommand)]
enum Key {
    /// Make an access key for a user; its secret is shown once.
    Create { user: String },
    /// Remove an access key.
    Delete { user: String, id: String },
    /// Let an access key open nothing, without removing it.
    Disable { user: String, id: String },
    /// The opposite of disable.
    Enable { user: String, id: String },
    /// List a user's access keys.
    List { user: String },
}

#[derive(Debug, Subcommand)]
enum Policy {
    /// Give a user the policy in a file (IAM's JSON), in place of the one of that name.
    Put { user: String, name: String, file: PathBuf },
    /// Show a user's policy.
    Get { user: String, name: String },
    /// Remove a user's policy.
    Delete { user: String, name: String },
    /// List a user's policies.
    List { user: String },
    /// Give a user one of the policies that are known by ARN, such as arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess.
    Attach { user: String, arn: String },
    /// Take it away again.
    Detach { user: String, arn: String },
}

#[derive(Debug, Subcommand)]
enum StoragePolicy {
    /// List the policies of the store, or of a bucket.
    List {
        /// A bucket's: what is set for it goes before what is set for the store.
        #[arg(long)]
        bucket: Option<String>,
    },
    /// Show a class's policy.
    Show {
        /// The class, STANDARD for what names none.
        class: String,
        /// In a bucket.
        #[arg(long)]
        bucket: Option<String>,
    },
    /// Keep new data of a class with a code.
    Set {
        /// The class, STANDARD for what names none.
        class: String,
        /// For example "RS(10,4)", "LRC(12,2,2)" or 3x.
        code: String,
        /// In a bucket alone.
        #[arg(long)]
        bucket: Option<String>,
    },
    /// Take back what was set.
    Unset {
        /// The class.
        class: String,
        /// In a bucket.
        #[arg(long)]
        bucket: Option<String>,
    },
}

impl StoragePolicy {
    fn call(self) -> (&'static str, Parameters) {
        let parameters = |bucket: Option<String>, more: Vec<(&'static str, String)>| {
            bucket.map(|bucket| ("Bucket", bucket)).into_iter().chain(more).collect()
        };
        match self {
            Self::List { bucket } => ("PenstockListStoragePolicies", parameters(bucket, Vec::new())),
            Self::Show { class, bucket } => ("PenstockListStoragePolicies", parameters(bucket, vec![("Class", class)])),
            Self::Set { class, code, bucket } => {
                ("PenstockSetStoragePolicy", parameters(bucket, vec![("Class", class), ("Code", code)]))
            }
            Self::Unset { class, bucket } => {
                ("PenstockDeleteStoragePolicy", parameters(bucket, vec![("Class", class)]))
            }
        }
    }
}

#[derive(Debug, Subcommand)]
enum Account {
    /// Make an account, and the key pair of its root, which is shown once.
    Create { name: String },
    /// Remove an account that has no users and roles, by its id.
    Delete { id: String },
    /// List accounts.
    List,
}

#[derive(Debug, Subcommand)]
enum Kms {
    /// Make a key.
    Create { name: String },
    /// List keys, with how many versions each has.
    List,
    /// Let a key encrypt and decrypt nothing, without removing it: its objects can't be read meanwhile.
    Disable { name: String },
    /// The opposite of disable.
    Enable { name: String },
    /// Add a version to a key, for new objects; those that there are keep theirs, and are read as before.
    Rotate { name: String },
}

type Parameters = Vec<(&'static str, String)>;

impl Admin {
    /// What is asked of the store itself, if it is that.
    fn keep(self) -> Result<Keep, Self> {
        Ok(match self {
            Self::Status { show } => Keep::Status(show),
            Self::Repair { look } => Keep::Repair(look),
            Self::Drain { node, look } => Keep::Drain(node, true, look),
            Self::Undrain { node, look } => Keep::Drain(node, false, look),
            Self::Scrub { node, bytes_per_second, look } => Keep::Scrub(node, bytes_per_second.0, look),
            other => return Err(other),
        })
    }

    /// The action and its parameters.
    fn call(self) -> Result<(&'static str, Parameters), Fatal> {
        let user = |user: String| ("UserName", user);
        let policy = |name: String| ("PolicyName", name);
        let status = |id: String, status: &str| [("AccessKeyId", id), ("Status", status.to_owned())];
        Ok(match self {
            Self::User(User::Create { name }) => ("CreateUser", vec![user(name)]),
            Self::User(User::Delete { name }) => ("DeleteUser", vec![user(name)]),
            Self::User(User::List) => ("ListUsers", vec![("MaxItems", "1000".to_owned())]),
            Self::Key(Key::Create { user: name }) => ("CreateAccessKey", vec![user(name)]),
            Self::Key(Key::List { user: name }) => ("ListAccessKeys", vec![user(name)]),
            Self::Key(Key::Delete { user: name, id }) => ("DeleteAccessKey", vec![user(name), ("AccessKeyId", id)]),
            Self::Key(Key::Disable { user: name, id }) => {
                ("UpdateAccessKey", [vec![user(name)], status(id, "Inactive").to_vec()].concat())
            }
            Self::Key(Key::Enable { user: name, id }) => {
                ("UpdateAccessKey", [vec![user(name)], status(id, "Active").to_vec()].concat())
            }
            Self::Policy(Policy::Put { user: name, name: policy_name, file }) => {
                let text = std::fs::read_to_string(&file).map_err(|error| Fatal::doing(file.display(), error))?;
                ("PutUserPolicy", vec![user(name), policy(policy_name), ("PolicyDocument", text)])
            }
            Self::Policy(Policy::Get { user: name, name: wanted }) => {
                ("GetUserPolicy", vec![user(name), policy(wanted)])
            }
            Self::Policy(Policy::Delete { user: name, name: wanted }) => {
                ("DeleteUserPolicy", vec![user(name), policy(wanted)])
            }
            Self::Policy(Policy::List { user: name }) => ("ListUserPolicies", vec![user(name)]),
            Self::Policy(Policy::Attach { user: name, arn }) => {
                ("AttachUserPolicy", vec![user(name), ("PolicyArn", arn)])
            }
            Self::Policy(Policy::Detach { user: name, arn }) => {
                ("DetachUserPolicy", vec![user(name), ("PolicyArn", arn)])
            }
            Self::StoragePolicy(policy) => policy.call(),
            Self::Account(Account::Create { name }) => ("PenstockCreateAccount", vec![("AccountName", name)]),
            Self::Account(Account::Delete { id }) => ("PenstockDeleteAccount", vec![("AccountId", id)]),
            Self::Status { .. }
            | Self::Repair { .. }
            | Self::Drain { .. }
            | Self::Undrain { .. }
            | Self::Scrub { .. } => {
                return Err(Fatal("this is no IAM call".to_owned()));
            }
            Self::Kms(kms) => {
                let key = |name: String| vec![("KeyName", name)];
                match kms {
                    Kms::Create { name } => ("PenstockCreateKmsKey", key(name)),
                    Kms::List => ("PenstockListKmsKeys", Vec::new()),
                    Kms::Disable { name } => ("PenstockDisableKmsKey", key(name)),
                    Kms::Enable { name } => ("PenstockEnableKmsKey", key(name)),
                    Kms::Rotate { name } => ("PenstockRotateKmsKey", key(name)),
                }
            }
            Self::Account(Account::List) => ("PenstockListAccounts", vec![("MaxItems", "1000".to_owned())]),
        })
    }
}

/// Who asks.
fn signer(data: Option<&Path>) -> Result<Credentials, Fatal> {
    if let Some(folder) = data {
        let path = folder.join(ROOT_CREDENTIALS_FILE);
        let text = std::fs::read_to_string(&path).map_err(|error| Fatal::doing(path.display(), error))?;
        let pair: RootCredentials = toml::from_str(&text).map_err(|error| Fatal::doing(path.display(), error))?;
        return Ok(Credentials::new(pair.access_key_id, pair.secret_access_key));
    }
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    match (variable("AWS_ACCESS_KEY_ID"), variable("AWS_SECRET_ACCESS_KEY")) {
        (Some(access_key), Some(secret)) => {
            let keys = Credentials::new(access_key, secret);
            Ok(match variable("AWS_SESSION_TOKEN") {
                Some(token) => keys.with_token(token),
                None => keys,
            })
        }
        _ => Err(Fatal(
            "who asks? Give --data DIR (the store's directory), or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
                .to_owned(),
        )),
    }
}

/// The head of a signed call with this body.
fn signed(host: &str, body: &str, keys: &Credentials, now: OffsetDateTime) -> http::request::Builder {
    let content_type = ("content-type", "application/x-www-form-urlencoded; charset=utf-8");
    let hash = payload_hash(body.as_bytes());
    let headers = [content_type];
    let to_sign = ToSign { method: "POST", host, path: "/", query: "", headers: &headers, payload_hash: &hash };
    let signature = Signer::new("us-east-1", "iam").sign(&to_sign, keys, now);
    let request = http::Request::post("/").header("host", host).header(content_type.0, content_type.1);
    signature.into_iter().fold(request, |request, (name, value)| request.header(name, value))
}

/// `penstock admin`.
#[allow(clippy::print_stdout, reason = "standard output is where the answer is promised to be")]
pub(crate) async fn run(arguments: AdminArguments) -> Result<(), Fatal> {
    let caller = Caller { endpoint: arguments.endpoint.clone(), signer: signer(arguments.data.as_deref())? };
    let what = match arguments.what.keep() {
        Ok(keep) => return admin_keep::run(&caller, keep).await,
        Err(what) => what,
    };
    let (action, parameters) = what.call()?;
    for (name, text) in caller.ask(action, parameters).await?.into_iter().filter(|(name, _)| name != "RequestId") {
        println!("{name} {text}");
    }
    Ok(())
}

/// Asks a store.
pub(crate) struct Caller {
    endpoint: String,
    signer: Credentials,
}

impl Caller {
    /// One call. The elements of its answer that hold text.
    pub(crate) async fn ask(&self, action: &str, parameters: Parameters) -> Result<Vec<(String, String)>, Fatal> {
        call(self, action, &parameters).await
    }
}

async fn call(caller: &Caller, action: &str, parameters: &Parameters) -> Result<Vec<(String, String)>, Fatal> {
    let Caller { endpoint, signer } = caller;
    let mut body = format!("Action={action}&Version=2010-05-08");
    for (name, value) in parameters {
        body.push_str(&format!("&{name}={}", encoded_value(value)));
    }
    let Some(host) = endpoint.strip_prefix("http://") else {
        return Err(Fatal(format!("{endpoint}: an endpoint is http://HOST:PORT")));
    };
    let host = host.trim_end_matches('/').to_owned();
    let address = if host.contains(':') { host.clone() } else { format!("{host}:80") };
    let request = signed(&host, &body, signer, OffsetDateTime::now_utc())
        .body(Full::new(bytes::Bytes::from(body)))
        .map_err(|error| Fatal::doing("the call", error))?;
    let call = async {
        let failed = |error: &dyn std::fmt::Display| Fatal(format!("{endpoint}: {error}"));
        let stream = TcpStream::connect(&address).await.map_err(|error| failed(&error))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
        let driving = tokio::spawn(connection);
        let response = sender.send_request(request).await.map_err(|error| failed(&error))?;
        let status = response.status();
        let body =
            Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await.map_err(|error| failed(&error))?;
        driving.abort();
        Ok::<_, Fatal>((status, String::from_utf8_lossy(&body.to_bytes()).into_owned()))
    };
    let (status, answer) = tokio::time::timeout(CALL_TIMEOUT, call)
        .await
        .map_err(|_| Fatal(format!("{endpoint} did not answer within {CALL_TIMEOUT:?}")))??;
    if !status.is_success() {
        let found = |name: &str| leaves(&answer).into_iter().find(|(leaf, _)| leaf == name).map(|(_, text)| text);
        let (code, message) = (found("Code").unwrap_or_default(), found("Message").unwrap_or_default());
        return Err(Fatal(format!("{action}: {status} {code}: {message}")));
    }
    Ok(leaves(&answer))
}

/// The elements of a document that hold text and no elements, in order.
fn leaves(document: &str) -> Vec<(String, String)> {
    let mut leaves = Vec::new();
    let mut pieces = document.split('<').skip(1).peekable();
    while let Some(piece) = pieces.next() {
        let (Some((tag, text)), Some(next)) = (piece.split_once('>'), pieces.peek()) else { continue };
        if !tag.starts_with('/') && next.split('>').next() == Some(&format!("/{tag}")) {
            leaves.push((tag.to_owned(), unescaped(text)));
        }
    }
    leaves
}

fn unescaped(text: &str) -> String {
    text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_as_names_and_texts() {
        let document = "<R xmlns=\"x\"><A><B>1 &lt; 2</B><C></C></A><B>3</B></R>";
        let want = [("B", "1 < 2"), ("C", ""), ("B", "3")];
        assert_eq!(leaves(document), want.map(|(name, text)| (name.to_owned(), text.to_owned())));
    }
}
