"""tensorboard_events.py EVENTS RUN: TensorBoard's own reader finds in event files what the run's log and trace say."""
import json, math, sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

events = EventAccumulator(sys.argv[1], size_guidance={"scalars": 0, "tensors": 0})
events.Reload()
want = {}
for line in open(sys.argv[2] + "/log.jsonl", encoding="utf-8"):
    j = json.loads(line)
    for k, y in j.items():
        if j["type"] != "config" and k not in ("type", "step") and y is not None: want.setdefault(k, {})[j["step"]] = y
assert set(want) == set(events.Tags()["scalars"]), set(want) ^ set(events.Tags()["scalars"])
for k, points in want.items():
    got = {e.step: e.value for e in events.Scalars(k)}
    assert got.keys() == points.keys(), k
    for step in got: assert math.isclose(got[step], points[step], rel_tol=1e-6, abs_tol=1e-30), (k, step)
trace = [json.loads(line) for line in open(sys.argv[2] + "/trace.jsonl", encoding="utf-8")]
prompts = {"responses/" + j["prompt"][-60:] for j in trace}
assert prompts == set(events.Tags()["tensors"]), prompts
print(f"{sys.argv[1]}: {len(want)} scalars and {len(prompts)} prompts' texts, read by TensorBoard")
