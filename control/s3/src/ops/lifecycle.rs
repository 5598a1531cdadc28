//! Lifecycle configurations. What they may say the gateway decides; here is their XML.

use http::{HeaderMap, HeaderValue, StatusCode};
use penstock_gateway::api::UnixMs;
use penstock_gateway::lifecycle::Lifecycle;
use penstock_gateway::lifecycle::rules::{Expiration, Filter, FilterForm, NoncurrentExpiration, Rule};
use penstock_gateway::tags::Tags;
use penstock_proto::DataId;
use s3s::dto;

use super::delete::from_xml;
use super::{Call, set};
use crate::failure::Failure;
use crate::respond::{self, Answer};
use crate::wire;
use crate::xml::Xml;

/// The header that says from which size on objects are moved to other classes, and AWS's default.
const MINIMUM_SIZE: &str = "x-amz-transition-default-minimum-object-size";
const MINIMUM_SIZE_DEFAULT: &str = "all_storage_classes_128K";

pub(super) async fn put(mut call: Call) -> Result<Answer, Failure> {
    let lifecycle = parse(&call.document().await?)?;
    call.gateway().put_lifecycle(&call.bucket(), &lifecycle).await?;
    let mut answer = respond::empty(StatusCode::OK);
    let minimum = call.header(MINIMUM_SIZE)?.unwrap_or(MINIMUM_SIZE_DEFAULT);
    set(answer.headers_mut(), respond::name(MINIMUM_SIZE), minimum);
    Ok(answer)
}

pub(super) async fn get(call: Call) -> Result<Answer, Failure> {
    let lifecycle = call.gateway().lifecycle(&call.bucket()).await?.ok_or_else(|| {
        Failure::new(
            StatusCode::NOT_FOUND,
            "NoSuchLifecycleConfiguration",
            "The lifecycle configuration does not exist",
        )
    })?;
    let mut answer = respond::xml(document(&lifecycle));
    answer.headers_mut().insert(respond::name(MINIMUM_SIZE), HeaderValue::from_static(MINIMUM_SIZE_DEFAULT));
    Ok(answer)
}

/// `x-amz-expiration`, for an object that a rule will expire.
pub(super) fn set_expiration(headers: &mut HeaderMap, expiration: Option<&(UnixMs, String)>) {
    if let Some((at, id)) = expiration {
        let text = format!("expiry-date=\"{}\", rule-id=\"{}\"", wire::format_http_date(*at), wire::url_encoded(id));
        set(headers, respond::name("x-amz-expiration"), &text);
    }
}

/// The parser refuses elements of rules that it does not know: a rule that was not understood in full must not be kept.
fn parse(body: &[u8]) -> Result<Lifecycle, Failure> {
    let document: dto::BucketLifecycleConfiguration = from_xml(body)?;
    let rules = document.rules.into_iter().map(parse_rule).collect::<Result<_, _>>()?;
    Ok(Lifecycle { rules })
}

fn not_implemented(message: String) -> Failure {
    Failure::new(StatusCode::NOT_IMPLEMENTED, "NotImplemented", message)
}

fn parse_rule(rule: dto::LifecycleRule) -> Result<Rule, Failure> {
    let classes = rule.transitions.iter().flatten().map(|transition| transition.storage_class.as_ref());
    let noncurrent = rule.noncurrent_version_transitions.iter().flatten().map(|one| one.storage_class.as_ref());
    if let Some(class) = classes.chain(noncurrent).next() {
        let class = class.ok_or_else(Failure::malformed_xml)?.as_str();
        return Err(not_implemented(format!(
            "Transition to the storage class {class} is not implemented: STANDARD is what there is."
        )));
    }
    let enabled = match rule.status.as_str() {
        "Enabled" => true,
        "Disabled" => false,
        _ => return Err(Failure::malformed_xml()),
    };
    let filter = match (rule.prefix, rule.filter) {
        (Some(prefix), None) => Filter { form: FilterForm::RulePrefix, prefix: Some(prefix), ..Filter::default() },
        (None, Some(filter)) => parse_filter(filter)?,
        _ => return Err(Failure::malformed_xml()),
    };
    let expiration = rule.expiration.map(parse_expiration).transpose()?;
    let noncurrent = match rule.noncurrent_version_expiration {
        None => None,
        Some(expiration) => Some(NoncurrentExpiration {
            days: count(expiration.noncurrent_days.ok_or_else(Failure::malformed_xml)?),
            newer: expiration.newer_noncurrent_versions.map(count),
        }),
    };
    let abort_days = match rule.abort_incomplete_multipart_upload {
        None => None,
        Some(abort) => Some(count(abort.days_after_initiation.ok_or_else(Failure::malformed_xml)?)),
    };
    let id = rule.id.filter(|id| !id.is_empty()).unwrap_or_else(|| DataId::random().to_string());
    Ok(Rule { id, enabled, filter, expiration, noncurrent, abort_days })
}

