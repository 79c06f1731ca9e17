"""The clients and the simulator, which were written apart from the same description of the two
APIs.
"""

import base64
from collections.abc import Iterator

import pytest

from mohe_assets.clients.http import LocalRateLimiter, RetryPolicy
from mohe_assets.clients.region_api import RegionApiClient
from mohe_assets.domain.places import RejectionReason
from mohe_assets.errors import (
    ApiBlocked,
    ApiError,
    BadQuery,
    QuotaExhausted,
    RateLimited,
    RequestRefused,
    TransientApiError,
    UnusableAnswer,
)
from mohe_assets.simulator.config import SimulatorConfig
from mohe_assets.simulator.server import Simulator, running
from mohe_assets.sources.naver_local.client import CLASSIC, HUB, ApiVersion, NaverLocalClient
from mohe_assets.sources.naver_local.items import parse_items
from mohe_assets.sources.naver_local.plan import Sort
from mohe_assets_tests.support.searches import no_wait, searched

CONFIG = SimulatorConfig(
    calls_per_second=None, region_calls_per_second=None, katech_share=0, place_name_share=0
)
ONCE = RetryPolicy(attempts=1, rate_attempts=1)
PATIENT = RetryPolicy(sleep=no_wait)
QUERY = "서울특별시 강남구 카페"
KEYS = {CLASSIC: (CONFIG.client_id, CONFIG.client_secret), HUB: (CONFIG.hub_key_id, CONFIG.hub_key)}


@pytest.fixture(scope="module")
def shared() -> Iterator[Simulator]:
    with running(CONFIG) as simulator:
        yield simulator


@pytest.fixture
def simulator(shared: Simulator) -> Simulator:
    shared.configure(classic_ended=False, search_not_selected=False)
    shared.reset()
    shared.clear_faults()
    return shared


def naver(
    simulator: Simulator,
    api_version: ApiVersion,
    *,
    keys: tuple[str, str] | None = None,
    retry: RetryPolicy = ONCE,
) -> NaverLocalClient:
    client_id, secret = keys or KEYS[api_version]
    return NaverLocalClient(
        base_url=simulator.url,
        api_version=api_version,
        client_id=client_id,
        client_secret=secret,
        rate_limiter=LocalRateLimiter(),
        retry=retry,
    )


def regions(simulator: Simulator, key: str = CONFIG.government_key) -> RegionApiClient:
    return RegionApiClient(
        base_url=simulator.url, service_key=key, rate_limiter=LocalRateLimiter(), retry=ONCE
    )


@pytest.mark.parametrize("key", [CONFIG.government_key, "demo-govt-key%2B%2F%3D%3D"])
def test_the_whole_region_list_takes_21_calls(key: str, simulator: Simulator) -> None:
    found = regions(simulator, key).download()
    assert (found.calls, found.total_count, len(found.rows)) == (21, 20_560, 20_560)


def test_a_wrong_region_key_is_blocked(simulator: Simulator) -> None:
    with pytest.raises(ApiBlocked, match="GOVT_API_KEY"):
        regions(simulator, "wrong").download()


@pytest.mark.parametrize("api_version", [CLASSIC, HUB])
def test_a_search_finds_places(api_version: ApiVersion, simulator: Simulator) -> None:
    answers = [
        searched(naver(simulator, api_version), "서울특별시 강남구 카페", sort=sort)
        for sort in Sort
    ]
    assert [(len(answer.items), answer.calls) for answer in answers] == [(5, 1)] * 2
    for item in (item for answer in answers for item in answer.items):
        assert isinstance(item, dict)
        assert {"title", "address", "mapx"} <= item.keys()


@pytest.mark.parametrize("api_version", [CLASSIC, HUB])
def test_the_keys_of_the_other_generation_are_blocked(
    api_version: ApiVersion, simulator: Simulator
) -> None:
    theirs = HUB if api_version is CLASSIC else CLASSIC
    with pytest.raises(ApiBlocked) as caught:
        searched(naver(simulator, api_version, keys=KEYS[theirs]))
    assert caught.value.variables == api_version.variables


