"""An endpoint that is busy, broken or slow delays a study but loses no record, and the key is never written."""

import email.utils
import json
import math
import socket
import threading
import time
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palign import evaluation, problems
from palign.engines import endpoint
from palign.engines.base import EngineError, EngineStopped, Sampling, generate
from palign.engines.endpoint import KEY, ChatEngine, ServedEngine, Service
from palign.engines.opening import open_engine
from palign.engines.tokenizers import load_tokenizer
from palign.judging import Judge
from palign.params import Machine, Model, Params, validate
from palign.prompts import LABELS
from palign.strategies import OneReading, cutter
from palign.tasks.plan import Plan
from palign.traces import RULES, Trace
from tests.conftest import POCKET, read_jsonl, write_jsonl

pytestmark = pytest.mark.model

SAMPLING = Sampling(max_new_tokens=20, temperature=0.6)


def answer(text, finish="stop"):
    choice = {"message": {"content": text}, "finish_reason": finish}
    return json.dumps({"choices": [choice], "usage": {"prompt_tokens": 7, "completion_tokens": 3}})


@pytest.fixture
def service():
    """A service that follows a script: (status, body) for each POST in turn, the last one for all that follow; a
    function in place of a body makes it from the request. ``models``: the models that it says it serves, or the status
    with which it refuses to say; a function makes them from what was asked so far.
    """
    servers = []

    def start(*script, delay=0.0, models=(), port=0, headers=()):
        seen = []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"  # connections stay open

            def do_GET(self):
                listed = models(seen) if callable(models) else models
                found = {"/v1/models": {"data": listed}, "/version": {"version": "0.0"}}[self.path]
                self.reply(listed if isinstance(listed, int) else 200, json.dumps(found))

            def reply(self, status, text):
                self.send_response(status)
                for name, value in {**dict(headers), "Content-Length": len(text.encode())}.items():
                    self.send_header(name, str(value))
                self.end_headers()
                self.wfile.write(text.encode())

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                key, port = self.headers.get("Authorization"), self.client_address[1]
                seen.append({"path": self.path, "key": key, "port": port, **body})
                status, text = script[min(len(seen), len(script)) - 1]
                if callable(text):
                    text = text(body)
                if delay:
                    threading.Event().wait(delay)
                if status == "hang up":
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                self.reply(status, text)

            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        server.handle_error = lambda *_: None  # a client that did not wait for its answer
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/v1", seen

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def reached(*urls, **kwargs):
    return Service(urls, **{"concurrency": 8, "retries": 2, "pause": 0.001, **kwargs})


def engine(*urls, **kwargs):
    return ChatEngine(Model(name="endpoint:some-model", max_model_len=1000), reached(*urls, **kwargs))


@pytest.fixture
def one_try(monkeypatch):
    """Failures that are final at once, when the params open the engine."""
    monkeypatch.setattr(endpoint, "RETRIES", 0)
    monkeypatch.setattr(endpoint, "OUTAGE", 0.0)


def judge_of(engine, verdict="compare"):
    return Judge(engine, Params().judge_prompt, RULES["released"], verdict)


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
        (200, "[" * 10**5),
        (200, "[]"),
        (200, answer("")),
        (200, '{"choices": []}'),
        ("hang up", ""),
    ],
    ids=["busy", "broken", "malformed", "nested", "foreign", "empty", "no choice", "hung up"],
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
    assert 0 < len(lost) < 20 and {(completion.text, completion.reason) for completion in lost} == {("", "HTTP 503")}
    assert all(completion.text == "fine" for completion in found if completion not in lost)
    # each prompt keeps its address, so a second run asks the same services for the same shards
    again = both.generate(prompts, SAMPLING, list(range(20)))
    assert [c.finish for c in again] == [c.finish for c in found]


