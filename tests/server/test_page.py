"""The page at `/`, as it is sent. tests/browser looks at it in a browser."""

import base64
import hashlib
from html.parser import HTMLParser


class Parts(HTMLParser):
    """The texts of a page's scripts and styles, and everything that it would fetch or send."""

    def __init__(self, page):
        super().__init__()
        self.texts, self.links, self.policy, self._tag = {"script": [], "style": []}, [], "", ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self._tag = tag
        self.links += [value for name, value in attrs if name in ("src", "srcset", "action") or (tag, name) == ("link", "href")]
        if dict(attrs).get("http-equiv") == "Content-Security-Policy":
            self.policy = dict(attrs)["content"]

    def handle_data(self, data):
        if self._tag in self.texts:
            self.texts[self._tag].append(data)

    def handle_endtag(self, tag):
        self._tag = ""


def test_the_page_is_one_document_whose_policy_allows_only_its_own_script_and_style(client):
    reply = client.get("/")
    assert (reply.status, reply.headers["content-type"]) == (200, "text/html; charset=utf-8")
    html = reply.body.decode()
    assert "{{" not in html
    parts = Parts(html)
    assert all(link.startswith("data:") for link in parts.links)
    policy = reply.headers["content-security-policy"]
    assert policy == f"{parts.policy}; frame-ancestors 'none'"
    for tag in ("script", "style"):
        (text,) = parts.texts[tag]
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}';" in policy
    assert "default-src 'none'; " in policy
    assert "connect-src 'self'; " in policy


def test_the_page_has_less_than_40_kb(client):
    assert len(client.get("/").body) < 40_000
