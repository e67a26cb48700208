"""Deliveries of the app's webhook: what was sent, what came back, once more."""

from tests.doubles.github.http import Answer, Call, Problem, Route
from tests.doubles.github.state import Delivery, Json, stamp


def _item(it: Delivery) -> Json:
    return {
        "id": it.id,
        "guid": it.guid,
        "delivered_at": stamp(it.delivered_at),
        "redelivery": it.redelivery,
        "duration": round(it.seconds, 3),
        "status": "OK" if 200 <= it.status < 400 else it.answer[:60] or "failed",
        "status_code": it.status,
        "event": it.event,
        "action": it.action,
        "installation_id": (it.payload.get("installation") or {}).get("id"),
        "repository_id": (it.payload.get("repository") or {}).get("id"),
        "throttled_at": None,
    }


def list_deliveries(call: Call) -> Answer:
    """Newest first; the cursor is the id to go on from."""
    found = sorted((one for one in call.world.deliveries if one.app is call.app), key=lambda one: -one.id)
    if "status" in call.query:
        wanted = call.query["status"] == "success"
        found = [one for one in found if (200 <= one.status < 400) == wanted]
    if "cursor" in call.query:
        found = [one for one in found if one.id <= int(call.query["cursor"])]
    size = min(int(call.query.get("per_page", "30")), 100)
    headers = {}
    if len(found) > size:
        link = f"{call.world.api_url}{call.path}?per_page={size}&cursor={found[size].id}"
        headers["link"] = f'<{link}>; rel="next"'
    return Answer(200, [_item(one) for one in found[:size]], headers)


def _find(call: Call) -> Delivery:
    wanted = int(call.params["delivery_id"])
    for one in call.world.deliveries:
        if one.id == wanted and one.app is call.app:
            return one
    raise Problem(404, "Not Found")


def get_delivery(call: Call) -> Answer:
    """One delivery with both sides of it."""
    it = _find(call)
    request = {"headers": it.headers, "payload": it.payload}
    response = {"headers": {}, "payload": it.answer}
    return Answer(200, {**_item(it), "url": it.app.webhook_url, "request": request, "response": response})


def redeliver(call: Call) -> Answer:
    """Send it again, soon, under the same guid."""
    call.world.redeliveries.append(_find(call))
    return Answer(202, {})


ROUTES = [
    Route("GET /app/hook/deliveries", list_deliveries, auth="app"),
    Route("GET /app/hook/deliveries/{delivery_id}", get_delivery, auth="app"),
    Route("POST /app/hook/deliveries/{delivery_id}/attempts", redeliver, auth="app"),
]
