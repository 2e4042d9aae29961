"""Regenerate the pocket student from scratch: ``python -m palign.pocket.pretrain``.

Makes the tokenizer, the documents, the weights and the probes from one seed, and writes the model folder and its card.
This command made the shipped weights (see ``palign/pocket/student/README.md``).
"""

import argparse
import hashlib
import json
import math
import os
import platform
import random
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two threads are ten times slower on a model this small

STUDENT = Path(__file__).parent / "student"
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LAYERS = 4
GATE = 0.97
KEYS_AT_A_TIME = (3, 14)
MOST_WARM_UP_STEPS = 2500
STEPS = 2500
BATCH_TOKENS = 1800
PEAK_LEARNING_RATE = 2e-3


def build_tokenizer():
    """A byte-level BPE in Qwen's own format, so that ``AutoTokenizer`` and every engine read back the same ids.

    Each word of the dial world is one token; any other text falls back to bytes and stays lossless.
    """
    from tokenizers import Tokenizer, models, trainers
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import Qwen2Tokenizer

    from . import curriculum

    rng = random.Random("tokenizer")
    kinds = list(curriculum.MIXTURE)
    corpus = [" ".join(curriculum.document(kinds[i % len(kinds)], rng)) for i in range(6000)]
    corpus += [" ".join(draw(rng)) for draw in (curriculum.drill, curriculum.plain) for _ in range(500)]
    corpus += ["user\n", "assistant\n", "system\n"] * 50
    empty = Qwen2Tokenizer()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = empty.backend_tokenizer.pre_tokenizer
    tokenizer.normalizer = empty.backend_tokenizer.normalizer
    trainer = trainers.BpeTrainer(
        vocab_size=1200, min_frequency=10, initial_alphabet=sorted(ByteLevel.alphabet()), show_progress=False
    )
    tokenizer.train_from_iterator(corpus, trainer)
    trained = json.loads(tokenizer.to_str())["model"]
    merges = [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in trained["merges"]]
    return Qwen2Tokenizer(
        vocab=trained["vocab"],
        merges=merges,
        chat_template=CHAT_TEMPLATE,
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        unk_token=None,
    )


def build_model(tokenizer, seed: int, layers: int = LAYERS):
    """A Qwen3 of about 0.17 M parameters per layer; its query/key norm is what lets so small a model learn to copy."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=320,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        initializer_range=0.08,  # about 1/sqrt(hidden_size); at 0.02 the tables took six times as many steps to appear
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return Qwen3ForCausalLM(config)


def encode(tokenizer, prompt: str, response: str) -> tuple[list[int], int]:
    """Token ids of one exchange under the chat template, and where the response begins."""
    head = f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"
    ids = tokenizer(head, add_special_tokens=False).input_ids
    body = tokenizer(f"{response}<|im_end|>", add_special_tokens=False).input_ids
    return ids + body, len(ids)


def batches(tokenizer, draw, rng: random.Random, pool: int = 600):
    """Endless padded batches of about ``BATCH_TOKENS`` tokens, documents of like length together."""
    import torch

    while True:
        encoded = sorted((encode(tokenizer, *draw(rng)) for _ in range(pool)), key=lambda e: len(e[0]))
        groups, group = [], []
        for ids, start in encoded:
            if group and (len(group) + 1) * len(ids) > BATCH_TOKENS:
                groups.append(group)
                group = []
            group.append((ids, start))
        rng.shuffle(groups)
        for group in groups:
            width = max(len(ids) for ids, _ in group)
            input_ids = torch.full((len(group), width), tokenizer.pad_token_id)
            labels = torch.full((len(group), width), -100)
            mask = torch.zeros((len(group), width), dtype=torch.long)
            for row, (ids, start) in enumerate(group):
                input_ids[row, : len(ids)] = torch.tensor(ids)
                labels[row, start : len(ids)] = torch.tensor(ids[start:])
                mask[row, : len(ids)] = 1
            yield {"input_ids": input_ids, "labels": labels, "attention_mask": mask}


def early(keys: int):
    """The warm-up's mixture on the first ``keys`` common keys: look-ups, single turns, whole solutions."""
    from . import curriculum

    common = tuple(curriculum.COMMON)[:keys]

    def draw(rng: random.Random) -> tuple[str, str]:
        kind = rng.random()
        if kind < 0.2:
            return curriculum.copying(rng)
        return curriculum.drill(rng, common) if kind < 0.45 else curriculum.plain(rng, common)

    return draw


def late(rng: random.Random) -> tuple[str, str]:
    """The mixture after the warm-up."""
    from . import curriculum

    kind = rng.choices(list(curriculum.MIXTURE), curriculum.MIXTURE.values())[0]
    return curriculum.document(kind, rng)


def learning_rate(step: int, since: int | None, steps: int) -> float:
    """Linear warm-up over 100 steps; from step ``since`` on a cosine to a hundredth of the peak."""
    if since is None:
        return PEAK_LEARNING_RATE * min(1, (step + 1) / 100)
    return PEAK_LEARNING_RATE * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - since) / steps)))


def step_accuracy(model, tokenizer, keys: int) -> float:
    """The gate: share of the first ``keys`` keys' results that are right in the middle of a solution."""
    import torch

    from . import curriculum
    from .world import COMMON, NUMBERS, DialProblem

    prompts, results = [], []
    for key, table in list(COMMON.items())[:keys]:
        for start in range(10):
            problem = DialProblem(start, ("brass", key))
            value = problem.values()[0]
            prompt = curriculum.PROMPTS["answer"].format(question=problem.question)
            said = (
                f"Now {NUMBERS[start]}. First brass gives {NUMBERS[value]}. Second {key} gives {NUMBERS[table[value]]}"
            )
            ids, _ = encode(tokenizer, prompt, said)
            prompts.append(ids[:-2])  # without the result and the end of the turn
            results.append(ids[-2])
    with torch.no_grad():
        logits = model(input_ids=torch.tensor(prompts)).logits[:, -1]
    return (logits.argmax(-1) == torch.tensor(results)).float().mean().item()


