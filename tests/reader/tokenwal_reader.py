#!/usr/bin/env python3
"""Reads a tokenwal store without a key: an independent reader, from journal-format.md alone.

    tokenwal_reader.py DIR              the verdict and the accounts, for people
    tokenwal_reader.py DIR --json       one object a line for each account, in the order of tags
    tokenwal_reader.py DIR --records    one object a line for each record of the chain
    tokenwal_reader.py DIR --verify     one object: the verdict, the counts, the problem

--at LSN folds up to a record, and --live leaves out what a living writer has not proven durable.
Exit status: 0 sound, 4 sound with a torn tail, 3 corrupt or suspect, 1 failed, 2 usage. A bad
block of a snapshot, or an older snapshot that is bad, changes no status: --verify names it.
Standard library only; never writes.
"""

import argparse
import json
import sys

from fold import Fold
from journal import Journal, NewerVersion
from layout import NONE

STATUS = {"clean": 0, "torn": 4, "suspect": 3, "corrupt": 3}


def main(arguments=None):
    options = parse(arguments)
    try:
        journal = Journal(options.directory)
    except (OSError, NewerVersion) as error:
        reason = f"format version {error}" if isinstance(error, NewerVersion) else error
        print(f"tokenwal_reader: {reason}", file=sys.stderr)
        return 1
    if journal.problem:
        print(f"tokenwal_reader: {journal.problem}", file=sys.stderr)
    if options.verify:
        print(json.dumps(verification(journal)))
    elif options.records:
        for found in journal.records:
            print(json.dumps(found.as_json()))
    elif not journal.problem:
        show(journal, options)
        for why in journal.snapshot.bad_blocks if journal.snapshot else []:
            print(f"tokenwal_reader: {why}; its accounts are not shown", file=sys.stderr)
    return STATUS[journal.verdict]


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", metavar="DIR")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--json", action="store_true")
    what.add_argument("--records", action="store_true")
    what.add_argument("--verify", action="store_true")
    parser.add_argument("--at", type=int, metavar="LSN")
    parser.add_argument("--live", action="store_true")
    return parser.parse_args(arguments)


def show(journal, options):
    fold = folded(journal, options)
    accounts = fold.accounts()
    if options.json:
        for account in accounts:
            print(json.dumps(account_json(account, fold.claimed)))
        return
    proven = "" if journal.proven else ", last batch unproven"
    print(f"{journal.verdict}{proven}, last LSN {journal.last_lsn}")
    for account in accounts:
        print(f"account {account.tag}, version {account.version}")
        for grant in account.known_grants():
            holders = ", ".join(grant.holders) or "nobody"
            print(f"  grant {grant.id}, generation {grant.generation}, {grant.state()}: {holders}")
        for operation in account.operations.values():
            doubt = operation.doubt or "no outcome"
            print(f"  {operation.action} {operation.op} in doubt: {doubt}")


def folded(journal, options):
    snapshot = journal.snapshot
    fold = Fold(snapshot.lost, snapshot.header["claimed"]) if snapshot else Fold()
    limit = journal.live_through if options.live else journal.last_lsn
    if options.at is not None:
        limit = min(limit, options.at)
    if journal.snapshot:
        if limit < journal.snapshot.header["lsn"]:
            sys.exit("tokenwal_reader: the snapshot goes beyond that LSN")
        for header, records in journal.snapshot.accounts:
            fold.load(header, records)
    for found in journal.records:
        if found.lsn <= limit:
            fold.apply(found)
    return fold


def account_json(account, claimed):
    """Says of an account what `tokenwal replay --json` says without a key, names left out."""
    return {
        "account_tag": account.tag,
        "app_tag": account.app,
        "provisional": account.provisional,
        "lsn": account.version,
        "grants": [grant_json(grant, claimed) for grant in account.known_grants()],
        "in_doubt": [
            {
                "op": operation.op,
                "account_tag": account.tag,
                "action": word(operation.action),
                "grant": operation.grant,
                "generation": operation.generation,
                "presented": operation.presented,
                "beside": operation.beside,
                "doubt": word(operation.doubt) or None,
                "since_ms": operation.since,
                "deadline_ms": operation.deadline,
            }
            for _, operation in sorted(account.operations.items())
        ],
    }


