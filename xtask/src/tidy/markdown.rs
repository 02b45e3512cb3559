//! The little that the rules need to understand of Markdown.
//!
//! Source: GitHub Flavored Markdown, "Fenced code blocks", "Code spans", "Tables".

/// `text` without its fenced code blocks; lines stay where they are.
pub(super) fn without_blocks(text: &str) -> String {
    let mut fence: Option<&str> = None;
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let start = line.trim_start();
        let marker = ["```", "~~~"].into_iter().find(|marker| start.starts_with(marker));
        let inside = fence.is_some() || marker.is_some();
        match fence {
            None => fence = marker,
            Some(open) if marker == Some(open) => fence = None,
            Some(_) => {}
        }
        out.extend(line.chars().map(|c| if inside && c != '\n' { ' ' } else { c }));
    }
    out
}

/// The code spans of text without blocks, each with the byte offset of its content.
pub(super) fn code_spans(text: &str) -> Vec<(usize, &str)> {
    let mut spans = Vec::new();
    let mut offset = 0;
    while let Some(start) = text[offset..].find('`') {
        let start = offset + start;
        let ticks = text[start..].len() - text[start..].trim_start_matches('`').len();
        let body = start + ticks;
        // A span ends with as many as it begins with, and does not go beyond its paragraph.
        let paragraph = text[body..].find("\n\n").map_or(text.len(), |end| body + end);
        let Some(length) = text[body..paragraph].find(&text[start..body]) else {
            offset = body;
            continue;
        };
        spans.push((body, &text[body..body + length]));
        offset = body + length + ticks;
    }
    spans
}

/// The rows of the table whose first header cells are `header`, with their byte offsets.
pub(super) fn table<'a>(text: &'a str, header: &[&str]) -> Option<Vec<(usize, Vec<&'a str>)>> {
    let mut offset = 0;
    let mut lines = text.split_inclusive('\n').map(|line| {
        let at = offset;
        offset += line.len();
        (at, line)
    });
    lines.find(|(_, line)| {
        let cells = cells(line);
        cells.len() >= header.len() && cells.iter().zip(header).all(|(cell, name)| cell == name)
    })?;
    // The line below the header says how columns are aligned.
    let rows = lines.skip(1).take_while(|(_, line)| line.starts_with('|'));
    Some(rows.map(|(at, line)| (at, cells(line))).collect())
}

fn cells(line: &str) -> Vec<&str> {
    let line = line.trim().trim_start_matches('|').trim_end_matches('|');
    line.split('|').map(str::trim).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_and_spans() {
        let text = "a `b` c\n```sh\n`no`\n```\n``d`e`` `open\n\n`f`";
        let text = without_blocks(text);
        let spans: Vec<&str> = code_spans(&text).into_iter().map(|(_, span)| span).collect();
        assert_eq!(spans, ["b", "d`e", "f"]);
    }

    #[test]
    fn a_table_is_found_by_its_header() {
        let text =
            "| x | y |\n|---|---|\n| 1 | 2 |\n\n| a | b | c |\n|---|---|---|\n| 3 | 4 | 5 |\n\nend";
        let rows = table(text, &["a", "b"]).unwrap();
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].1, ["3", "4", "5"]);
        assert_eq!(table(text, &["z"]), None);
    }
}
