//! From JSON to [`Policy`]. Strict: an element that is not known, a value of the wrong kind, a key that stands twice is an
//! error that names its place. Where S3 or IAM says a sentence of its own, it is used.

use crate::actions::{self, On};
use crate::condition::{Condition, SetRule};
use crate::context::Context;
use crate::document::{ArnPattern, Effect, Patterns, Policy, PolicyKind, Statement};
use crate::error::PolicyError;
use crate::json::Json;
use crate::operators::Operator;
use crate::pattern::Pattern;
use crate::principal::{NamedPrincipal, PrincipalArn, PrincipalElement};
use crate::{BUCKET_POLICY_BYTES_MAX, IDENTITY_POLICY_BYTES_MAX, STATEMENTS_MAX, keys};

type Result<T> = std::result::Result<T, PolicyError>;

fn error<T>(element: impl Into<String>, message: impl Into<String>) -> Result<T> {
    Err(PolicyError::new(element, message))
}

/// What the parsing of a statement needs to know.
struct Reader<'a> {
    kind: PolicyKind<'a>,
    /// Whether the document's version has policy variables.
    variables: bool,
}

pub(crate) fn policy(text: &str, kind: PolicyKind<'_>) -> Result<Policy> {
    let bytes_max =
        if matches!(kind, PolicyKind::Bucket(_)) { BUCKET_POLICY_BYTES_MAX } else { IDENTITY_POLICY_BYTES_MAX };
    if text.len() > bytes_max {
        return error("", format!("the policy has {} bytes, at most {bytes_max} are allowed", text.len()));
    }
    if !text.trim_start().starts_with('{') {
        return error("", "Policies must be valid JSON and the first byte must be '{'");
    }
    let json = Json::parse(text).or_else(|why| error("", format!("This policy contains invalid Json: {why}")))?;
    let Json::Object(members) = json else { return error("", "a policy is a JSON object") };
    let (mut version, mut statements) = (None, None);
    for (name, value) in members {
        match name.as_str() {
            "Version" => version = Some(text_of(value, "Version")?),
            "Id" => drop(text_of(value, "Id")?),
            "Statement" => statements = Some(value),
            _ => {
                return error(
                    name,
                    "Policy document has an element that is not known: it may have Version, Id and Statement",
                );
            }
        }
    }
    let variables = match version.as_deref() {
        Some("2012-10-17") => true,
        Some("2008-10-17") | None => false,
        Some(other) => return error("Version", format!("{other:?} is not a version: write \"2012-10-17\"")),
    };
    let statements = match statements {
        None => return error("Statement", "Missing required field Statement"),
        Some(Json::List(list)) => list,
        Some(one @ Json::Object(_)) => vec![one],
        Some(other) => return error("Statement", format!("a list of objects is needed, this is {}", other.kind())),
    };
    if statements.is_empty() {
        return error("Statement", "Could not parse the policy: Statement is empty!");
    }
    if statements.len() > STATEMENTS_MAX {
        return error("Statement", format!("{} statements, at most {STATEMENTS_MAX} are allowed", statements.len()));
    }
    let reader = Reader { kind, variables };
    let mut parsed: Vec<Statement> = Vec::with_capacity(statements.len());
    for (index, json) in statements.into_iter().enumerate() {
        let statement = reader.statement(json, index)?;
        if !statement.name.starts_with('[') && parsed.iter().any(|known| known.name == statement.name) {
            return error(
                format!("Statement[{index}].Sid"),
                format!("two statements have the Sid {:?}", statement.name),
            );
        }
        parsed.push(statement);
    }
    Ok(Policy { statements: parsed })
}

fn text_of(value: Json, element: &str) -> Result<String> {
    match value {
        Json::Text(text) => Ok(text),
        other => error(element, format!("a string is needed, this is {}", other.kind())),
    }
}

/// A string or a list of strings.
fn texts_of(value: Json, element: &str) -> Result<Vec<String>> {
    let texts = match value {
        Json::Text(text) => vec![text],
        Json::List(list) => {
            let texts = list.into_iter().enumerate().map(|(i, item)| text_of(item, &format!("{element}[{i}]")));
            texts.collect::<Result<_>>()?
        }
        other => return error(element, format!("a string or a list of strings is needed, this is {}", other.kind())),
    };
    if texts.is_empty() {
        return error(element, "the list is empty: name one value at least");
    }
    Ok(texts)
}

