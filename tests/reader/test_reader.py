"""Tests of the independent reader, on stores that builder.py makes from the document.

    python3 tests/reader/test_reader.py
"""

import contextlib
import io
import json
import os
import random
import re
import shutil
import struct
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import layout
import tokenwal_reader
from layout import NONE
from builder import (
    BATCH_BYTES_MAX, BLOCK, KEY_ID, SEGMENT_BYTES, SegmentBuilder, pack, raw_record, record,
    snapshot, tag,
)
from journal import Journal, NewerVersion
from segment import Segment

FORMAT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "journal-format.md")
ALICE, BOB, APP, HOLDER, OTHER = (tag(t) for t in ("alice", "bob", "app", "holder", "other"))
LATER = 10**15
KEY = pack(layout.WRAPPED_KEY, key_id=KEY_ID)


def intent(lsn, account=ALICE, action=1, **fields):
    return record("intent", lsn, account=account, app=APP, action=action, **fields)


def issued(lsn, op, account=ALICE, grant=None, generation=1, **fields):
    return record(
        "issued", lsn, account=account, app=APP, op=op, grant=op if grant is None else grant,
        generation=generation, **{"flags": 2, "adopt_by": LATER, **fields},
    )


def holders(grant):
    return [held["holder_tag"] for held in grant["holders"]]


def adopted(lsn, grant, account=ALICE, holder=HOLDER):
    return record("adopted", lsn, account=account, grant=grant, holder=holder)


class Tables(unittest.TestCase):
    """layout.py says what the document says."""

    WIDTHS = {"B": 1, "H": 2, "I": 4, "Q": 8}

    def documented(self):
        with open(FORMAT, encoding="utf-8") as file:
            text = file.read()
        tables = {}
        for name, total, body in re.findall(
            r"\*\*Table `(\w+)`\*\* \((\d+) bytes\)\n\n((?:\|.*\n)+)", text
        ):
            rows = re.findall(r"^\| (\d+) \| (\d+) \| (\w+) \|", body, re.M)
            tables[name] = (int(total), [(int(o), int(s), field) for o, s, field in rows])
        return tables

    def described(self):
        tables = {
            name.lower(): (value, value.fields) for name, value in vars(layout).items()
            if isinstance(value, layout.Table)
        }
        for kind in layout.KINDS.values():
            own = kind.clear.fields
            if kind.name not in layout.STRUCTURAL and kind.table != "clear_prefix":
                own = own[len(layout.CLEAR_PREFIX.fields):]
            tables[kind.table] = (kind.clear, own)
        return tables

    def test_every_table_has_the_documents_fields_at_its_offsets(self):
        documented, described = self.documented(), self.described()
        self.assertEqual(set(documented), set(described))
        for name, (table, fields) in described.items():
            width = sum(self.width(code) for _, code in fields)
            at = table.size - width
            rows = []
            for field, code in fields:
                rows.append((at, self.width(code), field))
                at += self.width(code)
            with self.subTest(table=name):
                self.assertEqual(documented[name], (table.size, rows))

    def test_every_enumerated_value_has_the_documents_words(self):
        with open(FORMAT, encoding="utf-8") as file:
            text = file.read()
        for kind in layout.KINDS.values():
            table = text.split(f"**Table `{kind.table}`**")[1].split("**Table")[0]
            for field, words in kind.enumerations.items():
                row = re.search(rf"^\| \d+ \| 1 \| {field} \| (.*) \|$", table, re.M)[1]
                documented = re.findall(r"(\d+) ([a-z ]+)", row)
                with self.subTest(kind=kind.name, field=field):
                    self.assertEqual(
                        documented, [(str(n), word) for n, word in enumerate(words) if word],
                    )

    def width(self, code):
        return self.WIDTHS.get(code) or int(code[:-1])


class Store(unittest.TestCase):
    """A directory for each test, and what the command says of it."""

    def setUp(self):
        self.directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.directory)

    def write(self, *segments):
        for segment in segments:
            segment.write(self.directory)

    def write_snapshot(self, lsn, *arguments, **named):
        path = os.path.join(self.directory, f"snapshot-{lsn:020}.tws")
        with open(path, "wb") as file:
            file.write(snapshot(lsn, *arguments, **named))
        return path

    def command(self, *flags):
        output = io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(io.StringIO()):
            status = tokenwal_reader.main([self.directory, *flags])
        return status, [json.loads(line) for line in output.getvalue().splitlines()]

    def verdict(self):
        return Journal(self.directory).verdict

    def accounts(self, *flags):
        _, lines = self.command("--json", *flags)
        return {line["account_tag"]: line for line in lines}

    def first(self, *batches):
        """Makes a store's first segment: `Opened` with LSN 1, and a batch for each list."""
        segment = SegmentBuilder(1)
        segment.batch(segment.opened(1))
        for batch in batches:
            segment.batch(*batch)
        return segment