def test_what_asking_again_cannot_mend_is_not_asked_again(service):
    url, seen = service((404, "no such model"))
    (found,) = engine(url).generate(["?"], SAMPLING, [0])
    assert (found.finish, found.reason, len(seen)) == ("endpoint error", "HTTP 404", 1)


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("key", ["secret-123", ""])
def test_a_refused_key_stops_the_run_at_once(service, monkeypatch, status, key):
    """A wrong key used to run the whole study to its end, every response counted as wrong."""
    monkeypatch.setenv(KEY, key)
    url, seen = service((status, "the key secret-123 is wrong"), delay=0.01)
    why = (
        f"the service refuses the key; set {KEY}" if key else f"the service asks for a key and {KEY} is not set; set it"
    )
    with pytest.raises(EngineStopped, match=f"HTTP {status}: {why}$") as error:
        generate(engine(url, concurrency=2), ["?"] * 500, SAMPLING, [0] * 500)
    assert "secret" not in str(error.value) and len(seen) < 10


def test_a_refused_key_does_not_wait_for_a_busy_address(service):
    """One address is asked again for a minute; the other has refused the key long before."""
    busy, waiting = service((503, ""))
    refusing, _ = service((401, ""), delay=0.2)
    both = engine(busy, refusing, retries=6, pause=30.0, concurrency=4)
    prompts = sorted(
        (f"question {i}" for i in range(40)), key=lambda prompt: both.service.url(prompt) != both.service.urls[0]
    )
    start = time.monotonic()
    with pytest.raises(EngineStopped):
        both.generate([*prompts[:3], *prompts[::-1]], SAMPLING, [0] * 43)
    assert time.monotonic() - start < 10 and len(waiting) == 3


def test_a_refused_key_is_no_outcome_of_a_record(service, project, small, one_try):
    """It passes through the stages: the judge's, the evaluation's. A rerun with the right key finds nothing to mend."""
    url, _ = service((401, ""))
    values = small | CHAT | {"student": "endpoint:m", "endpoint_urls": [url], "judged_traces": 0, "entropy_traces": 0}
    params = Params(**values)
    problems.collect_benchmarks(params)
    with pytest.raises(EngineStopped):
        evaluation.respond(params, "zero-shot")
    assert not list(Plan(params).evaluation("zero-shot").folder.path.glob("responses*"))
    judge = judge_of(open_engine(params.model("student"), params.part(Machine)), "decode")
    with pytest.raises(EngineStopped):
        judge.open([("1+1?", ["One and one.", "Two."])])([(0, 1)])


def test_a_served_student_whose_key_is_refused_stops_too(service, tmp_path, one_try):
    url, _ = service((401, ""), models=[{"id": STUDENT}])
    tokens = served(url)
    for ask in (
        lambda: tokens.generate(["Take two."], SAMPLING, [0]),
        lambda: tokens.choose(["Take two."], LABELS),
        lambda: judge_of(tokens).open([("1+1?", ["One and one.", "Two."])])([(0, 1)]),
        lambda: open_engine(SERVED, Machine(endpoint_urls=[url]), tmp_path),  # loads the adapter
        lambda: cutter("one-reading", RULES["released"], OneReading(tokens, Params().boundary_prompt))(
            Trace("t", "1+1?", "2", "One and one. Two."), ["One and one.", "Two."]
        ),
    ):
        with pytest.raises(EngineStopped, match=KEY):
            ask()


def test_opening_a_served_student_says_that_the_key_is_refused(service, one_try):
    closed, _ = service((200, ""), models=403)
    with pytest.raises(EngineStopped, match=f"/models: HTTP 403: .*{KEY}"):
        open_engine(SERVED, Machine(endpoint_urls=[closed]))


def test_a_service_that_is_too_slow_is_an_error(service, monkeypatch):
    monkeypatch.setattr(endpoint, "WAIT", 0.05)
    monkeypatch.setattr(endpoint, "SLOWEST", 1000.0)
    url, _ = service((200, answer("late")), delay=0.5)
    (found,) = engine(url, retries=1).generate(["?"], SAMPLING, [0])
    assert (found.finish, found.reason) == ("endpoint error", "ReadTimeout")


@given(tokens=st.integers(1, 200_000), pace=st.floats(6.0, 500.0))
def test_a_server_that_writes_at_a_usual_pace_is_never_too_slow(tokens, pace):
    """16,384 tokens at 25 a second took longer than the 600 seconds that every request had, seven times."""
    asked = []

    class Client:
        def request(self, method, url, json, headers, timeout):
            asked.append(timeout)
            return httpx.Response(200, text=answer("fine"))

    one = engine("http://a/v1")
    one.service.client = Client()
    one.generate(["?"], Sampling(max_new_tokens=tokens), [0])
    assert asked[0].read >= tokens / pace + 120 and asked[0].connect <= 30


