"""Every route: what it says, and that whatever is wrong is one sentence of JSON."""

import asyncio
import json
import threading

import httpx
import numpy as np
import pytest
from starlette.responses import JSONResponse

from jaxrec_diff.data import ids
from jaxrec_diff.inference.types import Vocabulary
from jaxrec_diff.serving import bodies, catalogue, guard
from jaxrec_diff.serving.limits import Limits
from jaxrec_diff.serving.meters import Meters
from tests.serving.conftest import Server

JSON = {"content-type": "application/json"}
SMALL = Limits(
    body=6000, histories=4, length=20, letters=30, k=10, draws=3, nearest=4, found=8,
    seconds=0.2, waiting=8,
)  # fmt: skip
TITLES = ["<script>alert(1)</script>", "Amélie", "The Straße", "Heat", "Heathers", ""]


@pytest.fixture(scope="module")
def server():
    from tests.conftest import _untrained

    restored = _untrained("mf")
    dataset = restored.phase.dataset
    titles = np.array([*TITLES, *[f"Film {n}" for n in range(6, dataset.num_items)]], object)
    phase = restored.phase._replace(dataset=dataset._replace(titles=titles))
    made = Server(restored._replace(phase=phase), SMALL, hosts=["127.0.0.1"])
    yield made
    made.close()


BAD = {
    b"": "the body is no JSON: expecting value at line 1",
    b"{": "the body is no JSON",
    b'{"histories": [[1]]} x': "the body is no JSON: extra data",
    b"\xff\xfe{}": "the body is no UTF-8: byte 0 cannot be read",
    b"[" * 3000: "the body is nested too deeply",
    b'{"histories": ' + b"[" * 2000 + b"]" * 2000 + b"}": "the body is nested too deeply",
    b'{"histories": ' + b"[" * 200 + b"]" * 200 + b"}": "must be an id, text or a whole number",
    b"[]": "the body must be an object",
    b"null": "the body must be an object",
    b"{}": 'give either "histories" or "users", got neither',
    b'{"histories": [[1]], "users": [1]}': 'give either "histories" or "users", got both',
    b'{"history": [1]}': '"history" is no field; the nearest is "histories"',
    b'{"zzzzzz": [1]}': '"zzzzzz" is no field; there are "histories"',
    b'{"histories": "1,2"}': 'histories must be a list of histories, got "1,2"',
    b'{"histories": []}': "histories is empty",
    b'{"histories": [1, 2]}': "histories[0] must be a list of ids of items, oldest first, got 1",
    b'{"histories": [[1], {"a": 1}]}': "histories[1] must be a list of ids of items",
    b'{"histories": [[1], [2], [3], [4], [5]]}': "histories has 5 entries; at most 4 are answered",
    b'{"histories": [[1.5]]}': "histories[0][0] must be an id, text or a whole number, got 1.5",
    b'{"histories": [[true]]}': "histories[0][0] must be an id, text or a whole number, got true",
    b'{"histories": [[null]]}': "histories[0][0] must be an id, text or a whole number, got null",
    b'{"histories": [[NaN]]}': "the body holds NaN, which is no JSON",
    b'{"histories": [[-Infinity]]}': "the body holds -Infinity, which is no JSON",
    b'{"histories": [["\\ud800"]]}': "half a letter",
    b'{"histories": [["' + b"x" * 40 + b'"]]}': "has 40 letters; an id has at most 30",
    b'{"histories": [[' + b"9" * 30 + b"]]}": "beyond 64 bits",
    b'{"histories": [[' + b"9" * 5000 + b"]]}": "a number that is too long",
    b'{"histories": [[' + b"1," * 20 + b"1]]}": "histories[0] has 21 ids; at most 20 are read",
    b'{"users": "u"}': 'users must be a list of ids of users, got "u"',
    b'{"users": [["u"]]}': "users[0] must be an id, text or a whole number, got a list of 1",
    b'{"histories": [[1]], "k": 0}': "k must be from 1 to 10, got 0; the nearest is 1",
    b'{"histories": [[1]], "k": 1000000}': "k must be from 1 to 10, got 1000000; the nearest is 10",
    b'{"histories": [[1]], "k": "5"}': 'k must be a whole number from 1 to 10, got "5"',
    b'{"histories": [[1]], "k": 2.0}': "k must be a whole number from 1 to 10, got 2.0",
    b'{"histories": [[1]], "k": true}': "k must be a whole number from 1 to 10, got true",
    b'{"histories": [[1]], "draws": 4}': "draws must be from 1 to 3, got 4; the nearest is 3",
    b'{"histories": [[1]], "draws": null}': "draws must be a whole number",
    b'{"histories": [[1]], "include_seen": 1}': "include_seen must be true or false, got 1",
}