class Verdicts(Store):
    def test_zeros_behind_the_last_batch_are_clean(self):
        self.write(self.first([intent(2), record("marker", 3, reason=2)]))
        journal = Journal(self.directory)
        self.assertEqual((journal.verdict, journal.proven, journal.last_lsn), ("clean", True, 3))
        self.assertEqual(self.command("--verify")[0], 0)

    def test_a_store_without_the_beginning_of_its_chain_is_corrupt(self):
        self.assertEqual(self.verdict(), "corrupt")
        self.write(SegmentBuilder(1))
        self.assertEqual(self.verdict(), "corrupt")

    def test_a_half_written_batch_is_torn_and_its_whole_frames_count(self):
        segment = self.first([intent(2), issued(3, 2)])
        segment.data[segment.end - 1] ^= 1
        self.write(segment)
        self.assertEqual(self.verdict(), "torn")
        self.assertEqual(self.command("--verify")[0], 4)
        self.assertEqual([r["kind"] for r in self.command("--records")[1]], ["opened", "intent"])

    def test_damage_below_a_later_batchs_durable_through_is_corrupt(self):
        segment = self.first([intent(2)], [issued(3, 2)])
        segment.data[2 * BLOCK + 70] ^= 1
        self.write(segment)
        self.assertEqual(self.verdict(), "corrupt")
        self.assertEqual(self.command("--json"), (3, []))

    def test_damage_that_no_later_batch_covers_is_torn(self):
        segment = self.first([intent(2)])
        segment.batch(issued(3, 2), durable_through=2 * BLOCK)
        segment.data[2 * BLOCK + 70] ^= 1
        self.write(segment)
        self.assertEqual(self.verdict(), "torn")

    def test_whole_frames_that_are_wrong_are_corrupt(self):
        unknown = bytearray(intent(2))
        struct.pack_into("<H", unknown, 4, 99)
        flagged = intent(2, flags=2)
        wrong = {
            "an unknown kind": bytes(unknown),
            "a reserved flag": flagged,
            "an enumerated byte": intent(2, action=7),
            "an LSN that skips": intent(3),
            "an LSN again": intent(1),
            "Opened within a segment": SegmentBuilder(1).opened(2),
            "a clear part too long": raw_record("adopted", 2, bytes(57)),
            "no sealed part": raw_record("adopted", 2, bytes(56), sealed_bytes=27),
            "no key": raw_record("adopted", 2, bytes(56), key=0),
            "a structural record with a key": raw_record("marker", 2, b"\1" + bytes(7), key=7),
            "a structural record with more": raw_record("marker", 2, b"\1" + bytes(7), 1),
            "a reserved byte that is set": raw_record("marker", 2, b"\1\1" + bytes(6)),
        }
        for what, data in wrong.items():
            with self.subTest(what):
                self.write(self.first([data]))
                self.assertEqual(self.verdict(), "corrupt")

    def test_a_batch_header_that_is_not_valid_holds_no_frames(self):
        for wrong in (
            {"magic": 1},
            {"count": 0},
            {"length": 64 + 47},
            {"length": BATCH_BYTES_MAX + 1},
            {"durable_through": BLOCK - 1},
            {"durable_through": 2 * BLOCK + 1},
        ):
            with self.subTest(**wrong):
                segment = self.first()
                segment.batch(intent(2), **wrong)
                self.write(segment)
                self.assertEqual((self.verdict(), Journal(self.directory).last_lsn), ("torn", 1))
        segment = self.first()
        segment.at = SEGMENT_BYTES - BLOCK
        segment.batch(intent(2), length=BLOCK + 1)
        segment.at = 2 * BLOCK
        self.assertIsNone(self.reread(segment).batch(SEGMENT_BYTES - BLOCK))

    def reread(self, segment):
        return Segment(segment.write(self.directory), segment.number)

    def test_a_count_that_leaves_bytes_over_is_corrupt(self):
        segment = self.first()
        segment.batch(intent(2), issued(3, 2), count=1)
        self.write(segment)
        self.assertEqual(self.verdict(), "corrupt")

    def test_a_count_that_asks_for_more_is_corrupt(self):
        segment = self.first()
        segment.batch(*(record("marker", lsn, reason=1) for lsn in (2, 3)), count=3)
        self.write(segment)
        self.assertEqual(self.verdict(), "torn")
        segment = self.first()
        segment.batch(intent(2), issued(3, 2), count=3)
        self.write(segment)
        self.assertEqual(self.verdict(), "corrupt")

    def test_a_batch_that_names_another_first_lsn_is_corrupt(self):
        segment = self.first()
        segment.batch(intent(2), first_lsn=3)
        self.write(segment)
        self.assertEqual(self.verdict(), "corrupt")

    def test_a_header_that_contradicts_the_format_is_corrupt(self):
        for wrong in (
            {"magic": b"TOKENWAR"}, {"version": 0}, {"block_bytes": 256}, {"block_bytes": 5000},
            {"batch_bytes_max": 16777217}, {"segment_bytes": SEGMENT_BYTES + 1},
            {"keys": 0}, {"keys": 5}, {"data_keys": b"\2" * 77},
            {"data_keys": bytes(8) + b"\2"}, {"tag_key": b"\1"}, {"nonce": NONE},
        ):
            with self.subTest(**wrong):
                segment = SegmentBuilder(1, **wrong)
                segment.batch(segment.opened(1))
                self.write(segment)
                self.assertEqual(self.verdict(), "corrupt")

    def test_a_segment_under_another_number_is_corrupt(self):
        segment = self.first([intent(2)])
        segment.number = 2
        self.write(segment)
        self.assertEqual(self.verdict(), "corrupt")

    def test_bytes_far_behind_the_end_are_suspect(self):
        segment = self.first([intent(2)])
        segment.data[segment.at + BATCH_BYTES_MAX] = 1
        self.write(segment)
        self.assertEqual(self.verdict(), "suspect")
        segment.data[segment.at + BATCH_BYTES_MAX] = 0
        segment.data[segment.at + BATCH_BYTES_MAX - 1] = 1
        self.write(segment)
        self.assertEqual(self.verdict(), "torn")

    def test_a_batch_that_ends_in_zeros_is_torn_and_proves_nothing(self):
        segment = self.first([record("marker", 2, reason=2), intent(3)])
        marker = 2 * BLOCK + 64 + 8 + len(record("marker", 2, reason=2))
        segment.data[marker:segment.end] = bytes(segment.end - marker)
        self.write(segment)
        journal = Journal(self.directory)
        self.assertEqual((journal.verdict, journal.proven, journal.last_lsn), ("torn", False, 2))
        segment.data[2 * BLOCK + 64:marker] = bytes(marker - 2 * BLOCK - 64)
        self.write(segment)
        self.assertEqual((self.verdict(), Journal(self.directory).last_lsn), ("torn", 1))

    def test_what_is_torn_may_have_been_the_last_batch(self):
        segment = self.first([record("marker", 2, reason=1)])
        segment.data[segment.at] = 1
        self.write(segment)
        self.assertEqual((self.verdict(), Journal(self.directory).proven), ("torn", False))

    def test_padding_and_what_stands_behind_the_segment_do_not_count(self):
        segment = self.first([intent(2)])
        segment.data[segment.end] = 1
        segment.data += b"more"
        self.write(segment)
        self.assertEqual(self.verdict(), "clean")

    def test_bytes_in_a_prepared_segment_are_suspect(self):
        segment, prepared = self.first([intent(2)]), SegmentBuilder(2)
        self.write(segment, prepared)
        self.assertEqual(self.verdict(), "clean")
        prepared.data[BLOCK] = 1
        self.write(prepared)
        self.assertEqual(self.verdict(), "suspect")

    def test_a_short_segment_is_corrupt(self):
        segment = self.first([intent(2)])
        del segment.data[-1:]
        self.write(segment)
        self.assertEqual(self.verdict(), "corrupt")

    def test_moved_bytes_do_not_count(self):
        segment = self.first([intent(2)])
        segment.data[3 * BLOCK:4 * BLOCK] = segment.data[2 * BLOCK:3 * BLOCK]
        self.write(segment)
        self.assertEqual((self.verdict(), Journal(self.directory).last_lsn), ("torn", 2))

    def test_a_newer_version_is_named_whatever_else_is_wrong(self):
        segment = SegmentBuilder(1)
        struct.pack_into("<I", segment.data, 8, 2)
        self.write(segment)
        with self.assertRaises(NewerVersion):
            Journal(self.directory)
        self.assertEqual(self.command("--json"), (1, []))


