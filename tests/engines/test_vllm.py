"""vLLM gives the results of the transformers engine. Starts vLLM on the pocket student: `make test-vllm`. Skipped where
vLLM is not installed.
"""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time

import pytest

from palign import finetuning
from palign.engines.base import EngineError, EngineStopped, Sampling, seed_of
from palign.engines.labels import Request
from palign.engines.opening import open_engine
from palign.engines.tokenizers import load_tokenizer
from palign.engines.vllm import ON_CPU, PROMPTS_A_PASS, VllmEngine, lora_rank
from palign.judging import Judge
from palign.params import Machine, Model, Params
from palign.prompts import LABELS, fill
from palign.traces import RULES, Trace, sufficient_sentences
from palign.truncation import released, searched
from tests.conftest import POCKET, read_jsonl

pytestmark = pytest.mark.vllm
STUDENT = str(POCKET / "student")
PLAIN = Model(name=STUDENT, max_model_len=512, chat_template_kwargs=Params().chat_template_kwargs)
VLLM, SERVED = (PLAIN.model_copy(update={"engine": engine}) for engine in ("vllm", "endpoint"))
MACHINE = Machine(device="cpu", batch_size=80)
GREEDY = Sampling(max_new_tokens=60)


def problems(count):
    return read_jsonl(POCKET / "data" / "train.jsonl")[:count]


def asking(count):
    """The users' turns that ask the first so many problems."""
    return [fill(Params().answer_prompt, question=problem["question"]) for problem in problems(count)]


def prompts(engine, count):
    return [engine.prompt(user) for user in asking(count)]


def judge_of(engine, verdict="compare"):
    return Judge(engine, Params().judge_prompt, RULES["released"], verdict)


@pytest.fixture(scope="module")
def plain():
    return open_engine(PLAIN, MACHINE)


@pytest.fixture(scope="module")
def served():
    pytest.importorskip("vllm", reason="vLLM is not installed; see `make test-vllm`")
    return open_engine(VLLM, MACHINE)


def test_greedy_responses_are_the_same(plain, served):
    asked = prompts(plain, 12)
    ours, theirs = (engine.generate(asked, GREEDY, range(12)) for engine in (plain, served))
    assert [(c.token_ids, c.finish, c.new_tokens, c.text) for c in ours] == [
        (c.token_ids, c.finish, c.new_tokens, c.text) for c in theirs
    ]


