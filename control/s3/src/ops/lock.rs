//! Object lock: the bucket's configuration, retention and legal hold of objects, and the headers that say them of new ones.

use http::StatusCode;
use penstock_gateway::api::{DefaultRetention, Lock, Retention};
use s3s::dto;

use super::delete::from_xml;
use super::{Call, set_version};
use crate::failure::Failure;
use crate::respond::{self, Answer};
use crate::wire;
use crate::xml::Xml;

impl Call {
    /// What `x-amz-object-lock-*` say of a new object.
    ///
    /// # Errors
    /// InvalidArgument.
    pub(super) fn lock(&self) -> Result<Lock, Failure> {
        const MODE: &str = "x-amz-object-lock-mode";
        const UNTIL: &str = "x-amz-object-lock-retain-until-date";
        const HOLD: &str = "x-amz-object-lock-legal-hold";
        let retention = match (self.header(MODE)?, self.header(UNTIL)?) {
            (None, None) => None,
            (Some(mode), Some(until)) => {
                let compliance =
                    compliance(mode).ok_or_else(|| Failure::argument(MODE, mode, "Unknown wormMode directive."))?;
                let until_unix_ms = wire::http_date(until).ok_or_else(|| {
                    Failure::argument(UNTIL, until, "The retain until date must be provided in ISO 8601 format")
                })?;
                Some(Retention { compliance, until_unix_ms })
            }
            (mode, _) => {
                let name = if mode.is_some() { UNTIL } else { MODE };
                return Err(Failure::argument(name, "", format!("{MODE} and {UNTIL} must both be supplied")));
            }
        };
        let legal_hold = match self.header(HOLD)? {
            None => None,
            Some("ON") => Some(true),
            Some("OFF") => Some(false),
            Some(other) => {
                return Err(Failure::argument(HOLD, other, "Legal Hold must be either of 'ON' or 'OFF'"));
            }
        };
        Ok(Lock { retention, legal_hold })
    }

    /// Whether the request wants retention in governance mode not to count.
    pub(super) fn bypasses_governance(&self) -> Result<bool, Failure> {
        let text = self.header("x-amz-bypass-governance-retention")?;
        Ok(text.is_some_and(|text| text.eq_ignore_ascii_case("true")))
    }
}

fn compliance(mode: &str) -> Option<bool> {
    match mode {
        "COMPLIANCE" => Some(true),
        "GOVERNANCE" => Some(false),
        _ => None,
    }
}

/// A retention's mode as S3 names it.
pub(super) fn mode_name(compliance: bool) -> &'static str {
    if compliance { "COMPLIANCE" } else { "GOVERNANCE" }
}

fn parse_configuration(body: &[u8]) -> Result<Option<DefaultRetention>, Failure> {
    let document: dto::ObjectLockConfiguration = from_xml(body)?;
    if document.object_lock_enabled.is_none_or(|enabled| enabled.as_str() != "Enabled") {
        return Err(Failure::malformed_xml());
    }
    let Some(rule) = document.rule else { return Ok(None) };
    let retention = rule.default_retention.ok_or_else(Failure::malformed_xml)?;
    let mode = retention.mode.ok_or_else(Failure::malformed_xml)?;
    let compliance = compliance(mode.as_str()).ok_or_else(Failure::malformed_xml)?;
    let (years, count) = match (retention.days, retention.years) {
        (Some(days), None) => (false, days),
        (None, Some(years)) => (true, years),
        _ => return Err(Failure::malformed_xml()),
    };
    // What is no sensible count, the gateway says better: 0 is none.
    Ok(Some(DefaultRetention { compliance, years, count: u32::try_from(count).unwrap_or_default() }))
}

pub(super) async fn put_configuration(mut call: Call) -> Result<Answer, Failure> {
    let default = parse_configuration(&call.document().await?)?;
    call.gateway().put_object_lock(&call.bucket(), default).await?;
    Ok(respond::empty(StatusCode::OK))
}

pub(super) async fn get_configuration(call: Call) -> Result<Answer, Failure> {
    let default = call.gateway().object_lock(&call.bucket()).await?;
    Ok(respond::xml(Xml::document("ObjectLockConfiguration", |xml| {
        xml.value("ObjectLockEnabled", "Enabled");
        let Some(default) = default else { return };
        xml.element("Rule", |xml| {
            xml.element("DefaultRetention", |xml| {
                xml.value("Mode", mode_name(default.compliance));
                xml.value(if default.years { "Years" } else { "Days" }, default.count);
            });
        });
    })))
}

/// The retention of a `<Retention>` document; an empty one takes it away.
fn parse_retention(body: &[u8]) -> Result<Option<Retention>, Failure> {
    let document: dto::ObjectLockRetention = from_xml(body)?;
    match (document.mode, document.retain_until_date) {
        (None, None) => Ok(None),
        (Some(mode), Some(until)) => {
            let compliance = compliance(mode.as_str()).ok_or_else(Failure::malformed_xml)?;
            let moment = time::OffsetDateTime::from(until);
            let until_unix_ms = u64::try_from(moment.unix_timestamp_nanos() / 1_000_000).unwrap_or_default();
            Ok(Some(Retention { compliance, until_unix_ms }))
        }
        _ => Err(Failure::malformed_xml()),
    }
}

