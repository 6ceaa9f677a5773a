//! The results as Markdown, for a document that people read.

use std::fmt::Write;
use std::time::Duration;

use super::gates::Gate;
use super::results::{Comparison, Idle, Latency, Memory, Reloads, Results, Row, Start};
use super::stats::Estimate;

const BEGIN: &str = "<!-- bench:begin -->";
const END: &str = "<!-- bench:end -->";
/// With less idle time than this the load core may have been the limit.
const HEADROOM: f64 = 0.05;
/// With more of a core than this taken by other programs the machine was not quiet. Less cannot be told apart: the core's
/// idle time is sampled by the clock tick, processes' time is exact, and the two differ by some percent.
const DISTURBANCE: f64 = 0.1;
const NOT_QUIET: &str = "\n‡ The machine was not quiet: other programs took more than a tenth of a core.\n";

/// All tables, without markers.
pub fn markdown(results: &Results, gates: &[Gate]) -> String {
    let mut sections = vec![preface(results)];
    sections.extend(results.comparisons.iter().map(comparison));
    sections.extend(results.idle.iter().map(idle));
    sections.extend([reloads(&results.reloads), starts(&results.starts), memory(&results.memory)]);
    sections.push(bounds(gates));
    sections.retain(|section| !section.is_empty());
    sections.join("\n")
}

/// Puts the section between the markers of the document; at its end when it has none yet.
pub fn insert(document: &str, section: &str) -> String {
    let marked = format!("{BEGIN}\n\n{section}\n{END}");
    match document.split_once(BEGIN).and_then(|(before, rest)| Some((before, rest.split_once(END)?.1))) {
        Some((before, after)) => format!("{before}{marked}{after}"),
        None => format!("{}\n\n{marked}\n", document.trim_end()).trim_start().to_owned(),
    }
}

fn preface(results: &Results) -> String {
    let Results { machine, rounds, round, connections, .. } = results;
    let mut text = format!(
        "Machine: {} cores, {} GiB of memory, Linux {}. {}.\n\n\
         {rounds} rounds of {} s for each workload and proxy, interleaved, {connections} connections (of HTTP/2 an \
         eighth as many). Each proxy has one worker on one core; load generator and origin share another. CPU is the \
         user and system time of the proxy's own processes; on loopback the kernel does part of the receiver's work in \
         the sender's time, for all proxies alike. Figures are medians of the rounds; a ratio is paired by round, with \
         its 95% confidence interval. Latency is that of a saturated proxy (closed loop). nginx and Portcullis write \
         an access log to a file; HAProxy cannot by itself and writes none, nor does bare Pingora.\n",
        machine.cores,
        machine.memory_gib,
        machine.kernel,
        results.programs.join(", "),
        round.as_secs()
    );
    for line in &results.skipped {
        push(&mut text, format_args!("\n{line}.\n"));
    }
    for direct in &results.direct {
        push(
            &mut text,
            format_args!(
                "\nWithout a proxy the load core does {} `{}` requests/s, at {:.1} CPU-µs for load generator and origin \
                 together.\n",
                grouped(direct.requests_per_second.median),
                direct.workload,
                direct.cpu_per_request.median
            ),
        );
    }
    text
}

fn comparison(comparison: &Comparison) -> String {
    let unit = comparison.unit.name();
    let mut columns = vec!["proxy".into(), format!("{unit}s/s"), format!("CPU µs/{unit}")];
    columns.extend(comparison.bases.iter().map(|base| format!("× {base}")));
    if comparison.compressed.is_some() {
        columns.extend(["MB/CPU s", "KiB sent"].map(String::from));
    }
    columns
        .extend(["p50 ms", "p99 ms", "p99.9 ms", "peak MiB", "load core idle", "failed"].map(String::from));
    let mut text = format!(
        "### {}: {}\n\n{}|---|{}\n",
        comparison.workload,
        comparison.about,
        line(&columns),
        "--:|".repeat(columns.len() - 1)
    );
    for row in &comparison.rows {
        let Latency { p50, p99, p999 } = row.latency;
        let mut cells =
            vec![row.name.clone(), grouped(row.per_second.median), format!("{:.1}", row.cpu.median)];
        cells.extend(row.cpu_ratios.iter().map(ratio));
        if let Some(bytes) = comparison.compressed {
            // Bytes per microsecond are megabytes per second.
            cells.push(format!("{:.0}", bytes as f64 / row.cpu.median));
            cells.push(format!("{:.1}", row.body / 1024.0));
        }
        cells.extend([p50, p99, p999].map(milliseconds));
        cells.extend([
            format!("{:.1}", mebibytes(row.peak_resident)),
            format!("{:.0}%{}", row.load_idle * 100.0, marks(row)),
            format!("{} of {}", grouped(row.failed as f64), grouped((row.completed + row.failed) as f64)),
        ]);
        text.push_str(&line(&cells));
    }
    if comparison.rows.iter().any(lacks_headroom) {
        text.push_str("\n† The load core had no headroom: the rate and latency are not the proxy's limit.\n");
    }
    if comparison.rows.iter().any(|row| is_disturbed(row.foreign)) {
        text.push_str(NOT_QUIET);
    }
    let failures = comparison.rows.iter().filter_map(|row| Some((&row.name, row.first_failure.as_ref()?)));
    for (name, failure) in failures {
        push(&mut text, format_args!("\nFirst failure of {name}: {failure}.\n"));
    }
    text
}