def train(seed: int, steps: int, layers: int = LAYERS, log=print):
    """Pre-train a student. Returns ``(model, tokenizer, history)``, history being one dict per logged step.

    The warm-up takes the common keys a few at a time: with all of them at once, accuracy stays at chance for long. It
    takes more keys, and then ends, when :func:`step_accuracy` passes the gate or after ``MOST_WARM_UP_STEPS`` steps in
    all; the mixture of :func:`late` then takes ``steps`` steps.
    """
    import torch

    torch.set_num_threads(1)
    tokenizer = build_tokenizer()
    model = build_model(tokenizer, seed, layers)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, betas=(0.9, 0.98), weight_decay=0.05)
    rng = random.Random(f"curriculum {seed}")
    lessons = list(KEYS_AT_A_TIME)
    keys = lessons.pop(0)
    source, history, losses, tokens, began = batches(tokenizer, early(keys), rng, pool=200), [], [], 0, time.time()
    step, since = 0, None
    while since is None or step < since + steps:
        batch = next(source)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, since, steps)
        loss = model(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        tokens += int(batch["attention_mask"].sum())
        step += 1
        if step % 50 == 0:
            right = step_accuracy(model, tokenizer, keys)
            entry = {
                "step": step,
                "loss": round(sum(losses[-50:]) / 50, 4),
                "keys": keys,
                "steps right": round(right, 3),
            }
            entry |= {"tokens": tokens, "seconds": round(time.time() - began)}
            history.append(entry)
            log(entry)
            if since is None and (right >= GATE or step >= MOST_WARM_UP_STEPS):
                if lessons:
                    keys = lessons.pop(0)
                    source = batches(tokenizer, early(keys), rng, pool=200)
                else:
                    since, source = step, batches(tokenizer, late, rng)
    return model, tokenizer, history


CARD = """# {title}

A Qwen3 of {parameters:,} parameters (hidden size 128, {layers} layers, 4 heads, 2 key/value heads) with a byte-level
BPE of its own in Qwen's format, {vocabulary} tokens, trained from scratch on the dial world
(`palign/pocket/world.py`). It answers, judges prefixes and continues them, well enough to be studied and badly enough
to have something to learn. It knows nothing else and is of no use outside the study.

Made in one go by

    {command}

on {hardware}, torch {torch}, seed {seed}: {steps:,} steps, {tokens:,} tokens, {minutes:.0f} minutes, last loss {loss}.
The warm-up ended after {warm_up} steps, when {gate:.0%} of single steps were right. The full history is in
`training.json`. SHA-256 of `model.safetensors`:

    {sha256}

## Skills

On problems of the probe split ({problems} a benchmark), which are neither trained nor tested on; sampling as in
`params/pocket.yaml`, step by step greedily.

| probe | share or AUC |
|---|---|
{skills}

Its habits (answering at once, skipping steps) and its half-knowledge (rare keys met seldom and mostly wrong in
{misremembered} of ten cells) are set in `palign/pocket/curriculum.py` and are the study's room to improve. The judge
was taught with a coin that shows the student's own chance of success from the prefix: it is right more often than not,
and no more than that.

What the study of all arms taught about this world, and where it is no fair miniature: [the pocket world](../README.md).
"""


def main() -> None:
    import torch

    from . import probes, world

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=STUDENT)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=STEPS, help="steps of the mixture")
    parser.add_argument("--layers", type=int, default=LAYERS)
    args = parser.parse_args()
    model, tokenizer, history = train(args.seed, args.steps, args.layers)
    command = f"python -m palign.pocket.pretrain --seed {args.seed} --steps {args.steps}"
    if args.out != STUDENT:
        command += f" --layers {args.layers} --out {args.out}"
    model.save_pretrained(args.out)
    tokenizer.save_pretrained(args.out)
    skills = probes.run(args.out.resolve())
    last = history[-1]
    training = {
        "command": command,
        "seed": args.seed,
        "steps": last["step"],
        "tokens": last["tokens"],
        "seconds": last["seconds"],
        "hardware": f"one thread of {platform.machine()} {platform.system()}",
        "torch": torch.__version__,
        "sha256": hashlib.sha256((args.out / "model.safetensors").read_bytes()).hexdigest(),
        "probes": skills,
        "history": history,
    }
    (args.out / "training.json").write_text(json.dumps(training, indent=1) + "\n")
    card = CARD.format(
        **{key: training[key] for key in ("command", "hardware", "torch", "seed", "steps", "tokens", "sha256")},
        title=f"The pocket {args.out.name}",
        layers=args.layers,
        parameters=sum(p.numel() for p in model.parameters()),
        vocabulary=len(tokenizer),
        minutes=last["seconds"] / 60,
        loss=last["loss"],
        warm_up=last["step"] - args.steps,
        gate=GATE,
        problems=probes.PROBLEMS,
        misremembered=world.MISREMEMBERED,
        skills="\n".join(f"| {name} | {value:.3f} |" for name, value in skills.items()),
    )
    (args.out / "README.md").write_text(card)


if __name__ == "__main__":
    main()
