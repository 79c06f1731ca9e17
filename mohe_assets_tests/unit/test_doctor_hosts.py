"""Hosts that keys are sent to: the doctor names what is not encrypted and what is not the API's."""

from mohe_assets.ops.doctor import Level, _api_hosts
from mohe_assets.settings import load


def findings(**variables: str) -> list[tuple[str, str]]:
    found = list(_api_hosts(load(variables)))
    assert all(one.level is Level.WARNING and one.advice for one in found)
    return [(one.check, one.found) for one in found]


def test_the_apis_own_hosts_and_this_machine_are_no_finding() -> None:
    assert findings() == []
    assert (
        findings(MOHE_NAVER_API_URL="http://127.0.0.1:8900", MOHE_GOVERNMENT_API_URL="http://[::1]")
        == []
    )


def test_an_unencrypted_way_and_a_host_that_is_not_the_apis_are_named() -> None:
    assert findings(MOHE_GOVERNMENT_API_URL="http://apis.data.go.kr") == [
        (
            "MOHE_GOVERNMENT_API_URL",
            "http://apis.data.go.kr is not encrypted: the keys cross the network in plain text.",
        )
    ]
    assert findings(MOHE_NAVER_HUB_URL="https://naver.example") == [
        ("MOHE_NAVER_HUB_URL", "naver.example is not the API's host, but gets the keys.")
    ]
    assert len(findings(MOHE_NAVER_API_URL="http://simulator:8900")) == 2