@pytest.fixture
def quick(monkeypatch):
    """An outage's pauses, shortened."""
    monkeypatch.setattr(endpoint, "OUTAGE_PAUSE", 0.02)


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_a_server_that_starts_again_is_waited_for(service, quick, capsys):
    """Refused connections were given up after 45 seconds, and each one became a record's error."""
    port = free_port()
    one = engine(f"http://127.0.0.1:{port}/v1", retries=0)
    timer = threading.Timer(0.3, lambda: service((200, answer("fine")), port=port))
    timer.start()
    found = one.generate(["?"] * 20, SAMPLING, [0] * 20)
    timer.join()
    assert [completion.text for completion in found] == ["fine"] * 20
    assert capsys.readouterr().err == f"http://127.0.0.1:{port} takes no connection; asking again for 10 minutes\n"


def test_a_server_that_stays_away_stops_the_run(quick, monkeypatch):
    """The rest of the records would all have become errors."""
    monkeypatch.setattr(endpoint, "OUTAGE", 0.2)
    gone = engine(f"http://127.0.0.1:{free_port()}/v1")
    with pytest.raises(EngineStopped, match="chat/completions: ConnectError: no connection for 0 s; start the server"):
        generate(gone, ["?"] * 500, SAMPLING, [0] * 500)


def dated(seconds):
    return email.utils.format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize("said", ["1", lambda: dated(2)], ids=["seconds", "date"])
def test_a_service_is_not_asked_before_the_time_that_it_names(service, said):
    """Retry-After was not read, so the tries were used up while the service still refused."""
    said = said() if callable(said) else said
    url, seen = service((429, ""), (200, answer("fine")), headers={"Retry-After": said})
    start = time.monotonic()
    (found,) = engine(url).generate(["?"], SAMPLING, [0])
    assert found.text == "fine" and len(seen) == 2 and time.monotonic() - start >= 0.9


def test_a_service_that_wants_a_day_of_rest_stops_the_run(service):
    url, seen = service((429, ""), headers={"Retry-After": "86400"})
    with pytest.raises(EngineStopped, match="HTTP 429: the service asks to wait 86400 s; run the study again then"):
        generate(engine(url, concurrency=1), ["?"] * 50, SAMPLING, [0] * 50)
    assert len(seen) == 1


@given(st.text() | st.integers().map(str) | st.sampled_from(["nan", "inf", "1e9", "-5", dated(-60), "Fri, 99 Foo"]))
def test_any_retry_after_is_a_number_of_seconds(said):
    assert 0 <= endpoint._retry_after(said) < math.inf


def test_one_client_serves_the_run_over_connections_that_stay_open(service):
    """Each batch, and each round of verdicts, opened a client and its connections anew."""
    url, seen = service((200, answer("fine")))
    one = engine(url, concurrency=2)
    for _ in range(5):
        one.generate(["?"] * 4, SAMPLING, [0] * 4)
    assert len(seen) == 20 and len({request["port"] for request in seen}) <= 2
    one.close()
    assert one.stopped


def test_completions_come_as_they_are_answered(service):
    """A batch was given out when its slowest response had come."""
    slow = threading.Event()

    def later(body):
        if "slow" in body["messages"][0]["content"]:
            slow.wait(10)
        return answer("fine")

    url, seen = service((200, later))
    stream = engine(url, concurrency=2).stream(["slow", *"abcdef"], SAMPLING, [0] * 7)
    assert {next(stream)[0] for _ in range(6)} == {1, 2, 3, 4, 5, 6}
    slow.set()
    assert next(stream)[0] == 0 and len(seen) == 7


def test_what_waits_is_not_sent_when_the_run_stops(service):
    """An interrupted call also waited for the requests that were under way."""
    held = threading.Event()

    def first_only(body):
        if body["messages"][0]["content"] != "first":
            held.wait(10)
        return answer("fine")

    url, seen = service((200, first_only))
    stream = engine(url, concurrency=2).stream(["first", *["?"] * 100], SAMPLING, [0] * 101)
    assert next(stream)[0] == 0
    start = time.monotonic()
    stream.close()  # as Ctrl-C does
    assert time.monotonic() - start < 1
    held.set()
    time.sleep(0.2)
    assert len(seen) <= 3


