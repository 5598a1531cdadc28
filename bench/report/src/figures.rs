//! Which plots are made: definitions are data (`figures.toml`), and any result that has the fields makes the plot.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::ReportError;
use crate::plot::{self, Axes, Bar, Group, Line, Scale, Svg, bars, lines};
use crate::results::{Results, Row, number, text};

/// The definitions.
const DEFINITIONS: &str = include_str!("figures.toml");
/// Colours by contender, so that one has the same colour in every plot; whoever is not here gets the next free one.
const OURS: &str = "penstock";

/// A figure: a question, the plots that answer it, and how to read them.
#[derive(Clone, Debug)]
pub struct Figure {
    /// For links and file names: "kernels-encode".
    pub id: String,
    /// The benchmark that it is of: "kernels".
    pub bench: String,
    /// What it shows, in a few words.
    pub title: String,
    /// How to read it, for whoever has never seen the project.
    pub caption: String,
    /// Its plots, each with a name of its own where there are several.
    pub panels: Vec<(String, Svg)>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Definitions {
    figure: Vec<Definition>,
}

/// One figure in `figures.toml`, where each field is explained.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Definition {
    id: String,
    bench: String,
    title: String,
    caption: String,
    kind: Kind,
    #[serde(default)]
    only: BTreeMap<String, Vec<Value>>,
    #[serde(default)]
    panels: Option<String>,
    #[serde(default)]
    x: Vec<String>,
    y: String,
    y_name: String,
    #[serde(default)]
    x_name: String,
    #[serde(default = "contender")]
    series: Vec<String>,
    #[serde(default = "linear")]
    y_scale: Scale,
    #[serde(default = "log")]
    x_scale: Scale,
    #[serde(default)]
    mark: Option<f64>,
    #[serde(default = "one")]
    times: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    Lines,
    Bars,
    Percentiles,
}

fn contender() -> Vec<String> {
    vec!["contender".to_owned()]
}
const fn linear() -> Scale {
    Scale::Linear
}
const fn log() -> Scale {
    Scale::Log
}
const fn one() -> f64 {
    1.0
}

/// The latencies that rows may have, and the share of requests that they are slower than.
const PERCENTILES: [(&str, f64); 5] = [("p50", 50.0), ("p90", 90.0), ("p95", 95.0), ("p99", 99.0), ("p999", 99.9)];

/// All figures that there is something for, in the order of `figures.toml`.
///
/// # Errors
/// [`ReportError::Figures`].
pub fn figures(results: &Results) -> Result<Vec<Figure>, ReportError> {
    let definitions: Definitions =
        toml::from_str(DEFINITIONS).map_err(|error| ReportError::Figures(error.to_string()))?;
    let mut colors = Colors::default();
    Ok(definitions.figure.iter().filter_map(|definition| definition.draw(results, &mut colors)).collect())
}

/// Every series keeps its colour through the whole report.
#[derive(Default)]
struct Colors(BTreeMap<String, BTreeMap<String, usize>>);

impl Colors {
    fn of(&mut self, bench: &str, name: &str) -> usize {
        let of_bench = self.0.entry(bench.to_owned()).or_default();
        if name.starts_with(OURS) && !of_bench.values().any(|color| *color == 0) {
            of_bench.insert(name.to_owned(), 0);
        }
        let next = (1..).find(|color| !of_bench.values().any(|taken| taken == color)).unwrap_or(1);
        *of_bench.entry(name.to_owned()).or_insert(next)
    }
}

impl Definition {
    fn takes(&self, row: &Row) -> bool {
        row.get("bench").and_then(Value::as_str) == Some(&self.bench)
            && self.only.iter().all(|(field, allowed)| row.get(field).is_some_and(|value| allowed.contains(value)))
    }

    fn name(&self, row: &Row, fields: &[String]) -> String {
        fields.iter().filter_map(|field| words(row, field)).collect::<Vec<_>>().join(", ")
    }

