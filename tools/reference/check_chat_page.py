"""Uses the chat page of `qianli serve` in headless Chromium as a visitor does, on a desk and on a phone.

usage: check_chat_page.py PROGRAM MODEL [--chromium chromium] [--screenshots FOLDER]

Answers at temperature 0 must be those of the API. Nothing may be asked of another server, nothing may be logged as an error.
Chromium is spoken to through its debugging pipe (https://chromedevtools.github.io/devtools-protocol/): messages of JSON with a
zero byte behind each. Python's standard library alone; exit code 1 where something failed."""

import argparse
import base64
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import urllib.request

from served import expect, start

KEY = "secret"
LOOKS = {"desk": {"width": 1280, "height": 800, "deviceScaleFactor": 1, "mobile": False},
         "phone": {"width": 360, "height": 640, "deviceScaleFactor": 2, "mobile": True}}


class Browser:
    def __init__(self, chromium, folder):
        to_read, self.write_end = os.pipe()
        self.read_end, to_write = os.pipe()
        # Chromium reads from 3 and writes to 4.
        command = ["bash", "-c", f'exec "$@" 3<&{to_read} 4>&{to_write}', "-", chromium, "--headless=new", "--no-sandbox",
                   "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe", f"--user-data-dir={folder}", "about:blank"]
        self.process = subprocess.Popen(command, pass_fds=[to_read, to_write], stderr=subprocess.DEVNULL)
        os.close(to_read)
        os.close(to_write)
        self.held, self.count, self.events = b"", 0, []

    def next_message(self):
        while b"\0" not in self.held:
            part = os.read(self.read_end, 1 << 16)
            if not part:
                sys.exit("Chromium ended")
            self.held += part
        message, self.held = self.held.split(b"\0", 1)
        return json.loads(message)

    def call(self, method, session=None, **params):
        self.count += 1
        message = {"id": self.count, "method": method, "params": params} | ({"sessionId": session} if session else {})
        os.write(self.write_end, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.next_message()
            if answer.get("id") != self.count:
                self.events.append(answer)
                continue
            if "error" in answer:
                sys.exit(f"{method}: {answer['error']['message']}")
            return answer["result"]

    def close(self):
        self.call("Browser.close")
        self.process.wait(30)


class Page:
    def __init__(self, browser, look, url):
        self.browser = browser
        target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(domain + ".enable")
        self.call("Emulation.setDeviceMetricsOverride", **LOOKS[look])
        self.call("Emulation.setTouchEmulationEnabled", enabled=LOOKS[look]["mobile"])
        self.call("Page.navigate", url=url)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank' && at('model').textContent")

    def call(self, method, **params):
        return self.browser.call(method, self.session, **params)

    def run(self, script):
        result = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in result:
            raise RuntimeError(result["exceptionDetails"]["exception"].get("description", script))
        return result["result"].get("value")

    def until(self, condition):
        """Looks at every frame for as long as a minute."""
        script = f"""new Promise((done, fail) => {{
          const late = performance.now() + 60000;
          const look = () => {{
            let holds = false;
            try {{ holds = {condition}; }} catch {{}}
            if (holds) done(true);
            else if (performance.now() > late) fail(new Error("not in a minute"));
            else requestAnimationFrame(look);
          }};
          look();
        }})"""
        try:
            self.run(script)
        except RuntimeError as error:
            if "navigat" not in str(error) and "destroyed" not in str(error):
                raise
            self.run(script)

    def press(self, element):
        """A click in the middle of what the expression names."""
        x, y = self.run(f"(() => {{ const b = {element}.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; }})()")
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def type(self, element, text):
        self.run(f"{element}.focus(); {element}.select?.()")
        self.call("Input.insertText", text=text)

    def enter(self):
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", text="\r", windowsVirtualKeyCode=13)

    def screenshot(self, path):
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))