pub(super) async fn put_retention(mut call: Call) -> Result<Answer, Failure> {
    let retention = parse_retention(&call.document().await?)?;
    let bypass = call.bypasses_governance()?;
    let version_id = call.gateway().put_object_retention(&call.object_name(), retention, bypass).await?;
    let mut answer = respond::empty(StatusCode::OK);
    set_version(answer.headers_mut(), version_id.as_deref());
    Ok(answer)
}

fn no_lock_of_object() -> Failure {
    Failure::new(
        StatusCode::NOT_FOUND,
        "NoSuchObjectLockConfiguration",
        "The specified object does not have a ObjectLock configuration",
    )
}

pub(super) async fn get_retention(call: Call) -> Result<Answer, Failure> {
    let lock = call.gateway().lock_of(&call.object_name()).await?;
    let retention = lock.retention.ok_or_else(no_lock_of_object)?;
    Ok(respond::xml(Xml::document("Retention", |xml| {
        xml.value("Mode", mode_name(retention.compliance));
        xml.value("RetainUntilDate", wire::format_iso_date(retention.until_unix_ms));
    })))
}

pub(super) async fn put_legal_hold(mut call: Call) -> Result<Answer, Failure> {
    let document: dto::ObjectLockLegalHold = from_xml(&call.document().await?)?;
    let held = match document.status.as_ref().map(|status| status.as_str()) {
        Some("ON") => true,
        Some("OFF") => false,
        _ => return Err(Failure::malformed_xml()),
    };
    let version_id = call.gateway().put_object_legal_hold(&call.object_name(), held).await?;
    let mut answer = respond::empty(StatusCode::OK);
    set_version(answer.headers_mut(), version_id.as_deref());
    Ok(answer)
}

pub(super) async fn get_legal_hold(call: Call) -> Result<Answer, Failure> {
    let lock = call.gateway().lock_of(&call.object_name()).await?;
    let held = lock.legal_hold.ok_or_else(no_lock_of_object)?;
    Ok(respond::xml(Xml::document("LegalHold", |xml| xml.value("Status", if held { "ON" } else { "OFF" }))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations() {
        let parse = |rule: &str| {
            let body = format!(
                "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled>{rule}</ObjectLockConfiguration>"
            );
            parse_configuration(body.as_bytes()).map_err(|failure| failure.code.into_owned())
        };
        let rule = |inner: &str| parse(&format!("<Rule><DefaultRetention>{inner}</DefaultRetention></Rule>"));
        let days = |count| Ok(Some(DefaultRetention { compliance: false, years: false, count }));
        assert_eq!(parse(""), Ok(None));
        assert_eq!(rule("<Mode>GOVERNANCE</Mode><Days>3</Days>"), days(3));
        assert_eq!(rule("<Mode>GOVERNANCE</Mode><Days>-3</Days>"), days(0));
        assert_eq!(
            rule("<Mode>COMPLIANCE</Mode><Years>2</Years>"),
            Ok(Some(DefaultRetention { compliance: true, years: true, count: 2 }))
        );
        for bad in [
            rule("<Mode>GOVERNANCE</Mode><Days>1</Days><Years>1</Years>"),
            rule("<Mode>GOVERNANCE</Mode>"),
            rule("<Mode>abc</Mode><Days>1</Days>"),
            rule("<Days>1</Days>"),
            parse("<Rule></Rule>"),
        ] {
            assert_eq!(bad, Err("MalformedXML".to_owned()));
        }
        assert!(parse_configuration(b"<ObjectLockConfiguration/>").is_err());
        let disabled =
            "<ObjectLockConfiguration><ObjectLockEnabled>Disabled</ObjectLockEnabled></ObjectLockConfiguration>";
        assert!(parse_configuration(disabled.as_bytes()).is_err());
    }

    #[test]
    fn retentions() {
        let parse = |inner: &str| parse_retention(format!("<Retention>{inner}</Retention>").as_bytes());
        assert_eq!(parse("").unwrap(), None);
        let good = parse("<Mode>COMPLIANCE</Mode><RetainUntilDate>1994-11-15T08:12:31Z</RetainUntilDate>").unwrap();
        assert_eq!(good, Some(Retention { compliance: true, until_unix_ms: 784_887_151_000 }));
        assert!(parse("<Mode>COMPLIANCE</Mode>").is_err());
        assert!(parse("<RetainUntilDate>1994-11-15T08:12:31Z</RetainUntilDate>").is_err());
        assert!(parse("<Mode>governance</Mode><RetainUntilDate>1994-11-15T08:12:31Z</RetainUntilDate>").is_err());
        assert!(parse("<Mode>COMPLIANCE</Mode><RetainUntilDate>soon</RetainUntilDate>").is_err());
    }
}
