//! Results as text: lines for the terminal, and a table for a document.

use std::fmt::Write as _;

use crate::figures::{short, told};
use crate::results::Results;
use crate::row::{Better, Goal, Of, Row, Verdict};

/// One line for the terminal.
pub(crate) fn line(row: &Row) -> String {
    let mut line = format!("  {:<52} {:>26} {}", row.what, told(&row.gateway), row.unit);
    if let Some(floor) = &row.floor {
        let of_floor = told(&floor.values);
        write!(
            line,
            " | {} {of_floor} | {} x",
            floor.name,
            told(&row.ratios())
        )
        .unwrap();
    }
    if let (Some(goal), Some(verdict)) = (&row.goal, row.verdict()) {
        let (reach, word) = (bound(row, goal, goal.reach), word(verdict));
        write!(line, " | reach {reach}: {word}").unwrap();
    }
    line
}

/// Where a document keeps the table.
const BEGIN: &str = "<!-- measured: begin -->\n";
const END: &str = "<!-- measured: end -->";

/// The document with the table of all rows between its marks.
pub(crate) fn with_table(document: &str, results: &Results) -> String {
    let marks = document.split_once(BEGIN).and_then(|(before, rest)| {
        let (_, after) = rest.split_once(END)?;
        Some((before, after))
    });
    let (before, after) = marks.unwrap_or_else(|| panic!("it has no lines {BEGIN:?} and {END:?}"));
    format!("{before}{BEGIN}{}{END}{after}", table(results))
}

fn table(results: &Results) -> String {
    let rounds = || results.rows.iter().map(|row| row.gateway.len());
    let (least, most) = (rounds().min(), rounds().max());
    let mut text = format!(
        "On {}, medians of {} to {} rounds:\n\n| What | Floor | Gateway | Ratio | Reach | Moonshot | Met |\n|---|---|---|---|---|---|---|\n",
        results.machine,
        least.unwrap_or_default(),
        most.unwrap_or_default(),
    );
    for row in &results.rows {
        let floor = row.floor.as_ref();
        let floor = floor.map_or_else(String::new, |floor| {
            format!("{}: {}", floor.name, told(&floor.values))
        });
        let ratios = row.ratios();
        let ratio = if ratios.is_empty() {
            String::new()
        } else {
            told(&ratios)
        };
        let goal = row.goal.as_ref();
        let cell = |value: fn(&Goal) -> Option<f64>| {
            let goal = goal.and_then(|goal| Some((goal, value(goal)?)));
            goal.map_or_else(String::new, |(goal, value)| bound(row, goal, value))
        };
        writeln!(
            text,
            "| {} | {floor} | {} {} | {ratio} | {} | {} | {} |",
            row.what,
            told(&row.gateway),
            row.unit,
            cell(|goal| Some(goal.reach)),
            cell(|goal| goal.moonshot),
            row.verdict().map_or("", word),
        )
        .unwrap();
    }
    text
}

/// A bound with its sign, and what it is of.
pub(crate) fn bound(row: &Row, goal: &Goal, value: f64) -> String {
    let sign = match goal.better {
        Better::Less => "≤",
        Better::More => "≥",
    };
    let value = short(value);
    match goal.of {
        Of::Ratio => format!("{sign} {value} x"),
        Of::Value => format!("{sign} {value} {}", row.unit),
    }
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Moonshot => "moonshot",
        Verdict::Reach => "yes",
        Verdict::Short => "no",
    }
}
