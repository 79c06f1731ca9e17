"""The clients and the simulator, which were written apart from the same description of the two
APIs.
"""

from collections.abc import Iterator

import pytest

from mohe_assets.clients.http import LocalRateLimiter, RetryPolicy
from mohe_assets.clients.region_api import RegionApiClient
from mohe_assets.errors import (
    ApiBlocked,
    ApiError,
    BadQuery,
    QuotaExhausted,
    RateLimited,
    TransientApiError,
)
from mohe_assets.simulator.config import SimulatorConfig
from mohe_assets.simulator.server import Simulator, running
from mohe_assets.sources.naver_local.client import CLASSIC, HUB, ApiVersion, NaverLocalClient
from mohe_assets.sources.naver_local.search_plan import Sort
from mohe_assets_tests.support.searches import searched

CONFIG = SimulatorConfig(calls_per_second=None, region_calls_per_second=None)
ONCE = RetryPolicy(attempts=1, rate_attempts=1)
KEYS = {CLASSIC: (CONFIG.client_id, CONFIG.client_secret), HUB: (CONFIG.hub_key_id, CONFIG.hub_key)}


@pytest.fixture(scope="module")
def shared() -> Iterator[Simulator]:
    with running(CONFIG) as simulator:
        yield simulator


@pytest.fixture
def simulator(shared: Simulator) -> Simulator:
    shared.reset()
    shared.clear_faults()
    return shared


def naver(
    simulator: Simulator, api_version: ApiVersion, *, keys: tuple[str, str] | None = None
) -> NaverLocalClient:
    client_id, secret = keys or KEYS[api_version]
    return NaverLocalClient(
        base_url=simulator.url,
        api_version=api_version,
        client_id=client_id,
        client_secret=secret,
        rate_limiter=LocalRateLimiter(),
        retry=ONCE,
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
    assert all(
        {"title", "address", "mapx"} <= item.keys() for answer in answers for item in answer.items
    )


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
        ("blank", TransientApiError),
        ("html", TransientApiError),
        ("garbage", TransientApiError),
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