def grant_json(grant, claimed):
    shown = {
        "grant": grant.id,
        "generation": grant.generation,
        "state": grant.state(),
        "holders": [
            {"holder_tag": holder, "since_ms": since.at, "lsn": since.lsn}
            for holder, since in grant.holders.items()
        ],
        "issued_lsn": grant.issued,
        "issued_at_ms": grant.issued_at,
        "expires_at_ms": grant.expires_at,
        "expiry": expiry(grant.expires_at, grant.flags),
        "lapses_at_ms": grant.lapses_at(),
        "only_assumed": grant.only_assumed(),
        "beside": [
            {
                "issued_at_ms": found["issued_at"],
                "expires_at_ms": found["expires_at"],
                "expiry": expiry(found["expires_at"], found.flags),
                "lsn": found.lsn,
            }
            for found in grant.beside
        ],
        "adopt_by_ms": grant.adopt_by,
        "has_refresh_token": "refresh_token" in grant.flags,
        "refresh_fingerprint": grant.refresh,
        "worked": bool(grant.worked),
        "paused": grant.paused(),
        "imported": "imported" in grant.flags,
        "fenced": "orphan" in grant.flags,
        "stale": grant.stale(claimed),
        "keeps_previous": bool(grant.previous),
    }
    if grant.named != NONE:
        shown["issued_for"] = {"holder_tag": grant.named}
    if grant.refusal:
        shown["refusal"] = {
            "class": word(grant.refusal["class"]),
            "status": grant.refusal["status"],
            "retry_after_s": grant.refusal["retry_after"],
            "at_ms": grant.refusal.at,
            "lsn": grant.refusal.lsn,
        }
    if grant.end:
        shown["end"] = {
            "cause": word(grant.end.cause),
            "confidence": word(grant.end.confidence),
            "at_ms": grant.end.at,
            "lsn": grant.end.lsn,
        }
    return shown


def expiry(expires_at, flags):
    """Says how the time of expiry is known; with neither flag it was asked for."""
    if not expires_at:
        return None
    for flag, source in (("expiry_declared", "declared"), ("expiry_assumed", "assumed")):
        if flag in flags:
            return source
    return "introspected"


def kept_lists(snapshot):
    """Says where a snapshot does not keep the shortest list, or misses what is open ([F-64])."""
    promises, fold, named = [], Fold(), {}
    for header, records in snapshot.accounts if snapshot else []:
        account = fold.load(header, records)
        if [found.lsn for found in records] != account.records():
            promises.append(f"account {account.tag} has another list than folds to it")
        orphans = sum(g.live() and not g.holders for g in account.grants.values())
        if account.operations or orphans:
            named[account.tag] = (len(account.operations), orphans)
    found = {item["account"]: item for item in snapshot.open} if snapshot else {}
    if not (snapshot and snapshot.bad_blocks):
        if named != {t: (i["operations"], i["orphans"]) for t, i in found.items()}:
            promises.append("the open section is not that of the accounts")
    return promises


def word(name):
    """Writes a word of the document as one token."""
    return name.replace(" ", "_")


def verification(journal):
    snapshot = journal.snapshot
    return {
        "verdict": journal.verdict,
        "last_lsn": journal.last_lsn,
        "last_batch_proven": journal.proven,
        "segments": len(journal.chain),
        "batches": journal.batches,
        "frames": len(journal.records),
        "snapshot_lsn": snapshot.header["lsn"] if snapshot else 0,
        "bad_snapshots": journal.bad_snapshots,
        "broken_promises": journal.broken_promises() + kept_lists(snapshot),
        "foreign_files": journal.foreign,
        "problem": str(journal.problem) if journal.problem else None,
    }


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
