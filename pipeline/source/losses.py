"""What of the inputs didn't become records: told in lines, and held against the limit."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.source import kinds
from schemas.dataset import Card, MemberInput
from schemas.errors import UserError
from schemas.manifest import BLANK, LARGER_THAN_IMAGE, LOST_REASONS

_SHOWN = 8
_ADVICE = {
    LARGER_THAN_IMAGE: "name a larger --image_size, or leave --resize at fit",
    BLANK: "look at the archive, whose pictures hold no ink",
}
"""Reasons for which no archive is to blame -> what to do."""


def check_rejects(card: Card, max_reject_fraction: float) -> None:
    """Raises UserError if a split lost more of its records or of its bytes than that, or kept none."""
    for name, split in card.splits.items():
        counts = split.counts
        own = [entry for entry in card.inputs if entry.split == name]
        others = [entry for entry in own if entry.what]
        rejected = sum(counts.rejected.values())
        lost, size = sum(entry.lost_bytes or 0 for entry in own), sum(entry.bytes for entry in own)
        commonest = max(counts.rejected, key=lambda reason: counts.rejected[reason], default="")
        allow = f"{_ADVICE.get(commonest, 'replace damaged archives')}, or allow more with --max_reject_fraction"
        if others:
            allow = _instead(others) + (", or allow it with --max_reject_fraction" if counts.kept else "")
        if rejected > max_reject_fraction * counts.read:
            reasons = ", ".join(f"{reason} {n:,}" for reason, n in counts.rejected.items())
            entry = max(own, key=lambda one: sum(one.counts.rejected.values()))
            raise UserError(
                f"{name}: expected at most {max_reject_fraction:.2%} of the records rejected, found {rejected:,} of "
                f"{counts.read:,} ({reasons}), most of them in {_placed(entry)}; {allow}"
            )
        if lost > max_reject_fraction * size:
            raise UserError(
                f"{name}: expected at most {max_reject_fraction:.2%} of the bytes in no sound record, found {lost:,} "
                f"of {size:,}: {_listed([_lost(entry) for entry in _worst(own)])}; {allow}"
            )
        if not counts.kept:
            reasons = ", ".join(f"{n:,} {reason}" for reason, n in {**counts.dropped, **counts.rejected}.items())
            advice = _instead(others) if others else "check the input and --classes"
            if not counts.read:
                advice = f"empty, 0 bytes: {_listed([entry.member for entry in own if not entry.bytes])}"
                advice += "; download them again"
            raise UserError(
                f"{name}: expected records to keep, found none among {counts.read:,}"
                f"{f' ({reasons})' if reasons else ''}; {advice}"
            )


def loss_lines(card: Card) -> list[str]:
    """A line for each way in which members gave less than they might have."""
    lines = []
    empty = [entry for entry in card.inputs if not entry.bytes]
    if empty:
        lines.append(f"empty members, 0 bytes: {_listed([_named(entry) for entry in empty])}; download them again")
    without = [entry for entry in card.inputs if entry.bytes and not entry.counts.kept]
    if without:
        lines.append(f"members without a kept record: {_listed([_why(entry) for entry in without])}")
    lost = _worst(card.inputs)
    if lost:
        total, size = sum(entry.lost_bytes or 0 for entry in lost), sum(entry.bytes for entry in card.inputs)
        worst = _listed([_lost(entry) for entry in lost])
        lines.append(f"bytes in no sound record: {total:,} of {size:,} ({total / size:.2%}), in {worst}")
    return lines


def passed_over_lines(card: Card) -> list[str]:
    """What the inputs held beside GNT: how many of each kind, and the names of what might have been meant."""
    passed = card.passed_over
    if passed is None:
        return ["not recorded before format 1.2.0"]
    if not passed.count:
        return ["nothing"]
    counted = ", ".join(f"{n:,} × {what}" for what, n in passed.kinds.items())
    return [
        f"{passed.count:,}: {counted}",
        *(f"{one.name} of {one.location}: {one.what}" for one in passed.files[:_SHOWN]),
    ]


def _worst(inputs: Sequence[MemberInput]) -> list[MemberInput]:
    """Those that lost bytes, most of them first."""
    return sorted((entry for entry in inputs if entry.lost_bytes), key=lambda entry: -(entry.lost_bytes or 0))


def _placed(entry: MemberInput) -> str:
    """With the archive that holds it, if it isn't one by itself."""
    return entry.member if entry.archive == entry.member else f"{entry.member} of {entry.location}"


def _named(entry: MemberInput) -> str:
    return f"{entry.member} ({entry.split})"


def _why(entry: MemberInput) -> str:
    counts = entry.counts
    reasons = ", ".join(f"{n:,} {reason}" for reason, n in {**counts.dropped, **counts.rejected}.items())
    return f"{entry.member} ({entry.split}: {entry.what or reasons})"


def _lost(entry: MemberInput) -> str:
    reasons = ", ".join(reason for reason in entry.counts.rejected if reason in LOST_REASONS)
    return f"{entry.member} ({entry.lost_bytes:,} of {entry.bytes:,}, {entry.what or reasons})"


def _instead(others: Sequence[MemberInput]) -> str:
    """What members are that hold no record, and what to do with the first one's kind."""
    what = str(others[0].what)
    named = _listed([f"{entry.member} is {entry.what}" for entry in others])
    return f"{named}; {kinds.ADVICE.get(what, 'leave it out')}"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
