"""Keeps `qianli serve` busy, then bothers it.

usage: soak_server.py PROGRAM MODEL [--streams 200] [--seconds 120] [--requests 10000] [--cache-gb 0.3] [--seed 1]

Soak: so many clients at once, each asking for one stream after the other. Every stream must end with [DONE], every answer to
the same greedy question must be the same as that of a client alone up to ties, and memory must not grow. Fuzz: so many
requests that are malformed, absurd, slow, or given up early, 50 at a time. None may be answered 5xx, each that is complete must
be answered, and afterwards the server must answer as before. Prints memory, threads and open files over time. Exit code 1
where something failed. Python's standard library alone."""

import argparse
import asyncio
import collections
import json
import os
import random
import re
import signal
import statistics
import sys
import time

from served import start

QUESTION = "What is the largest planet?"


class Server:
    def __init__(self, program, model, streams, cache):
        self.process, self.port = start(program, model, "--name", "m", "--max-sequences", "32", "--max-waiting",
                                        str(max(streams, 64)), "--cache-gb", str(cache), "--max-tokens", "64")

    def usage(self):
        """Resident MiB, threads, open files; None where the process is gone."""
        try:
            status = open(f"/proc/{self.process.pid}/status").read()
            files = len(os.listdir(f"/proc/{self.process.pid}/fd"))
        except OSError:
            return None
        number = lambda key: int(re.search(key + r":\s+(\d+)", status)[1])
        return number("VmRSS") / 1024, number("Threads"), files

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(90)


def message(body, path="/v1/chat/completions", method="POST", headers=""):
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n{headers}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def chat(tokens, **more):
    return {"messages": [{"role": "user", "content": QUESTION}], "temperature": 0, "max_tokens": tokens, **more}


