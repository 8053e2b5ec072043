#!/usr/bin/env python3
"""Makes a folder's pytorch_model*.bin into safetensors.

    python3 dev/to_safetensors.py FOLDER        (packages: dev/requirements.txt; where there are safetensors already it
    needs nothing)

A .bin file is a pickle, and a pickle is a program. It is read with torch's weights_only loader, which builds tensors
and plain containers and executes nothing else; a file that wants more is refused. Each file becomes one .safetensors
with every name, also where two are one in memory: which of them config.json ties (a head to its embedding) is for the
reader to say. All are written aside and renamed when the last is there, the index of several at the very end: the one
file or the index says that the folder is whole, and without it all are made anew. An index, theirs or ours, that names
a file which is not there is an error."""
import glob, json, os, re, sys, zipfile

def convert(path, out):
    """The tensors of `path` written to `out`; returns their names."""
    import torch
    from safetensors.torch import save_file
    try: state = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as e: sys.exit(f"{path}: not a file of plain tensors: {str(e).splitlines()[0]}")
    if not isinstance(state, dict) or not all(isinstance(k, str) and isinstance(v, torch.Tensor)
        for k, v in state.items()):
        sys.exit(f"{path}: not a table of tensors")
    kept = {k: v.contiguous().clone() for k, v in state.items()}
    save_file(kept, out, metadata={"format": "pt"})
    return list(kept)

def whole(folder, name):
    """Whether the folder has the weights `name`: in one file, or with an index all of whose files are there."""
    if os.path.exists(os.path.join(folder, name)): return True
    index = os.path.join(folder, name + ".index.json")
    if not os.path.exists(index): return False
    with open(index, encoding="utf-8") as f: files = sorted(set(json.load(f)["weight_map"].values()))
    for x in files:
        if not os.path.exists(os.path.join(folder, x)):
            sys.exit(f"{index} names {x}, which is not there: fetch it, or delete the index and begin again")
    return True

def main(folder):
    if whole(folder, "model.safetensors"): return
    if not whole(folder, "pytorch_model.bin"):
        sys.exit(f"{folder}: neither model.safetensors nor pytorch_model.bin, in one file or in several with their "
            f"index")
    bins, where, index = sorted(glob.glob(os.path.join(folder, "pytorch_model*.bin"))), {}, os.path.join(folder,
        "model.safetensors.index.json")
    out = [re.sub(r"pytorch_(model[^/]*)\.bin$", r"\1.safetensors", b) for b in bins]
    for b, o in zip(bins, out): where.update((name, os.path.basename(o)) for name in convert(b, o + ".tmp"))
    if len(out) > 1:
        with open(index + ".tmp", "w", encoding="utf-8") as f:
            json.dump({"metadata": {}, "weight_map": where}, f, indent=1)
        out.append(index)
    for o in out: os.replace(o + ".tmp", o)

if __name__ == "__main__":
    if len(sys.argv) != 2: sys.exit(__doc__)
    main(sys.argv[1])
