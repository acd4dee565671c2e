//! Tables for people, as wide as there is room for: text is wrapped, and then columns are left out, the least important first.

use std::sync::OnceLock;

use comfy_table::{Cell, CellAlignment, LineStyle, Table, TableStyle};
use textwrap::core::display_width;

/// The columns that there are for a line of results; `None` for as many as it needs.
static ROOM: OnceLock<Option<usize>> = OnceLock::new();

/// Says once, before anything is printed, how many columns there are.
pub(crate) fn set_room(columns: Option<usize>) {
    // A second call would be of the same process and the same terminal.
    let _ = ROOM.set(columns);
}

/// A line beneath the headings and no others: numbers stand out by standing in columns.
const STYLE: TableStyle = TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));
/// Columns between two cells.
const GAP: usize = 3;
/// Columns before the first, and after the last: the line beneath the headings has them, too.
const EDGES: usize = 2;

/// A table with these headings. Columns in `right` are aligned to the right, and are numbers: they are not wrapped.
pub(crate) fn table(headings: &[&str], right: &[usize], rows: Vec<Vec<String>>) -> String {
    table_without(headings, right, &[], rows)
}

/// The same, without the columns in `least` that there is no room for, from the first on; that is said beneath.
pub(crate) fn table_without(
    headings: &[&str],
    right: &[usize],
    least: &[usize],
    rows: Vec<Vec<String>>,
) -> String {
    fitted(headings, right, least, &rows, ROOM.get().copied().flatten())
}

fn fitted(
    headings: &[&str],
    right: &[usize],
    least: &[usize],
    rows: &[Vec<String>],
    room: Option<usize>,
) -> String {
    let columns = rows.iter().map(Vec::len).chain([headings.len()]).max().unwrap_or(0);
    let column = |i: usize| Column::of(headings.get(i).copied().unwrap_or(""), right.contains(&i), rows, i);
    let mut columns: Vec<Column> = (0..columns).map(column).collect();
    let left_out = fit(&mut columns, least, room.unwrap_or(usize::MAX));
    let mut table = Table::new();
    table.load_style(STYLE);
    let cells = |texts: &dyn Fn(usize) -> String| -> Vec<Cell> {
        let shown = columns.iter().enumerate().filter(|(_, column)| column.is_shown);
        shown.map(|(i, column)| column.cell(&texts(i))).collect()
    };
    if headings.iter().any(|h| !h.is_empty()) {
        table.set_header(cells(&|i| headings.get(i).copied().unwrap_or("").to_string()));
    }
    for row in rows {
        table.add_row(cells(&|i| row.get(i).cloned().unwrap_or_default()));
    }
    let mut text = table.trim_fmt();
    if !left_out.is_empty() {
        let names: Vec<&str> = left_out.into_iter().map(|i| headings[i]).collect();
        text += &format!("\n(--wide shows: {})", names.join(", "));
    }
    text
}

struct Column {
    is_right: bool,
    is_shown: bool,
    /// The widest of its cells.
    width: usize,
    /// As narrow as it may become.
    least: usize,
}

impl Column {
    /// Text narrower than this is hard to read.
    const TEXT: usize = 20;

    fn of(heading: &str, is_right: bool, rows: &[Vec<String>], i: usize) -> Column {
        let cells = rows.iter().filter_map(|row| row.get(i)).flat_map(|cell| cell.lines()).map(display_width);
        let cells = cells.max().unwrap_or(0);
        let word = heading.split(' ').map(display_width).max().unwrap_or(0);
        let width = cells.max(display_width(heading));
        // Numbers stay whole; only their heading is wrapped.
        let least = if is_right { cells.max(word) } else { width.min(Column::TEXT.max(word)) };
        Column { is_right, is_shown: true, width, least }
    }

    fn cell(&self, text: &str) -> Cell {
        let wrapped = textwrap::fill(text, self.width.max(1));
        let cell = Cell::new(if display_width(text) > self.width { &wrapped } else { text });
        if self.is_right { cell.set_alignment(CellAlignment::Right) } else { cell }
    }
}

/// Makes columns as narrow as the room asks for; those that are left out for it.
fn fit(columns: &mut [Column], least: &[usize], room: usize) -> Vec<usize> {
    let total = |columns: &[Column], width: fn(&Column) -> usize| {
        let shown = columns.iter().filter(|column| column.is_shown);
        shown.map(|column| width(column) + GAP).sum::<usize>().saturating_sub(GAP) + EDGES
    };
    let mut left_out = Vec::new();
    for &i in least {
        if total(columns, |column| column.least) <= room {
            break;
        }
        columns[i].is_shown = false;
        left_out.push(i);
    }
    // Where the narrowest form does not fit, either, words are broken.
    for narrowest in
        [|column: &Column| column.least, |column: &Column| if column.is_right { column.least } else { 4 }]
    {
        while total(columns, |column| column.width) > room {
            let slack = |column: &Column| column.width.saturating_sub(narrowest(column));
            let shown = columns.iter_mut().filter(|column| column.is_shown && slack(column) > 0);
            let Some(widest) = shown.max_by_key(|column| column.width) else { break };
            widest.width -= 1;
        }
    }
    left_out.sort_unstable();
    left_out
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADINGS: [&str; 4] = ["name", "scratch memory", "bound", "computes"];

    fn rows() -> Vec<Vec<String>> {
        let row = |name: &str, n: &str, why: &str| [name, n, "memory", why].map(String::from).to_vec();
        vec![
            row(
                "first",
                "30123.23 MB",
                "the sum of all of them, and of what was there before any of them came",
            ),
            row("second", "1 B", "nothing"),
        ]
    }

    #[track_caller]
    fn widest(text: &str) -> usize {
        text.lines().map(display_width).max().unwrap()
    }

    #[test]
    fn a_table_has_a_line_a_row_where_there_is_room() {
        let text = fitted(&HEADINGS, &[1], &[2], &rows(), None);
        assert_eq!(text.lines().count(), 4, "{text}");
        assert!(widest(&text) > 80 && !text.contains("--wide"), "{text}");
    }

    #[test]
    fn text_is_wrapped_before_a_column_is_left_out() {
        let text = fitted(&HEADINGS, &[1], &[2], &rows(), Some(60));
        assert!(widest(&text) <= 60 && !text.contains("--wide"), "{text}");
        assert!(text.contains("30123.23 MB") && text.contains("memory"), "{text}");
        let text = fitted(&HEADINGS, &[1], &[2], &rows(), Some(48));
        assert!(widest(&text) <= 48 && text.ends_with("(--wide shows: bound)"), "{text}");
        assert!(text.contains("30123.23 MB") && text.matches("memory").count() == 1, "{text}");
        // Every word is still there.
        let words = |text: &str| text.split_whitespace().map(String::from).collect::<Vec<_>>();
        for word in words(&rows()[0][3]) {
            assert!(words(&text).contains(&word), "{word}: {text}");
        }
    }

    #[test]
    fn numbers_are_never_broken() {
        for room in 1..80 {
            let text = fitted(&HEADINGS, &[1], &[2], &rows(), Some(room));
            assert!(text.contains("30123.23 MB"), "{room}: {text}");
        }
        let text = fitted(&HEADINGS, &[1], &[2, 3], &rows(), Some(26));
        let (table, left_out) = text.rsplit_once('\n').unwrap();
        assert!(widest(table) <= 26 && left_out == "(--wide shows: bound, computes)", "{text}");
        assert_eq!(fitted(&[], &[], &[], &[], Some(10)), "");
    }
}
