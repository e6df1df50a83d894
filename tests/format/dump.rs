//! The annotated hexadecimal dump of a segment: made from the layouts, and read back from its
//! lines without them.

use std::fmt::Write;
use tokenwal::internals::format::batch::RawBatchHeader;
use tokenwal::internals::format::clear::Clear;
use tokenwal::internals::format::clear::Prefix;
use tokenwal::internals::format::frame::FrameHeader;
use tokenwal::internals::format::layout::{Row, Table};
use tokenwal::internals::format::record::{Kind, RecordHeader};
use tokenwal::internals::format::segment::SegmentHeader;

const BYTES_PER_LINE: usize = 16;

/// Walks over a file and writes down what it passes.
struct Dump<'a> {
    bytes: &'a [u8],
    offset: usize,
    text: String,
}

/// Dumps all batches of a sound segment, and the zeros behind them.
pub(crate) fn segment(bytes: &[u8]) -> String {
    let header = SegmentHeader::parse(bytes).unwrap();
    let block_bytes = usize::try_from(header.block_bytes).unwrap();
    let mut dump = Dump { bytes, offset: 4096, text: String::new() };
    let mut batch = 0;
    while dump.peek(4) != [0; 4] {
        batch += 1;
        dump.title(&format!("batch {batch}"));
        let start = dump.offset;
        let length = dump.number(&RawBatchHeader::TABLE, "length");
        dump.table(&RawBatchHeader::TABLE);
        while dump.offset < start + length {
            dump.frame();
        }
        dump.zeros(dump.offset.next_multiple_of(block_bytes), "to the end of the block");
    }
    dump.title("never written");
    dump.zeros(bytes.len(), "to the end of the segment");
    dump.text
}

/// Reads a dump's bytes back from its lines: an offset, and bytes or how many zeros.
pub(crate) fn bytes(dump: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for line in dump.lines().filter(|line| !line.starts_with(';')) {
        let mut words = line.split_whitespace();
        let offset: usize = words.next().unwrap().parse().unwrap();
        assert_eq!(offset, 4096 + bytes.len(), "{line}");
        let digits = words.next().unwrap();
        if let Some(count) = digits.strip_prefix("00*") {
            bytes.resize(bytes.len() + count.parse::<usize>().unwrap(), 0);
        } else {
            for at in (0..digits.len()).step_by(2) {
                bytes.push(u8::from_str_radix(&digits[at..at + 2], 16).unwrap());
            }
        }
    }
    bytes
}

impl Dump<'_> {
    fn peek(&self, count: usize) -> &[u8] {
        let end = (self.offset + count).min(self.bytes.len());
        &self.bytes[self.offset..end]
    }

    /// Reads a field of the structure that begins here.
    fn number(&self, table: &Table, field: &str) -> usize {
        let row = table.rows.iter().find(|row| row.field == field).unwrap();
        let bytes = &self.bytes[self.offset + table.offset(field)..][..row.width];
        usize::try_from(little_endian(bytes)).unwrap()
    }

    fn frame(&mut self) {
        let header_at = self.offset;
        self.offset += FrameHeader::SIZE;
        let kind = Kind::of(self.number(&RecordHeader::TABLE, "kind").try_into().unwrap()).unwrap();
        let length = self.number(&RecordHeader::TABLE, "length");
        let lsn = self.number(&RecordHeader::TABLE, "lsn");
        self.offset = header_at;
        self.title(&format!("frame with LSN {lsn}: {}", kind.name()));
        self.table(&FrameHeader::TABLE);
        self.table(&RecordHeader::TABLE);
        self.table(&Clear::table_of(kind));
        let end = header_at + FrameHeader::SIZE + length;
        if self.offset < end {
            self.field(12, "sealed: nonce");
            self.field(end - 16 - self.offset, "sealed: ciphertext");
            self.field(16, "sealed: tag");
        }
    }

    fn table(&mut self, table: &Table) {
        for row in table.rows {
            if row.field == Prefix::TABLE.name {
                self.table(&Prefix::TABLE);
            } else {
                let note = format!("{}: {}{}", table.name, row.field, self.meaning(row));
                self.field(row.width, &note);
            }
            if row.reserved > 0 {
                self.field(row.reserved, &format!("{}: reserved", table.name));
            }
        }
    }

    /// Says what a field's bytes mean, where they are a number.
    fn meaning(&self, row: &Row) -> String {
        let value = self.peek(row.width);
        match (row.field, row.width) {
            ("magic", _) => format!(" `{}`", value.escape_ascii()),
            ("crc" | "head_crc" | "body_crc" | "key", _) => String::new(),
            ("kind", _) => format!(" {}", little_endian(value)),
            (_, 1) => {
                let word = row.words.iter().find(|(number, _)| *number == value[0]).unwrap();
                format!(" {} {}", word.0, word.1)
            }
            (_, 2..=8) => format!(" {}", little_endian(value)),
            _ if value.iter().all(|byte| *byte == 0) => " none".to_owned(),
            _ => String::new(),
        }
    }

    fn title(&mut self, title: &str) {
        writeln!(self.text, "; {title}").unwrap();
    }

    fn field(&mut self, width: usize, note: &str) {
        let field = &self.bytes[self.offset..self.offset + width];
        for (index, chunk) in field.chunks(BYTES_PER_LINE).enumerate() {
            let digits: String = chunk.iter().map(|byte| format!("{byte:02x}")).collect();
            let note = if index == 0 { note } else { "" };
            let line = format!("{:>5}  {digits:<32}  {note}", self.offset);
            writeln!(self.text, "{}", line.trim_end()).unwrap();
            self.offset += chunk.len();
        }
    }

    fn zeros(&mut self, end: usize, note: &str) {
        let count = end - self.offset;
        assert!(self.peek(count).iter().all(|byte| *byte == 0), "padding is zero");
        if count > 0 {
            let zeros = format!("00*{count}");
            writeln!(self.text, "{:>5}  {zeros:<32}  {note}", self.offset).unwrap();
        }
        self.offset = end;
    }
}

fn little_endian(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}
