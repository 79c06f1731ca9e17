"""The control endpoint, which tests read and write; documented in `app`."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from json import JSONDecodeError
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mohe_assets.simulator.faults import FaultRule
from mohe_assets.simulator.naver_api import NAVER_FAULTS
from mohe_assets.simulator.region_list import base_dongs
from mohe_assets.simulator.region_responses import REGION_FAULTS
from mohe_assets.simulator.world import World

_FAULTS = {"naver": NAVER_FAULTS, "regions": REGION_FAULTS}

Handler = Callable[[Request], Awaitable[Response]]


def control_app(world: World) -> Starlette:
    endpoints = ControlEndpoints(world)
    routes = [
        Route("/_control/stats", endpoints.stats, methods=["GET"]),
        Route("/_control/universe", endpoints.universe, methods=["GET"]),
        Route("/_control/faults", _explained(endpoints.faults), methods=["GET", "POST", "DELETE"]),
        Route("/_control/clock", _explained(endpoints.clock), methods=["GET", "POST"]),
        Route("/_control/config", _explained(endpoints.config), methods=["GET", "POST"]),
        Route("/_control/reset", endpoints.reset, methods=["POST"]),
    ]
    return Starlette(routes=routes)


def _explained(handler: Handler) -> Handler:
    """Answer malformed requests with 400 and the error's sentence."""

    async def explained(request: Request) -> Response:
        try:
            return await handler(request)
        except (ValueError, TypeError, JSONDecodeError) as error:
            return JSONResponse({"error": str(error)}, status_code=400)

    return explained


async def _object(request: Request) -> dict[str, Any]:
    body = await request.json()
    if not isinstance(body, dict):
        raise TypeError("the body must be a JSON object")
    return body


class ControlEndpoints:
    def __init__(self, world: World) -> None:
        self._world = world

    async def stats(self, request: Request) -> Response:
        brief, with_moments = "brief" in request.query_params, "moments" in request.query_params
        world = self._world
        counts: dict[str, Any] = {
            api: stats.as_json(brief=brief, with_moments=with_moments)
            for api, stats in world.stats.items()
        }
        return JSONResponse(
            {**counts, "quota_used": dict(world.quota.used), "now": world.clock.now().isoformat()}
        )

    async def universe(self, request: Request) -> Response:
        region = request.query_params.get("region")
        districts = self._world.gazetteer.districts
        universe, gazetteer = self._world.universe, self._world.gazetteer
        if region is None:
            counts: dict[str, int] = {}
            for code, district in districts.items():
                # Creates places only if a district consists of parts of base districts.
                counts[code] = sum(
                    universe.size(base)
                    if dongs is None
                    else sum(place.dong in dongs for place in universe.places(base))
                    for base, dongs in district.parts.items()
                )
            return JSONResponse(counts)
        if region[:5] not in districts:
            return JSONResponse(
                {"error": f"{region} is no leaf district of the list"}, status_code=404
            )
        true_places = [
            {
                "id": place.id,
                "title": place.title,
                "category": place.category,
                "region": gazetteer.code_of(place.base, place.dong),
                "dong": base_dongs()[place.base][place.dong],
                "lot": place.lot,
                "lat": place.lat,
                "lng": place.lng,
            }
            for base, dongs in districts[region[:5]].parts.items()
            for place in universe.places(base)
            if dongs is None or place.dong in dongs
        ]
        return JSONResponse(true_places)

    async def faults(self, request: Request) -> Response:
        if request.method == "DELETE":
            self._world.faults.clear()
        elif request.method == "POST":
            rules = await request.json()
            if not isinstance(rules, list):
                raise TypeError("the body must be a JSON list of fault rules")
            self._world.faults.add([FaultRule.from_json(rule, _FAULTS) for rule in rules])
        return JSONResponse(self._world.faults.listed())

    async def clock(self, request: Request) -> Response:
        if request.method == "POST":
            body = await _object(request)
            if unknown := sorted(set(body) - {"advance_seconds", "set"}):
                raise ValueError(f"{', '.join(unknown)}: the clock knows advance_seconds and set")
            if "set" in body:
                self._world.clock.set(datetime.fromisoformat(body["set"]))
            self._world.clock.advance(float(body.get("advance_seconds", 0)))
        return JSONResponse({"now": self._world.clock.now().isoformat()})

    async def config(self, request: Request) -> Response:
        if request.method == "POST":
            self._world.configure(await _object(request))
        return Response(self._world.config.to_json(), media_type="application/json")

    async def reset(self, _request: Request) -> Response:
        self._world.reset()
        return JSONResponse({"now": self._world.clock.now().isoformat()})
