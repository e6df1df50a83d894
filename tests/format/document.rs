//! The document's tables, kinds and enumerated values against the code's.

use std::collections::BTreeMap;
use tokenwal::internals::format::layout::Table;
use tokenwal::internals::format::{record::Kind, tables};

pub(crate) const DOCUMENT: &str = include_str!("../../journal-format.md");

/// A row of a table: offset, size, field, description.
type DocumentRow = (usize, usize, String, String);

struct DocumentTable {
    bytes: usize,
    rows: Vec<DocumentRow>,
}

/// Parses every "**Table `name`** (N bytes)" and the rows below it.
fn document_tables() -> BTreeMap<String, DocumentTable> {
    let mut tables = BTreeMap::new();
    let mut lines = DOCUMENT.lines();
    while let Some(line) = lines.next() {
        let Some(rest) = line.strip_prefix("**Table `") else { continue };
        let (name, rest) = rest.split_once("`** (").expect("a table has a name and a width");
        let bytes = rest.strip_suffix(" bytes)").expect("a width in bytes").parse().unwrap();
        assert_eq!(lines.next(), Some(""), "an empty line behind the name of {name}");
        assert_eq!(lines.next(), Some("| Offset | Size | Field | Description |"), "{name}");
        assert_eq!(lines.next(), Some("|---|---|---|---|"), "{name}");
        let rows = lines
            .by_ref()
            .take_while(|line| line.starts_with('|'))
            .map(|line| {
                let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
                let [offset, size, field, description] = cells[..] else {
                    panic!("{name} has a row of other than four cells: {line}")
                };
                (offset.parse().unwrap(), size.parse().unwrap(), field.into(), description.into())
            })
            .collect();
        let earlier = tables.insert(name.to_owned(), DocumentTable { bytes, rows });
        assert!(earlier.is_none(), "the table {name} stands there twice");
    }
    tables
}

/// Lists a code table's rows as the document has them: reserved bytes as rows of their own, and
/// the prefix, which has its own table, left out.
fn code_rows(table: &Table) -> Vec<(usize, usize, &'static str)> {
    let mut offset = 0;
    let mut rows = Vec::new();
    for row in table.rows {
        if row.field != "clear_prefix" {
            rows.push((offset, row.width, row.field));
        }
        offset += row.width;
        if row.reserved > 0 {
            rows.push((offset, row.reserved, "reserved"));
            offset += row.reserved;
        }
    }
    rows
}

#[test]
fn tables_are_the_codes() {
    let mut document = document_tables();
    for table in tables() {
        let described = document
            .remove(table.name)
            .unwrap_or_else(|| panic!("journal-format.md has no table `{}`", table.name));
        let rows: Vec<_> = described
            .rows
            .iter()
            .map(|(offset, size, field, _)| (*offset, *size, field.as_str()))
            .collect();
        assert_eq!(rows, code_rows(&table), "the table `{}`", table.name);
        assert_eq!(described.bytes, table.bytes(), "the width of `{}`", table.name);
    }
    let left: Vec<_> = document.keys().collect();
    assert!(left.is_empty(), "the code has no layout for {left:?}");
}

#[test]
fn tables_have_no_gaps_and_sum_up() {
    for (name, table) in document_tables() {
        let mut end = table.rows.first().map_or(0, |row| row.0);
        assert!(end == 0 || end == 40, "`{name}` begins at 0, or behind the prefix");
        for (offset, size, field, _) in &table.rows {
            assert_eq!(*offset, end, "`{name}.{field}` begins where the row above it ends");
            end += size;
        }
        assert_eq!(end, table.bytes, "the sum of `{name}`");
    }
}

/// Drops what stands in parentheses.
fn without_asides(text: &str) -> String {
    let mut depth = 0;
    let plain = text.chars().filter(|c| {
        depth += i32::from(*c == '(');
        let keep = depth == 0;
        depth -= i32::from(*c == ')');
        keep
    });
    plain.collect()
}

#[test]
fn enumerated_values_are_the_codes() {
    let document = document_tables();
    let mut compared = 0;
    for table in tables() {
        for row in table.rows.iter().filter(|row| !row.words.is_empty()) {
            let described = document[table.name].rows.iter().find(|r| r.2 == row.field).unwrap();
            let words: Vec<_> = without_asides(&described.3)
                .split(", ")
                .map(|item| {
                    let (number, word) = item.trim().split_once(' ').expect("number and word");
                    (number.parse::<u8>().unwrap(), word.trim().to_owned())
                })
                .collect();
            let code: Vec<_> = row.words.iter().map(|(n, word)| (*n, (*word).to_owned())).collect();
            assert_eq!(words, code, "`{}.{}`", table.name, row.field);
            compared += 1;
        }
    }
    // Every field of one byte is an enumerated one.
    let bytes = tables().iter().flat_map(|table| table.rows).filter(|row| row.width == 1).count();
    assert_eq!(compared, bytes);
}

#[test]
fn kinds_are_the_codes() {
    let mut document = BTreeMap::new();
    for heading in DOCUMENT.lines().filter(|line| line.starts_with("### 7.")) {
        let mut rest = heading;
        while let Some((before, after)) = rest.split_once(", kind ") {
            let name = before.rsplit(' ').next().unwrap();
            let digits = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
            let (number, behind) = after.split_at(digits);
            document.insert(number.parse::<u16>().unwrap(), name);
            rest = behind;
        }
    }
    let code: BTreeMap<_, _> = Kind::ALL.iter().map(|kind| (kind.number(), kind.name())).collect();
    assert_eq!(document, code);
}

#[test]
fn numbered_sentences_are_numbered_once_and_every_citation_has_one() {
    let mut numbered = BTreeMap::new();
    for line in DOCUMENT.lines() {
        if let Some((number, _)) = line.strip_prefix("- [").and_then(|rest| rest.split_once(']')) {
            assert!(numbered.insert(number, line).is_none(), "[{number}] stands there twice");
        }
    }
    let cited = |text: &str, origin: &str| {
        for citation in text.split('[').skip(1) {
            let Some((number, _)) = citation.split_once(']') else { continue };
            let shape = number.strip_prefix("F-").or_else(|| number.strip_prefix("M-"));
            if shape.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_digit())) {
                assert!(numbered.contains_key(number), "{origin} cites [{number}]");
            }
        }
    };
    cited(DOCUMENT, "journal-format.md");
    let mut directories = vec![concat!(env!("CARGO_MANIFEST_DIR"), "/src").into()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir::<std::path::PathBuf>(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                cited(&text, &path.display().to_string());
            }
        }
    }
}