@pytest.mark.parametrize("api_version", [CLASSIC, HUB])
@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("blank", UnusableAnswer),
        ("html", UnusableAnswer),
        ("garbage", UnusableAnswer),
        ("no_items", UnusableAnswer),
        ("bad_query", BadQuery),
        ("not_found", RequestRefused),
        ("not_selected", ApiBlocked),
        ("unavailable", TransientApiError),
        ("quota_words", QuotaExhausted),
        ("quota_xml", QuotaExhausted),
        ("quota_html", QuotaExhausted),
        ("refused_html", RateLimited),
        ("refused_blank", RateLimited),
        ("reset", TransientApiError),
        ("rate", RateLimited),
        ("quota", QuotaExhausted),
        ("auth", ApiBlocked),
    ],
)
def test_each_fault_is_understood(
    fault: str, kind: type[ApiError], api_version: ApiVersion, simulator: Simulator
) -> None:
    simulator.add_faults([{"api": "naver", "fault": fault}])
    with pytest.raises(ApiError) as caught:
        searched(naver(simulator, api_version), "서울특별시 강남구 카페")
    assert type(caught.value) is kind


def test_an_empty_query_is_a_bad_query(simulator: Simulator) -> None:
    with pytest.raises(BadQuery):
        searched(naver(simulator, CLASSIC), "")


@pytest.mark.parametrize("api_version", [CLASSIC, HUB])
@pytest.mark.parametrize(
    ("fault", "calls", "places", "odd"),
    [
        ("control_characters", 1, 5, 0),
        ("trailing_nul", 1, 5, 0),
        ("null_item", 1, 5, 1),
        ("null_items", 1, 0, 0),
        ("bad_byte", 4, 5, 0),
        ("cut_character", 4, 5, 0),
    ],
)
def test_an_odd_answer_gives_all_that_can_be_read(
    fault: str, calls: int, places: int, odd: int, api_version: ApiVersion, simulator: Simulator
) -> None:
    simulator.add_faults([{"api": "naver", "fault": fault}])
    answer = searched(naver(simulator, api_version, retry=PATIENT), QUERY)
    found, aside = parse_items(answer.items)
    assert (answer.calls, len(found), len(aside)) == (calls, places, odd)
    assert {one.reason for one in aside} <= {RejectionReason.NOT_AN_OBJECT}


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("degrees", RejectionReason.DEGREES),
        ("microdegrees", RejectionReason.MICRODEGREES),
        ("katech", RejectionReason.KATECH),
    ],
)
def test_coordinates_of_another_format_cost_the_items_and_not_the_answer(
    fault: str, reason: RejectionReason, simulator: Simulator
) -> None:
    simulator.add_faults([{"api": "naver", "fault": fault}])
    found, aside = parse_items(searched(naver(simulator, CLASSIC), QUERY).items)
    assert (found, [one.reason for one in aside]) == ((), [reason] * 5)


@pytest.mark.parametrize("fault", ["bad_byte", "no_items", "garbage", "html"])
def test_an_unusable_answer_that_comes_once_costs_one_retry(
    fault: str, simulator: Simulator
) -> None:
    simulator.add_faults([{"api": "naver", "fault": fault, "times": 1}])
    answer = searched(naver(simulator, HUB, retry=PATIENT), QUERY)
    assert (answer.calls, len(answer.items)) == (2, 5)
    assert "\N{REPLACEMENT CHARACTER}" not in str(answer.raw)


def test_a_contradictory_answer_is_retried_and_then_unusable(simulator: Simulator) -> None:
    simulator.add_faults([{"api": "naver", "fault": "no_items"}])
    with pytest.raises(UnusableAnswer) as caught:
        searched(naver(simulator, CLASSIC, retry=PATIENT), QUERY)
    assert (caught.value.calls, caught.value.signature) == (4, "empty-total")


def test_a_retired_api_refuses_with_one_call_and_its_successor_does_not(
    simulator: Simulator,
) -> None:
    simulator.configure(classic_ended=True)
    with pytest.raises(RequestRefused) as caught:
        searched(naver(simulator, CLASSIC, retry=PATIENT), QUERY)
    assert (caught.value.calls, caught.value.signature) == (1, "SE05")
    assert "NCP_APIGW_API_KEY_ID" in caught.value.advice
    assert len(searched(naver(simulator, HUB), QUERY).items) == 5


