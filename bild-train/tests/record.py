"""Records what PyTorch and transformers compute, for the tests: `python record.py`, with transformers 4.57.6.

The models are the small random ones of bild-models/tests/fixtures/t5. Of each: the mean loss of a batch and the gradient of every
parameter (its norm, and numbers spread over it). Of one: 50 steps of AdamW and 12 of Adafactor. And losses against a teacher.
"""

import json
from pathlib import Path

import torch
import transformers
from torch.nn import functional as F
from transformers import AutoModelForSeq2SeqLM
from transformers.optimization import Adafactor

HERE = Path(__file__).parent
MODELS = HERE.parent.parent / "bild-models/tests/fixtures/t5"
SPREAD = 24


def batch(seed, vocab, count):
    generator = torch.Generator().manual_seed(seed)
    number = lambda low, high: int(torch.randint(low, high, (1,), generator=generator))
    tokens = lambda length: [number(2, vocab) for _ in range(length - 1)] + [1]
    return [(tokens(number(2, 30)), tokens(number(2, 14))) for _ in range(count)]


def padded(rows, fill):
    width = max(map(len, rows))
    return torch.tensor([row + [fill] * (width - len(row)) for row in rows])


def loss_of(model, pairs):
    sources = padded([source for source, _ in pairs], 0)
    mask = padded([[1] * len(source) for source, _ in pairs], 0)
    labels = padded([target for _, target in pairs], -100)
    return model(input_ids=sources, attention_mask=mask, labels=labels).loss


def spread(tensor):
    flat = tensor.flatten()
    step = max(1, flat.numel() // SPREAD)
    return [float(x) for x in flat[::step][:SPREAD]]


def load(folder):
    torch.manual_seed(0)
    # Eager attention, f32.
    model = AutoModelForSeq2SeqLM.from_pretrained(MODELS / folder, attn_implementation="eager", dtype=torch.float32)
    model.config.dropout_rate = 0.0
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if hasattr(module, "dropout") and isinstance(module.dropout, float):
            module.dropout = 0.0
    return model.train()


def gradients(folder):
    model = load(folder)
    pairs = batch(1, model.config.vocab_size, 4)
    loss = loss_of(model, pairs)
    loss.backward()
    found = {}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            found[name] = {"norm": float(parameter.grad.norm()), "spread": spread(parameter.grad)}
    return {"pairs": pairs, "loss": float(loss), "gradients": found}


def curve(folder, make, steps, clip):
    model = load(folder)
    optimizer = make(model.parameters())
    losses, norms = [], []
    for step in range(steps):
        pairs = batch(100 + step % 5, model.config.vocab_size, 4)
        loss = loss_of(model, pairs)
        optimizer.zero_grad()
        loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), clip)))
        optimizer.step()
        losses.append(float(loss))
    batches = [batch(100 + i, model.config.vocab_size, 4) for i in range(5)]
    return {"batches": batches, "losses": losses, "norms": norms}


def teachers():
    torch.manual_seed(3)
    rows, vocab, best = 5, 40, 6
    logits = torch.randn(rows, vocab) * 2
    log_probs, tokens = torch.log_softmax(torch.randn(rows, vocab) * 3, -1).topk(best)
    labels = torch.randint(0, vocab, (rows,))
    p = log_probs.exp()
    found = {}

    def record(name, function):
        x = logits.clone().requires_grad_()
        loss = function(x)
        loss.backward()
        found[name] = {"loss": float(loss), "gradient": x.grad.flatten().tolist()}

    def kept(x):
        log_q = torch.log_softmax(x, -1).gather(-1, tokens)
        return log_q, (1 - p.sum(-1)), (1 - log_q.exp().sum(-1))

    def kl(x, bucket):
        log_q, p_left, q_left = kept(x)
        loss = F.kl_div(log_q, log_probs, reduction="none", log_target=True).sum(-1)
        return (loss + bucket * p_left * (p_left.log() - q_left.log())).mean()

    def total_variation(x, bucket):
        log_q, p_left, q_left = kept(x)
        return 0.5 * ((p - log_q.exp()).abs().sum(-1) + bucket * (p_left - q_left).abs()).mean()

    record("cross_entropy", lambda x: F.cross_entropy(x, labels))
    record("smoothed", lambda x: F.cross_entropy(x, labels, label_smoothing=0.1))
    for name, bucket in [("ignored", 0.0), ("bucket", 1.0)]:
        record(f"kl_{name}", lambda x: kl(x, bucket))
        record(f"tv_{name}", lambda x: total_variation(x, bucket))
    return {
        "logits": logits.flatten().tolist(),
        "labels": labels.tolist(),
        "tokens": tokens.flatten().tolist(),
        "log_probs": log_probs.flatten().tolist(),
        "rows": rows,
        "losses": found,
    }


def rounded(value):
    if isinstance(value, float):
        return float(f"{value:.7g}")
    if isinstance(value, dict):
        return {name: rounded(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(inner) for inner in value]
    return value


def main():
    torch.set_num_threads(2)
    recorded = {
        "with": f"transformers {transformers.__version__}, torch {torch.__version__}",
        "gradients": {folder: gradients(folder) for folder in ["t5-v1_0", "t5-v1_1", "t5-buckets", "t5-f16", "mt5"]},
        # The random t5-v1_0 would not do: there torch in f32 is 1e-3 away from torch in f64 after one step.
        "adamw": curve("t5-v1_1", lambda p: torch.optim.AdamW(p, lr=5e-4, weight_decay=0.01), 50, 1.0),
        "adafactor": curve(
            "t5-v1_1",
            lambda p: Adafactor(p, lr=1e-2, scale_parameter=True, relative_step=False, warmup_init=False, weight_decay=0.01),
            12,
            1e9,
        ),
        "losses": teachers(),
    }
    text = json.dumps(rounded(recorded))
    (HERE / "fixtures/torch.json").write_text(text + "\n")
    print(len(text))


main()