fn marks(row: &Row) -> &'static str {
    match (lacks_headroom(row), is_disturbed(row.foreign)) {
        (true, true) => " † ‡",
        (true, false) => " †",
        (false, true) => " ‡",
        (false, false) => "",
    }
}

fn lacks_headroom(row: &Row) -> bool {
    row.load_idle < HEADROOM
}

fn is_disturbed(foreign: f64) -> bool {
    foreign > DISTURBANCE
}

fn idle(idle: &Idle) -> String {
    let head = format!(
        "### {}: {}\n\n| proxy | connections | KiB each | closed by the proxy |\n|---|--:|--:|--:|\n",
        idle.workload, idle.about
    );
    table(&head, &idle.proxies, |row| {
        let kibibytes = row.bytes_per_connection / 1024.0;
        format!("| {} | {} | {kibibytes:.1} | {} |", row.name, grouped(row.connections as f64), row.closed)
    })
}

fn reloads(rows: &[Reloads]) -> String {
    let mut text = table(
        "### Reloads under half of the capacity (open loop)\n\n\
         | workload | routes | requests/s | reloads | p99 ms without | p99 ms with | ratio | failed reloads | \
         failed requests |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|\n",
        rows,
        |row| {
            format!(
                "| {} | {} | {} | {}, every {} s | {:.2} | {:.2} | {}{} | {} | {} |",
                row.workload,
                grouped(row.routes as f64),
                grouped(row.requests_per_second),
                row.reloads,
                row.every.as_secs(),
                row.p99_still.median,
                row.p99_reloading.median,
                ratio(&row.p99_ratio),
                if is_disturbed(row.foreign) { " ‡" } else { "" },
                row.failed_reloads,
                row.failed_requests
            )
        },
    );
    if rows.iter().any(|row| is_disturbed(row.foreign)) {
        text.push_str(NOT_QUIET);
    }
    for (row, failure) in rows.iter().filter_map(|row| Some((row, row.first_failure.as_ref()?))) {
        push(&mut text, format_args!("\nFirst failure of {}: {failure}.\n", row.workload));
    }
    text
}

fn starts(rows: &[Start]) -> String {
    table(
        "### start: from exec to the first answer\n\n| proxy | routes | ms | 95% CI |\n|---|--:|--:|--:|\n",
        rows,
        |row| {
            let Estimate { median, low, high } = row.milliseconds;
            format!("| {} | {} | {median:.1} | {low:.1}–{high:.1} |", row.name, grouped(row.routes as f64))
        },
    )
}

fn memory(rows: &[Memory]) -> String {
    table("### rss: resident memory at rest\n\n| proxy | routes | MiB |\n|---|--:|--:|\n", rows, |row| {
        format!("| {} | {} | {:.1} |", row.name, grouped(row.routes as f64), mebibytes(row.resident))
    })
}

fn bounds(gates: &[Gate]) -> String {
    table(
        "### Bounds\n\n| workload | bound | at most | measured | holds |\n|---|---|--:|--:|---|\n",
        gates,
        |gate| {
            let measured = gate.measured.map_or("not measured".into(), |value| format!("{value:.2}"));
            let holds = if gate.holds() { "yes" } else { "**no**" };
            format!("| {} | {} | {} | {measured} | {holds} |", gate.workload, gate.what, gate.at_most)
        },
    )
}

fn line(cells: &[String]) -> String {
    format!("| {} |\n", cells.join(" | "))
}