/// A number of days or versions; what is below 0 is as wrong as 0.
fn count(number: i32) -> u32 {
    u32::try_from(number).unwrap_or_default()
}

fn parse_filter(filter: dto::LifecycleRuleFilter) -> Result<Filter, Failure> {
    let bytes = |size: i64| {
        u64::try_from(size).map_err(|_| Failure::argument("ObjectSize", &size.to_string(), "A size is not negative."))
    };
    let tag = |tag: dto::Tag| match (tag.key, tag.value) {
        (Some(key), Some(value)) => Ok((key, value)),
        _ => Err(Failure::malformed_xml()),
    };
    let (form, prefix, tags, more, less) = match filter.and {
        Some(and) => {
            let beside = filter.prefix.is_some()
                || filter.tag.is_some()
                || filter.object_size_greater_than.is_some()
                || filter.object_size_less_than.is_some();
            if beside {
                return Err(Failure::malformed_xml());
            }
            let tags = and.tags.unwrap_or_default();
            (FilterForm::And, and.prefix, tags, and.object_size_greater_than, and.object_size_less_than)
        }
        None => {
            let tags = filter.tag.into_iter().collect();
            (FilterForm::One, filter.prefix, tags, filter.object_size_greater_than, filter.object_size_less_than)
        }
    };
    Ok(Filter {
        form,
        prefix,
        tags: tags.into_iter().map(tag).collect::<Result<Tags, _>>()?,
        greater_than_bytes: more.map(bytes).transpose()?,
        less_than_bytes: less.map(bytes).transpose()?,
    })
}

fn parse_expiration(expiration: dto::LifecycleExpiration) -> Result<Expiration, Failure> {
    match (expiration.days, expiration.date, expiration.expired_object_delete_marker) {
        (Some(days), None, None) => Ok(Expiration::Days(count(days))),
        (None, Some(date), None) => {
            let moment = time::OffsetDateTime::from(date);
            Ok(Expiration::Date(u64::try_from(moment.unix_timestamp_nanos() / 1_000_000).unwrap_or_default()))
        }
        (None, None, Some(all)) => Ok(Expiration::DeleteMarkers(all)),
        _ => Err(Failure::malformed_xml()),
    }
}

fn document(lifecycle: &Lifecycle) -> String {
    Xml::document("LifecycleConfiguration", |xml| {
        for rule in &lifecycle.rules {
            xml.element("Rule", |xml| write_rule(xml, rule));
        }
    })
}

fn write_rule(xml: &mut Xml, rule: &Rule) {
    xml.text("ID", &rule.id);
    let filter = &rule.filter;
    match filter.form {
        FilterForm::RulePrefix => xml.text("Prefix", filter.prefix.as_deref().unwrap_or_default()),
        FilterForm::One => xml.element("Filter", |xml| write_predicates(xml, filter)),
        FilterForm::And => xml.element("Filter", |xml| xml.element("And", |xml| write_predicates(xml, filter))),
    }
    xml.value("Status", if rule.enabled { "Enabled" } else { "Disabled" });
    if let Some(expiration) = rule.expiration {
        xml.element("Expiration", |xml| match expiration {
            Expiration::Days(days) => xml.value("Days", days),
            Expiration::Date(at) => xml.value("Date", wire::format_iso_date(at)),
            Expiration::DeleteMarkers(all) => xml.value("ExpiredObjectDeleteMarker", all),
        });
    }
    if let Some(noncurrent) = rule.noncurrent {
        xml.element("NoncurrentVersionExpiration", |xml| {
            xml.value("NoncurrentDays", noncurrent.days);
            if let Some(newer) = noncurrent.newer {
                xml.value("NewerNoncurrentVersions", newer);
            }
        });
    }
    if let Some(days) = rule.abort_days {
        xml.element("AbortIncompleteMultipartUpload", |xml| xml.value("DaysAfterInitiation", days));
    }
}

