"""vLLM says what the transformers engine says. Starts vLLM for real, on the pocket student: `make test-vllm`.

Left out, all of it, where vLLM is not installed.
"""

import json
import os
import socket
import subprocess
import sys
import time

import pytest

from palign.engines import EngineError, Sampling, open_engine
from palign.engines.vllm import ON_CPU, VllmEngine
from palign.judging import Judge
from palign.params import Params
from palign.prompts import fill, render
from palign.traces import RULES

from .conftest import POCKET, read_jsonl

pytestmark = pytest.mark.vllm
BASE = {"student": str(POCKET / "student"), "device": "cpu", "max_model_len": 512, "batch_size": 16}
PLAIN, VLLM = Params(**BASE), Params(**BASE, engine="vllm")
GREEDY = Sampling(max_new_tokens=60)


def problems(count):
    return read_jsonl(POCKET / "data" / "train.jsonl")[:count]


def prompts(engine, count):
    questions = [problem["question"] for problem in problems(count)]
    return [
        render(engine.tokenizer, fill(PLAIN.answer_prompt, question=q), PLAIN.chat_template_kwargs) for q in questions
    ]


@pytest.fixture(scope="module")
def plain():
    return open_engine(PLAIN)


@pytest.fixture(scope="module")
def served():
    pytest.importorskip("vllm", reason="vLLM is not installed; see `make test-vllm`")
    return open_engine(VLLM)


def test_greedy_responses_are_the_same(plain, served):
    asked = prompts(plain, 12)
    ours, theirs = (engine.generate(asked, GREEDY, range(12)) for engine in (plain, served))
    assert [(c.token_ids, c.finish, c.new_tokens, c.text) for c in ours] == [
        (c.token_ids, c.finish, c.new_tokens, c.text) for c in theirs
    ]