    fn draw(&self, results: &Results, colors: &mut Colors) -> Option<Figure> {
        let rows: Vec<&Row> = results.rows().filter(|row| self.takes(row)).collect();
        let panel_of = |row: &Row| self.panels.as_ref().and_then(|field| words(row, field)).unwrap_or_default();
        let mut names: Vec<String> = Vec::new();
        for row in &rows {
            let name = panel_of(row);
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let panels: Vec<(String, Svg)> = names
            .into_iter()
            .filter_map(|name| {
                let of_panel: Vec<&Row> = rows.iter().copied().filter(|row| panel_of(row) == name).collect();
                let label = if name.is_empty() { self.title.clone() } else { format!("{}: {name}", self.title) };
                let svg = match self.kind {
                    Kind::Bars => self.bars(&label, &of_panel, colors),
                    Kind::Lines => self.lines(&label, &of_panel, colors),
                    Kind::Percentiles => self.percentiles(&label, &of_panel, colors),
                };
                svg.map(|svg| (name, svg))
            })
            .collect();
        (!panels.is_empty()).then(|| Figure {
            id: self.id.clone(),
            bench: self.bench.clone(),
            title: self.title.clone(),
            caption: self.caption.trim().to_owned(),
            panels,
        })
    }

    fn y(&self, row: &Row) -> Option<f64> {
        number(row, &self.y).map(|value| value * self.times)
    }

    /// Series by their names, ours first, each with its rows.
    fn series<'a>(&self, rows: &[&'a Row]) -> Vec<(String, Vec<&'a Row>)> {
        let mut all: Vec<(String, Vec<&Row>)> = Vec::new();
        for row in rows {
            let name = self.name(row, &self.series);
            let name = if name.is_empty() { OURS.to_owned() } else { name };
            match all.iter_mut().find(|(each, _)| *each == name) {
                Some((_, of_series)) => of_series.push(row),
                None => all.push((name, vec![row])),
            }
        }
        all.sort_by_key(|(name, _)| !name.starts_with(OURS));
        all
    }

    fn bars(&self, label: &str, rows: &[&Row], colors: &mut Colors) -> Option<Svg> {
        let series = self.series(rows);
        let mut groups: Vec<Group> = Vec::new();
        for row in rows {
            let name = self.name(row, &self.x);
            if !groups.iter().any(|group| group.name == name) {
                groups.push(Group { name, bars: Vec::new() });
            }
        }
        for (name, of_series) in &series {
            let color = colors.of(&self.bench, name);
            for row in of_series {
                let (Some(value), group) = (self.y(row), self.name(row, &self.x)) else { continue };
                if let Some(group) = groups.iter_mut().find(|each| each.name == group) {
                    group.bars.push(Bar { name: name.clone(), color, value });
                }
            }
        }
        groups.retain(|group| !group.bars.is_empty());
        (!groups.is_empty()).then(|| bars(label, &self.y_name, self.mark, &groups))
    }

    fn lines(&self, label: &str, rows: &[&Row], colors: &mut Colors) -> Option<Svg> {
        let field = self.x.first()?;
        let drawn: Vec<Line> = self
            .series(rows)
            .into_iter()
            .filter_map(|(name, of_series)| {
                let points = of_series.iter().filter_map(|row| Some((number_in(row, field)?, self.y(row)?))).collect();
                self.line(name, points, colors)
            })
            .collect();
        let x_words = if field.contains("bytes") { bytes_words } else { plot::plain };
        self.drawn(label, drawn, self.x_scale, x_words)
    }

    fn percentiles(&self, label: &str, rows: &[&Row], colors: &mut Colors) -> Option<Svg> {
        let drawn: Vec<Line> = self
            .series(rows)
            .into_iter()
            .filter_map(|(name, of_series)| {
                let row = of_series.first()?;
                let point = |(field, percent): &(&str, f64)| {
                    let value = number(row, &format!("{field}_{}", self.y))?;
                    (value > 0.0).then_some((slower_than(*percent), value * self.times))
                };
                self.line(name, PERCENTILES.iter().filter_map(point).collect(), colors)
            })
            .collect();
        self.drawn(label, drawn, Scale::Log, |x| format!("p{}", plot::plain(100.0 - 100.0 / x)))
    }

    fn line(&self, name: String, mut points: Vec<(f64, f64)>, colors: &mut Colors) -> Option<Line> {
        points.sort_by(|one, other| one.0.total_cmp(&other.0));
        let color = colors.of(&self.bench, &name);
        let (ours, aim) = (name.starts_with(OURS), name == "limit");
        (!points.is_empty()).then_some(Line { name, color, ours, aim, points })
    }

    fn drawn(&self, label: &str, drawn: Vec<Line>, x_scale: Scale, x_words: fn(f64) -> String) -> Option<Svg> {
        let axes = Axes { x: &self.x_name, y: &self.y_name, x_scale, y_scale: self.y_scale, x_words };
        // A line needs two places to go between.
        let mut places: Vec<f64> = drawn.iter().flat_map(|line| line.points.iter().map(|point| point.0)).collect();
        places.sort_by(f64::total_cmp);
        places.dedup();
        (places.len() > 1).then(|| lines(label, &axes, &drawn))
    }
}

/// One in how many requests is slower: percentiles stand evenly by this.
fn slower_than(percent: f64) -> f64 {
    100.0 / (100.0 - percent)
}

/// A field as a number; "x16" and "4096" are numbers too.
fn number_in(row: &Row, field: &str) -> Option<f64> {
    number(row, field).or_else(|| row.get(field)?.as_str()?.trim_start_matches('x').parse().ok())
}

/// A field for people: bytes as KiB and MiB.
fn words(row: &Row, field: &str) -> Option<String> {
    let plain = text(row, field)?;
    if field.contains("bytes") {
        return Some(plain.parse::<f64>().map_or(plain.clone(), bytes_words));
    }
    Some(match field {
        "connections" => format!("{plain} connections"),
        "queue_depth" => format!("queue depth {plain}"),
        "sets_per_node" => format!("{plain} sets per node"),
        _ => plain,
    })
}

/// "64 KiB".
pub(crate) fn bytes_words(bytes: f64) -> String {
    for (unit, size) in [("GiB", 1u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
        if bytes >= size as f64 {
            return format!("{} {unit}", plot::plain(bytes / size as f64));
        }
    }
    format!("{} B", plot::plain(bytes))
}
