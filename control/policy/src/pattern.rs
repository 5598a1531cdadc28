//! Patterns: `*` (any run of characters), `?` (any one), and policy variables (`${aws:username}`), which stand for
//! themselves: a user whose name is `*` gains nothing by it.
//!
//! Variables exist in documents of version 2012-10-17 alone; in older ones `${` is text. A variable that the request has no
//! value for, and that names no default, makes the pattern match nothing.

use crate::context::Context;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    /// `*`
    Run,
    /// `?`
    One,
    Variable {
        key: String,
        default: Option<String>,
    },
}

/// A pattern. Its text is kept for messages and for what the public check asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern {
    text: String,
    pieces: Vec<Piece>,
}

#[derive(Clone, Copy)]
enum Token {
    Run,
    One,
    Char(char),
}

impl Pattern {
    /// Reads a pattern. With `wildcards` off `*` and `?` are text; with `variables` off `${` is.
    ///
    /// # Errors
    /// A sentence about a variable that is not closed or empty.
    pub(crate) fn new(text: &str, wildcards: bool, variables: bool) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            if variables && rest.starts_with("${") {
                let end = rest.find('}').ok_or_else(|| format!("{text:?} has a policy variable without its \"}}\""))?;
                let inner = &rest[2..end];
                rest = &rest[end + 1..];
                match inner {
                    // The three escapes.
                    "*" | "?" | "$" => plain.push_str(inner),
                    _ => {
                        flush(&mut plain, &mut pieces);
                        pieces.push(variable(text, inner)?);
                    }
                }
                continue;
            }
            match c {
                '*' if wildcards => {
                    flush(&mut plain, &mut pieces);
                    // Runs of runs are one: matching stays quadratic at worst.
                    if pieces.last() != Some(&Piece::Run) {
                        pieces.push(Piece::Run);
                    }
                }
                '?' if wildcards => {
                    flush(&mut plain, &mut pieces);
                    pieces.push(Piece::One);
                }
                c => plain.push(c),
            }
            rest = &rest[c.len_utf8()..];
        }
        flush(&mut plain, &mut pieces);
        Ok(Self { text: text.to_owned(), pieces })
    }

    /// As it was written.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Whether it is the same text for every request.
    pub(crate) fn is_fixed(&self) -> bool {
        self.pieces.iter().all(|piece| matches!(piece, Piece::Text(_)))
    }

    fn tokens(&self, context: &Context, fold: bool) -> Option<Vec<Token>> {
        let mut tokens = Vec::with_capacity(self.text.len());
        for piece in &self.pieces {
            let text = match piece {
                Piece::Run => {
                    tokens.push(Token::Run);
                    continue;
                }
                Piece::One => {
                    tokens.push(Token::One);
                    continue;
                }
                Piece::Text(text) => text.as_str(),
                Piece::Variable { key, default } => context.variable(key).or(default.as_deref())?,
            };
            tokens.extend(text.chars().map(|c| Token::Char(if fold { c.to_ascii_lowercase() } else { c })));
        }
        Some(tokens)
    }

    /// Whether all of `text` matches. `fold`: ASCII letters are compared without case.
    pub(crate) fn matches(&self, text: &str, context: &Context, fold: bool) -> bool {
        if let [Piece::Run] = self.pieces.as_slice() {
            return true;
        }
        self.tokens(context, fold).is_some_and(|tokens| glob(&tokens, text, fold))
    }
}

fn flush(plain: &mut String, pieces: &mut Vec<Piece>) {
    if !plain.is_empty() {
        pieces.push(Piece::Text(std::mem::take(plain)));
    }
}

/// `key` or `key, 'default'`.
fn variable(text: &str, inner: &str) -> Result<Piece, String> {
    let (key, default) = match inner.split_once(',') {
        None => (inner.trim(), None),
        Some((key, default)) => {
            let default = default.trim();
            let unquoted = default.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\''));
            let unquoted =
                unquoted.ok_or_else(|| format!("{text:?}: the default of a policy variable stands in 'quotes'"))?;
            (key.trim(), Some(unquoted.to_owned()))
        }
    };
    if key.is_empty() {
        return Err(format!("{text:?} has a policy variable without a name"));
    }
    Ok(Piece::Variable { key: key.to_owned(), default })
}

/// The usual two-pointer match: on a mismatch go back to the last `*` and let it take one character more.
fn glob(tokens: &[Token], text: &str, fold: bool) -> bool {
    let text: Vec<char> = text.chars().map(|c| if fold { c.to_ascii_lowercase() } else { c }).collect();
    let (mut at, mut place) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while place < text.len() {
        match tokens.get(at) {
            Some(Token::Run) => {
                retry = Some((at + 1, place));
                at += 1;
                continue;
            }
            Some(Token::One) => {
                at += 1;
                place += 1;
                continue;
            }
            Some(Token::Char(c)) if *c == text[place] => {
                at += 1;
                place += 1;
                continue;
            }
            _ => {}
        }
        match &mut retry {
            Some((after, taken)) => {
                *taken += 1;
                at = *after;
                place = *taken;
            }
            None => return false,
        }
    }
    tokens[at..].iter().all(|token| matches!(token, Token::Run))
}