def test_verdicts_are_the_same_and_their_margins_too(plain, served):
    drafts = [(p["question"], RULES["released"].split(p["trace"])) for p in problems(6)]
    asked = [(i, p) for i, (_, parts) in enumerate(drafts) for p in (2, len(parts) // 2, len(parts))]
    ours, theirs = (Judge(engine, PLAIN).open(drafts)(asked) for engine in (plain, served))
    assert [v.label for v in ours] == [v.label for v in theirs]
    assert [v.margin for v in theirs] == pytest.approx([v.margin for v in ours], abs=1e-3)


def test_nested_prompts_find_their_beginning_in_the_cache(served):
    """A trace is read about once, whatever the number of verdicts, but for the blocks that a cut divides."""
    problem = problems(40)[-1]  # one that no other test has read
    parts = RULES["released"].split(problem["trace"])
    judge = Judge(served, PLAIN)
    asked = [(0, p) for p in range(len(parts) // 2, len(parts) + 1)]
    verdicts = judge.open([(problem["question"], parts)])(asked)
    read, whole = (sum(getattr(v, name) for v in verdicts) for name in ("trace_tokens", "prompt_tokens"))
    requests = 1 + sum(len(served.tokenizer(label).input_ids) for label in ("ENOUGH", "NOT_ENOUGH"))
    assert read < whole * requests / 3


def test_a_seed_is_a_requests_own(served):
    asked = prompts(served, 4)
    sampling = Sampling(max_new_tokens=40, temperature=0.9, top_p=0.95, repetition_penalty=1.05)
    first = served.generate(asked, sampling, [1, 2, 3, 4])
    again = served.generate(asked, sampling, [1, 2, 3, 4])
    other = served.generate(asked, sampling, [5, 6, 7, 8])
    assert [c.text for c in first] == [c.text for c in again] != [c.text for c in other]


def test_an_over_long_prompt_costs_itself_only(served):
    """vLLM alone refuses a whole call for one prompt too many tokens long."""
    good = prompts(served, 2)
    found = served.generate([good[0], "brass " * 600, good[1]], GREEDY, [0, 0, 0])
    assert [c.finish for c in found] == ["stop", "prompt too long", "stop"]
    assert served.choose(["brass " * 600, good[0]], ("[ENOUGH]", "[NOT_ENOUGH]"))[0] is None


def test_an_adapter_is_served_as_if_merged(tmp_path, served):
    """Two engines in one process are too many for some machines, so the one with an adapter has its own."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(POCKET / "student")
    config = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", init_lora_weights=False)
    get_peft_model(model, config).save_pretrained(tmp_path / "adapter")
    code = (
        "import json, sys; from palign.params import Params; from palign.engines import Sampling, open_engine\n"
        "asked, base, adapter = json.loads(sys.argv[1])\n"
        "engine = open_engine(Params(**base, engine='vllm'), adapter)\n"
        "found = engine.generate(asked, Sampling(max_new_tokens=30), [0] * len(asked))\n"
        "print('FOUND', json.dumps([c.token_ids for c in found]))"
    )
    asked = prompts(served, 6)
    arguments = json.dumps([asked, BASE, str(tmp_path / "adapter")])
    out = subprocess.run([sys.executable, "-c", code, arguments], capture_output=True, text=True, check=False)
    found = [line for line in out.stdout.splitlines() if line.startswith("FOUND ")]
    assert found, out.stderr[-2000:]
    merged = open_engine(PLAIN, tmp_path / "adapter")
    expected = merged.generate(asked, Sampling(max_new_tokens=30), [0] * len(asked))
    assert json.loads(found[0].removeprefix("FOUND ")) == [c.token_ids for c in expected]
    plain = open_engine(PLAIN).generate(asked, Sampling(max_new_tokens=30), [0] * len(asked))
    assert [c.token_ids for c in plain] != [c.token_ids for c in expected]  # the adapter does something


@pytest.fixture(scope="module")
def servers(served, tmp_path_factory):
    """Two OpenAI-compatible servers of the pocket student on loopback."""
    ports, processes = [], []
    log = (tmp_path_factory.mktemp("servers") / "log").open("w")
    for _ in range(2):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            ports.append(free.getsockname()[1])
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--host", "127.0.0.1"]
        command += ["--model", BASE["student"], "--served-model-name", "pocket", "--port", str(ports[-1])]
        command += ["--dtype", "float32", "--max-model-len", "512", "--enforce-eager", "--block-size", "32"]
        environment = {**os.environ, **ON_CPU, "OMP_NUM_THREADS": "1"}
        processes.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
    yield [f"http://127.0.0.1:{port}/v1" for port in ports], processes
    for process in processes:
        process.terminate()
    for process in processes:
        process.wait(30)


def test_two_servers_share_a_study_and_say_what_the_engine_says(servers, plain):
    """Sharding is by prompt: each question goes to one address, and the answers put together are the whole."""
    urls, processes = servers
    wait_for(urls, processes)
    one = Params(**BASE | {"student": "endpoint:pocket"}, endpoint_urls=urls, verdict="decode", arms=["zero-shot"])
    engine = open_engine(one)
    asked = [fill(PLAIN.answer_prompt, question=problem["question"]) for problem in problems(10)]
    found = engine.generate(asked, GREEDY, [0] * 10)
    expected = plain.generate(prompts(plain, 10), GREEDY, [0] * 10)
    assert {engine._url(prompt) for prompt in asked} == set(urls)
    assert [c.text for c in found] == [c.text for c in expected]
    assert all(c.finish == "stop" and c.new_tokens for c in found)


def wait_for(urls, processes, seconds=240):
    import httpx

    end = time.monotonic() + seconds
    for url in urls:
        while True:
            assert all(process.poll() is None for process in processes), "a server died"
            try:
                if httpx.get(f"{url}/models", timeout=5).status_code == 200:
                    break
            except httpx.HTTPError:
                pass
            assert time.monotonic() < end, "a server did not start"
            time.sleep(1)


def test_without_vllm_the_engine_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(EngineError, match="vllm is not installed"):
        VllmEngine.open(VLLM)
