//! Condition operators, and the values that each takes.

use std::net::IpAddr;

use base64::Engine;
use time::OffsetDateTime;
use time::format_description::well_known::{Iso8601, Rfc3339};

use crate::context::Context;
use crate::document::ArnPattern;
use crate::pattern::Pattern;

/// An operator without its `IfExists` and set prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operator {
    StringEquals,
    StringNotEquals,
    StringEqualsIgnoreCase,
    StringNotEqualsIgnoreCase,
    StringLike,
    StringNotLike,
    NumericEquals,
    NumericNotEquals,
    NumericLessThan,
    NumericLessThanEquals,
    NumericGreaterThan,
    NumericGreaterThanEquals,
    DateEquals,
    DateNotEquals,
    DateLessThan,
    DateLessThanEquals,
    DateGreaterThan,
    DateGreaterThanEquals,
    Bool,
    BinaryEquals,
    IpAddress,
    NotIpAddress,
    Arn,
    NotArn,
    Null,
}

/// A value in a policy, parsed for its operator.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Operand {
    Text(Pattern),
    Number(f64),
    /// Nanoseconds since 1970.
    Date(i128),
    Bool(bool),
    Bytes(Vec<u8>),
    /// Address and prefix length.
    Network(IpAddr, u8),
    Arn(ArnPattern),
}

impl Operand {
    pub(crate) const fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(*value),
            _ => None,
        }
    }
}

impl Operator {
    /// By its name, which AWS compares to the letter.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "StringEquals" => Self::StringEquals,
            "StringNotEquals" => Self::StringNotEquals,
            "StringEqualsIgnoreCase" => Self::StringEqualsIgnoreCase,
            "StringNotEqualsIgnoreCase" => Self::StringNotEqualsIgnoreCase,
            "StringLike" => Self::StringLike,
            "StringNotLike" => Self::StringNotLike,
            "NumericEquals" => Self::NumericEquals,
            "NumericNotEquals" => Self::NumericNotEquals,
            "NumericLessThan" => Self::NumericLessThan,
            "NumericLessThanEquals" => Self::NumericLessThanEquals,
            "NumericGreaterThan" => Self::NumericGreaterThan,
            "NumericGreaterThanEquals" => Self::NumericGreaterThanEquals,
            "DateEquals" => Self::DateEquals,
            "DateNotEquals" => Self::DateNotEquals,
            "DateLessThan" => Self::DateLessThan,
            "DateLessThanEquals" => Self::DateLessThanEquals,
            "DateGreaterThan" => Self::DateGreaterThan,
            "DateGreaterThanEquals" => Self::DateGreaterThanEquals,
            "Bool" => Self::Bool,
            "BinaryEquals" => Self::BinaryEquals,
            "IpAddress" => Self::IpAddress,
            "NotIpAddress" => Self::NotIpAddress,
            // The two pairs behave the same, says the IAM User Guide.
            "ArnEquals" | "ArnLike" => Self::Arn,
            "ArnNotEquals" | "ArnNotLike" => Self::NotArn,
            "Null" => Self::Null,
            _ => return None,
        })
    }

    /// Whether it holds when *none* of the policy's values matches.
    pub(crate) const fn is_negated(self) -> bool {
        use Operator as O;
        matches!(
            self,
            O::StringNotEquals
                | O::StringNotEqualsIgnoreCase
                | O::StringNotLike
                | O::NumericNotEquals
                | O::DateNotEquals
                | O::NotIpAddress
                | O::NotArn
        )
    }

    /// Parses a value of the policy.
    pub(crate) fn operand(self, text: &str, variables: bool) -> Result<Operand, String> {
        use Operator as O;
        match self {
            O::StringEquals | O::StringNotEquals | O::StringEqualsIgnoreCase | O::StringNotEqualsIgnoreCase => {
                Pattern::new(text, false, variables).map(Operand::Text)
            }
            O::StringLike | O::StringNotLike => Pattern::new(text, true, variables).map(Operand::Text),
            O::NumericEquals
            | O::NumericNotEquals
            | O::NumericLessThan
            | O::NumericLessThanEquals
            | O::NumericGreaterThan
            | O::NumericGreaterThanEquals => {
                number(text).map(Operand::Number).ok_or_else(|| format!("{text:?} is not a number"))
            }
            O::DateEquals
            | O::DateNotEquals
            | O::DateLessThan
            | O::DateLessThanEquals
            | O::DateGreaterThan
            | O::DateGreaterThanEquals => date(text)
                .map(Operand::Date)
                .ok_or_else(|| format!("{text:?} is not a date: write 2026-01-31T12:00:00Z, or seconds since 1970")),
            O::Bool | O::Null => {
                boolean(text).map(Operand::Bool).ok_or_else(|| format!("{text:?} is not true or false"))
            }
            O::BinaryEquals => base64::engine::general_purpose::STANDARD
                .decode(text)
                .map(Operand::Bytes)
                .map_err(|_| format!("{text:?} is not base64")),
            O::IpAddress | O::NotIpAddress => network(text)
                .map(|(address, bits)| Operand::Network(address, bits))
                .ok_or_else(|| format!("{text:?} is not an IP address or a CIDR block such as 203.0.113.0/24")),
            O::Arn | O::NotArn => ArnPattern::new(text, variables).map(Operand::Arn),
        }
    }

    /// Whether a request's value matches one of the policy's, the negation left aside. A value that can't be read as what
    /// the operator compares matches nothing.
    pub(crate) fn matches(self, wanted: &Operand, value: &str, context: &Context) -> bool {
        use Operator as O;
        match wanted {
            Operand::Text(pattern) => {
                let fold = matches!(self, O::StringEqualsIgnoreCase | O::StringNotEqualsIgnoreCase);
                pattern.matches(value, context, fold)
            }
            Operand::Number(wanted) => number(value).is_some_and(|value| self.compares(value.partial_cmp(wanted))),
            Operand::Date(wanted) => date(value).is_some_and(|value| self.compares(Some(value.cmp(wanted)))),
            Operand::Bool(wanted) => boolean(value) == Some(*wanted),
            Operand::Bytes(wanted) => {
                base64::engine::general_purpose::STANDARD.decode(value).is_ok_and(|value| value == *wanted)
            }
            Operand::Network(network, bits) => {
                value.parse().is_ok_and(|address: IpAddr| within(address.to_canonical(), *network, *bits))
            }
            Operand::Arn(pattern) => pattern.matches(value, context),
        }
    }

    fn compares(self, order: Option<std::cmp::Ordering>) -> bool {
        use Operator as O;
        use std::cmp::Ordering::{Equal, Greater, Less};
        match self {
            O::NumericLessThan | O::DateLessThan => order == Some(Less),
            O::NumericLessThanEquals | O::DateLessThanEquals => matches!(order, Some(Less | Equal)),
            O::NumericGreaterThan | O::DateGreaterThan => order == Some(Greater),
            O::NumericGreaterThanEquals | O::DateGreaterThanEquals => matches!(order, Some(Greater | Equal)),
            _ => order == Some(Equal),
        }
    }
}