@pytest.mark.parametrize("body", BAD, ids=range(len(BAD)))
def test_a_bad_body_is_one_sentence(server, body, capfd):
    reply = server.ask("POST", "/recommend", content=body, headers=JSON)
    assert reply.status == 400 and list(reply.body) == ["error"]
    assert BAD[body] in reply.body["error"] and len(reply.body["error"]) < 300
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("method", "path", "more", "status", "said"),
    [
        ("GET", "/nope", {}, 404, "there is no /nope; there are /about"),
        ("GET", "/items/", {}, 404, "there is no /items/"),
        ("GET", "/page/../app.py", {}, 404, "there is no"),
        ("GET", "/recommend", {}, 405, "/recommend is asked by POST, not by GET"),
        ("POST", "/items", {}, 405, "/items is asked by GET or HEAD, not by POST"),
        ("POST", "/recommend", {"content": b"{}"}, 415, "content-type application/json"),
        ("POST", "/recommend", {"data": {"a": "b"}}, 415, "content-type application/json"),
        ("POST", "/recommend", {"content": b"x" * 6001, "headers": JSON}, 413, "at most 6,000"),
        ("POST", "/walk", {"json": {"history": [1]}}, 404, "mf, with the settings of this"),
        ("POST", "/walk", {"json": {}}, 400, 'give either "history" or "user", got neither'),
        ("POST", "/walk", {"json": {"history": [1], "nearest": 5}}, 400, "from 1 to 4, got 5"),
        ("GET", "/users/nobody", {}, 404, "no user 'nobody' is known"),
        ("GET", "/users/a%0Ab%2Fc%0A", {}, 404, r"no user 'a\nb/c\n' is known"),
        ("GET", "/users/" + "x" * 500, {}, 404, "no user 'xxx"),
        ("GET", "/users/%F0%9F%98%80", {}, 404, "no user '😀' is known"),
        ("POST", "/recommend", {"json": {"users": ["a", "b"]}}, 404, "no user 'a' is known"),
        ("GET", "/items?limit=0", {}, 400, "limit must be from 1 to 8, got 0; the nearest is 1"),
        ("GET", "/items?limit=9", {}, 400, "the nearest is 8"),
        ("GET", "/items?limit=%C2%B2", {}, 400, "limit must be a whole number"),
        ("GET", "/items?limit=-1", {}, 400, "limit must be a whole number"),
        ("GET", "/items?q=" + "x" * 31, {}, 400, "q has 31 letters; at most 30"),
        ("GET", "/about", {"headers": {"host": "evil.example:80"}}, 400, "'evil.example:80'"),
    ],
)  # fmt: skip
def test_a_wrong_request_is_one_sentence(server, method, path, more, status, said):
    reply = server.ask(method, path, **more)
    assert reply.status == status and said in reply.body["error"]
    assert reply.headers["content-type"] == "application/json"


