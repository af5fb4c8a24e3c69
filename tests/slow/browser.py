"""Chromium without a window, driven through its DevTools pipe: no driver and no further package is needed."""

import base64
import json
import os
import select
import shutil
import subprocess
import time

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
MISSING = "needs Chromium: apt-get install chromium, or another package that puts `chromium` on the path"
PATIENCE = 300.0  # seconds for anything that the page should do: a busy machine is slow


class Browser:
    """A browser process. `page()` opens a page with cookies and storage of its own."""

    def __init__(self, folder):
        inward, self.outward = os.pipe()
        self.inbound, outward = os.pipe()
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--disable-background-networking", "--no-first-run", f"--user-data-dir={folder}", "about:blank"]
        self.process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{inward} 4>&{outward}', "-", CHROMIUM, *options], pass_fds=(inward, outward), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(inward)
        os.close(outward)
        self.number, self.buffer, self.events = 0, b"", []

    def send(self, method, session=None, **params):
        self.number += 1
        message = {"id": self.number, "method": method, "params": params} | ({"sessionId": session} if session else {})
        os.write(self.outward, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self.number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            self.events.append(answer)

    def _next(self):
        while b"\0" not in self.buffer:
            assert select.select([self.inbound], [], [], PATIENCE)[0], "the browser does not answer"
            part = os.read(self.inbound, 1 << 16)
            assert part, "the browser has gone"
            self.buffer += part
        message, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(message)

    def page(self, url, *, width=1440, dark=False):
        return Page(self, url, width, dark)

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.outward)
        os.close(self.inbound)


class Page:
    def __init__(self, browser, url, width, dark):
        self.browser = browser
        context = browser.send("Target.createBrowserContext")["browserContextId"]
        target = browser.send("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        self.session = browser.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.send("Runtime.enable")
        self.send("Page.enable")
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=844, deviceScaleFactor=1, mobile=width < 500)
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
        self.send("Page.navigate", url=url)

    def send(self, method, **params):
        return self.browser.send(method, self.session, **params)

    def js(self, expression):
        found = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, (expression, found["exceptionDetails"])
        return found["result"].get("value")

    def until(self, expression):
        """Wait until the expression is true. Between two pages there is none to evaluate it in."""
        end = time.monotonic() + PATIENCE
        while not self.js(f"(() => {{ try {{ return Boolean({expression}); }} catch {{ return false; }} }})()"):
            assert time.monotonic() < end, (expression, self.js("document.body && document.body.innerText"))
            time.sleep(0.05)

    def type(self, text):
        self.send("Input.insertText", text=text)

    def press(self, key, code="", *, alt=False, ctrl=False):
        held = {"modifiers": alt * 1 + ctrl * 2, "key": key, "code": code or key, "windowsVirtualKeyCode": {"Enter": 13, "Escape": 27}.get(key, ord(key[0].upper()))}
        text = {} if alt or ctrl or (len(key) > 1 and key != "Enter") else {"text": "\r" if key == "Enter" else key}
        self.send("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", **held, **text)
        self.send("Input.dispatchKeyEvent", type="keyUp", **held)

    def shot(self, path):
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"]))

    def complaints(self):
        """What went wrong on this page so far: exceptions and errors on its console."""
        mine = [e for e in self.browser.events if e.get("sessionId") == self.session]
        return [e["params"] for e in mine if e["method"] == "Runtime.exceptionThrown" or (e["method"] == "Runtime.consoleAPICalled" and e["params"]["type"] == "error")]
