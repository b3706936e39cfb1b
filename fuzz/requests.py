#!/usr/bin/env python3
"""Sends what it makes up to `bild serve`, and feeds lines of it to `bild translate --jsonl`:

    fuzz/requests.py target/release/bild SECONDS [SEED]

Requests are sound ones with values, fields or bytes changed; nothing looks at what code they reach. Ends with an error where the service
ends, answers with status 500, takes more than 10 seconds or more than 2 GiB, or where a line has no answer."""
import json, random, subprocess, sys, time, urllib.error, urllib.request

program, seconds, seed = sys.argv[1], float(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 1
draw = random.Random(seed)
POLICY = {"policy": "bild", "variant": "paper", "fallback": {"probability": 0.5}, "rollback": {"cross_entropy": 2.0}, "max_draft": 10}
SOUND = {"text": "Ich habe heute leider keine Zeit. Wo bist du?", "policy": "lossless", "max_new_tokens": 8, "time_limit": 2.5, "seed": 7,
         "prefix": "", "stop": ["."], "stream": False, "events": True}
TEXTS = ["", " ", "\0", "\u200b", "ﷺ" * 50, "A!" * 500, "“" * 500, "1. A\n" * 300, "\ud800", "<extra_id_0>", "</s>", "▁" * 99, "é" * 3000, "𝄞" * 200,
         "a" * 20000, "\r\n\t", "🏳️‍🌈" * 40, "Wo? " * 200]
NUMBERS = [0, -1, 1, 1e308, -1e308, 5e-324, 2**63, 2**64, 0.5, 1e-9, 1023, 1024, 1025, 10**30]


def anything(depth=0):
    kind = draw.randrange(8 if depth < 4 else 5)
    if kind < 2:
        return draw.choice(TEXTS)
    if kind < 4:
        return draw.choice(NUMBERS)
    if kind == 4:
        return draw.choice([None, True, False])
    if kind == 5:
        return [anything(depth + 1) for _ in range(draw.randrange(5))]
    if kind == 6:
        return {draw.choice(list(SOUND) + list(POLICY)): anything(depth + 1) for _ in range(draw.randrange(4))}
    return dict(POLICY, **{draw.choice(list(POLICY)): anything(depth + 1)})


def request():
    body = {key: value for key, value in SOUND.items() if key == "text" or draw.random() < 0.3}
    for _ in range(draw.randrange(3)):
        body[draw.choice(list(SOUND) + ["id", "guess", "x"])] = anything()
    if draw.random() < 0.2:
        body["policy"] = dict(POLICY, **{draw.choice(list(POLICY)): anything()})
    text = json.dumps(body, ensure_ascii=draw.random() < 0.5).encode("utf-8", "surrogatepass")
    if draw.random() < 0.3:
        text = bytearray(text)
        for _ in range(draw.randrange(1, 4)):
            at = draw.randrange(len(text))
            text[at:at + draw.randrange(3)] = bytes(draw.randrange(256) for _ in range(draw.randrange(3)))
    return bytes(text)


def memory(process):
    with open(f"/proc/{process.pid}/status") as status:
        return max(int(line.split()[1]) for line in status if line.startswith("VmHWM")) >> 10


service = subprocess.Popen([program, "serve", "--listen", "127.0.0.1:0", "--max-waiting", "300"], stdout=subprocess.PIPE, text=True)
address = service.stdout.readline().strip()
answers, end = {}, time.time() + seconds
while time.time() < end:
    body = request()
    begun = time.time()
    try:
        with urllib.request.urlopen(urllib.request.Request(address + "/generate", body), timeout=20) as answer:
            answer.read()
            status = answer.status
    except urllib.error.HTTPError as error:
        status = error.code
        assert "error" in json.loads(error.read()), body
    answers[status] = answers.get(status, 0) + 1
    assert status != 500, (status, body)
    assert time.time() - begun < 10, (time.time() - begun, body)
    assert service.poll() is None and memory(service) < 2048, body
peak = memory(service)
service.terminate()
assert service.wait(timeout=30) == 0
print(f"requests by status: {answers}; {peak} MiB at most")

lines = []
for i in range(2000):
    # A line that is not UTF-8 ends them all, and says so.
    line = request().decode("utf-8", "replace").replace("\n", " ").replace("\r", " ").encode()
    lines.append(line if draw.random() < 0.5 else line.replace(b'"text"', b'"id": %d, "text"' % i, 1))
done = subprocess.run([program, "translate", "--jsonl"], input=b"\n".join(lines) + b"\n", capture_output=True, timeout=600)
found = done.stdout.splitlines()
assert done.returncode in (0, 1) and b"panicked" not in done.stderr, done.stderr[-2000:]
assert all("text" in json.loads(line) or "error" in json.loads(line) for line in found)
print(f"{len(found)} of {len(lines)} lines answered, exit status {done.returncode}: {done.stderr.decode()[-300:]}")
