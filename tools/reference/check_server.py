"""Drives `qianli serve` with the `openai` client: every endpoint, streams, errors, many clients at once.

usage: check_server.py PROGRAM MODEL [--clients N]

Compares with `qianli generate` on the same model: greedy answers must be equal, alone and in company.
"""

import argparse
import concurrent.futures
import json
import re
import signal
import subprocess
import sys
import time
import urllib.request

import openai

from served import expect, start

PROMPTS = ["The capital of France is", "Once upon a time, there was a little", "Water boils at 100",
           "The sea is", "In the year 1984", "def fibonacci(n):", "A, B, C, D,", "My favourite colour"]


def generate(program, model, prompt, tokens):
    out = subprocess.run([program, "generate", model, "--prompt", prompt, "-n", str(tokens), "--greedy", "--json"],
                         capture_output=True, text=True, check=True)
    return json.loads(out.stdout)["text"]


def refused(call, status, param=None):
    try:
        call()
    except openai.APIStatusError as error:
        return error.status_code == status and (param is None or error.body.get("param") == param)
    return False


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program")
    parser.add_argument("model")
    parser.add_argument("--clients", type=int, default=8)
    arguments = parser.parse_args()
    expected = {prompt: generate(arguments.program, arguments.model, prompt, 16) for prompt in PROMPTS}
    server, port = start(arguments.program, arguments.model, "--name", "tiny", "--api-key", "key", "--precision", "fp32")
    client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="key", max_retries=0)

    def complete(prompt, **more):
        return client.completions.create(model="tiny", prompt=prompt, max_tokens=16, temperature=0, **more)

    def chat(content, **more):
        return client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": content}], **more)

    expect([m.id for m in client.models.list()] == ["tiny"], "models.list")
    expect(client.models.retrieve("tiny").id == "tiny", "models.retrieve")
    for prompt in PROMPTS[:3]:
        expect(complete(prompt).choices[0].text == expected[prompt], f"completion equals generate: {prompt}")
    texts = [c.text for c in complete(PROMPTS[:4]).choices]
    expect(texts == [expected[p] for p in PROMPTS[:4]], "completion of a list of prompts")
    with concurrent.futures.ThreadPoolExecutor(arguments.clients) as pool:
        asked = [PROMPTS[i % len(PROMPTS)] for i in range(4 * arguments.clients)]
        answers = list(pool.map(lambda p: complete(p).choices[0].text, asked))
    expect(answers == [expected[p] for p in asked], f"{len(asked)} requests of {arguments.clients} clients at once")
    answer = complete(PROMPTS[0], logprobs=2)
    expect(len(answer.choices[0].logprobs.token_logprobs) == answer.usage.completion_tokens, "log-probabilities")
    streamed = "".join(chunk.choices[0].text for chunk in complete(PROMPTS[0], stream=True))
    expect(streamed == expected[PROMPTS[0]], "a streamed completion")

    one = chat("What is the largest planet?", max_tokens=24, temperature=0)
    expect(one.choices[0].message.role == "assistant" and one.usage.completion_tokens <= 24, "a chat")
    chunks = list(chat("What is the largest planet?", max_tokens=24, temperature=0, stream=True,
                       stream_options={"include_usage": True}))
    streamed = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    expect(streamed == one.choices[0].message.content, "the same, streamed")
    expect(chunks[-1].usage.completion_tokens == one.usage.completion_tokens, "usage of a stream")
    a, b = (chat("Tell me a story.", max_tokens=20, temperature=1.0, seed=5, n=2) for _ in range(2))
    expect([c.message.content for c in a.choices] == [c.message.content for c in b.choices], "a seed repeats")
    expect(a.choices[0].message.content != a.choices[1].message.content, "n texts differ")
    stopped = chat("Count: one two three", max_tokens=40, temperature=0, stop=["e"])
    expect("e" not in stopped.choices[0].message.content, "a stop string ends the text")
    chosen = chat("Yes or no?", extra_body={"guided_choice": ["yes", "no"]})
    expect(chosen.choices[0].message.content in ("yes", "no"), "guided_choice")
    detailed = chat("Hi", max_tokens=3, logprobs=True, top_logprobs=4)
    expect(len(detailed.choices[0].logprobs.content[0].top_logprobs) == 4, "top_logprobs of a chat")

    expect(refused(lambda: chat("x", temperature=-1), 400, "temperature"), "a bad temperature is named")
    expect(refused(lambda: chat("x", max_tokens=-5), 400, "max_tokens"), "negative max_tokens is named")
    expect(refused(lambda: complete("word " * 100000), 400), "a prompt beyond the context")
    expect(refused(lambda: client.chat.completions.create(model="gpt", messages=[]), 404), "another model")
    stranger = client.with_options(api_key="wrong")
    expect(refused(lambda: stranger.models.list(), 401), "a wrong key")

    left = chat("Write a long story.", max_tokens=400, stream=True)
    next(iter(left))
    left.close()
    running, patience = "1", time.monotonic() + 60
    while running != "0" and time.monotonic() < patience:
        request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers={"Authorization": "Bearer key"})
        metrics = urllib.request.urlopen(request).read().decode()
        running = re.search(r"qianli_sequences_running (\d+)", metrics)[1]
    expect(running == "0", "a client that leaves frees its place")
    last = complete(PROMPTS[0], stream=True)
    text = next(iter(last)).choices[0].text
    server.send_signal(signal.SIGTERM)
    text += "".join(chunk.choices[0].text for chunk in last)
    expect(text == expected[PROMPTS[0]], "SIGTERM: what is under way is answered")
    expect(server.wait(60) == 0, "and the exit code is 0")
    sys.exit(expect.failed > 0)


if __name__ == "__main__":
    main()
