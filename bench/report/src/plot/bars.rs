//! Horizontal bars in groups: contenders within a workload, codes within an operation.

use super::axis::{Axis, Scale};
use super::lines::plain;
use super::{SERIES_MAX, Svg, WIDTH, escaped, legend, put_text, round, text_width};

/// One bar.
#[derive(Clone, Debug)]
pub struct Bar {
    /// The series that it is of.
    pub name: String,
    /// Which colour, from 0.
    pub color: usize,
    /// How long it is.
    pub value: f64,
}

/// Bars that belong together.
#[derive(Clone, Debug)]
pub struct Group {
    /// What stands beside them.
    pub name: String,
    /// The bars, from above.
    pub bars: Vec<Bar>,
}

const BAR: f64 = 15.0;
const BETWEEN_GROUPS: f64 = 12.0;
const TOP: f64 = 28.0;
const RIGHT: f64 = 62.0;

/// Draws bars, from zero, with their values at their ends; `mark` is a value to be marked in all groups (a goal, or a ratio of
/// one).
#[must_use]
pub fn bars(label: &str, y: &str, mark: Option<f64>, groups: &[Group]) -> Svg {
    let left = groups.iter().map(|group| text_width(&group.name)).fold(40.0, f64::max).min(240.0) + 16.0;
    let values = groups.iter().flat_map(|group| group.bars.iter().map(|bar| bar.value)).chain(mark);
    let axis = Axis::over(Scale::Linear, values);
    let x_of = |value: f64| left + axis.place(value) * (WIDTH - left - RIGHT);
    let bars: usize = groups.iter().map(|group| group.bars.len()).sum();
    let bottom = TOP + bars as f64 * BAR + groups.len() as f64 * BETWEEN_GROUPS;

    let mut body = String::new();
    put_text(&mut body, 8.0, 16.0, "start", "soft", y);
    for tick in axis.ticks() {
        body.push_str(&format!("<path d=\"M{} {TOP}V{}\" class=\"grid\"/>", round(x_of(tick)), round(bottom)));
        put_text(&mut body, x_of(tick), bottom + 16.0, "middle", "soft", &plain(tick));
    }
    let mut at = TOP + BETWEEN_GROUPS / 2.0;
    for group in groups {
        let middle = at + group.bars.len() as f64 * BAR / 2.0 + 4.0;
        put_text(&mut body, left - 8.0, middle, "end", "", &group.name);
        for bar in &group.bars {
            let end = x_of(bar.value.max(0.0));
            body.push_str(&format!(
                "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" rx=\"1.5\" class=\"bar s{}\"><title>{}</title></rect>",
                round(left),
                round(at + 1.0),
                round((end - left).max(0.5)),
                BAR - 2.0,
                bar.color.min(SERIES_MAX - 1),
                escaped(&format!("{} {}: {}", group.name, bar.name, plain(bar.value))),
            ));
            put_text(&mut body, end + 5.0, at + BAR - 3.5, "start", "soft", &plain(bar.value));
            at += BAR;
        }
        at += BETWEEN_GROUPS;
    }
    body.push_str(&format!("<path d=\"M{} {TOP}V{}\" class=\"axis\"/>", round(left), round(bottom)));
    if let Some(mark) = mark {
        body.push_str(&format!("<path d=\"M{} {TOP}V{}\" class=\"mark\"/>", round(x_of(mark)), round(bottom)));
    }
    let mut names: Vec<(String, usize)> = Vec::new();
    for bar in groups.iter().flat_map(|group| &group.bars) {
        if !names.iter().any(|(name, _)| *name == bar.name) {
            names.push((bar.name.clone(), bar.color));
        }
    }
    let below = bottom + 40.0;
    let height = if names.len() > 1 { below + legend(&mut body, left, below, &names) } else { below - 12.0 };
    Svg { height, label: label.to_owned(), body }
}
