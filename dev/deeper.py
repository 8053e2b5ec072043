#!/usr/bin/env python3
"""The same GPT-2 with more blocks: dev/deeper.py FOLDER OUT --blocks 6 (plain Python).

The new blocks stand on top, copies of the old ones in their order, but what each adds to the residual stream is
multiplied by zero (attn.c_proj and mlp.c_proj). So OUT is the same distribution with more to train: a policy that can
express more, from the same reference, by the same cache. (Chen, Goodfellow, Shlens, Net2Net, ICLR 2016, with zeros for
their identities.)"""
import argparse, json, os, re, shutil, struct

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("folder"); parser.add_argument("out"); parser.add_argument("--blocks", type=int, required=True)
args = parser.parse_args()
config = json.load(open(os.path.join(args.folder, "config.json"), encoding="utf-8"))
if config.get("model_type") != "gpt2": parser.error(f"{args.folder}: not a GPT-2")
old = config["n_layer"]
if args.blocks <= old: parser.error(f"--blocks {args.blocks}: {args.folder} has {old}: name more")

tensors = {} # name -> (dtype, shape, bytes)
for name in sorted(os.listdir(args.folder)):
    if not name.endswith(".safetensors"): continue
    with open(os.path.join(args.folder, name), "rb") as f:
        header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
        data = f.read()
    for tensor, x in header.items():
        if tensor != "__metadata__":
            tensors[tensor] = x["dtype"], x["shape"], data[slice(*x["data_offsets"])]
for tensor, (dtype, shape, data) in list(tensors.items()):
    block = re.fullmatch(r"((?:transformer\.)?h\.)(\d+)(\..*)", tensor)
    for i in range(int(block[2]) + old, args.blocks, old) if block else ():
        tensors[f"{block[1]}{i}{block[3]}"] = dtype, shape, bytes(len(data)) if "c_proj" in tensor else data

os.makedirs(args.out, exist_ok=True)
for name in os.listdir(args.folder):
    if name.endswith(".json") and "safetensors" not in name: shutil.copy(os.path.join(args.folder, name), args.out)
config["n_layer"] = args.blocks
with open(os.path.join(args.out, "config.json"), "w", encoding="utf-8") as f: json.dump(config, f, indent=2)
header, at = {"__metadata__": {"format": "pt"}}, 0
for tensor, (dtype, shape, data) in tensors.items():
    header[tensor] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
    at += len(data)
header = json.dumps(header).encode()
header += b" " * (-len(header) % 8)
with open(os.path.join(args.out, "model.safetensors"), "wb") as f:
    f.write(struct.pack("<Q", len(header)) + header)
    for _, _, data in tensors.values(): f.write(data)