async def exchange(port, data, patience=120):
    """All that comes back until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 24)
    try:
        writer.write(data)
        try:
            await writer.drain()
        except ConnectionError:
            pass  # refused before all was sent; the answer may be there
        answer = b""
        try:
            answer = await asyncio.wait_for(reader.read(-1), patience)
        except ConnectionError:
            pass
        return answer
    finally:
        writer.close()


def status_of(answer):
    found = re.match(rb"HTTP/1.1 (\d+)", answer)
    return int(found[1]) if found else 0


def text_of(answer):
    pieces = re.findall(rb'^data: (\{.*\})\r?$', answer, re.M)
    return "".join(c["delta"].get("content") or "" for p in pieces for c in json.loads(p)["choices"])


class Report:
    def __init__(self, server):
        self.server, self.failed, self.start = server, 0, time.monotonic()

    def expect(self, condition, what):
        print(("ok      " if condition else "FAILED  ") + what, flush=True)
        self.failed += not condition

    async def watch(self, seconds, seen):
        while True:
            usage = self.server.usage()
            if usage is None:
                return
            seen.append(usage[0])
            print(f"{time.monotonic() - self.start:7.0f} s  {usage[0]:7.1f} MiB  {usage[1]} threads  {usage[2]} files", flush=True)
            await asyncio.sleep(seconds)

    async def during(self, work):
        """Seconds that the work takes, and MiB of the server seen meanwhile."""
        memory = []
        watch = asyncio.create_task(self.watch(10, memory))
        began = time.monotonic()
        await asyncio.gather(*work)
        watch.cancel()
        return time.monotonic() - began, memory


async def soak(server, report, streams, seconds):
    counts, texts = collections.Counter(), collections.Counter()
    end = time.monotonic() + seconds
    rng = random.Random(7)

    async def client(number):
        while time.monotonic() < end:
            greedy = number % 2 == 0
            body = chat(16, stream=True) if greedy else chat(rng.randint(1, 24), stream=True, temperature=1, seed=number)
            try:
                answer = await exchange(server.port, message(body), 600)
            except (OSError, asyncio.TimeoutError) as error:
                counts[type(error).__name__] += 1
                continue
            if status_of(answer) == 200 and b"data: [DONE]" in answer:
                counts["finished"] += 1
                counts["bytes"] += len(answer)
                if greedy:
                    texts[text_of(answer)] += 1
            else:
                counts[f"status {status_of(answer)}"] += 1

    alone = text_of(await exchange(server.port, message(chat(16, stream=True))))
    took, memory = await report.during(client(i) for i in range(streams))
    finished = counts.pop("finished", 0)
    print(f"{streams} streams at a time for {took:.0f} s: {finished} finished, {finished / took:.1f} a second, "
          f"{counts.pop('bytes', 0) / took / 1e3:.0f} kB/s", flush=True)
    report.expect(finished > streams and not counts, f"no stream failed {dict(counts)}")
    same = texts[alone] / max(sum(texts.values()), 1)
    report.expect(same > 0.5, f"greedy answers are those of a client alone: {100 * same:.1f} % of {sum(texts.values())}, "
                              f"{len(texts)} different")
    third = max(len(memory) // 3, 1)
    early, late = statistics.median(memory[third:2 * third] or memory), statistics.median(memory[-third:])
    report.expect(late < 1.05 * early + 8, f"memory of the last third {late:.0f} MiB, of the second {early:.0f} MiB")


def damaged(rng):
    body = bytearray(json.dumps(chat(2)).encode())
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(body))
        if rng.random() < 0.5:
            body[at] = rng.randrange(256)
        else:
            del body[at:at + rng.randint(1, 8)]
    return bytes(body)


def absurd(rng):
    key = rng.choice(["max_tokens", "temperature", "top_p", "n", "seed", "presence_penalty", "top_k", "min_p", "logit_bias", "stop",
                      "top_logprobs", "repetition_penalty", "messages", "stream_options", "guided_choice", "model", "tools"])
    value = rng.choice([-1, -10**18, 10**30, 1e308, -0.5, "", "x" * rng.choice([10, 200000]), None, [], {}, [[]] * 50, True,
                        {"1": 1e9}, ["a"] * 40, [{"role": "user"}], [{"role": "nobody", "content": "x"}], "\ud800"])
    return chat(2) | {key: value}


def deep(rng):
    return b'{"messages": ' + b"[" * rng.choice([10, 1000, 200000]) + b"]" * rng.choice([0, 10, 1000]) + b"}"


def heads(rng):
    kind = rng.randrange(8)
    if kind == 0:
        return message(chat(1), headers=f"X-Long: {'a' * rng.choice([4000, 9000, 300000])}\r\n")
    if kind == 1:
        return message(chat(1), headers="".join(f"X-{i}: y\r\n" for i in range(rng.choice([50, 500, 20000]))))
    if kind == 2:
        length = rng.choice([b"-1", b"99999999999999999999", b"abc", b"", b"1e3", b"0x10"])
        return message(chat(1)).replace(b"Content-Length: ", b"Content-Length: " + length + b"\r\nX: ")
    if kind == 3:
        return message(chat(1), path=rng.choice(["/", "/v1", "/v1/models/" + "x" * 5000, "/..%2f..%2fetc/passwd", "/%00", "/v1/" * 900,
                                                 "/metrics?" + "a=b&" * 1000]), method=rng.choice(["GET", "POST", "PUT", "DELETE", "HEAD"]))
    if kind == 4:
        return bytes(rng.randrange(256) for _ in range(rng.choice([1, 100, 5000]))) + b"\r\n\r\n"
    if kind == 5:
        chunk = rng.choice([b"zz\r\n{}\r\n", b"5\r\n{}", b"ffffffffffffffff\r\n{}\r\n0\r\n\r\n", b"2\r\n{}\r\n0\r\n\r\n"])
        return b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk
    if kind == 6:
        return b"GET " + b"/" * rng.choice([10, 100000]) + b" HTTP/1.1\r\n\r\n"
    return message(b"x" * rng.choice([100, 9 << 20]))


async def fuzz(server, report, requests, seed):
    counts, bad = collections.Counter(), []
    gate = asyncio.Semaphore(50)

    # Kinds whose request is whole must be answered; of the others the client leaves before.
    async def ask(kind, data, must_answer):
        try:
            answer = await exchange(server.port, data)
        except (OSError, asyncio.TimeoutError) as error:
            counts[f"{kind}: {type(error).__name__}"] += 1
            if must_answer:
                bad.append((kind, type(error).__name__, data[:200]))
            return
        status = status_of(answer)
        counts[f"{kind}: {status or 'closed'}"] += 1
        if status >= 500 or (must_answer and status == 0):
            bad.append((kind, status, data[:200]))
        if must_answer and status >= 400 and b'"error"' not in answer:
            bad.append((kind, "no error object", data[:200]))

    async def leave(data, cut, wait):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        try:
            writer.write(data[:cut])
            if wait:
                await asyncio.wait_for(reader.read(1), 60)
        except (OSError, asyncio.TimeoutError):
            pass
        writer.transport.abort() if cut % 2 else writer.close()
        counts["left early"] += 1

    async def stall():
        began = time.monotonic()
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(message(chat(1))[:30])
        try:
            await asyncio.wait_for(reader.read(-1), 60)
            counts["stalled: closed by the server"] += 1
        except (OSError, asyncio.TimeoutError) as error:
            bad.append(("stall", type(error).__name__, time.monotonic() - began))
        writer.close()

    async def one(number):
        rng = random.Random(seed * 1000003 + number)
        async with gate:
            kind = rng.randrange(20)
            if number % 500 == 0:
                await stall()
            elif kind < 5:
                await ask("damaged", message(damaged(rng)), True)
            elif kind < 10:
                await ask("absurd", message(absurd(rng)), True)
            elif kind < 12:
                await ask("deep", message(deep(rng)), True)
            elif kind < 15:
                await ask("head", heads(rng), False)
            elif kind < 18:
                whole = message(chat(64, stream=rng.random() < 0.7))
                await leave(whole, rng.choice([1, 40, len(whole) - 1, len(whole)]), rng.random() < 0.3)
            else:
                await ask("valid", message(chat(2, stream=rng.random() < 0.5)), True)

    before = text_of(await exchange(server.port, message(chat(16, stream=True))))
    took, _ = await report.during(one(i) for i in range(requests))
    print(f"{requests} requests in {took:.0f} s", flush=True)
    for what, count in sorted(counts.items()):
        print(f"  {what:44} {count}")
    for item in bad[:10]:
        print(f"  {item}")
    report.expect(not bad, f"{len(bad)} answered wrongly")
    alive = await exchange(server.port, message(b"", "/health", "GET"))
    report.expect(status_of(alive) == 200, "the server is in good health")
    after = text_of(await exchange(server.port, message(chat(16, stream=True))))
    report.expect(after == before and after, f"and answers as before: {after!r}")
    await asyncio.sleep(12)  # connections that were left open are closed
    usage = server.usage()
    report.expect(usage[2] < 40, f"afterwards {usage[0]:.0f} MiB, {usage[1]} threads, {usage[2]} files")


async def run(arguments):
    server = Server(arguments.program, arguments.model, arguments.streams, arguments.cache_gb)
    report = Report(server)
    await soak(server, report, arguments.streams, arguments.seconds)
    await fuzz(server, report, arguments.requests, arguments.seed)
    report.expect(server.stop() == 0, "SIGTERM ends it with exit code 0")
    return report.failed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("model")
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--requests", type=int, default=10000)
    parser.add_argument("--cache-gb", type=float, default=0.3, help="small, so that what it comes to hold shows beside it")
    parser.add_argument("--seed", type=int, default=1)
    sys.exit(1 if asyncio.run(run(parser.parse_args())) else 0)


if __name__ == "__main__":
    main()
