"""The fold: what records add up to (journal-format.md, section 7.19).

Pure: no clock, no files. An account is what one user of one app holds; a record concerns the
account that it names, and a few kinds another beside it.
"""

from dataclasses import dataclass, field

from layout import NONE

BESIDES_MAX = 8
UNKNOWN = (1 << 64) - 1


@dataclass
class Grant:
    """One approval at the provider; records are named by their LSNs, and 0 is none."""

    id: int
    generation: int = 0
    flags: frozenset = frozenset()
    named: str = NONE  # the holder that the newest pair's record names
    refresh: str = NONE
    issued_at: int = 0
    expires_at: int = 0
    adopt_by: int = 0
    earlier_lapse_at: int = 0
    issued: int = 0  # the newest pair
    previous: int = 0  # the pair with the refresh token before it, until the newest has worked
    worked: int = 0
    activated: int = 0  # the record that says that the newest pair is paused no longer
    told: int = 0  # the record that last said when the newest pair's token expires
    beside: list = field(default_factory=list)  # the records of the tokens beside the chain
    refusal: "Record | None" = None  # the last, if it is newer than the newest pair
    holders: dict = field(default_factory=dict)  # holder -> the record that says so
    gone: dict = field(default_factory=dict)  # likewise, of those who have let go
    end: "End | None" = None

    def known(self):
        return bool(self.issued or self.end)

    def live(self):
        return bool(self.issued and not self.end)

    def state(self):
        """Names the state of a grant ([F-63])."""
        if self.end:
            return "ended"
        if self.holders:
            return "held"
        return "released" if self.gone else "waiting"

    def records(self):
        """Names the records that a snapshot keeps of it ([F-64])."""
        end = [self.end.lsn] if self.end else []
        refusal = [self.refusal.lsn] if self.refusal else []
        held = [found.lsn for found in (*self.holders.values(), *self.gone.values())]
        beside = [found.lsn for found in self.beside]
        pair = [self.issued, self.previous, self.worked, self.activated, self.told]
        return [*pair, *beside, *end, *refusal, *held]

    def tokens(self):
        """Says of the newest pair and of each token beside it what tells of its end ([F-71])."""
        if not self.issued:
            return []
        beside = [(b["earlier_lapse_at"], b["expires_at"], b.flags) for b in self.beside]
        return [(self.earlier_lapse_at, self.expires_at, self.flags), *beside]

    def lapses_at(self):
        """Says when all of its access tokens have lapsed, or None ([F-71])."""
        times = []
        for earlier, expires_at, flags in self.tokens():
            if UNKNOWN in (earlier, expires_at) or not expires_at or is_assumed(flags):
                return None
            times += [earlier, expires_at]
        return max(times, default=None)

    def only_assumed(self):
        """Says whether all that is known of their ends is assumed ([F-71])."""
        return bool(self.issued) and all(
            0 < expires_at < UNKNOWN and is_assumed(flags)
            and (earlier == 0 or earlier == UNKNOWN and "earlier_assumed" in flags)
            for earlier, expires_at, flags in self.tokens()
        )

    def paused(self):
        """Says whether it is to be activated first ([F-69])."""
        return "paused" in self.flags and not self.activated

    def stale(self, claimed):
        """Says whether the store was taken over since it last proved itself ([F-70])."""
        return claimed > max(self.issued, self.worked)


def is_assumed(flags):
    return "expiry_assumed" in flags and "expiry_declared" not in flags


@dataclass
class End:
    lsn: int
    at: int
    cause: str
    confidence: str


@dataclass
class Operation:
    op: int
    action: str
    grant: int
    generation: int
    holder: str
    presented: str
    since: int
    deadline: int
    beside: bool = False  # a token beside the grant's chain is asked for
    doubt: str = ""  # why it is in doubt; empty while there is no word of it
    doubted: int = 0  # the record that says so