def ask_api(port, messages):
    body = {"messages": messages, "temperature": 0, "max_tokens": 12}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/chat/completions", json.dumps(body).encode(),
                                     {"Authorization": "Bearer " + KEY, "Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(request))["choices"][0]["message"]["content"]


def visit(page, look, port):
    desk = look == "desk"
    expect("key is needed" in page.run("at('model').textContent"), f"{look}: says that a key is needed")
    page.press("at('open-settings')")
    page.until("at('settings').open")
    inside = "(e => { const b = e.getBoundingClientRect(); return b.left >= 0 && b.right <= innerWidth; })"
    expect(page.run(f"{inside}(at('settings'))"), f"{look}: the settings fit")
    for field, value in (("key", KEY), ("temperature", "0"), ("max_tokens", "12")):
        page.type(f"at('{field}')", value)
    page.press("document.querySelector('dialog .main')")
    page.until("at('model').textContent === 'tiny'")
    expect(True, f"{look}: names the model")

    messages = []
    for question in ("the cat", "a <b>dog</b>\nand a river"):
        messages.append({"role": "user", "content": question})
        page.type("at('words')", question)
        if desk:
            page.enter()
        else:
            page.press("at('send')")
        page.until(f"!running && history.length === {len(messages) + 1}")
        messages.append({"role": "assistant", "content": page.run("history.at(-1).content")})
        expect(messages[-1]["content"] == ask_api(port, messages[:-1]), f"{look}: the API's answer to {question!r}")
        expect("tokens/s" in page.run("[...document.querySelectorAll('.note')].at(-1).textContent"), f"{look}: and its speed")
    expect(page.run("document.querySelectorAll('.turn').length") == 4, f"{look}: two questions, two answers")
    expect(page.run("document.querySelectorAll('.turn.user b').length") == 0, f"{look}: questions are text")
    wide = page.run("Math.max(...[...document.querySelectorAll('body *')].map(e => e.getBoundingClientRect().right))")
    expect(wide <= LOOKS[look]["width"] and page.run("document.documentElement.scrollWidth <= innerWidth"), f"{look}: nothing juts out")
    small = page.run("[...document.querySelectorAll('header button, #send')].filter(b => b.offsetHeight < 40).length")
    expect(small == 0, f"{look}: buttons can be hit with a thumb")

    # What answers may hold, drawn by the page's own function.
    page.run("""globalThis.drawn = document.createElement('div');
      show(drawn, '<think>so</think># Title\\n- one\\n- **two** `x`\\n\\n3. three\\n```\\n<script>alert(1)<\\/script>\\n```\\n<img src=x onerror=alert(1)>')""")
    kinds = page.run("[...drawn.querySelectorAll('*')].map(e => e.tagName).join(' ')")
    expect(kinds == "DETAILS SUMMARY P H3 UL LI LI STRONG CODE OL LI PRE CODE P", f"{look}: Markdown, and no HTML of the model's: {kinds}")

    page.run("at('max_tokens').value = 1000000")
    page.type("at('words')", "too long")
    page.press("at('send')")
    page.until("!running && document.querySelector('.note.bad')")
    expect("max_tokens" in page.run("document.querySelector('.note.bad').textContent"), f"{look}: the server's refusal is shown")
    page.run("at('max_tokens').value = ''")
    page.type("at('words')", "stop")
    # Sent and stopped before the server can answer.
    page.run("at('form').requestSubmit(); at('form').requestSubmit()")
    page.until("!running")
    expect(page.run("[...document.querySelectorAll('.note')].at(-1).textContent") == "stopped", f"{look}: an answer can be stopped")


def errors(events, port):
    """What went wrong in the browser, but for answers that the check asked to be refused."""
    origin = f"http://127.0.0.1:{port}/"
    for event in events:
        method, params = event.get("method"), event.get("params", {})
        if method == "Runtime.exceptionThrown":
            yield params["exceptionDetails"]["exception"].get("description", "an exception")
        if method == "Log.entryAdded" and params["entry"]["level"] == "error" and params["entry"]["source"] != "network":
            yield params["entry"]["text"]
        if method == "Network.requestWillBeSent":
            url = params["request"]["url"]
            if not url.startswith((origin, "data:", "about:")):
                yield "asked " + url


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program")
    parser.add_argument("model")
    parser.add_argument("--chromium", default="chromium")
    parser.add_argument("--screenshots", type=pathlib.Path)
    arguments = parser.parse_args()
    server, port = start(arguments.program, arguments.model, "--name", "tiny", "--api-key", KEY, "--precision", "fp32")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        browser = Browser(arguments.chromium, folder)
        for look in LOOKS:
            page = Page(browser, look, f"http://127.0.0.1:{port}/")
            visit(page, look, port)
            if arguments.screenshots:
                page.screenshot(arguments.screenshots / f"{look}.png")
        browser.close()
        found = sorted(set(errors(browser.events, port)))
        expect(not found, "no error in the browser, no other server asked" + "".join("\n        " + text for text in found))
    server.send_signal(signal.SIGTERM)
    expect(server.wait(60) == 0, "the server ends")
    sys.exit(expect.failed > 0)


if __name__ == "__main__":
    main()
