"""`mohe retry`, `new-round`, `release`, `unblock`: their effect and their output."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mohe_assets.cli.recovery import complete_region
from mohe_assets.domain.attribution import regions_named
from mohe_assets.domain.regions import bundled_snapshot
from mohe_assets.errors import LeaseLost
from mohe_assets.store.database import Database
from mohe_assets_tests.support.commands import Mohe
from mohe_assets_tests.support.stores import CODES, Store

GANGNAM = "서울특별시 강남구"


class TestRetry:
    @pytest.mark.parametrize(
        "word",
        [
            "11680",
            "11680_서울특별시_강남구",
            GANGNAM,
            "서울특별시_강남구",
            "강남구",
            "서울 강남구",
            "서울시 강남구",
            "서울_강남구",
        ],
    )
    def test_a_failed_region_is_named_by_code_key_or_name(
        self, mohe: Mohe, store: Store, word: str
    ) -> None:
        for code in ("11680", "11110"):
            store.fail(store.claim(code), final=True)
        assert mohe("retry", word).out == f"1 region is PENDING again: 11680 {GANGNAM}.\n"
        assert (store.row("11680")["status"], store.row("11110")["status"]) == ("PENDING", "FAILED")

    def test_without_a_name_all_failed_regions_are_tried_again(
        self, mohe: Mohe, store: Store
    ) -> None:
        for code in ("11680", "11110"):
            store.fail(store.claim(code), final=True)
        assert (
            mohe("retry").out
            == f"2 regions are PENDING again: 11110 서울특별시 종로구, 11680 {GANGNAM}.\n"
        )
        assert {row["status"] for row in store.read("SELECT status FROM batch_checkpoint")} == {
            "PENDING"
        }

    def test_a_region_that_did_not_fail_is_left_alone_and_that_is_said(
        self, mohe: Mohe, store: Store
    ) -> None:
        store.complete(store.claim("11680"))
        assert mohe("retry", "11680").out == (
            "0 regions are PENDING again.\nSkipped (not FAILED): 11680 (COMPLETED).\n"
        )  # fmt: skip
        assert store.row("11680")["status"] == "COMPLETED"

    @pytest.mark.parametrize("command", ["retry", "new-round", "release"])
    @pytest.mark.parametrize("word", ["강남", "99999", "부산 강남구", "강남구 서울", ""])
    def test_an_unknown_name_is_a_sentence_and_changes_nothing(
        self, mohe: Mohe, store: Store, command: str, word: str
    ) -> None:
        store.fail(store.claim("11680"), final=True)
        before = store.everything()
        done = mohe(command, "11680", word)
        assert done.status == 1
        assert done.err == (
            f"mohe: There is no region {word!r}; give a code such as 11680, "
            "a partition key or a name such as 강남구.\n"
        )
        assert store.everything() == before

    @pytest.mark.parametrize("command", ["retry", "new-round", "release"])
    def test_a_name_of_several_regions_lists_them_and_changes_nothing(
        self, mohe: Mohe, database: Database, command: str
    ) -> None:
        store = Store.of(database, [region.region_code for region in bundled_snapshot().leaves])
        before = store.everything()
        done = mohe(command, "11680", "중구")
        assert done.status == 1
        assert done.err.startswith(
            "mohe: '중구' may mean 5 regions: 11140 서울특별시 중구, 26110 부산광역시 중구, "
        )
        assert done.err.endswith(". Give one of these codes or names.\n")
        assert store.everything() == before

    def test_unblocking_says_whether_there_was_anything_to_unblock(
        self, mohe: Mohe, store: Store
    ) -> None:
        del store
        assert mohe("unblock").out == "naver-classic was not blocked.\n"


class TestNewRound:
    def test_every_completed_region_begins_anew_and_the_calls_are_named(
        self, mohe: Mohe, store: Store
    ) -> None:
        for code in ("11680", "11110"):
            store.complete(store.claim(code))
        done = mohe("new-round")
        assert done.out == (
            "2 regions are PENDING for a new round of 30 calls at least: "
            "11110 서울특별시 종로구, 11680 "
            f"{GANGNAM}.\n"
        )
        assert [
            (store.row(code)["status"], store.row(code)["round"]) for code in ("11680", "11140")
        ] == [
            ("PENDING", 2),
            ("PENDING", 1),
        ]
        assert len(store.read("SELECT 1 AS kept FROM search_query WHERE round = 1")) == 4

    def test_named_regions_alone(self, mohe: Mohe, store: Store) -> None:
        for code in ("11680", "11110"):
            store.complete(store.claim(code))
        done = mohe("new-round", GANGNAM, "11140")
        assert done.out.splitlines() == [
            f"1 region is PENDING for a new round of 15 calls at least: 11680 {GANGNAM}.",
            "Skipped (not COMPLETED): 11140 (PENDING).",
        ]
        assert store.row("11110")["status"] == "COMPLETED"

    def test_many_regions_are_counted_and_some_are_named(
        self, mohe: Mohe, database: Database
    ) -> None:
        store = Store.of(database, [region.region_code for region in bundled_snapshot().leaves])
        store.execute("UPDATE batch_checkpoint SET status = 'COMPLETED'")
        out = mohe("new-round").out
        assert out.startswith(
            "256 regions are PENDING for a new round of 3,840 calls at least: "
            "11110 서울특별시 종로구, "
        )
        assert out.endswith(" and 236 more.\n")

    @pytest.mark.parametrize(("answer", "status"), [("n", 1), ("y", 0)])
    def test_on_a_terminal_it_asks_before_everything_is_collected_again(
        self, mohe: Mohe, store: Store, monkeypatch: pytest.MonkeyPatch, answer: str, status: int
    ) -> None:
        store.complete(store.claim("11680"))
        monkeypatch.setattr("sys.stdin", _Terminal(f"{answer}\n"))
        done = mohe("new-round")
        assert "Collect all 1 completed regions again, with 15 calls at least?" in done.out
        assert done.status == status
        assert store.row("11680")["status"] == ("PENDING" if answer == "y" else "COMPLETED")

    @pytest.mark.parametrize("arguments", [("--yes",), ("11680",)])
    def test_it_does_not_ask_if_it_is_told_not_to_or_for_named_regions(
        self, mohe: Mohe, store: Store, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
    ) -> None:
        store.complete(store.claim("11680"))
        monkeypatch.setattr("sys.stdin", _Terminal(""))
        assert mohe("new-round", *arguments).status == 0
        assert store.row("11680")["status"] == "PENDING"


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class TestRelease:
    def test_regions_of_dead_runs_are_taken_back_and_the_living_ones_named(
        self, mohe: Mohe, store: Store
    ) -> None:
        store.executions.start("alive-run")
        store.executions.start("silent-run")
        store.execute(
            "UPDATE batch_execution_metadata SET heartbeat_at = now() - interval '61 seconds' "
            "WHERE execution_id = 'silent-run'"
        )
        store.claim("11680", "silent-run")
        store.claim("11110", "alive-run")
        assert mohe("release").out.splitlines() == [
            "1 run is declared dead: silent-r.",
            f"1 region is released: 11680 {GANGNAM}.",
            "Alive: alive-ru. `mohe release --run RUN` releases the regions of a run.",
        ]
        assert (store.row("11680")["status"], store.row("11110")["status"]) == (
            "PENDING",
            "PROCESSING",
        )

    def test_with_nothing_to_take_back_it_says_so(self, mohe: Mohe, store: Store) -> None:
        del store
        assert mohe("release").out == "0 runs are declared dead.\n0 regions are released.\n"

    def test_a_run_is_declared_dead_by_the_beginning_of_its_id_and_can_write_nothing_more(
        self, mohe: Mohe, store: Store
    ) -> None:
        for run in ("aaaa1111-x", "aaaa2222-y"):
            store.executions.start(run)
        lease, other = store.claim("11680", "aaaa1111-x"), store.claim("11110", "aaaa2222-y")
        done = mohe("release", "--run", "aaaa1")
        assert done.out.splitlines()[:2] == [
            "1 run is declared dead: aaaa1111.",
            f"1 region is released: 11680 {GANGNAM}.",
        ]
        with pytest.raises(LeaseLost):
            store.store(lease)
        assert not store.executions.heartbeat("aaaa1111-x")
        assert store.checkpoints.claim("aaaa1111-x") == []
        store.store(other)
        (row,) = store.read(
            "SELECT status, note FROM batch_execution_metadata WHERE execution_id = 'aaaa1111-x'"
        )
        assert (row["status"], row["note"]) == ("INTERRUPTED", "declared dead by `mohe release`")

    @pytest.mark.parametrize("beginning", ["aaaa", "aaa", "bbbb", "a%"])
    def test_an_ambiguous_or_unknown_run_is_a_sentence_and_changes_nothing(
        self, mohe: Mohe, store: Store, beginning: str
    ) -> None:
        for run in ("aaaa1111-x", "aaaa2222-y"):
            store.executions.start(run)
        store.claim("11680", "aaaa1111-x")
        before = store.everything()
        done = mohe("release", "--run", beginning)
        assert (done.status, done.err) == (
            1,
            (
                f"mohe: {beginning!r} does not begin the id of exactly one running run; "
                "running: aaaa1111, aaaa2222.\n"
            ),
        )
        assert store.everything() == before

    def test_a_named_region_is_taken_from_a_run_that_lives_and_the_run_keeps_the_others(
        self, mohe: Mohe, store: Store
    ) -> None:
        store.executions.start("run")
        lost, kept = store.claim("11680"), store.claim("11110")
        assert mohe("release", GANGNAM, "11140").out.splitlines() == [
            f"1 region is released: 11680 {GANGNAM}.",
            "Skipped (not PROCESSING): 11140 (PENDING).",
        ]
        with pytest.raises(LeaseLost):
            store.store(lost)
        store.store(kept)
        assert store.executions.heartbeat("run")

    def test_a_region_that_was_being_refined_is_completed_as_before(
        self, mohe: Mohe, store: Store
    ) -> None:
        store.complete(store.claim("11680"))
        store.execute(
            "UPDATE batch_checkpoint SET status = 'PROCESSING', refining = true, attempt = "
            "attempt + 1 "
            "WHERE region_code = '11680'"
        )
        held = store.row("11680")["attempt"]
        mohe("release", "11680")
        row = store.row("11680")
        assert (row["status"], row["refining"], row["attempt"]) == ("COMPLETED", False, held + 1)

    def test_regions_and_a_run_exclude_each_other(self, mohe: Mohe, store: Store) -> None:
        del store
        assert mohe("release", CODES[0], "--run", "abcd").status == 2


class TestCompletion:
    @pytest.mark.parametrize("command", ["retry", "new-round", "release"])
    def test_a_shell_is_offered_regions_without_a_database(
        self, tmp_path: Path, command: str
    ) -> None:
        asked = {"_MOHE_COMPLETE": "complete_bash", "COMP_WORDS": f"mohe {command} 서울_강"}
        home = {"MOHE_HOME": str(tmp_path / "home"), "PATH": os.environ["PATH"]}
        done = subprocess.run(
            [Path(sys.executable).with_name("mohe")], env={**asked, **home, "COMP_CWORD": "2"},
            cwd=tmp_path, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert set(done.stdout.split()) == {
            "서울_강남구",
            "서울_강동구",
            "서울_강북구",
            "서울_강서구",
        }
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize(
        ("typed", "offered"),
        [
            ("강남", ["강남구"]),
            ("서울특별시_강남", ["서울특별시_강남구"]),
            ("경남_고", ["경남_고성군"]),
            ("1168", ["11680"]),
            ("세종", ["세종"]),
            ("수원시_장", ["수원시_장안구"]),
            ("없는", []),
        ],
    )
    def test_names_are_offered_as_they_are_typed(self, typed: str, offered: list[str]) -> None:
        assert [word for word, _ in complete_region(typed)] == offered

    def test_each_region_is_offered_once_under_a_name_that_means_it_alone(self) -> None:
        names = {leaf.region_code: leaf.region_name for leaf in bundled_snapshot().leaves}
        offered = dict(complete_region(""))
        assert sorted(offered.values()) == sorted(names.values())
        for word, name in offered.items():
            assert [names[code] for code in regions_named(word, names)] == [name]
            assert " " not in word