def drafts_of(count):
    """Questions with their traces' sentences, and verdicts to ask for."""
    drafts = [(p["question"], RULES["released"].split(p["trace"])) for p in problems(count)]
    return drafts, [(i, p) for i, (_, parts) in enumerate(drafts) for p in (2, len(parts) // 2, len(parts))]


def test_verdicts_are_the_same_and_their_margins_too(plain, served):
    drafts, asked = drafts_of(6)
    ours, theirs = (judge_of(engine).open(drafts)(asked) for engine in (plain, served))
    assert {v.label for v in ours} == {"ENOUGH", "NOT_ENOUGH"}
    assert [v.label for v in ours] == [v.label for v in theirs]
    assert [v.margin for v in theirs] == pytest.approx([v.margin for v in ours], abs=1e-3)


def test_decoded_verdicts_are_the_same(plain, served):
    drafts, asked = drafts_of(6)
    ours, theirs = (judge_of(engine, "decode").open(drafts)(asked) for engine in (plain, served))
    assert [(v.label, v.new_tokens) for v in ours] == [(v.label, v.new_tokens) for v in theirs]


def test_label_log_probabilities_are_the_same(plain, served):
    """Labels of several tokens, some of which begin alike, and one that begins as another ends."""
    labels = [*LABELS, "[", "[NOT"]
    asked = prompts(plain, 4)
    for ours, theirs in zip(plain.choose(asked, labels), served.choose(asked, labels), strict=True):
        assert theirs == pytest.approx(ours, abs=1e-3)


def test_nested_prompts_find_their_beginning_in_the_cache(served):
    """Each verdict on the second half of a trace prefills at most one block that is not cached."""
    problem = problems(40)[-1]  # one that no other test has read
    parts = RULES["released"].split(problem["trace"])
    judge = judge_of(served)
    asked = [(0, p) for p in range(len(parts) // 2, len(parts) + 1)]
    verdicts = judge.open([(problem["question"], parts)])(asked)
    longest = max(v.prompt_tokens for v in verdicts)
    steps = 8  # requests of a verdict: "[", then three tokens of ENOUGH] and four of NOT_ENOUGH]
    tails = served.tokenizer(list(LABELS), add_special_tokens=False).input_ids
    assert len({(*tail[: j + 1],) for tail in tails for j in range(len(tail))}) <= steps
    read, demand = sum(v.trace_tokens for v in verdicts), 64  # two blocks: the cut one, and what follows the trace
    assert read <= longest + len(verdicts) * steps * demand
    assert read < 0.5 * sum(v.prompt_tokens for v in verdicts) * steps


def test_a_seed_is_a_requests_own(served):
    """Seeds of a study have 63 bits."""
    asked = prompts(served, 4)
    sampling = Sampling(max_new_tokens=40, temperature=0.9, top_p=0.95, repetition_penalty=1.05)
    seeds = [seed_of("test", i) for i in range(4)]
    first = served.generate(asked, sampling, seeds)
    again = served.generate(asked, sampling, seeds)
    other = served.generate(asked, sampling, [seed_of("other", i) for i in range(4)])
    assert [c.text for c in first] == [c.text for c in again] != [c.text for c in other]


def test_more_prompts_with_seeds_than_one_pass_holds(served):
    """On a CPU, vLLM crashed on the first prompt that it split into chunks."""
    judge = judge_of(served)
    asked = [judge.prompt(p["question"], RULES["released"].split(p["trace"])) for p in problems(80)]
    assert sum(len(served.tokenizer(prompt).input_ids) for prompt in asked) > 1.5 * PROMPTS_A_PASS
    seeds = [seed_of("test", i) for i in range(80)]
    sampling = Sampling(max_new_tokens=8, temperature=0.9)
    together = served.generate(asked, sampling, seeds)
    apart = [c for i in range(0, 80, 20) for c in served.generate(asked[i : i + 20], sampling, seeds[i : i + 20])]
    assert [c.token_ids for c in together] == [c.token_ids for c in apart]


def test_the_budget_is_kept_and_told(served):
    (found,) = served.generate(prompts(served, 1), Sampling(max_new_tokens=2), [0])
    assert (found.finish, found.new_tokens, len(found.token_ids)) == ("length", 2, 2)


def test_the_manifest_can_say_how_it_ran(served):
    found = served.settings
    assert (found["engine"], found["dtype"], found["prefix_caching"], found["lora"]) == ("vllm", "float32", True, False)
    assert found["max_num_seqs"] == 256 > MACHINE.batch_size  # vLLM's own, so that thousands of prompts are no batches
    assert found["version"].startswith("0.32.0") and found["cache_tokens"] > found["max_model_len"] == 512
    assert json.loads(json.dumps(found)) == found


def test_responses_come_as_they_finish_and_one_that_finishes_makes_room(served):
    """A batch waited for its longest response before the next one began."""
    asked = prompts(served, 300)
    core, running = served.llm.llm_engine, []
    sampling = Sampling(max_new_tokens=60, temperature=1.5)
    found = {}
    for i, completion in served.stream([*asked[:1], *asked], sampling, [seed_of(i) for i in range(301)]):
        found[i] = completion
        running.append(core.get_num_unfinished_requests())
    assert running == sorted(running, reverse=True) and running[0] >= 250 and running[-1] == 0
    assert len({completion.new_tokens for completion in found.values()}) > 10
    # the last ones began when others had ended, long before the longest did
    order = list(found)
    longest = max(found, key=lambda i: found[i].new_tokens)
    assert sorted(found) == list(range(301)) and order != sorted(order)
    assert any(i > served.settings["max_num_seqs"] for i in order[: order.index(longest)])


@pytest.mark.parametrize("stop", [RuntimeError("out of memory, say"), KeyboardInterrupt()], ids=["error", "Ctrl-C"])
def test_an_interrupted_call_leaves_nothing_to_the_next(served, monkeypatch, stop):
    """vLLM keeps the requests of a call that was stopped, and returns their outputs to the next call."""
    asked = prompts(served, 6)
    expected = [c.text for c in served.generate(asked[3:], GREEDY, [0] * 3)]
    core = served.llm.llm_engine
    steps, step = [], core.step

    def stop_soon():
        steps.append(1)
        if len(steps) == 3:
            raise stop
        return step()

    monkeypatch.setattr(core, "step", stop_soon)
    with pytest.raises(type(stop)):
        served.generate(asked, GREEDY, [0] * 6)
    monkeypatch.undo()
    assert not core.has_unfinished_requests()
    assert [c.text for c in served.generate(asked[3:], GREEDY, [0] * 3)] == expected


def test_a_stream_that_nobody_reads_on_is_aborted(served):
    core, spread = served.llm.llm_engine, Sampling(max_new_tokens=60, temperature=1.5)
    stream = served.stream(prompts(served, 20), spread, range(20))
    next(stream)
    assert core.has_unfinished_requests()
    stream.close()
    assert not core.has_unfinished_requests()
    left = served.stream(
        prompts(served, 20), spread, range(20)
    )  # held, as the traceback of a notebook's Ctrl-C holds it
    next(left)
    (after,) = served.generate(prompts(served, 1), GREEDY, [0])
    assert after.finish == "stop" and not core.has_unfinished_requests()
    with pytest.raises(EngineError, match="another call began"):
        list(left)


def test_a_request_that_vllm_refuses_costs_itself_only(served):
    """One request that was refused ended the call and the study."""
    ids = served.tokenizer(prompts(served, 2), add_special_tokens=False).input_ids
    asked = [Request(ids[0], "shard"), Request([10**6], "shard"), Request(ids[1], "shard")]
    found = [answer.value for answer in served.complete(asked, GREEDY)]
    assert [completion.finish for completion in found] == ["stop", "engine error", "stop"]
    assert found[1].reason.startswith("vLLM: ") and "\n" not in found[1].reason
    first, second = served.score([Request(ids[0], "shard", token=1), Request([10**6], "shard", token=1)])
    assert first.value < 0 and not first.reason
    assert second.value != second.value and second.reason.startswith("engine error: vLLM: ")
    with pytest.raises(EngineError, match="vLLM refuses every request: "):
        served.complete([Request([10**6], "shard")] * 2, GREEDY)


def test_vllms_death_stops_the_run(served, monkeypatch):
    """Its own errors are not RuntimeErrors, so a verdict would not have been recorded as failed."""
    from vllm.v1.engine.exceptions import EngineDeadError

    drafts, asked = drafts_of(1)

    def dead():
        raise EngineDeadError()

    monkeypatch.setattr(served.llm.llm_engine, "step", dead)
    with pytest.raises(EngineStopped, match="run the study again"):
        judge_of(served).open(drafts)(asked)
    monkeypatch.undo()
    served._forget()


def test_an_over_long_prompt_costs_itself_only(served):
    """vLLM by itself refuses a whole call if one prompt is too long."""
    good = prompts(served, 2)
    found = served.generate([good[0], "brass " * 600, good[1]], GREEDY, [0, 0, 0])
    assert [c.finish for c in found] == ["stop", "prompt too long", "stop"]
    assert served.choose(["brass " * 600, good[0]], ("[ENOUGH]", "[NOT_ENOUGH]"))[0] is None


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    """An adapter with an effect, of a rank that vLLM does not support."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(POCKET / "student")
    config = LoraConfig(r=12, lora_alpha=16, target_modules="all-linear", init_lora_weights=False)
    folder = tmp_path_factory.mktemp("trained") / "adapter"
    get_peft_model(model, config).save_pretrained(folder)
    return folder


def test_an_adapters_rank_is_rounded_up_to_one_that_vllm_takes(tmp_path):
    for rank, expected in {1: 1, 4: 8, 12: 16, 16: 16, 100: 128}.items():
        (tmp_path / "adapter_config.json").write_text(json.dumps({"r": rank}))
        assert lora_rank(tmp_path) == expected
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 1024}))
    with pytest.raises(EngineError, match="lora_r"):
        lora_rank(tmp_path)


HALF = {"dtype": "bfloat16"}
DIGITS = ("9", "0")


@pytest.fixture(scope="module")
def fine(plain, tmp_path_factory):
    """A model whose weights are in bfloat16 and all between 1/16 and 1/8, where bfloat16's steps are 0.0005, and an
    adapter that moves each by 0.0001 so as to prefer the first of two labels: a model and its adapter's folder.
    """
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("fine")
    shutil.copytree(POCKET / "student", folder / "model")
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(POCKET / "student"), dtype=torch.float32)
    for name, weight in model.named_parameters():
        if weight.ndim == 2 and "embed" not in name:
            weight.data = torch.empty_like(weight).uniform_(1 / 16, 0.124) * torch.randn_like(weight).sign()
        weight.data = weight.data.bfloat16().float()
    model.save_pretrained(folder / "model")
    tokenizer = load_tokenizer(PLAIN)
    first, second = (tokenizer(digit, add_special_tokens=False).input_ids[0] for digit in DIGITS)
    for prompt in prompts(plain, 6):
        logits = model(tokenizer(prompt, return_tensors="pt").input_ids).logits[0, -1]
        (logits[first] - logits[second]).backward()
    steepest = {name: torch.linalg.svd(p.grad) for name, p in model.named_parameters() if p.ndim == 2}
    adapted = get_peft_model(model, LoraConfig(r=1, lora_alpha=1, target_modules="all-linear"))
    for name, module in adapted.named_modules():
        if hasattr(module, "lora_A"):
            up, _, down = steepest[name.removeprefix("base_model.model.") + ".weight"]
            module.lora_B["default"].weight.data = 0.01 * up[:, :1].sign()
            module.lora_A["default"].weight.data = 0.01 * down[:1].sign()
    adapted.save_pretrained(folder / "adapter")
    return str(folder / "model"), str(folder / "adapter")


APART = """
import json, sys
import psutil
from palign.engines.base import Sampling
from palign.engines.opening import open_engine
from palign.params import Machine, Model

asked, model, machine, adapter, fine, other, digits = json.loads(sys.argv[1])
memory = lambda: psutil.Process().memory_info().rss / 2**20
found = {}
engine = open_engine(Model(**model), Machine(**machine), adapter)
found["ids"] = [c.token_ids for c in engine.generate(asked, Sampling(max_new_tokens=30), [0] * len(asked))]
found["open"] = memory()
engine.close()
found["closed"] = memory()
engine = open_engine(Model(**fine), Machine(**machine), other)
found["logprobs"] = engine.choose(asked, digits)
del engine
open_engine(Model(**fine), Machine(**machine), other).close()
print("FOUND", json.dumps(found))
"""


@pytest.fixture(scope="module")
def apart(plain, adapter, fine):
    """What two engines with adapters give, one after the other in one process: their own, because the engine of this
    one stays open.
    """
    pytest.importorskip("vllm", reason="vLLM is not installed; see `make test-vllm`")
    half = VLLM.model_copy(update={"name": fine[0], **HALF})
    engines = [VLLM.model_dump(), MACHINE.model_dump(), str(adapter), half.model_dump(), fine[1]]
    arguments = json.dumps([prompts(plain, 6), *engines, DIGITS])
    out = subprocess.run([sys.executable, "-c", APART, arguments], capture_output=True, text=True, check=False)
    found = [line for line in out.stdout.splitlines() if line.startswith("FOUND ")]
    assert found, out.stderr[-2000:]
    return json.loads(found[0].removeprefix("FOUND "))


def test_a_closed_engine_gives_its_memory_back_to_the_next(apart):
    """Nothing closed an engine, and a second one on the same GPU found no memory."""
    cache = 1024 * int(ON_CPU["VLLM_CPU_KVCACHE_SPACE"])  # MiB, of about 1800 in all
    assert apart["open"] - apart["closed"] > 0.9 * cache


def test_an_adapter_is_served_as_if_merged(plain, adapter, apart):
    asked = prompts(plain, 6)
    expected, plain = (
        [c.token_ids for c in open_engine(PLAIN, MACHINE, a).generate(asked, Sampling(max_new_tokens=30), [0] * 6)]
        for a in (adapter, None)
    )
    assert apart["ids"] == expected != plain  # the adapter does something


def test_both_engines_run_the_same_adapter_in_half_precision(plain, fine, apart):
    """Merged into bfloat16 weights, an adapter's small changes were rounded away; vLLM adds them unmerged."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    asked = prompts(plain, 6)
    exact, half = (PLAIN.model_copy(update={"name": fine[0], **kind}) for kind in ({}, HALF))
    model = AutoModelForCausalLM.from_pretrained(fine[0], dtype=torch.bfloat16)
    engine = open_engine(half, MACHINE)
    without = engine.choose(asked, DIGITS)
    merged = PeftModel.from_pretrained(model, fine[1]).merge_and_unload()
    engine.model.load_state_dict(merged.state_dict())
    assert engine.choose(asked, DIGITS) == without  # the whole adapter is lost

    def margins(pairs):
        return [first - second for first, second in pairs]

    ours, reference = (margins(open_engine(m, MACHINE, fine[1]).choose(asked, DIGITS)) for m in (half, exact))
    theirs, lost = margins(apart["logprobs"]), margins(without)
    for mine, vllm, true, base in zip(ours, theirs, reference, lost, strict=True):  # in nats
        assert true - base > 0.8
        assert vllm == pytest.approx(true, abs=0.15) and mine == pytest.approx(true, abs=0.15)


@pytest.fixture(scope="module")
def servers(served, tmp_path_factory):
    """Two OpenAI-compatible servers of the pocket student on loopback, with a generation config as Qwen's models have
    one: a server takes from it what a request leaves unsaid.
    """
    folder = tmp_path_factory.mktemp("model") / "student"
    shutil.copytree(POCKET / "student", folder)
    config = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps(config | {"do_sample": True, "top_k": 1}))
    with serving(folder, [STUDENT, "pocket"], 2) as urls:
        yield urls


@contextlib.contextmanager
def serving(folder, names, count):
    """The addresses of so many vLLM servers of the model in ``folder``."""
    ports, processes = [], []
    log = (folder.parent / "log").open("w")
    for _ in range(count):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            ports.append(free.getsockname()[1])
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--host", "127.0.0.1"]
        command += ["--model", str(folder), "--served-model-name", *names]
        command += ["--dtype", "float32", "--max-model-len", "512", "--enforce-eager", "--block-size", "32"]
        command += ["--no-enable-chunked-prefill", "--max-num-batched-tokens", "4096"]  # see palign.engines.vllm.on_cpu
        command += ["--enable-lora", "--max-lora-rank", "16", "--enable-prompt-tokens-details"]
        command += ["--port", str(ports[-1])]
        environment = {**os.environ, **ON_CPU, "OMP_NUM_THREADS": "1", "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"}
        processes.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
    urls = [f"http://127.0.0.1:{port}/v1" for port in ports]
    try:
        wait_for(urls, processes)
        yield urls
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(30)


def test_two_servers_share_a_study_and_say_what_the_engine_says(servers, plain):
    """Sharding is by prompt: each question goes to one address, and the answers put together are the whole."""
    engine = open_engine(Model(name="endpoint:pocket", max_model_len=512), at(servers))
    asked = asking(10)
    found = engine.generate(asked, GREEDY, [0] * 10)
    expected = plain.generate(prompts(plain, 10), GREEDY, [0] * 10)
    assert {engine.service.url(prompt) for prompt in asked} == set(servers)
    assert [c.text for c in found] == [c.text for c in expected]
    assert all(c.finish == "stop" and c.new_tokens for c in found)


def at(urls):
    return Machine(endpoint_urls=urls)


LOUD = "<think>Should I reply [ENOUGH] or [NOT_ENOUGH]?</think>"


@pytest.fixture
def thinker(tmp_path):
    """The pocket student, taught to name both labels in its thoughts before it states, in bold, the oracle's."""
    import torch
    from transformers import AutoModelForCausalLM

    rows = []
    for i, problem in enumerate(problems(80)):
        trace = Trace(str(i), *(problem[key] for key in ("question", "answer", "trace", "sufficient_chars")))
        parts, known = RULES["released"].split(trace.trace), sufficient_sentences(trace)
        for p in {1, max(1, known - 2), known, min(known + 3, len(parts))}:
            prompt = fill(Params().judge_prompt, question=trace.question, prefix=RULES["released"].join(parts[:p]))
            verdict = f"{LOUD}\n**{'ENOUGH' if p >= known else 'NOT_ENOUGH'}**"
            rows.append({"id": f"{i}/{p}", "prompt": prompt, "completion": verdict, "answers": True})
    folder = tmp_path / "thinker"
    shutil.copytree(POCKET / "student", folder)
    examples = finetuning.encode(rows, load_tokenizer(PLAIN), PLAIN.chat_template_kwargs)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(folder)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for step in range(200):
        batch = [examples[(8 * step + i) % len(examples)] for i in range(8)]
        longest = max(len(example["input_ids"]) for example in batch)
        ids, labels = (torch.full((8, longest), fill) for fill in (0, finetuning.IGNORED))
        for row, example in enumerate(batch):
            tokens, prompt = torch.tensor(example["input_ids"]), example["prompt_tokens"]
            ids[row, : len(tokens)] = tokens
            labels[row, prompt : len(tokens)] = tokens[prompt:]
        model(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    return folder


def test_a_served_judge_that_thinks_aloud_is_understood(served, thinker):
    """Its thoughts name both labels, so that no verdict was read and every trace was lost."""
    batch = [Trace(str(i), p["question"], p["answer"], p["trace"]) for i, p in enumerate(problems(92)[80:])]
    with serving(thinker, ["thinker"], 1) as urls:
        engine = open_engine(Model(name="endpoint:thinker", max_model_len=512), at(urls))
        judge = Judge(engine, Params().judge_prompt, RULES["released"], "decode", 60)
        asked = [judge.prompt(trace.question, RULES["released"].split(trace.trace)) for trace in batch]
        replies = [reply.text for reply in engine.generate(asked, GREEDY, [0] * 12)]
        assert sum(reply.startswith(LOUD) for reply in replies) >= 10, replies
        found = list(searched(batch, released, judge, engine.count))
    assert [prefix.status for prefix in found] == ["ok"] * 12
    verdicts = [label for prefix in found for _, label, _ in prefix.verdicts]
    assert set(verdicts) == {"ENOUGH", "NOT_ENOUGH"}
    assert sum(prefix.unparsed for prefix in found) <= 0.1 * len(verdicts)


def test_served_students_say_what_the_engine_says(servers, plain):
    """``engine: endpoint``: the same token ids in, so the same responses, verdicts and log-probabilities out."""
    engine = open_engine(SERVED, at(servers))
    asked = prompts(plain, 10)
    found, expected = (one.generate(asked, GREEDY, [0] * 10) for one in (engine, plain))
    assert {engine.service.url(prompt) for prompt in asked} == set(servers)
    assert found == expected  # token ids, counts and ends too
    drafts, wanted = drafts_of(6)
    ours, theirs = (judge_of(one).open(drafts)(wanted) for one in (plain, engine))
    assert [v.label for v in ours] == [v.label for v in theirs]
    assert [v.margin for v in theirs] == pytest.approx([v.margin for v in ours], abs=1e-3)
    for a, b in zip(plain.choose(asked[:3], LABELS), engine.choose(asked[:3], LABELS), strict=True):
        assert b == pytest.approx(a, abs=1e-3)
    assert [server["max_model_len"] for server in engine.settings["servers"]] == [512, 512]


def test_a_served_students_shards_put_together_are_the_whole(servers, served):
    """A study by two servers, one at a time, both at once, or by the engine here: the same records for the same
    problems, independent of the servers' generation config.
    """
    sampling = Sampling(max_new_tokens=40, temperature=0.9, top_p=0.95, repetition_penalty=1.05)
    both, *single = (open_engine(SERVED, at(urls)) for urls in (servers, servers[:1], servers[1:]))
    asked = prompts(both, 10)
    seeds = [seed_of("test", i) for i in range(10)]
    whole = both.generate(asked, sampling, seeds)
    joined = {}
    for url, engine in zip(servers, single, strict=True):
        mine = [i for i, prompt in enumerate(asked) if both.service.url(prompt) == url]
        found = engine.generate([asked[i] for i in mine], sampling, [seeds[i] for i in mine])
        joined |= dict(zip(mine, found, strict=True))
    assert [joined[i].text for i in range(10)] == [c.text for c in whole]
    assert [c.text for c in whole] == [c.text for c in served.generate(asked, sampling, seeds)]
    greedy = served.generate(asked, Sampling(max_new_tokens=40, repetition_penalty=1.05), seeds)
    assert [c.text for c in whole] != [c.text for c in greedy]


def test_a_served_students_nested_prompts_find_their_beginning_in_one_servers_cache(servers):
    problem = problems(41)[-1]
    parts = RULES["released"].split(problem["trace"])
    judge = judge_of(open_engine(SERVED, at(servers)))
    verdicts = judge.open([(problem["question"], parts)])([(0, p) for p in range(1, len(parts) + 1)])
    assert sum(v.trace_tokens for v in verdicts) < 0.5 * 8 * sum(v.prompt_tokens for v in verdicts)


def test_servers_load_an_adapter_that_answers_as_if_merged(servers, adapter):
    engine = open_engine(SERVED, at(servers), adapter)
    asked = prompts(engine, 6)
    found, expected, base = (
        [c.token_ids for c in one.generate(asked, Sampling(max_new_tokens=30), [0] * 6)]
        for one in (engine, open_engine(PLAIN, MACHINE, adapter), open_engine(PLAIN, MACHINE))
    )
    assert found == expected != base
    assert open_engine(SERVED, at(servers), adapter).model == engine.model  # loaded already
    assert engine.settings["lora"]


def test_a_served_student_sets_an_over_long_prompt_aside(servers):
    engine = open_engine(SERVED, at(servers))
    good = prompts(engine, 2)
    found = engine.generate([good[0], "brass " * 600, good[1]], GREEDY, [0, 0, 0])
    assert [c.finish for c in found] == ["stop", "prompt too long", "stop"]


def test_what_a_server_does_not_serve_is_said_before_any_work(servers):
    with pytest.raises(EngineError, match="does not serve"):
        open_engine(SERVED.model_copy(update={"name": str(POCKET / ".." / "pocket" / "student")}), at(servers))
    with pytest.raises(EngineError, match="serves 512 tokens, not 600"):
        open_engine(SERVED.model_copy(update={"max_model_len": 600}), at(servers))


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
        VllmEngine.open(VLLM, MACHINE)