def test_no_more_requests_at_once_than_allowed(service):
    working = threading.Semaphore(2)
    url, seen = service((200, answer("fine")), delay=0.02)
    one = engine(url, concurrency=2)
    inner = one.service._try

    def counted(*args):
        assert working.acquire(blocking=False), "a third request at once"
        try:
            return inner(*args)
        finally:
            working.release()

    one.service._try = counted
    assert len(one.generate(["?"] * 8, SAMPLING, [0] * 8)) == len(seen) == 8


def test_the_key_goes_to_the_service_and_nowhere_else(service, monkeypatch, capfd):
    monkeypatch.setenv(KEY, "secret-123")
    url, seen = service((500, "secret-123"))
    one = engine(url, retries=0)
    (found,) = one.generate(["?"], SAMPLING, [0])
    assert seen[0]["key"] == "Bearer secret-123"
    said = capfd.readouterr()
    assert "secret" not in repr(found) + repr(vars(one)) + repr(vars(one.service)) + said.out + said.err


def test_a_judge_at_an_endpoint_decodes_and_its_errors_are_errors(service, one_try):
    model = Model(name="endpoint:judge")
    url, _ = service((200, answer("[ENOUGH]")))
    draft = [("1+1?", ["One and one.", "Two."])]
    (verdict,) = judge_of(open_engine(model, Machine(endpoint_urls=[url])), "decode").open(draft)([(0, 1)])
    assert verdict.label == "ENOUGH"
    broken, _ = service((400, ""))
    (verdict,) = judge_of(open_engine(model, Machine(endpoint_urls=[broken])), "decode").open(draft)([(0, 1)])
    assert (verdict.label, verdict.reason) == ("error", "endpoint error: HTTP 400")


def test_what_an_endpoint_cannot_do_is_said_in_a_line():
    with pytest.raises(EngineError, match=r"^endpoint:x: endpoint_urls is empty"):
        open_engine(Model(name="endpoint:x"), Machine())
    with pytest.raises(EngineError, match="verdict: decode"):
        engine("http://127.0.0.1:9/v1").choose(["?"], ["[A]"])


def test_thoughts_that_come_apart_are_kept_with_the_answer(service):
    message = {"content": "So 4.", "reasoning_content": "Two and two."}
    url, _ = service((200, json.dumps({"choices": [{"message": message, "finish_reason": "length"}]})))
    (found,) = engine(url).generate(["?"], SAMPLING, [0])
    assert (found.text, found.finish) == ("<think>Two and two.</think>So 4.", "length")


def test_a_key_that_no_request_can_carry_is_not_quoted(monkeypatch):
    monkeypatch.setenv(KEY, "secret-\u20ac")
    with pytest.raises(EngineError, match=KEY) as error:
        open_engine(Model(name="endpoint:x"), Machine(endpoint_urls=["http://127.0.0.1:9/v1"]))
    assert "secret" not in str(error.value)


CHAT = {"verdict": "decode", "arms": ["zero-shot"], "second_budget": None}


@pytest.mark.parametrize("url", ["http://me:secret@127.0.0.1/v1", "http://127.0.0.1/v1?api-key=secret"])
def test_an_address_with_a_key_in_it_is_refused(url):
    """The params, addresses and all, are written to every manifest."""
    with pytest.raises(ValueError, match="endpoint_urls: an address must hold no user") as error:
        validate({"study": "x", "student": "endpoint:x", "endpoint_urls": [url], **CHAT}, "x.yaml")
    assert "secret" not in str(error.value)


