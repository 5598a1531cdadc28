//! Plots as SVG, drawn by ourselves: a plot that follows the reader's light or dark theme needs its colours as style sheet
//! classes, which no kept library for Rust draws (docs/adr/0029-report.md).
//!
//! Shapes carry classes and no colours: `.s0` to `.s7` for series, `.grid`, `.axis`. [`STYLE`] gives them their colours,
//! once for a page, and inside each SVG that stands alone ([`Svg::standalone`]).

mod axis;
mod bars;
mod lines;

pub use axis::{Scale, ticks};
pub use bars::{Bar, Group, bars};
pub(crate) use lines::plain;
pub use lines::{Axes, Line, lines};

/// Width of every plot, in its own units.
pub const WIDTH: f64 = 720.0;
/// Series beyond this many share the last colour.
pub const SERIES_MAX: usize = 8;

/// Colours, for the light and the dark. Chosen to be told apart by people who see few colours (after Okabe and Ito), and to
/// have contrast with both backgrounds.
pub const STYLE: &str = "\
:root{--paper:#ffffff;--ink:#1c2530;--soft:#5b6875;--rule:#dfe4ea;--s0:#0b63c9;--s1:#d1600a;--s2:#11875d;--s3:#a8379b;--s4:#8a6d00;--s5:#c2314f;--s6:#4f6b8a;--s7:#7a7f87}
@media (prefers-color-scheme:dark){:root:not([data-theme=light]){--paper:#12171d;--ink:#e7ecf1;--soft:#9aa7b4;--rule:#2b343e;--s0:#63a9ff;--s1:#ff9a4d;--s2:#4fd1a1;--s3:#e28ada;--s4:#e0bf4a;--s5:#ff8095;--s6:#9db8d6;--s7:#a9afb7}}
:root[data-theme=dark]{--paper:#12171d;--ink:#e7ecf1;--soft:#9aa7b4;--rule:#2b343e;--s0:#63a9ff;--s1:#ff9a4d;--s2:#4fd1a1;--s3:#e28ada;--s4:#e0bf4a;--s5:#ff8095;--s6:#9db8d6;--s7:#a9afb7}
svg text{font:12px system-ui,-apple-system,'Segoe UI',sans-serif;fill:var(--ink)}
svg .soft{fill:var(--soft)}
svg .strong{font-weight:600}
svg .grid{stroke:var(--rule);stroke-width:1;fill:none}
svg .axis{stroke:var(--soft);stroke-width:1;fill:none}
svg .mark{stroke:var(--soft);stroke-width:1.5;stroke-dasharray:5 4;fill:none}
svg .line{fill:none;stroke-width:2;stroke-linejoin:round}
svg .ours{stroke-width:3.5}
svg .aim{stroke-dasharray:6 4}
.s0{--c:var(--s0)}.s1{--c:var(--s1)}.s2{--c:var(--s2)}.s3{--c:var(--s3)}.s4{--c:var(--s4)}.s5{--c:var(--s5)}.s6{--c:var(--s6)}.s7{--c:var(--s7)}
svg .line{stroke:var(--c)}
svg .dot,svg .bar,svg .key{fill:var(--c)}
";

/// A drawn plot.
#[derive(Clone, Debug)]
pub struct Svg {
    /// Its height; its width is [`WIDTH`].
    pub height: f64,
    /// What it shows, for people who don't see it.
    pub label: String,
    /// What is inside the `svg` element.
    pub body: String,
}

impl Svg {
    /// As an element of a page that has [`STYLE`].
    #[must_use]
    pub fn inline(&self) -> String {
        self.element("")
    }

    /// As a file of its own.
    #[must_use]
    pub fn standalone(&self) -> String {
        let paper = format!("<style>{STYLE}</style><rect width=\"100%\" height=\"100%\" style=\"fill:var(--paper)\"/>");
        self.element(&paper)
    }

    fn element(&self, first: &str) -> String {
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {}\" role=\"img\" aria-label=\"{}\">{first}{}</svg>\n",
            round(self.height),
            escaped(&self.label),
            self.body
        )
    }
}

/// Text for XML.
#[must_use]
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // XML has no place for these, not even escaped.
            control if control.is_control() => out.push(' '),
            other => out.push(other),
        }
    }
    out
}

/// A coordinate: a tenth of a unit is less than anyone sees.
pub(crate) fn round(number: f64) -> String {
    let text = format!("{number:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

pub(crate) fn put_text(out: &mut String, x: f64, y: f64, anchor: &str, class: &str, text: &str) {
    out.push_str(&format!(
        "<text x=\"{}\" y=\"{}\" text-anchor=\"{anchor}\" class=\"{class}\">{}</text>",
        round(x),
        round(y),
        escaped(text)
    ));
}

/// A row of keys, one for each series, wrapped; gives the height that it took.
pub(crate) fn legend(out: &mut String, x: f64, y: f64, names: &[(String, usize)]) -> f64 {
    let (mut at_x, mut at_y) = (x, y);
    for (name, color) in names {
        let width = 28.0 + text_width(name);
        if at_x + width > WIDTH - 8.0 && at_x > x {
            at_x = x;
            at_y += 20.0;
        }
        out.push_str(&format!(
            "<rect x=\"{}\" y=\"{}\" width=\"12\" height=\"12\" rx=\"2\" class=\"key s{}\"/>",
            round(at_x),
            round(at_y - 10.0),
            (*color).min(SERIES_MAX - 1)
        ));
        put_text(out, at_x + 17.0, at_y, "start", "", name);
        at_x += width;
    }
    at_y - y + 20.0
}

/// About how wide text is: there is no font to ask.
pub(crate) fn text_width(text: &str) -> f64 {
    text.chars().count() as f64 * 6.6
}
