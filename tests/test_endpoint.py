"""An endpoint that is busy, broken or slow costs patience, never a record, and the key stays where it was."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from palign.engines import EngineError, Sampling, open_engine
from palign.engines.endpoint import KEY, EndpointEngine
from palign.judging import Judge
from palign.params import Params

SAMPLING = Sampling(max_new_tokens=20, temperature=0.6)


def answer(text, finish="stop"):
    choice = {"message": {"content": text}, "finish_reason": finish}
    return json.dumps({"choices": [choice], "usage": {"prompt_tokens": 7, "completion_tokens": 3}})


@pytest.fixture
def service():
    """A service that follows a script: (status, body) for each request in turn, the last one for all that follow."""
    servers = []

    def start(*script, delay=0.0):
        seen = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                seen.append({"path": self.path, "key": self.headers.get("Authorization"), **body})
                status, text = script[min(len(seen), len(script)) - 1]
                if delay:
                    threading.Event().wait(delay)
                if status == "hang up":
                    self.connection.close()
                    return
                self.send_response(status)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.handle_error = lambda *_: None  # a client that did not wait for its answer
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/v1", seen

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def engine(*urls, **kwargs):
    return EndpointEngine(urls, "some-model", 1000, **{"retries": 2, "pause": 0.001, "timeout": 5.0, **kwargs})


def test_a_completion_comes_back_with_its_tokens(service):
    url, seen = service((200, answer("It is \\boxed{4}.")))
    (found,) = engine(url).generate(["2+2?"], SAMPLING, [3])
    assert (found.text, found.finish, found.prompt_tokens, found.new_tokens) == ("It is \\boxed{4}.", "stop", 7, 3)
    (request,) = seen
    assert request["path"] == "/v1/chat/completions" and request["messages"][0]["content"] == "2+2?"
    assert (request["model"], request["max_tokens"], request["seed"]) == ("some-model", 20, 3)


@pytest.mark.parametrize(
    "fault",
    [
        (429, ""),
        (500, "oops"),
        (200, "{not json"),
        (200, "[]"),
        (200, answer("")),
        (200, '{"choices": []}'),
        ("hang up", ""),
    ],
    ids=["busy", "broken", "malformed", "foreign", "empty", "no choice", "hung up"],
)
def test_a_passing_fault_is_waited_out(service, fault):
    url, seen = service(fault, fault, (200, answer("fine")))
    (found,) = engine(url).generate(["?"], SAMPLING, [0])
    assert found.text == "fine" and len(seen) == 3


def test_a_lasting_fault_costs_its_own_item_only(service):
    broken, _ = service((503, ""))
    working, _ = service((200, answer("fine")))
    both = engine(broken, working)
    prompts = [f"question {i}" for i in range(20)]
    found = both.generate(prompts, SAMPLING, list(range(20)))
    lost = [completion for completion in found if completion.finish == "endpoint error"]
    assert 0 < len(lost) < 20 and {completion.text for completion in lost} == {"HTTP 503"}
    assert all(completion.text == "fine" for completion in found if completion not in lost)
    # each prompt keeps its address, so a second run asks the same services for the same shards
    again = both.generate(prompts, SAMPLING, list(range(20)))
    assert [c.finish for c in again] == [c.finish for c in found]


def test_what_asking_again_cannot_mend_is_not_asked_again(service):
    url, seen = service((401, "no key"))
    (found,) = engine(url).generate(["?"], SAMPLING, [0])
    assert (found.finish, found.text, len(seen)) == ("endpoint error", "HTTP 401", 1)


def test_a_service_that_is_too_slow_is_an_error(service):
    url, _ = service((200, answer("late")), delay=0.5)
    (found,) = engine(url, timeout=0.05, retries=1).generate(["?"], SAMPLING, [0])
    assert (found.finish, found.text) == ("endpoint error", "ReadTimeout")


def test_no_more_requests_at_once_than_allowed(service):
    working = threading.Semaphore(2)
    url, seen = service((200, answer("fine")), delay=0.02)
    one = engine(url, concurrency=2)
    inner = one._try

    def counted(*args):
        assert working.acquire(blocking=False), "a third request at once"
        try:
            return inner(*args)
        finally:
            working.release()

    one._try = counted
    assert len(one.generate(["?"] * 8, SAMPLING, [0] * 8)) == len(seen) == 8


def test_the_key_goes_to_the_service_and_nowhere_else(service, monkeypatch, capfd):
    monkeypatch.setenv(KEY, "secret-123")
    url, seen = service((500, "secret-123"))
    one = engine(url, retries=0)
    (found,) = one.generate(["?"], SAMPLING, [0])
    assert seen[0]["key"] == "Bearer secret-123"
    said = capfd.readouterr()
    assert "secret" not in repr(found) + repr(one.__dict__) + said.out + said.err


def test_a_judge_at_an_endpoint_decodes_and_its_errors_are_errors(service):
    url, _ = service((200, answer("[ENOUGH]")))
    params = Params(
        student="endpoint:judge", endpoint_urls=[url], verdict="decode", endpoint_retries=0, arms=["zero-shot"]
    )
    draft = [("1+1?", ["One and one.", "Two."])]
    (verdict,) = Judge(open_engine(params), params).open(draft)([(0, 1)])
    assert verdict.label == "ENOUGH"
    broken, _ = service((400, ""))
    params = params.model_copy(update={"endpoint_urls": [broken]})
    (verdict,) = Judge(open_engine(params), params).open(draft)([(0, 1)])
    assert (verdict.label, verdict.reason) == ("error", "endpoint: HTTP 400")


def test_what_an_endpoint_cannot_do_is_said_in_a_line():
    with pytest.raises(EngineError, match="endpoint_urls is empty"):
        open_engine(Params(student="endpoint:x", verdict="decode", arms=["zero-shot"]))
    with pytest.raises(EngineError, match="verdict: decode"):
        engine("http://127.0.0.1:9/v1").choose(["?"], ["[A]"])


def test_thoughts_that_come_apart_are_kept_with_the_answer(service):
    message = {"content": "So 4.", "reasoning_content": "Two and two."}
    url, _ = service((200, json.dumps({"choices": [{"message": message, "finish_reason": "length"}]})))
    (found,) = engine(url).generate(["?"], SAMPLING, [0])
    assert (found.text, found.finish) == ("<think>Two and two.</think>So 4.", "length")
