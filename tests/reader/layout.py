"""The tables of journal-format.md as data, and nothing else: fields in order, with their widths.

Offsets are not repeated here: they follow from the widths, and test_reader.py compares both with
the document. Numbers are little-endian and unsigned ([F-1]); sixteen bytes are a tag, a nonce or an
id and come out as hexadecimal digits ([F-2]); `reserved` must be zero ([F-6]).
"""

import struct


class Malformed(Exception):
    """Bytes that are not what the document says stands here."""


class Table:
    """A table of the document: reads its fields from bytes into a dictionary."""

    def __init__(self, *fields):
        self.fields = fields
        self.struct = struct.Struct("<" + "".join(code for _, code in fields))
        self.size = self.struct.size

    def read(self, data, at=0):
        if at < 0 or at + self.size > len(data):
            raise Malformed(f"{self.size} bytes expected at {at}, the data ends before")
        values = {}
        for (name, code), value in zip(self.fields, self.struct.unpack_from(data, at)):
            if name == "reserved":
                if any(value):
                    raise Malformed("a reserved byte is not zero")
            else:
                values[name] = value.hex() if code == "16s" else value
        return values


NONE = "00" * 16

SEGMENT_HEADER = Table(
    ("magic", "8s"), ("version", "I"), ("crc", "I"), ("block_bytes", "I"),
    ("batch_bytes_max", "I"), ("segment_bytes", "Q"), ("store", "16s"), ("nonce", "16s"),
    ("number", "Q"), ("created_at", "Q"), ("incarnation", "Q"), ("keys", "I"), ("reserved", "4s"),
    ("tag_key", "76s"), ("data_keys", "304s"), ("reserved", "3620s"),
)
BATCH_HEADER = Table(
    ("crc", "I"), ("magic", "I"), ("length", "I"), ("count", "I"), ("first_lsn", "Q"),
    ("durable_through", "Q"), ("mac", "16s"), ("reserved", "16s"),
)
FRAME_HEADER = Table(("head_crc", "I"), ("body_crc", "I"))
RECORD_HEADER = Table(
    ("length", "I"), ("kind", "H"), ("clear_bytes", "H"), ("lsn", "Q"), ("at", "Q"), ("key", "Q"),
)
WRAPPED_KEY = Table(("key_id", "Q"), ("kek_id", "Q"), ("nonce", "12s"), ("ciphertext", "48s"))

SNAPSHOT_HEADER = Table(
    ("magic", "8s"), ("version", "I"), ("crc", "I"), ("store", "16s"), ("nonce", "16s"),
    ("lsn", "Q"), ("created_at", "Q"), ("tail", "16s"), ("tail_number", "Q"), ("tag_key", "76s"),
    ("claimed", "Q"), ("reserved", "3924s"),
)
BLOCK_HEADER = Table(
    ("crc", "I"), ("length", "I"), ("kind", "B"), ("reserved", "7s"), ("count", "Q"),
    ("first", "16s"),
)
ACCOUNT_HEADER = Table(
    ("account", "16s"), ("version", "Q"), ("app", "16s"), ("length", "I"), ("records", "I"),
)
INDEX_ITEM = Table(("first", "16s"), ("offset", "Q"), ("length", "I"), ("count", "I"))
OPEN_ITEM = Table(("account", "16s"), ("operations", "I"), ("orphans", "I"))
SNAPSHOT_FOOTER = Table(
    ("crc", "I"), ("magic", "I"), ("index", "Q"), ("keys", "Q"), ("open", "Q"), ("accounts", "Q"),
    ("records", "Q"), ("end", "Q"), ("lsn", "Q"),
)

CLEAR_PREFIX = Table(
    ("account", "16s"), ("grant", "Q"), ("generation", "I"), ("flags", "I"), ("op", "Q"),
)


class Kind:
    """A kind of record: its clear part, its flags, and what its enumerated bytes may say."""

    def __init__(self, name, table, *fields, flags=(), **enumerations):
        self.name = name
        self.table = table  # as the document calls it
        prefix = () if name in STRUCTURAL else CLEAR_PREFIX.fields
        self.clear = Table(*prefix, *fields)
        self.flags = dict(flags)
        self.enumerations = enumerations


