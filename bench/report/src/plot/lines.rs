//! Lines over a numeric axis: throughput by size, latency by percentile, rate by queue depth.

use super::axis::{Axis, Scale};
use super::{SERIES_MAX, Svg, WIDTH, escaped, legend, put_text, round};

/// One series.
#[derive(Clone, Debug)]
pub struct Line {
    /// Its name in the legend.
    pub name: String,
    /// Which colour, from 0.
    pub color: usize,
    /// Whether it is ours, and so stands out.
    pub ours: bool,
    /// Whether it is a limit or a goal rather than a contender.
    pub aim: bool,
    /// Its points, by x.
    pub points: Vec<(f64, f64)>,
}

/// Names of both axes, and their scales.
#[derive(Clone, Debug)]
pub struct Axes<'a> {
    /// What x is.
    pub x: &'a str,
    /// What y is, with its unit.
    pub y: &'a str,
    /// How x goes.
    pub x_scale: Scale,
    /// How y goes.
    pub y_scale: Scale,
    /// What to write at an x.
    pub x_words: fn(f64) -> String,
}

const LEFT: f64 = 62.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 30.0;
const PLOT: f64 = 250.0;

/// Draws lines.
#[must_use]
pub fn lines(label: &str, axes: &Axes<'_>, series: &[Line]) -> Svg {
    let xs: Vec<f64> = {
        let mut all: Vec<f64> = series.iter().flat_map(|line| line.points.iter().map(|point| point.0)).collect();
        all.sort_by(f64::total_cmp);
        all.dedup();
        all
    };
    let x_axis = Axis::over(axes.x_scale, xs.iter().copied());
    let ys = series.iter().flat_map(|line| line.points.iter().map(|point| point.1));
    let y_axis = Axis::over(axes.y_scale, ys).to_decades();
    let x_of = |value: f64| LEFT + x_axis.place(value) * (WIDTH - LEFT - RIGHT - 24.0) + 12.0;
    let y_of = |value: f64| TOP + (1.0 - y_axis.place(value)) * PLOT;

    let mut body = String::new();
    put_text(&mut body, 8.0, 16.0, "start", "soft", axes.y);
    for tick in y_axis.ticks() {
        let y = round(y_of(tick));
        body.push_str(&format!("<path d=\"M{LEFT} {y}H{}\" class=\"grid\"/>", WIDTH - RIGHT));
        put_text(&mut body, LEFT - 8.0, y_of(tick) + 4.0, "end", "soft", &plain(tick));
    }
    body.push_str(&format!("<path d=\"M{LEFT} {}H{}\" class=\"axis\"/>", TOP + PLOT, WIDTH - RIGHT));
    // Measured places are labelled, not round ones: that is where there is something to see.
    let mut free_from = f64::NEG_INFINITY;
    for x in &xs {
        let words = (axes.x_words)(*x);
        let half = super::text_width(&words) / 2.0;
        let place = x_of(*x);
        body.push_str(&format!("<path d=\"M{} {}v4\" class=\"axis\"/>", round(place), TOP + PLOT));
        if place - half > free_from {
            put_text(&mut body, place, TOP + PLOT + 18.0, "middle", "soft", &words);
            free_from = place + half + 6.0;
        }
    }
    put_text(&mut body, WIDTH - RIGHT, TOP + PLOT + 36.0, "end", "soft", axes.x);

    // Ours last, and so on top.
    let mut order: Vec<&Line> = series.iter().collect();
    order.sort_by_key(|line| line.ours);
    for line in order {
        let color = line.color.min(SERIES_MAX - 1);
        let path: Vec<String> =
            line.points.iter().map(|(x, y)| format!("{} {}", round(x_of(*x)), round(y_of(*y)))).collect();
        let more = format!("{}{}", if line.ours { " ours" } else { "" }, if line.aim { " aim" } else { "" });
        body.push_str(&format!("<path d=\"M{}\" class=\"line s{color}{more}\"/>", path.join("L")));
        for (x, y) in &line.points {
            body.push_str(&format!(
                "<circle cx=\"{}\" cy=\"{}\" r=\"{}\" class=\"dot s{color}\"><title>{}</title></circle>",
                round(x_of(*x)),
                round(y_of(*y)),
                if line.ours { 4 } else { 3 },
                escaped(&format!("{}: {} at {}", line.name, plain(*y), (axes.x_words)(*x))),
            ));
        }
    }
    let names: Vec<(String, usize)> = series.iter().map(|line| (line.name.clone(), line.color)).collect();
    let below = TOP + PLOT + 56.0;
    let height = below + legend(&mut body, LEFT, below, &names);
    Svg { height, label: label.to_owned(), body }
}

/// A number as people write it: three digits that matter, and k and M for large ones.
pub(crate) fn plain(number: f64) -> String {
    let (scaled, unit) = match number.abs() {
        large if large >= 1e9 => (number / 1e9, "G"),
        large if large >= 1e6 => (number / 1e6, "M"),
        large if large >= 1e4 => (number / 1e3, "k"),
        _ => (number, ""),
    };
    let digits = match scaled.abs() {
        0.0 => 0,
        small if small < 0.01 => 4,
        small if small < 0.1 => 3,
        small if small < 10.0 => 2,
        small if small < 100.0 => 1,
        _ => 0,
    };
    let text = format!("{scaled:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{unit}")
}
