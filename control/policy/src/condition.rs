//! Conditions: an operator, a key, and the values that it is compared with.

use crate::context::Context;
use crate::operators::{Operand, Operator};

/// How the several values of a request's key are taken together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SetRule {
    /// No set operator.
    Single,
    /// `ForAllValues:` each of the request's values; true without any.
    ForAll,
    /// `ForAnyValue:` one of the request's values; false without any.
    ForAny,
}

/// One line of a `Condition` block.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Condition {
    pub(crate) operator: Operator,
    pub(crate) set: SetRule,
    /// `...IfExists`: true when the request lacks the key.
    pub(crate) if_exists: bool,
    pub(crate) key: String,
    pub(crate) values: Vec<Operand>,
}

impl Condition {
    /// Whether it holds for a request.
    pub(crate) fn holds(&self, context: &Context) -> bool {
        let values = context.get(&self.key);
        if let Operator::Null = self.operator {
            let absent = values.is_none_or(<[String]>::is_empty);
            return self.values.iter().any(|wanted| wanted.as_bool() == Some(absent));
        }
        let Some(values) = values.filter(|values| !values.is_empty()) else {
            return match self.set {
                SetRule::ForAll => true,
                SetRule::ForAny => self.if_exists,
                // "Not equal to x" is true of what is not there.
                SetRule::Single => self.if_exists || self.operator.is_negated(),
            };
        };
        let agrees = |value: &String| {
            let one = self.values.iter().any(|wanted| self.operator.matches(wanted, value, context));
            one != self.operator.is_negated()
        };
        match self.set {
            SetRule::ForAll => values.iter().all(agrees),
            SetRule::ForAny => values.iter().any(agrees),
            // A key of several values without a set operator: one that is equal makes "equal", so "not equal" needs all.
            SetRule::Single if self.operator.is_negated() => values.iter().all(agrees),
            SetRule::Single => values.iter().any(agrees),
        }
    }
}
