//! Aligned tables without borders. A row's colour is the tone of the whole line, so that colours can't disturb the widths.

use comfy_table::{CellAlignment, ContentArrangement};

use super::human;
use super::output::{Paint, Tone};

/// A table being filled.
pub(super) struct Table {
    inner: comfy_table::Table,
    tones: Vec<Tone>,
}

/// How a column is aligned.
#[derive(Debug, Clone, Copy)]
pub(super) enum Column {
    /// Words.
    Left(&'static str),
    /// Numbers.
    Right(&'static str),
}

impl Table {
    /// With these columns.
    pub(super) fn new(columns: &[Column]) -> Self {
        let mut inner = comfy_table::Table::new();
        inner.load_style(comfy_table::presets::NOTHING);
        inner.set_content_arrangement(ContentArrangement::Disabled);
        inner.set_header(columns.iter().map(|c| match c {
            Column::Left(name) | Column::Right(name) => *name,
        }));
        for (column, kind) in inner.column_iter_mut().zip(columns) {
            column.set_padding((0, 2));
            if matches!(kind, Column::Right(_)) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        Self { inner, tones: Vec::new() }
    }

    /// One more row: a cell is one line, whatever is in it.
    pub(super) fn row<const N: usize>(&mut self, tone: Tone, cells: [String; N]) {
        self.inner.add_row(cells.map(|cell| human::line(&cell)));
        self.tones.push(tone);
    }

    /// The lines, each with its end.
    pub(super) fn render(&self, paint: Paint) -> String {
        let tones = std::iter::once(Tone::Heading).chain(self.tones.iter().copied());
        let mut out = String::new();
        for (line, tone) in self.inner.lines().zip(tones) {
            out.push_str(&paint.paint(tone, line.trim_end()));
            out.push('\n');
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_colours_do_not_move_them() {
        let mut table = Table::new(&[Column::Left("SINK"), Column::Right("PENDING"), Column::Left("REASON")]);
        table.row(Tone::Plain, ["graphiti".into(), "6".into(), String::new()]);
        table.row(Tone::Bad, ["größe".into(), "1,234,567".into(), "two\nlines".into()]);
        assert_eq!(
            table.render(Paint(false)),
            "\
SINK        PENDING  REASON
graphiti          6
größe     1,234,567  two lines
"
        );
        assert_eq!(table.render(Paint(true)).lines().nth(2), Some("\x1b[31mgröße     1,234,567  two lines\x1b[0m"));
    }
}