impl Reader<'_> {
    fn statement(&self, json: Json, index: usize) -> Result<Statement> {
        let at = format!("Statement[{index}]");
        let Json::Object(members) = json else {
            return error(at, format!("an object is needed, this is {}", json.kind()));
        };
        let (mut sid, mut effect, mut principal) = (None, None, None);
        let (mut actions, mut resources, mut conditions) = (None, None, Vec::new());
        for (name, value) in members {
            let at = format!("{at}.{name}");
            match name.as_str() {
                "Sid" => sid = Some(text_of(value, &at)?),
                "Effect" => {
                    effect = Some(match text_of(value, &at)?.as_str() {
                        "Allow" => Effect::Allow,
                        "Deny" => Effect::Deny,
                        other => return error(at, format!("Invalid effect: {other}; it is \"Allow\" or \"Deny\"")),
                    });
                }
                "Principal" | "NotPrincipal" => {
                    once(&principal, &at, "Principal and NotPrincipal")?;
                    let named = principals(value, &at)?;
                    principal = Some(match name.as_str() {
                        "Principal" => PrincipalElement::These(named),
                        _ => PrincipalElement::AllBut(named),
                    });
                }
                "Action" | "NotAction" => {
                    once(&actions, &at, "Action and NotAction")?;
                    let patterns = self.actions(value, &at)?;
                    actions =
                        Some(if name == "Action" { Patterns::These(patterns) } else { Patterns::AllBut(patterns) });
                }
                "Resource" | "NotResource" => {
                    once(&resources, &at, "Resource and NotResource")?;
                    let patterns = self.resources(value, &at)?;
                    resources =
                        Some(if name == "Resource" { Patterns::These(patterns) } else { Patterns::AllBut(patterns) });
                }
                "Condition" => conditions = self.conditions(value, &at)?,
                _ => return error(at, "an element that is not known"),
            }
        }
        let Some(effect) = effect else { return error(format!("{at}.Effect"), "Missing required field Effect") };
        let Some(actions) = actions else { return error(format!("{at}.Action"), "Missing required field Action") };
        let name = sid.filter(|sid| !sid.is_empty()).unwrap_or_else(|| format!("[{index}]"));
        let resources = match (self.kind, resources) {
            (PolicyKind::Trust, None) => Patterns::These(vec![ArnPattern::Any]),
            (PolicyKind::Trust, Some(_)) => {
                return error(format!("{at}.Resource"), "Has prohibited field Resource: a trust policy has none");
            }
            (_, Some(resources)) => resources,
            (_, None) => return error(format!("{at}.Resource"), "Missing required field Resource"),
        };
        match (self.kind, &principal) {
            (PolicyKind::Identity | PolicyKind::Session, Some(_)) => {
                return error(
                    format!("{at}.Principal"),
                    "Policy document should not specify a principal: it is about whom it hangs on",
                );
            }
            (PolicyKind::Bucket(_) | PolicyKind::Trust, None) => {
                return error(format!("{at}.Principal"), "Missing required field Principal");
            }
            (_, Some(PrincipalElement::AllBut(_))) if effect == Effect::Allow => {
                return error(format!("{at}.NotPrincipal"), "Allow with NotPrincipal is not allowed");
            }
            _ => {}
        }
        let statement = Statement { name, effect, principal, actions, resources, conditions };
        if let PolicyKind::Bucket(_) = self.kind {
            check_fit(&statement, &at)?;
        }
        Ok(statement)
    }

    fn actions(&self, value: Json, at: &str) -> Result<Vec<Pattern>> {
        let mut patterns = Vec::new();
        for text in texts_of(value, at)? {
            let sound = text == "*"
                || text.split_once(':').is_some_and(|(service, action)| {
                    let word = |text: &str, more: &[u8]| {
                        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || more.contains(&b))
                    };
                    word(service, b"-") && word(action, b"*?")
                });
            let pattern = Pattern::new(&text, true, false).map_err(|why| PolicyError::new(at, why))?;
            let nothing = Context::new();
            let known = !matches!(self.kind, PolicyKind::Bucket(_))
                || actions::actions().any(|(action, _)| pattern.matches(action, &nothing, true));
            if !sound || !known {
                return error(at, format!("Policy has invalid action: {text:?}"));
            }
            patterns.push(pattern);
        }
        Ok(patterns)
    }

    fn resources(&self, value: Json, at: &str) -> Result<Vec<ArnPattern>> {
        let mut patterns = Vec::new();
        for text in texts_of(value, at)? {
            let invalid = |why: &str| error(at, format!("Policy has invalid resource: {text:?}{why}"));
            let Ok(pattern) = ArnPattern::new(&text, self.variables) else {
                return invalid(": it must be an ARN, or \"*\"");
            };
            if let PolicyKind::Bucket(bucket) = self.kind {
                let ArnPattern::Parts(parts) = &pattern else {
                    patterns.push(pattern);
                    continue;
                };
                if parts[2].text() != "s3" {
                    return invalid(": it must be one of S3's, arn:aws:s3:::");
                }
                // What names another bucket could never match: somebody mixed two policies up.
                let relative = parts[5].text();
                let name = relative.split('/').next().unwrap_or_default();
                let nothing = Context::new();
                let name = Pattern::new(name, true, false).map_err(|why| PolicyError::new(at, why))?;
                if !name.matches(bucket, &nothing, false) {
                    return invalid(": it must name this bucket");
                }
            }
            patterns.push(pattern);
        }
        Ok(patterns)
    }

    fn conditions(&self, value: Json, at: &str) -> Result<Vec<Condition>> {
        let Json::Object(blocks) = value else {
            return error(at, format!("an object is needed, this is {}", value.kind()));
        };
        let mut conditions = Vec::new();
        for (name, block) in blocks {
            let at = format!("{at}.{name}");
            let (set, rest) = match name.split_once(':') {
                Some(("ForAllValues", rest)) => (SetRule::ForAll, rest),
                Some(("ForAnyValue", rest)) => (SetRule::ForAny, rest),
                _ => (SetRule::Single, name.as_str()),
            };
            let (base, if_exists) = match rest.strip_suffix("IfExists") {
                Some(base) => (base, true),
                None => (rest, false),
            };
            let operator = Operator::named(base).filter(|operator| !(if_exists && *operator == Operator::Null));
            let Some(operator) = operator else { return error(at, format!("Invalid Condition type : {name}")) };
            let Json::Object(lines) = block else {
                return error(at, format!("an object of condition keys is needed, this is {}", block.kind()));
            };
            for (key, values) in lines {
                let at = format!("{at}.{key}");
                if key.is_empty() || !key.contains(':') {
                    return error(at, format!("Policy has an invalid condition key: {key:?}"));
                }
                if matches!(self.kind, PolicyKind::Bucket(_)) && !keys::is_known(&key) {
                    return error(at, format!("Policy has an invalid condition key: {key:?}"));
                }
                let texts = match values {
                    // Booleans and numbers may stand without quotes.
                    Json::Bool(value) => vec![value.to_string()],
                    Json::Number(value) => vec![value],
                    Json::List(list) => {
                        let text = |item| match item {
                            Json::Bool(value) => Ok(value.to_string()),
                            Json::Number(value) => Ok(value),
                            other => text_of(other, &at),
                        };
                        list.into_iter().map(text).collect::<Result<Vec<_>>>()?
                    }
                    other => texts_of(other, &at)?,
                };
                let operands: std::result::Result<Vec<_>, String> =
                    texts.iter().map(|text| operator.operand(text, self.variables)).collect();
                let values = operands.map_err(|why| PolicyError::new(&at, why))?;
                conditions.push(Condition { operator, set, if_exists, key, values });
            }
        }
        Ok(conditions)
    }
}