def test_an_error_is_counted_and_never_graded(service, project, small, one_try):
    """ "HTTP 503" has a number in it, which the lenient grader would take for an answer."""
    url, seen = service((200, answer("It is \\boxed{1}.")), (503, ""))
    params = Params(**small | CHAT | {"student": "endpoint:m", "endpoint_urls": [url], "endpoint_concurrency": 1})
    write_jsonl(project / "dial-2.jsonl", [p | {"answer": "503"} for p in read_jsonl(project / "dial-2.jsonl")])
    problems.collect_benchmarks(params)
    responses = evaluation.respond(params, "zero-shot")
    assert len(responses) == len(seen) == 8 * params.n_samples
    lost = [response for response in responses if response["finish"] == "endpoint error"]
    assert len(lost) == len(responses) - 1
    assert {(response["text"], response["reason"]) for response in lost} == {("", "HTTP 503")}
    task = Plan(params).evaluation("zero-shot")
    grades = task.read("grades")
    assert not any("right" in (g["outcome"], g["lenient"]) for g in grades if g["finish"] == "endpoint error")
    manifest = task.folder.manifest()
    assert manifest["never_answered"] == len(lost)
    assert manifest["engine"] == {"engine": "endpoint", "path": "chat/completions", "model": "m"}


STUDENT = str(POCKET / "student")
SERVED = Model(name=STUDENT, engine="endpoint")


def served(*urls, tries=0, **kwargs):
    model = SERVED.model_copy(update={"max_model_len": 200})
    return ServedEngine(model, reached(*urls, retries=tries, **kwargs), load_tokenizer(model))


def of_ids(ids, finish="stop", cached=0):
    """What vLLM's completions endpoint answers, made of the request."""

    def made(body):
        choice = {"token_ids": ids, "finish_reason": finish, "logprobs": None}
        if "allowed_token_ids" in body:
            choice["logprobs"] = {"token_logprobs": [-body["allowed_token_ids"][0] / 1000]}
        usage = {"prompt_tokens": len(body["prompt"]), "prompt_tokens_details": {"cached_tokens": cached}}
        return json.dumps({"choices": [choice], "usage": usage})

    return made


