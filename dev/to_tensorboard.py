#!/usr/bin/env python3
"""Makes the logs of runs into TensorBoard's event files, for those who live there.

    python3 dev/to_tensorboard.py RUN... [--out DIR]        (packages: tensorboard, dev/requirements.txt)
    tensorboard --logdir DIR

A RUN is the --out folder of `vbon train`, `offline`, `sft` or `reward`. Every metric of its log.jsonl becomes a scalar
of its own name at the record's step, and the responses that `train --trace N` kept become texts, by prompt. DIR
(runs/tensorboard) gets a folder a run, whose event files are made anew. The log has no time of day: events are dated so
that the last one has the file's, and the others the seconds that the log says were spent."""
import argparse, os, sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from report import Run, die, names, number

try:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.text.metadata import create_summary_metadata
    from tensorboard.summary.writer.event_file_writer import EventFileWriter
    from tensorboard.util.tensor_util import make_tensor_proto
except ImportError: die("tensorboard is needed: python3 -m pip install tensorboard")

def texts(js): # a table of Markdown
    line = lambda s: " ".join(s.split()).replace("|", "\\|")
    rows = [f"| {j['reward']:.2f} | {j['k']:g}/{j['M']} | {line(j['response'])} |" if "k" in j else
        f"| {j['reward']:.2f} | | {line(j['response'])} |" for j in js]
    return "\n".join(["| reward | k/M | response |", "|---|---|---|"] + rows)

def convert(run, folder):
    os.makedirs(folder, exist_ok=True)
    for f in os.listdir(folder):
        if f.startswith("events.out.tfevents."): os.remove(os.path.join(folder, f))
    writer = EventFileWriter(folder)
    seconds = lambda j: sum(v for k, v in j.items() if k.startswith("time/") and number(v))
    end = os.path.getmtime(os.path.join(run.folder, "log.jsonl"))
    left, dates, count = sum(map(seconds, run.records)), {}, 0
    def add(step, value):
        writer.add_event(Event(wall_time=dates.get(step, end), step=step, summary=Summary(value=[value])))
    for j in run.records:
        left -= seconds(j)
        dates[j["step"]] = end - left
        for key, y in j.items():
            if key in ("type", "step") or y is None: continue
            add(j["step"], Summary.Value(tag=key, simple_value=y))
            count += 1
    groups = {}
    for j in run.trace: groups.setdefault((j["step"], j["prompt"]), []).append(j)
    for (step, prompt), js in groups.items():
        add(step, Summary.Value(tag="responses/" + prompt[-60:], metadata=create_summary_metadata("", ""),
            tensor=make_tensor_proto([texts(js).encode()])))
    writer.close()
    print(f"wrote {folder}: {count} numbers, {len(groups)} texts")

def main():
    p = argparse.ArgumentParser(description="makes logs of vbon into TensorBoard's event files")
    p.add_argument("run", nargs="+", help="the --out folder of a run")
    p.add_argument("--out", default="runs/tensorboard", help="the folder for tensorboard --logdir (runs/tensorboard)")
    a = p.parse_args()
    runs = [Run(r) for r in a.run]
    for run, name in zip(runs, names(a.run)): convert(run, os.path.join(a.out, name))

if __name__ == "__main__": main()