def test_an_application_without_the_place_search_is_a_quota_refusal_on_the_hub(
    simulator: Simulator,
) -> None:
    simulator.configure(search_not_selected=True)
    with pytest.raises(QuotaExhausted) as quota:
        searched(naver(simulator, HUB), QUERY)
    assert "not selected" in quota.value.if_never_answered
    with pytest.raises(ApiBlocked, match="enable"):
        searched(naver(simulator, CLASSIC), QUERY)


@pytest.mark.parametrize("code", ["SE02", "SE03", "SE04", "SE05", "SE06"])
@pytest.mark.parametrize("api_version", [CLASSIC, HUB])
def test_errors_of_the_request_as_such_are_refusals_with_their_code(
    code: str, api_version: ApiVersion, simulator: Simulator
) -> None:
    simulator.add_faults([{"api": "naver", "fault": "error", "code": code}])
    with pytest.raises(RequestRefused) as caught:
        searched(naver(simulator, api_version), QUERY)
    assert caught.value.signature == code


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("100", RequestRefused),
        ("300", RequestRefused),
        ("430", RequestRefused),
        ("210", ApiBlocked),
        ("410", RateLimited),
        ("900", TransientApiError),
    ],
)
def test_errors_of_the_hub_are_known_by_their_codes(
    code: str, kind: type[ApiError], simulator: Simulator
) -> None:
    simulator.add_faults([{"api": "naver", "fault": "error", "code": code}])
    with pytest.raises(ApiError) as caught:
        searched(naver(simulator, HUB), QUERY)
    assert type(caught.value) is kind


@pytest.mark.parametrize("body", ["", "<html><body>nginx</body></html>"])
def test_a_status_of_the_request_as_such_is_a_refusal_whatever_its_body(
    body: str, simulator: Simulator
) -> None:
    for status in (404, 405, 413):
        simulator.clear_faults()
        simulator.add_faults([{"api": "naver", "fault": "status", "status": status, "body": body}])
        with pytest.raises(RequestRefused) as caught:
            searched(naver(simulator, HUB), QUERY)
        assert caught.value.signature == f"http-{status}"


def test_raw_bytes_can_be_scripted_for_one_query(simulator: Simulator) -> None:
    put = base64.b64encode(b"\xff").decode()
    rule = {"api": "naver", "fault": "altered", "query_contains": "카페", "find": "서울"}
    simulator.add_faults([{**rule, "put_base64": put}])
    answer = searched(naver(simulator, CLASSIC, retry=PATIENT), QUERY)
    assert "\N{REPLACEMENT CHARACTER}" in str(answer.raw)
    other = searched(naver(simulator, CLASSIC), "서울특별시 강남구 공원")
    assert "\N{REPLACEMENT CHARACTER}" not in str(other.raw)


REGION_KINDS: dict[str, type[ApiError]] = {
    "30": ApiBlocked,
    "22": QuotaExhausted,
    "23": RateLimited,
    "5": TransientApiError,
}


@pytest.mark.parametrize("code", REGION_KINDS)
@pytest.mark.parametrize(
    "envelope",
    [
        "gateway_json",
        "gateway_xml",
        "legacy_xml",
        "response_json",
        "response_xml",
        "words",
        "korean_xml",
    ],
)
def test_every_envelope_of_the_portal_is_classified(
    envelope: str, code: str, simulator: Simulator
) -> None:
    simulator.add_faults([{"api": "regions", "fault": envelope, "code": code}])
    with pytest.raises(ApiError) as caught:
        regions(simulator).count_rows()
    assert type(caught.value) is REGION_KINDS[code]


def test_a_fault_with_bytes_that_are_not_base64_is_refused(simulator: Simulator) -> None:
    with pytest.raises(ValueError, match="body_base64 must be Base64"):
        simulator.add_faults([{"api": "naver", "fault": "status", "body_base64": "?"}])