class Chain(Store):
    def rolled(self):
        first, second = self.first([intent(2)]), SegmentBuilder(2)
        first.batch(issued(3, 2), first.sealed(4, second))
        return first, second

    def test_a_roll_over_goes_on_in_the_segment_that_sealed_names(self):
        first, second = self.rolled()
        second.batch(second.opened(5, first, reason=2), adopted(6, 2))
        self.write(first, second)
        self.assertEqual((self.verdict(), Journal(self.directory).last_lsn), ("clean", 6))

    def test_a_roll_over_without_frames_is_clean_and_a_torn_one_torn(self):
        first, second = self.rolled()
        self.write(first, second)
        self.assertEqual(self.verdict(), "clean")
        second.data[BLOCK:BLOCK + 9] = b"half torn"
        self.write(second)
        self.assertEqual(self.verdict(), "torn")

    def test_sealed_without_its_successor_is_corrupt(self):
        first, second = self.rolled()
        self.write(first)
        self.assertEqual(self.verdict(), "corrupt")
        self.write(first, SegmentBuilder(2, nonce=tag("stranger")))
        self.assertEqual(self.verdict(), "corrupt")

    def test_a_missing_middle_segment_is_corrupt(self):
        first, second = self.rolled()
        third = SegmentBuilder(3)
        second.batch(second.opened(5, first, reason=2), second.sealed(6, third))
        third.batch(third.opened(7, second, reason=2))
        self.write(first, second, third)
        self.assertEqual(self.verdict(), "clean")
        os.remove(second.write(self.directory))
        self.assertEqual(self.verdict(), "corrupt")

    def test_swapped_and_duplicated_segments_are_corrupt(self):
        first, second = self.rolled()
        second.batch(second.opened(5, first, reason=2))
        self.write(first, second)
        one, two = first.write(self.directory), second.write(self.directory)
        shutil.copy(one, two)
        self.assertEqual(self.verdict(), "corrupt")
        second.write(self.directory)
        shutil.copy(two, one)
        self.assertEqual(self.verdict(), "corrupt")

    def test_a_successor_that_does_not_follow_is_corrupt(self):
        for wrong in (
            {"predecessor": tag("stranger")}, {"predecessor_end": 4 * BLOCK},
            {"predecessor_end": BLOCK + 64}, {"predecessor_lsn": 3},
        ):
            with self.subTest(**wrong):
                first, second = self.rolled()
                second.batch(second.opened(5, first, **{"reason": 2, **wrong}))
                self.write(first, second)
                self.assertEqual(self.verdict(), "corrupt")

    def test_what_recovery_says_of_the_segment_before_is_checked(self):
        for wrong in (
            {"predecessor": tag("stranger")}, {"predecessor_end": 4 * BLOCK},
            {"predecessor_end": 2 * BLOCK + 65}, {"predecessor_lsn": 1}, {"reason": 2},
        ):
            with self.subTest(**wrong):
                first, second = self.first([intent(2)]), SegmentBuilder(2)
                fields = {"reason": 3, "predecessor_lsn": 2, **wrong}
                gap = 0 if fields["reason"] == 2 else 131072
                lsn = fields["predecessor_lsn"] + 1 + gap
                second.batch(second.opened(lsn, first, **fields))
                self.write(first, second)
                self.assertEqual(self.verdict(), "corrupt")

    def test_a_segment_whose_opened_is_no_valid_one_is_no_successor(self):
        for fields in (
            {"reason": 3, "predecessor_lsn": 1}, {"reason": 1}, {"reason": 3, "predecessor": NONE},
        ):
            with self.subTest(**fields):
                first, second = self.first([intent(2)]), SegmentBuilder(2)
                fields = {"predecessor_lsn": 2, **fields}
                second.batch(second.opened(3 + 131072, first, **fields))
                self.write(first, second)
                self.assertEqual(self.verdict(), "suspect")

    def test_a_prepared_segment_may_stand_between_others_if_it_is_zeros(self):
        first, between, last = self.first([intent(2)]), SegmentBuilder(2), SegmentBuilder(3)
        last.batch(last.opened(3 + 131072, first, reason=3, predecessor_lsn=2))
        self.write(first, between, last)
        self.assertEqual(self.verdict(), "clean")
        between.data[-1] = 1
        self.write(between)
        self.assertEqual(self.verdict(), "suspect")

    def test_sealed_names_the_very_next_segment(self):
        first, between, last = self.first([intent(2)]), SegmentBuilder(2), SegmentBuilder(3)
        first.batch(first.sealed(3, last))
        last.batch(last.opened(4, first, reason=2))
        self.write(first, last)
        self.assertEqual(self.verdict(), "clean")
        self.write(between)
        self.assertEqual(self.verdict(), "corrupt")

    def test_every_segment_of_the_chain_has_its_length_and_a_valid_header(self):
        first, second = self.rolled()
        second.batch(second.opened(5, first, reason=2))
        self.write(first, second)
        del first.data[-1:]
        self.write(first)
        self.assertEqual(self.verdict(), "corrupt")
        first, third = self.rolled()[0], SegmentBuilder(3)
        third.data[20] ^= 1
        self.write(first, third)
        self.assertEqual(self.verdict(), "corrupt")

    def test_a_store_begins_with_its_lowest_segment(self):
        first, second = self.rolled()
        second.batch(second.opened(5, first, reason=2))
        self.write(first, second, SegmentBuilder(0))
        self.assertEqual(self.verdict(), "corrupt")

    def test_sealed_is_the_last_frame_and_names_the_next_segment(self):
        for what, records in {
            "a frame follows": lambda first, second: (first.sealed(3, second), intent(4)),
            "another number": lambda first, second: (
                first.sealed(3, second, successor_number=3),
            ),
        }.items():
            with self.subTest(what):
                first, second = self.first([intent(2)]), SegmentBuilder(2)
                first.batch(*records(first, second))
                self.write(first, second)
                self.assertEqual(self.verdict(), "corrupt")

    def test_a_segment_of_another_store_is_corrupt(self):
        first = self.first([intent(2)])
        second = SegmentBuilder(2, store=tag("another"))
        first.batch(first.sealed(3, second))
        second.batch(second.opened(4, first, reason=2))
        self.write(first, second)
        self.assertEqual(self.verdict(), "corrupt")

    def test_recovery_ends_the_segment_before_and_skips_lsns(self):
        first = self.first([intent(2)])
        torn_at = first.batch(issued(3, 2))
        first.data[torn_at + 70] ^= 1
        first.end = 2 * BLOCK + 64 + 8 + len(intent(2))
        second = SegmentBuilder(2)
        opened = second.opened(3 + 131072, first, reason=3, predecessor_lsn=2)
        second.batch(opened, intent(4 + 131072))
        self.write(first, second)
        self.assertEqual((self.verdict(), Journal(self.directory).last_lsn), ("clean", 131076))

    def test_bytes_that_come_back_behind_a_recovered_end_do_not_count(self):
        first = self.first([intent(2)])
        end = first.end
        first.batch(issued(3, 2))
        second = SegmentBuilder(2)
        fields = {"reason": 3, "predecessor_end": end, "predecessor_lsn": 2}
        second.batch(second.opened(3 + 131072, first, **fields))
        self.write(first, second)
        self.assertEqual([r.lsn for r in Journal(self.directory).records], [1, 2, 131075])

    def test_frames_that_come_back_within_a_batch_do_not_count(self):
        first = self.first([intent(2), issued(3, 2)])
        second = SegmentBuilder(2)
        end = first.end - len(issued(3, 2)) - 8
        fields = {"reason": 3, "predecessor_end": end, "predecessor_lsn": 2}
        second.batch(second.opened(3 + 131072, first, **fields))
        self.write(first, second)
        self.assertEqual([r.lsn for r in Journal(self.directory).records], [1, 2, 131075])

    def test_damage_below_a_recovered_end_is_corrupt(self):
        first, second = self.first([intent(2)]), SegmentBuilder(2)
        second.batch(second.opened(3 + 131072, first, reason=3, predecessor_lsn=2))
        first.data[2 * BLOCK + 70] ^= 1
        self.write(first, second)
        self.assertEqual(self.verdict(), "corrupt")

    def test_a_reader_beside_a_writer_counts_what_is_durable(self):
        segment = self.first([intent(2)])
        segment.batch(issued(3, 2), durable_through=3 * BLOCK)
        self.write(segment)
        self.assertEqual(len(self.accounts()[ALICE]["grants"]), 1)
        self.assertEqual(len(self.accounts("--live")[ALICE]["grants"]), 0)


