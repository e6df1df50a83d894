#!/usr/bin/env python3
"""Writes the seeds of the corpora, built from journal-format.md by tests/reader/builder.py.

    python3 fuzz/seeds.py

What fuzzing finds is added to the corpora by hand, under a name that says what it is.
"""

import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "tests", "reader"))

import layout
from builder import SegmentBuilder, pack, record, snapshot, tag

NONCE = b"fuzzing a segmen".hex()
ALICE, APP, HOLDER = tag("alice"), tag("app"), tag("holder")


def write(target, name, data):
    directory = os.path.join(HERE, "corpus", target)
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, name), "wb") as file:
        file.write(data)


def one_of_each_kind():
    """Returns a record of every kind, with LSNs from 2; enumerated fields have their first value."""
    made = {}
    for lsn, (_, kind) in enumerate(sorted(layout.KINDS.items()), start=2):
        fields = dict.fromkeys(kind.enumerations, 1)
        if kind.name not in layout.STRUCTURAL:
            fields["account"] = ALICE
        made[kind.name] = record(kind.name, lsn, **fields)
    return made


def text(value):
    return bytes([len(value)]) + value.encode()


def some(value):
    return b"\1" + value


def plains():
    nothing = b"\0"
    names = some(text("salesforce") + text("client")) + some(text("005x")) + \
        some(text("tenant") + text("crm")) + b"\2" + text("api") + text("refresh_token")
    return {
        "names": names,
        "no_names": nothing * 4,
        "pair": names + text("access") + some(text("refresh")) + nothing + text("Bearer") +
                some(text("https://login.example/token")) + nothing +
                b"\1" + text("issued_at") + text('"1"'),
        "refusal": text("invalid_grant") + text("expired access/refresh token") + nothing,
        "doubt": some(text("request")) + text("<html>"),
        "hostile_length": b"\xfd" + b"\xff" * 8 + b"names",
    }


def main():
    kinds = one_of_each_kind()
    for name, data in kinds.items():
        write("record", name, data)
    for name, data in plains().items():
        write("plain", name, data)

    opened = SegmentBuilder(1).opened(1)
    application = [data for name, data in kinds.items() if name not in layout.STRUCTURAL]
    for name, records in {
        "first": [opened, *application[:2]],
        "every_kind": application,
        "marker": [record("marker", 9, reason=2)],
    }.items():
        segment = SegmentBuilder(1, nonce=NONCE)
        start = segment.batch(*records)
        write("batch", name, bytes(segment.data[start:segment.end]))

    issued = record("issued", 3, account=ALICE, app=APP, op=2, grant=2, generation=1, flags=2)
    adopted = record("adopted", 4, account=ALICE, grant=2, holder=HOLDER)
    whole = snapshot(
        1 << 32, SegmentBuilder(2),
        [(ALICE, 4, APP, [issued, adopted]), (tag("bob"), 9, APP, [kinds["intent"]])],
        keys=[pack(layout.WRAPPED_KEY, key_id=7, kek_id=1)], opened=[tag("bob")], nonce=NONCE,
    )
    write("snapshot", "two_accounts", whole[4096:])
    empty = snapshot(1 << 32, SegmentBuilder(2), [], nonce=NONCE)
    write("snapshot", "empty", empty[4096:])


if __name__ == "__main__":
    main()
