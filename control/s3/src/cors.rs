//! CORS: which web origins may ask, checked before requests (preflight) and said with answers. The rules are S3's ("Using
//! cross-origin resource sharing"): the first rule that matches origin, method and all asked headers is the one.
//!
//! CORS gives no rights: it tells browsers what they may show to whom.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, VARY,
};
use http::{HeaderMap, HeaderValue, StatusCode};
use s3s::dto;

use crate::failure::Failure;
use crate::ops::settings::unreadable;
use crate::respond::{self, Answer};
use crate::server::Front;
use crate::xml::Xml;

/// Most rules of one bucket: S3's.
const RULES_MAX: usize = 100;
/// The methods that a rule may allow.
const METHODS: [&str; 5] = ["GET", "PUT", "POST", "DELETE", "HEAD"];

/// One rule. Stored as JSON: origins, methods, allowed headers, exposed headers, id, max age.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    origins: Vec<String>,
    methods: Vec<String>,
    headers: Vec<String>,
    expose: Vec<String>,
    id: Option<String>,
    max_age_seconds: Option<i32>,
}

type StoredRule = (Vec<String>, Vec<String>, Vec<String>, Vec<String>, Option<String>, Option<i32>);

/// A bucket's rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CorsRules(Vec<Rule>);

impl CorsRules {
    /// Reads a `<CORSConfiguration>`.
    ///
    /// # Errors
    /// MalformedXML, InvalidRequest.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, Failure> {
        let document: dto::CORSConfiguration = crate::ops::from_xml(body)?;
        if document.cors_rules.is_empty() || document.cors_rules.len() > RULES_MAX {
            return Err(Failure::malformed_xml());
        }
        let mut rules = Vec::new();
        for rule in document.cors_rules {
            let rule = Rule {
                origins: rule.allowed_origins,
                methods: rule.allowed_methods,
                headers: rule.allowed_headers.unwrap_or_default(),
                expose: rule.expose_headers.unwrap_or_default(),
                id: rule.id,
                max_age_seconds: rule.max_age_seconds,
            };
            if rule.origins.is_empty() || rule.methods.is_empty() {
                return Err(Failure::malformed_xml());
            }
            for (name, values) in [("AllowedOrigin", &rule.origins), ("AllowedHeader", &rule.headers)] {
                if let Some(wild) = values.iter().find(|value| value.matches('*').count() > 1) {
                    return Err(Failure::request(format!("{name} \"{wild}\" can not have more than one wildcard.")));
                }
            }
            if let Some(wild) = rule.expose.iter().find(|value| value.contains('*')) {
                let message = format!(
                    "ExposeHeader \"{wild}\" contains wildcard. We currently do not support wildcard for ExposeHeader."
                );
                return Err(Failure::request(message));
            }
            if let Some(method) = rule.methods.iter().find(|method| !METHODS.contains(&method.as_str())) {
                let message = format!("Found unsupported HTTP method in CORS config. Unsupported method is {method}");
                return Err(Failure::request(message));
            }
            if rule.max_age_seconds.is_some_and(|seconds| seconds < 0) {
                return Err(Failure::malformed_xml());
            }
            rules.push(rule);
        }
        Ok(Self(rules))
    }

    /// As it is stored.
    pub(crate) fn to_stored(&self) -> Result<Vec<u8>, Failure> {
        let rows: Vec<StoredRule> = self
            .0
            .iter()
            .cloned()
            .map(|rule| (rule.origins, rule.methods, rule.headers, rule.expose, rule.id, rule.max_age_seconds))
            .collect();
        serde_json::to_vec(&rows).map_err(unreadable)
    }

    /// From what was stored.
    pub(crate) fn stored(bytes: &[u8]) -> Result<Self, Failure> {
        let rows: Vec<StoredRule> = serde_json::from_slice(bytes).map_err(unreadable)?;
        let rule = |(origins, methods, headers, expose, id, max_age_seconds)| Rule {
            origins,
            methods,
            headers,
            expose,
            id,
            max_age_seconds,
        };
        Ok(Self(rows.into_iter().map(rule).collect()))
    }

    /// `<CORSConfiguration>`.
    pub(crate) fn document(&self) -> String {
        Xml::document("CORSConfiguration", |xml| {
            for rule in &self.0 {
                xml.element("CORSRule", |xml| {
                    if let Some(id) = &rule.id {
                        xml.text("ID", id);
                    }
                    rule.methods.iter().for_each(|method| xml.text("AllowedMethod", method));
                    rule.origins.iter().for_each(|origin| xml.text("AllowedOrigin", origin));
                    rule.headers.iter().for_each(|header| xml.text("AllowedHeader", header));
                    if let Some(seconds) = rule.max_age_seconds {
                        xml.value("MaxAgeSeconds", seconds);
                    }
                    rule.expose.iter().for_each(|header| xml.text("ExposeHeader", header));
                });
            }
        })
    }

    fn matching(&self, origin: &str, method: &str, headers: &[&str]) -> Option<&Rule> {
        self.0.iter().find(|rule| {
            rule.origins.iter().any(|allowed| matches(allowed, origin, false))
                && rule.methods.iter().any(|allowed| allowed == method)
                && headers.iter().all(|header| rule.headers.iter().any(|allowed| matches(allowed, header, true)))
        })
    }
}

