"""The region list API: key, limits, paging, and the ways its table has been wrong. Speaks no
sockets.
"""

from typing import TYPE_CHECKING

from mohe_assets.simulator import region_responses as region_answers
from mohe_assets.simulator.faults import FaultRule, faulty_reply
from mohe_assets.simulator.http import Answer, Reply, Scope, parameters
from mohe_assets.simulator.region_list import RegionRow

if TYPE_CHECKING:
    from mohe_assets.simulator.world import World

REGION_PATH = "/1741000/StanReginCd/getStanReginCdList"
_MOST_ROWS = 1_000


class RegionApi:
    def __init__(self, world: "World") -> None:
        self._world = world

    def receive(self, scope: Scope) -> Reply:
        world = self._world
        number = world.stats["regions"].arrived("regions")
        try:
            asked = parameters(scope)
        except UnicodeDecodeError:
            return Reply(region_answers.result("ERROR-333"), "bad_request")
        as_xml = asked.get("type", "xml").lower() != "json"
        if refusal := self._refusal(asked, as_xml=as_xml):
            return refusal
        reply = self._answered(asked, as_xml=as_xml)
        page = asked.get("pageNo", "1")
        at_page = int(page) if page.isdecimal() else None
        rule = world.faults.meeting(
            "regions", number, asked.get("locatadd_nm", ""), at_page, world.config.seed
        )
        if rule is None:
            return reply
        if rule.fault == "slow":
            return reply._replace(delay=rule.seconds)
        return faulty_reply(
            rule, _named(rule, as_xml=as_xml), reply.answer or region_answers.plain("unexpected")
        )

    def _refusal(self, asked: dict[str, str], *, as_xml: bool) -> Reply | None:
        world, config = self._world, self._world.config
        key = asked.get("ServiceKey", asked.get("serviceKey", ""))
        if key != config.government_key:
            return Reply(
                region_answers.gateway_xml() if as_xml else region_answers.gateway_json(),
                "refused_auth",
            )
        is_slow_enough = world.rate["regions"].admits(config.region_calls_per_second)
        if is_slow_enough or config.refused_calls_count:
            day = world.clock.day()
            limit, count_refused = config.region_daily_quota, config.refused_calls_count
            if (
                not world.quota.admits("regions", day, limit, count_refused=count_refused)
                and is_slow_enough
            ):
                return Reply(region_answers.plain("quota"), "refused_quota")
        return None if is_slow_enough else Reply(region_answers.plain("rate"), "refused_rate")

    def _answered(self, asked: dict[str, str], *, as_xml: bool) -> Reply:
        page_text, size_text = asked.get("pageNo", "1"), asked.get("numOfRows", "10")
        if not (
            page_text.isdecimal() and size_text.isdecimal() and int(page_text) and int(size_text)
        ):
            return Reply(region_answers.result("ERROR-333", as_xml=as_xml), "bad_request")
        page, size = int(page_text), int(size_text)
        if size > _MOST_ROWS:
            return Reply(region_answers.result("ERROR-336", as_xml=as_xml), "bad_request")
        answer = self._page(asked.get("locatadd_nm", ""), page, size, as_xml=as_xml)
        return Reply(answer, "answered", search=f"{asked.get('locatadd_nm', '')}|{page}|{size}")

    def _page(self, part_of_name: str, page: int, size: int, *, as_xml: bool) -> Answer:
        config = self._world.config
        found = [row for row in self._world.rows if part_of_name in row.name]
        total = len(found)
        rows = _distorted(found, config.region_short_by, config.region_duplicates)[
            (page - 1) * size : page * size
        ]
        if not rows:
            return region_answers.result(region_answers.NO_DATA[0], as_xml=as_xml)
        if config.region_totals_disagree and page % 2 == 0:
            total -= 1
        return region_answers.rows_answer(rows, total=total, size=size, page=page, as_xml=as_xml)


def _distorted(rows: list[RegionRow], short_by: int, duplicates: int) -> list[RegionRow]:
    """Rows missing although they are counted; rows served again in the place of others, so that the
    count is right.
    """
    rows = rows[: max(0, len(rows) - short_by)]
    return [*rows[: len(rows) - duplicates], *rows[:duplicates]] if duplicates else rows


def _named(rule: FaultRule, *, as_xml: bool) -> dict[str, Answer]:
    code = rule.code or "30"
    return {
        **{name: region_answers.plain(name) for name in region_answers.PLAIN_TEXTS},
        "auth": region_answers.gateway_xml() if as_xml else region_answers.gateway_json(),
        "gateway_json": region_answers.gateway_json(code),
        "gateway_xml": region_answers.gateway_xml(code),
        "legacy_xml": region_answers.legacy_xml(code),
        "response_json": region_answers.response_json(code),
        "response_xml": region_answers.response_xml(code),
        "words": region_answers.words(code),
        "korean_xml": region_answers.korean_xml(code),
        "result": region_answers.result(rule.code or "INFO-300", as_xml=as_xml),
    }
