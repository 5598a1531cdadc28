mod actions;
mod conditions;
mod decisions;
mod parsing;
mod properties;
mod public;