@dataclass
class Account:
    tag: str
    app: str = NONE
    version: int = 0
    provisional: bool = False
    grants: dict = field(default_factory=dict)
    operations: dict = field(default_factory=dict)
    moved: int = 0  # the last Identified or Merged into this account

    def exists(self):
        return bool(self.operations) or any(grant.known() for grant in self.grants.values())

    def known_grants(self):
        return [self.grants[grant] for grant in sorted(self.grants) if self.grants[grant].known()]

    def records(self):
        """Names the list that a snapshot keeps of the account, in order ([F-64])."""
        lsns = {self.moved}
        for grant in self.known_grants():
            lsns.update(grant.records())
        for operation in self.operations.values():
            lsns.update((operation.op, operation.doubted))
        return sorted(lsns - {0})

    def apply(self, found):
        """Applies a record of this account, or of a list that counts as this account's."""
        existed = self.exists()
        change = getattr(self, "_" + found.kind, None)
        if change:
            change(found)
        self._vanish(existed)

    def _vanish(self, existed):
        """Forgets all but the version of an account that ceases to exist ([F-52])."""
        if existed and not self.exists():
            self.__init__(self.tag, version=self.version)

    # One method a kind. Claimed has none: it changes no account.

    def _intent(self, found):
        self.app = found["app"]
        self.provisional |= "provisional" in found.flags
        self.operations[found.lsn] = Operation(
            found.lsn, found["action"], found["grant"], found["generation"], found["holder"],
            found["presented"], found.at, found["deadline"], "beside" in found.flags,
        )

    def _issued(self, found):
        self._close(found)
        self._take(found, found.flags)

    def _imported(self, found):
        held = set() if found["holder"] == NONE else {"held"}
        self._take(found, found.flags | held | {"imported"})

    def _take(self, found, flags):
        """Takes a pair, if it is newer than the one that is known ([F-57])."""
        self.app = found["app"]
        self.provisional |= "provisional" in found.flags
        grant = self._grant(found["grant"] or found.lsn)
        if "beside" in flags:
            kept = [each for each in grant.beside if each["first"] != found["first"]]
            grant.beside = [*kept, found][-BESIDES_MAX:]
            return
        if found["generation"] <= grant.generation:
            return
        if grant.issued and grant.refresh not in (NONE, found["refresh"]):
            grant.previous = grant.issued
        grant.generation = found["generation"]
        grant.flags = frozenset(flags)
        grant.named = found["holder"]
        grant.refresh = found["refresh"]
        grant.issued_at = found["issued_at"]
        grant.expires_at = found["expires_at"]
        grant.adopt_by = found["adopt_by"]
        grant.earlier_lapse_at = found["earlier_lapse_at"]
        before, grant.issued = grant.issued, found.lsn
        grant.worked = grant.activated = grant.told = 0
        grant.refusal = None
        for holder in [h for h, since in grant.holders.items() if since.lsn == before]:
            del grant.holders[holder]
        if "held" in flags:
            self._hold(grant.id, found)

    def _refused(self, found):
        self._close(found)
        over = found["grant"] in self.grants and self.grants[found["grant"]].end
        if found["class"] == "dead" and not over:
            self._end(found, "unknown", "probable")
        if found["grant"] in self.grants:
            self.grants[found["grant"]].refusal = found

    def _not_sent(self, found):
        self._close(found)

    def _resolved(self, found):
        self._close(found)

    def _in_doubt(self, found):
        operation = self.operations.get(found["op"])
        if operation:
            operation.doubt = found["reason"]
            operation.doubted = found.lsn

    def _identified(self, found):
        self.provisional = False
        self.moved = found.lsn

    def _merged(self, found):
        self._identified(found)

    def _adopted(self, found):
        self._hold(found["grant"], found)

    def _released(self, found):
        self._let_go(found["grant"], found)

    def _superseded(self, found):
        if found["to"] != found["grant"]:
            self._let_go(found["grant"], found)
        self._hold(found["to"], found)

    def _ended(self, found):
        self._close(found)
        self._end(found, found["cause"], found["confidence"])

    def _revived(self, found):
        grant = self._grant(found["grant"])
        grant.end = None
        if grant.refusal and grant.refusal["class"] == "dead":
            grant.refusal = None

    def _forgotten(self, found):
        self.__init__(self.tag, version=self.version)

    def _worked(self, found):
        grant = self._grant(found["grant"])
        if found["generation"] == grant.generation:
            grant.worked = found.lsn
            grant.previous = 0

    def _activated(self, found):
        grant = self.grants.get(found["grant"])
        if grant and "paused" in grant.flags:
            grant.activated = found.lsn

    def _told(self, found):
        grant = self.grants.get(found["grant"])
        if grant and grant.issued and grant.generation == found["generation"]:
            grant.told = found.lsn
            grant.expires_at = found["expires_at"]
            grant.flags -= {"expiry_declared", "expiry_assumed"}

    def _grant(self, grant):
        return self.grants.setdefault(grant, Grant(grant))

    def _hold(self, grant, found):
        grant = self._grant(grant)
        grant.gone.pop(found["holder"], None)
        grant.holders.pop(found["holder"], None)
        grant.holders[found["holder"]] = found

    def _let_go(self, grant, found):
        grant = self._grant(grant)
        grant.holders.pop(found["holder"], None)
        grant.gone[found["holder"]] = found

    def _end(self, found, cause, confidence):
        if found["grant"]:
            self._grant(found["grant"]).end = End(found.lsn, found.at, cause, confidence)

    def _close(self, found):
        self.operations.pop(found["op"], None)

    def close_elsewhere(self, found):
        """Closes an operation whose pair stands under another account ([F-55])."""
        existed = self.exists()
        self._close(found)
        self._vanish(existed)

    def give(self, found):
        """Gives up what a record moves: the app, the grants, and the operations on them ([F-61])."""
        existed, every = self.exists(), found.kind == "merged"
        grants = [g for g in self.grants if every or g == found["grant"]]
        operations = [o for o in self.operations.values() if every or o.grant == found["grant"]]
        given = (
            self.app,
            {grant: self.grants.pop(grant) for grant in grants},
            {each.op: self.operations.pop(each.op) for each in operations},
        )
        self._vanish(existed)
        return given