/// Nothing at all without rows.
fn table<T>(head: &str, rows: &[T], line: impl Fn(&T) -> String) -> String {
    if rows.is_empty() {
        return String::new();
    }
    rows.iter().map(line).fold(head.to_owned(), |text, line| text + &line + "\n")
}

fn ratio(estimate: &Estimate) -> String {
    let Estimate { median, low, high } = estimate;
    format!("{median:.2} ({low:.2}–{high:.2})")
}

fn milliseconds(duration: Duration) -> String {
    format!("{:.2}", duration.as_secs_f64() * 1e3)
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// A whole number with its thousands set apart: `12,345`.
fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn push(text: &mut String, arguments: std::fmt::Arguments) {
    // Writing to a string cannot fail.
    let _ = text.write_fmt(arguments);
}

#[cfg(test)]
mod tests {
    use super::super::gates;
    use super::super::options::Options;
    use super::super::results::samples;
    use super::*;

    fn sample() -> String {
        let results = samples::full();
        markdown(&results, &gates::check(&results, &Options::default()))
    }

    #[test]
    fn every_part_is_there() {
        let text = sample();
        for part in [
            "Machine: 2 cores, 24 GiB of memory, Linux 6.1.0. bare Pingora 0.9.1, Portcullis 0.1.0.",
            "nginx is skipped: not found; install it.",
            "200,000 `small` requests/s, at 5.0 CPU-µs",
            "| Portcullis | 20,000 | 43.2 | 1.08 (1.07–1.09) | 1.50 | 2.50 | 3.50 | 20.0 | 60% | 0 of 400,000 |",
            "| proxy | handshakes/s | CPU µs/handshake | × nginx |",
            "| Portcullis | 20,000 | 32.0 | 0.80 (0.79–0.81) | 2048 | 16.0 | 1.50 |",
            "### idle_websockets: what one holds",
            "| Portcullis | 10,000 | 16.0 | 0 |",
            "| reload_10 | 10 | 10,000 | 21, every 1 s | 0.50 | 0.55 | 1.10 (1.10–1.10) | 0 | 0 |",
            "| Portcullis | 10,000 | 120.0 | 120.0–120.0 |",
            "| Portcullis | 50,000 | 95.4 |",
            "| small | CPU per request, × bare Pingora | 1.1 | 1.08 | yes |",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
    }

    #[test]
    fn every_row_of_a_table_has_as_many_cells_as_its_head() {
        for block in sample().split("\n\n").filter(|block| block.starts_with('|')) {
            let cells: Vec<_> = block.lines().map(|line| line.matches('|').count()).collect();
            assert!(cells.iter().all(|count| *count == cells[0]), "{block}");
        }
    }

    #[test]
    fn failures_and_doubtful_rounds_are_said_aloud() {
        let mut results = samples::full();
        let row = &mut results.comparisons[0].rows[1];
        (row.failed, row.first_failure, row.load_idle) = (3, Some("status 502".into()), 0.01);
        results.comparisons[0].rows[0].foreign = 0.3;
        results.reloads[0].foreign = 0.3;
        let text = markdown(&results, &[]);
        assert!(text.contains("| 1% † | 3 of 400,003 |"));
        assert!(text.contains("First failure of Portcullis: status 502."));
        assert!(text.contains("† The load core had no headroom"));
        assert!(text.contains("| 60% ‡ |") && text.contains("| 1.10 (1.10–1.10) ‡ |"));
        assert_eq!(text.matches("‡ The machine was not quiet").count(), 2);
    }

    #[test]
    fn inserting_replaces_only_what_stands_between_the_markers() {
        let first = insert("# Title\n\nWords.\n", "one\n");
        assert_eq!(first, "# Title\n\nWords.\n\n<!-- bench:begin -->\n\none\n\n<!-- bench:end -->\n");
        let document = format!("{first}\nAfter.\n");
        assert_eq!(insert(&document, "two\n"), document.replace("one", "two"));
        assert_eq!(insert("", "x\n"), "<!-- bench:begin -->\n\nx\n\n<!-- bench:end -->\n");
    }

    #[test]
    fn numbers_are_grouped_by_thousands() {
        let numbers = [0.0, 999.0, 1000.0, 12_345.6, 1_234_567.0].map(grouped);
        assert_eq!(numbers, ["0", "999", "1,000", "12,346", "1,234,567"]);
    }
}
