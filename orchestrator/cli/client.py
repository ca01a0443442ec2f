"""The HTTP API from Python: answers as values, problems as Failures."""

from __future__ import annotations

import json
import ssl
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Self
from urllib.parse import quote

import httpx

from .config import Settings
from .connection_problems import no_answer, no_proxy, not_let_in, not_muster
from .failures import Code, Failure, Unreachable
from .output import tell

PAUSES = (0.1, 0.3, 1.0)
"""Between one attempt and the next."""

CONNECT_WITHIN = 5.0
"""Seconds; whoever speaks another protocol just stays silent."""

SAY_AFTER = 3.0
"""Seconds after which a person is told what is being waited for."""

SILENT_AFTER = 20.0
"""Seconds without a sign of life, which a log's stream gives every five, until it is given up."""

PAGE = 500
"""Items in one answer at most."""

MOST = 100_000
"""Items that anybody asks for at once."""

RECORDS = "application/x-ndjson"

_CODES: Mapping[int, Code] = {
    400: Code.USAGE,
    403: Code.DENIED,
    404: Code.NOT_FOUND,
    409: Code.CONFLICT,
    412: Code.CONFLICT,
    413: Code.USAGE,
    415: Code.USAGE,
    422: Code.CONFLICT,
}
#: What lists things of one namespace, and, with all below it, what names them there.
_LISTS = {"executions", "evaluations", "events"}
_NAMED = {"jobs", "secrets"}
_PASSING = {429, 502, 503, 504}
LONGEST_PAUSE = 5.0
"""Seconds that a server may ask to be left alone for, and be asked again all the same."""


class Client:
    """Speaks to one server.  Every change carries an idempotency key, so it may be repeated."""

    def __init__(
        self,
        settings: Settings,
        *,
        timeout: float = 20.0,
        silent_after: float = SILENT_AFTER,
        say_after: float = SAY_AFTER,
    ) -> None:
        headers = {"User-Agent": "muster-cli", "Accept": "application/json"}
        if settings.token is not None:
            headers["Authorization"] = f"Bearer {settings.token}"
        self.server, self._settings = settings.server, settings
        self._silent_after, self._say_after = silent_after, say_after
        try:
            self._http = httpx.Client(
                base_url=f"{self.server}/api/v1/",
                headers=headers,
                timeout=httpx.Timeout(timeout, connect=CONNECT_WITHIN),
                # Loading the authorities takes long, and plain HTTP asks none of them.
                verify=ssl.create_default_context() if self.server.startswith("https:") else False,
            )
        except (ValueError, httpx.InvalidURL):
            raise no_proxy() from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def get(self, path: str, **parameters: Any) -> Any:
        asked = self._within(path) | _given(parameters)
        return self._decoded(self._ask("GET", path, params=asked))

    def post(self, path: str, body: Mapping[str, Any] | bytes | None = None) -> Any:
        """Change something, once, however often it has to be said."""
        content = body if isinstance(body, bytes) else json.dumps(body or {}).encode()
        return self._change("POST", path, content)

    def delete(self, path: str) -> Any:
        """Remove something; saying it again is no error."""
        return self._change("DELETE", path)

    def put(
        self,
        path: str,
        body: Mapping[str, Any],
        *,
        namespace: str | None = None,
        create_only: bool = False,
    ) -> Any:
        """Have there what *body* says; in *namespace*, if that is not the one of this call."""
        content = json.dumps(body).encode()
        return self._change("PUT", path, content, namespace=namespace, create_only=create_only)

    def submit(self, job: bytes) -> dict[str, Any]:
        """Submit the JSON text of a job."""
        answer: dict[str, Any] = self.post("jobs", job)
        return answer

    def items(self, path: str, *, most: int, **parameters: Any) -> Items:
        """Up to *most* items of a list, over as many pages as that takes."""
        found, cursor = Items(), ""
        while len(found) < most:
            limit = min(PAGE, most - len(found))
            page = self.get(path, limit=limit, cursor=cursor, **parameters)
            found += page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                return found
        found.are_more = True
        return found

    def records(self, path: str, **parameters: Any) -> Iterator[dict[str, Any]]:
        """The JSON records of a stream as they come, signs of life among them."""
        timeout = httpx.Timeout(self._silent_after, connect=CONNECT_WITHIN)
        try:
            with self._http.stream(
                "GET",
                path,
                params=self._within(path) | _given(parameters),
                headers={"Accept": RECORDS},
                timeout=timeout,
            ) as response:
                if not response.is_success:
                    response.read()
                    raise self._failure(response)
                yield from _records(response.iter_bytes())
        except httpx.TransportError as error:
            raise self._unreachable(error) from None
        except (ValueError, httpx.DecodingError):
            what = "something that is no stream of records"
            raise not_muster(self._settings, None, what) from None

    def _within(self, path: str) -> dict[str, str]:
        """The parameter that says in which namespace names are looked up, where that matters."""
        named = path.partition("/")[0] in _NAMED or path in _LISTS
        return {"namespace": self._settings.namespace} if named and self._settings.namespace else {}

    def _change(
        self,
        method: str,
        path: str,
        content: bytes | None = None,
        *,
        namespace: str | None = None,
        create_only: bool = False,
    ) -> Any:
        headers = {"Idempotency-Key": str(uuid.uuid4())}
        if content is not None:
            headers["Content-Type"] = "application/json"
        if create_only:
            headers["If-None-Match"] = "*"
        asked = self._within(path) | _given({"namespace": namespace})
        return self._decoded(
            self._ask(method, path, params=asked, content=content, headers=headers)
        )

    def _ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        """One answer.  What passes is asked again a few times; a refused connection is not."""
        with self._saying_what_is_awaited():
            return self._repeatedly(method, path, **more)

    @contextmanager
    def _saying_what_is_awaited(self) -> Iterator[None]:
        """Tell people after a while what this waits for."""
        wait = f"muster: waiting for {self.server}, which takes its time to answer"
        timer = threading.Timer(self._say_after, tell, [wait])
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _repeatedly(self, method: str, path: str, **more: Any) -> httpx.Response:
        for pause in (*PAUSES, None):
            try:
                response = self._http.request(method, path, **more)
            except (httpx.ReadError, httpx.RemoteProtocolError, httpx.WriteError) as error:
                if pause is None:
                    raise self._unreachable(error) from None
            except httpx.TransportError as error:
                raise self._unreachable(error) from None
            except httpx.DecodingError:
                raise not_muster(self._settings, None, "what cannot be unpacked") from None
            else:
                if response.is_success:
                    return response
                asked = _pause_asked_for(response)
                if pause is None or response.status_code not in _PASSING or asked > LONGEST_PAUSE:
                    raise self._failure(response)
                time.sleep(asked)
            time.sleep(pause)
        raise AssertionError("the last attempt answers or raises")

    def _unreachable(self, error: httpx.TransportError) -> Unreachable:
        connecting = isinstance(error, httpx.ConnectTimeout)
        within = CONNECT_WITHIN if connecting else self._http.timeout.read or 0.0
        return no_answer(self._settings, error, within=within)

    def _failure(self, response: httpx.Response) -> Failure:
        problem = _problem(response)
        if problem is None or not (problem.get("detail") or problem.get("title")):
            return not_muster(self._settings, response, "something else")
        if response.status_code == httpx.codes.UNAUTHORIZED:
            return not_let_in(self._settings)
        request_id = problem.get("request_id")
        sentence = str(problem.get("detail") or problem.get("title"))
        if response.status_code >= 500 and request_id:
            sentence += f" (request {request_id})"
        return (Unreachable if response.status_code >= 500 else Failure)(
            sentence,
            code=_CODES.get(response.status_code, Code.ERROR),
            hint=str(problem.get("hint") or ""),
            errors=[it for it in problem.get("errors") or [] if isinstance(it, dict)],
        )

    def _decoded(self, response: httpx.Response) -> Any:
        try:
            found = response.json(object_hook=partial(_Answer, self._settings, response))
        except (ValueError, RecursionError):
            raise not_muster(self._settings, response, "something that is no JSON") from None
        if not isinstance(found, dict):
            raise not_muster(self._settings, response, "other JSON")
        items = found.get("items", [])
        if not isinstance(items, list) or not all(isinstance(it, dict) for it in items):
            raise not_muster(self._settings, response, "no list")
        return found