fn number(text: &str) -> Option<f64> {
    text.trim().parse().ok().filter(|number: &f64| number.is_finite())
}

fn boolean(text: &str) -> Option<bool> {
    if text.eq_ignore_ascii_case("true") {
        Some(true)
    } else if text.eq_ignore_ascii_case("false") {
        Some(false)
    } else {
        None
    }
}

/// W3C's profile of ISO 8601, a plain date, or seconds since 1970.
fn date(text: &str) -> Option<i128> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) && text.len() != 4 {
        let seconds: i64 = text.parse().ok()?;
        return OffsetDateTime::from_unix_timestamp(seconds).ok().map(|moment| moment.unix_timestamp_nanos());
    }
    if let Ok(moment) = OffsetDateTime::parse(text, &Rfc3339) {
        return Some(moment.unix_timestamp_nanos());
    }
    if let Ok(moment) = OffsetDateTime::parse(text, &Iso8601::DEFAULT) {
        return Some(moment.unix_timestamp_nanos());
    }
    // `2026-01-31`, and minutes without seconds: `2026-01-31T12:00Z`.
    let (day, rest) = text.split_at_checked(10)?;
    let day = time::Date::parse(day, &Iso8601::DATE).ok()?;
    let time = match rest {
        "" => time::Time::MIDNIGHT,
        rest => time::Time::parse(rest.strip_prefix('T')?.strip_suffix('Z')?, &Iso8601::TIME).ok()?,
    };
    Some(day.with_time(time).assume_utc().unix_timestamp_nanos())
}

/// An address, or a block of them.
pub(crate) fn network(text: &str) -> Option<(IpAddr, u8)> {
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, Some(bits)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let bits = match bits {
        Some(bits) if bits.len() <= 3 && bits.bytes().all(|b| b.is_ascii_digit()) => bits.parse::<u8>().ok()?,
        Some(_) => return None,
        None => most,
    };
    (bits <= most).then_some((address, bits))
}

fn within(address: IpAddr, network: IpAddr, bits: u8) -> bool {
    match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            address.to_bits() & mask == network.to_bits() & mask
        }
        (IpAddr::V6(address), IpAddr::V6(network)) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            address.to_bits() & mask == network.to_bits() & mask
        }
        _ => false,
    }
}
