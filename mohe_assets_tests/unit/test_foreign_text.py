"""Text that others wrote is cleaned where it comes in, and is literal text wherever Markdown is
shown.
"""

import datetime as dt
import json
import logging
import unicodedata

import pytest

from mohe_assets import logs
from mohe_assets.clients.response_body import MAX_QUOTED, quoted
from mohe_assets.domain.regions import MAX_NAME, build_region_list
from mohe_assets.errors import AnswerChanged, TransientApiError
from mohe_assets.sources.naver_local.responses import find_fault
from mohe_assets.text.cleaning import ascii_digits, markdown, one_line
from mohe_assets_tests.support.markdown_page import HOSTILE, Page

TODAY = dt.date(2026, 11, 25)
ANSI = "\x1b[31mred\x1b[0m"
LINK = "\x1b]8;;http://evil.example\x07click\x1b]8;;\x07"
BIDI = "abc\u202edef\u2066ghi"


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        (ANSI, "[31mred[0m"),
        (LINK, "]8;;http://evil.exampleclick]8;;"),
        (BIDI, "abcdefghi"),
        ("a\x7fb\x00c\x9bd", "abcd"),
        ("\ufeff가\u200b나\u00ad다", "가나다"),
        ("가\t나\r\n다\u3000라\x85마", "가 나 다 라 마"),
        ("a \u200b b", "a b"),
        ("a\ud800b", "ab"),
        ("👨\u200d👩\u200d👧", "👨👩👧"),
        ("카페 ☕ 100% '맛'", "카페 ☕ 100% '맛'"),
        ("", ""),
        ("\u202e", ""),
    ],
)
def test_control_and_format_characters_go_and_white_space_becomes_one_space(
    text: str, clean: str
) -> None:
    assert one_line(text) == clean


def test_no_control_format_or_surrogate_character_of_unicode_is_left() -> None:
    every = "".join(map(chr, range(0x110000)))
    kept = {unicodedata.category(letter) for letter in one_line(every)}
    assert kept.isdisjoint({"Cc", "Cf", "Cs"})
    assert {"Lo", "So", "Co", "Mn"} <= kept


def test_only_fullwidth_digits_become_ascii_digits() -> None:
    assert ascii_digits("０１２３４５６７８９ ＡＢ ٣ ②") == "0123456789 ＡＢ ٣ ②"


@pytest.mark.parametrize("control", [ANSI, LINK, BIDI, "x\x7f"])
def test_what_a_server_says_is_quoted_without_control_characters(control: str) -> None:
    assert quoted(control).isprintable()
    assert str(TransientApiError(f"naver: code {control}", api="naver")).isprintable()
    fault = find_fault({"errorCode": control, "errorMessage": control}, 400)
    assert fault is not None
    assert fault.code.isprintable()
    assert fault.message.isprintable()


@pytest.mark.parametrize("log_format", ["text", "json"])
@pytest.mark.parametrize("control", [ANSI, LINK, BIDI, "x\x7f", "x\x9b2J", "x\ud800", "x\ry"])
def test_no_log_line_has_a_control_character_wherever_it_comes_from(
    log_format: str, control: str
) -> None:
    try:
        raise ValueError(control)  # noqa: TRY301 - an error with a traceback is wanted
    except ValueError as error:
        record = logging.LogRecord(
            "library", logging.ERROR, __file__, 1, "of %s\n\tnext", (control,),
            (type(error), error, error.__traceback__),
        )  # fmt: skip
    with logs.about(region_name=control):
        line = logs.formatter(log_format).format(record)
    assert one_line(line) == " ".join(line.split()), "only lines and tabs are left to be folded"
    assert line.encode()
    if log_format == "json":
        found = json.loads(line)
        # JSON escapes some; they are data to its reader.
        assert one_line(found["message"]) == f"of {one_line(control)} next"
        assert one_line(found["region_name"]) == one_line(control)
    else:
        assert line.splitlines()[1].startswith("\tnext [region_name=")
        assert "Traceback (most recent call last):\n" in line


def test_a_quotation_is_short_whatever_is_quoted() -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    for said in ("x" * 5_000_000, "\u200b" * 5_000_000, deep, {"a": "b" * 1_000_000}):
        assert len(quoted(said)) <= MAX_QUOTED + 1
    fault = find_fault({"errorCode": deep, "errorMessage": "x" * 1_000_000}, 400)
    assert fault is not None
    assert len(fault.code) + len(fault.message) <= 2 * (MAX_QUOTED + 1)


class TestRegionNames:
    ROWS = (("1100000000", "서울특별시"), ("1111000000", "서울특별시 종로구"))

    @pytest.mark.parametrize("control", ["\x1b", "\u202e", "\x7f", "\u200b"])
    def test_control_characters_are_removed_from_every_name(self, control: str) -> None:
        rows = [
            (code, control + name + control)
            for code, name in (*self.ROWS, ("1111010100", "서울특별시 종로구 청운동"))
        ]
        listed = build_region_list(rows, as_of=TODAY, source="api")
        assert [region.region_name for region in listed.regions] == ["서울특별시 종로구"]
        assert [dong.dong_name for dong in listed.dongs] == ["청운동"]

    @pytest.mark.parametrize(
        ("code", "name"),
        [
            ("1111010100", "\u200b\x7f"),
            ("1111010100", "x" * (MAX_NAME + 1)),
            ("１１１１０１０１００", "x"),
        ],
    )
    def test_a_row_that_names_nothing_or_too_much_is_refused(self, code: str, name: str) -> None:
        with pytest.raises(
            AnswerChanged, match="a code has ten digits, a name 1 to 100 characters"
        ) as refused:
            build_region_list([*self.ROWS, (code, name)], as_of=TODAY, source="api")
        assert len(str(refused.value)) < 1_000


class TestMarkdown:
    @pytest.mark.parametrize(
        "plain",
        [
            "서울특별시 강남구",
            "11680 서울특별시 강남구",
            "카페, 디저트",
            "경기도 수원시 장안구",
            "",
        ],
    )
    def test_plain_words_stay_as_they_are(self, plain: str) -> None:
        assert markdown(plain) == plain

    @pytest.mark.parametrize("text", HOSTILE)
    def test_everything_else_is_shown_literally(self, text: str) -> None:
        page = Page.of(f"{markdown(text)}\n")
        page.has_nothing_active()
        assert page.text == " ".join(text.split())

    @pytest.mark.parametrize("text", HOSTILE)
    def test_a_cell_stays_one_cell(self, text: str) -> None:
        page = Page.of(
            f"| a | b |\n|---|---|\n| {markdown(text)} | x |\n| y | {markdown(text)} |\n"
        )
        page.has_nothing_active()
        assert page.rows == [
            ["a", "b"],
            [" ".join(text.split()), "x"],
            ["y", " ".join(text.split())],
        ]
