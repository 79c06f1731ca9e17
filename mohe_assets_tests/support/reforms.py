"""The two reforms of 2026 as edits that undo them: the bundled list is the one after both."""

from typing import Any

from mohe_assets.domain.regions import bundled_snapshot

DONG_GU = ["만석동", "화수동", "송현동", "화평동", "창영동", "금곡동", "송림동"]
_REGIONS = bundled_snapshot().regions
_UNITED = [region for region in _REGIONS if region.region_code.startswith("12")]


def _old(code: str, name: str) -> tuple[str, str]:
    """Code and name before: the gu were 광주광역시's, the rest 전라남도's."""
    if name.endswith("구"):
        number = {"12210": 110, "12240": 140, "12270": 155, "12300": 170, "12330": 200}[code]
        return f"29{number}", f"광주광역시 {name}"
    return f"46{code[2:]}", f"전라남도 {name}"


_OLD = {region.region_code: _old(region.region_code, region.sigungu_name) for region in _UNITED}
NEW_IN_JULY = {*_OLD, "28125", "28155", "28275", "28290"}
OLD_OF_JULY = {*(code for code, _ in _OLD.values()), "28110", "28140", "28260"}
BEFORE_JULY: list[dict[str, Any]] = [
    {"op": "add", "code": "2900000000", "name": "광주광역시"},
    {"op": "add", "code": "4600000000", "name": "전라남도"},
    *(
        {"op": "recode", "code": f"{new}00000", "to": f"{old}00000", "name": name}
        for new, (old, name) in _OLD.items()
    ),
    {"op": "drop", "code": "1200000000"},
    {
        "op": "merge",
        "codes": ["2827500000", "2829000000"],
        "to": "2826000000",
        "name": "인천광역시 서구",
    },
    {
        "op": "split",
        "code": "2812500000",
        "into": [
            {"code": "2814000000", "name": "인천광역시 동구", "dongs": DONG_GU},
            {"code": "2811100000", "name": "인천광역시 중구의 뭍", "dongs": []},
        ],
    },
    {
        "op": "merge",
        "codes": ["2811100000", "2815500000"],
        "to": "2811000000",
        "name": "인천광역시 중구",
    },
]
BEFORE_FEBRUARY: list[dict[str, Any]] = [
    {"op": "drop", "code": "4159000000"},
    {
        "op": "merge",
        "codes": [f"{code}00000" for code in (41591, 41593, 41595, 41597)],
        "to": "4159000000",
        "name": "경기도 화성시",
    },
]
