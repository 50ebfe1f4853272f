from __future__ import annotations

import hashlib
import pickle

import pytest

from schemas.classes import OUTSIDE, ClassList, ClassListError, character_of, default_classes, parse_classes, tag_of

GOLDEN_DIGEST = "0787abc67cf616ba759fb8cd1433993b9616a38e8a7530c14451256a11febeb4"


def level_1() -> list[str]:
    """GB2312 level 1 from the code table itself: rows B0 to D7, whose last row is five cells short."""
    codes = [bytes([row, cell]) for row in range(0xB0, 0xD8) for cell in range(0xA1, 0xFF)]
    return [code.decode("gb2312") for code in codes if code not in {bytes([0xD7, cell]) for cell in range(0xFA, 0xFF)}]


def test_default_is_level_1_without_the_variant_of_jian() -> None:
    expected = level_1()
    assert len(expected) == 3755
    expected.remove("硷")
    assert list(default_classes().characters) == expected


def test_labels_follow_code_order() -> None:
    labels = default_classes().labels_by_tag_code
    assert labels[0xB0A1] == 0  # 啊
    assert labels[0xD7F9] == 3753  # 座
    assert labels[int.from_bytes("硷".encode("gb2312"), "big")] == OUTSIDE
    assert labels[int.from_bytes("碱".encode("gb2312"), "big")] == default_classes().characters.index("碱")
    assert (labels != OUTSIDE).sum() == 3754


def test_a_list_that_is_unpickled_again_has_the_same_labels() -> None:
    pickled, other = pickle.dumps(default_classes()), ClassList(("座", "啊"))
    labels = pickle.loads(pickled).labels_by_tag_code
    assert other.labels_by_tag_code[0xB0A1] == 1
    assert pickle.loads(pickled).labels_by_tag_code.tolist() == labels.tolist()
    assert labels[0xB0A1] == 0


def test_digest_is_that_of_the_file() -> None:
    classes = default_classes()
    assert classes.digest == hashlib.sha256(classes.text.encode()).hexdigest() == GOLDEN_DIGEST
    assert parse_classes(classes.text) == classes


@pytest.mark.parametrize(
    ("tag", "character"),
    [
        (b"\xb0\xa1", "啊"),
        (b"A\0", "A"),
        (b"\xa1\xa4", "・"),  # gbk says ·
        (b"\xa1\xaa", "―"),  # gbk says —
        (b"\x8c\x6b", "宬"),  # gbk alone
        (b"\xff\xff", None),
        (b"\0\0", None),
        (b"\x1b\0", None),
        (b"A\xa1", None),
    ],
)
def test_character_of(tag: bytes, character: str | None) -> None:
    assert character_of(tag) == character


def test_both_readings_of_a_disputed_tag_name_the_same_class() -> None:
    assert tag_of("・") == tag_of("·") == b"\xa1\xa4"
    assert tag_of("―") == tag_of("—") == b"\xa1\xaa"
    with pytest.raises(ClassListError, match="line 2: '·' stands on line 1 already"):
        ClassList(("・", "·"))


def test_every_default_character_has_the_tag_it_is_decoded_from() -> None:
    assert all(character_of(tag_of(character)) == character for character in default_classes().characters)


def test_ten_digits_are_a_class_list() -> None:
    classes = parse_classes("\ufeff0\r\n1\r\n2\r\n")
    assert classes.characters == ("0", "1", "2")
    assert classes.labels_by_tag_code[ord("1") << 8] == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("啊\n阿\n啊\n", "line 3: '啊' stands on line 1 already"),
        ("啊\n\n阿\n", "line 2: expected one character, found an empty line"),
        ("啊\n阿埃\n", "line 2: expected one character .* found '阿埃'"),
        ("啊\n😀\n", "line 2: expected one character that GNT's two-byte tags can name"),
        ("", "the class list is empty"),
    ],
)
def test_what_is_no_class_list_is_refused(text: str, message: str) -> None:
    with pytest.raises(ClassListError, match=message):
        parse_classes(text)