STRUCTURAL = {"opened", "sealed", "marker"}

_ISSUED = (
    ("app", "16s"), ("holder", "16s"), ("access", "16s"), ("refresh", "16s"), ("issued_at", "Q"),
    ("expires_at", "Q"), ("adopt_by", "Q"), ("fence", "Q"), ("from", "16s"), ("first", "16s"),
    ("earlier_lapse_at", "Q"),
)

KINDS = {
    1: Kind(
        "intent", "intent", ("action", "B"), ("reserved", "7s"), ("app", "16s"),
        ("holder", "16s"), ("presented", "16s"), ("deadline", "Q"), ("expected", "Q"),
        ("owner", "16s"), ("lease", "Q"),
        flags={0: "provisional", 9: "beside"},
        action=(None, "exchange", "refresh", "revoke", "mint", "introspect", "burn"),
    ),
    2: Kind(
        "issued", "issued", *_ISSUED,
        flags={
            0: "provisional", 1: "refresh_token", 2: "inherited", 3: "orphan",
            4: "expiry_declared", 5: "expiry_assumed", 6: "paused", 7: "imported", 8: "held",
            9: "beside", 10: "earlier_assumed",
        },
    ),
    3: Kind(
        "refused", "refused", ("class", "B"), ("reserved", "1s"), ("status", "H"),
        ("retry_after", "I"),
        **{"class": (None, "retry", "own fault", "suspended", "dead")},
    ),
    4: Kind(
        "not_sent", "not_sent", ("reason", "B"), ("reserved", "7s"),
        reason=(None, "lookup", "connect", "tls", "given up"),
    ),
    5: Kind(
        "in_doubt", "in_doubt", ("reason", "B"), ("reserved", "1s"), ("status", "H"),
        ("body_bytes", "I"),
        reason=(
            None, "timeout", "connection lost", "server error", "unreadable", "oversized",
            "cancelled",
        ),
    ),
    6: Kind(
        "resolved", "resolved", ("how", "B"), ("reserved", "7s"),
        how=(None, "answered", "not issued", "issued elsewhere", "resent", "burnt", "waived"),
    ),
    7: Kind("identified", "identified", ("to", "16s"), ("app", "16s")),
    8: Kind("merged", "merged", ("to", "16s")),
    9: Kind("adopted", "adopted", ("holder", "16s")),
    10: Kind("released", "released", ("holder", "16s")),
    11: Kind("superseded", "superseded", ("holder", "16s"), ("to", "Q")),
    12: Kind(
        "ended", "ended", ("cause", "B"), ("confidence", "B"), ("reserved", "6s"),
        cause=(
            None, "revoked by us", "revoked elsewhere", "expired", "evicted", "reuse", "policy",
            "operator", "unknown",
        ),
        confidence=(None, "certain", "probable", "guessed"),
    ),
    13: Kind("revived", "clear_prefix"),
    14: Kind("forgotten", "clear_prefix"),
    15: Kind(
        "imported", "issued", *_ISSUED,
        flags={1: "refresh_token", 4: "expiry_declared", 5: "expiry_assumed", 6: "paused"},
    ),
    16: Kind("worked", "clear_prefix"),
    17: Kind("claimed", "claimed", ("host", "16s"), ("owner", "16s"), ("incarnation", "Q")),
    18: Kind("activated", "clear_prefix"),
    19: Kind("told", "told", ("expires_at", "Q")),
    32: Kind(
        "opened", "opened", ("predecessor", "16s"), ("predecessor_end", "Q"),
        ("predecessor_lsn", "Q"), ("host", "16s"), ("owner", "16s"), ("incarnation", "Q"),
        ("reason", "B"), ("reserved", "7s"),
        reason=(None, "created", "rolled over", "recovered"),
    ),
    33: Kind("sealed", "sealed", ("successor", "16s"), ("successor_number", "Q")),
    34: Kind(
        "marker", "marker", ("reason", "B"), ("reserved", "7s"), reason=(None, "idle", "close"),
    ),
}
