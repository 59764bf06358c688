//! The README's plot: a line for each workload, a dot for each contender, by how many times as fast
//! as the reference it is.

use svg::Document;
use svg::node::element::{Circle, Group as Layer, Line, Rectangle, Text, Title};

use super::{REFERENCE, called, ratio};
use crate::record::Record;
use crate::results::{Group, Row};

/// Ratios at the ends of the axis.
const ENDS: (f64, f64) = (0.01, 10.0);
/// Where the axis has marks.
const MARKS: [f64; 7] = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0];
/// In pixels.
const TITLES: f64 = 300.0;
const AXIS: f64 = 420.0;
const LINE: f64 = 16.0;
const MARGIN: f64 = 16.0;

/// Colours that differ for the colour-blind too (Okabe and Ito).
const COLOURS: [&str; 7] = [
    "#0072b2", "#56b4e9", "#009e73", "#d55e00", "#e69f00", "#cc79a7", "#000000",
];

/// A contender, and its colour in all panels.
type Shown<'a> = (&'a str, &'static str);

/// The picture.
pub(crate) fn picture(record: &Record) -> String {
    let mut layer = Layer::new()
        .set("font-family", "sans-serif")
        .set("font-size", 11);
    let mut top = MARGIN;
    for group in [Group::Mount, Group::P9] {
        let rows: Vec<_> = record
            .results
            .rows
            .iter()
            .filter(|row| row.group == group && row.best(REFERENCE).is_some())
            .collect();
        if !rows.is_empty() {
            let (panel, height) = panel(group, &shown(record, group), &rows, top);
            layer = layer.add(panel);
            top += height;
        }
    }
    let width = TITLES + AXIS + 2.0 * MARGIN;
    let background = Rectangle::new()
        .set("width", width)
        .set("height", top)
        .set("fill", "#ffffff");
    Document::new()
        .set("viewBox", (0.0, 0.0, width, top))
        .set("width", width)
        .set("height", top)
        .add(background)
        .add(layer)
        .to_string()
        + "\n"
}

/// Contenders of the plot, few enough to be told apart: our modes but those without a cache, and
/// everybody else.
fn shown(record: &Record, group: Group) -> Vec<Shown<'_>> {
    let names = record.contenders.iter().map(String::as_str);
    let coloured: Vec<_> = names
        .filter(|name| *name != REFERENCE && !name.contains(":none/"))
        .zip(COLOURS)
        .collect();
    let here = record.results.contenders(group, &record.contenders);
    coloured
        .into_iter()
        .filter(|(name, _)| here.contains(name))
        .collect()
}

fn panel(group: Group, contenders: &[Shown<'_>], rows: &[&Row], top: f64) -> (Layer, f64) {
    let title = match group {
        Group::Mount => "system calls on a mount: times as fast as the directory itself",
        Group::P9 => "9p through stock QEMU: times as fast as QEMU as root on the directory",
    };
    let mut layer =
        Layer::new().add(label(title, MARGIN, top + LINE, "start").set("font-weight", "bold"));
    let mut y = top + 2.0 * LINE;
    for (name, colour) in contenders {
        layer = layer.add(dot(MARGIN + 6.0, y - 4.0, colour)).add(label(
            &called(group, name),
            MARGIN + 16.0,
            y,
            "start",
        ));
        y += LINE;
    }
    let (first, last) = (y + LINE, y + LINE * (rows.len() + 1) as f64);
    for mark in MARKS {
        let colour = if mark == 1.0 { "#000000" } else { "#dddddd" };
        layer = layer
            .add(line(
                (position(mark), first - LINE),
                (position(mark), last),
                colour,
                1.0,
            ))
            .add(label(
                &format!("{mark}"),
                position(mark),
                first - LINE - 3.0,
                "middle",
            ));
    }
    for (number, row) in rows.iter().enumerate() {
        let y = first + LINE * number as f64;
        layer = layer.add(label(&row.title, TITLES, y + 4.0, "end"));
        for (name, colour) in contenders {
            if let Some(mark) = mark(row, name, y, colour) {
                layer = layer.add(mark);
            }
        }
    }
    (layer, last + 2.0 * LINE - top)
}

/// A dot at the best round, and a line to the worst.
fn mark(row: &Row, name: &str, y: f64, colour: &str) -> Option<Layer> {
    let reference = row.best(REFERENCE)?;
    let best = row.best(name)? / reference;
    let worst = row
        .cell(name)?
        .rates
        .iter()
        .copied()
        .min_by(f64::total_cmp)?
        / reference;
    let told = format!("{}, {name}: {}", row.title, ratio(best));
    Some(
        Layer::new()
            .add(Title::new(told))
            .add(line((position(worst), y), (position(best), y), colour, 1.5))
            .add(dot(position(best), y, colour)),
    )
}

/// On a logarithmic axis; what lies beyond its ends is shown at them.
fn position(ratio: f64) -> f64 {
    let (low, high) = ENDS;
    let part = (ratio.clamp(low, high) / low).ln() / (high / low).ln();
    TITLES + MARGIN + AXIS * part
}

fn dot(x: f64, y: f64, colour: &str) -> Circle {
    Circle::new()
        .set("cx", rounded(x))
        .set("cy", rounded(y))
        .set("r", 4)
        .set("fill", colour)
        .set("fill-opacity", 0.85)
}

fn line(from: (f64, f64), to: (f64, f64), colour: &str, width: f64) -> Line {
    Line::new()
        .set("x1", rounded(from.0))
        .set("y1", rounded(from.1))
        .set("x2", rounded(to.0))
        .set("y2", rounded(to.1))
        .set("stroke", colour)
        .set("stroke-width", width)
}

fn label(text: &str, x: f64, y: f64, anchor: &str) -> Text {
    Text::new(text)
        .set("x", rounded(x))
        .set("y", rounded(y))
        .set("text-anchor", anchor)
}

/// A tenth of a pixel is enough.
fn rounded(pixels: f64) -> f64 {
    (pixels * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::Figures;
    use crate::machine::Machine;
    use crate::results::{Results, Unit};

    #[test]
    fn picture_has_a_dot_for_each_contender_of_each_row() {
        let mut results = Results::default();
        for title in ["stat <first>", "unlink"] {
            let row = (Group::Mount, title, Unit::Operations);
            for (contender, rate) in [
                ("native", 10.0),
                ("view:auto/mediated", 1.0),
                ("bindfs", 0.001),
            ] {
                results.add(row, contender, rate);
            }
        }
        let names = ["native", "view:auto/mediated", "bindfs"].map(str::to_owned);
        let record = Record {
            machine: Machine::default(),
            rounds: 1,
            contenders: names.into(),
            default_view: String::new(),
            other_default_view: None,
            results,
            figures: Figures::default(),
        };
        let picture = picture(&record);
        // Two of the key, and two a row.
        assert_eq!(picture.matches("<circle").count(), 6, "{picture}");
        assert!(picture.contains("stat &lt;first&gt;"), "{picture}");
        assert!(!picture.contains("NaN"));
    }

    #[test]
    fn position_is_logarithmic_and_ends_at_the_ends() {
        let close = |a: f64, b: f64| (a - b).abs() < 1e-6;
        assert!(close(position(0.01), TITLES + MARGIN));
        assert!(close(position(0.0001), position(0.01)));
        let (low, middle, high) = (position(0.1), position(1.0), position(10.0));
        assert!(close(middle - low, high - middle));
    }
}