class Snapshots(Store):
    def covered(self, apart=False):
        tail = SegmentBuilder(3)
        path = self.write_snapshot(
            20, tail,
            [
                (ALICE, 12, APP, [issued(11, 10), adopted(12, 10)]),
                (BOB, 15, APP, [intent(15, BOB, action=2, grant=4, generation=2)]),
            ],
            keys=[KEY], opened=[BOB], apart=apart,
        )
        return tail, path

    def test_a_snapshot_and_its_tail_fold_together(self):
        tail, _ = self.covered()
        before = SegmentBuilder(2)
        tail.batch(tail.opened(21, before, reason=2), issued(22, 15, BOB, grant=4, generation=3))
        self.write(tail)
        accounts = self.accounts()
        self.assertEqual(accounts[ALICE]["lsn"], 12)
        self.assertEqual(holders(accounts[ALICE]["grants"][0]), [HOLDER])
        self.assertEqual(accounts[BOB]["grants"][0]["generation"], 3)
        self.assertEqual(accounts[BOB]["in_doubt"], [])

    def test_what_a_snapshot_covers_is_ignored(self):
        tail, _ = self.covered()
        covered = self.first([intent(2)])
        covered.data[2 * BLOCK + 70] ^= 1
        self.write(covered, tail)
        self.assertEqual((self.verdict(), Journal(self.directory).last_lsn), ("clean", 20))

    def test_a_snapshot_without_its_tail_is_corrupt(self):
        self.covered()
        self.assertEqual(self.verdict(), "corrupt")

    def test_a_snapshot_that_contradicts_itself_is_corrupt(self):
        tail, path = self.covered()
        self.write(tail)
        with open(path, "rb") as file:
            good = file.read()
        for what, bad in {
            "cut off": good[:-1],
            "a byte more": good + b"\0",
            "a bit of the header": good[:4000] + b"\1" + good[4001:],
            "a bit of the index": good[:-200] + bytes([good[-200] ^ 1]) + good[-199:],
            "a bit of the footer": good[:-1] + bytes([good[-1] ^ 1]),
            "empty": b"",
        }.items():
            with open(path, "wb") as file:
                file.write(bad)
            with self.subTest(what):
                self.assertEqual(self.verdict(), "corrupt")

    def test_a_snapshot_whose_parts_disagree_is_corrupt(self):
        tail = SegmentBuilder(3)
        self.write(tail)
        accounts = [
            (ALICE, 12, APP, [issued(11, 10)]), (BOB, 15, APP, [intent(15, BOB)]),
        ]
        good = {"accounts": accounts, "keys": [KEY], "opened": [BOB]}
        self.write_snapshot(20, tail, **good)
        self.assertEqual(self.verdict(), "clean")
        for what, bad in {
            "keys out of order": {"keys": [KEY, KEY]},
            "open accounts out of order": {"opened": [BOB, ALICE]},
            "the index's first tag": {"wrong": {2: {"first": BOB}}},
            "a block's kind": {"wrong": {3: {"kind": 4}}},
            "no items": {"wrong": {3: {"count": 0}}},
            "the index's count": {"wrong": {"index": {"count": 1}}},
            "the index's offset": {"wrong": {"index": {"offset": 4097}}},
            "the index's length": {"wrong": {"index": {"length": 4097}}},
            "the footer's accounts": {"wrong": {"footer": {"accounts": 1}}},
            "the footer's LSN": {"wrong": {"footer": {"lsn": 21}}},
            "the footer's end": {"wrong": {"footer": {"end": 4096}}},
            "the footer's sections": {"wrong": {"footer": {"open": 4096}}},
            "no store": {"wrong": {"header": {"store": NONE}}},
            "no tail": {"wrong": {"header": {"tail": NONE}}},
            "an id of the tag key": {"wrong": {"header": {"tag_key": b"\1"}}},
        }.items():
            with self.subTest(what):
                self.write_snapshot(20, tail, **{**good, **bad})
                self.assertEqual(self.verdict(), "corrupt")

    def test_a_bad_accounts_block_fails_its_accounts_and_nothing_else(self):
        tail = SegmentBuilder(3)
        self.write(tail)
        good = [(ALICE, 12, APP, [issued(11, 10)]), (BOB, 15, APP, [issued(14, 14, BOB)])]
        for what, bad in {
            "an LSN beyond it": {"accounts": [(ALICE, 21, APP, [issued(21, 10)]), good[1]]},
            "LSNs that fall": {"accounts": [
                (ALICE, 12, APP, [issued(12, 10), issued(11, 10)]), good[1],
            ]},
            "a structural record": {"accounts": [
                (ALICE, 12, APP, [record("marker", 12, reason=1)]), good[1],
            ]},
            "a block's count": {"accounts": good, "wrong": {1: {"count": 2}}},
            "a block's first tag": {"accounts": good, "wrong": {1: {"first": OTHER}}},
        }.items():
            with self.subTest(what):
                self.write_snapshot(20, tail, apart=True, **bad)
                self.assertEqual(self.verdict(), "clean")
                self.assertNotIn(ALICE, self.accounts())
                self.assertIn(
                    "block", " ".join(self.command("--verify")[1][0]["bad_snapshots"]),
                ) if "block" in what else self.assertIn(BOB, self.accounts())

    def test_a_damaged_accounts_block_leaves_the_others(self):
        tail, path = self.covered(apart=True)
        self.write(tail)
        with open(path, "r+b") as file:
            file.seek(4200)
            file.write(b"damage")
        self.assertEqual(self.verdict(), "clean")
        self.assertEqual(list(self.accounts()), [BOB])
        tail.batch(tail.opened(21, SegmentBuilder(2), reason=2), adopted(22, 10))
        self.write(tail)
        self.assertEqual(list(self.accounts()), [BOB])

    def test_an_older_snapshot_serves_where_all_segments_since_are_there(self):
        first, second, third = self.first([intent(2)]), SegmentBuilder(2), SegmentBuilder(3)
        first.batch(first.sealed(3, second))
        second.batch(second.opened(4, first, reason=2), intent(5, BOB))
        second.batch(second.sealed(6, third))
        third.batch(third.opened(7, second, reason=2), intent(8, OTHER))
        self.write(second, third)
        alice = (ALICE, 2, APP, [intent(2)])
        self.write_snapshot(3, second, [alice], opened=[ALICE])
        newer = self.write_snapshot(6, third, [alice, (BOB, 5, APP, [intent(5, BOB)])])
        self.assertEqual(Journal(self.directory).snapshot.header["lsn"], 6)
        with open(newer, "wb") as file:
            file.write(b"damage")
        self.assertEqual((self.verdict(), list(self.accounts())), ("clean", [ALICE, BOB, OTHER]))
        os.remove(third.write(self.directory))
        self.assertEqual(self.verdict(), "corrupt")
        self.write(third)
        os.remove(second.write(self.directory))
        self.assertEqual(self.verdict(), "corrupt")

    def test_a_journal_that_ends_before_a_snapshot_of_any_kind_is_corrupt(self):
        first = self.first([intent(2)])
        self.write(first)
        self.write_snapshot(1, first, [])
        self.assertEqual(self.verdict(), "corrupt")
        second = SegmentBuilder(2)
        second.batch(second.opened(2, first, reason=2), intent(3))
        self.write(second)
        self.write_snapshot(1, second, [])
        self.assertEqual(self.verdict(), "clean")
        self.write_snapshot(4, SegmentBuilder(3), [], wrong={"footer": {"end": 1}})
        self.assertEqual(self.verdict(), "corrupt")

    def test_promises_that_no_verdict_depends_on_are_checked(self):
        def broken():
            return self.command("--verify")[1][0]["broken_promises"]

        tail, _ = self.covered()
        self.write(tail)
        self.assertEqual(broken(), [])
        for what, bad in {
            "a key": {"keys": [], "opened": [BOB]},
            "what is open": {"opened": []},
            "a list that is too long": {"accounts": [
                (BOB, 15, APP, [adopted(9, 3, BOB), intent(15, BOB)]),
            ], "opened": [BOB]},
            "the footer's records": {"opened": [BOB], "wrong": {"footer": {"records": 7}}},
        }.items():
            with self.subTest(what):
                good = {"accounts": [(BOB, 15, APP, [intent(15, BOB)])], "keys": [KEY]}
                self.write_snapshot(20, tail, **{**good, **bad})
                self.assertEqual((self.verdict(), len(broken())), ("clean", 1))
        tail.batch(
            tail.opened(21, SegmentBuilder(2), reason=2),
            raw_record("worked", 22, pack(layout.KINDS[16].clear, account=BOB), key=8),
        )
        self.write(tail)
        self.covered()
        self.assertEqual(len(broken()), 1)

    def test_a_snapshots_header_names_the_last_claim_that_it_covers(self):
        tail, worked = SegmentBuilder(3), record("worked", 12, account=ALICE, grant=10, generation=1)
        self.write(tail)
        for claimed, lists, stale in (
            (0, [issued(11, 10)], False), (10, [issued(11, 10)], False),
            (13, [issued(11, 10)], True), (12, [issued(11, 10), worked], False),
        ):
            header = {"header": {"claimed": claimed}}
            self.write_snapshot(20, tail, [(ALICE, 12, APP, lists)], keys=[KEY], wrong=header)
            self.assertEqual(self.accounts()[ALICE]["grants"][0]["stale"], stale)
        self.write_snapshot(20, tail, [], wrong={"header": {"claimed": 21}})
        self.assertEqual(self.verdict(), "corrupt")

    def test_an_account_of_a_snapshot_is_folded_by_itself(self):
        tail = SegmentBuilder(3)
        records = [
            issued(3, 2, OTHER, flags=3),
            record("identified", 4, account=OTHER, grant=2, to=ALICE, app=APP),
        ]
        self.write_snapshot(9, tail, [(ALICE, 4, APP, records)])
        self.write(tail)
        self.assertEqual(list(self.accounts()), [ALICE])


