//! Keys, and where they come from: the AWS chain. Environment, then profile files, then the container's endpoint (ECS, EKS Pod
//! Identity), then the instance's (EC2, IMDSv2). Keys that expire are fetched again some minutes before.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::http::plain_get;

/// A key pair, perhaps a temporary one. Its `Debug` shows no secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    pub(crate) access_key_id: String,
    pub(crate) secret_access_key: String,
    pub(crate) session_token: Option<String>,
    pub(crate) expires: Option<OffsetDateTime>,
}

impl Credentials {
    /// A key pair that does not expire.
    pub fn new(access_key_id: impl Into<String>, secret_access_key: impl Into<String>) -> Self {
        Self {
            access_key_id: access_key_id.into(),
            secret_access_key: secret_access_key.into(),
            session_token: None,
            expires: None,
        }
    }

    /// With a session token, for temporary ones.
    #[must_use]
    pub fn with_token(self, token: impl Into<String>) -> Self {
        Self { session_token: Some(token.into()), ..self }
    }

    /// Good until then (Unix seconds): fetched again some minutes before.
    ///
    /// # Errors
    /// What is no time.
    pub fn with_expiry(self, unix_s: i64) -> Result<Self, CredentialsError> {
        let wrong = |error: time::error::ComponentRange| CredentialsError::Source {
            source_name: "an expiry".to_owned(),
            reason: error.to_string(),
        };
        Ok(Self { expires: Some(OffsetDateTime::from_unix_timestamp(unix_s).map_err(wrong)?), ..self })
    }

    /// Which key.
    pub fn access_key_id(&self) -> &str {
        &self.access_key_id
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("access_key_id", &self.access_key_id).finish_non_exhaustive()
    }
}

/// Why there are no keys.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CredentialsError {
    /// Nowhere.
    #[error(
        "no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile in ~/.aws/credentials ({0})"
    )]
    None(String),
    /// A source that is configured does not give any.
    #[error("credentials from {source_name}: {reason}")]
    Source {
        /// Which.
        source_name: String,
        /// Why.
        reason: String,
    },
}

impl CredentialsError {
    /// Whether they may be there later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Source { .. })
    }
}

/// How long a container's or instance's endpoint may take to answer.
const ENDPOINT_TIMEOUT: Duration = Duration::from_secs(2);
/// Keys are fetched again when they expire within so long.
const RENEW_BEFORE: time::Duration = time::Duration::minutes(5);

/// Where a client's keys come from. Clones share what was fetched.
#[derive(Clone)]
pub struct CredentialsProvider(Arc<Provider>);

struct Provider {
    source: Source,
    known: tokio::sync::Mutex<Option<Credentials>>,
}

/// What an environment variable is, by its name.
type Variables = Box<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// Keys that a program fetches in its own way.
type Fetch = Box<dyn Fn() -> BoxFuture<'static, Result<Credentials, CredentialsError>> + Send + Sync>;

enum Source {
    Fixed(Credentials),
    Chain { variable: Variables },
    Own(Fetch),
}

impl CredentialsProvider {
    /// Always these.
    pub fn fixed(keys: Credentials) -> Self {
        Self(Arc::new(Provider { source: Source::Fixed(keys), known: tokio::sync::Mutex::new(None) }))
    }