def test_a_body_without_a_length_is_cut_off_and_a_slow_one_is_not_waited_for(server):
    async def endless():
        while True:
            yield b"x" * 1000

    async def slow():
        yield b'{"users":'
        await asyncio.sleep(5)

    reply = server.ask("POST", "/recommend", content=endless(), headers=JSON)
    assert reply.status == 413
    reply = server.ask("POST", "/recommend", content=slow(), headers=JSON)
    assert reply.status == 408 and "not there after 0.2 seconds" in reply.body["error"]


def test_every_answer_forbids_what_is_foreign(server):
    paths = ("/", "/page.js", "/page.css", "/about", "/nope", "/metrics")
    for reply in map(server.get, paths):
        policy = reply.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "script-src 'self'" in policy
        assert "unsafe" not in policy and "http" not in policy
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in reply.headers


def test_the_page_is_there(server):
    kinds = {"/": "text/html", "/page.css": "text/css", "/page.js": "text/javascript"}
    for path, kind in kinds.items():
        reply = server.get(path)
        assert reply.status == 200 and reply.headers["content-type"].startswith(kind)
    assert server.get("/healthz").body == {"status": "ok"}


def test_lists_have_titles_and_what_was_not_known(server):
    dataset = server.restored.phase.dataset
    known = int(dataset.item_ids[4])
    asked = {"histories": [[known, "???", 10**9], [], ["x"]], "k": 4}
    body = server.post("/recommend", asked).body
    assert body["unknown"] == ["???", 10**9, "x"]
    first, *others = body["lists"]
    assert first["unknown"] == ["???", 10**9] and not first["fallback"]
    number = {raw: place for place, raw in enumerate(dataset.item_ids.tolist())}
    titles = server.restored.phase.dataset.titles
    assert first["titles"] == [titles[number[item]] for item in first["items"]]
    assert first["scores"] == sorted(first["scores"], reverse=True) and len(first["scores"]) == 4
    for other in others:
        assert other["fallback"] and other["scores"] == sorted(dataset.train_counts)[:-5:-1]
    users = server.post("/recommend", {"users": [int(dataset.user_ids[2]), "nobody"]}).body
    assert users["unknown"] == ["nobody"]
    assert [each["user"] for each in users["lists"]] == [int(dataset.user_ids[2])]
    seen = server.get(f"/users/{dataset.user_ids[2]}").body
    assert seen["length"] == len(seen["items"]) == len(seen["titles"]) > 0
    assert not set(seen["items"]) & set(users["lists"][0]["items"])
    again = {"users": [int(dataset.user_ids[2])], "include_seen": True, "k": 10}
    again = server.post("/recommend", again).body["lists"][0]
    assert len(again["items"]) == 10


@pytest.mark.parametrize(
    ("text", "first", "total"),
    [
        ("heat", ["Heat", "Heathers"], 2), ("HEAT", ["Heat", "Heathers"], 2),
        ("amelie", ["Amélie"], 1), ("strasse the", ["The Straße"], 1), ("zzz", [], 0),
        ("<script>", ["<script>alert(1)</script>"], 1), ("film 7", ["Film 7"], 3),
        (".*", [], 0), ("%", [], 0), ("", None, 30),
    ],
)  # fmt: skip
def test_search(server, text, first, total):
    body = server.get("/items", params={"q": text, "limit": "8"}).body
    found = [entry["title"] for entry in body["items"]]
    assert body["total"] == total
    if first is None:
        counts = [entry["count"] for entry in body["items"]]
        assert counts == sorted(counts, reverse=True) and len(counts) == 8
    elif text.startswith("heat"):
        assert sorted(found) == first
    elif text == "film 7":
        assert found[0] == "Film 7"
    else:
        assert set(found) >= set(first) and len(found) == total


def test_the_item_of_a_very_id_comes_first(server):
    dataset = server.restored.phase.dataset
    (item,) = server.get("/items", params={"q": str(dataset.item_ids[1]), "limit": 1}).body["items"]
    assert item["item"] == int(dataset.item_ids[1])


