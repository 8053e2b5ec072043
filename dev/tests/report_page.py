"""report_page.py PAGE RUN EVAL: whether a page of dev/report.py stands alone, is whole, and says what the run's trace
and the evaluation say. Reads it with html.parser, and its pictures as XML; needs no browser."""
import base64, html.parser, json, re, sys
import xml.etree.ElementTree as xml

VOID = {"meta", "link", "img", "input", "line", "br"}
class Page(html.parser.HTMLParser):
    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.open, self.ids, self.labels, self.pictures, self.rows, self.text = [], set(), set(), [], [], ""
    def handle_starttag(self, tag, attrs):
        a = dict(attrs)
        assert tag != "script" and not any(k.startswith("on") for k in a), f"a script: {tag} {a}"
        for k in ("src", "href"): assert a.get(k, "data:").startswith("data:"), f"not in the page: {a[k]}"
        if "id" in a: assert a["id"] not in self.ids, f"twice: {a['id']}"; self.ids.add(a["id"])
        if tag == "label": self.labels.add(a["for"])
        if tag == "img": self.pictures.append((a["alt"], a["src"]))
        if tag == "tr": self.rows.append({"cells": [], "tokens": []})
        if tag in ("td", "th"): self.rows[-1]["cells"].append("")
        if tag == "span" and a.get("class") == "t":
            self.rows[-1]["tokens"].append("")
            assert re.fullmatch(r"(--[akv]:#[0-9a-f]{4,8};?){3}", a["style"]), a["style"]
            assert "advantage" in a["title"], a["title"]
        if tag not in VOID: self.open.append(tag)
    def handle_endtag(self, tag):
        assert tag in VOID or self.open.pop() == tag, f"</{tag}> at {self.getpos()} closes another tag"
    def handle_startendtag(self, tag, attrs): self.handle_starttag(tag, attrs)
    def handle_data(self, data):
        self.text += data
        if "table" not in self.open: return
        if "td" in self.open or "th" in self.open: self.rows[-1]["cells"][-1] += data
        if self.open[-1] == "span" and self.rows[-1]["tokens"]: self.rows[-1]["tokens"][-1] += data

text = open(sys.argv[1], encoding="utf-8").read()
assert not re.search(r"url\(|@import|https?://", re.sub(r'src="data:[^"]*"', "", text)), "the page loads something"
page = Page()
page.feed(text)
page.close()
assert not page.open, f"never closed: {page.open}"
assert page.labels <= page.ids, "a label of nothing"
for alt, src in page.pictures:
    svg = xml.fromstring(base64.b64decode(src.split(",", 1)[1]))
    assert alt and svg.tag.endswith("svg"), alt
    for e in svg.iter():
        for k, v in e.attrib.items(): assert not k.endswith("href") or v.startswith(("#", "data:")), f"{alt} loads {v}"
alts = [alt for alt, _ in page.pictures]
assert alts.count("Mean reward") == 2, "pictures of the reward: in training and of the evaluations"
for wanted in ("Mean log F", "Distance to Best-of-N", "KL to the reference", "Win rate", "F-hat of a prompt"):
    assert any(a.startswith(wanted) for a in alts), f"no picture of {wanted}"

# every response that was kept, its tokens in order and its numbers
trace = [json.loads(line) for line in open(sys.argv[2] + "/trace.jsonl", encoding="utf-8")]
rows = [r for r in page.rows if r["tokens"]]
assert len(rows) == len(trace) > 0, f"{len(rows)} responses on the page, {len(trace)} in the trace"
for j, r in zip(trace, rows):
    pieces = ["■" if j["finished"] and t + 1 == len(j["ids"]) else s.replace("\r", "").replace("\n", "↵").replace(
        "\t", "⇥") or "▫" for t, s in enumerate(j["tokens"])]
    assert r["tokens"] == pieces, f"tokens: {r['tokens']}, kept are {pieces}"
    assert r["cells"][0] == "%.2f" % j["reward"] and r["cells"][1] == "%g/%d" % (j["k"], j["M"]), r["cells"]
    assert r["cells"][-1].startswith(j["prompt"]), r["cells"]
e = json.load(open(sys.argv[3], encoding="utf-8"))
for x in (e["win_rate"], e["kl_rb"], e["reward"], *e["distance"].values()):
    cell = "%.3f ± %.3f" % tuple(x)
    assert any(cell in r["cells"] for r in page.rows), f"the evaluation's {cell} is nowhere"
print(f"{sys.argv[1]}: stands alone, {len(page.pictures)} pictures, {len(rows)} responses as they were kept")