    /// The AWS chain.
    pub fn aws_chain() -> Self {
        Self::chain_with(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    /// The AWS chain over these variables instead of the environment's.
    pub fn chain_with(variable: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Self {
        let source = Source::Chain { variable: Box::new(variable) };
        Self(Arc::new(Provider { source, known: tokio::sync::Mutex::new(None) }))
    }

    /// Keys that a program fetches in its own way: asked for when there are none, when they expire within minutes, and when the
    /// server says that they have expired.
    pub fn own<F, K>(fetch: F) -> Self
    where
        F: Fn() -> K + Send + Sync + 'static,
        K: Future<Output = Result<Credentials, CredentialsError>> + Send + 'static,
    {
        let source = Source::Own(Box::new(move || Box::pin(fetch())));
        Self(Arc::new(Provider { source, known: tokio::sync::Mutex::new(None) }))
    }

    /// Forgets what was fetched: the server says that it has expired. Whether there is something to fetch anew.
    pub async fn forget(&self) -> bool {
        *self.0.known.lock().await = None;
        !matches!(self.0.source, Source::Fixed(_))
    }

    /// Keys that are good for some minutes.
    ///
    /// # Errors
    /// [`CredentialsError`]; no wait is longer than some seconds.
    pub async fn get(&self) -> Result<Credentials, CredentialsError> {
        if let Source::Fixed(keys) = &self.0.source {
            return Ok(keys.clone());
        }
        let mut known = self.0.known.lock().await;
        let fresh =
            |keys: &Credentials| keys.expires.is_none_or(|expires| expires - RENEW_BEFORE > OffsetDateTime::now_utc());
        if let Some(keys) = known.as_ref().filter(|keys| fresh(keys)) {
            return Ok(keys.clone());
        }
        let keys = match &self.0.source {
            Source::Fixed(keys) => keys.clone(),
            Source::Chain { variable } => chain(&**variable).await?,
            Source::Own(fetch) => fetch().await?,
        };
        *known = Some(keys.clone());
        Ok(keys)
    }
}

impl fmt::Debug for CredentialsProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CredentialsProvider(..)")
    }
}

type Variable<'a> = &'a (dyn Fn(&str) -> Option<String> + Send + Sync);

async fn chain(variable: Variable<'_>) -> Result<Credentials, CredentialsError> {
    if let (Some(id), Some(secret)) = (variable("AWS_ACCESS_KEY_ID"), variable("AWS_SECRET_ACCESS_KEY")) {
        let keys = Credentials::new(id, secret);
        return Ok(match variable("AWS_SESSION_TOKEN") {
            Some(token) => keys.with_token(token),
            None => keys,
        });
    }
    if let Some(keys) = profile(variable).await? {
        return Ok(keys);
    }
    if let Some(keys) = container(variable).await? {
        return Ok(keys);
    }
    instance(variable).await
}

/// The profile of `AWS_PROFILE`, or the default one, in the shared files.
async fn profile(variable: Variable<'_>) -> Result<Option<Credentials>, CredentialsError> {
    let home = variable("HOME").map(PathBuf::from).unwrap_or_default();
    let file = |name: &str, fallback: &str| variable(name).map_or_else(|| home.join(fallback), PathBuf::from);
    let asked = variable("AWS_PROFILE");
    let name = asked.clone().unwrap_or_else(|| "default".to_owned());
    let files = [
        (file("AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials"), name.clone()),
        (
            file("AWS_CONFIG_FILE", ".aws/config"),
            if name == "default" { name.clone() } else { format!("profile {name}") },
        ),
    ];
    for (path, section) in files {
        let Ok(text) = tokio::fs::read_to_string(&path).await else { continue };
        let of = |key: &str| setting(&text, &section, key);
        if let (Some(id), Some(secret)) = (of("aws_access_key_id"), of("aws_secret_access_key")) {
            let keys = Credentials::new(id, secret);
            return Ok(Some(match of("aws_session_token") {
                Some(token) => keys.with_token(token),
                None => keys,
            }));
        }
    }
    match asked {
        Some(name) => {
            let reason = format!("no file has keys for the profile {name:?} that AWS_PROFILE names");
            Err(CredentialsError::Source { source_name: "profile files".to_owned(), reason })
        }
        None => Ok(None),
    }
}

/// A setting of the profile of `AWS_PROFILE`, or of the default one, in `~/.aws/config`.
pub(crate) fn profile_setting(variable: &dyn Fn(&str) -> Option<String>, key: &str) -> Option<String> {
    let home = variable("HOME").map(PathBuf::from).unwrap_or_default();
    let path = variable("AWS_CONFIG_FILE").map_or_else(|| home.join(".aws/config"), PathBuf::from);
    let section = match variable("AWS_PROFILE") {
        Some(name) if name != "default" => format!("profile {name}"),
        _ => "default".to_owned(),
    };
    setting(&std::fs::read_to_string(path).ok()?, &section, key)
}

/// `key` in `[section]` of an INI file as AWS writes them.
fn setting(text: &str, section: &str, key: &str) -> Option<String> {
    let mut here = false;
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            here = name.trim() == section;
        } else if here
            && let Some((name, value)) = line.split_once('=')
            && name.trim() == key
        {
            return Some(value.trim().to_owned()).filter(|value| !value.is_empty());
        }
    }
    None
}

