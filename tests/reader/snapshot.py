"""A snapshot: header, blocks, footer (journal-format.md, section 10)."""

import struct
import zlib

from layout import (
    ACCOUNT_HEADER, BLOCK_HEADER, INDEX_ITEM, NONE, OPEN_ITEM, RECORD_HEADER, SNAPSHOT_FOOTER,
    SNAPSHOT_HEADER, STRUCTURAL, WRAPPED_KEY, Malformed,
)
import record
from segment import check_version, header_crc

FIRST_BLOCK = 4096
FOOTER_MAGIC = 0x53544F46
PAYLOAD_BYTES_LIMIT = 268435456
ACCOUNTS, INDEX, KEYS, OPEN = 1, 2, 3, 4


class Snapshot:
    """A valid snapshot ([F-39]); raises Malformed else.

    `accounts` are (account header, records) of all accounts blocks that are valid; `bad_blocks`
    says what is wrong with the others, which fail nothing but the accounts in them ([F-41]).
    """

    def __init__(self, path, lsn):
        with open(path, "rb") as file:
            self.data = file.read()
        self.header = self._header(lsn)
        self.nonce = bytes.fromhex(self.header["nonce"])
        self.footer = footer = self._footer()
        self.index = self._section(INDEX, INDEX_ITEM, footer["index"], footer["keys"])
        self.keys = self._section(KEYS, WRAPPED_KEY, footer["keys"], footer["open"])
        self.open = self._section(OPEN, OPEN_ITEM, footer["open"], footer["end"])
        self._check_index()
        self.accounts = []
        self.bad_blocks = []
        self.lost = []  # first and last tag that may stand in each of them
        for at, item in enumerate(self.index):
            try:
                self.accounts.extend(self._accounts(item))
            except Malformed as error:
                self.bad_blocks.append(str(error))
                behind = self.index[at + 1:at + 2]
                # Below the next block's first tag: one less in the last digit is enough.
                last = f"{int(behind[0]['first'], 16) - 1:032x}" if behind else "f" * 32
                self.lost.append((item["first"], last))

    def _header(self, lsn):
        check_version(self.data, b"TWALSNAP")
        header = SNAPSHOT_HEADER.read(self.data)
        if header["crc"] != header_crc(self.data):
            raise Malformed("the header's checksum is wrong")
        if header["lsn"] != lsn or lsn == 0:
            raise Malformed("the header's LSN is not that of the name")
        if header["claimed"] > lsn:
            raise Malformed("the header names a Claimed behind its LSN")
        if NONE in (header["store"], header["nonce"], header["tail"]):
            raise Malformed("the header names no store, no nonce or no tail")
        if WRAPPED_KEY.read(header["tag_key"])["key_id"] != 0:
            raise Malformed("the header's tag key has an id")
        return header

    def _footer(self):
        at = len(self.data) - SNAPSHOT_FOOTER.size
        footer = SNAPSHOT_FOOTER.read(self.data, at)
        if footer["crc"] != zlib.crc32(self.nonce + self.data[at + 4:]):
            raise Malformed("the footer's checksum is wrong")
        found = (footer["magic"], footer["end"], footer["lsn"])
        if found != (FOOTER_MAGIC, at, self.header["lsn"]):
            raise Malformed("the footer contradicts the file")
        if not FIRST_BLOCK <= footer["index"] <= footer["keys"] <= footer["open"] <= at:
            raise Malformed("the footer's offsets are out of order")
        return footer

    def _block(self, kind, at, end):
        """Reads the block at an offset, which ends at `end` at the latest ([F-40])."""
        header = BLOCK_HEADER.read(self.data, at)
        start = at + BLOCK_HEADER.size
        stop = start + header["length"]
        if header["length"] > PAYLOAD_BYTES_LIMIT or stop > end:
            raise Malformed(f"the block at {at} is too long")
        checked = self.nonce + struct.pack("<Q", at) + self.data[at + 4:stop]
        if header["crc"] != zlib.crc32(checked):
            raise Malformed(f"the block at {at} has a wrong checksum")
        if header["kind"] != kind or header["count"] < 1:
            raise Malformed(f"the block at {at} is of kind {header['kind']}, not {kind}")
        return header, self.data[start:stop], stop

    def _section(self, kind, table, at, end):
        """Reads the items of consecutive blocks that fill the file from `at` to `end`."""
        items = []
        while at < end:
            header, payload, behind = self._block(kind, at, end)
            if len(payload) != header["count"] * table.size:
                raise Malformed(f"the items of the block at {at} do not fill it")
            found = [table.read(payload, i) for i in range(0, len(payload), table.size)]
            if header["first"] != (NONE if kind == KEYS else payload[:16].hex()):
                raise Malformed(f"the block at {at} does not begin with its first tag")
            items.extend(found)
            at = behind
        for name in {INDEX: ("first", "offset"), KEYS: ("key_id",), OPEN: ("account",)}[kind]:
            values = [item[name] for item in items]
            if values != sorted(set(values)):
                raise Malformed(f"the items of kind {kind} are out of order")
        return items

    def _check_index(self):
        """Checks that the index names all there is between header and index ([F-67])."""
        at = FIRST_BLOCK
        for item in self.index:
            if item["offset"] != at:
                raise Malformed(f"the index names no block at {at}")
            at += BLOCK_HEADER.size + item["length"]
        counted = sum(item["count"] for item in self.index)
        if (at, counted) != (self.footer["index"], self.footer["accounts"]):
            raise Malformed("the index is not that of the accounts")

    def _accounts(self, item):
        """Returns the accounts of one block, all of them or none."""
        header, payload, stop = self._block(ACCOUNTS, item["offset"], self.footer["index"])
        named = {"first": item["first"], "length": item["length"], "count": item["count"]}
        if {name: header[name] for name in named} != named:
            raise Malformed(f"the block at {item['offset']} is not the one that the index names")
        accounts, at, last = [], 0, ""
        for _ in range(header["count"]):
            account = ACCOUNT_HEADER.read(payload, at)
            if account["account"] <= last or not last and account["account"] != header["first"]:
                raise Malformed(f"the accounts of the block at {item['offset']} are out of order")
            last = account["account"]
            start = at + ACCOUNT_HEADER.size
            at = start + account["length"]
            if at > len(payload):
                raise Malformed(f"an account in the block at {item['offset']} is cut off")
            accounts.append((account, self._records(account, payload[start:at])))
        if at != len(payload):
            raise Malformed(f"the accounts of the block at {item['offset']} do not fill it")
        return accounts

    def _records(self, account, data):
        records = []
        at = last = 0
        while at < len(data):
            length = RECORD_HEADER.read(data, at)["length"]
            if length < RECORD_HEADER.size or at + length > len(data):
                raise Malformed(f"a record of account {account['account']} is cut off")
            found = record.decode(data[at:at + length])
            if found.kind in STRUCTURAL:
                raise Malformed(f"account {account['account']} has a structural record")
            if not last < found.lsn <= self.header["lsn"]:
                raise Malformed(f"LSN {found.lsn} of account {account['account']} is out of order")
            last = found.lsn
            records.append(found)
            at += length
        if len(records) != account["records"]:
            raise Malformed(f"account {account['account']} has {len(records)} records")
        return records

    def broken_promises(self):
        """Says what a writer has not kept to, although the snapshot is valid."""
        promises = []
        tags = [header["account"] for header, _ in self.accounts]
        if tags != sorted(set(tags)):
            promises.append("the accounts are out of order from block to block")
        records = [found for _, records in self.accounts for found in records]
        if not self.bad_blocks and len(records) != self.footer["records"]:
            promises.append("the footer's records are not those of the accounts")
        if {found.key for found in records} - {key["key_id"] for key in self.keys}:
            promises.append("a record names a key that the snapshot does not carry")
        return promises