class Fold:
    """The accounts after the records that were applied so far.

    `lost` are ranges of tags whose accounts stood in bad blocks of the snapshot ([F-41]): these are
    not shown, nor is what something moved to or from them. `claimed` is the last Claimed.
    """

    def __init__(self, lost=(), claimed=0):
        self.claimed = claimed
        self._accounts = {}
        self._lost = list(lost)

    def accounts(self):
        """Returns the accounts that exist, in the order of their tags ([F-52])."""
        shown = (self._accounts[t] for t in sorted(self._accounts) if not self._is_lost(t))
        return [account for account in shown if account.exists()]

    def load(self, header, records):
        """Takes in an account of a snapshot: its list is folded by itself ([F-65])."""
        account = Account(header["account"])
        for found in records:
            account.apply(found)
        account.grants = {grant.id: grant for grant in account.known_grants()}
        account.version = header["version"]
        account.app = header["app"]
        self._accounts[account.tag] = account
        return account

    def apply(self, found):
        """Applies one record of the chain to the accounts that it concerns ([F-53])."""
        if found.kind == "claimed":
            self.claimed = found.lsn
        tag = found.clear.get("account", NONE)
        if tag == NONE:
            return
        account = self._account(tag)
        account.version = found.lsn
        other = found.clear.get("from" if found.kind == "issued" else "to", NONE)
        moves = found.kind in ("identified", "merged")
        if found.kind not in ("issued", "identified", "merged") or other in (NONE, tag):
            account.apply(found)
            return
        other = self._account(other)
        other.version = found.lsn
        if moves:
            if self._is_lost(tag) or self._is_lost(other.tag):
                self._lost.extend(((tag, tag), (other.tag, other.tag)))
            app, grants, operations = account.give(found)
            other.grants.update(grants)
            other.operations.update(operations)
            if other.app == NONE:
                other.app = app
            other.apply(found)
        else:
            account.apply(found)
            other.close_elsewhere(found)

    def _account(self, tag):
        return self._accounts.setdefault(tag, Account(tag))

    def _is_lost(self, tag):
        return any(first <= tag <= last for first, last in self._lost)