/// Whether a text with at most one `*` matches.
fn matches(pattern: &str, text: &str, fold: bool) -> bool {
    let (pattern, text) = if fold {
        (pattern.to_ascii_lowercase(), text.to_ascii_lowercase())
    } else {
        (pattern.to_owned(), text.to_owned())
    };
    match pattern.split_once('*') {
        None => pattern == text,
        Some((start, end)) => text.len() >= start.len() + end.len() && text.starts_with(start) && text.ends_with(end),
    }
}

fn header<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn allow(answer: &mut HeaderMap, rule: &Rule, origin: &str) {
    // A rule for everybody says so; others name who asked, and caches must keep answers to others apart.
    let any = rule.origins.iter().any(|allowed| allowed == "*");
    if let Ok(value) = HeaderValue::from_str(if any { "*" } else { origin }) {
        answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, value);
    }
    if !any {
        answer.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
    if let Ok(value) = HeaderValue::try_from(rule.methods.join(", ")) {
        answer.insert(ACCESS_CONTROL_ALLOW_METHODS, value);
    }
    if !rule.expose.is_empty()
        && let Ok(value) = HeaderValue::try_from(rule.expose.join(", "))
    {
        answer.insert(ACCESS_CONTROL_EXPOSE_HEADERS, value);
    }
    if let Some(seconds) = rule.max_age_seconds {
        answer.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from(seconds));
    }
    let vary = "Origin, Access-Control-Request-Headers, Access-Control-Request-Method";
    answer.insert(VARY, HeaderValue::from_static(vary));
}

/// Answers a preflight (`OPTIONS`). Nobody signs those: browsers can't.
///
/// # Errors
/// BadRequest without an origin, AccessForbidden without a rule.
pub(crate) async fn preflight(front: &Front, bucket: Option<&str>, headers: &HeaderMap) -> Result<Answer, Failure> {
    let Some(origin) = header(headers, "origin") else {
        let message = "Insufficient information. Origin request header needed.";
        return Err(Failure::bad("BadRequest", message));
    };
    let method = header(headers, "access-control-request-method")
        .filter(|method| METHODS.contains(method))
        .ok_or_else(|| Failure::bad("BadRequest", "Invalid Access-Control-Request-Method: null"))?;
    let forbidden = |message: &'static str| Failure::new(StatusCode::FORBIDDEN, "AccessForbidden", message);
    let asked: Vec<&str> = header(headers, "access-control-request-headers")
        .unwrap_or_default()
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .collect();
    let facts = match bucket {
        Some(bucket) => Some(front.facts.of(front, bucket).await?),
        None => None,
    };
    let rules = facts.as_ref().and_then(|facts| facts.cors.as_ref());
    let rules = rules.ok_or_else(|| forbidden("CORSResponse: CORS is not enabled for this bucket."))?;
    let rule = rules.matching(origin, method, &asked).ok_or_else(|| {
        forbidden(
            "CORSResponse: This CORS request is not allowed. This is usually because the evalution of Origin, request \
             method / Access-Control-Request-Method or Access-Control-Request-Headers are not whitelisted by the \
             resource's CORS spec.",
        )
    })?;
    let mut answer = respond::empty(StatusCode::OK);
    allow(answer.headers_mut(), rule, origin);
    if !asked.is_empty()
        && let Ok(value) = HeaderValue::try_from(asked.join(", ").to_ascii_lowercase())
    {
        answer.headers_mut().insert(ACCESS_CONTROL_ALLOW_HEADERS, value);
    }
    Ok(answer)
}