fn write_predicates(xml: &mut Xml, filter: &Filter) {
    if let Some(prefix) = &filter.prefix {
        xml.text("Prefix", prefix);
    }
    for (key, value) in &filter.tags {
        xml.element("Tag", |xml| {
            xml.text("Key", key);
            xml.text("Value", value);
        });
    }
    if let Some(bytes) = filter.greater_than_bytes {
        xml.value("ObjectSizeGreaterThan", bytes);
    }
    if let Some(bytes) = filter.less_than_bytes {
        xml.value("ObjectSizeLessThan", bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configuration(rules: &str) -> String {
        format!("<LifecycleConfiguration>{rules}</LifecycleConfiguration>")
    }

    #[test]
    fn what_was_put_is_got() {
        let rules = "<Rule><ID>a</ID><Prefix>p&amp;/</Prefix><Status>Enabled</Status><Expiration><Days>3</Days></Expiration></Rule>\
            <Rule><ID>b</ID><Filter></Filter><Status>Disabled</Status>\
            <Expiration><Date>2030-01-02T00:00:00.000Z</Date></Expiration></Rule>\
            <Rule><ID>c</ID><Filter><And><Prefix>x</Prefix><Tag><Key>k</Key><Value>v</Value></Tag>\
            <ObjectSizeGreaterThan>5</ObjectSizeGreaterThan><ObjectSizeLessThan>50</ObjectSizeLessThan></And></Filter>\
            <Status>Enabled</Status><NoncurrentVersionExpiration><NoncurrentDays>1</NoncurrentDays>\
            <NewerNoncurrentVersions>2</NewerNoncurrentVersions></NoncurrentVersionExpiration></Rule>\
            <Rule><ID>d</ID><Filter><Prefix></Prefix></Filter><Status>Enabled</Status>\
            <Expiration><ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker></Expiration>\
            <AbortIncompleteMultipartUpload><DaysAfterInitiation>7</DaysAfterInitiation>\
            </AbortIncompleteMultipartUpload></Rule>";
        let lifecycle = parse(configuration(rules).as_bytes()).unwrap();
        lifecycle.check().unwrap();
        assert!(document(&lifecycle).ends_with(&format!("{rules}</LifecycleConfiguration>")));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let rule = |inner: &str| configuration(&format!("<Rule>{inner}</Rule>"));
        let good = "<Filter/><Status>Enabled</Status><Expiration><Days>1</Days></Expiration>";
        let id = &parse(rule(good).as_bytes()).unwrap().rules[0].id;
        assert_eq!(id.len(), 32, "one is made up");
        for (bad, status) in [
            ("<Filter/><Status>enabled</Status><Expiration><Days>1</Days></Expiration>", 400),
            ("<Filter/><Expiration><Days>1</Days></Expiration>", 400),
            ("<Status>Enabled</Status><Expiration><Days>1</Days></Expiration>", 400),
            ("<Prefix/><Filter/><Status>Enabled</Status><Expiration><Days>1</Days></Expiration>", 400),
            ("<Prefix/><Status>Enabled</Status><Expiration></Expiration>", 400),
            (
                "<Prefix/><Status>Enabled</Status><Expiration><Days>1</Days>\
                 <ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker></Expiration>",
                400,
            ),
            ("<Prefix/><Status>Enabled</Status><NoncurrentVersionExpiration/>", 400),
            (
                "<Prefix/><Status>Enabled</Status><Transition><Days>1</Days><StorageClass>GLACIER</StorageClass></Transition>",
                501,
            ),
            ("<Prefix/><Status>Enabled</Status><Expiration><Days>1</Days></Expiration><Else/>", 400),
        ] {
            assert_eq!(parse(rule(bad).as_bytes()).unwrap_err().status, status, "{bad}");
        }
    }
}