class _Answer(dict[str, Any]):
    """An object of an answer; what Muster's have, and this one has not, is a Failure."""

    def __init__(self, settings: Settings, response: httpx.Response, found: dict[str, Any]) -> None:
        super().__init__(found)
        self._of = settings, response

    def __missing__(self, name: str) -> Any:
        raise not_muster(*self._of, f"JSON without {name!r}")


class Items(list[dict[str, Any]]):
    """The beginning of a list, and whether there *are more* than these."""

    are_more: bool = False


def tell_of_more(found: Items, option: str) -> None:
    """Say that there are more than *found*, and that *option* with a number shows them."""
    if found.are_more:
        tell(f"The first {len(found)}; {option} {min(10 * len(found), MOST)} shows more.")


def _records(pieces: Iterator[bytes]) -> Iterator[dict[str, Any]]:
    """One object a line; what is left of one that was cut off is dropped."""
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        yield from map(json.loads, lines)


def _pause_asked_for(response: httpx.Response) -> float:
    said = response.headers.get("Retry-After", "")
    too_many = response.status_code == httpx.codes.TOO_MANY_REQUESTS
    return float(said) if too_many and said.isascii() and said.isdigit() else 0.0


def segment(ref: str) -> str:
    """*ref* as one segment of an address.

    Raises Failure for what cannot be one, and would lead to another address: it names nothing.
    """
    if ref in {"", ".", ".."} or "/" in ref:
        raise Failure(
            f"Nothing is called {ref!r}.",
            code=Code.NOT_FOUND,
            hint="Give a name, an id, or the beginning of an id.",
        )
    return quote(ref, safe="")


def _problem(response: httpx.Response) -> dict[str, Any] | None:
    """The problem that *response* tells; None when it is not one of ours."""
    if response.headers.get("Content-Type", "").split(";")[0] != "application/problem+json":
        return None
    try:
        problem = response.json()
    except ValueError:
        return None
    return problem if isinstance(problem, dict) else None


def _given(parameters: Mapping[str, Any]) -> dict[str, str]:
    return {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in parameters.items()
        if value not in (None, "")
    }
