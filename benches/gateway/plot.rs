//! Results as a picture: how far each figure is from its reach, on one logarithmic axis on which right is better.

use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::figures::told;
use crate::report::bound;
use crate::results::Results;
use crate::row::{Better, Goal, Of, Row, Verdict};
use crate::stats::{median, spread};

/// Widths of the picture, and where its parts begin.
const WIDTH: i32 = 1240;
const AXIS: (i32, i32) = (400, 830);
const FIGURES: i32 = 850;
const MARGIN: i32 = 24;
/// Heights of the head, of a row, and of the name of a scenario.
const HEAD: i32 = 104;
const ROW: i32 = 26;
const NAME: i32 = 34;
/// What is beyond these, in times the reach, is shown at the edge.
const LEAST: f64 = 1.0 / 16.0;
const MOST: f64 = 8.0;

const INK: RGBColor = RGBColor(31, 41, 55);
const FAINT: RGBColor = RGBColor(107, 114, 128);
const GRID: RGBColor = RGBColor(229, 231, 235);
const SHORT: RGBColor = RGBColor(217, 119, 6);
const REACHED: RGBColor = RGBColor(22, 163, 74);
const BEYOND: RGBColor = RGBColor(13, 110, 120);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws the rows that have a goal.
pub(crate) fn draw(results: &Results, file: &Path) {
    let rows: Vec<(&Row, &Goal)> = results
        .rows
        .iter()
        .filter_map(|row| Some((row, row.goal.as_ref()?)))
        .collect();
    let names = rows.chunk_by(|one, next| one.0.scenario == next.0.scenario);
    let groups: Vec<_> = names.collect();
    let height = HEAD + groups.len() as i32 * NAME + rows.len() as i32 * ROW + MARGIN;
    let area =
        SVGBackend::new(file, (WIDTH.cast_unsigned(), height.cast_unsigned())).into_drawing_area();
    area.fill(&WHITE).unwrap();
    head(&area, results, height);
    let mut y = HEAD;
    for group in groups {
        write(
            &area,
            &group[0].0.scenario,
            (MARGIN, y + NAME - 10),
            14,
            FAINT,
            HPos::Left,
        );
        y += NAME;
        for (row, goal) in group {
            draw_row(&area, row, goal, y + ROW / 2);
            y += ROW;
        }
    }
    area.present().unwrap();
}

fn head(area: &Area<'_>, results: &Results, height: i32) {
    write(
        area,
        "imgate beside its floors",
        (MARGIN, 30),
        22,
        INK,
        HPos::Left,
    );
    let machine = format!(
        "{}; medians and spreads of rounds that take turns",
        results.machine
    );
    write(area, &machine, (MARGIN, 54), 13, FAINT, HPos::Left);
    for (colour, word, x) in [
        (SHORT, "short of the reach", 850),
        (REACHED, "reached", 1000),
        (BEYOND, "moonshot", 1090),
    ] {
        area.draw(&Circle::new((x, 30), 5, colour.filled()))
            .unwrap();
        write(area, word, (x + 10, 30), 13, FAINT, HPos::Left);
    }
    mark_moonshot(area, 850, 54);
    write(
        area,
        "where the moonshot is",
        (860, 54),
        13,
        FAINT,
        HPos::Left,
    );
    for (times, word) in [
        (LEAST, "1/16"),
        (0.125, "1/8"),
        (0.25, "1/4"),
        (0.5, "1/2"),
        (1.0, "reach"),
        (2.0, "2 x"),
        (4.0, "4 x"),
        (MOST, "8 x better"),
    ] {
        let (colour, thickness) = if times == 1.0 { (INK, 2) } else { (GRID, 1) };
        let ends = [(x(times), HEAD - 12), (x(times), height - MARGIN)];
        area.draw(&PathElement::new(ends, colour.stroke_width(thickness)))
            .unwrap();
        write(area, word, (x(times), HEAD - 22), 12, FAINT, HPos::Center);
    }
}

fn draw_row(area: &Area<'_>, row: &Row, goal: &Goal, y: i32) {
    let judged = row.judged(goal);
    let (least, greatest) = spread(&judged);
    let place = |value: f64| x(times_reach(goal, value));
    let colour = match row.verdict() {
        Some(Verdict::Moonshot) => BEYOND,
        Some(Verdict::Reach) => REACHED,
        Some(Verdict::Short) | None => SHORT,
    };
    let middle = place(median(&judged));
    let stem = PathElement::new([(x(1.0), y), (middle, y)], colour.mix(0.35).stroke_width(6));
    area.draw(&stem).unwrap();
    let range = PathElement::new(
        [(place(least), y), (place(greatest), y)],
        colour.stroke_width(2),
    );
    area.draw(&range).unwrap();
    if let Some(moonshot) = goal.moonshot {
        mark_moonshot(area, place(moonshot), y);
    }
    area.draw(&Circle::new((middle, y), 5, colour.filled()))
        .unwrap();
    write(area, &row.what, (AXIS.0 - 16, y), 13, INK, HPos::Right);
    let figure = match (goal.of, &row.floor) {
        (Of::Ratio, Some(floor)) => format!("{} x {}", told(&judged), floor.name),
        (Of::Ratio | Of::Value, _) => format!("{} {}", told(&judged), row.unit),
    };
    write(area, &figure, (FIGURES, y), 13, colour, HPos::Left);
    let reach = format!("reach {}", bound(row, goal, goal.reach));
    write(area, &reach, (WIDTH - MARGIN, y), 12, FAINT, HPos::Right);
}

/// A hollow diamond.
fn mark_moonshot(area: &Area<'_>, x: i32, y: i32) {
    let corners = [(x, y - 5), (x + 5, y), (x, y + 5), (x - 5, y), (x, y - 5)];
    area.draw(&PathElement::new(corners, BEYOND.stroke_width(1)))
        .unwrap();
}

/// How many times better than the reach it is.
fn times_reach(goal: &Goal, value: f64) -> f64 {
    match goal.better {
        Better::More => value / goal.reach,
        // A slope may be below nothing.
        Better::Less => goal.reach / value.max(goal.reach / MOST),
    }
}

fn x(times: f64) -> i32 {
    let share = (times.clamp(LEAST, MOST) / LEAST).ln() / (MOST / LEAST).ln();
    AXIS.0 + (share * f64::from(AXIS.1 - AXIS.0)).round() as i32
}

fn write(area: &Area<'_>, text: &str, at: (i32, i32), size: i32, colour: RGBColor, anchor: HPos) {
    let style = ("sans-serif", size).into_font().color(&colour);
    let style = style.pos(Pos::new(anchor, VPos::Center));
    area.draw(&Text::new(text.to_owned(), at, style)).unwrap();
}
