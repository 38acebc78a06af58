//! Tables for people: columns as wide as what is in them, two spaces apart.

use unicode_width::UnicodeWidthStr;

const GAP: usize = 2;

/// The rows as lines; none ends in a space.
pub(crate) fn text(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let mut widths = vec![0; columns];
    for row in rows {
        for (widest, cell) in widths.iter_mut().zip(row) {
            *widest = cell.width().max(*widest);
        }
    }
    let mut text = String::new();
    for row in rows {
        for (widest, cell) in widths.iter().zip(row) {
            text.push_str(cell);
            text.extend(std::iter::repeat_n(' ', widest - cell.width() + GAP));
        }
        text.truncate(text.trim_end_matches(' ').len());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::text;
    use expect_test::expect;

    #[test]
    fn columns_are_as_wide_as_they_look() {
        let rows = [
            &["SESSION", "NAME", "NEXT"][..],
            &["ses_1", "漢字", ""],
            &["ses_22", "ü", "alpine down ses_22"],
        ];
        let rows = rows.map(|row| row.iter().map(|cell| (*cell).to_owned()).collect());
        expect![[r"
            SESSION  NAME  NEXT
            ses_1    漢字
            ses_22   ü     alpine down ses_22
        "]]
        .assert_eq(&text(&rows));
        assert_eq!(text(&[]), "");
    }
}
