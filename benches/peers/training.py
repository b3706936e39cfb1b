"""How many tokens of targets a second PyTorch trains on: `training.py MODEL [SEQUENCES SOURCE TARGET STEPS]`, on two threads.

`cargo run --release -p bild-train --example training_speed` takes the same arguments and does the same: AdamW, gradients clipped,
dropout 0.1, f32.
"""

import sys
import time

import torch
from transformers import AutoModelForSeq2SeqLM


def main():
    torch.set_num_threads(2)
    sequences, source, target, steps = [int(x) for x in sys.argv[2:]] + [64, 24, 16, 10][len(sys.argv) - 2 :]
    model = AutoModelForSeq2SeqLM.from_pretrained(sys.argv[1], dtype=torch.float32, dropout_rate=0.1).train()
    vocab = model.config.vocab_size
    tokens = lambda length, at: [(i * 7919 + at * 104_729) % vocab for i in range(length)]
    sources = torch.tensor([tokens(source, i) for i in range(sequences)])
    targets = torch.tensor([tokens(target, i + 1) for i in range(sequences)])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)

    def step():
        loss = model(input_ids=sources, attention_mask=torch.ones_like(sources), labels=targets).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    for _ in range(2):
        step()
    begun = time.perf_counter()
    for _ in range(steps):
        step()
    seconds = time.perf_counter() - begun
    trained = steps * sequences * target
    print(f"{trained / seconds:.0f} tokens of targets a second, {1e3 * seconds / steps:.0f} ms a step")


main()