@pytest.mark.parametrize(
    "raw",
    [
        np.array(["a", "007", " 7", "7"], object), np.array([7, -3, 10**15, 2**53 + 1]),
    ],
    ids=["text", "numbers"],
)  # fmt: skip
def test_ids_are_found_as_the_command_finds_them(raw):
    import pyarrow as pa

    asked = ["7", " 7", "007", "a", "-3", "+7", "7.0", "", "1000000000000000", str(2**53 + 1)]
    vocabulary = Vocabulary(ids.to_arrow(raw))
    want = vocabulary.encode(pa.array(asked, pa.string())).tolist()
    mine = catalogue._Ids(raw)
    got = [mine.place(each) for each in asked]
    assert [0 if place is None else place + 1 for place in got] == want
    for place in range(len(raw)):  # and what is shown is found again, however JavaScript rounds
        assert mine.place(json.loads(json.dumps(mine.shown(place)))) == place
    assert not ids.is_text(raw) or isinstance(mine.shown(3), str)


def test_too_many_at_once_are_sent_away_and_the_rest_is_answered(server):
    go, answer = threading.Event(), server.service.answer
    server.service.answer = lambda *asked: go.wait(10) and answer(*asked)
    item = int(server.restored.phase.dataset.item_ids[0])

    async def many():
        body = {"histories": [[item]] * 2, "k": 3}
        first = asyncio.create_task(server._ask("POST", "/recommend", json=body))
        await asyncio.sleep(0.1)
        tasks = [
            asyncio.create_task(server._ask("POST", "/recommend", json=body)) for _ in range(14)
        ]
        await asyncio.sleep(0.1)
        watched = await server._ask("GET", "/healthz")
        go.set()
        return watched.status, await asyncio.gather(first, *tasks)

    watched, replies = server._runner.run(many())
    server.service.answer = answer
    assert watched == 200
    # one is with the model, four more of two histories each may wait for it
    assert [reply.status for reply in replies] == [200] * 5 + [503] * 10
    assert all("retry-after" in reply.headers for reply in replies if reply.status > 200)
    assert server.post("/recommend", {"histories": [[item]]}).status == 200
    text = server.get("/metrics").body
    assert 'jaxrec_requests_total{path="/recommend",status="503"}' in text
    assert server.counted("jaxrec_requests_under_way") == 0


def test_one_address_leaves_room_for_others():
    go = asyncio.Event()

    async def slow(scope, receive, send):
        await go.wait()
        await JSONResponse({})(scope, receive, send)

    limits = Limits(requests=5, requests_of_one=3)
    watched = guard.Guard(slow, limits=limits, meters=Meters(), hosts=None, paths=["/a"])

    async def asked(address, path="/a"):
        transport = httpx.ASGITransport(watched, client=(address, 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            return (await client.get(path)).status_code

    async def many():
        addresses = ["1"] * 5 + ["2"] * 4 + ["3"]
        tasks = [asyncio.create_task(asked(address)) for address in addresses]
        tasks.append(asyncio.create_task(asked("3", "/healthz")))
        await asyncio.sleep(0.1)
        go.set()
        return await asyncio.gather(*tasks), await asked("1")

    found, later = asyncio.run(many())
    assert found == [200, 200, 200, 429, 429, 200, 200, 503, 503, 503, 200] and later == 200


def test_what_breaks_inside_is_a_sentence_and_a_line_in_the_log(server, monkeypatch, capfd):
    def broken(*asked):
        raise RuntimeError("the device is gone")

    monkeypatch.setattr(server.service, "answer", broken)
    item = int(server.restored.phase.dataset.item_ids[0])
    reply = server.post("/recommend", {"histories": [[item]]})
    assert reply.status == 500 and "the device" not in reply.body["error"]
    assert "the device is gone" in capfd.readouterr().err


def test_limits_are_about_what_can_be_asked():
    assert bodies.lists(b'{"users": [1]}', Limits(), 3).k == 3  # a catalogue of three items
    assert bodies.lists(b'{"users": [1], "k": 50}', Limits(), 3).k == 3