def test_a_served_student_is_asked_by_token_ids_and_told_everything(service):
    """vLLM takes missing settings from the model's generation config, and Qwen's has top_k 20."""
    tokenizer = load_tokenizer(SERVED)
    ids = tokenizer("Add the brass", add_special_tokens=False).input_ids
    url, seen = service((200, of_ids([*ids, tokenizer.eos_token_id])))
    (found,) = served(url).generate(["Take two."], SAMPLING, [2**62])
    assert (found.token_ids, found.text, found.finish) == (ids, tokenizer.decode(ids), "stop")
    asked = tokenizer("Take two.", add_special_tokens=False).input_ids
    assert (found.new_tokens, found.prompt_tokens) == (len(ids) + 1, len(asked))
    (request,) = seen
    expected = {"prompt": asked, "seed": 2**62, "max_tokens": 20, "temperature": 0.6, "model": STUDENT, "top_p": 1.0}
    expected |= {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
    assert request == expected | {
        "return_token_ids": True,
        "path": "/v1/completions",
        "key": None,
        "port": request["port"],
    }


def test_a_served_student_may_end_its_turn_at_once(service):
    """Empty is an answer here; it is an error only of a service that does not count its tokens."""
    url, seen = service((200, of_ids([683])))
    (found,) = served(url).generate(["Take two."], SAMPLING, [0])
    assert (found.text, found.finish, found.new_tokens, len(seen)) == ("", "stop", 1, 1)


def test_a_served_students_label_is_the_sum_of_its_tokens(service):
    url, seen = service((200, of_ids([1], finish="length", cached=2)))
    engine = served(url, concurrency=1)
    prompt = "Take two. Add the brass."
    (reading,) = engine.reader([prompt]).choose([(0, prompt)], LABELS)
    tails = engine.tokenizer(list(LABELS), add_special_tokens=False).input_ids
    assert reading.value == pytest.approx([-sum(tail) / 1000 for tail in tails])
    assert len(seen) == len({(*tail[: j + 1],) for tail in tails for j in range(len(tail))}) < sum(map(len, tails))
    assert reading.shared_tokens == sum(len(request["prompt"]) - 2 for request in seen)
    (long,) = engine.choose(["brass " * 300], LABELS)
    assert long is None


@pytest.mark.parametrize(
    "script, reason",
    [
        ((500, ""), "HTTP 500"),
        ((200, "{"), "malformed answer"),
        ((200, of_ids([5], finish="abort")), "the request was ended by 'abort'"),
    ],
    ids=["broken", "malformed", "aborted"],
)
def test_a_served_students_errors_are_outcomes(service, script, reason):
    url, seen = service(script)
    engine = served(url, tries=1)
    (found,) = engine.generate(["Take two."], SAMPLING, [0])
    assert (found.finish, found.reason, found.text, len(seen)) == ("endpoint error", reason, "", 2)
    if "ended" not in reason:
        (verdict,) = judge_of(engine).open([("1+1?", ["One and one.", "Two."])])([(0, 1)])
        assert (verdict.label, verdict.reason) == ("error", f"endpoint error: {reason}")


def test_a_traces_nested_prompts_go_to_one_server(service):
    """If they were scattered over the servers, none would find the trace's beginning in its cache."""
    both = [service((200, of_ids([1]))) for _ in range(2)]
    engine = served(*(url for url, _ in both))
    texts = [f"Take {n}. Add the brass. Now five." for n in ("one", "two", "three", "four", "five", "eight")]
    asked = [(i, text[:cut]) for i, text in enumerate(texts) for cut in (9, 24, None)]
    assert all(reading.value for reading in engine.reader(texts).choose(asked, LABELS))
    first = engine.tokenizer(texts, add_special_tokens=False).input_ids
    for i, text in enumerate(texts):
        homes = [url for url, seen in both if any(r["prompt"][:2] == first[i][:2] for r in seen)]
        assert homes == [engine.service.url(text)]
    assert all(seen for _, seen in both)


def test_opening_a_served_student_asks_every_server_what_it_serves(service, one_try):
    url, _ = service((200, ""), models=[{"id": STUDENT, "max_model_len": 4096}])
    assert open_engine(SERVED, Machine(endpoint_urls=[url])).settings == {
        "engine": "endpoint",
        "path": "completions",
        "model": STUDENT,
        "lora": False,
        "servers": [{"version": "0.0", "max_model_len": 4096}],
    }
    other, _ = service((200, ""), models=[{"id": "another"}])
    with pytest.raises(EngineError, match=f"{other} does not serve"):
        open_engine(SERVED, Machine(endpoint_urls=[url, other]))
    with pytest.raises(EngineError, match=f"max_model_len: {url} serves 4096 tokens, not 5000"):
        open_engine(SERVED.model_copy(update={"max_model_len": 5000}), Machine(endpoint_urls=[url]))
    with pytest.raises(EngineStopped, match=r"^http://127.0.0.1:9/v1/models: ConnectError: no connection for 0 s"):
        open_engine(SERVED, Machine(endpoint_urls=["http://127.0.0.1:9/v1"]))


def test_a_server_loads_an_adapter_by_its_content(service, tmp_path, one_try):
    (tmp_path / "adapter_config.json").write_text("{}")
    url, seen = service((200, "Success"), models=[{"id": STUDENT}])
    machine = Machine(endpoint_urls=[url])
    engine = open_engine(SERVED, machine, tmp_path)
    assert engine.settings["lora"] and engine.model.startswith("palign-")
    assert (seen[0]["path"], seen[0]["lora_name"], seen[0]["lora_path"]) == (
        "/v1/load_lora_adapter",
        engine.model,
        str(tmp_path),
    )
    (tmp_path / "adapter_config.json").write_text('{"r": 8}')
    assert open_engine(SERVED, machine, tmp_path).model != engine.model
    unwilling, _ = service((404, ""), models=[{"id": STUDENT}])
    with pytest.raises(EngineError, match=r"did not load the adapter \(HTTP 404\); start vLLM with --enable-lora"):
        open_engine(SERVED, Machine(endpoint_urls=[unwilling]), tmp_path)


def test_a_server_that_forgot_the_adapter_loads_it_again(service, tmp_path):
    """A vLLM server that was started again knows no adapter, and each response became "HTTP 404"."""
    (tmp_path / "adapter_config.json").write_text("{}")
    fine = (200, of_ids([1]))
    url, seen = service((200, ""), fine, (404, ""), (404, ""), (200, ""), fine, models=[{"id": STUDENT}])
    engine = open_engine(SERVED, Machine(endpoint_urls=[url], endpoint_concurrency=1), tmp_path)
    found = engine.generate(["One.", "Two.", "Three."], SAMPLING, [0] * 3)
    assert [completion.finish for completion in found] == ["stop"] * 3
    loads = [request["path"].endswith("load_lora_adapter") for request in seen]
    assert loads == [True, False, False, False, True, False, False]