class Folding(Store):
    """Section 7.19, sentence by sentence."""

    def fold(self, *records):
        self.write(self.first(list(records)))
        _, lines = self.command("--json")
        return {line["account_tag"]: line for line in lines}

    def grant(self, *records, grant=2, account=ALICE):
        grants = self.fold(*records)[account]["grants"]
        return next(each for each in grants if each["grant"] == grant)

    def states(self, *records, account=ALICE):
        return {
            g["grant"]: (g["generation"], g["state"], holders(g))
            for g in self.fold(*records)[account]["grants"]
        }

    def imported(self, lsn, **fields):
        return record("imported", lsn, account=ALICE, app=APP, generation=1, **fields)

    def test_an_intent_without_an_outcome_is_in_doubt(self):
        alice = self.fold(intent(2, deadline=5, holder=HOLDER, presented=tag("code")))[ALICE]
        self.assertEqual((alice["lsn"], alice["grants"], alice["app_tag"]), (2, [], APP))
        self.assertEqual(
            alice["in_doubt"],
            [{
                "op": 2, "account_tag": ALICE, "action": "exchange", "grant": 0, "generation": 0,
                "presented": tag("code"), "beside": False, "doubt": None, "since_ms": 1_700_000_000_000,
                "deadline_ms": 5,
            }],
        )

    def test_an_exchange_makes_a_grant_and_a_refresh_its_next_generation(self):
        self.assertEqual(
            self.states(
                intent(2), issued(3, 2), adopted(4, 2),
                intent(5, action=2, grant=2, generation=1), issued(6, 5, grant=2, generation=2),
            ),
            {2: (2, "held", [HOLDER])},
        )

    def test_final_outcomes_close_the_operation_of_their_account_only(self):
        for kind, fields in {
            "not_sent": {"reason": 2}, "refused": {"class": 1}, "resolved": {"how": 6},
            "ended": {"cause": 1, "confidence": 1},
        }.items():
            with self.subTest(kind):
                outcome = record(kind, 3, account=ALICE, op=2, **fields)
                self.assertEqual(self.fold(intent(2), outcome), {})
                outcome = record(kind, 3, account=BOB, op=2, **fields)
                self.assertEqual(list(self.fold(intent(2), outcome)), [ALICE])
        adoption = record("adopted", 3, account=ALICE, grant=9, holder=HOLDER, op=2)
        self.assertEqual(len(self.fold(intent(2), adoption)[ALICE]["in_doubt"]), 1)

    def test_a_doubtful_outcome_stays_until_it_is_resolved(self):
        doubt = record("in_doubt", 3, account=ALICE, op=2, reason=1)
        again = record("in_doubt", 4, account=ALICE, op=2, reason=2)
        alice = self.fold(intent(2), doubt)[ALICE]
        self.assertEqual(alice["in_doubt"][0]["doubt"], "timeout")
        alice = self.fold(intent(2), doubt, again)[ALICE]
        self.assertEqual(alice["in_doubt"][0]["doubt"], "connection_lost")
        self.assertEqual(self.fold(intent(2), doubt, issued(4, 2))[ALICE]["in_doubt"], [])
        alone = record("in_doubt", 2, account=ALICE, op=1, reason=1)
        self.assertEqual(self.fold(alone), {})

    def test_dead_and_ended_end_a_grant_and_revived_undoes_it(self):
        live = [intent(2), issued(3, 2), adopted(4, 2)]
        refresh = intent(5, action=2, grant=2, generation=1)
        for class_, state in ((1, "held"), (2, "held"), (3, "held"), (4, "ended")):
            refused = record("refused", 6, account=ALICE, op=5, grant=2, **{"class": class_})
            self.assertEqual(self.states(*live, refresh, refused), {2: (1, state, [HOLDER])})
        dead = self.grant(*live, refresh, refused)["end"]
        self.assertEqual(
            (dead["cause"], dead["confidence"], dead["lsn"]), ("unknown", "probable", 6),
        )
        ended = record("ended", 5, account=ALICE, grant=2, cause=4, confidence=2)
        later = record("ended", 6, account=ALICE, grant=2, cause=1, confidence=1)
        revived = record("revived", 6, account=ALICE, grant=2)
        self.assertEqual(self.grant(*live, ended)["end"]["cause"], "evicted")
        self.assertEqual(self.grant(*live, ended, later)["end"]["cause"], "revoked_by_us")
        late = record("refused", 6, account=ALICE, op=4, grant=2, **{"class": 4})
        self.assertEqual(self.grant(*live, ended, late)["end"]["cause"], "evicted")
        self.assertEqual(self.states(*live, ended, revived), {2: (1, "held", [HOLDER])})
        newer = issued(6, 0, grant=2, generation=2)
        self.assertEqual(self.states(*live, ended, newer), {2: (2, "ended", [HOLDER])})
        nothing = record("ended", 5, account=ALICE, cause=4, confidence=2)
        self.assertEqual(self.states(*live, nothing), {2: (1, "held", [HOLDER])})

    def test_a_grant_waits_is_held_and_is_released(self):
        made = [intent(2), issued(3, 2)]
        released = record("released", 5, account=ALICE, grant=2, holder=HOLDER)
        other = adopted(6, 2, holder=OTHER)
        gone = record("released", 7, account=ALICE, grant=2, holder=OTHER)
        self.assertEqual(self.states(*made), {2: (1, "waiting", [])})
        self.assertEqual(self.states(*made, adopted(4, 2)), {2: (1, "held", [HOLDER])})
        self.assertEqual(self.states(*made, adopted(4, 2), released), {2: (1, "released", [])})
        self.assertEqual(
            self.states(*made, adopted(4, 2), released, other), {2: (1, "held", [OTHER])},
        )
        self.assertEqual(
            self.states(*made, adopted(4, 2), released, other, gone), {2: (1, "released", [])},
        )
        never = record("released", 4, account=ALICE, grant=2, holder=HOLDER)
        self.assertEqual(self.states(*made, never), {2: (1, "released", [])})

    def test_holders_stand_in_the_order_in_which_they_came(self):
        made = [intent(2), issued(3, 2), adopted(4, 2), adopted(5, 2, holder=OTHER), adopted(6, 2)]
        self.assertEqual(self.states(*made), {2: (1, "held", [OTHER, HOLDER])})

    def test_superseded_moves_the_holder(self):
        made = [intent(2), issued(3, 2), adopted(4, 2), intent(5), issued(6, 5)]
        moved = record("superseded", 7, account=ALICE, grant=2, holder=HOLDER, to=5)
        self.assertEqual(
            self.states(*made, moved), {2: (1, "released", []), 5: (1, "held", [HOLDER])},
        )
        stays = record("superseded", 7, account=ALICE, grant=2, holder=HOLDER, to=2)
        self.assertEqual(
            self.states(*made, stays), {2: (1, "held", [HOLDER]), 5: (1, "waiting", [])},
        )

    def test_an_orphan_and_an_import_make_grants_of_their_own_lsn(self):
        orphan = issued(2, 0, flags=8)
        imported = record("imported", 3, account=ALICE, app=APP, generation=4, flags=64)
        self.assertEqual(
            self.states(orphan, imported), {2: (1, "waiting", []), 3: (4, "waiting", [])},
        )
        self.assertFalse(self.grant(orphan)["has_refresh_token"])

    def test_an_import_is_held_by_the_holder_that_it_names(self):
        imported = self.imported(2, holder=HOLDER)
        self.assertEqual(self.states(imported), {2: (1, "held", [HOLDER])})
        shown = self.grant(imported)
        self.assertEqual((shown["imported"], shown["paused"]), (True, False))
        self.assertEqual(shown["issued_for"], {"holder_tag": HOLDER})
        released = record("released", 3, account=ALICE, grant=2, holder=HOLDER)
        self.assertEqual(self.states(imported, released), {2: (1, "released", [])})

    def test_who_holds_by_a_pair_holds_by_the_next_if_it_says_so(self):
        imported, other = self.imported(2, holder=HOLDER), adopted(3, 2, holder=OTHER)
        for flags, held in ((128 | 256, [OTHER, HOLDER]), (128, [OTHER])):
            newer = issued(4, 0, grant=2, generation=2, flags=flags, holder=HOLDER)
            self.assertEqual(self.states(imported, other, newer), {2: (2, "held", held)})
            self.assertTrue(self.grant(imported, other, newer)["imported"])
        itself = adopted(3, 2)
        newer = issued(4, 0, grant=2, generation=2, flags=128)
        self.assertEqual(self.states(imported, itself, newer), {2: (2, "held", [HOLDER])})

    def test_a_paused_grant_is_activated_once_and_for_its_pair(self):
        paused = self.imported(2, flags=64)
        activated = record("activated", 3, account=ALICE, grant=2)
        self.assertTrue(self.grant(paused)["paused"])
        self.assertFalse(self.grant(paused, activated)["paused"])
        again = issued(4, 0, grant=2, generation=2, flags=64)
        self.assertTrue(self.grant(paused, activated, again)["paused"])
        self.assertFalse(self.grant(self.imported(2), activated)["paused"])

    def beside(self, lsn, asked, flags=512 | 16, **fields):
        return issued(lsn, 0, grant=2, first=tag(asked), flags=flags, **fields)

    def test_tokens_beside_the_chain_leave_the_newest_pair_alone(self):
        pair = issued(3, 2, refresh=tag("one"), expires_at=50)
        before = self.grant(intent(2), pair)
        one = self.beside(4, "mail", expires_at=60)
        after = self.grant(intent(2), pair, one)
        shown = {"issued_at_ms": 0, "expires_at_ms": 60, "expiry": "declared", "lsn": 4}
        changed = {"beside": [shown], "lapses_at_ms": 60}
        self.assertEqual(after, {**before, **changed})
        # The newest for what was asked, and so many in all.
        again = self.grant(intent(2), pair, one, self.beside(5, "wave"), self.beside(6, "mail"))
        self.assertEqual([b["lsn"] for b in again["beside"]], [5, 6])
        many = [self.beside(lsn, str(lsn)) for lsn in range(4, 14)]
        kept = self.grant(intent(2), pair, *many)["beside"]
        self.assertEqual([b["lsn"] for b in kept], list(range(6, 14)))
        newer = issued(5, 0, grant=2, generation=2)
        self.assertEqual(len(self.grant(intent(2), pair, one, newer)["beside"]), 1)

    def test_what_is_told_counts_for_its_pair(self):
        pair = issued(3, 2, expires_at=50, flags=2 | 32)
        self.assertEqual(self.grant(intent(2), pair)["expiry"], "assumed")
        told = lambda generation: record(
            "told", 4, account=ALICE, grant=2, generation=generation, expires_at=70)
        shown = self.grant(intent(2), pair, told(1))
        self.assertEqual((shown["expires_at_ms"], shown["expiry"]), (70, "introspected"))
        self.assertEqual(self.grant(intent(2), pair, told(2))["expires_at_ms"], 50)
        newer = issued(5, 0, grant=2, generation=2, expires_at=60, flags=16)
        shown = self.grant(intent(2), pair, told(1), newer)
        self.assertEqual((shown["expires_at_ms"], shown["expiry"]), (60, "declared"))

    def test_when_all_tokens_have_lapsed_is_known_or_it_is_not(self):
        unknown = (1 << 64) - 1

        def lapse(flags, expires_at, earlier=0):
            pair = issued(3, 2, flags=flags, expires_at=expires_at, earlier_lapse_at=earlier)
            shown = self.grant(intent(2), pair)
            return shown["lapses_at_ms"], shown["only_assumed"]

        self.assertEqual(lapse(16, 50), (50, False))
        self.assertEqual(lapse(0, 50), (50, False))
        self.assertEqual(lapse(16, 50, earlier=80), (80, False))
        self.assertEqual(lapse(16, 0), (None, False))
        self.assertEqual(lapse(32, 50), (None, True))
        self.assertEqual(lapse(32, 50, earlier=40), (None, False))
        self.assertEqual(lapse(16, 50, earlier=unknown), (None, False))
        self.assertEqual(lapse(32, 50, earlier=unknown), (None, False))
        self.assertEqual(lapse(32 | 1024, 50, earlier=unknown), (None, True))
        self.assertEqual(lapse(16 | 1024, 50, earlier=unknown), (None, False))

    def test_the_last_refusal_stays_until_there_is_a_newer_pair(self):
        made = [intent(2), issued(3, 2), intent(4, action=2, grant=2, generation=1)]
        refused = record(
            "refused", 5, account=ALICE, op=4, grant=2, status=429, retry_after=7, **{"class": 1},
        )
        at = 1_700_000_000_000
        self.assertEqual(
            self.grant(*made, refused)["refusal"],
            {"class": "retry", "status": 429, "retry_after_s": 7, "at_ms": at, "lsn": 5},
        )
        newer = issued(6, 0, grant=2, generation=2)
        self.assertNotIn("refusal", self.grant(*made, refused, newer))
        older = issued(6, 0, grant=2, generation=1)
        self.assertIn("refusal", self.grant(*made, refused, older))
        revived = record("revived", 6, account=ALICE, grant=2)
        self.assertIn("refusal", self.grant(*made, refused, revived))
        dead = record("refused", 5, account=ALICE, op=4, grant=2, **{"class": 4})
        self.assertIn("refusal", self.grant(*made, dead))
        self.assertNotIn("refusal", self.grant(*made, dead, revived))
        exchange = record("refused", 5, account=ALICE, op=4, **{"class": 1})
        self.assertNotIn("refusal", self.grant(*made, exchange))

    def test_a_grant_is_stale_if_the_store_was_taken_over_since(self):
        made, claimed = [intent(2), issued(3, 2)], record("claimed", 4, host=tag("host"))
        self.assertFalse(self.grant(*made)["stale"])
        self.assertTrue(self.grant(*made, claimed)["stale"])
        worked = record("worked", 5, account=ALICE, grant=2, generation=1)
        self.assertFalse(self.grant(*made, claimed, worked)["stale"])
        newer = issued(5, 0, grant=2, generation=2)
        self.assertFalse(self.grant(*made, claimed, newer)["stale"])

    def test_an_expiry_that_nobody_declared_or_assumed_was_asked_for(self):
        for flags, source in ((16, "declared"), (32, "assumed"), (0, "introspected")):
            made = issued(3, 2, flags=flags, expires_at=5)
            self.assertEqual(self.grant(intent(2), made)["expiry"], source)
        self.assertIsNone(self.grant(intent(2), issued(3, 2, flags=32))["expiry"])

    def test_the_refresh_token_before_is_kept_until_the_new_one_has_worked(self):
        first = [intent(2), issued(3, 2, refresh=tag("one"))]
        second = issued(4, 0, grant=2, generation=2, refresh=tag("two"))
        shown = self.grant(*first, second)
        self.assertEqual((shown["keeps_previous"], shown["worked"]), (True, False))
        for generation, expected in ((1, (True, False)), (2, (False, True))):
            worked = record("worked", 5, account=ALICE, grant=2, generation=generation)
            shown = self.grant(*first, second, worked)
            self.assertEqual((shown["keeps_previous"], shown["worked"]), expected)
        same = issued(4, 0, grant=2, generation=2, refresh=tag("one"))
        self.assertFalse(self.grant(*first, same)["keeps_previous"])
        none = [intent(2), issued(3, 2)]
        self.assertFalse(self.grant(*none, second)["keeps_previous"])
        third = issued(6, 0, grant=2, generation=3, refresh=tag("two"))
        shown = self.grant(*first, second, record("marker", 5, reason=1), third)
        self.assertEqual((shown["keeps_previous"], shown["worked"]), (True, False))

    def test_identified_moves_the_grant_and_merged_all_of_them(self):
        made = [intent(2, OTHER, flags=1), issued(3, 2, OTHER, flags=3)]
        refresh = intent(4, OTHER, action=2, grant=2, generation=1)
        exchange = intent(5, OTHER)
        identified = record("identified", 6, account=OTHER, grant=2, to=ALICE, app=tag("wrong"))
        accounts = self.fold(*made, refresh, exchange, identified, adopted(7, 2))
        self.assertEqual(list(accounts), [ALICE, OTHER])
        self.assertEqual(holders(accounts[ALICE]["grants"][0]), [HOLDER])
        self.assertEqual([o["op"] for o in accounts[ALICE]["in_doubt"]], [4])
        self.assertEqual([o["op"] for o in accounts[OTHER]["in_doubt"]], [5])
        self.assertEqual(accounts[ALICE]["app_tag"], APP)
        self.assertEqual(
            (accounts[ALICE]["provisional"], accounts[OTHER]["provisional"]), (False, True),
        )
        self.assertEqual((accounts[ALICE]["lsn"], accounts[OTHER]["lsn"]), (7, 6))
        merged = record("merged", 5, account=ALICE, to=BOB)
        accounts = self.fold(intent(2), issued(3, 2), intent(4), merged)
        self.assertEqual(list(accounts), [BOB])
        self.assertEqual(accounts[BOB]["in_doubt"][0]["op"], 4)
        self.assertEqual((accounts[BOB]["lsn"], accounts[BOB]["app_tag"]), (5, APP))

    def test_to_the_same_account_nothing_moves(self):
        merged = record("merged", 4, account=ALICE, to=ALICE)
        nowhere = record("merged", 4, account=ALICE, to=NONE)
        for move in (merged, nowhere):
            alice = self.fold(intent(2, flags=1), issued(3, 2), move)[ALICE]
            self.assertEqual((alice["lsn"], alice["provisional"]), (4, False))
            self.assertEqual(len(alice["grants"]), 1)

    def test_a_pair_of_an_older_generation_changes_no_grant(self):
        made = [intent(2), issued(3, 2, generation=5), adopted(4, 2)]
        for generation in (4, 5):
            late = issued(5, 0, grant=2, generation=generation, flags=8)
            self.assertEqual(self.states(*made, late), {2: (5, "held", [HOLDER])})
            self.assertEqual(self.grant(*made, late)["issued_lsn"], 3)

    def test_a_pair_may_come_to_another_account_than_its_intent(self):
        both = [intent(2, OTHER, flags=1), intent(3, OTHER)]
        accounts = self.fold(*both, issued(4, 2, **{"from": OTHER}))
        self.assertEqual((accounts[ALICE]["lsn"], accounts[OTHER]["lsn"]), (4, 4))
        self.assertEqual(accounts[ALICE]["in_doubt"], [])
        self.assertEqual([o["op"] for o in accounts[OTHER]["in_doubt"]], [3])

    def test_a_grant_is_known_by_a_pair_or_an_end(self):
        self.assertEqual(self.fold(adopted(2, 9), record("worked", 3, account=ALICE, grant=9)), {})
        self.assertEqual(
            self.states(adopted(2, 9), issued(3, 0, grant=9)), {9: (1, "held", [HOLDER])},
        )
        ended = record("ended", 2, account=ALICE, grant=9, cause=4, confidence=2)
        self.assertEqual(self.states(ended), {9: (0, "ended", [])})
        self.assertEqual(self.fold(ended, record("revived", 3, account=ALICE, grant=9)), {})

    def test_what_names_no_account_changes_none(self):
        claimed = record("claimed", 3, host=tag("host"))
        self.assertEqual(self.fold(intent(2), claimed)[ALICE]["lsn"], 2)
        self.assertEqual(self.fold(intent(2, NONE)), {})

    def test_forgotten_leaves_nothing_but_the_version(self):
        forgotten = record("forgotten", 4, account=ALICE)
        self.assertEqual(self.fold(intent(2), issued(3, 2), forgotten), {})
        again = self.fold(intent(2, flags=1), issued(3, 2), forgotten, intent(5))
        self.assertEqual((again[ALICE]["grants"], again[ALICE]["provisional"]), ([], False))

    def test_an_account_that_ceases_to_exist_is_blank_when_it_comes_back(self):
        merged = record("merged", 3, account=ALICE, to=BOB)
        refused = record("refused", 3, account=ALICE, op=2, **{"class": 1})
        elsewhere = issued(3, 2, BOB, **{"from": ALICE})
        released = record("released", 4, account=ALICE, grant=9, holder=HOLDER)
        for gone in (merged, refused, elsewhere):
            first = intent(2, flags=1)
            again = self.fold(first, gone, released, issued(5, 0, grant=9))[ALICE]
            self.assertFalse(again["provisional"])
            self.assertEqual(again["grants"][0]["state"], "released")

    def test_a_list_is_folded_by_itself_and_then_the_tail(self):
        tail = SegmentBuilder(3)
        moved = record("identified", 5, account=OTHER, grant=2, to=ALICE, app=APP)
        kept = [issued(3, 2, OTHER, flags=3), moved, adopted(7, 2), adopted(8, 99)]
        self.write_snapshot(20, tail, [(ALICE, 9, APP, kept)], keys=[KEY])
        tail.batch(
            tail.opened(21, SegmentBuilder(2), reason=2),
            issued(22, 0, grant=99, generation=1), intent(23, OTHER),
        )
        self.write(tail)
        accounts = self.accounts()
        self.assertEqual(
            {g["grant"]: g["state"] for g in accounts[ALICE]["grants"]}, {2: "held", 99: "waiting"},
        )
        self.assertFalse(accounts[ALICE]["provisional"])
        self.assertEqual((accounts[ALICE]["lsn"], accounts[OTHER]["grants"]), (22, []))
        self.assertEqual(self.accounts("--at", "21")[ALICE]["lsn"], 9)

    def test_at_stops_the_fold(self):
        self.write(self.first([intent(2), issued(3, 2), adopted(4, 2)]))
        self.assertEqual(self.accounts("--at", "3")[ALICE]["lsn"], 3)
        self.assertEqual(self.accounts("--at", "3")[ALICE]["grants"][0]["holders"], [])