/// Adds what a bucket's rules say to the answer of a request from `origin`.
pub(crate) async fn decorate(front: &Front, bucket: &str, origin: &str, method: &str, answer: &mut HeaderMap) {
    // An answer is an answer without them: a bucket that is not there, or can't be read, adds none.
    if let Ok(facts) = front.facts.of(front, bucket).await
        && let Some(rule) = facts.cors.as_ref().and_then(|rules| rules.matching(origin, method, &[]))
    {
        allow(answer, rule, origin);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(rule: &str) -> Result<CorsRules, String> {
        let body = format!("<CORSConfiguration><CORSRule>{rule}</CORSRule></CORSConfiguration>");
        CorsRules::parse(body.as_bytes()).map_err(|failure| failure.code.into_owned())
    }

    #[test]
    fn the_first_rule_that_matches_counts() {
        let origin = |o: &str| format!("<AllowedMethod>GET</AllowedMethod><AllowedOrigin>{o}</AllowedOrigin>");
        let table = [
            ("*", "http://a.example", true),
            ("http://*.example", "http://a.b.example", true),
            ("http://*.example", "http://example", false),
            ("http://a.example", "http://a.example", true),
            ("http://a.example", "http://A.example", false),
            ("a*a", "a", false),
        ];
        for (allowed, asked, want) in table {
            let rules = rules(&origin(allowed)).unwrap();
            assert_eq!(rules.matching(asked, "GET", &[]).is_some(), want, "{allowed} {asked}");
            assert!(rules.matching(asked, "PUT", &[]).is_none());
            assert!(rules.matching(asked, "GET", &["x-a"]).is_none());
        }
        let rules = rules(&(origin("*") + "<AllowedHeader>x-amz-*</AllowedHeader>")).unwrap();
        assert!(rules.matching("o", "GET", &["X-Amz-Date"]).is_some());
        assert!(rules.matching("o", "GET", &["x-amz-date", "content-type"]).is_none());
    }

    #[test]
    fn what_is_stored_comes_back_and_nonsense_is_refused() {
        let good = "<ID>i</ID><AllowedMethod>GET</AllowedMethod><AllowedMethod>PUT</AllowedMethod><AllowedOrigin>*\
                    </AllowedOrigin><AllowedHeader>*</AllowedHeader><MaxAgeSeconds>30</MaxAgeSeconds><ExposeHeader>ETag\
                    </ExposeHeader>";
        let parsed = rules(good).unwrap();
        assert_eq!(CorsRules::stored(&parsed.to_stored().unwrap()).unwrap(), parsed);
        assert!(parsed.document().contains(good));
        for (bad, code) in [
            ("<AllowedMethod>GET</AllowedMethod>", "MalformedXML"),
            ("<AllowedOrigin>*</AllowedOrigin>", "MalformedXML"),
            ("<AllowedMethod>FLY</AllowedMethod><AllowedOrigin>*</AllowedOrigin>", "InvalidRequest"),
            ("<AllowedMethod>GET</AllowedMethod><AllowedOrigin>*.*</AllowedOrigin>", "InvalidRequest"),
            (
                "<AllowedMethod>GET</AllowedMethod><AllowedOrigin>*</AllowedOrigin><ExposeHeader>*</ExposeHeader>",
                "InvalidRequest",
            ),
        ] {
            assert_eq!(rules(bad), Err(code.to_owned()), "{bad}");
        }
        assert!(CorsRules::parse(b"<CORSConfiguration/>").is_err());
    }
}
