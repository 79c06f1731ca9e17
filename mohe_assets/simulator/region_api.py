"""The region list API: key, limits, paging, and known errors of its table. Opens no sockets."""

from typing import TYPE_CHECKING

from mohe_assets.simulator import region_responses as region_answers
from mohe_assets.simulator.faults import faulty_reply
from mohe_assets.simulator.http import Reply, Scope, parameters

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
            params = parameters(scope)
        except UnicodeDecodeError:
            return Reply(region_answers.result("ERROR-333"), "bad_request")
        as_xml = params.get("type", "xml").lower() != "json"
        if refusal := self._refusal(params, as_xml=as_xml):
            return refusal
        reply = self._page(params, as_xml=as_xml)
        page = params.get("pageNo", "1")
        at_page = int(page) if page.isdecimal() else None
        rule = world.faults.meeting(
            "regions", number, params.get("locatadd_nm", ""), at_page, world.config.seed
        )
        if rule is None:
            return reply
        if rule.fault == "slow":
            return reply._replace(delay=rule.seconds)
        named = region_answers.named_answers(rule.code, as_xml=as_xml)
        return faulty_reply(rule, named, reply.answer or region_answers.plain("unexpected"))

    def _refusal(self, params: dict[str, str], *, as_xml: bool) -> Reply | None:
        world, config = self._world, self._world.config
        key = params.get("ServiceKey", params.get("serviceKey", ""))
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

    def _page(self, params: dict[str, str], *, as_xml: bool) -> Reply:
        page_text, size_text = params.get("pageNo", "1"), params.get("numOfRows", "10")
        part_of_name = params.get("locatadd_nm", "")
        if not (
            page_text.isdecimal() and size_text.isdecimal() and int(page_text) and int(size_text)
        ):
            return Reply(region_answers.result("ERROR-333", as_xml=as_xml), "bad_request")
        page, size = int(page_text), int(size_text)
        if size > _MOST_ROWS:
            return Reply(region_answers.result("ERROR-336", as_xml=as_xml), "bad_request")
        config = self._world.config
        rows = [row for row in self._world.rows if part_of_name in row.name]
        total = len(rows) - (config.region_totals_disagree and page % 2 == 0)
        # Missing rows are counted in the total; duplicates replace other rows.
        rows = rows[: max(0, len(rows) - config.region_short_by)]
        if duplicates := config.region_duplicates:
            rows = [*rows[: len(rows) - duplicates], *rows[:duplicates]]
        rows = rows[(page - 1) * size : page * size]
        answer = (
            region_answers.rows_answer(rows, total=total, size=size, page=page, as_xml=as_xml)
            if rows
            else region_answers.result(region_answers.NO_DATA[0], as_xml=as_xml)
        )
        return Reply(answer, "answered", search=f"{part_of_name}|{page}|{size}")