fn once<T>(slot: &Option<T>, at: &str, both: &str) -> Result<()> {
    if slot.is_some() { error(at, format!("a statement has one of {both}, not both")) } else { Ok(()) }
}

fn principals(value: Json, at: &str) -> Result<Vec<NamedPrincipal>> {
    let invalid = |text: &str| error(at, format!("Invalid principal in policy: {text:?}"));
    let members = match value {
        Json::Text(text) if text == "*" => return Ok(vec![NamedPrincipal::Everybody]),
        Json::Text(text) => return invalid(&text),
        Json::Object(members) if !members.is_empty() => members,
        other => {
            return error(
                at,
                format!("\"*\" or an object such as {{\"AWS\": ...}} is needed, this is {}", other.kind()),
            );
        }
    };
    let mut named = Vec::new();
    for (kind, value) in members {
        let inner = format!("{at}.{kind}");
        for text in texts_of(value, &inner)? {
            named.push(match kind.as_str() {
                "AWS" if text == "*" => NamedPrincipal::Everybody,
                "AWS" => match PrincipalArn::parse(&text) {
                    Some(arn) => NamedPrincipal::Aws(arn),
                    None => return invalid(&text),
                },
                "CanonicalUser" => NamedPrincipal::Canonical(text),
                "Service" | "Federated" => NamedPrincipal::Foreign(text),
                _ => {
                    return error(
                        inner,
                        "Invalid principal in policy: the kinds are AWS, CanonicalUser, Service and Federated",
                    );
                }
            });
        }
    }
    Ok(named)
}

/// S3 refuses a statement of which an action can't be about any of its resources: `s3:GetObject` on a bucket, for one.
fn check_fit(statement: &Statement, at: &str) -> Result<()> {
    let (Patterns::These(patterns), Patterns::These(resources)) = (&statement.actions, &statement.resources) else {
        return Ok(());
    };
    let nothing = Context::new();
    let fits = |on: On| {
        resources.iter().map(ArnPattern::relative).any(|relative| match on {
            On::Service => true,
            On::Bucket => !relative.contains('/') || relative.contains('*'),
            On::Object | On::Source => relative.contains('/') || relative.contains('*'),
        })
    };
    for pattern in patterns {
        let mut about = actions::actions().filter(|(action, _)| pattern.matches(action, &nothing, true));
        if !about.any(|(_, on)| fits(on)) {
            return error(at, "Action does not apply to any resource(s) in statement");
        }
    }
    Ok(())
}
