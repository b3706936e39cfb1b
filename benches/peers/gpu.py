"""A T5 on an NVIDIA GPU by the engines that people have there:

    python gpu.py BIG [LITTLE]      a line of JSON for each, milliseconds a token as the benchmark `device` measures them

transformers as it comes, compiled, and assisted by the little model; CTranslate2 from `BIG.ctranslate2-float16` or `-float32`
(convert.py makes them). Needs torch with CUDA, transformers and ctranslate2; `BILD_DEVICE=cpu` tries it without a GPU. What is not
installed is left out with a word.
"""
import json, os, statistics, sys, time

NEW, LENGTH, RUNS = 64, 64, 5
DEVICE = os.environ.get("BILD_DEVICE", "cuda")


def source_ids(directory):
    most = min(json.load(open(f"{directory}/config.json"))["vocab_size"], 32000) - 3
    return [3 + i * 7919 % most for i in range(LENGTH)]


def measured(engine, precision, write):
    """The difference of one token and many is decoding alone."""
    try:
        times = {1: [], NEW: []}
        for run in range(RUNS + 1):
            for tokens in times:
                begun = time.perf_counter()
                write(tokens)
                if run:
                    times[tokens].append(time.perf_counter() - begun)
        one, many = (statistics.median(times[tokens]) for tokens in times)
        found = {"token_ms": (many - one) / (NEW - 1) * 1e3, "first_ms": one * 1e3}
    except Exception as error:
        found = {"error": str(error)[:200]}
    print(json.dumps({"engine": engine, "precision": precision, "device": DEVICE, **found}), flush=True)


def with_transformers(big, little):
    import torch
    from transformers import T5ForConditionalGeneration
    source = torch.tensor([source_ids(big)], device=DEVICE)
    for name, dtype in [("f32", torch.float32), ("f16", torch.float16)]:
        load = lambda directory: T5ForConditionalGeneration.from_pretrained(directory, dtype=dtype).to(DEVICE).eval()
        model = load(big)

        def write(tokens, **options):
            with torch.inference_mode():
                model.generate(source, do_sample=False, num_beams=1, min_new_tokens=tokens, max_new_tokens=tokens, **options)
                if DEVICE == "cuda":
                    torch.cuda.synchronize()

        measured("transformers, eager", name, write)
        if little:
            assistant = load(little)
            measured("transformers, assisted", name, lambda tokens: write(tokens, assistant_model=assistant))
        model.forward = torch.compile(model.forward, mode="reduce-overhead")
        measured("transformers, compiled", name, lambda tokens: write(tokens, cache_implementation="static"))


def with_ctranslate2(big):
    import ctranslate2
    source = [[str(token) for token in source_ids(big)]]
    for precision in ["float32", "float16"]:
        directory = f"{big}.ctranslate2-{precision}"
        if not os.path.isdir(directory):
            print(json.dumps({"engine": "CTranslate2", "precision": precision, "error": f"there is no {directory}"}))
            continue
        translator = ctranslate2.Translator(directory, device=DEVICE, compute_type=precision)
        measured("CTranslate2", precision, lambda tokens: translator.translate_batch(
            source, beam_size=1, max_decoding_length=tokens, min_decoding_length=tokens, return_end_token=True, max_input_length=0))


if __name__ == "__main__":
    big, little = sys.argv[1], (sys.argv[2:] or [None])[0]
    for engine, arguments in [(with_transformers, [big, little]), (with_ctranslate2, [big])]:
        try:
            engine(*arguments)
        except ImportError as error:
            print(json.dumps({"engine": engine.__name__, "error": str(error)}), flush=True)