class Hostile(Store):
    def test_no_damage_to_any_file_escapes_the_verdicts(self):
        dice = random.Random(1)
        tail = SegmentBuilder(3)
        tail.batch(tail.opened(21, SegmentBuilder(2), reason=2), intent(22), issued(23, 22))
        tail.batch(adopted(24, 22))
        files = {
            tail.write(self.directory): bytes(tail.data),
            self.write_snapshot(20, tail, [(BOB, 9, APP, [issued(9, 8, BOB)])]): None,
        }
        for path in files:
            with open(path, "rb") as file:
                files[path] = file.read()
        seen = set()
        for _ in range(1500):
            path = dice.choice(list(files))
            damaged = bytearray(files[path])
            span = min(len(damaged), 4 * BLOCK)
            for _ in range(dice.randint(1, 3)):
                damaged[dice.randrange(span)] = dice.randrange(256)
            if dice.random() < 0.1:
                del damaged[dice.randrange(len(damaged)):]
            with open(path, "wb") as file:
                file.write(damaged)
            try:
                seen.add(Journal(self.directory).verdict)
            except NewerVersion:
                seen.add("newer")
            with open(path, "wb") as file:
                file.write(files[path])
        self.assertLessEqual({"clean", "torn", "corrupt"}, seen)


if __name__ == "__main__":
    unittest.main()