/// The endpoint that ECS and EKS give a container.
async fn container(variable: Variable<'_>) -> Result<Option<Credentials>, CredentialsError> {
    let url = match (variable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"), variable("AWS_CONTAINER_CREDENTIALS_FULL_URI"))
    {
        (Some(path), _) => format!("http://169.254.170.2{path}"),
        (None, Some(url)) => url,
        (None, None) => return Ok(None),
    };
    let failed = |reason: String| CredentialsError::Source { source_name: format!("the container ({url})"), reason };
    let token = match variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE") {
        Some(path) => {
            let text = tokio::fs::read_to_string(&path).await.map_err(|error| failed(format!("{path}: {error}")))?;
            Some(text.trim().to_owned())
        }
        None => variable("AWS_CONTAINER_AUTHORIZATION_TOKEN"),
    };
    let headers: Vec<(&'static str, String)> = token.map(|token| ("authorization", token)).into_iter().collect();
    let answer = plain_get("GET", &url, &headers, ENDPOINT_TIMEOUT).await.map_err(failed)?;
    from_json(&answer).map(Some).map_err(failed)
}

/// EC2's instance metadata, version 2.
async fn instance(variable: Variable<'_>) -> Result<Credentials, CredentialsError> {
    if variable("AWS_EC2_METADATA_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return Err(CredentialsError::None("and AWS_EC2_METADATA_DISABLED is true".to_owned()));
    }
    let base = variable("AWS_EC2_METADATA_SERVICE_ENDPOINT").unwrap_or_else(|| "http://169.254.169.254".to_owned());
    let base = base.trim_end_matches('/');
    let none = |reason: String| CredentialsError::None(format!("and the instance has none: {reason}"));
    let ttl = [("x-aws-ec2-metadata-token-ttl-seconds", "300".to_owned())];
    let token = plain_get("PUT", &format!("{base}/latest/api/token"), &ttl, ENDPOINT_TIMEOUT).await.map_err(none)?;
    let headers = [("x-aws-ec2-metadata-token", String::from_utf8_lossy(&token).trim().to_owned())];
    let roles = format!("{base}/latest/meta-data/iam/security-credentials/");
    let role = plain_get("GET", &roles, &headers, ENDPOINT_TIMEOUT).await.map_err(none)?;
    let role = String::from_utf8_lossy(&role).lines().next().unwrap_or_default().trim().to_owned();
    let answer = plain_get("GET", &format!("{roles}{role}"), &headers, ENDPOINT_TIMEOUT).await.map_err(none)?;
    from_json(&answer).map_err(none)
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    access_key_id: String,
    secret_access_key: String,
    token: Option<String>,
    expiration: Option<String>,
}

fn from_json(bytes: &[u8]) -> Result<Credentials, String> {
    let answer: Answer = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let expires = match answer.expiration {
        Some(text) => Some(OffsetDateTime::parse(&text, &Rfc3339).map_err(|error| format!("{text}: {error}"))?),
        None => None,
    };
    Ok(Credentials {
        access_key_id: answer.access_key_id,
        secret_access_key: answer.secret_access_key,
        session_token: answer.token,
        expires,
    })
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn provider(variables: Vec<(&'static str, String)>) -> CredentialsProvider {
        CredentialsProvider::chain_with(move |name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone())
        })
    }

    #[tokio::test]
    async fn the_environment_comes_first_then_the_profile() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("credentials");
        let text = "# keys\n[default]\naws_access_key_id = D\naws_secret_access_key=DS\n\n[other]\naws_access_key_id=O\n\
                    aws_secret_access_key = OS\naws_session_token = T\n";
        std::fs::write(&path, text).unwrap();
        let file = ("AWS_SHARED_CREDENTIALS_FILE", path.display().to_string());
        let keys = provider(vec![file.clone()]).get().await.unwrap();
        assert_eq!(keys, Credentials::new("D", "DS"));
        let other = ("AWS_PROFILE", "other".to_owned());
        let keys = provider(vec![file.clone(), other.clone()]).get().await.unwrap();
        assert_eq!(keys, Credentials::new("O", "OS").with_token("T"));
        let environment = vec![
            ("AWS_ACCESS_KEY_ID", "E".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "ES".to_owned()),
            file.clone(),
            other,
        ];
        assert_eq!(provider(environment).get().await.unwrap(), Credentials::new("E", "ES"));
        let missing = provider(vec![file, ("AWS_PROFILE", "nobody".to_owned())]).get().await.unwrap_err();
        assert!(missing.to_string().contains("nobody"), "{missing}");
        let none = provider(vec![("AWS_EC2_METADATA_DISABLED", "true".to_owned())]).get().await.unwrap_err();
        assert!(none.to_string().contains("AWS_ACCESS_KEY_ID"), "{none}");
    }

    #[tokio::test]
    async fn a_program_may_have_its_own_way_and_is_asked_again_when_told() {
        let count = Arc::new(std::sync::atomic::AtomicU32::new(0));
        let counted = Arc::clone(&count);
        let provider = CredentialsProvider::own(move || {
            let number = counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            async move { Ok(Credentials::new(format!("K{number}"), "S")) }
        });
        assert_eq!(provider.get().await.unwrap().access_key_id(), "K0");
        assert_eq!(provider.get().await.unwrap().access_key_id(), "K0");
        assert!(provider.forget().await);
        assert_eq!(provider.get().await.unwrap().access_key_id(), "K1");
        assert!(!CredentialsProvider::fixed(Credentials::new("F", "S")).forget().await);
    }

    #[tokio::test]
    async fn a_container_is_asked_and_what_it_says_is_kept() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        let serving = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let got = stream.read(&mut request).await.unwrap();
            let body = r#"{"AccessKeyId":"C","SecretAccessKey":"CS","Token":"CT","Expiration":"2999-01-01T00:00:00Z"}"#;
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8_lossy(&request[..got]).into_owned()
        });
        let provider = provider(vec![
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", url),
            ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "secret-token".to_owned()),
        ]);
        let keys = provider.get().await.unwrap();
        assert_eq!((keys.access_key_id(), keys.session_token.as_deref()), ("C", Some("CT")));
        assert!(serving.await.unwrap().contains("authorization: secret-token"));
        assert_eq!(provider.get().await.unwrap(), keys, "from memory: nobody listens any more");
    }
}
