"""What the demonstration of `make up` does when the cluster is away for a moment."""

from threading import Event

import httpx

from orchestrator.server import demo

JOBS = {
    "metronome": ["stopped"],
    "word-count": ["running", "completed"],
}


def test_the_demonstration_goes_on_when_each_of_its_requests_is_lost_once(monkeypatch):
    monkeypatch.setattr(demo, "POLL", 0)
    monkeypatch.setattr(demo, "LINGER", 0)
    said, keys, states = [], [], {name: iter(them) for name, them in JOBS.items()}

    def answer(request):
        keys.append(request.headers["Idempotency-Key"])
        if keys.count(keys[-1]) == 1:
            if len(keys) % 4 == 1:
                raise httpx.ConnectError("refused")
            return httpx.Response(503)
        if request.method == "POST":
            return httpx.Response(200, json={"changed": True})
        name = request.url.path.rpartition("/")[2]
        return httpx.Response(200, json={"name": name, "state": next(states[name]), "sentence": ""})

    client = httpx.Client(base_url="http://x/", transport=httpx.MockTransport(answer))
    demo.Demo(client, say=said.append, stopped=Event()).play()
    assert [it.split(":")[1].split(",")[0].strip() for it in said] == [
        "metronome submitted",
        "word-count submitted",
        "word-count completed",
        "metronome stopped",
    ]
