//! A bar chart of CPU time per request, handshake and message, as SVG that reads on light and on dark paper.

use std::fmt::Write;

use super::proxies::Kind;
use super::results::Comparison;

const WIDTH: f64 = 720.0;
const MARGIN: f64 = 16.0;
/// Where bars begin, behind the names, and the longest bar ends, before its figure.
const BAR_LEFT: f64 = 190.0;
const BAR_RIGHT: f64 = 640.0;
const TITLE_HEIGHT: f64 = 34.0;
const PANEL_TITLE_HEIGHT: f64 = 30.0;
const BAR_PITCH: f64 = 24.0;
const BAR_HEIGHT: f64 = 16.0;
const PANEL_GAP: f64 = 10.0;
const TITLE: &str = "CPU time per request, handshake or message (µs, less is better)";

const STYLE: &str = "\
text { font: 13px system-ui, sans-serif; fill: #1f2328 } \
.title { font-weight: 600; font-size: 15px } .panel { font-weight: 600 } \
.bar { fill: #8c959f } .ours { fill: #0969da } .whisker { stroke: #1f2328; stroke-width: 1.5 } \
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .bar { fill: #6e7681 } .ours { fill: #4493f8 } \
.whisker { stroke: #e6edf3 } }";

/// One panel for each comparison, each to its own scale; a whisker spans the 95% confidence interval.
pub fn svg(comparisons: &[Comparison]) -> String {
    let mut top = MARGIN + TITLE_HEIGHT;
    let mut panels = String::new();
    for comparison in comparisons {
        panels.push_str(&panel(comparison, top));
        top += panel_height(comparison);
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {top}\" role=\"img\" aria-label=\"{TITLE}\">\n\
         <style>{STYLE}</style>\n\
         <text class=\"title\" x=\"{MARGIN}\" y=\"{}\">{TITLE}</text>\n{panels}</svg>\n",
        MARGIN + 14.0
    )
}

fn panel_height(comparison: &Comparison) -> f64 {
    PANEL_TITLE_HEIGHT + comparison.rows.len() as f64 * BAR_PITCH + PANEL_GAP
}

fn panel(comparison: &Comparison, top: f64) -> String {
    let longest = comparison.rows.iter().map(|row| row.cpu.high).fold(f64::MIN_POSITIVE, f64::max);
    let at = |value: f64| BAR_LEFT + (BAR_RIGHT - BAR_LEFT) * value / longest;
    let title = escape(&format!("{}: {}", comparison.workload, comparison.about));
    let mut text = format!("<text class=\"panel\" x=\"{MARGIN}\" y=\"{}\">{title}</text>\n", top + 16.0);
    for (index, row) in comparison.rows.iter().enumerate() {
        let y = top + PANEL_TITLE_HEIGHT + index as f64 * BAR_PITCH;
        let class = if row.name.starts_with(Kind::Portcullis.name()) { "bar ours" } else { "bar" };
        let (cpu, name) = (row.cpu, escape(&row.name));
        let (middle, baseline) = (y + BAR_HEIGHT / 2.0, y + 13.0);
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "<text x=\"{MARGIN}\" y=\"{baseline}\">{name}</text>\
             <rect class=\"{class}\" x=\"{BAR_LEFT}\" y=\"{y}\" width=\"{:.1}\" height=\"{BAR_HEIGHT}\" rx=\"2\"/>\
             <path class=\"whisker\" d=\"M{:.1} {middle}H{:.1}\"/>\
             <text x=\"{:.1}\" y=\"{baseline}\">{:.1}</text>",
            at(cpu.median) - BAR_LEFT,
            at(cpu.low),
            at(cpu.high),
            at(cpu.high) + 8.0,
            cpu.median
        );
    }
    text
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::super::results::samples;
    use super::*;

    #[test]
    fn draws_a_bar_to_scale_for_each_row() {
        let comparisons = samples::full().comparisons;
        let text = svg(&comparisons);
        assert_eq!(text.matches("<rect").count(), 8);
        assert_eq!(text.matches("class=\"bar ours\"").count(), 5);
        // The longest, 43.2 µs, fills the width; 40 µs its share of it.
        assert!(text.contains("width=\"450.0\""));
        assert!(text.contains("width=\"416.7\""));
        assert!(text.contains(">43.2</text>"));
    }

    #[test]
    fn everything_lies_within_the_picture() {
        let text = svg(&samples::full().comparisons);
        let height: f64 =
            text.split_once("viewBox=\"0 0 720 ").unwrap().1.split('"').next().unwrap().parse().unwrap();
        let lowest =
            text.split(" y=\"").skip(1).map(|rest| rest.split('"').next().unwrap().parse::<f64>().unwrap());
        assert!(lowest.fold(0.0, f64::max) + BAR_HEIGHT < height);
    }

    #[test]
    fn names_are_text_and_not_markup() {
        let mut comparisons = samples::full().comparisons;
        comparisons[0].rows[0].name = "a<b>&c".into();
        assert!(svg(&comparisons).contains(">a&lt;b&gt;&amp;c</text>"));
    }
}
