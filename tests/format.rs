//! Holds journal-format.md and the code to each other: the tables and lists of the document are
//! parsed and compared with the layouts that the code encodes by, and the golden files, with the
//! annotated dump of one in the document, are compared byte for byte with what the code makes.
//!
//! The golden files are never made anew by accident: only `TOKENWAL_REGENERATE_GOLDEN=1` writes
//! them, and the dump in the document, and never where `CI` is set.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::string_slice,
    reason = "a test may"
)]

#[path = "format/document.rs"]
mod document;
#[path = "format/dump.rs"]
mod dump;
#[path = "format/golden.rs"]
mod golden;
